"""A model's files to something that can be started: compiled, a table, or its own ONNX file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from qdrant_embed.encoder.compile.compiler import compiled_model
from qdrant_embed.encoder.facts.architectures import StaticConfig, TransformerConfig
from qdrant_embed.encoder.facts.directory import ModelDirectory
from qdrant_embed.encoder.facts.precision import ModelReport, Precision
from qdrant_embed.encoder.facts.spec import ModelSpec
from qdrant_embed.encoder.facts.weights import is_quantized
from qdrant_embed.encoder.files.runnable import Runnable

logger = logging.getLogger(__name__)


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
    runnable = replace(runnable, vocabulary=config.vocab_size)
    if not isinstance(config, TransformerConfig):
        logger.info(
            "%s is run from its own file %s (%s)", spec.name, weights[0], runnable.report.precision
        )
        return runnable
    compiled = compiled_model(
        weights, weights_sha256, config, spec, runnable.load_tokenizer, precision, cache
    )
    return replace(runnable, report=compiled.report, files=compiled.files)
