"""What stands before a database that a client talks to: calls take turns, and none follows a close.

``qdrant_client`` does not make local mode thread-safe: two threads mix their transactions, and a
``close()`` next to a call ends the interpreter. A server's connections survive that, but what a
call raises is whatever its thread was at. So each public method of these databases is replaced, by
construction and not one by one, in a class of the same kind (`guarded`):

- In a local database, in memory or in a folder, one call runs at a time. It has one lock, which a
  thread can take again, because methods call each other.
- To a server, calls run side by side, as before.
- ``close()`` refuses the calls that come after it. It waits for those that are running, which are
  not cut in two; requests have a timeout. A wait of more than two seconds is logged.
- A call that comes later, or that fails because of the close, is a `ClientStateError`.
- A forked process can read a folder's local database, and memory. What is not known to read is
  refused there, because two processes would write to the folder.

The embedded engine keeps the same promises itself.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from itertools import islice
from typing import Any, TypeVar, cast

from qdrant_client.async_qdrant_remote import AsyncQdrantRemote
from qdrant_client.local.async_qdrant_local import AsyncQdrantLocal
from qdrant_client.local.qdrant_local import QdrantLocal
from qdrant_client.qdrant_remote import QdrantRemote

from qdrant_embed.engines.engine import in_thread, run_blocking
from qdrant_embed.errors import ClientStateError, QdrantEmbedError
from qdrant_embed.forks import ForkLock, keep_forever, on_fork
from qdrant_embed.stalls import announced
from qdrant_embed.terminals import without_credentials

T = TypeVar("T")

READ_ONLY = (
    "this client had its folder open before the process was forked, and only the parent may "
    "write to it: open the folder in one process, after the fork"
)
# methods that change nothing, so that a forked process can call them
READS = frozenset(
    {
        "collection_exists",
        "count",
        "facet",
        "get_aliases",
        "get_collection",
        "get_collection_aliases",
        "get_collections",
        "info",
        "list_full_snapshots",
        "list_shard_snapshots",
        "list_snapshots",
        "query_batch_points",
        "query_points",
        "query_points_groups",
        "retrieve",
        "scroll",
        "search_matrix_offsets",
        "search_matrix_pairs",
    }
)

_LOCAL = (QdrantLocal, AsyncQdrantLocal)
_KINDS = (*_LOCAL, QdrantRemote, AsyncQdrantRemote)
_LOOK = 0.01  # seconds between two looks whether a call has ended


class Calls:
    """The calls that a database runs, side by side, and whether it runs any more.

    Args:
        shown: what the database is, for messages.
    """

    def __init__(self, shown: str) -> None:
        self.shown = shown
        self.is_closed = False  # and takes no more calls
        self.has_ended = False  # so that calls which run fail
        self._running: set[_Call] = set()
        on_fork(self)

    def after_fork(self) -> None:
        """Forget the calls of the parent's other threads."""
        self._running = set()

    def running(self) -> AbstractContextManager[object]:
        """Run the block as a call.

        Raises:
            ClientStateError: if the client is closed, or if that is why an error ends the block.
        """
        return _Call(self)

    def closed_error(self) -> ClientStateError:
        """Return the error of a call that the client is closed for."""
        return ClientStateError(f"this client of {self.shown} is closed: create a new one")

    def enter(self, call: _Call) -> None:
        """Count a call.

        Raises:
            ClientStateError: if the client is closed.
        """
        self._running.add(call)
        if self.is_closed:  # looked at after the call is counted, as `close` does it in reverse
            self._running.discard(call)
            raise self.closed_error()

    def leave(self, call: _Call) -> None:
        """Count a call no more."""
        self._running.discard(call)

    def close(self) -> AbstractContextManager[bool]:
        """Take no more calls, wait for those of other threads, and yield whether that was new."""
        return self._closing()

    @contextmanager
    def _closing(self) -> Iterator[bool]:
        is_new, self.is_closed = not self.is_closed, True
        here = threading.get_ident()
        if is_new and self._others(lambda call: call.thread != here):
            with announced(self._waiting):
                while self._others(lambda call: call.thread != here):
                    time.sleep(_LOOK)
        self.has_ended = True
        yield is_new

    async def close_later(self) -> bool:
        """Like `close`, on an event loop: wait for its other tasks, and return whether."""
        is_new, self.is_closed = not self.is_closed, True
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def is_other(call: _Call) -> bool:
            return call.task is not task and call.task is not None and call.task.get_loop() is loop

        if is_new and self._others(is_other):
            with announced(self._waiting):
                while self._others(is_other):
                    await asyncio.sleep(_LOOK)
        self.has_ended = True
        return is_new

    @property
    def _waiting(self) -> str:
        return f"closing the client of {self.shown}, which waits for its requests,"

    def _others(self, is_other: Callable[[_Call], bool]) -> bool:
        return any(is_other(call) for call in list(self._running))


class Turns(Calls):
    """Calls that run one after the other, each in one thread.

    Args:
        shown: what the database is, for messages.
        has_one_thread: whether a call of a task must wait for its turn on the event loop.
    """

    def __init__(self, shown: str, *, has_one_thread: bool) -> None:
        super().__init__(shown)
        self.has_one_thread = has_one_thread
        # awaited, because a forked child would find half of what a call changes
        self.lock = ForkLock(awaited=True)

    def enter(self, call: _Call) -> None:
        """Wait until no other thread runs a call."""
        self._take()
        if self.is_closed:
            self.lock.release()
            raise self.closed_error()

    def leave(self, call: _Call) -> None:
        """Let another thread run a call."""
        self.lock.release()

    def _take(self) -> None:
        if not self.lock.acquire(blocking=False):
            with announced(f"a wait for another call of {self.shown}"):
                self.lock.acquire()

    @contextmanager
    def _closing(self) -> Iterator[bool]:
        self._take()
        try:
            is_new = not self.is_closed
            self.is_closed = self.has_ended = True
            yield is_new
        finally:
            self.lock.release()


class _Call(AbstractContextManager[None]):
    """A call while it runs."""

    __slots__ = ("_calls", "task", "thread")

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self.thread = threading.get_ident()
        self.task: asyncio.Task[Any] | None = None

    def __enter__(self) -> None:
        self._calls.enter(self)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        has_ended = self._calls.has_ended
        self._calls.leave(self)
        if has_ended and isinstance(error, Exception) and not isinstance(error, QdrantEmbedError):
            raise self._calls.closed_error() from error


class _AsyncCall(_Call):
    """A call of a task."""

    __slots__ = ()

    def __enter__(self) -> None:
        self.task = asyncio.current_task()
        super().__enter__()


def running(database: object) -> Callable[[], AbstractContextManager[object]]:
    """Return what runs a block as a call of a database, which may ask it in another way.

    On an event loop, calls of a local database run in threads.
    """
    calls = calls_of(database)
    if calls is None:
        return nullcontext
    is_awaited = isinstance(database, AsyncQdrantRemote)
    return partial(_AsyncCall, calls) if is_awaited else calls.running


def calls_of(database: object) -> Calls | None:
    """Return the calls of a guarded database; ``None`` of one that is not, or guards itself."""
    found: Calls | None = getattr(database, "_guard", None)
    return found


def guarded(database: T) -> T:
    """Return a database of ``qdrant_client`` with a guard before each of its public methods.

    Args:
        database: the object that a client talks to. Those of other kinds are left alone.
    """
    if not isinstance(database, _KINDS) or calls_of(database) is not None:
        return database
    if isinstance(database, _LOCAL):
        shown = f"{database.location!r}" if database.persistent else "a database in memory"
        calls: Calls = Turns(shown, has_one_thread=is_bound_to_thread(database))
    else:
        calls = Calls(without_credentials(cast("Any", database).http.client.host))
    guard: Any = database
    kind: Any = type(guard)  # whose hash mypy does not know
    guard.__class__ = _guarded_kind(kind)
    guard._guard, guard._pid = calls, os.getpid()
    if isinstance(database, _LOCAL) and database.persistent:
        on_fork(guard)
    return database


def unguarded(kind: type) -> type:
    """Return the class whose methods a guarded class calls; other classes as they are."""
    return kind.__bases__[0] if _IS_GUARDED in vars(kind) else kind


_IS_GUARDED = "_is_guarded"


@functools.cache
def _guarded_kind(kind: type) -> type:
    """Return a class like `kind`, all of whose public methods are guarded."""
    guards: dict[str, Any] = {_IS_GUARDED: True, "__module__": kind.__module__}
    is_local = issubclass(kind, _LOCAL)
    for name in dir(kind):
        method = inspect.getattr_static(kind, name)
        if name.startswith("_") or not inspect.isfunction(method):
            continue
        guard = (_local_guard if is_local else _remote_guard)(name, method)
        guards[name] = functools.wraps(method)(guard)
    if is_local:
        guards["after_fork"] = _leave_to_parent
    return type(kind.__name__, (kind,), guards)


def _local_guard(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    is_awaited = inspect.iscoroutinefunction(method)
    if name == "close":
        return _close_local_later(method) if is_awaited else _close(method)
    if name not in READS:
        method = _refused_in_child(method)
    guard = _in_turn_later(method) if is_awaited else _called(method)
    return _read_before(guard, method, _COLUMNS[name]) if name in _COLUMNS else guard


def _remote_guard(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    is_awaited = inspect.iscoroutinefunction(method)
    if name == "close":
        return _close_later(method) if is_awaited else _close(method)
    if name in _COLUMNS:
        return _begun(method)
    return _counted_later(method) if is_awaited else _called(method)


def _called(method: Callable[..., T]) -> Callable[..., T]:
    def call(self: Any, *args: Any, **kwargs: Any) -> T:
        with self._guard.running():
            return method(self, *args, **kwargs)

    return call


def _begun(method: Callable[..., T]) -> Callable[..., T]:
    """Guard the beginning of an upload, which has connections of its own from then on."""

    def call(self: Any, *args: Any, **kwargs: Any) -> T:
        with self._guard.running():
            pass
        return method(self, *args, **kwargs)

    return call


def _close(method: Callable[..., None]) -> Callable[..., None]:
    def close(self: Any, *args: Any, **kwargs: Any) -> None:
        with self._guard.close() as is_new:
            if is_new:
                method(self, *args, **kwargs)

    return close


def _counted_later(
    method: Callable[..., Coroutine[Any, Any, T]],
) -> Callable[..., Coroutine[Any, Any, T]]:
    async def call(self: Any, *args: Any, **kwargs: Any) -> T:
        with _AsyncCall(self._guard):
            return await method(self, *args, **kwargs)

    return call


def _close_later(
    method: Callable[..., Coroutine[Any, Any, None]],
) -> Callable[..., Coroutine[Any, Any, None]]:
    async def close(self: Any, *args: Any, **kwargs: Any) -> None:
        if await self._guard.close_later():
            await method(self, *args, **kwargs)

    return close


def _in_turn_later(
    method: Callable[..., Coroutine[Any, Any, T]],
) -> Callable[..., Coroutine[Any, Any, T]]:
    """Guard a coroutine that computes and never waits: in place, or in a thread to wait there."""

    async def call(self: Any, *args: Any, **kwargs: Any) -> T:
        def in_turn() -> T:
            with self._guard.running():
                return run_blocking(method(self, *args, **kwargs))

        return await _off_loop_if_busy(self._guard, in_turn)

    return call


def _close_local_later(
    method: Callable[..., Coroutine[Any, Any, None]],
) -> Callable[..., Coroutine[Any, Any, None]]:
    async def close(self: Any, *args: Any, **kwargs: Any) -> None:
        def in_turn() -> None:
            with self._guard.close() as is_new:
                if is_new:
                    run_blocking(method(self, *args, **kwargs))

        await _off_loop_if_busy(self._guard, in_turn)

    return close


async def _off_loop_if_busy(turns: Turns, call: Callable[[], T]) -> T:
    """Make a call, in a thread if it must wait for its turn, so that the loop goes on."""
    if turns.has_one_thread:
        return call()
    if not turns.lock.acquire(blocking=False):
        return await in_thread(call)
    try:
        return call()
    finally:
        turns.lock.release()


def is_bound_to_thread(database: object) -> bool:
    """Return whether an asynchronous local database can be used in its own thread alone.

    Sqlite was built in serialised mode, in which threads can share a connection, everywhere except
    on some macOS. ``sqlite3.threadsafety`` reports this only since Python 3.11.
    """
    if (
        not isinstance(database, AsyncQdrantLocal)
        or not database.persistent
        or database.force_disable_check_same_thread
    ):
        return False
    connection = sqlite3.connect(":memory:")
    try:
        options = {option for (option,) in connection.execute("PRAGMA compile_options")}
    finally:
        connection.close()
    return "THREADSAFE=1" not in options


# arguments that are read before a call has its turn: what yields them may ask for turns in other
# threads
_COLUMNS = {"upload_points": ("points",), "upload_collection": ("vectors", "payload", "ids")}


def _read_before(
    guard: Callable[..., T], method: Callable[..., T], columns: tuple[str, ...]
) -> Callable[..., T]:
    """Return a guarded method, which is given lists in place of what can be read only once."""
    signature = inspect.signature(method)

    def call(self: Any, *args: Any, **kwargs: Any) -> T:
        given = signature.bind(self, *args, **kwargs)
        lazy = [name for name in columns if _is_lazy(given.arguments.get(name))]
        sizes = [
            len(column)
            for name in columns
            if (column := given.arguments.get(name)) is not None
            and name not in lazy
            and not isinstance(column, dict)
        ]
        rows = zip(*(given.arguments[name] for name in lazy), strict=False)
        read = list(islice(rows, min(sizes, default=None))) if lazy else []
        for place, name in enumerate(lazy):
            given.arguments[name] = [row[place] for row in read]
        return guard(*given.args, **given.kwargs)

    return call


def _is_lazy(column: object) -> bool:
    return isinstance(column, Iterable) and not hasattr(column, "__len__")


# forks


def _refused_in_child(method: Callable[..., T]) -> Callable[..., T]:
    """Return a method that is refused in a child of the process that opened a folder."""

    def check(self: Any) -> None:
        if self._pid != os.getpid() and self.persistent:
            raise ClientStateError(READ_ONLY)

    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def call_later(self: Any, *args: Any, **kwargs: Any) -> Any:
            check(self)
            return await method(self, *args, **kwargs)

        return cast("Callable[..., T]", call_later)

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> T:
        check(self)
        return method(self, *args, **kwargs)

    return call


def _leave_to_parent(self: Any) -> None:
    """Leave a folder to the parent, in a forked child: its lock, and its open transactions."""
    if self._flock_file is not None:
        self._flock_file.close()  # not unlocked: that would be for the parent, too
        self._flock_file = None
    for collection in self.collections.values():
        if (storage := getattr(collection, "storage", None)) is not None:
            keep_forever(storage.storage)  # to close it would end the parent's transaction
            collection.storage = None
