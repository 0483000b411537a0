"""A repository as a model hub describes it, and the hub's failures.

Knows nothing of HTTP or huggingface_hub: what is loaded without network needs neither.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PureWindowsPath

from pydantic import BaseModel, ConfigDict, Field

from qdrant_embed.backoff import Backoff
from qdrant_embed.errors import ModelDownloadError, ModelError

logger = logging.getLogger(__name__)

TRIES = 5  # without progress
BACKOFF = Backoff(first=0.5, longest=8.0)
# of paths; file systems have 255 bytes for a name
_LONGEST_NAME, _LONGEST_PATH, _IN_NO_NAME = 200, 500, frozenset('<>:"|?*')
_LONGEST_ASKED_WAIT = 300.0  # seconds


class RepositoryNotOnHubError(ModelError):
    """The hub answers that it has no such repository or revision."""


class RevisionNotOnHubError(RepositoryNotOnHubError):
    """The hub has the repository, but not this revision of it."""


class TransientHubError(ModelDownloadError):
    """A failure that may pass: another try makes sense.

    Attributes:
        wait: the seconds that the hub asks to wait; ``None`` if it does not say.
    """

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


@dataclass(frozen=True)
class RemoteFile:
    """A file as the hub describes it.

    Attributes:
        size: bytes; ``None`` if it does not say.
        digest: the sha256 (64 hex digits, large files) or git's blob id (40, all others).
    """

    size: int | None = None
    digest: str | None = None


@dataclass(frozen=True)
class Repository:
    """A repository at one commit, and its files by path."""

    name: str
    commit: str
    files: Mapping[str, RemoteFile]


@dataclass(frozen=True)
class Body:
    """The bytes of a file from `start` on, and what the answer says about the whole file.

    Attributes:
        start: position of the first byte.
        remote: the whole file's size and digest, from the answer's headers.
        kind: the answer's content type.
        blocks: the bytes as they arrive; raises `TransientHubError` where they break off.
    """

    start: int
    remote: RemoteFile
    kind: str
    blocks: Iterator[bytes]


class _Lfs(BaseModel):
    model_config = ConfigDict(extra="ignore")

    sha256: str
    size: int


class _Sibling(BaseModel):
    model_config = ConfigDict(extra="ignore")

    rfilename: str
    size: int | None = None
    blob_id: str | None = Field(None, alias="blobId")
    lfs: _Lfs | None = None

    def remote(self) -> RemoteFile:
        if self.lfs is not None:
            return RemoteFile(self.lfs.size, self.lfs.sha256)
        return RemoteFile(self.size, self.blob_id)


class _ModelInfo(BaseModel):
    model_config = ConfigDict(extra="ignore")

    sha: str = Field(pattern="^[0-9a-f]{40}$")
    siblings: list[_Sibling]


def read_repository(name: str, content: bytes) -> Repository:
    """Parse the hub's answer about a model.

    Raises:
        ValidationError: it is no such answer.
    """
    info = _ModelInfo.model_validate_json(content)
    files = {
        file.rfilename: file.remote() for file in info.siblings if is_file_inside(file.rfilename)
    }
    return Repository(name, info.sha, files)


def wait_before_retry(error: TransientHubError, tries: int) -> None:
    """Sleep before the next try, after `tries` tries, and log why.

    Raises:
        ModelDownloadError: there were enough tries, or the hub asks to wait for too long.
    """
    if tries >= TRIES:
        raise ModelDownloadError(f"{error} (after {tries} tries)") from error
    if error.wait is not None and error.wait > _LONGEST_ASKED_WAIT:
        raise ModelDownloadError(f"{error}; try again after that") from error
    seconds = BACKOFF.seconds(tries) if error.wait is None else error.wait
    logger.warning("trying again in %.1f s: %s", seconds, error)
    time.sleep(seconds)


def is_file_inside(path: str) -> bool:
    """Return whether a path from outside is that of a file inside a folder, on every system."""
    parts = PureWindowsPath(path)  # knows drives and every separator
    names = parts.parts
    return (
        not (parts.is_absolute() or parts.drive or parts.root or ".." in names)
        and bool(names)
        and path.isprintable()  # also not with lone surrogates
        and not set(path) & _IN_NO_NAME
        and max(len(name.encode()) for name in names) <= _LONGEST_NAME
        and len(path) <= _LONGEST_PATH
    )
