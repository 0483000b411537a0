"""Downloaded repositories in the cache folder, by commit, with a record to check each file against.

A folder ``hub/owner--name`` holds, for each commit, a folder of files and beside it a record of
what they are; ``refs`` says which commit a branch or tag pointed to when the hub was last asked. A
folder without a record, and a file that is not as recorded, is not used.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, TypeAlias
from urllib.parse import quote

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter

from qdrant_embed.encoder.facts.colbert import STANFORD_FILE
from qdrant_embed.encoder.facts.jsonfile import read_json
from qdrant_embed.encoder.facts.modules import (
    MODULES_FILE,
    ModuleChain,
    head_weights,
    read_chain,
    router_files,
)
from qdrant_embed.encoder.facts.precision import Precision
from qdrant_embed.encoder.facts.weights import weight_files
from qdrant_embed.encoder.files.cache import (
    combined,
    explained,
    is_as_written,
    locked,
    make_folder,
    sealed,
    sha256,
    sweep,
    unsealed,
    write_whole,
)
from qdrant_embed.encoder.files.downloads import Download, Open
from qdrant_embed.encoder.files.repository import RemoteFile, is_file_inside
from qdrant_embed.errors import ModelDownloadError, ModelFileError

if TYPE_CHECKING:
    from qdrant_embed.encoder.files.repository import Repository

logger = logging.getLogger(__name__)

_FOLDER = "hub"
_CONFIGS = (
    "config.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    STANFORD_FILE,
)


@dataclass(frozen=True)
class Snapshot:
    """A repository's files at one commit."""

    folder: Path
    commit: str


class KeptFile(BaseModel):
    """A file as it was when it was checked."""

    model_config = ConfigDict(frozen=True)

    size: int
    sha256: str

    def is_at(self, path: Path, cache: Path | None = None) -> bool:
        """Return whether `path` is still that file; with `cache`, by the digest noted there."""
        return is_as_written(path, self.size, self.sha256, cache)


def _checked_path(path: str) -> str:
    if not is_file_inside(path):
        raise ValueError("not the path of a file inside a folder")
    return path


_Inside: TypeAlias = Annotated[str, AfterValidator(_checked_path)]


class KeptModel(BaseModel):
    """The record of a repository at one commit.

    Attributes:
        name: the repository's name.
        commit: the commit that the files belong to.
        paths: every file that the repository has, downloaded or not.
        files: those that are downloaded.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    commit: Annotated[str, Field(pattern="^[0-9a-f]{40}$")]
    paths: frozenset[_Inside]
    files: Mapping[_Inside, KeptFile] = {}


class Snapshots:
    """The snapshots of one repository in the cache folder.

    Args:
        cache: the cache folder.
        name: the repository's name.
        beside: names of files beside the weights that are needed, too, if there are such files.
    """

    def __init__(self, cache: Path, name: str, beside: Sequence[str] = ()) -> None:
        self._cache, self._beside = cache, beside
        self._name = name
        self._base = cache / _FOLDER / name.lower().replace("/", "--")

    def find(self, revision: str | None, precision: Precision) -> Snapshot | None:
        """Find the snapshot of `revision`, without network; ``None`` unless it is complete."""
        return self._found(revision, precision, as_before=False)

    def _found(
        self, revision: str | None, precision: Precision, *, as_before: bool
    ) -> Snapshot | None:
        commit = self._commit(revision)
        model = _read(self._record(commit)) if commit else None
        if model is None:
            return None
        folder = self._base / model.commit
        for path in _needed(model.paths, folder, precision, self._beside, as_before=as_before):
            file = model.files.get(path)
            if file is None or not file.is_at(folder / path, self._cache):
                return None
        return Snapshot(folder, model.commit)

    def fetch(
        self,
        revision: str | None,
        precision: Precision,
        *,
        pinned: Mapping[str, str],
        update: bool,
        local_files_only: bool,
        for_collection: bool = False,
    ) -> Snapshot:
        """Return the snapshot of `revision`; download the files that are missing.

        Args:
            revision: a branch, tag or commit; ``main`` by default.
            precision: chooses between several kinds of weights in a repository.
            pinned: the sha256 that files must have.
            update: ask the hub even if the snapshot is complete.
            local_files_only: never use the network.
            for_collection: a collection names the repository: send no token, and log what is
                fetched.

        Raises:
            RepositoryNotOnHubError: the hub answers that it has no such repository or revision.
            ModelDownloadError: files are missing and cannot be downloaded.
            ModelFileError: what arrives is not what it should be, or cannot be written.
        """
        from qdrant_embed.encoder.files import hub

        offline = local_files_only or hub.is_offline()
        with ExitStack() as stack:
            with explained(self._base):
                make_folder(self._base)
                sweep(self._base)
                stack.enter_context(locked(self._base / ".lock"))
            # another process may have been faster
            if not update and (found := self.find(revision, precision)) is not None:
                return found
            # what an earlier release downloaded of a model still runs without network
            if offline:
                with suppress(ModelFileError):  # such a release could run none of its files
                    found = self._found(revision, precision, as_before=True)
                    if found is not None:
                        return found
            if for_collection and not offline:
                logger.info(
                    "fetching %s at %s from %s, because a collection names it as its model",
                    self._name,
                    revision or "main",
                    hub.shown_endpoint(),
                )
            repository = hub.find_repository(
                self._name, revision, offline=offline, fresh=update, anonymous=for_collection
            )
            opened = None if offline else partial(hub.opened, anonymous=for_collection)
            model = self._completed(repository, precision, pinned, opened)
            with explained(self._base):
                write_whole(self._record(model.commit), sealed(model.model_dump(mode="json")))
                write_whole(self._ref(revision), model.commit)
                shutil.rmtree(self._base / "partial", ignore_errors=True)
        return Snapshot(self._base / model.commit, model.commit)

    def fetch_own_file(
        self,
        commit: str,
        precision: Precision,
        weights_sha256: str,
        *,
        local_files_only: bool,
        for_collection: bool,
    ) -> None:
        """Download the ONNX file that the first releases ran, if the hub states that digest.

        Args:
            commit: of a snapshot that is complete.
            precision: chooses between several ONNX files.
            weights_sha256: digest of the file, or of it and its external data; see
                `weights_digest`.
            local_files_only: never use the network.
            for_collection: see `fetch`.

        Raises:
            ModelDownloadError: if the file cannot be downloaded.
            ModelFileError: if it is not the file it should be, or cannot be written.
        """
        model = _read(self._record(commit))
        if local_files_only or model is None:
            return
        needed = _needed(model.paths, self._base / commit, precision, as_before=True)
        files = [path for path in needed if ".onnx" in PurePosixPath(path).name]
        if not files or self._found(commit, precision, as_before=True) is not None:
            return
        from qdrant_embed.encoder.files import hub

        if hub.is_offline():
            return
        repository = hub.find_repository(
            self._name, commit, offline=False, fresh=False, anonymous=for_collection
        )
        stated = [repository.files.get(path, RemoteFile()).digest or "" for path in files]
        if combined(stated) != weights_sha256:
            return
        logger.info("fetching %s of %s, to compare it with the weights", files[0], self._name)
        opened = partial(hub.opened, anonymous=for_collection)
        with explained(self._base), locked(self._base / ".lock"):
            model = self._completed(repository, precision, {}, opened, as_before=True)
            write_whole(self._record(model.commit), sealed(model.model_dump(mode="json")))

    def _completed(
        self,
        repository: Repository,
        precision: Precision,
        pinned: Mapping[str, str],
        opened: Open | None,
        *,
        as_before: bool = False,
    ) -> KeptModel:
        from qdrant_embed.encoder.files import hub

        folder = self._base / repository.commit
        download = Download(repository, folder, self._base / "partial", opened)
        known = _read(self._record(repository.commit))
        files = dict(known.files) if known else {}
        paths = frozenset(repository.files) | (known.paths if known else frozenset())
        for path in _needed(paths, folder, precision, self._beside, as_before=as_before):
            if path not in repository.files:
                raise ModelDownloadError(f"{path} of {self._name} is not in the local cache")
            others = (other / path for other in self._base.iterdir() if is_commit(other.name))
            copies = chain(
                (copy for copy in others if copy.is_file()), hub.cached_copies(self._name, path)
            )
            download.fetch(path, copies, pinned.get(path))
            target = folder / path
            files[path] = KeptFile(size=target.stat().st_size, sha256=sha256(target, self._cache))
        return KeptModel(name=self._name, commit=repository.commit, paths=paths, files=files)

    def _commit(self, revision: str | None) -> str | None:
        if is_commit(revision):
            return revision
        try:
            commit = self._ref(revision).read_text("ascii")
        except (OSError, ValueError):
            return None
        return commit if is_commit(commit) else None

    def _record(self, commit: str) -> Path:
        return self._base / f"{commit}.json"

    def _ref(self, revision: str | None) -> Path:
        return self._base / "refs" / quote(revision or "main", safe="")


def is_commit(revision: str | None) -> bool:
    """Return whether `revision` is a commit, which never changes."""
    return revision is not None and re.fullmatch("[0-9a-f]{40}", revision) is not None


def records(cache: Path) -> Iterator[tuple[Path, KeptModel | None]]:
    """Yield the record of every snapshot in the cache folder, and what it says, if it is whole.

    The snapshot is the folder beside it, without the ending.
    """
    for record in sorted((cache / _FOLDER).glob("*/*.json")):
        if is_commit(record.stem):
            yield record, _read(record)


def kept_models(cache: Path) -> Iterator[tuple[Path, KeptModel]]:
    """Yield every snapshot in the cache folder: its folder, and the record of what it holds."""
    for record, model in records(cache):
        if model is not None:
            yield record.with_suffix(""), model


def _needed(
    paths: Collection[str],
    folder: Path,
    precision: Precision,
    beside: Sequence[str] = (),
    *,
    as_before: bool = False,
) -> Iterator[str]:
    """Yield the files of a repository that are needed, small ones first.

    Each must be in `folder` before the next is requested: the first ones decide which others are
    needed.

    Args:
        paths: of all files of the repository.
        folder: where they are downloaded to.
        precision: chooses between several kinds of weights.
        beside: names of other files that are needed, if there are such files.
        as_before: as the first releases did (see `weight_files`), which also read no modules after
            the pooling.
    """
    chains: list[ModuleChain | None] = [None]
    if MODULES_FILE in paths:
        yield MODULES_FILE
        for files in router_files(folder):
            yield from [file for file in files if file in paths][:1]
        chains = [chain := read_chain(folder)]
        if chain is not None and chain.query_folder is not None:
            yield from _needed_of_queries(chain.query_folder.relative_to(folder).as_posix(), paths)
        elif chain is not None and chain.is_routed:
            chains.append(read_chain(folder, "query"))
    yield from (name for name in beside if name in paths)
    for chain in chains:
        yield from _needed_of(chain, paths, folder, precision, as_before=as_before)


def _needed_of_queries(place: str, paths: Collection[str]) -> Iterator[str]:
    """Yield the files in the folder `place` of a module that weighs the tokens of queries."""
    yield from (f"{place}/{name}" for name in _CONFIGS if f"{place}/{name}" in paths)
    names = [name for at, _, name in (path.rpartition("/") for path in paths) if at == place]
    if (file := head_weights(names)) is not None:
        yield f"{place}/{file}"


def _needed_of(
    chain: ModuleChain | None,
    paths: Collection[str],
    folder: Path,
    precision: Precision,
    *,
    as_before: bool,
) -> Iterator[str]:
    """Yield the files that are needed of one chain of modules; see `_needed`."""
    places = ["" if at == PurePosixPath() else f"{at}/" for at in chain.folders] if chain else [""]
    for place in dict.fromkeys(["", *places]):
        yield from (place + name for name in _CONFIGS if place + name in paths)
    config = f"{places[0]}config.json"
    static = chain is not None and chain.kind == "static"
    content: dict[str, object] = {}
    if config in paths and not static:
        content = read_json(folder / config, TypeAdapter(dict[str, object]))
    own = chain.own_files(paths) if chain else list(paths)
    weights = weight_files(own, content, precision, as_before=as_before)
    if not weights:
        raise ModelFileError(
            "the repository has neither model.safetensors nor pytorch_model.bin nor an ONNX file "
            f"that can be run in {precision}: other weight formats are not read"
        )
    if not as_before and chain is not None:
        for kind, module in chain.head_modules:
            place = module.relative_to(folder).as_posix()
            files = [
                name for at, _, name in (path.rpartition("/") for path in paths) if at == place
            ]
            if kind != "Normalize" and (file := head_weights(files)) is not None:
                yield f"{place}/{file}"
    yield from weights


def _read(record: Path) -> KeptModel | None:
    try:
        model = KeptModel.model_validate(unsealed(record.read_bytes()))
    except (OSError, ValueError):
        return None
    return model if model.commit == record.stem else None
