"""The parts that run a model: compiled, by a table, or from its own ONNX file."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from qdrant_embed.encoder.architectures.config import TransformerConfig
from qdrant_embed.encoder.architectures.static import StaticConfig, StaticModel
from qdrant_embed.encoder.compiler import compiled_model
from qdrant_embed.encoder.configs import ModelDirectory
from qdrant_embed.encoder.cores import usable_cores
from qdrant_embed.encoder.fidelity import ModelReport, Precision
from qdrant_embed.encoder.matryoshka import Shortened
from qdrant_embed.encoder.query import QueryRunner
from qdrant_embed.encoder.runner import Runner
from qdrant_embed.encoder.spec import ModelSpec
from qdrant_embed.encoder.tensors import read_tensors
from qdrant_embed.encoder.tokenizer import Tokenizer
from qdrant_embed.encoder.weights import is_quantized
from qdrant_embed.errors import ModelFileError

if TYPE_CHECKING:
    from qdrant_embed.encoder.session import Provider

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelRuntime:
    """The parts that run."""

    tokenizer: Tokenizer
    runner: Runner
    queries: QueryRunner
    report: ModelReport


@dataclass(frozen=True)
class Runnable:
    """A model with everything decided and compiled: what it takes to start it.

    Attributes:
        kind: a ``graph`` of ours, the model's own ``onnx`` file, or a ``static`` table.
        spec: the model's facts.
        report: of how it was made.
        tokenizer: its ``tokenizer.json``.
        files: what is run, then what that file reads from beside itself.
        lower_case: lower-case texts before they are tokenised.
        skips_unknown: leave unknown tokens out of a static model's mean.
        pooled: only the file itself can pool, as with Dense layers after the pooling.
    """

    kind: Literal["graph", "onnx", "static"]
    spec: ModelSpec
    report: ModelReport
    tokenizer: Path
    files: tuple[Path, ...]
    lower_case: bool = False
    skips_unknown: bool = False
    pooled: bool = False

    def load_tokenizer(self) -> Tokenizer:
        """The model's tokenizer.

        Raises:
            ModelFileError: it cannot be read.
        """
        return Tokenizer(
            self.tokenizer,
            self.spec.max_tokens,
            special_tokens=self.kind != "static",
            lower_case=self.lower_case,
        )


def start(runnable: Runnable, providers: Sequence[Provider] | None, dimension: int) -> ModelRuntime:
    """The parts that run a model.

    Args:
        runnable: the model.
        providers: onnxruntime's execution providers; ``None`` for the CPU.
        dimension: of the vectors; below the model's own, they are cut.

    Raises:
        ModelFileError: the files cannot be run.
        MissingDependencyError: a library or an execution provider is missing.
    """
    tokenizer = runnable.load_tokenizer()
    if runnable.kind == "static":
        model: Runner = StaticModel(
            read_tensors(runnable.files),
            tokenizer.vocabulary_size,
            tokenizer.unknown_id if runnable.skips_unknown else None,
            normalize=runnable.spec.normalize,
        )
        model = _cut(model, runnable.spec, dimension)
        return ModelRuntime(tokenizer, model, QueryRunner(model, None), runnable.report)
    from qdrant_embed.encoder.session import CPU, Session

    path, chosen = runnable.files[0], providers or CPU

    def load(threads: int) -> Runner:
        session = Session(path, chosen, threads=threads)
        if runnable.kind == "graph":
            return _cut(session, runnable.spec, dimension)
        from qdrant_embed.encoder.onnx_file import OnnxFile

        file = OnnxFile(
            session,
            path,
            runnable.spec,
            one_by_one=runnable.report.precision == "int8",
            pooled=runnable.pooled,
            trial=tokenizer.tokenize([""]).ids[0],
        )
        return _cut(file, runnable.spec, dimension)

    runner = load(1)
    on_cores = usable_cores() > 1 and all(provider in CPU for provider in chosen)
    queries = QueryRunner(runner, partial(load, 2) if on_cores else None)
    return ModelRuntime(tokenizer, runner, queries, runnable.report)


def _cut(runner: Runner, spec: ModelSpec, dimension: int) -> Runner:
    return runner if dimension == spec.dimension else Shortened(runner, dimension)


def prepare(
    directory: ModelDirectory,
    spec: ModelSpec,
    weights: Sequence[Path],
    weights_sha256: str,
    precision: Precision,
    cache: Path,
) -> Runnable:
    """A model's files as they can be run; compiled now, where it must be and `cache` has it not.

    Args:
        directory: the model's files.
        spec: its facts.
        weights: those of its files that are run.
        weights_sha256: their digest.
        precision: asked for.
        cache: the cache folder.

    Raises:
        ModelFileError: the files cannot be run, or do not belong together.
        MissingDependencyError: a library is missing.
    """
    config = directory.config
    own_file = weights[0].suffix == ".onnx"
    runnable = Runnable(
        kind="onnx" if own_file else "static" if isinstance(config, StaticConfig) else "graph",
        spec=spec,
        report=ModelReport(
            model=spec.name,
            weights_sha256=weights_sha256,
            file=weights[0].relative_to(directory.path).as_posix(),
            precision="int8" if own_file and is_quantized(weights[0].name) else "fp32",
        ),
        tokenizer=directory.tokenizer,
        files=tuple(weights),
        lower_case=directory.lower_case,
        skips_unknown=isinstance(config, StaticConfig) and config.skips_unknown,
        pooled=directory.has_dense,
    )
    if isinstance(config, StaticConfig):
        return runnable
    tokenizer = runnable.load_tokenizer()
    if tokenizer.vocabulary_size > (config.vocab_size or math.inf):
        raise ModelFileError(
            f"{directory.tokenizer} has {tokenizer.vocabulary_size} tokens, but the model has "
            f"vectors for {config.vocab_size}: they do not belong together"
        )
    if not isinstance(config, TransformerConfig):
        logger.info(
            "%s is run from its own file %s (%s)", spec.name, weights[0], runnable.report.precision
        )
        return runnable
    compiled = compiled_model(weights, weights_sha256, config, spec, tokenizer, precision, cache)
    return replace(runnable, report=compiled.report, files=compiled.files)
