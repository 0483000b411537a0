"""Find the linear layers of a model that can be int8, by checks on held-out texts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.encoder.compile.calibration import (
    Calibration,
    CalibrationTokens,
    Stage,
    calibration_tokens,
    encode,
)
from qdrant_embed.encoder.compile.layers.transformer import HIDDEN, TransformerGraph
from qdrant_embed.encoder.compile.quantize import (
    NOTHING_QUANTIZED,
    Activations,
    Array,
    LinearGroup,
    QuantizationPlan,
    QuantizedGroup,
    quantize_group,
)
from qdrant_embed.encoder.compile.unfinished import Unfinished
from qdrant_embed.encoder.facts.precision import (
    LARGEST_ERROR,
    LEAST_COSINE,
    LEAST_GROUP_OVERLAP,
    LEAST_OVERLAP,
    NEIGHBOURS,
    Fidelity,
    Precision,
    RankingFidelity,
    Storage,
)
from qdrant_embed.encoder.facts.spec import ModelSpec
from qdrant_embed.encoder.files.compiled import GRAPH
from qdrant_embed.encoder.run.cores import Workers, one_thread_of_blas, usable_cores
from qdrant_embed.encoder.run.session import Session
from qdrant_embed.encoder.run.tokenizer import Tokenizer

logger = logging.getLogger(__name__)


Measured: TypeAlias = Fidelity | RankingFidelity
Reals: TypeAlias = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class MixedPrecision:
    """What `MixedPrecisionSearch` found: a plan, and how exact it is.

    Attributes:
        plan: how weights are stored.
        precision: that of most of them.
        fidelity: as measured.
        float32_groups: those left in float32 in an int8 graph.
    """

    plan: QuantizationPlan
    precision: Precision
    measured: Measured
    float32_groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Begun:
    """A layer that has been run, whose groups are being quantised; and the states after it."""

    number: int
    groups: Mapping[LinearGroup, Future[QuantizedGroup]]
    states: Sequence[Array | None]


class Gate(Protocol):
    """What decides whether an int8 model is exact enough.

    Attributes:
        tokens: what the model is calibrated with and checked on.
    """

    tokens: CalibrationTokens

    def measure(self, outputs: Array, reference: Array) -> Measured:
        """Compare the outputs for the held-out texts with those in float32."""

    def is_enough(self, measured: Any) -> bool:
        """Return whether that is near enough."""


class VectorGate:
    """The `Gate` of models that encode a text; see `fidelity`.

    Args:
        tokenizer: the model's tokenizer.
        spec: prefixes, pooling and length.
    """

    def __init__(self, tokenizer: Tokenizer, spec: ModelSpec) -> None:
        self.tokens = calibration_tokens(tokenizer, spec)

    def measure(self, outputs: Array, reference: Array) -> Fidelity:
        """Compare vectors."""
        return fidelity(outputs, reference, self.tokens.groups)

    def is_enough(self, measured: Fidelity) -> bool:
        """Return whether vectors are within the limits of `facts.precision`."""
        return (
            1 - measured.mean <= LARGEST_ERROR
            and measured.least >= LEAST_COSINE
            and (measured.overlap or 0.0) >= LEAST_OVERLAP
            and min(measured.overlaps.values()) >= LEAST_GROUP_OVERLAP
        )


class MixedPrecisionSearch:
    """Quantises a model as far as the limits of `facts.precision` allow.

    Args:
        graph: builds the model's graph for a plan.
        gate: what to calibrate with, and what to check on.
        unfinished: what an earlier search did, and where what this one does is kept.
        workspace: a folder for graphs that are tried; the one that is found stays in it.
        step: is told of each step.
    """

    def __init__(
        self,
        graph: Callable[[QuantizationPlan], TransformerGraph[Any]],
        gate: Gate,
        unfinished: Unfinished,
        workspace: Path,
        step: Callable[[str], None],
    ) -> None:
        self._graph, self._gate, self._tokens = graph, gate, gate.tokens
        self._unfinished, self._workspace, self._step = unfinished, workspace, step
        self._threads = usable_cores()
        self._saved: QuantizationPlan | None = None  # the plan of the graph in the workspace
        self._unseen: set[LinearGroup] = set()  # of experts that no text chose: they stay float32

    def run(self) -> MixedPrecision | None:
        """Find a plan that is exact enough, and write its graph; ``None`` where only float32 is.

        The groups whose error is largest are put back to float32, as few as possible and up to half
        of them, until the vectors are within the limits. If they never are, the weights stay in the
        16 bits that their file has, if it has 16.
        """
        reference = self._calibrated()
        storage = self._graph(NOTHING_QUANTIZED).storage
        groups = self._unfinished.groups
        found = self._int8(groups, reference, storage)
        if found is None and storage != "fp32":
            found = self._stored(storage, reference)
        if found is not None:
            self._save(found.plan)
        return found

    def _stored(self, storage: Storage, reference: Array) -> MixedPrecision | None:
        plan = QuantizationPlan(storage=storage)
        measured = self._measured(plan, reference)
        if not self._gate.is_enough(measured):
            return None
        return MixedPrecision(plan, storage, measured)

    def measured(self, storage: Storage) -> Measured:
        """Measure how near outputs are whose weights are stored in 16 bits."""
        graph = self._graph(NOTHING_QUANTIZED)
        calibration = Calibration(self._held_out, self._threads)
        for number in range(graph.config.num_hidden_layers):
            with self._stage(graph.stage(number), number, taps=False) as stage:
                calibration.restore(calibration.outputs(stage))
            self._step(f"layer {number}")
        return self._measured(QuantizationPlan(storage=storage), calibration.vectors())

    def _int8(
        self, groups: Mapping[LinearGroup, QuantizedGroup], reference: Array, storage: Storage
    ) -> MixedPrecision | None:
        plan = QuantizationPlan(groups, words=True, storage=storage)
        if self._gate.is_enough(measured := self._measured(plan, reference)):
            return MixedPrecision(plan, "int8", measured, self._float32())
        errors = self._errors(groups)
        worst = sorted(errors, key=lambda group: errors[group], reverse=True)
        found: MixedPrecision | None = None
        # the fewest that are enough: with more of them in float32, vectors are nearer
        few, many = 1, len(groups) // 2
        tried = many
        while few <= many:
            plan = replace(plan, groups=Kept(groups, frozenset(worst[:tried])))
            if self._gate.is_enough(measured := self._measured(plan, reference)):
                found = MixedPrecision(plan, "int8", measured, self._float32(worst[:tried]))
                many = tried - 1
            elif found is None:
                return None
            else:
                few = tried + 1
            tried = (few + many) // 2
        return found

    @property
    def _held_out(self) -> CalibrationTokens:
        return replace(self._tokens, texts=[], random=[])

    def _float32(self, put_back: Sequence[LinearGroup] = ()) -> tuple[str, ...]:
        return tuple(sorted(map(str, self._unseen.union(put_back))))

    def _calibrated(self) -> Array:
        """Quantise all groups; compute and return the float32 vectors of the held-out texts.

        Layers are run one after the other. While one is run, the groups of the one before are
        quantised one after the other, in a thread. So the memory is that of one layer's graph, of
        what two layers gave, and of one group.
        """
        graph = self._graph(NOTHING_QUANTIZED)
        calibration = Calibration(self._tokens, self._threads)
        done, states = self._unfinished.resumed()
        if done:
            logger.info("resuming after layer %d, where compiling was interrupted", done - 1)
            calibration.restore(states)
        for number in range(done):
            self._unseen |= graph.stage(number).group_inputs.keys() - self._unfinished.groups.keys()
            self._step(f"layer {number}")
        begun: _Begun | None = None
        with one_thread_of_blas(), Workers(1) as pool:
            for number in range(done, graph.config.num_hidden_layers):
                part = graph.stage(number)
                with self._stage(part, number) as stage:
                    seen = calibration.step(stage)
                del stage  # else its session stays beside the next
                if begun is not None:
                    self._keep(begun)
                groups = {
                    group: pool.submit(self._quantized, graph, group, seen.pop(group))
                    for group in part.group_inputs
                    if group in seen and len(seen[group].rows)
                }
                self._unseen |= part.group_inputs.keys() - groups.keys()
                begun = _Begun(number, groups, calibration.states())
            if begun is not None:
                self._keep(begun, last=True)
        return calibration.vectors()

    def _quantized(
        self, graph: TransformerGraph[Any], group: LinearGroup, seen: Activations
    ) -> QuantizedGroup:
        return quantize_group(group.kind, graph.linears(group), seen, graph.sharing(group.kind))

    def _keep(self, begun: _Begun, *, last: bool = False) -> None:
        """Wait until the groups of a layer are quantised, and keep them."""
        groups = {group: future.result() for group, future in begun.groups.items()}
        self._unfinished.add(begun.number, groups, begun.states, last=last)
        self._step(f"layer {begun.number}")

    @contextmanager
    def _stage(
        self, part: TransformerGraph[Any], number: int, *, taps: bool = True
    ) -> Iterator[Stage]:
        """Start the graph of layer `number`; its memory is free after the block."""
        with TemporaryDirectory(dir=self._workspace) as folder:
            path = Path(folder) / "layer.onnx"
            part.save(path, taps=taps)
            session = Session(path)
            reads = HIDDEN if number else None
            yield Stage(session.feed, reads, part.output, part.group_inputs if taps else {})

    def _errors(self, groups: Mapping[LinearGroup, QuantizedGroup]) -> dict[LinearGroup, float]:
        """Measure the error that each group adds to what its layer gives, in the layer alone."""
        graph = self._graph(NOTHING_QUANTIZED)
        calibration = Calibration(self._held_out, self._threads)
        errors: dict[LinearGroup, float] = {}
        for number in range(graph.config.num_hidden_layers):
            with self._stage(graph.stage(number), number, taps=False) as stage:
                exact = calibration.outputs(stage)
            del stage
            for group in groups:
                if group.layer == number:  # one after the other: the first have the table of words
                    part = self._graph(QuantizationPlan({group: groups[group]})).stage(number)
                    with self._stage(part, number, taps=False) as stage:
                        errors[group] = calibration.difference(stage, exact)
                    del stage
            calibration.restore(exact)
        self._step("measuring")
        return errors

    def _save(self, plan: QuantizationPlan) -> Path:
        """Write the graph of a plan, unless it is the one that was written last."""
        path = self._workspace / GRAPH
        if plan is not self._saved:
            self._graph(plan).save(path)
            self._saved = plan
        return path

    def _measured(self, plan: QuantizationPlan, reference: Array) -> Measured:
        path = self._save(plan)
        firsts = self._tokens.firsts[-1] if self._tokens.firsts else None
        vectors = encode(Session(path).feed, self._tokens.held_out, self._threads, firsts)
        self._step("checking")
        return self._gate.measure(vectors, reference)


class Kept(Mapping[LinearGroup, QuantizedGroup]):
    """All groups but some; they are read when they are requested."""

    def __init__(
        self, groups: Mapping[LinearGroup, QuantizedGroup], without: frozenset[LinearGroup]
    ) -> None:
        self._groups, self._without = groups, without

    def __getitem__(self, group: LinearGroup) -> QuantizedGroup:
        if group in self._without:
            raise KeyError(group)
        return self._groups[group]

    def __contains__(self, group: object) -> bool:
        return group in self._groups and group not in self._without  # without reading it

    def __iter__(self) -> Iterator[LinearGroup]:
        return (group for group in self._groups if group not in self._without)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def fidelity(vectors: Array, reference: Array, groups: Sequence[str]) -> Fidelity:
    """Measure how near vectors are to those of the reference.

    Args:
        vectors: [texts, dimension]; or [texts, tokens, dimension], see `token_fidelity`.
        reference: like `vectors`.
        groups: the group of each text.
    """
    if vectors.ndim == 3:
        return token_fidelity(vectors, reference, groups)
    ours, exact = (
        found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        for found in (vectors, reference)
    )
    cosines = (ours * exact).sum(axis=1)
    return _with_neighbours(cosines, cosines, ours @ ours.T, exact @ exact.T, groups)


def token_fidelity(vectors: Array, reference: Array, groups: Sequence[str]) -> Fidelity:
    """Measure how near the vectors of tokens are to those of the reference.

    A text's cosine is the mean of its tokens', and its neighbours are those with the greatest sums
    of the greatest cosines of its tokens, by which late interaction ranks.

    Args:
        vectors: [texts, tokens, dimension], of length 1; zeros where a text has no more tokens.
        reference: like `vectors`.
        groups: the group of each text.
    """
    cosines, there = (vectors * reference).sum(axis=2), np.any(reference != 0, axis=2)
    means = cosines.sum(axis=1) / there.sum(axis=1)
    near, exact = (_largest_cosines(found, there) for found in (vectors, reference))
    return _with_neighbours(cosines[there], means, near, exact, groups)


def _largest_cosines(vectors: Array, there: NDArray[np.bool_]) -> Array:
    """Sum, for each pair of texts, the greatest cosines of the first one's tokens."""
    texts, tokens, _ = vectors.shape
    everything = vectors.reshape(texts * tokens, -1)
    missing = np.where(there, 0, -np.inf).astype(np.float32)
    sums = []
    for rows, own in zip(vectors, there, strict=True):  # one by one: all pairs are many
        found = (rows[own] @ everything.T).reshape(-1, texts, tokens) + missing
        sums.append(found.max(axis=2).sum(axis=0))
    return np.stack(sums)


def _with_neighbours(
    cosines: Reals, by_text: Reals, near: Reals, reference: Reals, groups: Sequence[str]
) -> Fidelity:
    """Return cosines, and the neighbours that stay by two tables of how near texts are."""
    count = min(NEIGHBOURS, len(by_text) - 1)
    nearest = []
    for table in (near, reference):
        np.fill_diagonal(table, -np.inf)  # a text is no neighbour of its own
        nearest.append(np.argsort(-table, axis=1, kind="stable")[:, :count])
    shares = np.array(
        [
            len(set(a.tolist()) & set(b.tolist())) / max(count, 1)
            for a, b in zip(*nearest, strict=True)
        ]
    )
    return Fidelity(
        mean=float(cosines.mean()),
        least=float(by_text.min()),
        texts=len(by_text),
        overlap=round(float(shares.mean()), 4),
        overlaps={
            group: round(float(shares[[known == group for known in groups]].mean()), 4)
            for group in sorted(set(groups))
        },
    )
