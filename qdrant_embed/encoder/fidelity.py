"""How near int8 vectors are to float32 ones, and how near they must be."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

Precision: TypeAlias = Literal["int8", "fp32"]

LARGEST_ERROR = 0.003  # mean 1 - cosine to float32; healthy models measured 0.0003 to 0.0019


class Fidelity(BaseModel):
    """Cosines between int8 and float32 vectors of texts that were not calibrated with.

    Attributes:
        mean: over the texts.
        least: of them all.
        texts: how many.
    """

    model_config = ConfigDict(frozen=True)

    mean: float
    least: float
    texts: int
