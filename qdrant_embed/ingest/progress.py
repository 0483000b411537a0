"""How far an `add` or a migration has come: told to a function, or shown on the terminal."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeAlias

from qdrant_embed.collection.vectors import Target
from qdrant_embed.errors import InputError
from qdrant_embed.progress_bar import Progress


@dataclass(frozen=True)
class IngestProgress:
    """How far an `add` or a `migrate_model` has come.

    Attributes:
        documents: known to be stored, from the first one on without a gap.
        total: documents there are; ``None`` where the input does not say.
        unchanged: documents found stored already, as they are, and not encoded again; `add`
            looks them up somewhat ahead of what it stores.
        tokens: encoded so far, likewise ahead, with prefixes and special tokens; ``None`` for an
            encoder object of your own, which does not tell.
        truncated: texts that were cut, being longer than the model reads; ``None`` likewise.
        seconds: since the start.
    """

    documents: int
    total: int | None
    unchanged: int
    tokens: int | None
    truncated: int | None
    seconds: float

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens encoded in a second, on average; ``None`` where they are not known."""
        return None if self.tokens is None or not self.seconds else self.tokens / self.seconds

    @property
    def seconds_left(self) -> float | None:
        """Seconds until all is stored, at the pace so far; ``None`` where nobody can say."""
        if self.total is None or not self.documents:
            return None
        return (self.total - self.documents) * self.seconds / self.documents

    def notes(self) -> list[str]:
        """What a bar says beside the documents and the time."""
        rate, cut = self.tokens_per_second, self.truncated
        return ([f"{rate:,.0f} tokens/s"] if rate else []) + ([f"{cut:,} texts cut"] if cut else [])


ProgressOption: TypeAlias = bool | Callable[[IngestProgress], object] | None


class Reporter(AbstractContextManager["Reporter"]):
    """Tells how far it has come, and in the end, by a warning, how many texts were cut.

    Args:
        option: a function that is told; or whether to show a bar, by default where stderr is a
            terminal and tqdm is installed.
        collection_name: where documents go.
        total: documents there will be, if known.
        encoding: what encodes them, and counts.

    Raises:
        InputError: the option is something else.
        MissingDependencyError: a bar is to be shown, but tqdm is not installed.
    """

    def __init__(
        self, option: ProgressOption, collection_name: str, total: int | None, encoding: Target
    ) -> None:
        if inspect.iscoroutinefunction(option) or not (
            callable(option) or isinstance(option, bool | None)
        ):
            raise InputError(
                f"progress must be True, False or a function that is no coroutine, not {option!r}"
            )
        self._name, self._total, self._encoding = collection_name, total, encoding
        self._start = time.monotonic()
        self._bar = Progress(
            f"into {collection_name}",
            total,
            " documents",
            shown=option if isinstance(option, bool | None) else False,
        )
        self._tell: Callable[[IngestProgress], object]
        self._tell = option if callable(option) else self._show

    def report(self, documents: int, unchanged: int = 0) -> None:
        """Tells that so many documents are stored, so many of all found unchanged."""
        job = self._encoding.job
        self._tell(
            IngestProgress(
                documents=documents,
                total=self._total,
                unchanged=unchanged,
                tokens=None if job is None else job.stats.tokens,
                truncated=None if job is None else job.stats.truncated,
                seconds=time.monotonic() - self._start,
            )
        )

    def _show(self, progress: IngestProgress) -> None:
        self._bar.advance(progress.documents, ", ".join(progress.notes()))

    def __exit__(self, *raised: object) -> None:
        self._bar.__exit__(*raised)
        self._encoding.warn_of_truncation(self._name)
