"""How exact a model's vectors are: what is requested, what is measured, what is reported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Storage: TypeAlias = Literal["fp32", "bf16", "fp16"]  # of weights that are computed with in float32
Precision: TypeAlias = Literal["int8", Storage]
PRECISIONS: tuple[Precision, ...] = ("int8", "fp32", "bf16", "fp16")

ChosenRuntime: TypeAlias = Literal["onnxruntime", "openvino"]  # what runs documents
Runtime: TypeAlias = Literal["auto", ChosenRuntime]
RUNTIMES: tuple[Runtime, ...] = ("auto", "onnxruntime", "openvino")

GRAPH_VERSION = 8  # raise it when the same weights are compiled to another graph
FLOAT32_GRAPH_VERSION = 4  # that of graphs which no calibration changes
LARGEST_ERROR = 0.003  # mean of 1 - cosine to float32; healthy models measured 0.0003 to 0.0019
LEAST_COSINE = 0.98  # of any text; where some texts fall below, others fall far below

NEIGHBOURS = 10  # of a text, among the held-out texts
# Mean share of neighbours that stay. Healthy models measured 0.92 to 0.97; int8 with ranges found
# at run time, which loses answers, 0.84 to 0.90.
LEAST_OVERLAP = 0.9
LEAST_GROUP_OVERLAP = 0.8  # of any group of texts, some of which have four texts: 40 neighbours


@dataclass(frozen=True)
class Fidelity:
    """How near the vectors of held-out texts are to those of the weights in float32.

    Attributes:
        mean: mean of the cosines between the two vectors of a text.
        least: the least of them.
        texts: the number of texts.
        overlap: the share of a text's ten nearest held-out texts that stay among them, a mean over
            the texts; ``None`` in reports of before it was measured. A cosine says little of models
            whose vectors all lie close together.
        overlaps: the same for groups of texts: ``english``, ``european`` and ``asian`` languages,
            ``code``, and ``long`` texts.
    """

    mean: float
    least: float
    texts: int
    overlap: float | None = None
    overlaps: Mapping[str, float] = field(default_factory=dict, hash=False)


# of a cross-encoder in int8, on pairs that it was not calibrated with
LEAST_TAU = 0.98


@dataclass(frozen=True)
class RankingFidelity:
    """How near the int8 scores of held-out pairs are to their float32 scores.

    Attributes:
        tau: Kendall's tau-b between the two rankings of all pairs; 1 for the same order.
        same_best: the share of queries whose best document stays the same.
        pairs: the number of pairs.
    """

    tau: float
    same_best: float
    pairs: int


@dataclass(frozen=True, kw_only=True)
class ModelReport:
    """Which weights of a model are run, and how exact its vectors are.

    Attributes:
        model: the model's name.
        weights_sha256: hex digest of the weights.
        file: the model's file that holds them.
        precision: ``int8``; or how weights are stored that are computed with in float32: ``fp32``,
            ``bf16`` or ``fp16``, where that was requested or int8 would be too inexact.
        fidelity: how near vectors are to those of float32; ``None`` where they are the same, where
            the model's own quantised file is run, and for cross-encoders.
        ranking: the same for cross-encoders.
        runtime: what runs documents; of a model that is loaded. Queries run on ``onnxruntime``.
    """

    model: str
    weights_sha256: str
    file: str
    precision: Precision
    fidelity: Fidelity | None = None
    ranking: RankingFidelity | None = None
    runtime: ChosenRuntime = "onnxruntime"


@dataclass(frozen=True, kw_only=True)
class CompileReport(ModelReport):
    """How a graph was compiled; kept beside it as ``compiled.json``.

    Attributes:
        graph_version: the version of the compiler.
        float32_groups: linear layers that stayed float32 in an int8 graph, as ``layer.kind``.
        graph_bytes: size of the graph file, to recognise one that was truncated.
        weights_bytes: size of the file with its constants.
        graph_sha256: hex digest of the graph file.
        constants_sha256: hex digest of the file with its constants.
        seconds: wall time of the compilation.
        made_from: hex digest of all that the graph depends on; ``None`` in older reports.
    """

    graph_version: int
    float32_groups: tuple[str, ...] = ()
    graph_bytes: int
    weights_bytes: int
    graph_sha256: str
    constants_sha256: str
    seconds: float
    made_from: str | None = None
