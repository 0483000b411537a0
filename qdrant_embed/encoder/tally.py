"""How much an encoder has read, counted for one of those who use it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class Tally:
    """Counts of one user of an encoder; only the thread that tokenises for that user adds to it.

    Attributes:
        tokens: encoded, prefixes and special tokens included.
        truncated: texts that were cut, for they were longer than the model reads.
    """

    tokens: int = 0
    truncated: int = 0

    def note(self, ids: Sequence[Sequence[int]], truncated: int = 0) -> None:
        """Adds texts by their token ids, so many of them cut."""
        self.tokens += sum(map(len, ids))
        self.truncated += truncated
