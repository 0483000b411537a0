"""Requests that differ in one item alone, asked together: what arrives meanwhile is asked next."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from qdrant_embed.errors import InputError

T = TypeVar("T")
R = TypeVar("R")

MOST_TOGETHER = 64


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
