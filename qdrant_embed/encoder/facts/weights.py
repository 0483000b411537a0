"""Which files of a model hold the weights that are run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from qdrant_embed.encoder.facts.architectures import can_compile
from qdrant_embed.encoder.facts.precision import Precision

_ONNX: Mapping[str, tuple[str, ...]] = {
    "fp32": ("model.onnx", "model_optimized.onnx"),
    # for any CPU; the kinds for AVX-512 and ARM saturate or fail on others
    "int8": (
        "model_quantized.onnx",
        "model_int8.onnx",
        "model_uint8.onnx",
        "model_quint8_avx2.onnx",
    ),
}
# of weights that can be compiled: safetensors first
_WEIGHTS = (("model", ".safetensors"), ("pytorch_model", ".bin"))


def weight_files(
    names: Iterable[str],
    config: Mapping[str, Any],
    precision: Precision,
    *,
    as_before: bool = False,
) -> list[str]:
    """Choose those of `names` that hold the weights to run, in order; none if there are none.

    A model that can be compiled is read from ``model.safetensors`` in either precision, without
    one from ``pytorch_model.bin``; or from the shards of either, the index first. Any other, and
    one that has neither, is run from an ONNX file of its own: with ``int8`` a quantised one if
    there is one, else the float32 one; otherwise a float32 one only. The ONNX file comes
    first, its external data after it. Of files with the same name, the one in the uppermost
    folder is chosen.

    Args:
        names: the files of a repository or folder, as paths with ``/``.
        config: the content of its ``config.json``; empty if it has none (static models).
        precision: ``int8`` or another one.
        as_before: as the first releases did, which compiled fewer architectures, and from
            safetensors alone.
    """
    known = sorted(names, key=lambda name: (name.count("/"), name))
    if can_compile(config, as_before=as_before):
        for stem, suffix in _WEIGHTS[:1] if as_before else _WEIGHTS:
            if (single := _find(known, stem + suffix)) is not None:
                return [single]
            if (index := _find(known, f"{stem}{suffix}.index.json")) is not None:
                folder = index.removesuffix(f"{stem}{suffix}.index.json")
                shards = [
                    name
                    for name in known
                    if name.startswith(f"{folder}{stem}-") and name.endswith(suffix)
                ]
                return [index, *shards]
    wanted = _ONNX["int8"] + _ONNX["fp32"] if precision == "int8" else _ONNX["fp32"]
    for file in wanted:
        if (found := _find(known, file)) is not None:
            beside = (f"{found}_data", f"{found}.data")
            return [found, *(name for name in known if name.startswith(beside))]
    return []


def is_quantized(file: str) -> bool:
    """Return whether an ONNX file is quantised, by its name."""
    return file.rpartition("/")[2] in _ONNX["int8"]


def _find(names: Iterable[str], file: str) -> str | None:
    return next((name for name in names if name.rpartition("/")[2] == file), None)
