"""Linear layers in int8: near the exact ones, and within what the CPU's kernels can add up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from qdrant_embed.encoder.compile.quantize import (
    _DAMPING,
    Activations,
    Kind,
    Linear,
    QuantizedGroup,
    _error_factors,
    _gptq,
    quantize_group,
    quantize_rows,
    row_scales,
)

Array = NDArray[np.float32]


def layer(seed: int, inputs: int = 64, outputs: int = 48) -> tuple[Linear, Array]:
    """A random linear layer, and inputs of it with a few channels far larger than the rest."""
    random = np.random.default_rng(seed)
    weight = random.normal(0, 0.05, (inputs, outputs)).astype(np.float32)
    reach = np.exp(random.normal(0, 1.2, inputs))
    rows = (random.normal(0.2, 1, (600, inputs)) * reach).astype(np.float32)
    return (weight, random.normal(0, 1, outputs).astype(np.float32)), rows


def activations(rows: Array) -> Activations:
    return Activations(rows.min(axis=0), rows.max(axis=0), rows.astype(np.float16))


def computed(group: QuantizedGroup, rows: Array) -> Array:
    """What the graph computes: QuantizeLinear and MatMulIntegerToFloat."""
    (linear,) = group.linears
    divided = rows if group.smoothing is None else rows / group.smoothing
    steps = np.rint(divided / group.input_scale) + group.input_zero_point
    integers = np.clip(steps, 0, 255).astype(np.int32) - group.input_zero_point
    sums = integers @ linear.weight.astype(np.int32)
    exact: Array = sums * (group.input_scale * linear.scale) + linear.bias
    return exact


@pytest.mark.parametrize("kind", ["qkv", "o", "f1", "f2"])
@pytest.mark.parametrize("seed", range(3))
def test_the_output_is_near_the_exact_one_and_right_on_average(kind: Kind, seed: int) -> None:
    linear, rows = layer(seed)
    group = quantize_group(kind, [linear], activations(rows[:500]))
    for sample, most in ((rows[:500], 0.002), (rows[500:], 0.1)):
        error = computed(group, sample) - (sample @ linear[0] + linear[1])
        assert np.abs(error.mean(axis=0)).max() < most
        assert error.std() < 0.06 * (sample @ linear[0]).std()


def activated(seed: int, inputs: int = 256) -> tuple[Linear, Array]:
    """Like `layer`, but with inputs as an activation gives them, all with much the same reach."""
    (weight, bias), _ = layer(seed, inputs)
    rows = np.random.default_rng(seed).normal(0, 1, (600, inputs)).clip(0, 3)
    return (weight, bias), rows.astype(np.float32)


def test_even_activations_are_not_divided() -> None:
    linear, rows = activated(0)
    group = quantize_group("f2", [linear], activations(rows))
    assert group.smoothing is None
    error = computed(group, rows) - (rows @ linear[0] + linear[1])
    assert error.std() < 0.01 * (rows @ linear[0]).std()


def test_of_activations_only_the_few_that_reach_farthest_are_divided() -> None:
    linear, rows = activated(1)
    rows[:, [5, 40]] *= 20
    group = quantize_group("f2", [linear], activations(rows))
    assert group.smoothing is not None
    divided = group.smoothing > 1.5
    assert np.flatnonzero(divided).tolist() == [5, 40]
    assert (group.smoothing[~divided] < 1.01).all()
    error = computed(group, rows) - (rows @ linear[0] + linear[1])
    assert error.std() < 0.03 * (rows @ linear[0]).std()


def test_where_many_activations_reach_far_all_are_smoothed() -> None:
    linear, rows = activated(2)
    rows *= np.exp(np.random.default_rng(2).normal(0, 2.5, rows.shape[1]))
    group = quantize_group("f2", [linear], activations(rows))
    assert group.smoothing is not None
    assert (group.smoothing < 1).any()  # what is small is made larger
    error = computed(group, rows) - (rows @ linear[0] + linear[1])
    assert error.std() < 0.03 * (rows @ linear[0]).std()


def test_an_odd_number_of_inputs_is_no_obstacle() -> None:
    linear, rows = layer(4, inputs=33)
    group = quantize_group("qkv", [linear], activations(rows))
    error = computed(group, rows) - (rows @ linear[0] + linear[1])
    assert error.std() < 0.06 * (rows @ linear[0]).std()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["qkv", "f2"]))
def test_no_sum_of_two_products_can_leave_sixteen_bits(seed: int, kind: Kind) -> None:
    linear, rows = layer(seed, inputs=34, outputs=8)
    group = quantize_group(kind, [linear], activations(rows))
    integers = group.linears[0].weight.astype(int)
    assert np.abs(integers).max() <= 127
    assert np.abs(integers[0::2] + integers[1::2]).max() <= 128  # times 255 is below 2**15
    assert 0 <= group.input_zero_point <= 255


@pytest.mark.parametrize("sign", [1, -1])
def test_a_weight_that_takes_over_a_large_error_keeps_its_pair_within_bounds(sign: int) -> None:
    inputs = np.zeros(64, np.float32)
    inputs[:2] = 25, 1  # so that an error of the first is many of the second
    random = np.random.default_rng(0)
    weight = random.normal(0, 0.1, (64, 200)).astype(np.float32)
    weight[:2] = sign * random.uniform(0.9, 1, (2, 200))
    integers, _ = _gptq(weight, _error_factors(np.outer(inputs, inputs)))
    sums = integers[0::2].astype(int) + integers[1::2]
    assert np.abs(sums).max() == 128


def test_layers_of_a_group_share_their_input_and_keep_their_own_outputs() -> None:
    first, rows = layer(1)
    second, _ = layer(2, outputs=16)
    group = quantize_group("qkv", [first, second], activations(rows))
    for linear, (weight, bias) in zip(group.linears, (first, second), strict=True):
        assert linear.weight.shape == weight.shape
        assert linear.scale.shape == linear.bias.shape == bias.shape
        assert linear.weight.dtype == np.int8


def test_a_channel_never_seen_and_a_weight_of_zeros_do_no_harm() -> None:
    (weight, bias), rows = layer(3)
    rows[:, 7] = 0
    weight[:, 9] = 0
    group = quantize_group("f1", [(weight, bias)], activations(rows))
    outputs = computed(group, rows)
    assert np.isfinite(outputs).all()
    assert outputs[:, 9] == pytest.approx(bias[9], abs=1e-3)


def test_rows_of_a_table_have_a_scale_each() -> None:
    table = np.array([[1, -2, 0.5], [0, 0, 0], [1e-3, 2e-3, -1e-3]], np.float32)
    integers, scales = quantize_rows(table), row_scales(table)
    np.testing.assert_allclose(integers * scales, table, atol=0.01, rtol=0.01)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 200))
def test_each_row_takes_over_what_solving_for_it_says(seed: int, inputs: int) -> None:
    random = np.random.default_rng(seed)
    rows = random.normal(0, np.exp(random.normal(0, 1, inputs)), (300, inputs))
    moments = (rows.T @ rows / 300).astype(np.float32)
    found = np.tril(_error_factors(moments.copy()))
    damped = moments + (np.diag(moments).mean() * _DAMPING + 1e-12) * np.eye(inputs)
    # the best weights of all later inputs, where those up to one are fixed
    for row in {0, inputs // 2, inputs - 1}:
        exact = np.linalg.solve(damped[row:, row:], damped[row:, :row])[0]
        assert np.allclose(found[row, :row], exact, atol=1e-3 * (1 + np.abs(exact).max(initial=0)))
        assert found[row, row] == 1


@pytest.mark.parametrize("inputs", [63, 64, 65, 200])
def test_of_inputs_that_go_together_rounding_is_twice_as_near_as_to_the_nearest(
    inputs: int,
) -> None:
    random = np.random.default_rng(inputs)
    weight = random.normal(0, 0.05, (inputs, 48)).astype(np.float32)
    rows = random.normal(0, 1, (600, inputs // 4)) @ random.normal(0, 1, (inputs // 4, inputs))
    rows = (rows + random.normal(0, 0.5, rows.shape)).astype(np.float32)
    seen, others = rows[:500], rows[500:]
    moments: Array = (seen.T @ seen / 500).astype(np.float32)
    integers, scales = _gptq(weight, _error_factors(moments))
    ours, nearest = (
        float(np.linalg.norm(others @ (numbers * scales - weight)))
        for numbers in (integers, np.rint(weight / scales))
    )
    assert ours < nearest / 2
