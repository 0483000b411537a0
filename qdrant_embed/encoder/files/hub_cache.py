"""Models in the cache of huggingface_hub itself, where other programs have put them; only read."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from qdrant_embed.encoder.files.remote import RemoteFile, Repository


def copies_of(cache: Path, name: str, path: str) -> list[Path]:
    """The files `path` of repository `name`, one for each commit that has it."""
    commits = (_folder(cache, name) / "snapshots").glob("*")
    return [file for commit in commits if (file := commit / path).is_file()]


def cached_repository(cache: Path, name: str, revision: str | None) -> Repository | None:
    """What is there of `name` at `revision`, ``main`` by default."""
    commit = revision or "main"
    with suppress(OSError):  # a commit has no ref
        commit = (_folder(cache, name) / "refs" / commit).read_text().strip()
    snapshot = _folder(cache, name) / "snapshots" / commit
    if not re.fullmatch("[0-9a-f]{40}", commit) or not snapshot.is_dir():
        return None
    files = {
        path.relative_to(snapshot).as_posix(): RemoteFile(path.stat().st_size, _digest(path))
        for path in snapshot.rglob("*")
        if path.is_file()
    }
    return Repository(name, commit, files)


def _folder(cache: Path, name: str) -> Path:
    return cache / f"models--{name.replace('/', '--')}"


def _digest(path: Path) -> str | None:
    """From the name of what `path` links to: content is stored under its digest."""
    name = path.resolve().name
    return name if re.fullmatch("[0-9a-f]{64}|[0-9a-f]{40}", name) else None
