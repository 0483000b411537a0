"""How exact a model's vectors are: what is asked for, what is measured, what is reported."""

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


class ModelReport(BaseModel):
    """What is run of a model, and how exact it is.

    Attributes:
        model: the model's name.
        weights_sha256: of the weights that are run.
        file: the model's file that holds them.
        precision: ``int8``, or ``fp32`` where that was asked for or int8 would have harmed.
        fidelity: how near int8 is to float32; ``None`` for ``fp32``, and where the model's own
            quantised file is run.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str
    weights_sha256: str
    file: str
    precision: Precision
    fidelity: Fidelity | None = None
