"""How much an encoder has read, counted for one of those who use it, who may call it off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class CalledOffError(Exception):
    """Nobody waits any more for what was to be encoded; no user sees it."""


@dataclass
class Tally:
    """Counts of one user of an encoder; only the thread that tokenises for that user adds to it.

    Attributes:
        tokens: encoded, prefixes and special tokens included.
        truncated: texts that were cut, for they were longer than the model reads.
        called_off: whether nothing more is to be encoded for this user.
    """

    tokens: int = 0
    truncated: int = 0
    called_off: bool = False

    def note(self, ids: Sequence[Sequence[int]], truncated: int = 0) -> None:
        """Adds texts by their token ids, so many of them cut."""
        self.tokens += sum(map(len, ids))
        self.truncated += truncated

    def check(self) -> None:
        """Raises `CalledOffError` once the user wants no more; before anything that takes long."""
        if self.called_off:
            raise CalledOffError
