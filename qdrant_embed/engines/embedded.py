"""Embedded databases, on ``qdrant-edge``: how one is opened, recognised, and asked."""

from __future__ import annotations

import os
from typing import Any

from qdrant_embed.engines.engine import Engine
from qdrant_embed.engines.local import explain
from qdrant_embed.errors import CollectionNotFoundError, ServerRefusal


def open_edge(path: str | os.PathLike[str], *, asynchronous: bool, optimize: bool) -> Any:
    """Return an embedded database, as the object that a ``qdrant_client`` client wraps.

    Args:
        path: its folder.
        asynchronous: whether its methods are awaited.
        optimize: whether indices are built in the background.

    Raises:
        FolderError: if the folder is open elsewhere, or cannot be read or written.
    """
    from qdrant_embed.engines.edge.database import AsyncEdgeDatabase, EdgeDatabase

    database = EdgeDatabase(path, optimize=optimize)
    return AsyncEdgeDatabase(database) if asynchronous else database


def is_edge(database: object) -> bool:
    """Return whether `database` is an embedded one, without importing the engine."""
    return type(database).__module__ == "qdrant_embed.engines.edge.database"


def embedded(client: object) -> Any:
    """Return the embedded database that a client wraps; ``None`` if that is of another kind."""
    database = getattr(client, "_client", None)
    return database if is_edge(database) else None


def is_index_due(client: object, collection_name: str) -> bool:
    """Return whether a collection has an embedded database, and is large enough for an index."""
    database = embedded(client)
    return database is not None and bool(database.is_index_due(collection_name))


def recognise(database: object) -> Engine | None:
    """Return the engine of an embedded database; ``None`` for others."""
    if not is_edge(database):
        return None
    return Engine(
        name="edge",
        off_loop=False,
        payload_index=True,
        refusals=(ServerRefusal, CollectionNotFoundError),
        explain=explain,
        flushes=True,
        fails_in_passing=False,
        keeps_settings=True,
        indexes=True,
    )
