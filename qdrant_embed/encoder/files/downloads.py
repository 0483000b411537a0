"""Files of a repository: fetched, resumed where they broke off, checked, and then in place."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from io import FileIO
from pathlib import Path

from qdrant_embed.encoder.files.cache import explained, file_sha256
from qdrant_embed.encoder.files.remote import Body, PassingError, RemoteFile, Repository, pause
from qdrant_embed.errors import ModelDownloadError, ModelFileError
from qdrant_embed.progress_bar import Progress

logger = logging.getLogger(__name__)

_PROGRESS = 1 << 20  # bytes that make up for a failed try

# opens the file `path` of a repository from a byte on
Open = Callable[[Repository, str, int], AbstractContextManager[Body]]


class Download:
    """Brings files of one repository into a folder; a file that is there has been checked.

    Args:
        repository: where they come from, and what it says of them.
        folder: where they go.
        partial: folder for what is not whole yet; it may stay for the next run to go on with.
        open_remote: how to read from the repository; ``None`` where the network is forbidden.
    """

    def __init__(
        self, repository: Repository, folder: Path, partial: Path, open_remote: Open | None
    ) -> None:
        self._repository = repository
        self._folder = folder
        self._partial = partial
        self._open = open_remote

    def fetch(self, path: str, copies: Iterable[Path] = (), pinned: str | None = None) -> None:
        """Puts `path` in place: if it is not there, from a copy, if none is right, from afar.

        Args:
            path: inside the repository and the folder.
            copies: files on this machine that may be the same.
            pinned: the sha256 it must have, whatever the repository says.

        Raises:
            ModelFileError: what arrives is not the file, twice; or the disk cannot take it.
            ModelDownloadError: it does not arrive.
        """
        remote = self._repository.files[path]
        if pinned is not None:
            if remote.digest is not None and len(remote.digest) == 64 and remote.digest != pinned:
                raise ModelFileError(
                    f"{path} of {self._repository.name} is not the file known under that name: "
                    f"sha256 {remote.digest}, not {pinned}; if it was changed on purpose, pass "
                    f"revision={self._repository.commit!r}"
                )
            remote = RemoteFile(remote.size, pinned)
        target = self._folder / path
        if target.is_file() and _problem(target, remote) is None:
            return
        partial = self._partial / hashlib.sha256(f"{path} {remote.digest}".encode()).hexdigest()
        with explained(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            self._partial.mkdir(parents=True, exist_ok=True)
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
                    except OSError:  # another disk, or one without links
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
            "the way, a proxy or a mirror, changes it"
        )

    def _transfer(self, path: str, remote: RemoteFile, partial: Path) -> RemoteFile:
        """Fills `partial` as far as the hub gives; what the answer's headers say of the file."""
        tries = 0
        while True:
            before = _size(partial)
            if remote.digest is None or (remote.size is not None and before > remote.size):
                before = 0  # what is there may be of another file
            if before and before == remote.size:
                return remote
            try:
                return self._append(path, remote, partial, before)
            except PassingError as error:
                tries = 1 if _size(partial) - before >= _PROGRESS else tries + 1
                pause(error, tries)

    def _append(self, path: str, remote: RemoteFile, partial: Path, start: int) -> RemoteFile:
        name = self._repository.name
        if self._open is None:
            raise ModelDownloadError(f"{path} of {name} is not in the local cache")
        with self._open(self._repository, path, start) as body:
            size = body.remote.size if remote.size is None else remote.size
            if body.remote.size not in (None, size):
                raise PassingError(
                    f"{body.remote.size} bytes ({body.kind}) came back for {path} of {name}, "
                    f"which has {size}"
                )
            title = f"downloading {name} {path}"
            with explained(partial):
                file = FileIO(partial, "ab" if body.start else "wb")  # unbuffered
            arrived = body.start
            with file, Progress(title, size or 0, "B") as progress:
                for block in body.blocks:
                    arrived += len(block)
                    if size is not None and arrived > size:
                        break
                    with explained(partial):
                        _write(file, block)
                    progress.advance(arrived)
            if size is not None and arrived < size:
                raise PassingError(f"{path} of {name} ended after {arrived} of {size} bytes")
            return body.remote


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
    """What is wrong with a file, as far as is known what it should be."""
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
    """What git names the file's content."""
    content = f"blob {size}\0".encode() + path.read_bytes()
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()
