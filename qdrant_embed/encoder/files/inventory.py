"""Lists, checks and clears the cache folder."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qdrant_embed.encoder.facts.precision import PRECISIONS
from qdrant_embed.encoder.files.cache import PARTS, leftovers
from qdrant_embed.encoder.files.compiled import (
    REPORT,
    compiled_folders,
    read_compiled,
    unfinished_folders,
)
from qdrant_embed.encoder.files.plan import MANIFEST, QUERIES, damaged_files, read_exported
from qdrant_embed.encoder.files.snapshots import kept_models, records
from qdrant_embed.errors import ModelFileError

_PRECISION = f"-(?:{'|'.join(PRECISIONS)})-"  # in the name of a compiled model's folder


@dataclass(frozen=True)
class CacheEntry:
    """A folder in the cache.

    Attributes:
        kind: ``downloaded`` files, a graph ``compiled`` from files, or a ``leftover`` of a process
            that has ended before it was done; a compilation goes on from there.
        name: the model's; of a leftover, its last part.
        version: the model's commit on the hub, or its precision; of a leftover, nothing.
        folder: where it is.
        size: bytes.
    """

    kind: Literal["downloaded", "compiled", "leftover"]
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
            model.report.model if model else folder.name,
            model.report.precision if model else "damaged",
            folder,
            _size(folder),
        )
        for folder in compiled_folders(cache)
        for model in [read_compiled(folder)]
    ]
    entries = [entry for entry in downloaded + compiled if _is_meant(entry.name, name)]
    return entries + _leftovers(cache, name)


def _leftovers(cache: Path, name: str | None) -> list[CacheEntry]:
    """List what processes that have ended left in the cache; with `name`, of that model alone."""
    hub = sorted((cache / "hub").glob("*"))
    folders = [cache, *(cache / part for part in PARTS), *hub, *(base / "refs" for base in hub)]
    entries = []
    for folder in folders:
        unfinished = unfinished_folders(cache) if folder == cache / "compiled" else []
        for path in leftovers(folder) + unfinished:
            of = re.split(_PRECISION, path.name[1:])[0]
            if folder in hub or folder.parent in hub:
                of = (folder if folder in hub else folder.parent).name.partition("--")[2]
            if name is None or of == name.rpartition("/")[2].lower():
                entries.append(CacheEntry("leftover", of, "", path, _size(path)))
    return entries


def clear(cache: Path, name: str | None = None) -> int:
    """Remove what `cache` holds, or with `name` that model; return the bytes that were freed.

    Raises:
        ModelFileError: a folder cannot be removed.
    """
    folders = [
        entry.folder.parent if entry.kind == "downloaded" else entry.folder
        for entry in cache_entries(cache, name)
    ]
    if name is None:  # incomplete ones too
        folders = [*(cache / part for part in PARTS), *leftovers(cache)]
    freed = 0
    for folder in dict.fromkeys(folders):
        size = _size(folder)
        try:
            if folder.is_file():
                folder.unlink()
            else:
                shutil.rmtree(folder)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ModelFileError(f"{folder} cannot be removed: {error}") from error
        freed += size
    return freed


def check_cache(cache: Path, name: str | None = None) -> list[Checked]:
    """Hash downloads and compiled models in `cache` again; with `name`, of that model alone."""
    found: list[Checked] = []
    for record, kept in records(cache):
        folder = record.with_suffix("")
        if kept is None:  # the record itself is what is damaged
            owner_name = record.parent.name.replace("--", "/", 1)
            found.append(Checked(owner_name, record.stem, record.parent, 1, [record.name]))
            continue
        damaged = [path for path, file in kept.files.items() if not file.is_at(folder / path)]
        found.append(Checked(kept.name, kept.commit, folder, len(kept.files), damaged))
    for folder in compiled_folders(cache):
        model = read_compiled(folder)
        if model is None:
            short_name = re.split(_PRECISION, folder.name)[0]
            if name is not None and short_name == name.rpartition("/")[2].lower():
                short_name = name
            found.append(Checked(short_name, None, folder, 1, [REPORT]))
            continue
        files, damaged = len(model.files), model.damaged_files()
        found.append(Checked(model.report.model, None, folder, files, damaged))
    return [checked for checked in found if _is_meant(checked.name, name)]


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
    count, damaged = len(plan.files), damaged_files(folder, plan, None)
    if plan.is_routed:
        try:
            queries = check_folder(folder / QUERIES)
        except ModelFileError:
            damaged.append(f"{QUERIES}/{MANIFEST}")
        else:
            count += queries.files
            damaged += (f"{QUERIES}/{name}" for name in queries.damaged)
    return Checked(plan.spec.name, plan.revision, folder, count, damaged)


def _is_meant(name: str, asked: str | None) -> bool:
    return asked is None or name.lower() == asked.lower()


def _size(folder: Path) -> int:
    files = [folder] if folder.is_file() else folder.rglob("*")
    return sum(path.stat().st_size for path in files if path.is_file())
