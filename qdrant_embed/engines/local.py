"""Local databases inside this process, which qdrant_client does not make thread-safe."""

from __future__ import annotations

import sqlite3

from qdrant_client.local.async_qdrant_local import AsyncQdrantLocal
from qdrant_client.local.qdrant_local import QdrantLocal

from qdrant_embed.engines.engine import Engine


def recognise(database: object) -> Engine | None:
    """Return the engine of a local database, in memory or in a folder; ``None`` for others."""
    if not isinstance(database, QdrantLocal | AsyncQdrantLocal):
        return None
    bound_to_one_thread = (
        isinstance(database, AsyncQdrantLocal)
        and database.persistent
        and not database.force_disable_check_same_thread
        and not _sqlite_is_thread_safe()
    )
    return Engine(
        name="local",
        serialize=True,
        off_loop=not bound_to_one_thread,
        payload_index=False,
        refusals=(ValueError,),
    )


def _sqlite_is_thread_safe() -> bool:
    """Return whether sqlite was built in serialised mode, as everywhere except on some macOS.

    ``sqlite3.threadsafety`` reports this only since Python 3.11.
    """
    connection = sqlite3.connect(":memory:")
    try:
        options = {option for (option,) in connection.execute("PRAGMA compile_options")}
    finally:
        connection.close()
    return "THREADSAFE=1" in options
