"""What becomes of texts that are longer than their model reads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias, get_args

import numpy as np

from qdrant_embed.encoder.batching import windows
from qdrant_embed.encoder.interfaces import Overflow, Vector
from qdrant_embed.encoder.model import Model
from qdrant_embed.encoder.pipeline import Pipeline
from qdrant_embed.encoder.splitting import Span, split
from qdrant_embed.encoder.tally import Tally
from qdrant_embed.errors import InputError, check_whole

if TYPE_CHECKING:
    from qdrant_embed.encoder.tokenizer import Tokenizer

Splitter: TypeAlias = Callable[[str], Iterable[tuple[int, int]]]

_CHECKED_TOGETHER = 256  # texts


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
        if self.overflow != "mean" and (self.overlap or self.splitter is not None):
            raise InputError(
                f"overlap= and splitter= are for overflow='mean', not {self.overflow!r}: nothing "
                "else splits texts"
            )


def refuse_long(model: Model, texts: Iterable[str], first: int = 0) -> Iterator[str]:
    """Each of `texts`, prefix included, as long as none is longer than `model` reads.

    Args:
        model: by whose tokens they are measured.
        texts: read once, a few hundred ahead.
        first: position of the first, for the message.

    Raises:
        InputError: one is longer.
    """
    for some in windows(texts, _CHECKED_TOGETHER):
        tokenizer = model.runtime.tokenizer
        for position in tokenizer.tokenize(some).truncated:
            raise InputError(
                f"text number {first + position} has {tokenizer.count(some[position])} tokens "
                f"with its prefix, but {model.name} reads {model.facts.spec.max_tokens}, and "
                "overflow='error' lets none be cut: split the text, or choose overflow='mean'"
            )
        first += len(some)
        yield from some


class LongTexts:
    """Vectors of texts of any length: a longer one's is the mean of those of its windows.

    Each window weighs as much as it has tokens of the text. The mean is scaled to length 1 where
    the model does so. A text that the model reads whole has the vector it has without this.

    Args:
        model: encodes.
        pipeline: runs it.
        options: how texts are split.
    """

    def __init__(self, model: Model, pipeline: Pipeline[Vector], options: OverflowOptions) -> None:
        self._model, self._pipeline, self._options = model, pipeline, options

    def vectors(
        self, texts: Iterable[str], prefix: str, window: int, workers: int, tally: Tally | None
    ) -> Iterator[Vector]:
        """A vector for each text, in order; the arguments are those of `Pipeline.run`.

        Args:
            texts: without prefix.
            prefix: put before each text, and before each window of a longer one.
            window: texts, or windows of texts, computed together.
            workers: threads that compute.
            tally: counts what is read, if anybody wants to know.

        Raises:
            InputError: prefix or overlap leave no room, or the splitter gave what is no part.
        """
        weights: deque[list[int]] = deque()
        parts = self._parts(texts, prefix, window, weights, tally)
        vectors = self._pipeline.run_tokens(windows(parts, window), window, workers)
        for first in vectors:
            counts = weights.popleft()
            if len(counts) == 1:
                yield first
                continue
            rows = [first, *islice(vectors, len(counts) - 1)]
            yield self._mean(np.array(rows, np.float64), counts)

    def _parts(
        self,
        texts: Iterable[str],
        prefix: str,
        window: int,
        weights: deque[list[int]],
        tally: Tally | None,
    ) -> Iterator[list[int]]:
        """Token ids of what is encoded; a text's weights are known before its first part goes."""
        tokenizer = self._model.runtime.tokenizer
        cutter = _Cutter(tokenizer, self._model.facts.spec.max_tokens, prefix, self._options)
        for some in windows(texts, window):
            whole = tokenizer.tokenize([prefix + text for text in some])
            long = set(whole.truncated)
            for position, (text, ids) in enumerate(zip(some, whole.ids, strict=True)):
                parts = cutter.parts(text) if position in long else [ids]
                if tally is not None:
                    tally.note(parts)
                weights.append([max(1, len(part) - cutter.overhead) for part in parts])
                yield from parts

    def _mean(self, rows: Vector, weights: list[int]) -> Vector:
        mean = np.average(rows, axis=0, weights=weights)
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

    def parts(self, text: str) -> list[list[int]]:
        """Token ids of each window of `text`, prefix and special tokens included."""
        spans = list(self._spans(text)) or [Span(0, 0)]  # white space alone
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
