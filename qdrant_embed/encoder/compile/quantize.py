"""Quantise linear layers to int8: smoothing, ranges, rounding, bias correction. Pure numpy.

A group of linear layers that read one input is computed as
``MatMulIntegerToFloat(QuantizeLinear(x / smoothing), weight)``: activations uint8 with one fixed
scale (so that a text's vector does not depend on its neighbours), weights int8 with a scale for
each output. Smoothing is SmoothQuant's (Xiao et al. 2022), rounding GPTQ's (Frantar et al. 2022).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.encoder.facts.precision import Storage

Array: TypeAlias = NDArray[np.float32]
Linear: TypeAlias = tuple[Array, Array]  # weight [inputs, outputs], bias [outputs]
Kind: TypeAlias = Literal["qkv", "o", "f1", "f2", "terms"]

# how much of a channel's range is moved from the activations into the weights, by kind of group;
# fixed for all models: chosen by measurement on three of them
SMOOTHING: Mapping[Kind, float] = {"qkv": 0.8, "o": 0.65, "f1": 0.8, "f2": 0.9, "terms": 0.5}

# the output of the feed-forward block's activation has a few channels whose range is several times
# that of all others; if only these are divided, fewer weights grow
_CAPPED = 4
# the cheapest divisor is chosen whose rounding error is at most this many times the least
_TOLERANCE = 2.0

# of the second moments' mean diagonal; with a tenth of it the rounding fits the sampled rows too
# closely: for some samples, a few other texts were farther off (measured)
_DAMPING = 0.1
_BLOCK = 64  # rows of weights, and of second moments, that are computed one by one
_WEIGHT_STEPS = 124  # three less than int8 has, because GPTQ may enlarge a weight


@dataclass(frozen=True)
class LinearGroup:
    """The linear layers of one transformer layer that read the same input.

    Attributes:
        layer: number of the transformer layer, from 0.
        kind: ``qkv`` (query, key and value), ``o`` (the attention's output projection), ``f1`` or
            ``f2`` (the feed-forward block's first, two if it is gated, and its second), or, behind
            the last layer, ``terms`` (what guesses words, in blocks of the vocabulary).
        expert: number of the expert, of layers that only the tokens that chose it go through.
    """

    layer: int
    kind: Kind
    expert: int | None = None

    def __str__(self) -> str:
        name = f"{self.layer}.{self.kind}"
        return name if self.expert is None else f"{name}.{self.expert}"


@dataclass(frozen=True)
class QuantizedLinear:
    """One linear layer of a group.

    Attributes:
        weight: int8 [inputs, outputs].
        scale: float32 [outputs].
        bias: float32 [outputs].
    """

    weight: NDArray[np.int8]
    scale: Array
    bias: Array


@dataclass(frozen=True)
class QuantizedGroup:
    """Linear layers that read the same input.

    Attributes:
        smoothing: float32 [inputs]; the input is divided by it, unless it is ``None``.
        input_scale: the scale of the divided input.
        input_zero_point: the uint8 that stands for 0.
        linears: in the order of the group.
    """

    smoothing: Array | None
    input_scale: np.float32
    input_zero_point: int
    linears: tuple[QuantizedLinear, ...]


@dataclass(frozen=True)
class QuantizationPlan:
    """How a model's weights are stored.

    Attributes:
        groups: the groups that are int8.
        words: whether the table of word embeddings is int8.
        storage: how all other linear layers, and the table if it is not int8, are stored.
    """

    groups: Mapping[LinearGroup, QuantizedGroup] = field(default_factory=dict)
    words: bool = False
    storage: Storage = "fp32"


NOTHING_QUANTIZED = QuantizationPlan()


@dataclass
class Activations:
    """Activations at the input of a group.

    Attributes:
        low: float32 [inputs], the smallest value of each channel.
        high: float32 [inputs], the largest.
        rows: float32 [rows, inputs], a random sample.
    """

    low: Array
    high: Array
    rows: Array


def quantize_group(
    kind: Kind,
    linears: Sequence[Linear],
    seen: Activations,
    sharing: tuple[int, int, int] | None = None,
) -> QuantizedGroup:
    """Quantise the linear layers of a group.

    Args:
        kind: that of the group; the large blocks of ``terms`` are quantised one by one.
        linears: weight and bias of each.
        seen: their input on calibration texts.
        sharing: shape of the inputs whose middle axis must have one divisor.
    """
    parts = [[linear] for linear in linears] if kind == "terms" else [linears]
    smoothing = _divisor(kind, linears, seen, sharing)
    divisor = np.ones_like(seen.low) if smoothing is None else smoothing
    low, high = _range(seen, divisor)
    scale = np.float32((high - low) / 255)
    zero_point = int(np.clip(np.rint(-low / scale), 0, 255))
    rows = seen.rows / divisor
    exact_mean = rows.mean(axis=0)
    _round(rows, scale, zero_point)
    rounded_mean: Array = rows.mean(axis=0)
    moments: Array = rows.T @ rows
    moments /= np.float32(len(rows))
    del rows  # large
    factors = _error_factors(moments)
    quantized: list[QuantizedLinear] = []
    for part in parts:
        smoothed = _joined(part) * divisor[:, None]
        integers, weight_scales = _gptq(smoothed, factors)
        # subtract from the bias what rounding inputs and weights adds on average
        error = exact_mean @ smoothed - rounded_mean @ (integers * weight_scales)
        start = 0
        for weight, bias in part:
            columns = slice(start, start + weight.shape[1])
            start = columns.stop
            quantized.append(
                QuantizedLinear(
                    weight=np.ascontiguousarray(integers[:, columns]),
                    scale=weight_scales[columns],
                    bias=(bias + error[columns]).astype(np.float32),
                )
            )
    return QuantizedGroup(smoothing, scale, zero_point, tuple(quantized))


def row_scales(rows: Array) -> Array:
    """Return the scale of each row in int8, [rows, 1]."""
    largest = np.maximum(rows.max(axis=1, keepdims=True), -rows.min(axis=1, keepdims=True))
    scales: Array = (np.maximum(largest, 1e-12) / 127).astype(np.float32)
    return scales


def quantize_rows(rows: Array) -> NDArray[np.int8]:
    """Quantise each row with its `row_scales`, int8 [rows, columns]."""
    integers: NDArray[np.int8] = np.rint(rows / row_scales(rows)).astype(np.int8)
    return integers


def _round(rows: Array, scale: np.float32, zero_point: int) -> None:
    """Quantise `rows` to uint8 and back, in place because they are large."""
    rows /= scale
    np.rint(rows, out=rows)
    np.clip(rows, -zero_point, 255 - zero_point, out=rows)
    rows *= scale


def _joined(linears: Sequence[Linear]) -> Array:
    """Join the weights of linear layers, in row-major order, as GPTQ goes through rows."""
    return np.ascontiguousarray(np.concatenate([weight for weight, _ in linears], axis=1))


def _divisor(
    kind: Kind,
    linears: Sequence[Linear],
    seen: Activations,
    sharing: tuple[int, int, int] | None,
) -> Array | None:
    """Choose what a group's input is divided by, if anything."""
    reach = np.maximum(np.abs(seen.low), np.abs(seen.high))
    largest: Array = np.max([np.abs(weight).max(axis=1) for weight, _ in linears], axis=0)
    if sharing is not None:
        reach, largest = _shared(reach, sharing), _shared(largest, sharing)
    smoothing = _smoothing(largest, reach, SMOOTHING[kind])
    if kind != "f2":
        return smoothing
    cap = np.sort(reach)[::-1][: _CAPPED + 1][-1]
    capped = np.maximum(1, reach / max(cap, 1e-3)).astype(np.float32)
    candidates, weights = [np.ones_like(reach), capped, smoothing], _joined(linears)
    errors = [_rounding_error(weights, seen, divisor) for divisor in candidates]
    cheapest = next(i for i, error in enumerate(errors) if error <= _TOLERANCE * min(errors))
    return candidates[cheapest] if cheapest else None


def _shared(values: Array, shape: tuple[int, int, int]) -> Array:
    """Replace each value by the largest along the middle axis of `shape`."""
    largest = values.reshape(shape).max(axis=1, keepdims=True)
    return np.broadcast_to(largest, shape).reshape(-1)


def _smoothing(largest: Array, reach: Array, strength: float) -> Array:
    """Compute a divisor for each input that splits its range between activations and weights.

    `largest` are the largest weights of each input.
    """
    activation = np.maximum(reach, 1e-3)
    weight = np.maximum(largest, 1e-4)
    smoothing = activation**strength / weight ** (1 - strength)
    scaled: Array = (smoothing / np.exp(np.log(smoothing).mean())).astype(np.float32)
    return scaled


def _range(seen: Activations, divisor: Array) -> tuple[float, float]:
    """Return the smallest and the largest value of the divided inputs, 0 included."""
    low = min(float((seen.low / divisor).min()), 0.0)
    return low, max(float((seen.high / divisor).max()), low + 1e-6, 0.0)


def _rounding_error(weights: Array, seen: Activations, divisor: Array) -> float:
    """Estimate the root mean square error of the outputs, up to a factor."""
    low, high = _range(seen, divisor)
    return (high - low) * float(np.linalg.norm(weights * divisor[:, None]))


def _gptq(weights: Array, factors: Array) -> tuple[NDArray[np.int8], Array]:
    """Round weights to integers and a scale for each column, so that their outputs change least.

    `factors` are the `_error_factors` of the inputs. Rows are rounded one after the other, and
    each compensates for the errors of those before. Sums of adjacent pairs of weights stay within
    int8, because AVX2 adds pairs of products in 16 bits.
    """
    scales = _column_scales(weights)
    scaled = (weights / scales).astype(np.float32)
    integers, errors = np.zeros_like(scaled), np.zeros_like(scaled)
    count = len(scaled)
    for start in range(0, count, _BLOCK):
        stop = min(start + _BLOCK, count)
        wanted = scaled[start:stop] + factors[start:stop, :start] @ errors[:start]
        for row in range(start, stop):
            rounded = wanted[row - start]
            rounded += factors[row, start:row] @ errors[start:row]
            np.rint(rounded, out=rounded)
            if row % 2:
                partner = integers[row - 1]
                np.maximum(rounded, -128 - np.minimum(partner, 0), out=rounded)
                np.minimum(rounded, 128 - np.maximum(partner, 0), out=rounded)
            np.clip(rounded, -127, 127, out=integers[row])
            np.subtract(scaled[row], integers[row], out=errors[row])
    return integers.astype(np.int8), scales


def _column_scales(weights: Array) -> Array:
    """Find the smallest scales with which neither a weight nor the sum of a pair exceeds int8."""
    positive = np.maximum(weights, 0)
    negative = positive - weights
    paired = len(weights) // 2 * 2  # the last of an odd number has no partner
    pairs = np.maximum(
        (positive[0:paired:2] + positive[1::2]).max(axis=0),
        (negative[0:paired:2] + negative[1::2]).max(axis=0),
    )
    largest = np.maximum(np.maximum(np.abs(weights).max(axis=0), pairs), 1e-12)
    scales: Array = (largest / _WEIGHT_STEPS).astype(np.float32)
    return scales


def _error_factors(moments: Array) -> Array:
    """Compute the share of each earlier row's error that a row takes over: [row, earlier row].

    That is the triangular factor of the damped second moments of an input, factorised from the
    last row to the first, over its diagonal. Above the diagonal stands nothing of use. `moments`
    are overwritten, because such a matrix is large.
    """
    diagonal = np.diag_indices_from(moments)
    moments[diagonal] += _DAMPING * moments[diagonal].mean() + 1e-12
    for stop in range(len(moments), 0, -_BLOCK):
        start = max(0, stop - _BLOCK)
        rows, known = moments[start:stop, :stop], moments[stop:, :stop]
        rows -= known[:, start:].T @ known
        triangle = np.linalg.cholesky(rows[::-1, : start - 1 if start else None : -1])
        own = triangle[::-1, ::-1].T
        rows[:, :start] = np.linalg.inv(own).T @ rows[:, :start]
        rows[:, start:] = own
    moments /= moments[diagonal][:, None]
    return moments
