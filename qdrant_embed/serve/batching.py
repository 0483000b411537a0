"""Items of many requests computed, or asked for, together: those that wait are the next batch."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence, Sized
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from qdrant_embed.encoder.run.batching import texts_per_batch
from qdrant_embed.errors import InputError

T = TypeVar("T")
P = TypeVar("P", bound=Sized)
R = TypeVar("R")

MOST_ITEMS = 256
MOST_CHARACTERS = 64_000  # some tenths of a second: how long a query waits for others' documents
MOST_TOGETHER = 64


@dataclass(eq=False)
class _Entry(Generic[T, R]):
    """The items of one request.

    Attributes:
        items: the items.
        loop: the event loop on which the request waits.
        finished: what it waits for.
        taken: number of items that are prepared, or are being prepared.
        results: the results by position, as far as they are known.
        is_over: nobody needs what is left.
    """

    items: Sequence[T]
    loop: asyncio.AbstractEventLoop
    finished: asyncio.Future[list[R]]
    taken: int = 0
    results: dict[int, R] = field(default_factory=dict)
    is_over: bool = False

    @property
    def left(self) -> int:
        return len(self.items) - self.taken

    def finish(self) -> None:
        if not self.finished.done():
            self.finished.set_result([self.results[place] for place in range(len(self.items))])

    def fail(self, error: BaseException) -> None:
        if not self.finished.done():
            self.finished.set_exception(error)


@dataclass(frozen=True, eq=False)
class _Item(Generic[T, P, R]):
    """A prepared item, and its place in its request."""

    entry: _Entry[T, R]
    place: int
    prepared: P


class Lane(Generic[T, P, R]):
    """A queue of items that threads compute, those of several requests at a time.

    A thread prepares what has arrived, in windows that have an equal share of each request, so
    that one with thousands of items delays none with a single one. Then it computes the item that
    has waited longest, together with others of the same length, and hands the results over. No
    thread waits for another's batch.

    Args:
        prepare: returns one prepared item for each item, in order, whose length decides which are
            computed together.
        compute: returns one result for each of several prepared items of equal length, in order.
        size: returns the characters of an item.
        executor: the threads.
        workers: number of its threads that compute for this lane at the same time.
        on_batch: called with the number of items of each batch.
    """

    def __init__(
        self,
        prepare: Callable[[list[T]], list[P]],
        compute: Callable[[list[P]], list[R]],
        size: Callable[[T], int],
        executor: Executor,
        workers: int = 1,
        on_batch: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._prepare, self._compute, self._size = prepare, compute, size
        self._executor, self._workers, self._on_batch = executor, workers, on_batch
        self._waiting: deque[_Entry[T, R]] = deque()  # requests with items that are not prepared
        self._prepared: list[_Item[T, P, R]] = []
        self._working = 0
        self._lock = threading.Lock()  # of all of these, held for moments

    async def results(self, items: Sequence[T]) -> list[R]:
        """Return the result of each item, in order.

        Raises:
            Whatever the functions do about these items.
        """
        if not items:
            return []
        loop = asyncio.get_running_loop()
        entry: _Entry[T, R] = _Entry(items, loop, loop.create_future())
        with self._lock:
            self._waiting.append(entry)
        self._call_worker()
        try:
            return await entry.finished
        finally:
            entry.is_over = True

    def _call_worker(self) -> None:
        """Have one more thread work, unless all of them do or there is nothing to do."""
        with self._lock:
            if self._working == self._workers or not (self._waiting or self._prepared):
                return
            self._working += 1
        try:
            self._executor.submit(self._work)
        except RuntimeError:  # the service ends, or the system has no thread for it
            with self._lock:
                self._working -= 1
            raise

    def _work(self) -> None:
        """Compute a batch; then let other lanes have the thread, before the next one."""
        with self._lock:
            window = self._next_window() if len(self._prepared) < MOST_ITEMS else []
        if window:
            self._prepare_window(window)
        with self._lock:
            batch = self._next_batch()
        if batch:
            self._call_worker()
            self._compute_batch(batch)
        with self._lock:
            goes_on = bool(self._waiting or self._prepared)
            self._working -= not goes_on
        if goes_on:
            with suppress(RuntimeError):  # the service has ended
                self._executor.submit(self._work)

    def _next_window(self) -> list[tuple[_Entry[T, R], range]]:
        """Take the places of the items that are prepared next."""
        window: list[tuple[_Entry[T, R], range]] = []
        self._waiting = deque(entry for entry in self._waiting if not entry.is_over)
        items, characters = MOST_ITEMS, MOST_CHARACTERS
        for position, entry in enumerate(self._waiting):
            if items < 1 or characters < 1:
                break
            others = len(self._waiting) - position
            share, budget = max(1, items // others), max(1, characters // others)
            first = entry.taken
            while entry.left and entry.taken - first < share and budget > 0:
                size = self._size(entry.items[entry.taken])
                entry.taken += 1
                budget -= size
                characters -= size
            items -= entry.taken - first
            window.append((entry, range(first, entry.taken)))
        self._waiting = deque(entry for entry in self._waiting if entry.left)
        return window

    def _prepare_window(self, window: list[tuple[_Entry[T, R], range]]) -> None:
        """Prepare items; if that fails, request by request."""
        everything = [entry.items[place] for entry, places in window for place in places]
        try:
            prepared = self._prepare(everything)
        except BaseException as error:  # noqa: BLE001 - raised where the request waits
            if len(window) > 1:
                for part in window:
                    self._prepare_window([part])
            else:
                self._fail(window[0][0], error)
            return
        places = ((entry, place) for entry, places in window for place in places)
        found = [_Item(*at, item) for at, item in zip(places, prepared, strict=True)]
        with self._lock:
            self._prepared += found

    def _next_batch(self) -> list[_Item[T, P, R]]:
        """Take the item that has waited longest, and others of its length."""
        batch: list[_Item[T, P, R]] = []
        others: list[_Item[T, P, R]] = []
        length, most = 0, 1
        for item in self._prepared:
            if item.entry.is_over:
                continue
            if not batch:
                length = len(item.prepared)
                most = texts_per_batch(length)
            is_in = len(item.prepared) == length and len(batch) < most
            (batch if is_in else others).append(item)
        self._prepared = others
        return batch

    def _compute_batch(self, batch: list[_Item[T, P, R]]) -> None:
        """Compute a batch and hand over its results; one that fails, item by item."""
        self._on_batch(len(batch))
        try:
            results = self._compute([item.prepared for item in batch])
        except BaseException as error:  # noqa: BLE001 - raised where the request waits
            if len(batch) > 1:
                for item in batch:
                    self._compute_batch([item])
            else:
                self._fail(batch[0].entry, error)
            return
        finished: list[_Entry[T, R]] = []
        with self._lock:
            for item, result in zip(batch, results, strict=True):
                item.entry.results[item.place] = result
                if len(item.entry.results) == len(item.entry.items):
                    finished.append(item.entry)
        if finished:
            self._on_loop(finished[0], lambda: _finish(finished))

    def _fail(self, entry: _Entry[T, R], error: BaseException) -> None:
        entry.is_over = True
        self._on_loop(entry, lambda: entry.fail(error))

    def _on_loop(self, entry: _Entry[T, R], call: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # the loop has ended, and nobody waits
            entry.loop.call_soon_threadsafe(call)


def _finish(entries: list[_Entry[T, R]]) -> None:
    for entry in entries:
        entry.finish()


@dataclass
class _Alike(Generic[T, R]):
    """Requests that are alike.

    Attributes:
        waiting: the item of each that waits, and what its request waits for.
        running: number of tasks that ask.
    """

    waiting: deque[tuple[T, asyncio.Future[R]]] = field(default_factory=deque)
    running: int = 0

    def take(self) -> list[tuple[T, asyncio.Future[R]]]:
        """Take those that are asked next, without those that are gone."""
        taken: list[tuple[T, asyncio.Future[R]]] = []
        while self.waiting and len(taken) < MOST_TOGETHER:
            item, future = self.waiting.popleft()
            if not future.done():
                taken.append((item, future))
        return taken


class Together(Generic[T, R]):
    """Asks for the items of several requests at a time."""

    def __init__(self) -> None:
        self._alike: dict[Hashable, _Alike[T, R]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def result(
        self,
        key: Hashable,
        item: T,
        ask: Callable[[list[T]], Awaitable[list[R]]],
        most_asked: int = 1,
    ) -> R:
        """Return the result of an item.

        Args:
            key: equal for requests that are alike but for their items.
            item: the item.
            ask: returns one result for each item, in order.
            most_asked: calls of `ask` for requests that are alike, at the same time.

        Raises:
            Whatever `ask` does about this item; an error other than `InputError` is that of all.
        """
        alike = self._alike.setdefault(key, _Alike())
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        alike.waiting.append((item, future))
        if alike.running < most_asked:
            alike.running += 1
            task = asyncio.create_task(self._ask(key, alike, ask))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await future

    async def _ask(
        self,
        key: Hashable,
        alike: _Alike[T, R],
        ask: Callable[[list[T]], Awaitable[list[R]]],
    ) -> None:
        try:
            while taken := alike.take():
                await self._answer(taken, ask)
        finally:
            alike.running -= 1
            if not alike.running and not alike.waiting:
                self._alike.pop(key, None)

    async def _answer(
        self,
        taken: list[tuple[T, asyncio.Future[R]]],
        ask: Callable[[list[T]], Awaitable[list[R]]],
    ) -> None:
        try:
            results = await ask([item for item, _ in taken])
        except InputError as error:
            if len(taken) > 1:  # one of them cannot be used
                for each in taken:
                    await self._answer([each], ask)
                return
            _fail(taken, error)
        except BaseException as error:  # raised where the requests wait
            _fail(taken, error)
            if not isinstance(error, Exception):
                raise
        else:
            for (_, future), result in zip(taken, results, strict=True):
                if not future.done():
                    future.set_result(result)


def _fail(taken: list[tuple[T, asyncio.Future[R]]], error: BaseException) -> None:
    for _, future in taken:
        if not future.done():
            future.set_exception(error)
