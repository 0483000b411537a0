"""Model files from the hub; the only importer of ``huggingface_hub``."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from qdrant_embed.encoder.cache import note_down
from qdrant_embed.errors import MissingDependencyError, ModelDownloadError, ModelError

try:
    from huggingface_hub import constants, errors, snapshot_download
except ImportError as error:
    raise MissingDependencyError("huggingface-hub", "downloading a model") from error

logger = logging.getLogger(__name__)

_NEEDED = ("config.json", "model.safetensors", "tokenizer.json")
_WANTED = [
    *_NEEDED,
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "tokenizer_config.json",
    "*Pooling/config.json",
]


# the hub's HTTP library changed twice (requests, httpx, httpx2); its errors are bases of this one
_HUB_ERRORS: tuple[type[BaseException], ...] = (
    *errors.HfHubHTTPError.__bases__,
    OSError,
    ValueError,
)


class RepositoryNotOnHubError(ModelError):
    """The hub answered that it has no such repository or revision."""


@dataclass(frozen=True)
class Snapshot:
    """A repository's files at one commit."""

    folder: Path
    commit: str


class _Record(BaseModel):
    """A snapshot that once arrived whole: its files and their sizes."""

    model_config = ConfigDict(frozen=True)

    folder: Path
    sizes: dict[str, int]

    def is_whole(self) -> bool:
        """Whether every file is still there, at its size."""
        paths = {self.folder / name: size for name, size in self.sizes.items()}
        return all(path.is_file() and path.stat().st_size == s for path, s in paths.items())


def download(
    name: str,
    cache: Path,
    *,
    hub_cache: Path | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
) -> Snapshot:
    """The files of repository `name`; no network once they have arrived whole.

    Args:
        name: ``owner/name``.
        cache: our cache folder, where it is noted what arrived.
        hub_cache: where to keep the files; huggingface_hub's own cache by default.
        revision: a branch, tag or commit; ``main`` by default.
        local_files_only: use what is there; also with ``HF_HUB_OFFLINE=1``.

    Raises:
        RepositoryNotOnHubError: the hub answered, and knows no such repository or revision.
        ModelDownloadError: the files could not be had; the message says from where and why.
    """
    key = "\n".join([constants.ENDPOINT, name.lower(), revision or "main", str(hub_cache)])
    note = cache / "hub" / f"{hashlib.sha256(key.encode()).hexdigest()}.json"
    if (record := _read(note)) is not None and record.is_whole():
        return Snapshot(record.folder, record.folder.name)
    offline = local_files_only or constants.HF_HUB_OFFLINE
    where = "the local cache" if offline else constants.ENDPOINT
    try:
        folder = Path(
            snapshot_download(
                name,
                revision=revision,
                cache_dir=hub_cache,
                allow_patterns=_WANTED,
                local_files_only=offline,
            )
        )
    except errors.GatedRepoError as error:
        raise ModelDownloadError(
            f"{name} is gated: accept its terms on its page, then set HF_TOKEN to a token of "
            f"that account ({_first_line(error)})"
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        what = f"revision {revision!r} of {name}" if revision else name
        raise RepositoryNotOnHubError(
            f"{constants.ENDPOINT} knows no {what} (a private one needs HF_TOKEN)"
        ) from error
    except errors.HFValidationError as error:
        raise RepositoryNotOnHubError(f"that is not a repository's name ({error})") from error
    except _HUB_ERRORS as error:
        raise ModelDownloadError(
            f"{name} could not be had from {where}: {_first_line(error)}"
        ) from error
    missing = [file for file in _NEEDED if not (folder / file).is_file()]
    if missing:
        raise ModelDownloadError(f"{where} has {name} without {', '.join(missing)}")
    if not offline:
        sizes = {
            path.relative_to(folder).as_posix(): path.stat().st_size
            for path in folder.rglob("*")
            if path.is_file()
        }
        note_down(note, _Record(folder=folder, sizes=sizes).model_dump_json())
    return Snapshot(folder, folder.name)


def _read(note: Path) -> _Record | None:
    try:
        return _Record.model_validate_json(note.read_bytes())
    except (OSError, ValidationError):
        return None


def _first_line(error: BaseException) -> str:
    """The first line of what went wrong at the bottom: the cause says more than the symptom."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next(iter(str(error).splitlines()), type(error).__name__)
