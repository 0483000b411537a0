"""Parquet and Arrow files, read with pyarrow, an optional library; its only importer."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias
from urllib.parse import unquote

from qdrant_embed.errors import InputError, MissingDependencyError

Format: TypeAlias = Literal["parquet", "arrow"]

_FORMATS: Mapping[str, Format] = {".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow"}
_KINDS = ".parquet, .arrow or .feather"
MARK = b"qdrant_embed"  # of a column of a file of ours
JSON = "json"
VECTOR = "vector"

_GROUP = 4096  # rows that are written together
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
_BUFFER = 1 << 16  # bytes; else a whole column of a row group is read


def pyarrow(purpose: str) -> Any:
    """Return the module.

    Args:
        purpose: what needs it, for the error.

    Raises:
        MissingDependencyError: if it is not installed.
    """
    try:
        import pyarrow as module
    except ImportError as error:
        raise MissingDependencyError("pyarrow", purpose, extra="arrow") from error
    return module


def table_format(path: Path) -> Format | None:
    """Return the format that a file's name says it has; ``None`` if that is another one."""
    return _FORMATS.get(path.suffix.lower())


class Reading(Protocol):
    """Reads the record batches of an open file."""

    def __call__(self, columns: Sequence[str]) -> Iterator[Any]:
        """Yield record batches with these columns."""


@dataclass(frozen=True)
class TableFile:
    """A Parquet or Arrow file.

    Attributes:
        path: where it is.
        constants: columns that its folders' names tell, as ``year=2024``, with their value.
        rows: number of its rows; ``None`` if that has not been read.
    """

    path: Path
    constants: Mapping[str, str | int | None] = field(default_factory=dict)
    rows: int | None = None

    @contextmanager
    def opened(self, size: int) -> Iterator[tuple[Any, Reading]]:
        """Open the file, and give its schema, and what reads its columns.

        Args:
            size: number of rows in a batch at most, where the file is not already in batches.

        Raises:
            InputError: if it cannot be read.
        """
        arrow = pyarrow(f"reading {self.path}")
        with _explained(self.path):
            if table_format(self.path) == "parquet":
                from pyarrow import parquet

                found = parquet.ParquetFile(self.path, buffer_size=_BUFFER, pre_buffer=False)
                reading = partial(_read_parquet, found, size)
                schema = found.schema_arrow
            else:
                found = arrow.memory_map(str(self.path))
                batches = _arrow_batches(arrow, found)
                schema, reading = batches.schema, partial(_read_arrow, batches)
        try:
            yield schema, lambda columns: self._each(reading(columns))
        finally:
            found.close()

    def _each(self, batches: Iterator[Any]) -> Iterator[Any]:
        while True:
            with _explained(self.path):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch


def give_memory_back() -> None:
    """Have pyarrow give back to the system what it frees, from now on, in the whole process.

    Raises:
        MissingDependencyError: if pyarrow is not installed.
    """
    arrow = pyarrow("reading Parquet and Arrow files")
    arrow.set_memory_pool(arrow.system_memory_pool())


def open_tables(path: Path) -> list[TableFile]:
    """Return a file, or those of a folder and its subfolders, in the order of their names.

    Raises:
        InputError: if there is none, or one of another kind, or a file cannot be read.
        MissingDependencyError: if pyarrow is not installed.
    """
    if not os.path.isdir(path):  # which has no error for what cannot be a path
        if table_format(path) is None:
            raise InputError(
                f"{str(path)!r:.200} is no {_KINDS} file, and no folder of some; read other files "
                "with pandas or Polars, say, and pass the DataFrame; texts go to add()"
            )
        pyarrow(f"reading {path}")
        with _explained(path), path.open("rb"):
            pass
        if table_format(path) != "parquet":
            return [TableFile(path)]
        from pyarrow import parquet

        with _explained(path):
            return [TableFile(path, rows=parquet.read_metadata(path).num_rows)]
    files = sorted(
        each
        for each in path.rglob("*")
        if each.is_file() and not each.name.startswith((".", "_"))  # marks that writers leave
    )
    if others := [each for each in files if table_format(each) is None]:
        raise InputError(f"folder {path} has {others[0].name}: only {_KINDS} files are read")
    if not files:
        raise InputError(f"folder {path} has no {_KINDS} files")
    pyarrow(f"reading {path}")
    return [TableFile(each, _constants(each.relative_to(path))) for each in files]


@dataclass(frozen=True)
class TableColumn:
    """A column of a file that is written.

    Attributes:
        name: its name.
        kind: ``bool``, ``int``, ``float``, ``str``, ``id`` for whole numbers from 0, ``list`` and
            one of these, `JSON` for any values as JSON, or ``vector``, ``vectors`` and the
            dimension, or ``sparse``.
    """

    name: str
    kind: str

    @property
    def mark(self) -> bytes | None:
        """What the file says of the column to `add_frame`, if anything."""
        if self.kind == JSON:
            return JSON.encode()
        return VECTOR.encode() if self.kind.startswith((VECTOR, "sparse")) else None


class TableWriter:
    """Writes a Parquet file page by page.

    Args:
        path: the file.
        columns: its columns.

    Raises:
        MissingDependencyError: if pyarrow is not installed.
    """

    def __init__(self, path: Path, columns: Sequence[TableColumn]) -> None:
        self._arrow = arrow = pyarrow(f"writing {path}")
        from pyarrow import parquet

        self._columns = columns
        self._schema = arrow.schema(
            arrow.field(
                column.name,
                _type(arrow, column.kind),
                metadata=None if column.mark is None else {MARK: column.mark},
            )
            for column in columns
        )
        self._writer = parquet.ParquetWriter(path, self._schema)
        self._unwritten: list[Any] = []

    def write(self, rows: Mapping[str, Sequence[Any]]) -> None:
        """Write the values of each column.

        Raises:
            InputError: if a value is of another kind than its column.
        """
        arrays = []
        for column, field_ in zip(self._columns, self._schema, strict=True):
            values = rows[column.name]
            if column.kind == JSON:
                values = [
                    None if one is None else json.dumps(one, ensure_ascii=False) for one in values
                ]
            try:
                arrays.append(self._arrow.array(values, field_.type))
            except (ValueError, TypeError, OverflowError) as error:
                raise InputError(
                    f"points were changed while they were exported, or {column.name!r} of one "
                    f"cannot be written ({error}); export them again when nobody writes"
                ) from error
        self._unwritten.append(self._arrow.record_batch(arrays, schema=self._schema))
        if sum(batch.num_rows for batch in self._unwritten) >= _GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._unwritten:
            self._writer.write_table(self._arrow.Table.from_batches(self._unwritten))
            self._unwritten.clear()

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, raised: object, *_: object) -> None:
        if raised is None:
            self._flush()
        self._writer.close()


def _type(arrow: Any, kind: str) -> Any:
    name, _, rest = kind.partition(" ")
    if name == "list":
        return arrow.list_(_type(arrow, rest))
    if name in (VECTOR, "vectors"):
        vector = arrow.list_(arrow.float32(), int(rest))
        return vector if name == VECTOR else arrow.list_(vector)
    if name == "sparse":
        indices, values = arrow.list_(arrow.uint32()), arrow.list_(arrow.float32())
        return arrow.struct({"indices": indices, "values": values})
    types = {"bool": "bool", "int": "int64", "float": "float64", "id": "uint64"}
    return arrow.type_for_alias(types.get(name, "string"))


def _constants(path: Path) -> dict[str, str | int | None]:
    named = [part.partition("=") for part in path.parent.parts]
    return {unquote(name): _constant(unquote(value)) for name, equal, value in named if equal}


def _constant(text: str) -> str | int | None:
    if text == _NO_VALUE:
        return None
    is_whole = text.isascii() and text.isdecimal() and text == str(int(text))
    return int(text) if is_whole else text


def _read_parquet(file: Any, size: int, columns: Sequence[str]) -> Iterator[Any]:
    yield from file.iter_batches(batch_size=size, columns=[*columns], use_threads=False)


def _arrow_batches(arrow: Any, file: Any) -> Any:
    """Return the record batches of a file in either of the formats that Arrow has."""
    try:
        return arrow.ipc.open_file(file)
    except arrow.ArrowInvalid:
        file.seek(0)
        return arrow.ipc.open_stream(file)


def _read_arrow(batches: Any, columns: Sequence[str]) -> Iterator[Any]:
    if not hasattr(batches, "num_record_batches"):
        yield from (batch.select([*columns]) for batch in batches)
        return
    for index in range(batches.num_record_batches):
        yield batches.get_batch(index).select([*columns])


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError, NotImplementedError) as error:
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(error).split())
        raise InputError(f"{path} cannot be read: {reason}") from error
