"""Databases inside this process, which qdrant_client does not guard against its own threads."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from qdrant_client.local.async_qdrant_local import AsyncQdrantLocal
from qdrant_client.local.qdrant_local import QdrantLocal

T = TypeVar("T")


class LocalDatabase:
    """One request at a time to a local database; those to a server go their way unguarded.

    Args:
        database: what the client talks to.

    Attributes:
        is_local: whether it is in this process.
    """

    def __init__(self, database: object) -> None:
        self.is_local = isinstance(database, QdrantLocal | AsyncQdrantLocal)
        self._lock = threading.Lock()
        self._stays_in_its_thread = (
            isinstance(database, AsyncQdrantLocal)
            and database.persistent
            and not database.force_disable_check_same_thread
            and not _sqlite_may_change_threads()
        )

    def run(self, request: Callable[[], T]) -> T:
        """What `request` gives."""
        if not self.is_local:
            return request()
        with self._lock:
            return request()

    async def run_async(self, request: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What `request` gives. A local database computes and writes in a thread, for its
        coroutines never wait; where sqlite cannot change threads it blocks the loop.
        """
        if not self.is_local or self._stays_in_its_thread:
            return await request()
        return await asyncio.to_thread(self.run, lambda: asyncio.run(request()))


def database_of(client: Any) -> LocalDatabase:
    """The guard of a client's database; made when first needed."""
    guard: LocalDatabase | None = client.__dict__.get("_database_guard")
    if guard is None:
        guard = client.__dict__.setdefault("_database_guard", LocalDatabase(client._client))
    return guard


def _sqlite_may_change_threads() -> bool:
    """Whether sqlite was built in its serialized mode, as everywhere but on some macOS.

    ``sqlite3.threadsafety`` tells since Python 3.11 only.
    """
    connection = sqlite3.connect(":memory:")
    try:
        options = {option for (option,) in connection.execute("PRAGMA compile_options")}
    finally:
        connection.close()
    return "THREADSAFE=1" in options
