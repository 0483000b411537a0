"""Which files of a model hold the weights that will be run, and how they are told apart."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from qdrant_embed.encoder.compile.architectures import can_compile
from qdrant_embed.encoder.facts.precision import Precision
from qdrant_embed.encoder.files.cache import sha256

_ONNX = {
    "fp32": ("model.onnx", "model_optimized.onnx"),
    # made for any CPU; those for AVX-512 and ARM saturate or fail on others
    "int8": (
        "model_quantized.onnx",
        "model_int8.onnx",
        "model_uint8.onnx",
        "model_quint8_avx2.onnx",
    ),
}


def weight_files(
    names: Iterable[str], config: Mapping[str, Any], precision: Precision
) -> list[str]:
    """Those of `names` that hold the weights to run, in order; none if there are none.

    A model that can be compiled is read from ``model.safetensors`` (or its shards, the index
    first) in either precision. Any other, and one without safetensors, is run from an ONNX file
    of its own: with ``int8`` a quantised one if there is one, else the float32 one; with ``fp32``
    a float32 one only. The file comes first, what it keeps beside itself after it. Of files with
    one name, the one in the uppermost folder is taken.

    Args:
        names: the files of a repository or folder, as paths with ``/``.
        config: the content of its ``config.json``; empty if it has none (static models).
        precision: ``int8`` or ``fp32``.
    """
    known = sorted(names, key=lambda name: (name.count("/"), name))
    if can_compile(config):
        if (single := _find(known, "model.safetensors")) is not None:
            return [single]
        if (index := _find(known, "model.safetensors.index.json")) is not None:
            folder = index.removesuffix("model.safetensors.index.json")
            shards = [
                name
                for name in known
                if name.startswith(f"{folder}model-") and name.endswith(".safetensors")
            ]
            return [index, *shards]
    wanted = _ONNX["fp32"] if precision == "fp32" else _ONNX["int8"] + _ONNX["fp32"]
    for file in wanted:
        if (found := _find(known, file)) is not None:
            beside = (f"{found}_data", f"{found}.data")
            return [found, *(name for name in known if name.startswith(beside))]
    return []


def is_quantized(file: str) -> bool:
    """Whether an ONNX file's name says that it is quantised."""
    return file.rpartition("/")[2] in _ONNX["int8"]


def weights_digest(files: Sequence[Path], cache: Path) -> str:
    """Hex sha256 of a model's weights: that of a single file, else of the digests of all."""
    digests = [sha256(file, cache) for file in files]
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _find(names: Iterable[str], file: str) -> str | None:
    return next((name for name in names if name.rpartition("/")[2] == file), None)
