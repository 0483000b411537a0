"""Local mode inside this process, which qdrant_client does not make thread-safe."""

from __future__ import annotations

import errno
import re
import sqlite3
from collections.abc import Callable
from contextlib import nullcontext

from qdrant_client.local.async_qdrant_local import AsyncQdrantLocal
from qdrant_client.local.qdrant_local import QdrantLocal

from qdrant_embed.engines.engine import Engine
from qdrant_embed.engines.guard import is_bound_to_thread, running
from qdrant_embed.errors import (
    CollectionNotFoundError,
    FolderError,
    QdrantEmbedError,
    ServerRefusal,
)

# of a local database in a folder
DISK_ERRORS = (sqlite3.Error, OSError)

_FULL = "database or disk is full"  # sqlite's words
# what local mode may raise where a server refuses, as for a polygon without points
STUMBLES = (LookupError, ArithmeticError, TypeError, AttributeError)
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
        explain=_explain_folder(database.location) if database.persistent else explain,
        refuses_missing=False,
        running=running(database) if isinstance(database, AsyncQdrantLocal) else nullcontext,
    )


def _explain_folder(path: str) -> Callable[[Exception, str], QdrantEmbedError | None]:
    """Return what explains the errors of a database in a folder, its disk's too."""

    def explain_all(error: Exception, collection_name: str) -> QdrantEmbedError | None:
        if not isinstance(error, DISK_ERRORS) or isinstance(error, QdrantEmbedError):
            return explain(error, collection_name)
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or _FULL in str(error)
        what = "has no space left" if full else "cannot be read or written"
        return FolderError(f"folder {path!r} {what} ({error})", path=path, is_partial=full)

    return explain_all


def explain(error: Exception, collection_name: str) -> QdrantEmbedError | None:
    """Return the error that says what a local database refused; see `Engine`."""
    if isinstance(error, STUMBLES) and _is_of_local_mode(error):
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return ServerRefusal(
            f"local mode cannot carry out a request about collection {collection_name!r} "
            f"({reason}); check what it asks for, such as its filter"
        )
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


def _is_of_local_mode(error: Exception) -> bool:
    """Return whether an error was raised inside qdrant_client's local mode."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else trace.tb_frame.f_globals.get("__name__", "")
    return bool(where.startswith("qdrant_client.local."))
