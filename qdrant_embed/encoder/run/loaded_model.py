"""A model that is ready to run: compiled, a table of vectors, or its own ONNX file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.encoder.facts.precision import ModelReport
from qdrant_embed.encoder.facts.spec import ModelSpec
from qdrant_embed.encoder.files.plan import RunPlan
from qdrant_embed.encoder.interfaces import assert_never
from qdrant_embed.encoder.run.backend import Backend, Inputs, ShortenedVectors
from qdrant_embed.encoder.run.cores import usable_cores
from qdrant_embed.encoder.run.single_text import SingleTextBackend
from qdrant_embed.encoder.run.tokenizer import Tokenizer
from qdrant_embed.errors import ModelFileError

if TYPE_CHECKING:
    from qdrant_embed.encoder.run.session import Provider


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to run.

    Attributes:
        spec: its facts, with the dimension that was asked for.
        report: how it was made.
        tokenizer: text to token ids.
        backend: token ids to outputs, on the calling thread.
        single_text_backend: the same for one text at a time, on more cores where that is faster.
    """

    spec: ModelSpec
    report: ModelReport
    tokenizer: Tokenizer
    backend: Backend
    single_text_backend: Backend

    def run(self, inputs: Inputs, *, alone: bool = False) -> NDArray[np.float32]:
        """Return one output for each text, float32 [batch, ...].

        A text without tokens, such as an empty one for a tokenizer that adds no special tokens,
        gets zeros: there is nothing to run the network on.

        Args:
            inputs: the texts.
            alone: a single text is waited for, and the other cores are idle.
        """
        if not inputs.ids.size:
            return np.zeros((len(inputs.ids), self.spec.dimension), np.float32)
        return (self.single_text_backend if alone else self.backend).run(inputs)


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
    backend = start(threads=1)
    single: Backend = backend
    on_cpu = all(provider == "CPUExecutionProvider" for provider in providers or ())
    if plan.kind != "static" and on_cpu and usable_cores() > 1:
        single = SingleTextBackend(backend, partial(start, threads=2))
    return LoadedModel(spec, plan.report, tokenizer, backend, single)


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
    threads: int,
) -> Backend:
    backend: Backend
    match plan.kind:  # each imports what it alone needs
        case "graph":
            from qdrant_embed.encoder.run.session import CPU, Session

            backend = Session(plan.run[0], providers or CPU, threads=threads)
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
