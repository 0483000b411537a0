"""One caller's use of an encoder: what has been read so far, and whether anybody still waits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


class CancelledEncoding(Exception):  # noqa: N818 - it stops work whose result is not needed, and is no error
    """Raised in threads whose encoding was cancelled; users never see it."""


@dataclass
class EncodeStats:
    """What an encoder has read; only the thread that tokenises adds to it.

    Attributes:
        tokens: encoded, prefixes and special tokens included.
        truncated: texts that were cut because they are longer than the model reads.
        unknown: texts of which the tokenizer knows no word.
    """

    tokens: int = 0
    truncated: int = 0
    unknown: int = 0

    def add(self, ids: Sequence[Sequence[int]], truncated: int = 0, unknown: int = 0) -> None:
        """Add texts, given as their token ids; so many of them were cut, or are unknown."""
        self.tokens += sum(map(len, ids))
        self.truncated += truncated
        self.unknown += unknown


class CancelToken:
    """A token that tells encoding threads that their result is no longer needed."""

    def __init__(self) -> None:
        self._cancelled = False

    def cancel(self) -> None:
        """Cancel the encoding."""
        self._cancelled = True

    def check(self) -> None:
        """Raise `CancelledEncoding` once cancelled; called before anything that takes long."""
        if self._cancelled:
            raise CancelledEncoding


@dataclass(frozen=True)
class EncodeJob:
    """One caller's use of an encoder, from start to end."""

    stats: EncodeStats = field(default_factory=EncodeStats)
    cancel_token: CancelToken = field(default_factory=CancelToken)
