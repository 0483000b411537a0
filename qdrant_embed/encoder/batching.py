"""Which texts run together: windows of the input, and batches of equal length within one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")

TOKENS_PER_BATCH = 512  # 128 to 2048 measured within noise of each other


@dataclass(frozen=True)
class Batch:
    """Positions, within one window, of texts that have the same number of tokens."""

    positions: tuple[int, ...]
    length: int

    def token_ids(self, window: Sequence[Sequence[int]]) -> NDArray[np.int64]:
        """Token ids of the batch's texts, int64 [texts, length], out of those of the window."""
        return np.array([window[position] for position in self.positions], np.int64)


def windows(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Runs of `size` items, in order; the last may be shorter, none is empty."""
    iterator = iter(items)
    while window := list(islice(iterator, size)):
        yield window


def runs_of_texts(texts: Iterable[str], characters: int) -> Iterator[list[str]]:
    """Runs of texts, in order, of so many characters together, or of one text that has more."""
    run: list[str] = []
    size = 0
    for text in texts:
        if run and size + len(text) > characters:
            yield run
            run, size = [], 0
        run.append(text)
        size += len(text)
    if run:
        yield run


def equal_length_batches(
    lengths: Sequence[int], tokens_per_batch: int = TOKENS_PER_BATCH
) -> list[Batch]:
    """Batches that together hold every position of `lengths` once, longest texts first.

    Nothing is padded: all texts of a batch have one length. A batch has at most
    `tokens_per_batch` tokens, or a single text where that text alone has more. The longest go
    first so that the threads end together.
    """
    by_length: dict[int, list[int]] = {}
    for position, length in enumerate(lengths):
        by_length.setdefault(length, []).append(position)
    return [
        Batch(tuple(positions), length)
        for length in sorted(by_length, reverse=True)
        for positions in windows(by_length[length], max(1, tokens_per_batch // max(1, length)))
    ]
