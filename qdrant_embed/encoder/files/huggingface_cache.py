"""Models in huggingface_hub's own cache, where other programs put them; it is only read."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from qdrant_embed.encoder.files.repository import RemoteFile, Repository


def copies_of(cache: Path, name: str, path: str) -> list[Path]:
    """Find the copies of `path` in repository `name`, one for each commit that has it."""
    commits = (_folder(cache, name) / "snapshots").glob("*")
    return [file for commit in commits if (file := commit / path).is_file()]


def cached_repository(cache: Path, name: str, revision: str | None) -> Repository | None:
    """Describe what is there of `name` at `revision` (by default ``main``), if anything."""
    commit = revision or "main"
    with suppress(OSError, ValueError):  # a commit is its own name
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
    """Read the digest from the name of what `path` links to: content is stored under its digest."""
    name = path.resolve().name
    return name if re.fullmatch("[0-9a-f]{64}|[0-9a-f]{40}", name) else None
