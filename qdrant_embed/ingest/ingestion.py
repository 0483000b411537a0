"""One `add` on its way: what is read next, and what is known to be stored."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, Literal, TypeAlias, TypeVar, cast
from uuid import UUID

from qdrant_client import models

from qdrant_embed.encoder.run.batching import runs, windows
from qdrant_embed.errors import IngestError, InputError, check_whole
from qdrant_embed.ingest.chunks import Replacement, StoredChunks
from qdrant_embed.ingest.documents import Document, PendingPoint, is_sequence, pair
from qdrant_embed.ingest.ids import ContentIds, IdScheme

logger = logging.getLogger(__name__)

T = TypeVar("T")
C = TypeVar("C")

OnExisting: TypeAlias = Literal["overwrite", "skip", "error"]

WINDOW = 1024  # documents encoded while the window before is uploaded
_CHARACTERS = 500_000  # of a window, unless one document has more: long ones are stored soon, too


class Ingestion:
    """What every `add` does besides encoding and requests.

    Args:
        collection_name: for messages.
        documents: and the rest, as `add` takes them.

    Raises:
        InputError: as of `documents.pair`; or an option is no whole number.

    Attributes:
        stored_ids: of the documents known to be stored, from the first one on without a gap.
        looks_up: whether it matters what the collection has under the documents' ids.
        found_collection: whether the collection is known to have been there before.
        unchanged: documents found stored already, as they are.
        total: documents there are; ``None`` where the input does not say.
        ids_tell_all: whether a point that has a document's id has its content, too.
        replacement: of documents that are several points each, once it is known that they are.
    """

    def __init__(
        self,
        collection_name: str,
        documents: Iterable[str | Document],
        metadata: Iterable[Mapping[str, Any]] | None,
        ids: Iterable[int | str | UUID] | IdScheme | None,
        *,
        batch_size: int,
        max_retries: int,
        on_existing: OnExisting,
        document_key: str,
    ) -> None:
        check_whole("batch_size", batch_size, 1)
        check_whole("max_retries", max_retries, 0)
        if on_existing not in ("overwrite", "skip", "error"):
            raise InputError(
                f"on_existing must be 'overwrite', 'skip' or 'error', not {on_existing!r}"
            )
        self._name = collection_name
        self._batch_size = batch_size
        self._on_existing = on_existing
        self._document_key = document_key
        # such an id says all there is to say of its document
        self.ids_tell_all = ids == "content" or (isinstance(ids, ContentIds) and ids.keys is None)
        self.looks_up = on_existing != "overwrite"
        self.found_collection = False
        self.unchanged = 0
        paired = pair(documents, metadata, ids, document_key, draws_ids=not self.looks_up)
        # all texts, where they are known from the start
        self.texts = [
            document.text if isinstance(document, Document) else document
            for document in (documents if is_sequence(documents) else ())
        ]
        self.total = len(documents) if is_sequence(documents) else None  # type: ignore[arg-type] # just seen to have a length
        self._pending = runs(paired, lambda document: len(document.text), _CHARACTERS, WINDOW)
        self._under_way: deque[PendingPoint] = deque()
        self._noted: set[str | int] = set()
        self.stored_ids: list[str | int] = []
        self.replacement: Replacement | None = None

    def splits_documents(self) -> None:
        """From now on every document is one point or more, and those of old ones matter."""
        self.replacement = Replacement()
        self.looks_up = True

    def next_window(self) -> list[PendingPoint]:
        """The next documents, read from what the caller gave; none when it has ended."""
        window = next(self._pending, [])
        self._under_way.extend(window)
        return window

    def firsts(self, window: Sequence[PendingPoint]) -> list[PendingPoint]:
        """A window without repeats of earlier documents."""
        return [document for document in window if not document.repeats]

    def wanted(
        self, documents: Sequence[PendingPoint], existing: Sequence[models.Record]
    ) -> list[PendingPoint]:
        """Those of the documents that are to be stored; the others are counted as stored.

        Args:
            documents: without repeats.
            existing: what the collection has under their ids.

        Raises:
            InputError: there is something, and that should be an error.
        """
        payloads = {point.id: point.payload or {} for point in existing}
        found = [document for document in documents if document.id in payloads]
        self._refuse(found, len(documents))
        unchanged = {
            document.id
            for document in found
            if self.ids_tell_all or document.is_in(payloads[document.id], self._document_key)
        }
        return self._without(documents, unchanged)

    def wanted_chunked(
        self, documents: Sequence[PendingPoint], stored: StoredChunks, replacement: Replacement
    ) -> list[PendingPoint]:
        """As `wanted`, of documents that are several points each."""
        found = [document for document in documents if stored.of(document)]
        self._refuse(found, len(documents))
        unchanged: set[str | int] = set()
        if self._on_existing == "skip":
            unchanged = {document.id for document in found if stored.are_all_of(document)}
        replacement.expect((document for document in found if document.id not in unchanged), stored)
        return self._without(documents, unchanged)

    def _refuse(self, found: Sequence[PendingPoint], count: int) -> None:
        """Raises `InputError` where documents were found that must not be there."""
        if found and self._on_existing == "error":
            ids = ", ".join(repr(document.shown_id) for document in found[:5])
            raise InputError(
                f"{len(found)} of the next {count} documents have ids that {self._name!r} "
                f"has already ({ids}{', ...' if len(found) > 5 else ''}): nothing of them was "
                "stored; on_existing='skip' leaves them alone, 'overwrite' stores them anew"
            )

    def _without(
        self, documents: Sequence[PendingPoint], unchanged: set[str | int]
    ) -> list[PendingPoint]:
        """The documents that remain; the others are counted as stored."""
        self.unchanged += len(unchanged)
        self._noted.update(unchanged)
        return [document for document in documents if document.id not in unchanged]

    def batches(self, points: Sequence[models.PointStruct]) -> Iterator[list[models.PointStruct]]:
        """The points of one request after the other."""
        return windows(points, self._batch_size)

    def note_stored(self, points: Sequence[models.PointStruct]) -> None:
        """Counts points as stored."""
        if self.replacement is None:
            self._count(cast(str | int, point.id) for point in points)
        else:
            self._count(self.replacement.note_stored(points))

    def note_deleted(self, replacement: Replacement) -> None:
        """Counts the documents as stored whose stale points are deleted."""
        self._count(replacement.note_deleted())

    def _count(self, complete: Iterable[str | int]) -> None:
        self._noted.update(complete)
        while self._under_way:
            document = self._under_way[0]
            if not document.repeats and document.id not in self._noted:
                return
            self._noted.discard(document.id)
            self._under_way.popleft()
            self.stored_ids.append(document.shown_id)

    def account_for(self, error: BaseException) -> None:
        """Says what is stored when `error` has ended the `add`; nothing is said if nothing is.

        Raises:
            IngestError: from `error`; only where `error` is an interrupt or a cancellation, which
                must stay what it is, it becomes its cause instead, and is logged.
        """
        if not self.stored_ids:
            return
        count, reason = len(self.stored_ids), str(error) or type(error).__name__
        account = IngestError(
            f"{count} documents are stored in {self._name!r}, then it failed at number {count}: "
            f"{reason}. The rest is not known to be stored: add() that, or, with "
            "ids='content' or ids of your own, the same as before (on_existing='skip' then "
            "leaves alone what is there)",
            stored_ids=self.stored_ids,
            failed_index=count,
        )
        if isinstance(error, Exception):
            raise account from error
        error.__cause__ = account
        logger.warning("%s", account)  # asyncio may drop a cancellation and what it carries


class _Column(Generic[T]):
    """An asynchronous iterable as a synchronous one, which gives what was read ahead."""

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
    """Reads asynchronous iterables on the loop, as far ahead as a thread will take them."""

    def __init__(self) -> None:
        self._columns: list[_Column[Any]] = []

    def column(self, items: T | AsyncIterable[C]) -> T | Iterable[C]:
        """`items` as an `Ingestion` takes them: asynchronous ones wrapped, all else as it is."""
        if not isinstance(items, AsyncIterable):
            return items
        column: _Column[C] = _Column(items)
        self._columns.append(column)
        return column

    async def fill(self, count: int) -> None:
        """Has the next `count` items of each column ready, or as many as there are."""
        for column in self._columns:
            await column.fill(count)
