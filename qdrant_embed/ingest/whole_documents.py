"""Documents read back whole, by their ids or all of them, and changes of their metadata.

A document that is stored in chunks has one point for each; the first has the document's own id, and
the ids of the others follow from it. So a document is read by ids alone, without a filter.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast
from uuid import UUID

from qdrant_client import models

from qdrant_embed.collection.collection import Collection
from qdrant_embed.collection.payload import CHUNK_KEY, PayloadCodec, chunk_facts, user_id
from qdrant_embed.encoder.run.batching import windows
from qdrant_embed.engines.points import Kept, json_size, payload_operation
from qdrant_embed.errors import DocumentNotFoundError, InputError, check_whole
from qdrant_embed.ingest.chunks import (
    content_digest,
    joined_text,
    update_digest,
)
from qdrant_embed.ingest.documents import Document, checked_metadata
from qdrant_embed.ingest.ids import canonical_json, chunk_id, point_id, points_by_id
from qdrant_embed.ingest.values import as_column

DocumentId: TypeAlias = int | str | UUID

_PAGE = 1000  # points in one response


@dataclass(frozen=True)
class StoredDocument(Document):
    """A document as a collection has it: whole, also if it is stored in chunks.

    `add` accepts it like any `Document`, for instance to copy documents to another collection.

    Attributes:
        text: the text that was added; ``""`` for a point that was stored without one.
        metadata: the metadata, and whatever else the payload has besides the text and the keys of
            this package.
        id: the id that `add` returned: a whole number, a UUID with hyphens, or the str that was
            passed.
        complete: whether all chunks are stored. After an `add` that was killed some may be missing
            or belong to another text: spaces take their place in the text. Add the document again.
    """

    metadata: dict[str, Any] = field(default_factory=dict)
    id: int | str = field(kw_only=True)
    complete: bool = field(default=True, kw_only=True)


@dataclass(frozen=True)
class ScrollOptions:
    """The options of `scroll_documents`, which describes them."""

    filter: models.Filter | None = None
    after: DocumentId | None = None
    batch_size: int = 256
    shard_key_selector: models.ShardKeySelector | None = None

    def __post_init__(self) -> None:
        check_whole("batch_size", self.batch_size, 1)
        _ = self.first

    @property
    def first(self) -> int | str | None:
        """The id of the point to begin with; its own document is left out."""
        return None if self.after is None else point_id(self.after)


@dataclass(frozen=True)
class _Found:
    """A document, and its points with their payloads, the first one first."""

    document: StoredDocument
    points: Sequence[models.Record]


async def get_documents(
    collection: Collection,
    ids: Iterable[DocumentId],
    *,
    shard_key_selector: models.ShardKeySelector | None,
) -> list[StoredDocument | None]:
    """Return each document, or ``None``.

    Raises:
        As `QdrantEmbedMixin.get_documents` does.
    """
    given = await collection.io.compute(points_by_id, ids)
    points = [point for _, point in given]
    found: dict[int | str, _Found] = {}
    if points:
        await collection.check_is_whole()
    for some in windows(dict.fromkeys(points), _PAGE):
        found |= await _find(collection, some, shard_key_selector)
    return [found[point].document if point in found else None for point in points]


async def update_metadata(
    collection: Collection,
    ids: Iterable[DocumentId],
    metadata: Mapping[str, Any] | Iterable[Mapping[str, Any]],
    *,
    wait: bool,
    shard_key_selector: models.ShardKeySelector | None,
) -> None:
    """Set metadata of documents, in all their chunks.

    Raises:
        As `QdrantEmbedMixin.update_metadata` does.
    """
    changes = await collection.io.compute(_changes, ids, metadata, collection.codec)
    if changes:
        await collection.check_is_whole()
    if len(changes) > _PAGE:
        there: set[object] = set()
        for some in windows(changes, _PAGE):
            records = await collection.requests.retrieve(
                some, with_payload=False, shard_key_selector=shard_key_selector
            )
            there.update(record.id for record in records)
        _check_found(collection.name, changes, there)

    async def update(part: Sequence[_Update]) -> None:
        operations = await collection.io.compute(_operations, part, shard_key_selector)
        if operations:  # there are none without metadata
            await collection.requests.update(operations, _sizes(part), wait=wait)

    for some in windows(changes, _PAGE):
        found = await _find(collection, some, shard_key_selector)
        _check_found(collection.name, {point: changes[point] for point in some}, found.keys())
        part = [_Update(found[point], changes[point].metadata) for point in some]
        await collection.requests.in_parts(part, update, sizes=_sizes)
    if wait and changes:
        await collection.requests.flush()


class DocumentScroll:
    """Reads a collection's documents page by page, in the order of their points' ids.

    Of documents stored in chunks, it reads where each begins, and then the document. It holds no
    more than the documents of a page, or one if that has more chunks, and the ids of those to come.

    Args:
        collection: the collection.
        options: see `scroll_documents`.
    """

    def __init__(self, collection: Collection, options: ScrollOptions) -> None:
        self._collection, self._options = collection, options
        self._offset: Any = options.first
        self._ended = False
        self._chunked: bool | None = None
        self._coming: deque[tuple[str | int, int]] = deque()  # documents, and their chunks' number

    async def next_page(self) -> list[StoredDocument]:
        """Return the next documents; an empty list if there are no more.

        Raises:
            As `QdrantEmbedMixin.scroll_documents` does.
        """
        if self._chunked is None:
            self._chunked = (await self._collection.read_whole()).chunked
        page: list[StoredDocument] = []
        while not page and (self._coming or not self._ended):
            page = await self._of_chunks() if self._chunked else await self._of_points()
        return page

    async def _of_points(self) -> list[StoredDocument]:
        records = await self._records(self._options.batch_size, with_payload=True)
        codec = self._collection.codec
        return [_assembled(codec, record, []).document for record in records]

    async def _of_chunks(self) -> list[StoredDocument]:
        size = self._options.batch_size
        if not self._coming:
            # the position has no index, and strict mode refuses filters without one
            records = await self._records(max(size, _PAGE), with_payload=[CHUNK_KEY])
            self._coming.extend(
                (cast("str | int", record.id), _count(record))
                for record in records
                if _position(record) == 0
            )
        ids: list[str | int] = []
        chunks = 0
        while self._coming and (not ids or chunks + self._coming[0][1] <= size):
            document, count = self._coming.popleft()
            ids.append(document)
            chunks += count
        if not ids:
            return []
        found = await _find(self._collection, ids, self._options.shard_key_selector)
        return [found[document].document for document in ids if document in found]

    async def _records(self, limit: int, with_payload: Any) -> list[models.Record]:
        records, self._offset = await self._collection.requests.page(
            limit,
            scroll_filter=self._options.filter,
            offset=self._offset,
            with_payload=with_payload,
            shard_key_selector=self._options.shard_key_selector,
        )
        self._ended = self._offset is None
        return [record for record in records if record.id != self._options.first]


async def _find(
    collection: Collection,
    ids: Sequence[int | str],
    shard_key_selector: models.ShardKeySelector | None,
) -> dict[int | str, _Found]:
    """Return the documents whose first points have these ids, by these."""
    options: dict[str, Any] = {"with_payload": True, "shard_key_selector": shard_key_selector}
    records = await collection.requests.retrieve(ids, **options)
    firsts = {cast("str | int", each.id): each for each in records if _position(each) == 0}
    others: defaultdict[str | int, list[models.Record]] = defaultdict(list)
    left = {document: range(1, _count(first)) for document, first in firsts.items()}
    while left := {document: positions for document, positions in left.items() if positions}:
        asked = {
            chunk_id(document, position): (document, position)
            for document, positions in left.items()
            for position in positions[:_PAGE]
        }
        some_found = set()
        for some in windows(asked, _PAGE):
            for record in await collection.requests.retrieve(some, **options):
                document, position = asked[cast("str | int", record.id)]
                some_found.add(document)
                facts = chunk_facts(record.payload)
                if facts is not None and facts.position == position:
                    others[document].append(record)
        # a count is what somebody stored: nobody has so many chunks of which a thousand are missing
        left = {document: left[document][_PAGE:] for document in some_found}
    return {
        document: _assembled(collection.codec, first, others[document])
        for document, first in firsts.items()
    }


def _assembled(
    codec: PayloadCodec, first: models.Record, others: Iterable[models.Record]
) -> _Found:
    shown, metadata = user_id(first), codec.metadata(first.payload)
    facts = chunk_facts(first.payload)
    if facts is None:
        text, complete = codec.document(first.payload), CHUNK_KEY not in (first.payload or {})
        return _Found(StoredDocument(text, metadata, id=shown, complete=complete), [first])
    points = [first, *sorted(others, key=_position)]
    parts = [
        (each, codec.document(point.payload))
        for point in points
        if (each := chunk_facts(point.payload)) is not None and each.version == facts.version
    ]
    complete = len(parts) == facts.count
    document = StoredDocument(joined_text(parts), metadata, id=shown, complete=complete)
    return _Found(document, points)


def _position(point: models.Record) -> int:
    """Return the position of a chunk; 0 of a point that is a document of its own."""
    facts = chunk_facts(point.payload)
    return 0 if facts is None else facts.position


def _count(first: models.Record) -> int:
    facts = chunk_facts(first.payload)
    return 1 if facts is None else facts.count


@dataclass(frozen=True)
class _Change:
    """The metadata to set in a document, and the document's id as it was passed."""

    given: DocumentId
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class _Update:
    """A document, and the metadata to set in it."""

    found: _Found
    metadata: Mapping[str, Any]

    def __str__(self) -> str:
        return f"the metadata of document {self.found.document.id!r}"


def _changes(
    ids: Iterable[DocumentId],
    metadata: Mapping[str, Any] | Iterable[Mapping[str, Any]],
    codec: PayloadCodec,
) -> dict[int | str, _Change]:
    """Return what to change in each document, by the id of its first point."""
    given = points_by_id(ids)
    if isinstance(metadata, Mapping):
        same = checked_metadata(metadata, 0, codec)
        return {point: _Change(one, same) for one, point in given}
    metadata = as_column("metadata", metadata)
    _check_is_list(metadata)
    one_of: dict[bytes, Mapping[str, Any]] = {}  # equal metadata becomes one operation
    checked = (checked_metadata(each, index, codec) for index, each in enumerate(metadata))
    every = [one_of.setdefault(canonical_json(each), each) for each in checked]
    if len(every) != len(given):
        raise InputError(
            f"ids and metadata differ in length: there are {len(given)} ids, {len(every)} "
            "metadata; pass one dict for each id, or one dict for all"
        )
    changes: dict[int | str, _Change] = {}
    for (one, point), each in zip(given, every, strict=True):
        if point in changes:
            raise InputError(f"ids has {one!r:.60} twice, with metadata for each")
        changes[point] = _Change(one, each)
    return changes


def _check_is_list(metadata: object) -> None:
    if isinstance(metadata, str | bytes) or not isinstance(metadata, Iterable):
        raise InputError(
            f"metadata must be a dict, or a list with one dict for each id, not {metadata!r:.60} "
            f"({type(metadata).__name__})"
        )


def _check_found(name: str, changes: Mapping[int | str, _Change], there: Iterable[object]) -> None:
    """Raise `DocumentNotFoundError` unless all documents are there."""
    found = set(there)
    missing = [change.given for point, change in changes.items() if point not in found]
    if missing:
        shown = ", ".join(repr(one) for one in missing[:5])
        raise DocumentNotFoundError(
            f"collection {name!r} has no documents with {len(missing)} of the ids ({shown}"
            f"{', ...' if len(missing) > 5 else ''}): add them, or omit these ids; "
            "get_documents() returns None for them",
            missing_ids=missing,
        )


def _operations(
    part: Sequence[_Update], key: models.ShardKeySelector | None
) -> list[models.UpdateOperation]:
    """Return the operations that change documents, all of the metadata before the digests.

    If they are interrupted, `on_existing="skip"` takes none for unchanged that is not.
    """
    alike: dict[int, tuple[Mapping[str, Any], list[str | int]]] = {}
    operations: list[models.UpdateOperation] = []
    digests: list[models.UpdateOperation] = []
    for update in part:
        found, metadata = update.found, update.metadata
        ids = [cast("str | int", point.id) for point in found.points]
        if any(value is None for value in metadata.values()):
            operations += [
                payload_operation([one], metadata, Kept(point.payload or {}), key)
                for one, point in zip(ids, found.points, strict=True)
            ]
        elif metadata:
            alike.setdefault(id(metadata), (metadata, []))[1].extend(ids)
        if metadata and chunk_facts(found.points[0].payload) is not None:
            facts = update_digest(_updated_digest(found, metadata))
            chunk = models.SetPayload(payload=facts, key=CHUNK_KEY, points=[*ids], shard_key=key)
            digests.append(models.SetPayloadOperation(set_payload=chunk))
    operations += [payload_operation(ids, same, Kept({}), key) for same, ids in alike.values()]
    return operations + digests


def _updated_digest(found: _Found, metadata: Mapping[str, Any]) -> str:
    """Return the digest of the changed document; ``""`` if it was not what its digest says."""
    document, facts = found.document, chunk_facts(found.points[0].payload)
    if facts is None or content_digest(document.text, document.metadata) != facts.digest:
        return ""
    return content_digest(document.text, {**document.metadata, **metadata})


def _sizes(part: Sequence[_Update]) -> list[int]:
    return [
        sum(
            200 + json_size(update.metadata) + json_size(point.payload or {})
            for point in update.found.points
        )
        for update in part
    ]
