"""A model's files to a graph that can be run, made once and kept in the cache folder."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from qdrant_embed.encoder.cache import new_folder
from qdrant_embed.encoder.configs import BertConfig
from qdrant_embed.encoder.fidelity import LARGEST_ERROR, Fidelity, Precision
from qdrant_embed.encoder.progress import Progress
from qdrant_embed.encoder.quantize import NOTHING_QUANTIZED
from qdrant_embed.encoder.spec import ModelSpec
from qdrant_embed.errors import MissingDependencyError, ModelFileError

if TYPE_CHECKING:
    from qdrant_embed.encoder.int8 import Int8Plan
    from qdrant_embed.encoder.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

GRAPH_VERSION = 2  # part of the cache key: raise it when the same weights give another graph

_GRAPH, _WEIGHTS, _REPORT = "model.onnx", "model.onnx.weights", "compiled.json"


class CompileReport(BaseModel):
    """What was compiled; kept beside the graph as ``compiled.json``.

    Attributes:
        model: the model's name.
        weights_sha256: of the weights it was made from.
        graph_version: of the code that made it.
        precision: ``int8``, or ``fp32`` where that was asked for or int8 would have harmed.
        fidelity: how near int8 is to float32; ``None`` for ``fp32``.
        float32_groups: linear layers that stayed float32 in an int8 graph, as ``layer.kind``.
        graph_bytes: size of the graph file, to recognise one that was cut short.
        weights_bytes: likewise of the file with its constants.
        seconds: wall time of the whole.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str
    weights_sha256: str
    graph_version: int
    precision: Precision
    fidelity: Fidelity | None = None
    float32_groups: tuple[str, ...] = ()
    graph_bytes: int
    weights_bytes: int
    seconds: float


@dataclass(frozen=True)
class CompiledModel:
    """A graph that can be run, and the report of how it was made."""

    graph: Path
    report: CompileReport


def compiled_model(
    weights: Path,
    weights_sha256: str,
    config: BertConfig,
    spec: ModelSpec,
    tokenizer: Tokenizer,
    precision: Precision,
    cache: Path,
) -> CompiledModel:
    """The compiled form of a model, made now if `cache` does not hold it.

    Args:
        weights: the model's safetensors file.
        weights_sha256: its hex digest, part of the name in the cache.
        config: the model's ``config.json``.
        spec: pooling, normalisation, length and prefixes.
        tokenizer: the model's, to calibrate with.
        precision: ``int8`` or ``fp32``.
        cache: the cache folder.

    Raises:
        ModelFileError: the weights do not fit the config, or `cache` cannot be written.
        MissingDependencyError: ``onnx`` or ``safetensors`` is not installed.
    """
    folder = cache / "compiled" / _key(weights_sha256, config, spec, precision)
    if (report := _whole_report(folder)) is not None:
        return CompiledModel(folder / _GRAPH, report)
    from qdrant_embed.encoder.graph import BertGraph
    from qdrant_embed.encoder.int8 import Int8Trial

    started = time.perf_counter()
    tensors = _read_weights(weights)
    BertGraph(tensors, config, spec)  # says now what is wrong with the weights
    discard(folder / _GRAPH)
    found: Int8Plan | None = None
    with new_folder(folder) as temporary, Progress(f"compiling {spec.name}") as progress:
        if precision == "int8":
            trial = Int8Trial(tensors, config, spec, tokenizer, temporary, progress)
            found = trial.plan()
            if found is None:
                logger.warning(
                    "%s keeps its float32 weights: in int8 its vectors would change by more than "
                    "%s (mean 1 - cosine), so it is as exact as ever, but slower and larger",
                    spec.name,
                    LARGEST_ERROR,
                )
        plan = found.plan if found else NOTHING_QUANTIZED
        BertGraph(tensors, config, spec, plan).save(temporary / _GRAPH)
        report = CompileReport(
            model=spec.name,
            weights_sha256=weights_sha256,
            graph_version=GRAPH_VERSION,
            precision="int8" if found else "fp32",
            fidelity=found.fidelity if found else None,
            float32_groups=found.float32_groups if found else (),
            graph_bytes=(temporary / _GRAPH).stat().st_size,
            weights_bytes=(temporary / _WEIGHTS).stat().st_size,
            seconds=round(time.perf_counter() - started, 3),
        )
        (temporary / _REPORT).write_text(report.model_dump_json(indent=2))
    logger.info("compiled %s to %s in %.1f s", spec.name, report.precision, report.seconds)
    return CompiledModel(folder / _GRAPH, report)


def discard(graph: Path) -> None:
    """Removes a compiled graph, so that it is made again when next asked for."""
    shutil.rmtree(graph.parent, ignore_errors=True)


def _key(weights_sha256: str, config: BertConfig, spec: ModelSpec, precision: Precision) -> str:
    """A folder name: the model's for people, then digests of all the graph depends on."""
    facts = {
        "graph_version": GRAPH_VERSION,
        "config": config.model_dump(),
        "pooling": spec.pooling,
        "normalize": spec.normalize,
        "max_tokens": spec.max_tokens,
        "precision": precision,
    }
    if precision == "int8":  # it is calibrated with the prefixes
        facts |= {"query_prefix": spec.query_prefix, "document_prefix": spec.document_prefix}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    short_name = Path(spec.name).name.lower()
    return f"{short_name}-{precision}-{weights_sha256[:16]}-{digest[:16]}"


def _whole_report(folder: Path) -> CompileReport | None:
    """The report of a compiled model whose files have the sizes it states."""
    try:
        report = CompileReport.model_validate_json((folder / _REPORT).read_bytes())
        sizes = ((folder / _GRAPH).stat().st_size, (folder / _WEIGHTS).stat().st_size)
    except (OSError, ValidationError):
        return None
    return report if sizes == (report.graph_bytes, report.weights_bytes) else None


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
