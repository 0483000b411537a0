"""Items of many requests computed together: what arrives while a batch runs is the next one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

MOST_ITEMS = 256
MOST_CHARACTERS = 64_000  # some tenths of a second: how long a query waits for others' documents


@dataclass
class _Entry(Generic[T, R]):
    """The items of one request."""

    items: Sequence[T]
    finished: asyncio.Future[list[R]]
    taken: int = 0
    results: list[R] = field(default_factory=list)

    @property
    def left(self) -> int:
        return len(self.items) - self.taken


class Lane(Generic[T, R]):
    """A queue of items that one function computes, those of several requests at a time.

    While a batch is computed, others wait. The next batch has an equal share of each request, so
    that one with thousands of items delays none with a single one.

    Args:
        compute: returns one result for each item, in order; called in a thread.
        size: returns the characters of an item.
        executor: the threads.
        on_batch: called with the number of items of each batch.
    """

    def __init__(
        self,
        compute: Callable[[list[T]], list[R]],
        size: Callable[[T], int],
        executor: Executor,
        on_batch: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._compute, self._size, self._executor = compute, size, executor
        self._on_batch = on_batch
        self._waiting: deque[_Entry[T, R]] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def results(self, items: Sequence[T]) -> list[R]:
        """Return the result of each item, in order.

        Raises:
            Whatever the function does about these items.
        """
        if not items:
            return []
        entry: _Entry[T, R] = _Entry(items, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await entry.finished

    async def _work(self) -> None:
        # requests that have arrived by now belong to the first batch
        await asyncio.sleep(0)
        while self._waiting:
            batch = self._next_batch()
            self._waiting = deque(entry for entry in self._waiting if entry.left)
            await self._run(batch)

    def _next_batch(self) -> list[tuple[_Entry[T, R], list[T]]]:
        """Take the items of the next batch."""
        batch: list[tuple[_Entry[T, R], list[T]]] = []
        items, characters = MOST_ITEMS, MOST_CHARACTERS
        for position, entry in enumerate(self._waiting):
            if items < 1 or characters < 1:
                break
            others = len(self._waiting) - position
            share, budget = max(1, items // others), max(1, characters // others)
            taken: list[T] = []
            while entry.left and len(taken) < share and budget > 0:
                item = entry.items[entry.taken]
                entry.taken += 1
                taken.append(item)
                budget -= self._size(item)
                characters -= self._size(item)
            items -= len(taken)
            if taken:
                batch.append((entry, taken))
        return batch

    async def _run(self, batch: list[tuple[_Entry[T, R], list[T]]]) -> None:
        """Compute a batch and hand over its results; one that fails, request by request."""
        loop = asyncio.get_running_loop()
        everything = [item for _, items in batch for item in items]
        self._on_batch(len(everything))
        computed = loop.run_in_executor(self._executor, self._compute, everything)
        await asyncio.wait([computed])
        if (error := computed.exception()) is not None:  # raised where the request waits
            if len(batch) > 1:
                for part in batch:
                    await self._run([part])
                return
            entry = batch[0][0]
            entry.taken = len(entry.items)
            if not entry.finished.done():
                entry.finished.set_exception(error)
            return
        results = iter(computed.result())
        for entry, items in batch:
            entry.results.extend(next(results) for _ in items)
            if len(entry.results) == len(entry.items) and not entry.finished.done():
                entry.finished.set_result(entry.results)
