"""Windows and batches hold every text once, in a known place."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from qdrant_embed.encoder.run.batching import (
    equal_length_batches,
    padded_batches,
    runs,
    windows,
)


@given(st.lists(st.integers()), st.integers(1, 10))
def test_windows_keep_every_item_in_order(items: list[int], size: int) -> None:
    found = list(windows(iter(items), size))
    assert [item for window in found for item in window] == items
    assert all(len(window) == size for window in found[:-1])
    assert all(window for window in found)


@given(st.lists(st.integers(0, 600)), st.integers(1, 700), st.integers(1, 20_000))
def test_batches_hold_every_position_once_with_one_length(
    lengths: list[int], budget: int, pairs: int
) -> None:
    batches = equal_length_batches(lengths, budget, pairs)
    positions = [position for batch in batches for position in batch.positions]
    assert sorted(positions) == list(range(len(lengths)))
    for batch in batches:
        assert {lengths[position] for position in batch.positions} == {batch.length}
        assert len(batch.positions) * batch.length <= budget or len(batch.positions) == 1
        assert len(batch.positions) * batch.length**2 <= pairs or len(batch.positions) == 1


@given(st.lists(st.integers(1, 512)), st.integers(512, 600))
def test_padded_batches_hold_every_position_once(lengths: list[int], longest: int) -> None:
    batches = padded_batches(lengths, longest)
    positions = [position for batch in batches for position in batch.positions]
    assert sorted(positions) == list(range(len(lengths)))
    for batch in batches:
        own = [lengths[position] for position in batch.positions]
        assert max(own) <= batch.length <= min(longest, max(own) + 15)


def test_padded_batches_have_few_lengths() -> None:
    batches = padded_batches(range(1, 513), 512)
    assert len({batch.length for batch in batches}) < 64


@given(st.lists(st.integers(1, 600)))
def test_the_longest_go_first(lengths: list[int]) -> None:
    batched = [batch.length for batch in equal_length_batches(lengths)]
    assert batched == sorted(batched, reverse=True)


def test_texts_of_one_length_fill_their_batches() -> None:
    sizes = [len(batch.positions) for batch in equal_length_batches([16] * 100, 512)]
    assert sizes == [32, 32, 32, 4]


def test_long_texts_are_batched_by_the_pairs_of_their_tokens() -> None:
    batches = equal_length_batches([4096] * 3 + [64] * 100, 8192)
    assert [(batch.length, len(batch.positions)) for batch in batches] == [
        *[(4096, 1)] * 3,
        *[(64, 64), (64, 36)],
    ]


@given(
    st.lists(st.text(max_size=9), max_size=30), st.integers(1, 20), st.none() | st.integers(1, 4)
)
def test_runs_hold_each_item_once_and_are_bounded(
    texts: list[str], longest: int, most: int | None
) -> None:
    found = list(runs(iter(texts), len, longest, most))
    assert [text for run in found for text in run] == texts
    assert all(len(run) == 1 or sum(map(len, run)) <= longest for run in found)
    assert most is None or all(len(run) <= most for run in found)
    assert all(
        len(run) == most or sum(map(len, run)) + len(following[0]) > longest
        for run, following in itertools.pairwise(found)
    )
