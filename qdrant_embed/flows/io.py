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
from concurrent.futures import CancelledError, Future
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any, Generic, ParamSpec, Protocol, TypeAlias, TypeVar, cast

from qdrant_embed.engines.engine import Engine, in_thread, run_blocking
from qdrant_embed.engines.server import CapName

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Flow: TypeAlias = Coroutine[Any, Any, T]

_CONCURRENT_FLOWS = 16  # of one `gather`


class Io(Protocol):
    """Everything that a flow can await.

    Attributes:
        engine: the engine behind the client.
        caps: numbers that the strict mode of collections allows at most, by collection and name, as
            far as the server has named them.
        read_only: why nothing may be written; empty if anything may.
    """

    @property
    def engine(self) -> Engine:
        """The engine behind the client."""

    @property
    def caps(self) -> dict[tuple[str, CapName], int]:
        """Caps that the server has named."""

    @property
    def read_only(self) -> str:
        """Why nothing may be written."""

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

    def begin(self, flow: Callable[[], Flow[T]]) -> Background[T]:
        """Begin another flow, which runs while this one goes on."""


class Background(Protocol[T_co]):
    """Something that runs while the flow that started it continues."""

    async def result(self) -> T_co:
        """Wait for the result and return it."""

    def cancel(self) -> None:
        """Have a flow end at its next pause, after what it must `finish`; do not wait for that."""

    async def abandon(self) -> None:
        """Cancel it, wait for its end, and discard its result or error.

        On an event loop, what a thread computes is not waited for: stop it by its own means first.
        """


class BlockingIo:
    """An `Io` that runs everything in the calling thread.

    Args:
        engine: the engine behind the client.
        read_only: why nothing may be written; empty if anything may.
    """

    def __init__(self, engine: Engine, read_only: str = "") -> None:
        self.engine, self.read_only = engine, read_only
        self.caps: dict[tuple[str, CapName], int] = {}

    async def request(self, method: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Io.request`."""
        with self.engine.running():
            return method(*args, **kwargs)

    async def compute(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Io.compute`."""
        return function(*args, **kwargs)

    async def sleep(self, seconds: float) -> None:
        """See `Io.sleep`."""
        abandoned = _ABANDONED.get()
        if abandoned is None:
            time.sleep(seconds)
        elif abandoned.wait(seconds):
            raise CancelledError

    async def gather(self, flows: Sequence[Callable[[], Flow[T]]]) -> list[T]:
        """See `Io.gather`; the flows run one after the other."""
        return [await flow() for flow in flows]

    async def finish(self, flow: Flow[T]) -> T:
        """See `Io.finish`."""
        return await flow

    def start(self, function: Callable[[], T]) -> Background[T]:
        """See `Io.start`."""
        return _Thread(function)

    def begin(self, flow: Callable[[], Flow[T]]) -> Background[T]:
        """See `Io.begin`: in a thread."""
        return _FlowThread(flow)


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
        except BaseException as error:  # noqa: BLE001 - raised again by `result`
            self._future.set_exception(error)
        else:
            self._future.set_result(result)

    async def result(self) -> T:
        return self._future.result()

    def cancel(self) -> None:
        pass  # what is computed has no pause

    async def abandon(self) -> None:
        self.cancel()
        self._future.exception()


# set in a thread that runs a flow: whether anybody still waits for it
_ABANDONED: ContextVar[threading.Event | None] = ContextVar("_ABANDONED", default=None)


class _FlowThread(_Thread[T]):
    def __init__(self, flow: Callable[[], Flow[T]]) -> None:
        self._abandoned = threading.Event()
        context = copy_context()  # of the caller, whose headers are in it, too
        context.run(_ABANDONED.set, self._abandoned)
        super().__init__(lambda: context.run(lambda: run_blocking(flow())))

    def cancel(self) -> None:
        self._abandoned.set()


class AsyncIo:
    """An `Io` that awaits requests on the running event loop and computes in threads.

    Args:
        engine: the engine behind the client.
        read_only: why nothing may be written; empty if anything may.
    """

    def __init__(self, engine: Engine, read_only: str = "") -> None:
        self.engine, self.read_only = engine, read_only
        self.caps: dict[tuple[str, CapName], int] = {}

    async def request(self, method: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Io.request`."""
        coroutine = cast("Callable[P, Flow[T]]", method)
        if self.engine.off_loop:
            return await in_thread(
                lambda: self._in_thread(lambda: _run_coroutine(coroutine(*args, **kwargs)))
            )
        with self.engine.running():
            return await coroutine(*args, **kwargs)

    def _in_thread(self, request: Callable[[], T]) -> T:
        with self.engine.running():
            return request()

    async def compute(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Io.compute`."""
        return await in_thread(partial(function, *args, **kwargs))

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
        return _Task(asyncio.create_task(in_thread(function)))

    def begin(self, flow: Callable[[], Flow[T]]) -> Background[T]:
        """See `Io.begin`: as a task."""
        return _Task(asyncio.create_task(flow()))


def _run_coroutine(coroutine: Flow[T]) -> T:
    """Run a coroutine that never waits, even inside a thread whose event loop is running."""
    if asyncio._get_running_loop() is None:
        return asyncio.run(coroutine)
    return run_blocking(coroutine)


class _Task(Generic[T]):
    def __init__(self, task: asyncio.Task[T]) -> None:
        self._task, self._is_cancelled = task, False

    async def result(self) -> T:
        return await self._task

    def cancel(self) -> None:
        if not self._is_cancelled:  # a second time would end what is to be finished
            self._is_cancelled = True
            self._task.cancel()

    async def abandon(self) -> None:
        self.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
