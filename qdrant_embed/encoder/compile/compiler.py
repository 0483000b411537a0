"""Compile a model's weights to an ONNX graph, once, and keep it in the cache folder."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qdrant_embed.encoder.compile.architectures.registry import model_graph
from qdrant_embed.encoder.compile.layers.score_head import score_head
from qdrant_embed.encoder.compile.layers.token_weights import read_token_head
from qdrant_embed.encoder.compile.quantize import NOTHING_QUANTIZED, Array, QuantizationPlan
from qdrant_embed.encoder.facts.architectures import (
    BertFamilyConfig,
    MPNetConfig,
    TransformerConfig,
)
from qdrant_embed.encoder.facts.head import HeadModule, Scoring
from qdrant_embed.encoder.facts.precision import (
    FLOAT32_GRAPH_VERSION,
    GRAPH_VERSION,
    LARGEST_ERROR,
    LEAST_COSINE,
    LEAST_GROUP_OVERLAP,
    LEAST_OVERLAP,
    LEAST_TAU,
    CompileReport,
    Fidelity,
    Precision,
    RankingFidelity,
)
from qdrant_embed.encoder.facts.spec import ModelSpec, calibrated_prompts
from qdrant_embed.encoder.files.cache import (
    file_sha256,
    new_folder,
    remove,
    sealed,
    weights_digest,
)
from qdrant_embed.encoder.files.compiled import (
    CONSTANTS,
    GRAPH,
    REPORT,
    CompiledModel,
    compiled_folder,
    compiling_alone,
    discard,
    find_compiled,
)
from qdrant_embed.encoder.files.tensors import read_tensors
from qdrant_embed.encoder.run.pooling import Head, read_head
from qdrant_embed.errors import ModelFileError
from qdrant_embed.progress_bar import Progress
from qdrant_embed.stalls import announced

if TYPE_CHECKING:
    from qdrant_embed.encoder.compile.mixed_precision import Gate, Measured, MixedPrecision
    from qdrant_embed.encoder.run.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

_NAMES: Mapping[Precision, str] = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_TOLD_EVERY = 60.0  # seconds between messages of how long it will take


def compiled_model(
    files: Sequence[Path],
    weights_sha256: str,
    tokenizer_sha256: str,
    config: TransformerConfig,
    spec: ModelSpec,
    load_tokenizer: Callable[[], Tokenizer],
    precision: Precision,
    cache: Path,
    head: Sequence[HeadModule] = (),
    others: Sequence[Path] = (),
    token_head: Path | None = None,
    scoring: Scoring | None = None,
) -> CompiledModel:
    """Return the compiled form of a model; compile it now if `cache` does not hold it.

    Args:
        files: the model's safetensors or PyTorch file, or its index and then its shards.
        weights_sha256: hex digest of them, of the files of `head`, and of `others`.
        tokenizer_sha256: hex digest of the tokenizer and the model's settings.
        config: the model's ``config.json``.
        spec: task, pooling, normalisation, length and prefixes.
        load_tokenizer: returns the model's tokenizer, to calibrate with.
        precision: ``int8``, or how weights are stored that are computed with in float32.
        cache: the cache folder.
        head: the modules after the pooling.
        others: files that no graph is made from, but which belong to the weights.
        token_head: the file of a head that weighs each token; it adds an output to the graph.
        scoring: how a cross-encoder scores two texts.

    Raises:
        ModelFileError: the weights do not fit the config, or change meanwhile, or `cache` cannot be
            written.
        MissingDependencyError: ``onnx`` or ``safetensors`` is not installed.
    """
    facts = _facts(config, spec, precision, head, scoring)
    if token_head is not None:
        facts["token_head"] = file_sha256(token_head)
    made_from = _digest(
        {
            **facts,
            "weights_sha256": weights_sha256,
            # which an int8 graph is calibrated with
            "tokenizer_sha256": tokenizer_sha256 if precision == "int8" else None,
        }
    )
    name = f"{Path(spec.name).name.lower()}-{precision}"
    folder = compiled_folder(cache, f"{name}-{made_from}")

    # how folders were called before
    old = compiled_folder(cache, f"{name}-{weights_sha256[:16]}-{_digest(facts)[:16]}")

    def find() -> CompiledModel | None:
        for place, of in ((folder, made_from), (old, None)):
            kept = find_compiled(place, cache, weights_sha256=weights_sha256, made_from=of)
            if kept is not None:
                return kept
        return None

    if (kept := find()) is not None:
        return kept
    from qdrant_embed.encoder.compile.mixed_precision import MixedPrecisionSearch
    from qdrant_embed.encoder.compile.unfinished import Unfinished

    started = time.perf_counter()
    weights = read_tensors(files)
    graph = partial(
        model_graph,
        weights,
        config,
        spec,
        head=_head(head, weights, config, spec, scoring),
        token_head=read_token_head(token_head, config.hidden_size) if token_head else None,
    )
    # raises what is wrong with the weights before anything is deleted
    whole = graph(NOTHING_QUANTIZED)
    whole.graph.check()
    is_exact = precision in ("fp32", whole.storage)
    if config.caution:
        logger.warning("%s: %s", spec.name, config.caution)
    found: MixedPrecision | None = None
    with (
        compiling_alone(folder) as unfinished_folder,
        new_folder(folder) as temporary,
        Progress(
            f"compiling {spec.name}",
            1 if is_exact else config.num_hidden_layers + 2,
        ) as progress,
        announced(
            f"compiling {spec.name}, once for this cache folder,", unless=progress.is_visible
        ),
    ):
        # another process may have compiled it meanwhile
        if (kept := find()) is not None:
            return kept
        discard(folder / GRAPH)
        plan, reached = NOTHING_QUANTIZED, precision
        measured: Measured | None = None
        steps = _Steps(spec.name, config.num_hidden_layers + 2, progress)

        def search() -> MixedPrecisionSearch:
            unfinished = Unfinished(unfinished_folder, made_from)
            gate = _gate(load_tokenizer(), spec, scoring)
            return MixedPrecisionSearch(graph, gate, unfinished, temporary, steps.step)

        if precision == "int8":
            found = search().run()
            _tell_what_is_kept(spec, found.precision if found else "fp32", scoring)
            plan = found.plan if found else NOTHING_QUANTIZED
            reached, measured = (found.precision, found.measured) if found else ("fp32", None)
        elif precision != "fp32":
            plan = QuantizationPlan(storage=precision)
            if not is_exact:
                measured = search().measured(precision)
        if found is None:
            graph(plan).save(temporary / GRAPH)
        parts = [module.weights for module in head if module.weights is not None]
        if weights_digest([*files, *parts, *others], cache, again=True) != weights_sha256:
            remove(unfinished_folder)  # layers of either file may be in it
            raise ModelFileError(
                f"{files[0]} is not the file that it was: it changed before or while it was "
                "compiled; load the model again"
            )
        report = CompileReport(
            model=spec.name,
            file=files[0].name,
            weights_sha256=weights_sha256,
            graph_version=GRAPH_VERSION,
            precision=reached,
            fidelity=measured if isinstance(measured, Fidelity) else None,
            ranking=measured if isinstance(measured, RankingFidelity) else None,
            float32_groups=found.float32_groups if found else (),
            graph_bytes=(temporary / GRAPH).stat().st_size,
            weights_bytes=(temporary / CONSTANTS).stat().st_size,
            graph_sha256=file_sha256(temporary / GRAPH),
            constants_sha256=file_sha256(temporary / CONSTANTS),
            seconds=round(time.perf_counter() - started, 3),
            made_from=made_from,
        )
        (temporary / REPORT).write_text(sealed(_lasting_facts(report)))
    logger.info("compiled %s to %s in %.1f s", spec.name, report.precision, report.seconds)
    return CompiledModel(folder / GRAPH, report)


def _head(
    modules: Sequence[HeadModule],
    weights: Mapping[str, Array],
    config: TransformerConfig,
    spec: ModelSpec,
    scoring: Scoring | None,
) -> Head:
    """Read what follows the pooling: modules of their own, or layers among a model's weights."""
    if scoring is not None and scoring.layers:
        return score_head(weights, scoring.layers, config.dimension, spec.name)
    return read_head(modules)


def _gate(tokenizer: Tokenizer, spec: ModelSpec, scoring: Scoring | None) -> Gate:
    """Return what decides whether an int8 model is exact enough."""
    from qdrant_embed.encoder.compile.mixed_precision import VectorGate
    from qdrant_embed.encoder.compile.pairs import PairGate

    if scoring is not None:
        return PairGate(tokenizer, spec, scoring)
    return VectorGate(tokenizer, spec)


def _tell_what_is_kept(spec: ModelSpec, reached: Precision, scoring: Scoring | None) -> None:
    """Log a warning if a model that was to be int8 is not."""
    if reached == "int8":
        return
    if scoring is not None:
        logger.warning(
            "%s keeps its %s weights: in int8 it would rank pairs of texts otherwise (Kendall's "
            "tau below %s, or another best document), so it is as exact as ever, but slower and "
            "larger",
            spec.name,
            _NAMES[reached],
            LEAST_TAU,
        )
        return
    logger.warning(
        "%s keeps its %s weights: in int8 its vectors would change by more than "
        "%s (mean 1 - cosine) or a single one by more than %s, or of a text's ten "
        "nearest texts less than %s would stay (%s in a group of texts), so it is as "
        "exact as ever, but slower and larger",
        spec.name,
        _NAMES[reached],
        LARGEST_ERROR,
        round(1 - LEAST_COSINE, 6),
        LEAST_OVERLAP,
        LEAST_GROUP_OVERLAP,
    )


class _Steps:
    """Tells of the steps of a compilation: a bar, or a message a minute with the time left.

    Args:
        model: the model's name.
        total: number of steps.
        progress: the bar.
    """

    def __init__(self, model: str, total: int, progress: Progress) -> None:
        self._model, self._total, self._progress = model, total, progress
        self._done = 0
        self._started = self._told = time.monotonic()

    def step(self, done: str) -> None:
        """Tell that a step is done."""
        self._progress.step(done)
        self._done += 1
        now = time.monotonic()
        if self._progress.is_visible or now - self._told < _TOLD_EVERY:
            return
        self._told = now
        left = max(0, self._total - self._done) * (now - self._started) / self._done
        logger.warning(
            "compiling %s: %s is done, about %.0f min left", self._model, done, left / 60
        )


def _facts(
    config: TransformerConfig,
    spec: ModelSpec,
    precision: Precision,
    head: Sequence[HeadModule],
    scoring: Scoring | None,
) -> dict[str, object]:
    """Collect all that a graph depends on, but for weights and tokenizer."""
    facts: dict[str, object] = {
        "graph_version": GRAPH_VERSION if precision == "int8" else FLOAT32_GRAPH_VERSION,
        "architecture": type(config).__name__,
        "config": config.model_dump(),
        # as it was called before tasks had names, so that graphs compiled then are still found
        "pooling": "splade" if spec.task == "terms" else spec.pooling,
        "normalize": spec.normalize,
        "max_tokens": spec.max_tokens,
        "precision": precision,
    }
    if spec.task not in ("embed", "terms"):  # these are known by their pooling
        facts["task"] = spec.task
    if spec.late is not None:
        facts["late"] = asdict(spec.late)
    if scoring is not None:
        facts["scoring"] = asdict(replace(scoring, activation=None))
    if spec.term_weighting != "log":
        facts["term_weighting"] = spec.term_weighting
    if head:
        facts["head"] = [module.facts for module in head]
    if isinstance(config, BertFamilyConfig) and config.attends_in_parts(spec.max_tokens):
        # earlier releases compiled such models as all others
        facts["attention"] = "in blocks" if isinstance(config, MPNetConfig) else "in parts"
    if precision == "int8":  # which is calibrated with the prefixes
        facts |= {
            "query_prompts": calibrated_prompts(spec),
            "document_prefix": spec.document_prefix,
        }
    return facts


def _digest(facts: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _lasting_facts(report: CompileReport) -> dict[str, object]:
    """Return what is kept of a report: not what runs the model where it is loaded."""
    facts = asdict(report)
    del facts["runtime"]
    return facts
