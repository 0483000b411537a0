"""The points of a collection as a Parquet file, which `add_frame` reads again."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from qdrant_client import models

from qdrant_embed.collection.collection import Collection, Place
from qdrant_embed.collection.payload import ID_KEY, WHOLE_NUMBERS, user_id
from qdrant_embed.collection.stored import StoredCollection
from qdrant_embed.errors import InputError
from qdrant_embed.ingest.tables import JSON, TableColumn, TableWriter, table_format
from qdrant_embed.progress_bar import Progress

_PAGE = 500  # points in one response
_SCALARS: Mapping[type, str] = {bool: "bool", int: "int", float: "float", str: "str"}


async def export_points(collection: Collection, path: Path, progress: bool | None) -> int:
    """Write ids, payloads and vectors of all points to a Parquet file; return their number.

    The payloads are read twice, because a file tells the type of each column at its beginning. A
    key whose values are all of one type becomes a column of that type, others a column of JSON. A
    key that a point lacks is null.

    Args:
        collection: the collection.
        path: the file; it is there once it is complete.
        progress: whether to show a bar; by default if stderr is a terminal.

    Raises:
        InputError: if the file exists, has another ending or cannot be written, or points are
            changed while they are read.
        CollectionMismatchError: if the collection is an unfinished copy.
        CollectionNotFoundError: if it does not exist.
        MissingDependencyError: if pyarrow is not installed.
        ServerRefusal: if Qdrant refuses a request.
        ServerUnavailableError: if a request brings no answer.
    """
    if table_format(path) != "parquet":
        raise InputError(f"{path} would be a Parquet file; let its name end in .parquet")
    if path.exists():
        raise InputError(f"{path} exists; remove it, or name another file")
    stored = await collection.read_whole()
    keys: Sequence[models.ShardKey | None] = [None]
    if stored.has_custom_sharding:
        keys = await collection.shard_keys()
    kinds = _Kinds()
    total = await collection.count(keys)
    with Progress(f"export of {collection.name}", 2 * total, " points", shown=progress) as bar:
        read = 0
        async for page in _pages(collection, keys, with_vectors=False):
            await collection.io.compute(kinds.note, page)
            read += len(page)
            bar.advance(read, "reading types")
        layout = _Layout(stored, kinds)
        unfinished = path.with_name(f"{path.name}.part")
        written = 0
        try:
            with TableWriter(unfinished, layout.columns) as writer:
                async for page in _pages(collection, keys, with_vectors=True):
                    await collection.io.compute(writer.write, layout.rows(page))
                    written += len(page)
                    bar.advance(read + written, "writing")
            os.replace(unfinished, path)
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror or error}") from error
        finally:
            unfinished.unlink(missing_ok=True)
    return written


async def _pages(
    collection: Collection, keys: Sequence[models.ShardKey | None], *, with_vectors: bool
) -> AsyncIterator[Sequence[models.Record]]:
    place: Place | None = Place() if keys else None
    while place is not None:
        page = await collection.page(
            place, keys, _PAGE, with_payload=True, with_vectors=with_vectors
        )
        if page.records:
            yield page.records
        place = page.following


class _Kinds:
    """The kinds of values that the points have under each key of their payloads."""

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self.payload: dict[str, set[str]] = {}

    def note(self, points: Iterable[models.Record]) -> None:
        for point in points:
            self.ids.add(_SCALARS[type(user_id(point))])
            for key, value in (point.payload or {}).items():
                if key == ID_KEY:
                    continue
                seen = self.payload.setdefault(key, set())
                if value is not None:
                    seen.add(_kind(value))


def _kind(value: Any) -> str:
    """Return the kind of a JSON value."""
    if (scalar := _scalar(value)) is not None:
        return scalar
    if isinstance(value, list):
        kinds = {_scalar(item) or JSON for item in value}
        if not kinds:
            return "list"
        if len(kinds) == 1 and JSON not in kinds:
            return f"list {kinds.pop()}"
    return JSON


def _scalar(value: Any) -> str | None:
    """Return the kind of a value that a column of its own can hold; ``None`` for others."""
    if type(value) is int and value not in WHOLE_NUMBERS:
        return None
    return _SCALARS.get(type(value))


def _column_kind(kinds: set[str]) -> str:
    """Return the kind of a column that has values of these kinds."""
    if "list" in kinds:
        kinds = kinds - {"list"} or {"list str"}
        if len(kinds) == 1 and not next(iter(kinds)).startswith("list "):
            return JSON
    return next(iter(kinds)) if len(kinds) == 1 else JSON if kinds else "str"


class _Layout:
    """The columns of a file, and how points become its rows.

    The id is ``id``; a payload has a column for each key; vectors are ``vector``, or
    ``vector NAME``. Where a payload has such a key, lines come before the other name.
    """

    def __init__(self, stored: StoredCollection, kinds: _Kinds) -> None:
        self._payload = {key: _column_kind(seen) for key, seen in kinds.payload.items()}
        ids = {frozenset({"int"}): "id", frozenset({"str"}): "str"}
        self._ids = ids.get(frozenset(kinds.ids), JSON if kinds.ids else "str")
        self._id = self._free("id")
        self._vectors: dict[str, tuple[str, str]] = {}
        for name, params in stored.vectors.items():
            kind = "vector" if params.multivector_config is None else "vectors"
            self._vectors[name] = self._vector(name), f"{kind} {params.size}"
        for name in stored.sparse_vectors:
            self._vectors[name] = self._vector(name), "sparse"

    def _free(self, name: str) -> str:
        while name in self._payload:
            name = f"_{name}"
        return name

    def _vector(self, name: str) -> str:
        return self._free(f"vector {name}" if name else "vector")

    @property
    def columns(self) -> list[TableColumn]:
        """The columns in their order."""
        payload = [TableColumn(key, kind) for key, kind in self._payload.items()]
        vectors = [TableColumn(column, kind) for column, kind in self._vectors.values()]
        return [TableColumn(self._id, self._ids), *payload, *vectors]

    def rows(self, points: Sequence[models.Record]) -> dict[str, list[Any]]:
        """Return the values of each column.

        Raises:
            InputError: if a point has a key that none had before.
        """
        rows: dict[str, list[Any]] = {self._id: [user_id(point) for point in points]}
        payloads = [point.payload or {} for point in points]
        new = {key for payload in payloads for key in payload} - self._payload.keys() - {ID_KEY}
        if new:
            raise InputError(
                f"points were added or changed while they were exported ({min(new)!r} is new); "
                "export them again when nobody writes"
            )
        for key in self._payload:
            rows[key] = [payload.get(key) for payload in payloads]
        for name, (column, _) in self._vectors.items():
            rows[column] = [_vector_of(point, name) for point in points]
        return rows


def _vector_of(point: models.Record, name: str) -> Any:
    found: Any = point.vector
    vector = found.get(name) if isinstance(found, dict) else None if name else found
    if isinstance(vector, models.SparseVector):
        return {"indices": vector.indices, "values": vector.values}
    return vector
