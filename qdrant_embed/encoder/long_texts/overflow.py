"""What becomes of texts that are longer than their model reads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias, get_args

import numpy as np

from qdrant_embed.encoder.interfaces import Chunk, Overflow, Vector
from qdrant_embed.encoder.long_texts.splitting import Span, split
from qdrant_embed.encoder.model import Model
from qdrant_embed.encoder.run.batching import windows
from qdrant_embed.encoder.run.pipeline import Pipeline
from qdrant_embed.encoder.run.tally import Tally
from qdrant_embed.errors import InputError, check_whole

if TYPE_CHECKING:
    from qdrant_embed.encoder.run.tokenizer import Tokenizer

Splitter: TypeAlias = Callable[[str], Iterable[tuple[int, int]]]

_CHECKED_TOGETHER = 256  # texts
_SPLITS: tuple[Overflow, ...] = ("mean", "chunk")


@dataclass(frozen=True)
class OverflowOptions:
    """How texts longer than the model reads are treated; the names are those of `TextEmbedding`."""

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
    """What is encoded of a text, and how many tokens of the text that is."""

    span: Span
    tokens: int


class LongTexts:
    """Texts of any length: the vectors of their windows, the mean of these, or a refusal.

    A text that the model reads whole is one window, with the vector it has without this.

    Args:
        model: encodes.
        pipeline: runs it.
        options: how texts are split.
        tally: counts what is read, if anybody wants to know.
    """

    def __init__(
        self,
        model: Model,
        pipeline: Pipeline[Vector],
        options: OverflowOptions,
        tally: Tally | None = None,
    ) -> None:
        self._model, self._pipeline, self._options = model, pipeline, options
        self._tally = tally

    def refused(self, texts: Iterable[str], first: int = 0) -> Iterator[str]:
        """Each of `texts`, prefix included, as long as none is longer than the model reads.

        Args:
            texts: read once, a few hundred ahead.
            first: position of the first, for the message.

        Raises:
            InputError: one is longer.
        """
        for some in windows(texts, _CHECKED_TOGETHER):
            tokenizer = self._model.runtime.tokenizer
            for position in tokenizer.tokenize(some).truncated:
                tokens = tokenizer.count(some[position])
                raise InputError(
                    f"text number {first + position} has {tokens} tokens with its prefix, but "
                    f"{self._model.name} reads {self._model.facts.spec.max_tokens}, and "
                    "overflow='error' lets none be cut: split the text, or choose "
                    "overflow='chunk' or 'mean'",
                    index=first + position,
                )
            first += len(some)
            yield from some

    def vectors(
        self, texts: Iterable[str], prefix: str, window: int, workers: int
    ) -> Iterator[Vector]:
        """A vector for each text, in order: the mean of those of its windows.

        Each window weighs as much as it has tokens of the text. The mean is scaled to length 1
        where the model does so. The arguments are those of `Pipeline.run`.

        Args:
            texts: without prefix.
            prefix: put before each text, and before each window of a longer one.
            window: texts, or windows of texts, computed together.
            workers: threads that compute.

        Raises:
            InputError: prefix or overlap leave no room, or the splitter gave what is no part.
        """
        for parts, rows in self._encoded(texts, prefix, window, workers):
            yield rows[0] if len(rows) == 1 else self._mean(rows, [part.tokens for part in parts])

    def chunks(
        self, texts: Iterable[str], prefix: str, window: int, workers: int
    ) -> Iterator[list[Chunk]]:
        """The windows of each text, in order; Args and Raises are those of `vectors`."""
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
        vectors = self._pipeline.run_tokens(
            windows(token_ids, window), window, workers, self._tally
        )
        for first in vectors:
            parts = under_way.popleft()
            yield parts, [first, *islice(vectors, len(parts) - 1)]

    def _token_ids(
        self, texts: Iterable[str], prefix: str, window: int, under_way: deque[list[_Part]]
    ) -> Iterator[list[int]]:
        """Of what is encoded; a text's parts are `under_way` before the first of them goes."""
        tokenizer = self._model.runtime.tokenizer
        cutter = _Cutter(tokenizer, self._model.facts.spec.max_tokens, prefix, self._options)
        for some in windows(texts, window):
            whole = tokenizer.tokenize([prefix + text for text in some])
            long = set(whole.truncated)
            for position, (text, ids) in enumerate(zip(some, whole.ids, strict=True)):
                spans, parts = [Span(0, len(text))], [ids]
                if position in long:
                    spans = cutter.spans(text)
                    parts = cutter.token_ids(text, spans)
                if self._tally is not None:
                    self._tally.note(parts)
                under_way.append(
                    [
                        _Part(span, max(1, len(part) - cutter.overhead))
                        for span, part in zip(spans, parts, strict=True)
                    ]
                )
                yield from parts

    def _mean(self, rows: list[Vector], weights: list[int]) -> Vector:
        mean = np.average(np.array(rows, np.float64), axis=0, weights=weights)
        if self._model.facts.spec.normalize:
            mean /= max(float(np.linalg.norm(mean)), 1e-12)
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
        """The windows of `text`; at least one."""
        return list(self._spans(text)) or [Span(0, 0)]  # white space alone

    def token_ids(self, text: str, spans: Sequence[Span]) -> list[list[int]]:
        """Token ids of each window of `text`, prefix and special tokens included."""
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
                f"the splitter gave {span!r:.80} for a text of {len(text)} characters: it has to "
                "give pairs of a start and an end, so that text[start:end] is a part"
            )
        if not found and text.strip():
            raise InputError(f"the splitter gave no part of a text of {len(text)} characters")
        return found
