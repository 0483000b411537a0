"""How exact a model's vectors are: what is asked for, what is measured, what is reported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Precision: TypeAlias = Literal["int8", "fp32"]

GRAPH_VERSION = 4  # raise it when the same weights give another graph
LARGEST_ERROR = 0.003  # mean 1 - cosine to float32; healthy models measured 0.0003 to 0.0019
LEAST_COSINE = 0.98  # of one text; where some fall below, others fall far below


@dataclass(frozen=True)
class Fidelity:
    """Cosines between int8 and float32 vectors of texts that were not calibrated with.

    Attributes:
        mean: over the texts.
        least: of them all.
        texts: how many.
    """

    mean: float
    least: float
    texts: int


@dataclass(frozen=True, kw_only=True)
class ModelReport:
    """What is run of a model, and how exact it is.

    Attributes:
        model: the model's name.
        weights_sha256: of the weights that are run.
        file: the model's file that holds them.
        precision: ``int8``, or ``fp32`` where that was asked for or int8 would have harmed.
        fidelity: how near int8 is to float32; ``None`` for ``fp32``, and where the model's own
            quantised file is run.
    """

    model: str
    weights_sha256: str
    file: str
    precision: Precision
    fidelity: Fidelity | None = None


@dataclass(frozen=True, kw_only=True)
class CompileReport(ModelReport):
    """What was compiled; kept beside the graph as ``compiled.json``.

    Attributes:
        graph_version: of the code that made it.
        float32_groups: linear layers that stayed float32 in an int8 graph, as ``layer.kind``.
        graph_bytes: size of the graph file, to recognise one that was cut short.
        weights_bytes: likewise of the file with its constants.
        graph_sha256: of the graph file.
        constants_sha256: of the file with its constants.
        seconds: wall time of the whole.
    """

    graph_version: int
    float32_groups: tuple[str, ...] = ()
    graph_bytes: int
    weights_bytes: int
    graph_sha256: str
    constants_sha256: str
    seconds: float
