"""What a model hub says of a repository, and which of its failures pass."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PureWindowsPath

from pydantic import BaseModel, ConfigDict, Field

from qdrant_embed.errors import ModelDownloadError, ModelError

logger = logging.getLogger(__name__)

TRIES = 5  # without progress; the waits between them double from the first to the longest
_FIRST_WAIT, _LONGEST_WAIT, _LONGEST_ASKED_WAIT = 0.5, 8.0, 300.0  # seconds


class RepositoryNotOnHubError(ModelError):
    """The hub answered that it has no such repository or revision."""


class RevisionNotOnHubError(RepositoryNotOnHubError):
    """The hub has the repository, but not that revision of it."""


class PassingError(ModelDownloadError):
    """A failure that another try may mend; `wait` is what the hub asks for, in seconds."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


@dataclass(frozen=True)
class RemoteFile:
    """What the hub says of a file.

    Attributes:
        size: bytes, where it says so.
        digest: 64 hex digits are a sha256 (large files), 40 git's blob id (all others).
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
    """The bytes of a file from `start` on, and what the answer says of the whole.

    Attributes:
        start: position of the first byte.
        remote: the whole file's size and digest, as the answer's headers have them.
        kind: the answer's content type.
        blocks: the bytes as they come in; raises `PassingError` where they break off.
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
    """What the hub's answer about a model says.

    Raises:
        ValidationError: it is not such an answer.
    """
    info = _ModelInfo.model_validate_json(content)
    files = {
        file.rfilename: file.remote() for file in info.siblings if _stays_inside(file.rfilename)
    }
    return Repository(name, info.sha, files)


def pause(error: PassingError, tries: int) -> None:
    """Sleeps before the next try, after `tries` of them, and tells the user why.

    Raises:
        ModelDownloadError: there were enough tries, or the hub asks for too long a wait.
    """
    if tries >= TRIES:
        raise ModelDownloadError(f"{error} (after {tries} tries)") from error
    if error.wait is not None and error.wait > _LONGEST_ASKED_WAIT:
        raise ModelDownloadError(f"{error}; try again after that") from error
    longest = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (tries - 1))
    # spread, so that processes that failed together do not come back together
    seconds = random.uniform(longest / 2, longest) if error.wait is None else error.wait  # noqa: S311
    logger.warning("trying again in %.1f s: %s", seconds, error)
    time.sleep(seconds)


def _stays_inside(path: str) -> bool:
    """Whether a path from the hub names a file below the folder it is put in."""
    parts = PureWindowsPath(path)  # knows every separator and drives
    return not (parts.is_absolute() or parts.drive or parts.root or ".." in parts.parts)
