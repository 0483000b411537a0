"""Local mode inside this process, which qdrant_client does not make thread-safe."""

from __future__ import annotations

import re
from contextlib import nullcontext

from qdrant_client.local.async_qdrant_local import AsyncQdrantLocal
from qdrant_client.local.qdrant_local import QdrantLocal

from qdrant_embed.engines.engine import Engine
from qdrant_embed.engines.guard import is_bound_to_thread, running
from qdrant_embed.errors import CollectionNotFoundError, QdrantEmbedError, ServerRefusal

_NO_COLLECTION = re.compile(r"Collection (.*) not found", re.DOTALL)


def recognise(database: object) -> Engine | None:
    """Return the engine of a local database, in memory or in a folder; ``None`` for others."""
    if not isinstance(database, QdrantLocal | AsyncQdrantLocal):
        return None
    return Engine(
        name="local",
        off_loop=isinstance(database, AsyncQdrantLocal) and not is_bound_to_thread(database),
        payload_index=False,
        refusals=(ServerRefusal, CollectionNotFoundError),
        explain=explain,
        refuses_missing=False,
        running=running(database) if isinstance(database, AsyncQdrantLocal) else nullcontext,
    )


def explain(error: Exception, collection_name: str) -> QdrantEmbedError | None:
    """Return the error that says what a local database refused; see `Engine`."""
    if type(error) is not ValueError:  # its subclasses are other libraries' own
        return None
    if missing := _NO_COLLECTION.fullmatch(str(error)):
        return CollectionNotFoundError(
            f"collection {missing[1]!r} was not found: add() creates it, and "
            "client.get_collections() lists those that exist",
            collection_name=missing[1],
        )
    return ServerRefusal(
        f"Qdrant refused a request about collection {collection_name!r}: "
        f"{' '.join(str(error).split())}"
    )
