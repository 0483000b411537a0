"""A model's files to a graph that can be run, made once and kept in the cache folder."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from qdrant_embed.encoder.cache import new_folder
from qdrant_embed.encoder.configs import BertConfig
from qdrant_embed.encoder.spec import ModelSpec
from qdrant_embed.errors import MissingDependencyError, ModelFileError

logger = logging.getLogger(__name__)

GRAPH_VERSION = 1  # part of the cache key: raise it when the same weights give another graph

_GRAPH, _REPORT = "model.onnx", "compiled.json"


class CompileReport(BaseModel):
    """What was compiled; kept beside the graph.

    Attributes:
        model: the model's name.
        weights_sha256: of the weights it was made from.
        graph_version: of the code that made it.
        graph_bytes: size of the graph file, to recognise one that was cut short.
        seconds: wall time of reading the weights and writing the graph.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str
    weights_sha256: str
    graph_version: int
    graph_bytes: int
    seconds: float


def compiled_graph(
    weights: Path, weights_sha256: str, config: BertConfig, spec: ModelSpec, cache: Path
) -> Path:
    """The compiled graph of a model, made now if `cache` does not hold it.

    Args:
        weights: the model's safetensors file.
        weights_sha256: its hex digest, part of the name in the cache.
        config: the model's ``config.json``.
        spec: pooling, normalisation and length of the graph.
        cache: the cache folder.

    Raises:
        ModelFileError: the weights do not fit the config, or `cache` cannot be written.
        MissingDependencyError: ``onnx`` or ``safetensors`` is not installed.
    """
    folder = cache / "compiled" / _key(weights_sha256, config, spec)
    graph = folder / _GRAPH
    if _is_whole(folder):
        return graph
    from qdrant_embed.encoder.graph import BertGraph

    started = time.perf_counter()
    built = BertGraph(_read_weights(weights), config, spec)
    discard(graph)
    with new_folder(folder) as temporary:
        built.save(temporary / _GRAPH)
        report = CompileReport(
            model=spec.name,
            weights_sha256=weights_sha256,
            graph_version=GRAPH_VERSION,
            graph_bytes=(temporary / _GRAPH).stat().st_size,
            seconds=round(time.perf_counter() - started, 3),
        )
        (temporary / _REPORT).write_text(report.model_dump_json(indent=2))
    logger.info("compiled %s in %.1f s: %s", spec.name, report.seconds, folder)
    return graph


def discard(graph: Path) -> None:
    """Removes a compiled graph, so that it is made again when next asked for."""
    shutil.rmtree(graph.parent, ignore_errors=True)


def _key(weights_sha256: str, config: BertConfig, spec: ModelSpec) -> str:
    """A folder name: the model's for people, then digests of all the graph depends on."""
    facts = {
        "graph_version": GRAPH_VERSION,
        "config": config.model_dump(),
        "pooling": spec.pooling,
        "normalize": spec.normalize,
        "max_tokens": spec.max_tokens,
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    short_name = Path(spec.name).name.lower()
    return f"{short_name}-{weights_sha256[:16]}-{digest[:16]}"


def _is_whole(folder: Path) -> bool:
    try:
        report = CompileReport.model_validate_json((folder / _REPORT).read_bytes())
        return (folder / _GRAPH).stat().st_size == report.graph_bytes
    except (OSError, ValidationError):
        return False


def _read_weights(path: Path) -> Mapping[str, NDArray[np.float32]]:
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError as error:
        raise MissingDependencyError("safetensors", "compiling a model") from error
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, KeyError, TypeError) as error:
        raise ModelFileError(f"{path} cannot be read as safetensors: {error}") from error
    return {
        name.removeprefix("bert."): np.asarray(tensor, np.float32)
        for name, tensor in tensors.items()
        if tensor.dtype.kind != "i"  # position_ids, which old transformers kept with the weights
    }
