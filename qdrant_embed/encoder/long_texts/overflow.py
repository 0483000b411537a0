"""Handles texts that are longer than their model reads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias, get_args

import numpy as np

from qdrant_embed.encoder.interfaces import Chunk, Overflow, Vector
from qdrant_embed.encoder.long_texts.splitting import Span, split
from qdrant_embed.encoder.run.backend import l2_normalized
from qdrant_embed.encoder.run.batching import windows
from qdrant_embed.encoder.run.job import EncodeJob
from qdrant_embed.encoder.run.pipeline import Pipeline
from qdrant_embed.errors import InputError, check_whole

if TYPE_CHECKING:
    from qdrant_embed.encoder.run.loaded_model import LoadedModel
    from qdrant_embed.encoder.run.tokenizer import Tokenizer

Splitter: TypeAlias = Callable[[str], Iterable[tuple[int, int]]]

_CHECKED_TOGETHER = 256  # texts
_SPLITS: tuple[Overflow, ...] = ("mean", "chunk")


@dataclass(frozen=True)
class OverflowOptions:
    """How texts longer than the model reads are treated; see `TextEmbedding` for the names."""

    overflow: Overflow = "truncate"
    overlap: int = 0
    splitter: Splitter | None = None

    def __post_init__(self) -> None:
        if self.overflow not in (known := get_args(Overflow)):
            names = ", ".join(map(repr, known))
            raise InputError(f"overflow must be one of {names}, not {self.overflow!r}")
        check_whole("overlap", self.overlap, 0)
        if not self.splits and (self.overlap or self.splitter is not None):
            raise InputError(
                f"overlap= and splitter= are for overflow='mean' and 'chunk', not "
                f"{self.overflow!r}: nothing else splits texts"
            )

    @property
    def splits(self) -> bool:
        """Whether longer texts are read in windows."""
        return self.overflow in _SPLITS


@dataclass(frozen=True)
class _Part:
    """A part of a text that is encoded, and how many tokens of the text it has."""

    span: Span
    tokens: int


class LongTexts:
    """Encodes texts of any length: the windows of each, their mean, or a refusal.

    A text that the model reads whole is one window, and has the same vector as without this.

    Args:
        load: returns the model, loading it on the first call.
        pipeline: runs it.
        options: how texts are split.
        job: counts what is read, and may be cancelled.
    """

    def __init__(
        self,
        load: Callable[[], LoadedModel],
        pipeline: Pipeline[Vector],
        options: OverflowOptions,
        job: EncodeJob | None = None,
    ) -> None:
        self._load, self._pipeline, self._options = load, pipeline, options
        self._job = job

    def refused(self, texts: Iterable[str], first: int = 0) -> Iterator[str]:
        """Yield each of `texts`, prefix included, until one is longer than the model reads.

        Args:
            texts: read once, a few hundred ahead.
            first: position of the first, for the message.

        Raises:
            InputError: one is longer.
        """
        for some in windows(texts, _CHECKED_TOGETHER):
            model = self._load()
            for position in model.tokenizer.tokenize(some, first).truncated:
                tokens = model.tokenizer.count(some[position])
                raise InputError(
                    f"text number {first + position} has {tokens} tokens with its prefix, but "
                    f"{model.spec.name} reads {model.spec.max_tokens}, and "
                    "overflow='error' does not allow truncation: split the text, or choose "
                    "overflow='chunk' or 'mean'",
                    index=first + position,
                )
            first += len(some)
            yield from some

    def vectors(
        self, texts: Iterable[str], prefix: str, window: int, workers: int
    ) -> Iterator[Vector]:
        """Yield a vector for each text, in order: the mean of its windows' vectors.

        Each window weighs as much as it has tokens of the text. The mean is scaled to length 1 if
        the model's vectors are. The arguments are those of `Pipeline.run`.

        Args:
            texts: without prefix.
            prefix: put before each text, and before each window of a longer one.
            window: texts, or windows of texts, computed together.
            workers: threads that compute.

        Raises:
            InputError: prefix or overlap leave no room, or the splitter returned something other
                than parts of the text.
        """
        for parts, rows in self._encoded(texts, prefix, window, workers):
            yield rows[0] if len(rows) == 1 else self._mean(rows, [part.tokens for part in parts])

    def chunks(
        self, texts: Iterable[str], prefix: str, window: int, workers: int
    ) -> Iterator[list[Chunk]]:
        """Yield the windows of each text, in order; Args and Raises are those of `vectors`."""
        for parts, rows in self._encoded(texts, prefix, window, workers):
            yield [
                Chunk(part.span.start, part.span.end, row)
                for part, row in zip(parts, rows, strict=True)
            ]

    def _encoded(
        self, texts: Iterable[str], prefix: str, window: int, workers: int
    ) -> Iterator[tuple[list[_Part], list[Vector]]]:
        under_way: deque[list[_Part]] = deque()
        token_ids = self._token_ids(texts, prefix, window, under_way)
        vectors = self._pipeline.run_tokens(windows(token_ids, window), window, workers, self._job)
        for first in vectors:
            parts = under_way.popleft()
            yield parts, [first, *islice(vectors, len(parts) - 1)]

    def _token_ids(
        self, texts: Iterable[str], prefix: str, window: int, under_way: deque[list[_Part]]
    ) -> Iterator[list[int]]:
        """Yield the token ids of each part, once all parts of its text are `under_way`."""
        model = self._load()
        tokenizer = model.tokenizer
        cutter = _Cutter(tokenizer, model.spec.max_tokens, prefix, self._options)
        first = 0
        for some in windows(texts, window):
            whole = tokenizer.tokenize([prefix + text for text in some], first)
            first += len(some)
            long = set(whole.truncated)
            for position, (text, ids) in enumerate(zip(some, whole.ids, strict=True)):
                spans, parts = [Span(0, len(text))], [ids]
                if position in long:
                    spans = cutter.spans(text)
                    parts = cutter.token_ids(text, spans)
                unknown = int(tokenizer.unknown_texts(parts, prefix) == len(parts))
                if self._job is not None:
                    self._job.stats.add(parts, unknown=unknown)
                elif unknown:
                    self._pipeline.warn_of_unknown(model)
                under_way.append(
                    [
                        _Part(span, max(1, len(part) - cutter.overhead))
                        for span, part in zip(spans, parts, strict=True)
                    ]
                )
                yield from parts

    def _mean(self, rows: list[Vector], weights: list[int]) -> Vector:
        mean = np.average(np.array(rows, np.float64), axis=0, weights=weights)
        if self._load().spec.normalize:
            mean = l2_normalized(mean)
        vector: Vector = mean.astype(np.float32)
        return vector


class _Cutter:
    """Splits texts for one model and prefix."""

    def __init__(
        self, tokenizer: Tokenizer, max_tokens: int, prefix: str, options: OverflowOptions
    ) -> None:
        self._tokenizer, self._prefix = tokenizer, prefix
        self._overlap, self._splitter = options.overlap, options.splitter
        self.overhead = tokenizer.count(prefix)
        self._room = max_tokens - self.overhead
        if self._room < 1:
            raise InputError(
                f"max_tokens={max_tokens} leaves no room for a text: the prefix {prefix!r} and "
                f"the special tokens take {self.overhead}"
            )
        if 2 * self._overlap > self._room:
            raise InputError(
                f"overlap={self._overlap} is more than half of the {self._room} tokens that a "
                "window has besides prefix and special tokens"
            )

    def spans(self, text: str) -> list[Span]:
        """Split `text` into windows; at least one."""
        return list(self._spans(text)) or [Span(0, 0)]  # white space alone

    def token_ids(self, text: str, spans: Sequence[Span]) -> list[list[int]]:
        """Tokenise each window of `text`, with prefix and special tokens."""
        parts = [self._prefix + text[span.start : span.end] for span in spans]
        return self._tokenizer.tokenize(parts).ids

    def _spans(self, text: str) -> Iterator[Span]:
        if self._splitter is None:
            yield from self._split(text)
            return
        for start, end in self._checked(text, self._splitter(text)):
            part = text[start:end]
            if self._fits(part):
                yield Span(start, end)
            else:
                yield from (Span(start + s.start, start + s.end) for s in self._split(part))

    def _split(self, text: str) -> Iterator[Span]:
        tokens = self._tokenizer.spans(text)
        return split(text, tokens, self._room, self._fits, self._overlap)

    def _fits(self, part: str) -> bool:
        return not self._tokenizer.tokenize([self._prefix + part]).truncated

    @staticmethod
    def _checked(text: str, spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        found = list(spans)
        for span in found:
            match span:
                case (int(start), int(end)) if 0 <= start < end <= len(text):
                    continue
            raise InputError(
                f"the splitter returned {span!r:.80} for a text of {len(text)} characters: it must "
                "return pairs of a start and an end, so that text[start:end] is a part"
            )
        if not found and text.strip():
            raise InputError(f"the splitter returned no part of a text of {len(text)} characters")
        return found
