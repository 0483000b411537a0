"""One `add` on its way: what is read next, and what is known to be stored."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar
from uuid import UUID

from qdrant_client import models

from qdrant_embed.encoder.batching import windows
from qdrant_embed.errors import IngestError, check_whole
from qdrant_embed.points import Document, id_of, pair

logger = logging.getLogger(__name__)

T = TypeVar("T")

WINDOW = 1024  # documents encoded while the window before is uploaded


class Ingestion:
    """What every `add` does besides encoding and requests.

    Args:
        collection_name: for messages.
        documents: and the rest, as `add` takes them.

    Raises:
        InputError: as of `points.pair`; or an option is no whole number.
    """

    def __init__(
        self,
        collection_name: str,
        documents: Iterable[str],
        metadata: Iterable[Mapping[str, Any]] | None,
        ids: Iterable[int | str | UUID] | None,
        *,
        batch_size: int,
        max_retries: int,
        document_key: str,
    ) -> None:
        check_whole("batch_size", batch_size, 1)
        check_whole("max_retries", max_retries, 0)
        self._name = collection_name
        self._batch_size = batch_size
        self._pending = windows(pair(documents, metadata, ids, document_key), WINDOW)
        self.stored_ids: list[str | int] = []

    def next_window(self) -> list[Document]:
        """The next documents, read from what the caller gave; none when it has ended."""
        return next(self._pending, [])

    def batches(self, points: Sequence[models.PointStruct]) -> Iterator[list[models.PointStruct]]:
        """The points of one request after the other."""
        return windows(points, self._batch_size)

    def note_stored(self, points: Sequence[models.PointStruct]) -> None:
        """Counts points as stored."""
        self.stored_ids.extend(id_of(point) for point in points)

    def account_for(self, error: BaseException) -> None:
        """Says what is stored when `error` has ended the `add`; nothing is said if nothing is.

        Raises:
            IngestError: from `error`; only where `error` is an interrupt or a cancellation, which
                must stay what it is, it becomes its cause instead, and is logged.
        """
        if not self.stored_ids:
            return
        count = len(self.stored_ids)
        account = IngestError(
            f"{count} documents are stored in {self._name!r}, then it failed at number {count}: "
            f"{error or type(error).__name__}",
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

    def column(self, items: Iterable[T] | AsyncIterable[T]) -> Iterable[T]:
        """`items` as an `Ingestion` takes them: asynchronous ones wrapped, all else as it is."""
        if not isinstance(items, AsyncIterable):
            return items
        column = _Column(items)
        self._columns.append(column)
        return column

    async def fill(self, count: int) -> None:
        """Has the next `count` items of each column ready, or as many as there are."""
        for column in self._columns:
            await column.fill(count)
