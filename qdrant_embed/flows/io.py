"""Everything a flow can await, and how each client runs it.

A flow is an ``async def`` function that is written once for both clients. It only ever awaits
other flows and methods of `Io`: a request, a computation, a pause. `AsyncIo` runs these on an
event loop. `BlockingIo` runs them in the calling thread and never suspends, so `run_blocking`
completes a flow in a single step: without a loop, and with a traceback of ordinary calls.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, Generic, ParamSpec, Protocol, TypeAlias, TypeVar, cast

from qdrant_embed.engines.engine import Engine

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Flow: TypeAlias = Coroutine[Any, Any, T]

_CONCURRENT_FLOWS = 16  # of one `gather`


class Io(Protocol):
    """Everything that a flow can await.

    Attributes:
        engine: the engine behind the client.
    """

    @property
    def engine(self) -> Engine:
        """The engine behind the client."""

    async def request(self, method: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a method of the client, which sends a request, and return its result.

        For both clients, the types are those of the synchronous client's method.
        """

    async def compute(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a slow function off the event loop and return its result."""

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds`."""

    async def gather(self, flows: Sequence[Callable[[], Flow[T]]]) -> list[T]:
        """Run flows, concurrently if possible, and return their results in order."""

    async def finish(self, flow: Flow[T]) -> T:
        """Run a flow to completion, even if its caller is cancelled, and return its result."""

    def start(self, function: Callable[[], T]) -> Background[T]:
        """Start calling `function` in a thread while the flow continues."""


class Background(Protocol[T_co]):
    """A computation in a thread, while the flow that started it continues."""

    async def result(self) -> T_co:
        """Wait for the result and return it."""

    async def abandon(self) -> None:
        """Discard the result or error, after the computation has ended or been cancelled.

        On an event loop, a thread is not waited for: stop its work by other means first.
        """


def run_blocking(flow: Flow[T]) -> T:
    """Run a flow that uses `BlockingIo` and return its result."""
    try:
        flow.send(None)
    except StopIteration as done:
        return cast("T", done.value)
    finally:
        flow.close()
    raise RuntimeError("the flow awaits something other than a method of BlockingIo")


class BlockingIo:
    """An `Io` that runs everything in the calling thread.

    Args:
        engine: the engine behind the client.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._turn = threading.Lock()

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
        """See `Io.gather`; the flows run one after the other."""
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
        thread.start()

    def _run(self) -> None:
        try:
            result = self._function()
        except BaseException as error:  # noqa: BLE001 - raised again by `result`
            self._future.set_exception(error)
        else:
            self._future.set_result(result)

    async def result(self) -> T:
        return self._future.result()

    async def abandon(self) -> None:
        self._future.exception()


class AsyncIo:
    """An `Io` that awaits requests on the running event loop and computes in threads.

    Args:
        engine: the engine behind the client.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._turn = threading.Lock()

    async def request(self, method: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Io.request`."""
        coroutine = cast("Callable[P, Flow[T]]", method)
        if self.engine.off_loop:
            return await asyncio.to_thread(
                self._in_turn, lambda: asyncio.run(coroutine(*args, **kwargs))
            )
        return await coroutine(*args, **kwargs)

    def _in_turn(self, request: Callable[[], T]) -> T:
        if not self.engine.serialize:
            return request()
        with self._turn:
            return request()

    async def compute(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Io.compute`."""
        return await asyncio.to_thread(function, *args, **kwargs)

    async def sleep(self, seconds: float) -> None:
        """See `Io.sleep`."""
        await asyncio.sleep(seconds)

    async def gather(self, flows: Sequence[Callable[[], Flow[T]]]) -> list[T]:
        """See `Io.gather`; if one fails, the others are cancelled."""
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
        """See `Io.finish`; a cancellation waits for the flow, but a second one does not."""
        task = asyncio.create_task(flow)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.gather(task, return_exceptions=True)
            raise

    def start(self, function: Callable[[], T]) -> Background[T]:
        """See `Io.start`."""
        return _Task(asyncio.create_task(asyncio.to_thread(function)))


class _Task(Generic[T]):
    def __init__(self, task: asyncio.Task[T]) -> None:
        self._task = task

    async def result(self) -> T:
        return await self._task

    async def abandon(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
