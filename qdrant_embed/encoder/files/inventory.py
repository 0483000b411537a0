"""Lists, checks and clears the cache folder."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qdrant_embed.encoder.files.compiled import compiled_models
from qdrant_embed.encoder.files.plan import MANIFEST, damaged_files, read_exported
from qdrant_embed.encoder.files.snapshots import kept_models
from qdrant_embed.errors import ModelFileError


@dataclass(frozen=True)
class CacheEntry:
    """A folder in the cache.

    Attributes:
        kind: ``downloaded`` files, or a graph ``compiled`` from files.
        name: the model's.
        version: the model's commit on the hub, or its precision.
        folder: where it is.
        size: bytes.
    """

    kind: Literal["downloaded", "compiled"]
    name: str
    version: str
    folder: Path
    size: int


@dataclass(frozen=True)
class Checked:
    """A model whose files were hashed again; `damaged` are missing or not as recorded."""

    name: str
    revision: str | None
    folder: Path
    files: int
    damaged: Sequence[str]


def cache_entries(cache: Path, name: str | None = None) -> list[CacheEntry]:
    """List what `cache` holds; with `name`, of that model alone."""
    downloaded = [
        CacheEntry("downloaded", model.name, model.commit, folder, _size(folder))
        for folder, model in kept_models(cache)
    ]
    compiled = [
        CacheEntry(
            "compiled",
            model.report.model,
            model.report.precision,
            model.graph.parent,
            _size(model.graph.parent),
        )
        for model in compiled_models(cache)
    ]
    return [entry for entry in downloaded + compiled if _is_meant(entry.name, name)]


def clear(cache: Path, name: str | None = None) -> int:
    """Remove what `cache` holds, or with `name` that model; return the bytes that were freed.

    Raises:
        ModelFileError: a folder cannot be removed.
    """
    folders = [
        entry.folder.parent if entry.kind == "downloaded" else entry.folder
        for entry in cache_entries(cache, name)
    ]
    if name is None:  # incomplete ones too, and "recall", where plans were kept once
        folders = [
            cache / part for part in ("hub", "compiled", "plans", "recall", "sha256", "checked")
        ]
    freed = 0
    for folder in dict.fromkeys(folders):
        size = _size(folder)
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ModelFileError(f"{folder} cannot be removed: {error}") from error
        freed += size
    return freed


def check_cache(cache: Path, name: str | None = None) -> list[Checked]:
    """Hash downloads and compiled models in `cache` again; with `name`, of that model alone."""
    downloaded = [
        Checked(
            model.name,
            model.commit,
            folder,
            len(model.files),
            [path for path, file in model.files.items() if not file.is_at(folder / path)],
        )
        for folder, model in kept_models(cache)
        if _is_meant(model.name, name)
    ]
    compiled = [
        Checked(
            model.report.model, None, model.graph.parent, len(model.files), model.damaged_files()
        )
        for model in compiled_models(cache)
        if _is_meant(model.report.model, name)
    ]
    return downloaded + compiled


def check_folder(folder: Path) -> Checked:
    """Hash the files of an exported model again.

    Raises:
        ModelFileError: the folder holds no exported model.
    """
    if not (folder / MANIFEST).is_file():
        raise ModelFileError(
            f"{folder} has no {MANIFEST}: only exported models and downloads record what their "
            "files should be"
        )
    plan = read_exported(folder)
    damaged = damaged_files(folder, plan, None)
    return Checked(plan.spec.name, plan.revision, folder, len(plan.files), damaged)


def _is_meant(name: str, asked: str | None) -> bool:
    return asked is None or name.lower() == asked.lower()


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
