"""Which linear layers of a model can be int8: tried on texts that were not calibrated with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from qdrant_embed.encoder.compile.architectures.transformer import HIDDEN, TransformerGraph
from qdrant_embed.encoder.compile.calibration import (
    Calibration,
    CalibrationTokens,
    Stage,
    calibration_tokens,
    encode,
)
from qdrant_embed.encoder.compile.quantize import (
    NOTHING_QUANTIZED,
    Array,
    LinearGroup,
    QuantizationPlan,
    QuantizedGroup,
    quantize_group,
)
from qdrant_embed.encoder.facts.precision import LARGEST_ERROR, LEAST_COSINE, Fidelity
from qdrant_embed.encoder.facts.spec import ModelSpec
from qdrant_embed.encoder.run.cores import usable_cores
from qdrant_embed.encoder.run.session import Session
from qdrant_embed.encoder.run.tokenizer import Tokenizer
from qdrant_embed.progress_bar import Progress


@dataclass(frozen=True)
class Int8Plan:
    """What `Int8Trial` found: the plan, how well it does, and groups that stayed float32."""

    plan: QuantizationPlan
    fidelity: Fidelity
    float32_groups: tuple[str, ...]


class Int8Trial:
    """Finds the int8 plan of one model.

    Args:
        graph: makes the model's graph by a plan.
        spec: prefixes, pooling and length.
        tokenizer: the model's.
        workspace: a folder for graphs that are tried; nothing stays in it.
        progress: is told of each step.
    """

    def __init__(
        self,
        graph: Callable[[QuantizationPlan], TransformerGraph[Any]],
        spec: ModelSpec,
        tokenizer: Tokenizer,
        workspace: Path,
        progress: Progress,
    ) -> None:
        self._graph = graph
        self._tokens: CalibrationTokens = calibration_tokens(tokenizer, spec)
        self._workspace, self._progress = workspace, progress
        self._threads = usable_cores()

    def plan(self) -> Int8Plan | None:
        """A plan that keeps the vectors, and how well; ``None`` where none does.

        The groups that harm most are put back to float32, one by one and up to half of them,
        until the mean error is at most `LARGEST_ERROR` and no cosine below `LEAST_COSINE`.
        """
        groups, reference = self._calibrated()
        for kept in self._candidates(groups, reference):
            plan = QuantizationPlan(kept, words=True)
            fidelity = self._fidelity(plan, reference)
            if 1 - fidelity.mean <= LARGEST_ERROR and fidelity.least >= LEAST_COSINE:
                return Int8Plan(
                    plan, fidelity, tuple(sorted(map(str, groups.keys() - kept.keys())))
                )
        return None

    def _calibrated(self) -> tuple[dict[LinearGroup, QuantizedGroup], Array]:
        """The int8 form of all groups, and the float32 vectors of the texts held back.

        One layer after the other is run and quantised, and one group after the other: numpy uses
        the cores, and memory is that of one group.
        """
        graph = self._graph(NOTHING_QUANTIZED).stage(0)
        graph.graph.constants.clear()  # weights are read anew when they are needed
        calibration = Calibration(self._tokens, self._threads)
        groups: dict[LinearGroup, QuantizedGroup] = {}
        for number in range(graph.config.num_hidden_layers):
            part = graph.stage(number)
            with TemporaryDirectory(dir=self._workspace) as folder:
                path = Path(folder) / "layer.onnx"
                part.save(path, taps=True)
                part.graph.constants.clear()
                session = Session(path)
                reads = HIDDEN if number else None
                seen = calibration.step(Stage(session.feed, reads, part.output, part.group_inputs))
                del session  # the memory is needed to quantise
            for key in part.group_inputs:
                groups[key] = quantize_group(key.kind, graph.linears(key), seen.pop(key))
            self._progress.step(f"layer {number}")
        return groups, calibration.vectors()

    def _candidates(
        self, groups: Mapping[LinearGroup, QuantizedGroup], reference: Array
    ) -> Iterator[Mapping[LinearGroup, QuantizedGroup]]:
        """All groups; then, if asked for more, ever fewer, the most harmful being left out."""
        yield groups
        harm = {
            key: 1 - self._fidelity(QuantizationPlan({key: group}), reference).mean
            for key, group in groups.items()
        }
        kept = dict(groups)
        for key in sorted(harm, key=lambda key: harm[key], reverse=True)[: len(groups) // 2]:
            del kept[key]
            yield dict(kept)

    def _fidelity(self, plan: QuantizationPlan, reference: Array) -> Fidelity:
        with TemporaryDirectory(dir=self._workspace) as folder:
            path = Path(folder) / "trial.onnx"
            self._graph(plan).save(path)
            vectors = encode(Session(path).feed, self._tokens.held_back, self._threads)
        self._progress.step("checked")
        lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(reference, axis=1)
        cosines = (vectors * reference).sum(axis=1) / lengths
        return Fidelity(mean=float(cosines.mean()), least=float(cosines.min()), texts=len(cosines))
