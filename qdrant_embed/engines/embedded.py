"""Embedded databases, on ``qdrant-edge``: how one is opened, recognised, and asked."""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path
from typing import Any, Literal

from qdrant_embed.engines.engine import Engine
from qdrant_embed.engines.local import explain
from qdrant_embed.errors import (
    CollectionNotFoundError,
    FolderError,
    InputError,
    MissingDependencyError,
    ServerRefusal,
)

MANIFEST = "qdrant_embed.json"  # in a folder of the embedded engine
ENGINES = ("edge", "local")
EngineName = Literal["edge", "local"]

_LOCAL = "meta.json"  # in a folder of local mode
_VERSIONS = "0.9."  # of the engine, whose makers promise that nothing stays as it is


def chosen_engine(path: str | os.PathLike[str], engine: str | None) -> EngineName:
    """Return the engine that opens a folder.

    That is the one that made it. A new folder uses ``edge`` if it is installed.

    Args:
        path: the folder, which need not exist.
        engine: the engine that the user wants; ``None`` for any.

    Raises:
        InputError: if there is no such engine.
        FolderError: if the folder belongs to another one, or is none.
        MissingDependencyError: if the engine is not installed.
    """
    if engine is not None and engine not in ENGINES:
        raise InputError(f"engine must be 'edge', 'local' or None, not {engine!r:.80}")
    found = engine_of_folder(path)
    if found is not None and engine is not None and found != engine:
        raise FolderError(
            f"{os.fspath(path)!r} was made by engine {found!r}, not {engine!r}: omit engine=, or "
            f"copy it with `qdrant-embed copy --from-path {os.fspath(path)} --to-path NEW "
            f"--to-engine {engine}`",
            path=os.fspath(path),
        )
    wanted = found or engine
    if wanted != "local" and not is_installed():
        if wanted == "edge":
            raise MissingDependencyError(
                "qdrant-edge-py",
                f"{os.fspath(path)!r}, opened with the embedded engine,",
                extra="edge",
            )
        return "local"
    return "local" if wanted == "local" else "edge"


def engine_of_folder(path: str | os.PathLike[str]) -> EngineName | None:
    """Return the engine that made a folder; ``None`` if there is no database in it.

    Raises:
        FolderError: if it is no folder, or two engines made it.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise FolderError(f"{os.fspath(path)!r} is a file, not a folder", path=os.fspath(path))
    is_edge, is_local = (folder / MANIFEST).exists(), (folder / _LOCAL).exists()
    if is_edge and is_local:
        raise FolderError(
            f"{os.fspath(path)!r} has both {MANIFEST} and {_LOCAL}, of two engines: move one of "
            "the two databases to a folder of its own",
            path=os.fspath(path),
        )
    if is_edge:
        return "edge"
    return "local" if is_local else None


def is_installed() -> bool:
    """Return whether the embedded engine is installed, in a version that is known here."""
    try:
        return importlib.metadata.version("qdrant-edge-py").startswith(_VERSIONS)
    except importlib.metadata.PackageNotFoundError:
        return False


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


def recognise(database: object) -> Engine | None:
    """Return the engine of an embedded database; ``None`` for others."""
    if not is_edge(database):
        return None
    return Engine(
        name="edge",
        serialize=False,
        off_loop=False,
        payload_index=True,
        refusals=(ServerRefusal, CollectionNotFoundError),
        explain=explain,
        flushes=True,
    )
