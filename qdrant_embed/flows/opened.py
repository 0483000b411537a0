"""Where a client's connections are open: in one process, and of an asynchronous one in one loop.

A child process that was forked shares the sockets of its parent, and one of them would read the
other's answers; a connection that was opened in one event loop cannot be used in another. So the
clients ask for their `Io` here before each call, and get one with connections of its own.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from qdrant_embed.engines.connection import check_headers, engine_of, is_folder, keep_time, reopened
from qdrant_embed.engines.guard import READ_ONLY, guarded
from qdrant_embed.errors import ClientStateError
from qdrant_embed.flows.io import AsyncIo, BlockingIo
from qdrant_embed.forks import ForkLock

IoT = TypeVar("IoT", BlockingIo, AsyncIo)


OPENING = ForkLock()


@dataclass(frozen=True)
class Opened(Generic[IoT]):
    """A client's `Io`, and where it can be used.

    Attributes:
        io: sends the client's requests.
        database: the object that the ``qdrant_client`` client talks to.
        pid: the process it was opened in.
        loop: the event loop it was opened in; ``None`` if any will do.
        before: what was opened before a fork, and must not be closed: the parent uses it.
    """

    io: IoT
    database: Any
    pid: int
    loop: weakref.ref[asyncio.AbstractEventLoop] | None = None
    before: Opened[IoT] | None = None

    def is_here(self) -> bool:
        """Return whether it can be used in this process and event loop."""
        if self.pid != os.getpid():
            return False
        return self.loop is None or self.loop() is asyncio.get_running_loop()


def open_blocking(
    before: Opened[BlockingIo] | None, database: Any, options: Mapping[str, Any]
) -> Opened[BlockingIo]:
    """Return what a synchronous client uses in this process.

    Args:
        before: what it used so far; ``None`` at first.
        database: the object that the client talks to.
        options: the client's ``init_options``.

    Raises:
        InputError: if the client's key cannot be sent.
    """
    check_headers(options)
    if before is None:
        database = guarded(database)
        keep_time(database, grpc=bool(options.get("prefer_grpc")))
    else:
        database = reopened(database, options)
    io = BlockingIo(engine_of(database), _read_only(before, database))
    return Opened(io, database, os.getpid(), before=before)


def open_async(
    before: Opened[AsyncIo] | None, database: Any, options: Mapping[str, Any]
) -> Opened[AsyncIo]:
    """Return what an asynchronous client uses in this process and event loop; see `open_blocking`.

    Raises:
        ClientStateError: if it is being used in another event loop, which is still running.
        InputError: if the client's key cannot be sent.
    """
    check_headers(options)
    here = os.getpid()
    if before is None:
        database = guarded(database)
        keep_time(database, grpc=bool(options.get("prefer_grpc")))
    else:
        loop = None if before.loop is None else before.loop()
        if before.pid == here and loop is not None and loop.is_running():
            raise ClientStateError(
                "this client is used in another event loop, which is running: an asynchronous "
                "client has one loop at a time, so create a client for each"
            )
        database = reopened(database, options)
    engine = engine_of(database)
    forked = before if before is not None and before.pid != here else None
    # coroutines of a local database wait for nothing that belongs to a loop
    bound = None if engine.off_loop else weakref.ref(asyncio.get_running_loop())
    return Opened(AsyncIo(engine, _read_only(forked, database)), database, here, bound, forked)


def _read_only(forked: object, database: object) -> str:
    if forked is None or not is_folder(database):
        return ""
    return READ_ONLY
