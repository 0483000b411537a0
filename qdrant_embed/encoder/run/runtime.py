"""The parts that run a model: compiled, by a table, or from its own ONNX file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from qdrant_embed.encoder.facts.precision import ModelReport
from qdrant_embed.encoder.facts.spec import ModelSpec
from qdrant_embed.encoder.files.runnable import Runnable
from qdrant_embed.encoder.run.cores import usable_cores
from qdrant_embed.encoder.run.matryoshka import Shortened
from qdrant_embed.encoder.run.query import QueryRunner
from qdrant_embed.encoder.run.runner import Runner
from qdrant_embed.encoder.run.tokenizer import Tokenizer

if TYPE_CHECKING:
    from qdrant_embed.encoder.run.session import Provider


@dataclass(frozen=True)
class ModelRuntime:
    """The parts that run."""

    tokenizer: Tokenizer
    runner: Runner
    queries: QueryRunner
    report: ModelReport


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
        from qdrant_embed.encoder.files.tensors import read_tensors
        from qdrant_embed.encoder.run.static_table import StaticModel

        model: Runner = StaticModel(
            read_tensors(runnable.files),
            tokenizer.vocabulary_size,
            tokenizer.unknown_id if runnable.skips_unknown else None,
            normalize=runnable.spec.normalize,
        )
        model = _cut(model, runnable.spec, dimension)
        return ModelRuntime(tokenizer, model, QueryRunner(model, None), runnable.report)
    from qdrant_embed.encoder.run.session import CPU, Session

    path, chosen = runnable.files[0], providers or CPU

    def load(threads: int) -> Runner:
        session = Session(path, chosen, threads=threads)
        if runnable.kind == "graph":
            return _cut(session, runnable.spec, dimension)
        from qdrant_embed.encoder.run.onnx_file import OnnxFile

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
