"""One `add`: reads documents, looks them up, encodes and stores them, and records what is stored.

Documents are processed in windows: one window is encoded while the previous one is stored and the
next one is read. `Adding` tracks what is next and what is stored; `add_documents` is the flow.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Literal, TypeAlias, TypeVar, cast
from uuid import UUID

from qdrant_client import models

from qdrant_embed.collection.collection import Collection
from qdrant_embed.collection.copies import LookUps
from qdrant_embed.collection.options import CollectionOptions, checked_options
from qdrant_embed.collection.payload import CHUNK_KEY, PayloadCodec
from qdrant_embed.collection.vectors import CollectionVectors
from qdrant_embed.encoder.run.batching import runs, windows
from qdrant_embed.engines.points import Kept, Points
from qdrant_embed.engines.server import NotAppliedError, in_one_line, is_full
from qdrant_embed.engines.wire import default_batch_size, uploads_in_flight
from qdrant_embed.errors import (
    FolderError,
    IngestError,
    InputError,
    PermissionRefusal,
    ServerRefusal,
    ServerUnavailableError,
    check_whole,
)
from qdrant_embed.flows.in_flight import InFlight
from qdrant_embed.flows.io import Background
from qdrant_embed.flows.progress import ProgressOption, Reporter
from qdrant_embed.flows.requests import CollectionRequests
from qdrant_embed.ingest.chunks import Replacement, StoredChunks, chunks_of
from qdrant_embed.ingest.documents import Document, InputDocument, is_sequence, pair
from qdrant_embed.ingest.foreign import Foreign
from qdrant_embed.ingest.frames import Columns, Frame, FrameRows
from qdrant_embed.ingest.ids import ContentIds, IdScheme, content_scheme, point_ids
from qdrant_embed.ingest.points import encode_points
from qdrant_embed.ingest.values import as_column

logger = logging.getLogger(__name__)

T = TypeVar("T")
C = TypeVar("C")

OnExisting: TypeAlias = Literal["overwrite", "skip", "error"]

WINDOW = 1024  # documents encoded while the previous window is stored
_CHARACTERS = 500_000  # in a window, unless one document has more, so long ones are stored early
_PAGE = 1000  # points in one response, documents in one deletion


@dataclass(frozen=True)
class AddOptions:
    """The options of one `add`, which describes them."""

    batch_size: int | None = None
    parallel: int | None = None
    wait: bool = True
    on_existing: OnExisting = "overwrite"
    progress: ProgressOption = None
    shard_key_selector: models.ShardKeySelector | None = None
    collection_options: CollectionOptions | None = None

    def __post_init__(self) -> None:
        checked_options(self.collection_options)
        if self.batch_size is not None:
            check_whole("batch_size", self.batch_size, 1)
        if self.on_existing not in ("overwrite", "skip", "error"):
            raise InputError(
                f"on_existing must be 'overwrite', 'skip' or 'error', not {self.on_existing!r}"
            )


class Adding:
    """The state of an `add`: what is read next, and what is known to be stored.

    Args:
        collection_name: name of the collection, for messages.
        documents: see `add`.
        metadata: see `add`.
        ids: see `add`.
        codec: encodes payloads.
        on_existing: see `add`.

    Raises:
        InputError: if lengths differ, or an item cannot be used.

    Attributes:
        stored_ids: ids of the documents known to be stored, from the first one on without a gap.
        unchanged: number of documents that were found to be stored already and unchanged.
        texts: all texts, if they are known from the start.
        total: number of documents; ``None`` if the input has no length.
        ids_tell_all: whether points with equal ids always have equal content, too.
        foreign: what points that exist have besides the documents.
        vector_name: name of the dense vector that points which exist may lack, if any may.
        replacement: the state of documents stored as several points each; ``None`` in a collection
            that is not chunked.
    """

    def __init__(
        self,
        collection_name: str,
        documents: Iterable[str | Document],
        metadata: Iterable[Mapping[str, Any]] | None,
        ids: Iterable[int | str | UUID] | IdScheme | None,
        codec: PayloadCodec,
        on_existing: OnExisting,
    ) -> None:
        self._name, self._codec, self._on_existing = collection_name, codec, on_existing
        documents = as_column("documents", documents)
        scheme = content_scheme(ids)
        self.ids_tell_all = scheme is not None and scheme.keys is None
        self.unchanged = 0
        random_ids = on_existing == "overwrite"
        place = documents.place if isinstance(documents, FrameRows) else None
        paired = pair(documents, metadata, ids, codec, random_ids=random_ids, place=place)
        self.texts = [
            document.text if isinstance(document, Document) else document
            for document in (documents if is_sequence(documents) else ())
        ]
        self.total = len(documents) if is_sequence(documents) else None  # type: ignore[arg-type] # checked to have a length
        if isinstance(documents, FrameRows):
            self.total = documents.total
        self._unread = runs(paired, lambda document: len(document.text), _CHARACTERS, WINDOW)
        self._in_flight: deque[InputDocument] = deque()
        self._noted: set[str | int] = set()
        self._sent: set[str | int] = set()
        self.stored_ids: list[str | int] = []
        self.replacement: Replacement | None = None
        self.foreign = Foreign(codec)
        self.vector_name: str | None = None

    def split_documents(self) -> None:
        """Expect each document to be stored as one or more points."""
        self.replacement = Replacement()

    @property
    def looked_up(self) -> models.WithPayloadInterface:
        """The part of the payload that `changed` needs of points that exist."""
        if self._on_existing != "skip":
            return self.foreign.look_up
        return not self.ids_tell_all

    @property
    def looked_up_vectors(self) -> bool | list[str]:
        """The vectors that `changed` needs of points that exist."""
        if self.vector_name is None or self._on_existing != "skip" or self.ids_tell_all:
            return False
        return [self.vector_name] if self.vector_name else True

    def next_window(self) -> list[InputDocument]:
        """Read and return the next documents; an empty list if there are no more."""
        window = next(self._unread, [])
        self._in_flight.extend(window)
        return window

    def changed(
        self, documents: Sequence[InputDocument], existing: Sequence[models.Record]
    ) -> list[InputDocument]:
        """Return the documents that must be stored, and count the others as stored.

        Args:
            documents: the documents of a window, without repeats.
            existing: the collection's points with their ids, and what is `looked_up`.

        Raises:
            InputError: if there are such points, and ``on_existing="error"``.
        """
        stored = {point.id: point for point in existing}
        found = [document for document in documents if document.point_id in stored]
        self._refuse(found, len(documents))
        unchanged: set[str | int] = set()
        if self._on_existing == "skip":
            unchanged = {
                document.point_id
                for document in found
                if self.ids_tell_all
                or document.is_in(stored[document.point_id].payload or {}, self._codec)
            }
            unchanged -= self._without_vector(existing)
        for document in found:
            if document.point_id not in unchanged:
                payload = document.payload(self._codec)
                self.foreign.note(stored[document.point_id], payload.keys())
        return self._without(documents, unchanged)

    def changed_chunked(
        self, documents: Sequence[InputDocument], stored: StoredChunks, replacement: Replacement
    ) -> list[InputDocument]:
        """Like `changed`, for documents stored as several points each."""
        found = [document for document in documents if stored.of(document)]
        self._refuse(found, len(documents))
        unchanged: set[str | int] = set()
        if self._on_existing == "skip":
            unchanged = {document.point_id for document in found if stored.are_all_of(document)}
        changed = (document for document in found if document.point_id not in unchanged)
        replacement.expect(changed, stored)
        return self._without(documents, unchanged)

    def _without_vector(self, points: Sequence[models.Record]) -> set[str | int]:
        """Return the ids of points that somebody else wrote, with the same text, but no vector."""
        if not self.looked_up_vectors:
            return set()
        return {
            cast("str | int", point.id)
            for point in points
            if not point.vector
            or (isinstance(point.vector, dict) and self.vector_name not in point.vector)
        }

    def note_chunks(
        self, points: Mapping[str | int, InputDocument], existing: Sequence[models.Record]
    ) -> None:
        """Note what the points of documents that are stored again have from somebody else.

        Args:
            points: the document of each point.
            existing: the points, without their texts.
        """
        for point in existing:
            if (document := points.get(cast("str | int", point.id))) is not None:
                self.foreign.note(point, {*document.metadata, *self._codec.reserved_keys})

    def _refuse(self, found: Sequence[InputDocument], count: int) -> None:
        """Raise `InputError` if documents were found, and ``on_existing="error"``."""
        if found and self._on_existing == "error":
            ids = ", ".join(repr(document.user_id) for document in found[:5])
            raise InputError(
                f"collection {self._name!r} already has the ids of {len(found)} of the next "
                f"{count} documents ({ids}{', ...' if len(found) > 5 else ''}), so none of these "
                "were stored; use on_existing='skip' to store only those that have "
                "changed, or 'overwrite' to store all of them again"
            )

    def _without(
        self, documents: Sequence[InputDocument], unchanged: set[str | int]
    ) -> list[InputDocument]:
        """Return the documents that have changed, and count the unchanged ones as stored."""
        self.unchanged += len(unchanged)
        self._noted.update(unchanged)
        return [document for document in documents if document.point_id not in unchanged]

    def note_sent(self, points: Points) -> None:
        """Note that points are about to be sent: until they are stored, they may be.

        The first point of a document in chunks has the document's own id.
        """
        self._sent.update(points.ids)

    def note_stored(self, points: Points) -> None:
        """Count points as stored."""
        if self.replacement is None:
            self._count(points.ids)
        else:
            self._count(self.replacement.note_stored(points))

    def note_unchanged(self) -> None:
        """Count documents at the front that need not be stored; a window can have no others."""
        self._count(())

    def note_deleted(self, replacement: Replacement) -> None:
        """Count documents as stored once their stale points have been deleted."""
        self._count(replacement.note_deleted())

    def _count(self, complete: Iterable[str | int]) -> None:
        for point in complete:
            self._noted.add(point)
            self.foreign.forget(point)
        while self._in_flight:
            document = self._in_flight[0]
            if not document.repeats and document.point_id not in self._noted:
                return
            self._noted.discard(document.point_id)
            self._sent.discard(document.point_id)
            self._in_flight.popleft()
            self.stored_ids.append(document.user_id)

    def account_for(self, error: BaseException) -> None:
        """Report what is stored when `error` has ended the `add`; do nothing if nothing is stored.

        An interrupt or a cancellation must keep its type, so the `IngestError` becomes its cause,
        and is logged.

        Raises:
            IngestError: from `error`, if that is an `Exception`.
        """
        count, reason = len(self.stored_ids), in_one_line(error)
        unconfirmed = {} if isinstance(error, ServerRefusal) else self._unconfirmed
        if not count and not (unconfirmed and _leaves_doubt(error)):
            return
        stored = "1 document is stored" if count == 1 else f"{count} documents are stored"
        if not count:
            stored = "no document is known to be stored"
        maybe = ""
        if unconfirmed and _leaves_doubt(error):
            first, last = min(unconfirmed), max(unconfirmed)
            sent = f"documents[{first}] to documents[{last}] were"
            if first == last:
                sent = f"documents[{first}] was"
            maybe = f" {sent} sent, and may be stored."
        account = IngestError(
            f"{stored} in {self._name!r}, then add() failed at "
            f"documents[{count}]: {reason}.{maybe} The rest may not be stored; add it again, or, "
            "with ids='content' or your own ids, add all documents again (with "
            "on_existing='skip', stored ones are not encoded again)",
            stored_ids=self.stored_ids,
            failed_index=count,
            unconfirmed_ids=[*unconfirmed.values()],
        )
        if isinstance(error, Exception):
            raise account from error
        error.__cause__ = account
        logger.warning("%s", account)  # asyncio can drop a cancellation together with its cause

    @property
    def _unconfirmed(self) -> dict[int, str | int]:
        """Ids of documents that were sent and are not counted as stored, by their positions."""
        start = len(self.stored_ids)
        return {
            start + place: document.user_id
            for place, document in enumerate(self._in_flight)
            if document.point_id in self._sent
        }


def _leaves_doubt(error: BaseException) -> bool:
    """Return whether a request that failed so may have stored some of its points."""
    if isinstance(error, FolderError):
        return error.is_partial
    cause = error.__cause__
    return isinstance(error, ServerUnavailableError) and (
        isinstance(cause, NotAppliedError) or (cause is not None and is_full(cause))
    )


class _Column(Generic[T]):
    """A synchronous view of an asynchronous iterable, which yields what was read ahead."""

    def __init__(self, items: AsyncIterable[T]) -> None:
        self._items: AsyncIterator[T] = aiter(items)
        self._read: deque[T] = deque()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if not self._read:
            raise StopIteration
        return self._read.popleft()

    async def fill(self, count: int) -> None:
        while len(self._read) < count:
            try:
                self._read.append(await anext(self._items))
            except StopAsyncIteration:
                return


class ReadAhead:
    """A reader of asynchronous iterables, which reads them on the event loop one window ahead.

    `Adding` then reads them in a thread, like any other iterable.
    """

    def __init__(self) -> None:
        self._columns: list[_Column[Any]] = []

    def column(self, items: T | AsyncIterable[C]) -> T | Iterable[C]:
        """Return `items` in the form that `Adding` reads; wrap an asynchronous iterable."""
        if not isinstance(items, AsyncIterable):
            return items
        column: _Column[C] = _Column(items)
        self._columns.append(column)
        return column

    async def fill(self) -> None:
        """Read the next window of each column, or what is left of it."""
        for column in self._columns:
            await column.fill(WINDOW)


async def add_documents(
    collection: Collection,
    documents: Iterable[str | Document],
    metadata: Iterable[Mapping[str, Any]] | None,
    ids: Iterable[int | str | UUID] | IdScheme | None,
    options: AddOptions,
    read_ahead: ReadAhead | None = None,
) -> list[str | int]:
    """Embed and store documents; return their ids in input order.

    Args:
        collection: the collection to store them in.
        documents: see `add`.
        metadata: see `add`.
        ids: see `add`.
        options: see `add`.
        read_ahead: reads the asynchronous iterables among `documents`, `metadata` and `ids`.

    Raises:
        As `add` does.
    """
    ahead = read_ahead or ReadAhead()
    adding = await collection.io.compute(
        Adding, collection.name, documents, metadata, ids, collection.codec, options.on_existing
    )
    return await _Add(collection, adding, options, ahead).run()


class _Add:
    def __init__(
        self, collection: Collection, adding: Adding, options: AddOptions, ahead: ReadAhead
    ) -> None:
        self._collection, self._adding, self._options = collection, adding, options
        self._ahead, self._io = ahead, collection.io
        self._requests, self._client = collection.requests, collection.requests.client
        self._stored: deque[Points] = deque()  # not counted yet
        self._sent = False  # whether a request has stored something
        self._look_ups = LookUps(collection)

    async def run(self) -> list[str | int]:
        adding = self._adding
        window = await self._next_window()
        if not window:
            return []
        options = self._options
        vectors = await self._collection.vectors_for_add(
            adding.texts, options.collection_options, options.shard_key_selector
        )
        if vectors.chunked:
            adding.split_documents()
        if self._collection.has_other_vectors(vectors):
            adding.foreign.has_vectors = True
            adding.vector_name = vectors.dense.vector_name
        encoder = vectors.dense.encoder.with_threads(self._options.parallel).counting()
        counting = vectors.counting(encoder)
        name, progress = self._collection.name, self._options.progress
        with Reporter(progress, name, adding.total, encoder) as reporter:
            self._requests.on_wait = reporter.show_note
            reporter.report(0)
            try:
                await self._encode_and_store(window, vectors, counting, reporter)
            except BaseException as error:
                adding.account_for(error)
                raise
            finally:
                counting.warn_of_no_terms(name)
        if options.wait:
            await self._requests.flush()
        await self._index()
        return adding.stored_ids

    async def _index(self) -> None:
        """Turn the index on again that this `add`, or one that has failed, has turned off."""
        options = checked_options(self._options.collection_options)
        if self._collection.bulk is None or options.indexing == "after wait":
            return
        try:
            await self._collection.index_now()
        except PermissionRefusal as error:
            logger.warning(
                "collection %r is loaded, but its index is off, and this key cannot turn it on "
                "(%s): call wait_until_indexed() with one that can",
                self._collection.name,
                in_one_line(error),
            )

    async def _encode_and_store(
        self,
        window: Sequence[InputDocument],
        vectors: CollectionVectors,
        counting: CollectionVectors,
        reporter: Reporter,
    ) -> None:
        """Encode each window while the previous one is stored and the next one is read."""
        adding, is_prepared = self._adding, False
        coming = self._encode(counting, await self._changed(window))
        try:
            while window:
                window = await self._next_window()
                changed = await self._changed(window)
                points = await coming.result()
                coming = self._encode(counting, changed)
                if points and not is_prepared:
                    await self._prepare(vectors)
                    is_prepared = True
                await self._store(points, reporter)
                adding.note_unchanged()
                reporter.report(len(adding.stored_ids), adding.unchanged)
        except BaseException:
            counting.dense.encoder.cancel()
            await coming.abandon()
            raise

    def _encode(
        self, vectors: CollectionVectors, documents: Sequence[InputDocument]
    ) -> Background[Points]:
        return self._io.start(partial(encode_points, vectors, documents, self._collection.codec))

    async def _next_window(self) -> list[InputDocument]:
        await self._ahead.fill()
        return await self._io.compute(self._adding.next_window)

    async def _prepare(self, vectors: CollectionVectors) -> None:
        options = checked_options(self._options.collection_options)
        await self._collection.prepare(vectors, options, self._options.shard_key_selector)

    async def _changed(self, window: Sequence[InputDocument]) -> list[InputDocument]:
        """Return the documents of a window that must be encoded and stored."""
        adding = self._adding
        documents = [document for document in window if not document.repeats]
        known = [document.point_id for document in documents if not document.is_new]
        # a collection that this add creates has its documents alone
        if not known or self._collection.found is None:
            return documents
        if (replacement := adding.replacement) is not None:
            stored = await self._stored_chunks(known)
            changed = await self._io.compute(adding.changed_chunked, documents, stored, replacement)
            old = {point: document for document in changed for point in stored.of(document)}
            if old:
                existing = await self._retrieve([*old], adding.foreign.look_up)
                await self._io.compute(adding.note_chunks, old, existing)
            return changed
        existing = await self._retrieve(known, adding.looked_up, adding.looked_up_vectors)
        return await self._io.compute(adding.changed, documents, existing)

    async def _retrieve(
        self,
        ids: Sequence[str | int],
        with_payload: models.WithPayloadInterface,
        with_vectors: bool | list[str] = False,
    ) -> list[models.Record]:
        return await self._look_ups.ask(
            CollectionRequests.retrieve,
            ids,
            with_payload=with_payload,
            with_vectors=with_vectors,
            shard_key_selector=self._options.shard_key_selector,
        )

    async def _stored_chunks(self, ids: Sequence[str | int]) -> StoredChunks:
        """Look up the chunks that the collection has of the documents with these ids."""
        pages = await self._requests.in_parts(ids, self._chunks_of, cap="condition")
        return StoredChunks(record for page in pages for record in page)

    async def _chunks_of(self, ids: Sequence[str | int]) -> list[models.Record]:
        records: list[models.Record] = []
        offset, more = None, True
        while more:
            page, offset = await self._look_ups.ask(
                CollectionRequests.page,
                _PAGE,
                scroll_filter=models.Filter(must=[chunks_of(ids)]),
                offset=offset,
                with_payload=[CHUNK_KEY],
                shard_key_selector=self._options.shard_key_selector,
            )
            records += page
            more = offset is not None
        return records

    async def _store(self, points: Points, reporter: Reporter) -> None:
        """Store points batch by batch, several in flight where the engine takes them.

        The very first batch goes alone: what is wrong with all is found out with one request.
        """
        size = self._options.batch_size or default_batch_size(self._client)
        in_flight = InFlight(self._io, uploads_in_flight(self._client))
        try:
            for start in range(0, len(points), size):
                batch = points[start : start + size]
                alone = not self._sent or len(points) <= size
                self._sent = True
                self._adding.note_sent(batch)
                parts = self._adding.foreign.split(batch)
                await in_flight.begin(partial(self._upsert, *parts), alone=alone)
                await self._account(reporter)
            while len(in_flight):
                await in_flight.wait()
                await self._account(reporter)
        except BaseException:
            await in_flight.abandon()
            raise
        finally:
            self._note()

    async def _upsert(
        self, fresh: Points, existing: Points, kept: Mapping[str | int, Kept]
    ) -> None:
        """Store a batch; it can run in another thread than `_account`, and only hands over."""
        options: dict[str, Any] = {
            "wait": self._options.wait,
            "shard_key_selector": self._options.shard_key_selector,
        }
        if len(fresh):
            await self._requests.upsert(fresh, self._stored.append, **options)
        await self._requests.merge(existing, kept, self._stored.append, **options)

    def _note(self) -> None:
        while self._stored:
            self._adding.note_stored(self._stored.popleft())

    async def _account(self, reporter: Reporter) -> None:
        """Count what is stored, and delete what that makes stale: nothing is lost in between."""
        if not self._stored:
            return
        self._note()
        adding = self._adding
        replacement = adding.replacement
        if replacement is not None and (stale := replacement.stale):
            await self._requests.in_parts(stale, partial(self._delete, replacement, {*stale}))
        reporter.report(len(adding.stored_ids), adding.unchanged)

    async def _delete(
        self, replacement: Replacement, left: set[str | int], ids: Sequence[str | int]
    ) -> None:
        """Delete stale points; count what replaces them as stored when none is left."""

        def note() -> None:
            left.difference_update(ids)
            if not left:
                self._adding.note_deleted(replacement)

        await self._requests.delete(
            models.PointIdsList(points=[*ids]),
            note,
            wait=self._options.wait,
            shard_key_selector=self._options.shard_key_selector,
        )


async def add_frame(
    collection: Collection,
    frame: Frame,
    text: str,
    id: str | ContentIds | None,
    metadata: Sequence[str] | None,
    options: AddOptions,
) -> int:
    """Embed and store the rows of a frame; return the number of documents.

    Raises:
        As `QdrantEmbedMixin.add_frame` does.
    """
    if id is None or isinstance(id, ContentIds):
        scheme = id or ContentIds()
        columns = Columns(text, None, metadata, scheme.keys or ())
    else:
        scheme, columns = None, Columns(text, id, metadata)
    rows = await collection.io.compute(FrameRows, frame, columns)
    return len({*await add_documents(collection, rows, None, scheme, options)})


async def delete_documents(
    collection: Collection,
    ids: Iterable[str | int | UUID],
    *,
    wait: bool,
    shard_key_selector: models.ShardKeySelector | None,
) -> None:
    """Delete documents with all their chunks.

    Raises:
        As `QdrantEmbedMixin.delete_documents` does.
    """
    points = await collection.io.compute(point_ids, ids)
    chunked = False
    if points:
        stored = await collection.read_whole()
        chunked = stored.chunked
        await collection.index_parents(stored)

    async def delete(page: Sequence[str | int]) -> None:
        selector: models.PointsSelector = models.PointIdsList(points=[*page])
        if chunked:
            has_id = models.HasIdCondition(has_id=[*page])
            selector = models.FilterSelector(filter=models.Filter(should=[has_id, chunks_of(page)]))
        await collection.requests.delete(selector, wait=wait, shard_key_selector=shard_key_selector)

    for some in windows(points, _PAGE):
        await collection.requests.in_parts(some, delete, cap="condition")
    if wait and points:
        await collection.requests.flush()
