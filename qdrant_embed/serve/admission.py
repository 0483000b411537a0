"""The bound of what waits: requests are let in until too much waits, and then refused."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from qdrant_embed.limits import SERVICE_CHARACTERS, SERVICE_WAITING
from qdrant_embed.serve.failures import Refusal

_LONGEST_WAIT = 60  # seconds that a client is told to wait at most
_MEMORY = 0.2  # weight of the newest measurement in the running mean


@dataclass
class Admission:
    """The texts that are being worked on or wait for it.

    While no other request is in, one is let in with any number of texts.

    Attributes:
        most_texts: number of texts of all requests together.
        most_characters: their characters.
        texts: texts that are in now.
        characters: their characters.
    """

    most_texts: int = SERVICE_WAITING
    most_characters: int = SERVICE_CHARACTERS
    texts: int = 0
    characters: int = 0
    _rate: float = 0.0  # characters a second

    @contextmanager
    def hold(self, texts: int, characters: int) -> Iterator[None]:
        """Run the block with the texts counted as in.

        Args:
            texts: number of the request's texts.
            characters: their characters.

        Raises:
            Refusal: if so much is in that the request must wait outside, or it alone is too much.
        """
        if characters > self.most_characters:
            raise Refusal(
                413,
                f"the texts have {characters:,} characters, {self.most_characters:,} may be in one "
                "request (a query counts with each of its documents)",
                "too_much_text",
            )
        if self.texts and (
            self.texts + texts > self.most_texts
            or self.characters + characters > self.most_characters
        ):
            raise Refusal(
                429,
                f"{self.texts:,} texts are waiting, {self.most_texts:,} may: try again after the "
                "seconds that Retry-After says",
                "busy",
                retry_after=self._seconds(),
            )
        self.texts += texts
        self.characters += characters
        started, before = time.monotonic(), self.characters
        try:
            yield
        finally:
            self.texts -= texts
            self.characters -= characters
            rate = before / max(1e-3, time.monotonic() - started)
            self._rate = self._rate + _MEMORY * (rate - self._rate) if self._rate else rate

    def _seconds(self) -> int:
        """Return how long what is in will take, as far as that is known."""
        needed = self.characters / self._rate if self._rate else 1.0
        return min(_LONGEST_WAIT, max(1, math.ceil(needed)))
