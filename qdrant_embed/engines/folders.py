"""Folders of databases: which engine made one, and which opens it."""

from __future__ import annotations

import importlib.metadata
import os
import shlex
import stat
from pathlib import Path
from typing import Literal

from qdrant_embed.errors import FolderError, InputError, MissingDependencyError, check_path

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
        InputError: if there is no such engine, or `path` is no path.
        FolderError: if the folder belongs to another one, or is none.
        MissingDependencyError: if the engine is not installed.
    """
    if engine is not None and engine not in ENGINES:
        raise InputError(f"engine must be 'edge', 'local' or None, not {engine!r:.80}")
    check_path("path", path)
    if not os.fspath(path):
        raise InputError("path is empty: is the variable set that it comes from?")
    if "\0" in os.fspath(path):
        raise InputError(f"path has a null character: {os.fspath(path)!r:.200}")
    found = engine_of_folder(path)
    if found is not None and engine is not None and found != engine:
        raise FolderError(
            f"{os.fspath(path)!r} was made by engine {found!r}, not {engine!r}: name no engine, or "
            f"copy it with `qdrant-embed copy --from-path {shlex.quote(os.fspath(path))} --to-path "
            f"NEW --to-engine {engine}`",
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
        FolderError: if it is no folder, cannot be looked into, or two engines made it.
    """
    folder = Path(path)
    try:
        is_folder = stat.S_ISDIR(folder.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:  # a right is missing, or no folder can have this name
        raise FolderError(
            f"folder {os.fspath(path)!r:.200} cannot be used ({error!s:.200})",
            path=os.fspath(path),
        ) from error
    if not is_folder:
        raise FolderError(f"{os.fspath(path)!r} is a file, not a folder", path=os.fspath(path))
    is_edge, is_local = os.path.exists(folder / MANIFEST), os.path.exists(folder / _LOCAL)
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
