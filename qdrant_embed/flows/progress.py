"""Progress of an `add`, a migration or a copy, reported to a function or shown on the terminal."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from qdrant_embed.encoder.run.job import EncodeStats
from qdrant_embed.errors import InputError
from qdrant_embed.progress_bar import Progress


@dataclass(frozen=True)
class IngestProgress:
    """The progress of an `add`, a `migrate_model` or, in points, a `copy_to`.

    Attributes:
        documents: number of documents known to be stored, from the first one on without a gap.
        total: number of documents in the input; ``None`` if it is unknown.
        unchanged: number of documents that are already stored and unchanged, and are not encoded
            again; `add` looks them up somewhat ahead of what it stores.
        tokens: number of tokens encoded so far, including prefixes and special tokens, and also
            ahead of what is stored; ``None`` with a custom encoder, which does not count them, and
            of `copy_to`, which encodes nothing.
        truncated: number of texts truncated at the model's limit; ``None`` as `tokens`.
        seconds: time since the start.
        unknown: number of texts of which the tokenizer knows no word; ``None`` as `tokens`.
    """

    documents: int
    total: int | None
    unchanged: int
    tokens: int | None
    truncated: int | None
    seconds: float
    unknown: int | None = None

    @property
    def tokens_per_second(self) -> float | None:
        """Average number of tokens encoded per second; ``None`` if they are not counted."""
        return None if self.tokens is None or not self.seconds else self.tokens / self.seconds

    @property
    def seconds_left(self) -> float | None:
        """Seconds until everything is stored, at the rate so far; ``None`` if it is unknown."""
        if self.total is None or not self.documents:
            return None
        return (self.total - self.documents) * self.seconds / self.documents

    def notes(self) -> list[str]:
        """Return what a bar shows in addition to the documents and the time."""
        notes = []
        if self.tokens_per_second:
            notes.append(f"{self.tokens_per_second:,.0f} tokens/s")
        if self.truncated:
            notes.append(f"{self.truncated:,} texts truncated")
        if self.unknown:
            notes.append(f"{self.unknown:,} texts unknown")
        return notes


ProgressOption: TypeAlias = bool | Callable[[IngestProgress], object] | None


class Counted(Protocol):
    """An encoder that can count what it encodes."""

    @property
    def stats(self) -> EncodeStats | None:
        """Counts of what it has encoded; ``None`` if it does not count."""

    def warn_of_truncation(self, collection_name: str) -> None:
        """Log how many of the counted texts were truncated or have no known word, if any."""


class Reporter(AbstractContextManager["Reporter"]):
    """A reporter of progress, which at the end warns of texts that were truncated or are unknown.

    Args:
        option: a function to call, or whether to show a bar; by default, a bar is shown if stderr
            is a terminal and tqdm is installed.
        collection_name: name of the collection that is written.
        total: number of documents in the input; ``None`` if it is unknown.
        encoder: encodes the documents and counts them; ``None`` if nothing is encoded.
        unit: what is counted.

    Raises:
        InputError: if `option` is something else.
        MissingDependencyError: if ``option=True``, but tqdm is not installed.
    """

    def __init__(
        self,
        option: ProgressOption,
        collection_name: str,
        total: int | None,
        encoder: Counted | None = None,
        unit: str = " documents",
    ) -> None:
        if inspect.iscoroutinefunction(option) or not (
            callable(option) or isinstance(option, bool | None)
        ):
            raise InputError(
                "progress must be True, False or a function that is not a coroutine function, not "
                f"{option!r:.80}"
            )
        self._name, self._total, self._encoder = collection_name, total, encoder
        self._start = time.monotonic()
        self._bar = Progress(
            f"into {collection_name}",
            total,
            unit,
            shown=option if isinstance(option, bool | None) else False,
        )
        self._tell: Callable[[IngestProgress], object] | None
        self._tell = option if callable(option) else None

    def report(self, documents: int, unchanged: int = 0) -> None:
        """Report the number of stored documents, and how many were found unchanged."""
        stats = None if self._encoder is None else self._encoder.stats
        progress = IngestProgress(
            documents=documents,
            total=self._total,
            unchanged=unchanged,
            tokens=None if stats is None else stats.tokens,
            truncated=None if stats is None else stats.truncated,
            seconds=time.monotonic() - self._start,
            unknown=None if stats is None else stats.unknown,
        )
        if self._tell is not None:
            self._tell(progress)
        else:
            self._bar.advance(documents, ", ".join(progress.notes()))

    def show_note(self, note: str) -> None:
        """Show a note in the bar until the next report; a function is not called."""
        self._bar.show_note(note)

    def __exit__(self, *raised: object) -> None:
        self._bar.__exit__(*raised)
        if self._encoder is not None:
            self._encoder.warn_of_truncation(self._name)
