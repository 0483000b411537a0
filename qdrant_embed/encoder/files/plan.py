"""What it takes to load a model, everything being decided and compiled: the run plan.

It is one manifest wherever it is kept: in the cache folder, for the next process, where it names
files by their whole paths and states their times; and as ``qdrant-embed.json`` of an exported
folder, where it names the files beside itself and states their digests.

To read and check a model's own description of itself takes longer than to load the model. That is
done once; as long as neither a file of the model nor the version of this package has changed, the
plan still holds. A cached plan that is missing, outdated or unreadable is no error: it is made
again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from mmap import ACCESS_READ, mmap
from pathlib import Path, PureWindowsPath
from typing import Any, ClassVar, Literal, TypeAlias

from qdrant_embed.encoder.facts.head import HeadModule, Scoring, scoring_of_json
from qdrant_embed.encoder.facts.precision import (
    GRAPH_VERSION,
    CompileReport,
    Fidelity,
    ModelReport,
    RankingFidelity,
)
from qdrant_embed.encoder.facts.spec import ModelSpec, late_of_json
from qdrant_embed.encoder.files.cache import (
    explained,
    is_as_written,
    make_folder,
    new_folder,
    note_down,
    sealed,
    sha256,
    unsealed,
)
from qdrant_embed.errors import InputError, ModelFileError
from qdrant_embed.limits import JSON_FILE
from qdrant_embed.version import VERSION

RunKind: TypeAlias = Literal["graph", "onnx", "static"]

MANIFEST = "qdrant-embed.json"
QUERIES = "queries"  # folder in an exported model whose queries have a plan of their own

_LONGEST_NAME = 200  # characters of a file's name
_FOLDER = "plans"  # of the cache folder
_TOKENIZER, _TABLE = "tokenizer.json", "static.npz"
# what building a plan from any JSON may raise
_NOT_A_PLAN = (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError)
_MOST_FILES = 100  # a folder with more is not a model's alone: its plan is not kept


@dataclass(frozen=True, kw_only=True)
class FileState:
    """A file as it was when the plan was made.

    Attributes:
        size: bytes.
        modified: time of the last change in nanoseconds; of a file that a cached plan names.
        sha256: hex digest; of a file in an exported folder.
    """

    size: int
    modified: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """A model with everything decided and compiled: what it takes to load it.

    Attributes:
        kind: whether a ``graph`` of ours, the model's own ``onnx`` file, or a ``static`` table is
            run.
        spec: the model's facts.
        report: how it was made.
        weights_sha256: of the weights it was made from.
        run: the file that is run, then what that file reads from beside itself.
        tokenizer: the model's ``tokenizer.json``.
        revision: the commit on the hub that the model came from.
        lower_case: lower-case texts before they are tokenised.
        skips_unknown: leave unknown tokens out of a static model's mean.
        pooled: only the file itself can pool, because modules follow whose weights are not there.
        head: modules that follow the pooling where the model's own ONNX file does not run them.
        is_routed: whether queries have a plan of their own, in a folder of its own where exported.
        adapter: the task whose weights were asked for, of a model that has some for each task.
        vocabulary: tokens that the model has vectors for, where it says so.
        tokenizer_sha256: digest of the tokenizer, and of the settings in the model's files that
            vectors depend on; ``None`` in folders that were exported before there was one.
        files: every file that the plan depends on, by name or path.
        query_weights: of a sparse model, the file with the weights of a query's tokens; without
            one, queries are run through the network.
        terms_sha256: of a graph that weighs each token beside the dense vector, the digest of its
            weights and of those of the head that does so.
        scoring: how a cross-encoder scores two texts; ``None`` for other models.
        version: of this format.
    """

    # read by pydantic, whose import is left to those who need it
    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "forbid"}

    kind: RunKind
    spec: ModelSpec
    report: CompileReport | ModelReport
    weights_sha256: str
    run: tuple[Path, ...]
    tokenizer: Path = Path(_TOKENIZER)
    revision: str | None = None
    lower_case: bool = False
    skips_unknown: bool = False
    pooled: bool = False
    vocabulary: int | None = None
    tokenizer_sha256: str | None = None
    files: Mapping[str, FileState] = field(default_factory=dict)
    head: tuple[HeadModule, ...] = ()
    is_routed: bool = False
    adapter: str | None = None
    query_weights: Path | None = None
    terms_sha256: str | None = None
    scoring: Scoring | None = None
    version: Literal[1] = 1

    @property
    def head_files(self) -> tuple[Path, ...]:
        """The files with the weights of the modules of `head`."""
        return tuple(module.weights for module in self.head if module.weights is not None)

    def to_json(self) -> str:
        """Return the manifest."""
        content = json.loads(json.dumps(asdict(self), default=str))
        later = ("head", "is_routed", "adapter", "query_weights", "terms_sha256", "scoring")
        for name in later:  # which earlier releases do not know
            if not content[name]:
                del content[name]
        if self.spec.term_weighting == "log":
            del content["spec"]["term_weighting"]
        if self.spec.late is None:
            del content["spec"]["late"]
        del content["report"]["runtime"]  # of a loaded model
        if self.report.ranking is None:
            del content["report"]["ranking"]
        return sealed(content)


class PlanCache:
    """The plan of one model with one set of options, kept in the cache folder.

    Args:
        folder: the model's.
        options: all options and facts that the plan depends on.
        cache: the cache folder.
    """

    def __init__(self, folder: Path, options: Iterable[object], cache: Path) -> None:
        self._folder = folder
        key = "\n".join(map(repr, (folder.resolve(), VERSION, GRAPH_VERSION, *options)))
        self._file = cache / _FOLDER / f"{hashlib.sha256(key.encode()).hexdigest()}.json"

    def read(self) -> RunPlan | None:
        """Return the plan, if every file is still as it was then."""
        try:
            plan = _parsed(unsealed(self._file.read_bytes()))
            is_current = plan.tokenizer_sha256 is not None and plan.files == self._states(plan)
            return plan if is_current else None
        except (OSError, *_NOT_A_PLAN):
            return None

    def write(self, plan: RunPlan) -> None:
        """Keep `plan`, unless the model's folder holds too much to be watched."""
        states = self._states(plan)
        if states is not None:
            note_down(self._file, replace(plan, files=states).to_json())

    def _states(self, plan: RunPlan) -> dict[str, FileState] | None:
        """Return size and time of each file of the model; ``None`` if there are too many."""
        own = list(islice(self._folder.rglob("*"), _MOST_FILES))
        if len(own) == _MOST_FILES:
            return None
        states = {str(path): path.stat() for path in {*own, *plan.run, plan.tokenizer}}
        return {
            name: FileState(size=state.st_size, modified=state.st_mtime_ns)
            for name, state in states.items()
        }


def plan_of_json(text: str) -> RunPlan:
    """Return the plan that `RunPlan.to_json` wrote, in this process or its parent."""
    return _parsed(unsealed(text.encode()))


def _parsed(content: dict[str, Any]) -> RunPlan:
    """Build the plan that this package wrote; pydantic would take as long to import as a model."""
    report = dict(content["report"])
    if report["fidelity"] is not None:
        report["fidelity"] = Fidelity(**report["fidelity"])
    if "float32_groups" in report:
        report["float32_groups"] = tuple(report["float32_groups"])
    if report.get("ranking") is not None:
        report["ranking"] = RankingFidelity(**report["ranking"])
    scoring = content.get("scoring")
    kind = CompileReport if "graph_version" in report else ModelReport
    parsed: dict[str, Any] = {
        "spec": _spec(content["spec"]),
        "report": kind(**report),
        "run": tuple(map(Path, content["run"])),
        "tokenizer": Path(content["tokenizer"]),
        "query_weights": Path(content["query_weights"]) if "query_weights" in content else None,
        "head": tuple(map(_head_module, content.get("head", ()))),
        "scoring": None if scoring is None else scoring_of_json(scoring),
        "files": {name: FileState(**state) for name, state in content["files"].items()},
    }
    return RunPlan(**content | parsed)


def _spec(content: dict[str, Any]) -> ModelSpec:
    late = content.get("late")
    return ModelSpec(**{**content, "late": None if late is None else late_of_json(late)})


def _head_module(content: dict[str, Any]) -> HeadModule:
    weights = content["weights"]
    return HeadModule(**{**content, "weights": None if weights is None else Path(weights)})


def export_plan(plan: RunPlan, folder: Path, cache: Path, queries: RunPlan | None = None) -> None:
    """Write a model and its plan to a new `folder`, whole or not at all.

    Args:
        plan: the model's.
        folder: a new one.
        cache: the cache folder.
        queries: the plan of queries, if they have one of their own.

    Raises:
        InputError: there is something in the folder.
        ModelFileError: it cannot be written.
    """
    check_new(folder)
    with new_folder(folder, in_cache=False) as temporary:
        _write_plan(plan, temporary, cache)
        if queries is not None:
            (temporary / QUERIES).mkdir()
            _write_plan(queries, temporary / QUERIES, cache)


def _write_plan(plan: RunPlan, folder: Path, cache: Path) -> None:
    import shutil

    shutil.copyfile(plan.tokenizer, folder / _TOKENIZER)
    if plan.kind == "static":
        _write_table(plan, folder / _TABLE)
        run: tuple[Path, ...] = (Path(_TABLE),)
    else:
        run = tuple(Path(file.name) for file in plan.run)
        for file in plan.run:
            shutil.copyfile(file, folder / file.name)
    head: list[HeadModule] = []
    for number, module in enumerate(plan.head):
        copied = None
        if module.weights is not None:
            copied = Path(f"head-{number}{module.weights.suffix}")
            shutil.copyfile(module.weights, folder / copied)
        head.append(replace(module, weights=copied))
    query_weights = None
    if plan.query_weights is not None:
        query_weights = Path(f"query-weights{plan.query_weights.suffix}")
        shutil.copyfile(plan.query_weights, folder / query_weights)
    files = {
        file.name: FileState(size=file.stat().st_size, sha256=sha256(file, cache))
        for file in sorted(folder.iterdir())
    }
    exported = replace(
        plan,
        run=run,
        tokenizer=Path(_TOKENIZER),
        files=files,
        head=tuple(head),
        query_weights=query_weights,
    )
    (folder / MANIFEST).write_text(exported.to_json(), "utf-8")


def _write_table(plan: RunPlan, path: Path) -> None:
    import numpy as np

    from qdrant_embed.encoder.files.tensors import read_tensors

    np.savez(path, **read_tensors(plan.run))  # type: ignore[arg-type] # numpy's stub takes the arrays' names for its own option


def check_new(folder: Path) -> None:
    """Check that `folder` can be exported to, before the long part of it.

    Raises:
        InputError: there is something in the folder.
        ModelFileError: it cannot be written.
    """
    from tempfile import TemporaryDirectory

    with explained(folder, in_cache=False):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder} already exists: export to a new folder")
        make_folder(folder.parent)
        with TemporaryDirectory(prefix=f".{folder.name[:50]}-", dir=folder.parent):
            pass


def read_exported(folder: Path) -> RunPlan:
    """Read the plan of an exported folder, with the whole paths of its files.

    Raises:
        ModelFileError: it cannot be read, or names files elsewhere.
    """
    from pydantic import TypeAdapter

    path = folder / MANIFEST
    if os.path.getsize(path) > JSON_FILE:
        raise ModelFileError(f"{path} cannot be used: it can have {JSON_FILE:,} bytes at most")
    try:
        plan = TypeAdapter(RunPlan).validate_python(unsealed(path.read_bytes()))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(
            f"{path} cannot be used: it is damaged, or was written by a newer qdrant-embed; export "
            "the model again"
        ) from error
    query = () if plan.query_weights is None else (plan.query_weights,)
    names = [*plan.files, *map(str, (*plan.run, plan.tokenizer, *plan.head_files, *query))]
    if not plan.run or not all(map(_is_name, names)):
        raise ModelFileError(f"{path} names files outside of its folder")
    if missing := set(names) - plan.files.keys():
        raise ModelFileError(
            f"{path} cannot be used: it records no digest of {', '.join(sorted(missing))}; export "
            "the model again"
        )
    run = tuple(folder / name for name in plan.run)
    head = tuple(
        module if module.weights is None else replace(module, weights=folder / module.weights)
        for module in plan.head
    )
    weights = None if plan.query_weights is None else folder / plan.query_weights
    return replace(
        plan, run=run, tokenizer=folder / plan.tokenizer, head=head, query_weights=weights
    )


def _is_name(name: str) -> bool:
    """Return whether `name` is that of a file in the same folder, on every system."""
    return (
        PureWindowsPath(name).name == name
        and name not in (".", "..")
        and not set(name) & {*map(chr, range(32)), ":"}
        and len(name) <= _LONGEST_NAME
        and name.isprintable()
    )


def damaged_files(folder: Path, plan: RunPlan, cache: Path | None) -> list[str]:
    """List the files of an exported folder that are missing or not as they were written.

    Also those that the manifest does not record, but the graph may read. With `cache`, a digest
    that is remembered there will do.
    """
    changed = [
        name
        for name, state in plan.files.items()
        if not is_as_written(folder / name, state.size, state.sha256, cache)
    ]
    return changed + _unrecorded(folder, plan)


def _unrecorded(folder: Path, plan: RunPlan) -> list[str]:
    """List files in the folder that the manifest does not record, although the graph names them."""
    try:
        others = {path.name for path in folder.iterdir()} - plan.files.keys() - {MANIFEST}
        if not others or plan.kind == "static":
            return []
        with plan.run[0].open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as graph:
            return sorted(name for name in others if graph.find(os.fsencode(name)) >= 0)
    except (OSError, ValueError):  # it is missing or empty, which is damage anyway
        return []


def check_exported(folder: Path, plan: RunPlan, cache: Path) -> None:
    """Check that every file is as it was exported.

    Raises:
        ModelFileError: one is not.
    """
    if damaged := damaged_files(folder, plan, cache):
        raise ModelFileError(
            f"the exported model in {folder} is damaged: {', '.join(damaged)} missing or not as "
            "written, or not recorded; export the model again"
        )
