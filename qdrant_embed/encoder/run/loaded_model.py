"""A model that is ready to run: compiled, a table of vectors, or its own ONNX file."""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.encoder.facts.head import Scoring
from qdrant_embed.encoder.facts.precision import ModelReport
from qdrant_embed.encoder.facts.spec import ModelSpec
from qdrant_embed.encoder.files.plan import RunPlan, plan_of_json
from qdrant_embed.encoder.interfaces import assert_never
from qdrant_embed.encoder.run.backend import Backend, Inputs, ShortenedVectors, WeighedTokens
from qdrant_embed.encoder.run.batching import Batch, equal_length_batches, padded_batches
from qdrant_embed.encoder.run.cores import usable_cores
from qdrant_embed.encoder.run.single_text import SingleTextBackend
from qdrant_embed.encoder.run.tokenizer import Tokenizer
from qdrant_embed.errors import ModelError, ModelFileError, QdrantEmbedError
from qdrant_embed.limits import TRIAL_MEMORY, TRIAL_SECONDS
from qdrant_embed.stalls import announced

if TYPE_CHECKING:
    from qdrant_embed.encoder.run.session import Provider

logger = logging.getLogger(__name__)

_FEW = 4096  # values of which numpy computes a product without threads
_TEXT = "a text"
_COMPARED = (_TEXT, "How is a model compared with itself?", "Ein Schiff, 42 Tage auf See. " * 8)
# bytes of a compiled graph; of one as large, single texts are not spread over two cores, or the
# graph of short texts is not run, which would not save much of their time
_TWICE_IN_MEMORY, _THRICE_IN_MEMORY = 1 << 29, 1 << 27
_CHILD = (
    "import json, sys; job = json.load(sys.stdin.buffer); sys.path[:] = job['path']; "
    "from qdrant_embed.encoder.run.loaded_model import run_trial; run_trial(job)"
)


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to run.

    Attributes:
        spec: its facts, with the dimension that was asked for.
        report: how it was made.
        tokenizer: text to token ids.
        scoring: how a cross-encoder scores two texts; ``None`` for other models.
        backend: token ids to outputs, on the calling thread.
        single_text_backend: the same for one text at a time, on more cores where that is faster;
            it decides which of the threads that call it compute.
        bulk_backend: the same for documents, padded, on another runtime; ``None`` without one.
    """

    spec: ModelSpec
    report: ModelReport
    tokenizer: Tokenizer
    backend: Backend
    single_text_backend: Backend
    scoring: Scoring | None = None
    bulk_backend: Backend | None = None

    def batches(self, lengths: Sequence[int], tokens_per_batch: int, *, bulk: bool) -> list[Batch]:
        """Make batches of texts, of which `lengths` are the tokens.

        With `bulk`, they are padded for `bulk_backend`, if there is one.
        """
        if not bulk or self.bulk_backend is None:
            return equal_length_batches(lengths, tokens_per_batch)
        return padded_batches(lengths, self.spec.max_tokens, tokens_per_batch)

    def run(self, inputs: Inputs, *, alone: bool = False) -> NDArray[np.float32]:
        """Return one output for each text, float32 [batch, ...].

        A text without tokens, such as an empty one for a tokenizer that adds no special tokens,
        gets zeros: there is nothing to run the network on.

        Args:
            inputs: the texts.
            alone: a single text is waited for, and every core may work for it.

        Raises:
            ModelError: the model failed, or its outputs are no finite numbers.
        """
        if not inputs.ids.size:
            return np.zeros((len(inputs.ids), self.spec.dimension), np.float32)
        backend = self.single_text_backend if alone else self.backend
        if inputs.lengths is not None and self.bulk_backend is not None:
            backend = self.bulk_backend
        outputs = backend.run(inputs)
        if len(outputs) != len(inputs.ids):
            raise ModelError(
                f"{self.spec.name} returned {len(outputs)} outputs for {len(inputs.ids)} texts"
            )
        if not _are_finite(outputs):
            raise ModelError(
                f"{self.spec.name} returned values that are not finite numbers: its weights cannot "
                "be used, or not for every text"
            )
        return outputs


def _are_finite(values: NDArray[np.float32]) -> bool:
    """Return whether all values are finite numbers; of a few, as a query has, in half the time."""
    if values.size <= _FEW and math.isfinite(np.vdot(values, values)):
        return True  # else one is not, or their squares are too large
    return bool(np.isfinite(values).all())


def load_model(plan: RunPlan, spec: ModelSpec, providers: Sequence[Provider] | None) -> LoadedModel:
    """Load the files of `plan`.

    Args:
        plan: what to run.
        spec: the plan's facts, with the dimension asked for: below the model's own, vectors are
            cut.
        providers: onnxruntime's execution providers; ``None`` for the CPU.

    Raises:
        ModelFileError: the files cannot be run.
        MissingDependencyError: a library or an execution provider is missing.
    """
    tokenizer = load_tokenizer(plan)
    start = partial(_backend, plan, spec, tokenizer, providers)
    backend = start()
    single: Backend = backend
    on_cpu = all(provider == "CPUExecutionProvider" for provider in providers or ())
    # each session has a copy of the weights, arranged for its products, unless they are widened
    size = sum(map(_size, plan.run))
    small = plan.kind == "onnx" or size < _TWICE_IN_MEMORY
    small = small or plan.report.precision in ("bf16", "fp16")
    if plan.kind != "static" and on_cpu:
        is_spread = usable_cores() > 1 and small
        spread = partial(start, threads=2, by_length=size < _THRICE_IN_MEMORY)
        single = SingleTextBackend(backend, spread if is_spread else None)
    return LoadedModel(spec, plan.report, tokenizer, backend, single, plan.scoring)


def _size(file: Path) -> int:
    try:
        return os.path.getsize(file)
    except OSError as error:
        raise ModelFileError(f"{file} cannot be read: {error}") from error


def load_tokenizer(plan: RunPlan) -> Tokenizer:
    """Load the tokenizer of `plan`.

    Raises:
        ModelFileError: it cannot be read, or has more tokens than the model.
    """
    tokenizer = Tokenizer(
        plan.tokenizer,
        plan.spec.max_tokens,
        special_tokens=plan.kind != "static",
        lower_case=plan.lower_case,
    )
    if tokenizer.vocabulary_size > (plan.vocabulary or math.inf):
        raise ModelFileError(
            f"{plan.tokenizer} has {tokenizer.vocabulary_size} tokens, but the model has "
            f"vectors for {plan.vocabulary}: they do not belong together"
        )
    return tokenizer


def _backend(
    plan: RunPlan,
    spec: ModelSpec,
    tokenizer: Tokenizer,
    providers: Sequence[Provider] | None,
    *,
    threads: int = 1,
    by_length: bool = False,
) -> Backend:
    backend: Backend
    match plan.kind:  # each imports what it alone needs
        case "graph":
            from qdrant_embed.encoder.run.session import CPU, Session, SpreadSession

            kind = SpreadSession if by_length else Session
            session = kind(plan.run[0], providers or CPU, threads=threads)
            backend = session if plan.terms_sha256 is None else WeighedTokens(session)
        case "onnx":
            from qdrant_embed.encoder.run.onnx_file import OnnxFile
            from qdrant_embed.encoder.run.session import CPU, Session

            backend = OnnxFile(
                Session(plan.run[0], providers or CPU, threads=threads),
                plan.run[0],
                plan.spec,
                one_by_one=plan.report.precision == "int8",
                pooled=plan.pooled,
                # without special tokens, an empty text would show nothing
                trial=tokenizer.tokenize([""]).ids[0] or tokenizer.ordinary_ids()[:1],
                head=plan.head,
            )
        case "static":
            from qdrant_embed.encoder.files.tensors import read_tensors
            from qdrant_embed.encoder.run.static_table import StaticModel

            backend = StaticModel(
                read_tensors(plan.run),
                tokenizer.vocabulary_size,
                tokenizer.unknown_id if plan.skips_unknown else None,
                normalize=plan.spec.normalize,
            )
        case _:
            assert_never(plan.kind)
    if spec.dimension == plan.spec.dimension:
        return backend
    return ShortenedVectors(backend, spec.dimension)


def largest_difference(one: LoadedModel, other: LoadedModel) -> float:
    """Return the largest difference of a number in two models' vectors of some texts."""
    largest = 0.0
    for text in _COMPARED:
        pair = [model.tokenizer.tokenize([text]).ids[0] for model in (one, other)]
        vectors = [
            model.run(Inputs(np.array([ids], np.int64)))
            for model, ids in zip((one, other), pair, strict=True)
        ]
        largest = max(largest, float(np.abs(vectors[0] - vectors[1]).max()))
    return largest


def _reads_types(plan: RunPlan) -> bool:
    return plan.scoring is not None and plan.scoring.token_types


def try_plan(plan: RunPlan, seconds: float | None = None) -> None:
    """Load and run a model in a child process, as is done once with a graph of others.

    A graph is a program that somebody else wrote. It may never end, or take all memory; what
    happens to it here happens to a child, which has a limit of time and, on Linux, of memory. The
    child is a new interpreter and no fork, and runs none of its parent's modules.

    Args:
        plan: what to run.
        seconds: limit of time; `TRIAL_SECONDS` by default.

    Raises:
        ModelFileError: it cannot be run, or not within the limits.
    """
    path, limit = plan.run[0], TRIAL_SECONDS if seconds is None else seconds
    if not sys.executable or getattr(sys, "frozen", False):  # there is no interpreter to start
        return
    size = sum(file.stat().st_size for file in plan.run)
    memory = TRIAL_MEMORY + 4 * size
    job = {"path": sys.path, "plan": plan.to_json(), "memory": memory}
    command = [sys.executable, "-I", "-c", _CHILD]
    try:
        with announced(f"trying {path} for the first time"):
            done = subprocess.run(  # noqa: S603 - this interpreter
                command,
                input=json.dumps(job).encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=limit,
                check=False,
            )
    except subprocess.TimeoutExpired as error:
        raise ModelFileError(
            f"{path} cannot be run: a short text took more than {limit:.0f} s in a first trial"
        ) from error
    except OSError as error:
        logger.warning("%s is run without a trial, because no process starts: %s", path, error)
        return
    if done.returncode == 0:
        return
    said = done.stdout.decode("utf-8", "replace").strip()
    raise ModelFileError(
        said
        or f"{path} cannot be run: it ended the process of its first trial "
        f"(exit code {done.returncode}, {memory >> 30} GB of memory allowed)"
    )


def run_trial(job: dict[str, object]) -> None:
    """Do a trial, in the child: print why it failed and exit with 1, or exit with 0."""
    if sys.platform == "linux":
        import resource

        memory = int(str(job["memory"]))
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        if soft == resource.RLIM_INFINITY or soft > memory:
            resource.setrlimit(resource.RLIMIT_AS, (memory, hard))
    plan = plan_of_json(str(job["plan"]))
    try:
        model = load_model(plan, plan.spec, None)
        [text] = model.tokenizer.tokenize([_TEXT]).ids
        other = [max(0, token - 1) for token in text]
        types = np.zeros((1, len(text)), np.int64) if _reads_types(plan) else None
        both = None if types is None else np.repeat(types, 2, axis=0)
        together = model.run(Inputs(np.array([text, other], np.int64), both))
        if plan.spec.task in ("embed", "score") and together.shape[1:] != (plan.spec.dimension,):
            raise ModelFileError(
                f"{plan.run[0]} returns vectors of shape {together.shape[1:]}, but the model has "
                f"{plan.spec.dimension} dimensions: export it again"
            )
        for row, ids in zip(together, (text, other), strict=True):
            [alone] = model.run(Inputs(np.array([ids], np.int64), types))
            if not np.allclose(row, alone, 0.01, 0.01):
                raise ModelFileError(
                    f"{plan.run[0]} returns other vectors for two texts than for one: export it "
                    "again, with a dynamic axis for the batch"
                )
    except QdrantEmbedError as error:
        print(error)  # noqa: T201 - to the parent
        sys.exit(1)
