"""Find the linear layers of a model that can be int8, by checks on held-out texts."""

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
class MixedPrecision:
    """What `MixedPrecisionSearch` found: a plan, how exact it is, and groups left in float32."""

    plan: QuantizationPlan
    fidelity: Fidelity
    float32_groups: tuple[str, ...]


class MixedPrecisionSearch:
    """Quantises a model as far as the limits of `facts.precision` allow.

    Args:
        graph: builds the model's graph for a plan.
        spec: prefixes, pooling and length.
        tokenizer: the model's tokenizer.
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

    def run(self) -> MixedPrecision | None:
        """Find a plan that is exact enough; ``None`` where there is none.

        The groups whose error is largest are put back to float32, one by one and up to half of
        them, until the mean error is at most `LARGEST_ERROR` and no cosine below `LEAST_COSINE`.
        """
        groups, reference = self._calibrated()
        for kept in self._candidates(groups, reference):
            plan = QuantizationPlan(kept, words=True)
            fidelity = self._fidelity(plan, reference)
            if 1 - fidelity.mean <= LARGEST_ERROR and fidelity.least >= LEAST_COSINE:
                return MixedPrecision(
                    plan, fidelity, tuple(sorted(map(str, groups.keys() - kept.keys())))
                )
        return None

    def _calibrated(self) -> tuple[dict[LinearGroup, QuantizedGroup], Array]:
        """Quantise all groups, and compute the float32 vectors of the held-out texts.

        Layers are run and quantised one after the other, and so are the groups of a layer: numpy
        uses all cores, and the memory is that of one group.
        """
        graph = self._graph(NOTHING_QUANTIZED).stage(0)
        graph.graph.constants.clear()  # weights are read again when they are needed
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
                del session  # its memory is needed to quantise
            for group in part.group_inputs:
                if group not in seen or not len(seen[group].rows):
                    continue  # an expert that no text needs: it stays float32
                linears = graph.linears(group)
                groups[group] = quantize_group(
                    group.kind, linears, seen.pop(group), graph.sharing(group.kind)
                )
            self._progress.step(f"layer {number}")
        return groups, calibration.vectors()

    def _candidates(
        self, groups: Mapping[LinearGroup, QuantizedGroup], reference: Array
    ) -> Iterator[Mapping[LinearGroup, QuantizedGroup]]:
        """Yield all groups, then ever fewer, without those whose error is largest."""
        yield groups
        errors = {
            group: 1 - self._fidelity(QuantizationPlan({group: quantized}), reference).mean
            for group, quantized in groups.items()
        }
        kept = dict(groups)
        worst = sorted(errors, key=lambda group: errors[group], reverse=True)
        for group in worst[: len(groups) // 2]:
            del kept[group]
            yield dict(kept)

    def _fidelity(self, plan: QuantizationPlan, reference: Array) -> Fidelity:
        with TemporaryDirectory(dir=self._workspace) as folder:
            path = Path(folder) / "trial.onnx"
            self._graph(plan).save(path)
            vectors = encode(Session(path).feed, self._tokens.held_out, self._threads)
        self._progress.step("checked")
        lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(reference, axis=1)
        cosines = (vectors * reference).sum(axis=1) / lengths
        return Fidelity(mean=float(cosines.mean()), least=float(cosines.min()), texts=len(cosines))
