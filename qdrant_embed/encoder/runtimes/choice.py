"""Decides what runs a model's documents: onnxruntime, or OpenVINO with the same int8 graph.

What was measured is noted in the cache folder: for this graph, this processor, these versions.
"""

from __future__ import annotations

import hashlib
import logging
import math
import platform
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final, TypeGuard

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.encoder.facts.precision import (
    LARGEST_ERROR,
    LEAST_COSINE,
    ChosenRuntime,
    CompileReport,
    Runtime,
)
from qdrant_embed.encoder.files.cache import note_down, once, sealed, unsealed
from qdrant_embed.encoder.run.backend import Backend, Inputs, ShortenedVectors
from qdrant_embed.encoder.run.batching import TOKENS_PER_BATCH, Batch
from qdrant_embed.encoder.run.cores import Workers, usable_cores
from qdrant_embed.errors import MissingDependencyError, ModelError
from qdrant_embed.stalls import announced
from qdrant_embed.version import VERSION

if TYPE_CHECKING:
    from qdrant_embed.encoder.files.plan import RunPlan
    from qdrant_embed.encoder.run.loaded_model import LoadedModel

logger = logging.getLogger(__name__)

FOLDER = "runtimes"  # of the cache folder

_OPENVINO: Final = "openvino"
_POOLINGS = ("cls", "mean")  # that padding can be kept out of
_GAIN = 0.95  # largest share of onnxruntime's time with which OpenVINO is worth its memory
_ROUNDS = 3
_SECONDS = 4.0  # after which no further round begins
_PROCESSOR = Path("/proc/cpuinfo")
_LONGEST_NOTE = 4096  # bytes


def check_installed(runtime: Runtime) -> None:
    """Raise `MissingDependencyError` if `runtime` is OpenVINO and that is not installed."""
    if runtime == _OPENVINO and not _is_installed():
        raise MissingDependencyError("openvino", "runtime='openvino'", extra="openvino")


def with_runtime(model: LoadedModel, plan: RunPlan, runtime: Runtime, cache: Path) -> LoadedModel:
    """Return the model with what runs its documents.

    Args:
        model: runs everything on onnxruntime.
        plan: of the model.
        runtime: as requested.
        cache: the cache folder.

    Raises:
        MissingDependencyError: OpenVINO is requested and not installed.
        ModelError: OpenVINO is requested and cannot run the model, or not exactly enough.
    """
    if runtime == "onnxruntime":
        return model
    if runtime == "auto":
        return _faster(model, plan, cache)
    check_installed(runtime)
    other = _on_openvino(model, plan)
    with announced(f"comparing {model.spec.name} on OpenVINO, once for this cache folder,"):
        once(cache, _OPENVINO, _key(plan), partial(_check_vectors, other))
    return other


def _is_installed() -> bool:
    return find_spec(_OPENVINO) is not None


def _faster(model: LoadedModel, plan: RunPlan, cache: Path) -> LoadedModel:
    """Return the model on the faster runtime, as noted or as measured now."""
    if not _is_installed():
        return model
    note = cache / FOLDER / f"{_key(plan)}.json"
    try:
        _check_plan(plan)
        chosen = _noted(note)
        if chosen == "onnxruntime":
            return model
        other = _on_openvino(model, plan)
        if chosen is None:
            chosen = _measured(other, note)
    except ModelError as error:
        logger.info("%s runs on onnxruntime alone: %s", model.spec.name, error)
        note_down(note, sealed({"error": str(error)}))
        return model
    return other if chosen == _OPENVINO else model


def _check_plan(plan: RunPlan) -> None:
    """Raise `ModelError` if the model cannot be run on OpenVINO whatever its graph is."""
    name = plan.spec.name
    if plan.kind != "graph" or plan.report.precision != "int8":
        how = "its own ONNX file" if plan.kind == "onnx" else "a table of vectors"
        if plan.kind == "graph":
            how = f"a graph in {plan.report.precision}"
        raise ModelError(
            f"OpenVINO runs graphs compiled to int8, but {name} is run from {how}: pass "
            "runtime='onnxruntime'"
        )
    if plan.spec.task != "embed" or plan.spec.pooling not in _POOLINGS:
        raise ModelError(
            f"OpenVINO runs models that pool by {' or '.join(_POOLINGS)}, but {name} has pooling "
            f"{plan.spec.pooling!r}: pass runtime='onnxruntime'"
        )


def _on_openvino(model: LoadedModel, plan: RunPlan) -> LoadedModel:
    """Return the model with its documents on OpenVINO.

    Raises:
        MissingDependencyError: OpenVINO cannot be imported.
        ModelError: it cannot run the model.
    """
    _check_plan(plan)
    from qdrant_embed.encoder.runtimes.openvino_graph import OpenVinoGraph
    from qdrant_embed.encoder.runtimes.standard_graph import standard_graph

    name = model.spec.name
    with announced(f"starting OpenVINO for {name}"):
        backend: Backend = OpenVinoGraph(partial(standard_graph, plan.run[0]), name)
    if model.spec.dimension != plan.spec.dimension:
        backend = ShortenedVectors(backend, model.spec.dimension)
    return replace(model, bulk_backend=backend, report=replace(model.report, runtime=_OPENVINO))


def _measured(model: LoadedModel, note: Path) -> ChosenRuntime:
    """Measure both runtimes, note down what was found, and return the better one."""
    name, tokens = model.spec.name, _held_out(model)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    begun = time.monotonic()
    with announced(f"measuring {name} on onnxruntime and OpenVINO, once for this cache folder,"):
        _check_vectors(model)  # which also makes both ready
        while len(seconds[True]) < _ROUNDS:
            for bulk in (False, True):
                started = time.perf_counter()
                _encoded(model, tokens, bulk=bulk)
                seconds[bulk].append(time.perf_counter() - started)
            if time.monotonic() - begun > _SECONDS:
                break
    ours, theirs = (median(seconds[bulk]) for bulk in (False, True))
    note_down(note, sealed({"onnxruntime": ours, _OPENVINO: theirs}))
    chosen = _choice(ours, theirs)
    logger.info(
        "documents of %s run on %s: onnxruntime took %.2f s, OpenVINO %.2f s",
        name,
        chosen,
        ours,
        theirs,
    )
    return chosen


def _choice(ours: float, theirs: float) -> ChosenRuntime:
    return "openvino" if theirs <= _GAIN * ours else "onnxruntime"


def _noted(note: Path) -> ChosenRuntime | None:
    """Return what an earlier measurement says; ``None`` if there is none that can be used."""
    with suppress(OSError, ValueError):
        with note.open("rb") as file:
            content = unsealed(file.read(_LONGEST_NOTE))
        if isinstance(content.get("error"), str):
            return "onnxruntime"
        ours, theirs = content.get("onnxruntime"), content.get(_OPENVINO)
        if _is_time(ours) and _is_time(theirs):
            return _choice(ours, theirs)
    return None


def _is_time(value: object) -> TypeGuard[float]:
    return isinstance(value, float) and math.isfinite(value) and value > 0


def _check_vectors(model: LoadedModel) -> None:
    """Raise `ModelError` if the two runtimes' vectors differ more than int8 from float32 may."""
    tokens = _held_out(model)
    one, other = (_encoded(model, tokens, bulk=bulk) for bulk in (False, True))
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    cosines = (one * other).sum(axis=1) / np.maximum(lengths, np.finfo(np.float32).tiny)
    mean, least = float(cosines.mean()), float(cosines.min())
    if not (mean >= 1 - LARGEST_ERROR and least >= LEAST_COSINE):
        raise ModelError(
            f"vectors of {model.spec.name} on OpenVINO are not those on onnxruntime (cosine "
            f"{mean:.4f}, of one text {least:.4f}): pass runtime='onnxruntime'"
        )


def _held_out(model: LoadedModel) -> list[list[int]]:
    """Return token ids of many kinds of text that the model was not calibrated with."""
    from qdrant_embed.encoder.compile.calibration import calibration_tokens

    longest = model.spec.max_tokens
    return [ids[:longest] for ids in calibration_tokens(model.tokenizer, model.spec).held_out]


def _encoded(
    model: LoadedModel, tokens: Sequence[Sequence[int]], *, bulk: bool
) -> NDArray[np.float32]:
    """Return vectors as a pipeline computes them, float32 [texts, dimension]."""
    found = np.empty((len(tokens), model.spec.dimension), np.float32)

    def run(batch: Batch) -> None:
        inputs = Inputs(batch.token_ids(tokens), lengths=batch.lengths(tokens))
        found[list(batch.positions)] = model.run(inputs)

    with Workers(usable_cores()) as workers:
        batches = model.batches(list(map(len, tokens)), TOKENS_PER_BATCH, bulk=bulk)
        for future in [workers.submit(run, batch) for batch in batches]:
            future.result()
    return found


def _key(plan: RunPlan) -> str:
    """Return a digest of what a measurement depends on: the graph, the machine, the versions."""
    report = plan.report
    made: tuple[str, ...] = ()
    if isinstance(report, CompileReport):
        made = report.graph_sha256, report.constants_sha256
    versions = [VERSION]
    for package in (_OPENVINO, "onnxruntime"):
        with suppress(PackageNotFoundError):
            versions.append(version(package))
    facts = (*made, plan.spec.max_tokens, usable_cores(), *_processor(), *versions)
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _processor() -> tuple[str, ...]:
    """Return the processor's name and features, as far as the system tells."""
    with suppress(OSError, UnicodeDecodeError):
        lines = _PROCESSOR.read_text().partition("\n\n")[0].splitlines()
        named = ("model name", "flags", "Features", "CPU part")
        if found := tuple(line for line in lines if line.startswith(named)):
            return found
    return platform.machine(), platform.processor()
