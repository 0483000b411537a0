"""Decides which texts run together: windows of the input, and batches of equal length in each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")

TOKENS_PER_BATCH = 512  # 128 to 2048 measured within noise of each other
LONG_TEXT = 128  # tokens from which a graph may attend in blocks, which stay in a core's cache
PAIRS_PER_BATCH = 512 * 512  # of tokens that attend to each other, as in one text of 512
_STEPS = ((32, 2), (64, 4), (160, 8))  # up to this length, padded to a multiple of this
_LARGEST_STEP = 16


@dataclass(frozen=True)
class Batch:
    """Positions, within one window, of texts that have `length` tokens, or less if `padded`."""

    positions: tuple[int, ...]
    length: int
    padded: bool = False

    def token_types(self, firsts: Sequence[int]) -> NDArray[np.int64]:
        """Return the text of its pair that each token belongs to, 0 or 1, int64 [pairs, length].

        Args:
            firsts: of each pair of the window, how many tokens belong to the first text.
        """
        ends = np.array([firsts[position] for position in self.positions])
        return (np.arange(self.length) >= ends[:, None]).astype(np.int64)

    def token_ids(self, window: Sequence[Sequence[int]]) -> NDArray[np.int64]:
        """Pick the token ids of the batch from those of its window, int64 [texts, length]."""
        if not self.padded:
            return np.array([window[position] for position in self.positions], np.int64)
        ids = np.zeros((len(self.positions), self.length), np.int64)
        for row, position in zip(ids, self.positions, strict=True):
            row[: len(window[position])] = window[position]
        return ids

    def lengths(self, window: Sequence[Sequence[int]]) -> NDArray[np.int64] | None:
        """Return the tokens of each text of a padded batch, int64 [texts]."""
        if not self.padded:
            return None
        return np.array([len(window[position]) for position in self.positions], np.int64)


def windows(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield `size` items at a time, in order; the last may be fewer, but never none."""
    iterator = iter(items)
    while window := list(islice(iterator, size)):
        yield window


def runs(
    items: Iterable[T], length: Callable[[T], int], longest: int, most: int | None = None
) -> Iterator[list[T]]:
    """Yield runs of items, in order, up to `longest` in all, or a single item that is longer.

    Args:
        items: read once, at most one ahead.
        length: returns the length of an item.
        longest: largest sum of the lengths in a run.
        most: largest number of items in a run.
    """
    run: list[T] = []
    size = 0
    for item in items:
        if run and size + length(item) > longest:
            yield run
            run, size = [], 0
        run.append(item)
        size += length(item)
        if len(run) == most:
            yield run
            run, size = [], 0
    if run:
        yield run


def texts_per_batch(
    length: int,
    tokens_per_batch: int = TOKENS_PER_BATCH,
    pairs_per_batch: int = PAIRS_PER_BATCH,
) -> int:
    """Return how many texts of a length run together at most."""
    width = max(1, length)
    return max(1, min(tokens_per_batch // width, pairs_per_batch // width**2))


def equal_length_batches(
    lengths: Sequence[int],
    tokens_per_batch: int = TOKENS_PER_BATCH,
    pairs_per_batch: int = PAIRS_PER_BATCH,
) -> list[Batch]:
    """Make batches that together hold every position of `lengths` once, longest texts first.

    Nothing is padded: all texts of a batch have one length. A batch has at most
    `tokens_per_batch` tokens, and `pairs_per_batch` pairs of tokens of the same text, whose scores
    take the most memory; or a single text where that text alone has more. The longest go first, so
    that the threads end together.
    """
    if len(lengths) == 1:  # a query, most likely, which waits for nothing else
        return [Batch((0,), lengths[0])]
    by_length: dict[int, list[int]] = {}
    for position, length in enumerate(lengths):
        by_length.setdefault(length, []).append(position)
    return [
        Batch(tuple(positions), length)
        for length in sorted(by_length, reverse=True)
        for positions in windows(
            by_length[length], texts_per_batch(length, tokens_per_batch, pairs_per_batch)
        )
    ]


def padded_batches(
    lengths: Sequence[int], longest: int, tokens_per_batch: int = TOKENS_PER_BATCH
) -> list[Batch]:
    """Make batches as `equal_length_batches` does, of texts that are padded to a common length.

    For runtimes that prepare themselves for each new shape, and for each run: batches are twice as
    large. Lengths are rounded up by a few per cent, and never above `longest`.
    """
    rounded = [min(longest, _rounded_up(length)) for length in lengths]
    return [
        Batch(batch.positions, batch.length, padded=True)
        for batch in equal_length_batches(rounded, 2 * tokens_per_batch)
    ]


def _rounded_up(length: int) -> int:
    """Round a length up to a multiple of a step that grows with it."""
    step = next((step for most, step in _STEPS if length <= most), _LARGEST_STEP)
    return -(-length // step) * step
