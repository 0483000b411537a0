"""Weights stored in 16 bits, which are computed with in float32.

A bfloat16 is the upper half of a float32: its range, three digits. A float16 has four digits, and
no number above 65,504.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.encoder.facts.precision import Storage
from qdrant_embed.errors import ModelFileError

# numpy has no such type, but an array can say that it is one
BFLOAT16 = np.dtype([("bfloat16", "<u2")])


def stored(values: NDArray[np.float32], storage: Storage) -> NDArray[Any]:
    """Round float32 values to the nearest that `storage` can hold, ties to even.

    Raises:
        ModelFileError: a value is too large for it.
    """
    if storage == "fp32":
        return values
    halves: NDArray[Any]
    with np.errstate(over="ignore"):
        if storage == "fp16":
            halves = values.astype(np.float16)
            is_whole = bool(np.isfinite(halves).all())
        else:
            bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
            upper = ((bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16).astype("<u2")
            is_whole = not bool(((upper & 0x7F80) == 0x7F80).any())
            halves = upper.view(BFLOAT16)
    if not is_whole:
        raise ModelFileError(
            f"the weights have values up to {np.abs(values).max():.3g}, which {storage} cannot "
            "hold: use precision='fp32'"
        )
    return halves
