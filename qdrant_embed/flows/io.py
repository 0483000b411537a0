"""What a flow may wait for, and how each client does it.

A flow is an ``async def`` function that is written once for both clients. All it ever awaits is
another flow or a method of `Io`: a request, something to compute, a pause. `AsyncIo` does these on
an event loop. `BlockingIo` does them at once, so that a flow never suspends and `run_blocking`
carries it to its end in a single step: no loop, no thread, and a traceback of ordinary calls.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Generic, ParamSpec, Protocol, TypeAlias, TypeVar, cast

from qdrant_embed.engines.engine import Engine
from qdrant_embed.forks import ForkLock

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Flow: TypeAlias = Coroutine[Any, Any, T]

_CONCURRENT_FLOWS = 16  # of one `gather`


class Io(Protocol):
    """Everything that a flow may wait for.

    Attributes:
        engine: what stands behind the client.
    """

    @property
    def engine(self) -> Engine:
        """What stands behind the client."""

    async def request(self, method: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Send a request: call a method of the client, and return what it answers.

        The type is that of the synchronous client's method, for both clients.
        """

    async def compute(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that takes long, off the event loop, and return its result."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    async def gather(self, flows: Sequence[Callable[[], Flow[T]]]) -> list[T]:
        """Start flows, run them concurrently where that is possible, and return their results."""

    async def finish(self, flow: Flow[T]) -> T:
        """Run a flow to its end, even if nobody waits for it any more because of a cancellation."""

    def start(self, function: Callable[[], T]) -> Background[T]:
        """Start to compute something in a thread, while the flow goes on."""


class Background(Protocol[T_co]):
    """Something that is computed in a thread, while the flow that started it goes on."""

    async def result(self) -> T_co:
        """Wait for the result, and return it."""

    async def abandon(self) -> None:
        """Give the result up, and keep to yourself what goes wrong with it."""


def run_blocking(flow: Flow[T]) -> T:
    """Run a flow that uses `BlockingIo`, and return its result."""
    try:
        flow.send(None)
    except StopIteration as done:
        return cast("T", done.value)
    finally:
        flow.close()
    raise RuntimeError("the flow waits for something that is not of BlockingIo")


class BlockingIo:
    """Does everything at once, in the calling thread; see `Io`.

    Args:
        engine: what stands behind the client.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._turn = ForkLock()

    async def request(self, method: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Io.request`."""
        if not self.engine.serialize:
            return method(*args, **kwargs)
        with self._turn:
            return method(*args, **kwargs)

    async def compute(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Io.compute`."""
        return function(*args, **kwargs)

    async def sleep(self, seconds: float) -> None:
        """See `Io.sleep`."""
        time.sleep(seconds)

    async def gather(self, flows: Sequence[Callable[[], Flow[T]]]) -> list[T]:
        """See `Io.gather`: one after the other."""
        return [await flow() for flow in flows]

    async def finish(self, flow: Flow[T]) -> T:
        """See `Io.finish`."""
        return await flow

    def start(self, function: Callable[[], T]) -> Background[T]:
        """See `Io.start`."""
        return _Thread(function)


class _Thread(Generic[T]):
    def __init__(self, function: Callable[[], T]) -> None:
        self._future: Future[T] = Future()
        self._function = function
        thread = threading.Thread(target=self._run, name="qdrant-embed-background")
        try:
            thread.start()
        except RuntimeError:  # the interpreter ends, or there can be no more threads
            self._run()

    def _run(self) -> None:
        try:
            result = self._function()
        except BaseException as error:  # noqa: BLE001 - raised again where the result is asked for
            self._future.set_exception(error)
        else:
            self._future.set_result(result)

    async def result(self) -> T:
        return self._future.result()

    async def abandon(self) -> None:
        self._future.exception()


class AsyncIo:
    """Does everything on the running event loop, and what takes long in threads; see `Io`.

    Args:
        engine: what stands behind the client.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._turn = ForkLock()

    async def request(self, method: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Io.request`."""
        coroutine = cast("Callable[P, Flow[T]]", method)
        if self.engine.off_loop:
            return await _in_thread(
                lambda: self._in_turn(lambda: _run_coroutine(coroutine(*args, **kwargs)))
            )
        return await coroutine(*args, **kwargs)

    def _in_turn(self, request: Callable[[], T]) -> T:
        if not self.engine.serialize:
            return request()
        with self._turn:
            return request()

    async def compute(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Io.compute`."""
        return await _in_thread(partial(function, *args, **kwargs))

    async def sleep(self, seconds: float) -> None:
        """See `Io.sleep`."""
        await asyncio.sleep(seconds)

    async def gather(self, flows: Sequence[Callable[[], Flow[T]]]) -> list[T]:
        """See `Io.gather`: when one fails, the others are cancelled."""
        slots = asyncio.Semaphore(_CONCURRENT_FLOWS)

        async def in_slot(flow: Callable[[], Flow[T]]) -> T:
            async with slots:
                return await flow()

        tasks = [asyncio.create_task(in_slot(flow)) for flow in flows]
        try:
            return await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    async def finish(self, flow: Flow[T]) -> T:
        """See `Io.finish`: a cancellation waits for the flow, once."""
        task = asyncio.create_task(flow)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.gather(task, return_exceptions=True)
            raise

    def start(self, function: Callable[[], T]) -> Background[T]:
        """See `Io.start`."""
        return _Task(asyncio.create_task(_in_thread(function)))


async def _in_thread(function: Callable[[], T]) -> T:
    """Like `asyncio.to_thread`; in this thread where the interpreter starts no more of them."""
    context = contextvars.copy_context()

    def in_context() -> T:
        return context.run(function)

    try:
        future = asyncio.get_running_loop().run_in_executor(None, in_context)
    except RuntimeError:
        return in_context()
    return await future


def _run_coroutine(coroutine: Flow[T]) -> T:
    """Run a coroutine that never waits, even inside a thread whose event loop is running."""
    if asyncio._get_running_loop() is None:
        return asyncio.run(coroutine)
    return run_blocking(coroutine)


class _Task(Generic[T]):
    def __init__(self, task: asyncio.Task[T]) -> None:
        self._task = task

    async def result(self) -> T:
        return await self._task

    async def abandon(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
