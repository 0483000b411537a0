"""The parts that run a model: compiled, by a table, or from its own ONNX file."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qdrant_embed.encoder.architectures.config import TransformerConfig
from qdrant_embed.encoder.architectures.static import StaticConfig, StaticModel
from qdrant_embed.encoder.compiler import CompiledModel, compiled_model, discard
from qdrant_embed.encoder.configs import ModelDirectory
from qdrant_embed.encoder.cores import usable_cores
from qdrant_embed.encoder.fidelity import ModelReport, Precision
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


class RuntimeLoader:
    """Makes the parts that run a model.

    Args:
        directory: the model's files.
        spec: its facts.
        weights: those of its files that are run.
        weights_sha256: their digest.
        precision: asked for.
        providers: onnxruntime's execution providers; ``None`` for the CPU.
        cache: the cache folder.
    """

    def __init__(
        self,
        directory: ModelDirectory,
        spec: ModelSpec,
        weights: Sequence[Path],
        weights_sha256: str,
        precision: Precision,
        providers: Sequence[Provider] | None,
        cache: Path,
    ) -> None:
        self._directory, self._spec, self._config = directory, spec, directory.config
        self._weights, self._weights_sha256 = weights, weights_sha256
        self._precision: Precision = precision
        self._providers, self._cache = providers, cache
        self._tokenizer = Tokenizer(
            directory.tokenizer,
            spec.max_tokens,
            special_tokens=not isinstance(self._config, StaticConfig),
            lower_case=directory.lower_case,
        )

    def load(self) -> ModelRuntime:
        """The parts; compiles the graph where the model needs one and the cache has none.

        Raises:
            ModelFileError: the files cannot be run, or do not belong together.
            MissingDependencyError: a library or an execution provider is missing.
        """
        if isinstance(self._config, StaticConfig):
            return self._static(self._config)
        vocabulary = self._tokenizer.vocabulary_size
        if vocabulary > (self._config.vocab_size or math.inf):
            raise ModelFileError(
                f"{self._directory.tokenizer} has {vocabulary} tokens, but the model has vectors "
                f"for {self._config.vocab_size}: they do not belong together"
            )
        from qdrant_embed.encoder.session import check_providers

        if self._providers is not None:
            check_providers(self._providers)  # before anything long
        if isinstance(self._config, TransformerConfig):
            return self._compiled(self._config)
        return self._own_file()

    def _static(self, config: StaticConfig) -> ModelRuntime:
        tokenizer = self._tokenizer
        model = StaticModel(
            read_tensors(self._weights),
            tokenizer.vocabulary_size,
            tokenizer.unknown_id if config.skips_unknown else None,
            normalize=self._spec.normalize,
        )
        return ModelRuntime(tokenizer, model, QueryRunner(model, None), self._report("fp32"))

    def _compiled(self, config: TransformerConfig) -> ModelRuntime:
        from qdrant_embed.encoder.session import CPU, Session

        providers = self._providers or CPU
        compiled = self._compile(config)
        try:
            session = Session(compiled.graph, providers)
        except ModelFileError:  # damaged in the cache: make it once more
            discard(compiled.graph)
            compiled = self._compile(config)
            session = Session(compiled.graph, providers)
        spread = partial(Session, compiled.graph, providers, threads=2)
        return self._runtime(session, spread, compiled.report)

    def _compile(self, config: TransformerConfig) -> CompiledModel:
        return compiled_model(
            self._weights,
            self._weights_sha256,
            config,
            self._spec,
            self._tokenizer,
            self._precision,
            self._cache,
        )

    def _own_file(self) -> ModelRuntime:
        from qdrant_embed.encoder.onnx_file import OnnxFile
        from qdrant_embed.encoder.session import CPU, Session

        path = self._weights[0]
        precision: Precision = "int8" if is_quantized(path.name) else "fp32"
        logger.info("%s is run from its own file %s (%s)", self._spec.name, path, precision)

        def start(threads: int) -> OnnxFile:
            return OnnxFile(
                Session(path, self._providers or CPU, threads=threads),
                path,
                self._spec,
                one_by_one=precision == "int8",
                pooled=self._directory.has_dense,
                trial=self._tokenizer.tokenize([""]).ids[0],
            )

        return self._runtime(start(1), partial(start, 2), self._report(precision))

    def _runtime(
        self, runner: Runner, spread: Callable[[], Runner], report: ModelReport
    ) -> ModelRuntime:
        from qdrant_embed.encoder.session import CPU

        on_cores = usable_cores() > 1 and all(p in CPU for p in self._providers or CPU)
        queries = QueryRunner(runner, spread if on_cores else None)
        return ModelRuntime(self._tokenizer, runner, queries, report)

    def _report(self, precision: Precision) -> ModelReport:
        return ModelReport(
            model=self._spec.name,
            weights_sha256=self._weights_sha256,
            file=self._weights[0].relative_to(self._directory.path).as_posix(),
            precision=precision,
        )
