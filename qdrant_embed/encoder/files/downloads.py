"""Download the files of a repository: resumed where they broke off, checked, then put in place."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from io import FileIO
from pathlib import Path

from qdrant_embed.encoder.files.cache import explained, file_sha256, make_folder, open_private
from qdrant_embed.encoder.files.repository import (
    Body,
    RemoteFile,
    Repository,
    TransientHubError,
    wait_before_retry,
)
from qdrant_embed.errors import ModelDownloadError, ModelFileError
from qdrant_embed.limits import JSON_FILE, TOKENIZER_FILE, UNSTATED_FILE
from qdrant_embed.progress_bar import Progress
from qdrant_embed.stalls import announced

logger = logging.getLogger(__name__)

_PROGRESS = 1 << 20  # bytes after which failed attempts are counted from zero again

# opens a file of a repository, by path, from a byte on
Open = Callable[[Repository, str, int], AbstractContextManager[Body]]


class Download:
    """Downloads files of one repository into a folder; a file that is there has been checked.

    Args:
        repository: where they come from, and how it describes them.
        folder: where they go.
        partial: folder for files that are not complete yet, which the next run may continue.
        open_remote: opens a file of the repository; ``None`` where the network is forbidden.
    """

    def __init__(
        self, repository: Repository, folder: Path, partial: Path, open_remote: Open | None
    ) -> None:
        self._repository = repository
        self._folder = folder
        self._partial = partial
        self._open = open_remote

    def fetch(self, path: str, copies: Iterable[Path] = (), pinned: str | None = None) -> None:
        """Put `path` in place, unless it is there: from a copy or, if none is right, from the hub.

        Args:
            path: inside the repository and the folder.
            copies: files on this machine that may be identical.
            pinned: the sha256 it must have, whatever the repository states.

        Raises:
            ModelFileError: what arrives is not the file, twice; or it cannot be written.
            ModelDownloadError: the file cannot be downloaded.
        """
        remote = self._repository.files[path]
        if pinned is not None:
            if remote.digest is not None and len(remote.digest) == 64 and remote.digest != pinned:
                raise ModelFileError(
                    f"{path} of {self._repository.name} is not the file known by that name: "
                    f"sha256 {remote.digest}, not {pinned}; if it was changed on purpose, pass "
                    f"revision={self._repository.commit!r}"
                )
            remote = RemoteFile(remote.size, pinned)
        largest = _largest(path)
        if remote.size is not None and not 0 <= remote.size <= largest:
            raise ModelFileError(
                f"{path} of {self._repository.name} has {remote.size:,} bytes: it can have "
                f"{largest:,} at most"
            )
        target = self._folder / path
        if target.is_file() and _problem(target, remote) is None:
            return
        partial = self._partial / hashlib.sha256(f"{path} {remote.digest}".encode()).hexdigest()
        with explained(target):
            make_folder(target.parent)
            make_folder(self._partial)
        if not self._copied(copies, remote, partial):
            self._transferred(path, remote, partial)
        with explained(target):
            partial.replace(target)

    def _copied(self, copies: Iterable[Path], remote: RemoteFile, partial: Path) -> bool:
        if remote.digest is None and self._open is not None:
            return False
        for copy in copies:
            if _problem(copy, remote) is None:
                with explained(partial):
                    partial.unlink(missing_ok=True)
                    try:
                        os.link(copy.resolve(), partial)
                    except OSError:  # another disk, or a file system without links
                        open_private(partial).close()
                        shutil.copyfile(copy, partial)
                return True
        return False

    def _transferred(self, path: str, remote: RemoteFile, partial: Path) -> None:
        problem: str | None = None
        for _ in range(2):
            stated = self._transfer(path, remote, partial)
            problem = _problem(partial, RemoteFile(remote.size, remote.digest or stated.digest))
            if problem is None:
                return
            with explained(partial):
                partial.unlink(missing_ok=True)
            logger.warning("%s of %s arrived damaged: %s", path, self._repository.name, problem)
        raise ModelFileError(
            f"{path} of {self._repository.name} arrived damaged twice: {problem}. Something on "
            "the way changes it, a proxy or a mirror"
        )

    def _transfer(self, path: str, remote: RemoteFile, partial: Path) -> RemoteFile:
        """Complete `partial` from the hub; return what the answer's headers say about the file."""
        tries = 0
        while True:
            before = _size(partial)
            if remote.digest is None or (remote.size is not None and before > remote.size):
                before = 0  # what is there may belong to another file
            if before and before == remote.size:
                return remote
            try:
                return self._append(path, remote, partial, before)
            except TransientHubError as error:
                tries = 1 if _size(partial) - before >= _PROGRESS else tries + 1
                wait_before_retry(error, tries)

    def _append(self, path: str, remote: RemoteFile, partial: Path, start: int) -> RemoteFile:
        name = self._repository.name
        if self._open is None:
            raise ModelDownloadError(f"{path} of {name} is not in the local cache")
        with self._open(self._repository, path, start) as body:
            size = body.remote.size if remote.size is None else remote.size
            largest = _largest(path) if size is not None else min(UNSTATED_FILE, _largest(path))
            if body.remote.size not in (None, size):
                raise TransientHubError(
                    f"{body.remote.size} bytes ({body.kind}) were sent for {path} of {name}, "
                    f"which has {size}"
                )
            title = f"downloading {name} {path}"
            with explained(partial):
                file = open_private(partial, append=bool(body.start))
            arrived = body.start
            bar = Progress(title, size or 0, "B")
            with file, bar as progress, announced(title, unless=bar.is_visible):
                for block in body.blocks:
                    arrived += len(block)
                    if size is not None and arrived > size:
                        break
                    if arrived > largest:
                        raise ModelFileError(
                            f"{path} of {name} has more than {largest:,} bytes, which is the limit"
                        )
                    with explained(partial):
                        _write(file, block)
                    progress.advance(arrived)
            if size is not None and arrived < size:
                raise TransientHubError(f"{path} of {name} ended after {arrived} of {size} bytes")
            return body.remote


def _largest(path: str) -> int:
    """Return how many bytes a file may have: of weights any number, if it is stated."""
    if path.rpartition("/")[2] == "tokenizer.json":
        return TOKENIZER_FILE
    return JSON_FILE if path.endswith(".json") else sys.maxsize


def _write(file: FileIO, block: bytes) -> None:
    rest = memoryview(block)
    while rest:
        rest = rest[file.write(rest) :]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _problem(path: Path, expected: RemoteFile) -> str | None:
    """Say what is wrong with a file, as far as it is known what it should be."""
    size, digest = _size(path), expected.digest
    if expected.size is not None and size != expected.size:
        return f"{size} bytes, not {expected.size}"
    if digest is None:
        return None
    kind, found = (
        ("sha256", file_sha256(path)) if len(digest) == 64 else ("git's id", _blob_id(path, size))
    )
    return None if found == digest else f"{kind} {found}, not {digest}"


def _blob_id(path: Path, size: int) -> str:
    """Compute git's id of the file's content."""
    content = f"blob {size}\0".encode() + path.read_bytes()
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()
