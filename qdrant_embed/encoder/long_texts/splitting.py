"""Splits a long text into windows of the model's own tokens, each an exact slice of the text."""

from __future__ import annotations

import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

_NEAR = 0.75  # of the room: from there on, the end of a sentence is worth more than more tokens
_SHRINK = 16  # a window that does not fit loses this share of the room, and is tried again

_SENTENCE_ENDS = ".!?…。！？｡।॥۔؟։።"  # noqa: RUF001 - as written
_WITHOUT_SPACE = "。！？｡"  # noqa: RUF001 - scripts with no space between sentences
_CLOSERS = "\"'”’»›)]}」』）】"  # noqa: RUF001 - as written
_JOINER = "\u200d"
_VOWEL_SIGNS = "\u0e33\u0eb3"  # Thai and Lao letters that belong to the one before (UAX #29)


@dataclass(frozen=True)
class Span:
    """A part of a text: ``text[start:end]``."""

    start: int
    end: int


@dataclass(frozen=True)
class _Cuts:
    """Where a text may be split: position in the text, tokens before it; both ends included."""

    positions: list[int]
    tokens: list[int]


def split(
    text: str,
    tokens: Sequence[tuple[int, int]],
    room: int,
    fits: Callable[[str], bool],
    overlap: int = 0,
) -> Iterator[Span]:
    """Yield windows that together hold all of `text` but white space between them, in order.

    A window ends at the end of a paragraph, else of a sentence, else of a word, if there is one in
    the last quarter of its room; else between tokens, but never inside a character, nor between a
    letter and its accents or the parts of an emoji unless these alone do not fit. White space at
    its ends is left out.

    Args:
        text: to split.
        tokens: where each of its tokens starts and ends in `text`, without special tokens.
        room: tokens of a window.
        fits: whether a part, tokenised by itself, is within the limit; asked about every window,
            because a part may have more tokens by itself than inside its text.
        overlap: at most how many tokens of the previous window a window repeats; below half of
            `room`.
    """
    reader = _Reader(text)
    cuts = _cuts(reader, tokens)
    last = len(cuts.positions) - 1
    first = reached = 0
    while reached < last:
        end = _end(reader, cuts, first, reached, room, fits)
        if end is not None:
            yield from _stripped(text, cuts.positions[first], cuts.positions[end])
        elif first < reached:
            first = reached  # no room for an overlap here
            continue
        else:
            end = first + 1
            yield from _by_characters(text, cuts.positions[first], cuts.positions[end], fits)
        first, reached = (_overlapping(reader, cuts, first, end, overlap) if overlap else end), end


class _Runs:
    """Runs of one kind of characters in a text.

    The run that was found last is remembered. A run can be as long as the text, and have a cut at
    every character: to read it for every cut would take time that grows with its square.
    """

    def __init__(self, text: str, belongs: Callable[[str], bool]) -> None:
        self._text, self._belongs = text, belongs
        self._start = self._end = -1

    def around(self, position: int) -> tuple[int, int]:
        """Return where the run around `position` starts and ends; twice `position` without one."""
        if not self._start <= position <= self._end:
            text, belongs = self._text, self._belongs
            start = end = position
            while start > 0 and belongs(text[start - 1]):
                start -= 1
            while end < len(text) and belongs(text[end]):
                end += 1
            self._start, self._end = start, end
        return self._start, self._end


class _Reader:
    """What stands on both sides of a position in `text`, in time that no run makes longer."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._spaces = _Runs(text, str.isspace)
        self._closers = _Runs(text, _CLOSERS.__contains__)
        self._flags = _Runs(text, _is_regional)
        self._gap, self._is_paragraph = -1, False  # start of the gap that was looked at last

    def rank(self, position: int) -> int:
        """Rate a cut there: 3 after a paragraph, 2 after a sentence, 1 after a word, 0 inside."""
        left, right = self._spaces.around(position)
        if left < right and self._ends_paragraph(left, right):
            return 3
        start, _ = self._closers.around(left)
        before = self.text[start - 1 : start]
        is_gap = left < right
        if before and (before in _WITHOUT_SPACE or (is_gap and before in _SENTENCE_ENDS)):
            return 2
        return 1 if is_gap else 0

    def _ends_paragraph(self, left: int, right: int) -> bool:
        if left != self._gap:
            self._gap, self._is_paragraph = left, self.text.count("\n", left, right) > 1
        return self._is_paragraph

    def inside_cluster(self, position: int) -> bool:
        """Return whether what users see as one character continues at `position`.

        By the main rules of UAX #29.
        """
        text = self.text
        if position >= len(text):
            return False
        before, after = text[position - 1], text[position]
        if _is_regional(after):
            start, _ = self._flags.around(position)
            return (position - start) % 2 == 1  # flags are pairs
        return (
            unicodedata.category(after).startswith("M")
            or _JOINER in (before, after)
            or "\U0001f3fb" <= after <= "\U0001f3ff"  # colours of skin
            or "\u1160" <= after <= "\u11ff"  # second and third parts of a Korean syllable
            or after in _VOWEL_SIGNS
            or (before, after) == ("\r", "\n")
        )


def _cuts(reader: _Reader, tokens: Sequence[tuple[int, int]]) -> _Cuts:
    positions, before = [0], [0]
    for index, (start, _) in enumerate(tokens):
        # several tokens of one character, such as bytes, all state where the character starts
        if start > positions[-1] and not reader.inside_cluster(start):
            positions.append(start)
            before.append(index)
    return _Cuts([*positions, len(reader.text)], [*before, len(tokens)])


def _end(
    reader: _Reader, cuts: _Cuts, first: int, reached: int, room: int, fits: Callable[[str], bool]
) -> int | None:
    """Find the cut that ends the window from `first` on, after `reached`; ``None`` if none fits."""
    last = len(cuts.positions) - 1
    start, left = cuts.tokens[first], room
    while True:
        furthest = bisect_right(cuts.tokens, start + left) - 1
        if furthest <= reached:
            return None
        end = furthest
        if furthest < last:
            near = bisect_left(cuts.tokens, start + int(left * _NEAR))
            candidates = range(max(min(near, furthest), reached + 1), furthest + 1)
            end = max(candidates, key=lambda cut: (reader.rank(cuts.positions[cut]), cut))
        if fits(reader.text[cuts.positions[first] : cuts.positions[end]].strip()):
            return end
        left = cuts.tokens[end] - start - max(1, room // _SHRINK)


def _overlapping(reader: _Reader, cuts: _Cuts, first: int, end: int, overlap: int) -> int:
    """Find the cut that starts the next window: the first word within the overlap."""
    earliest = max(first + 1, bisect_left(cuts.tokens, cuts.tokens[end] - overlap))
    words = (cut for cut in range(earliest, end) if reader.rank(cuts.positions[cut]))
    return next(words, min(earliest, end))


def _by_characters(text: str, start: int, end: int, fits: Callable[[str], bool]) -> Iterator[Span]:
    """Split what has no cuts into parts that fit; a single character always does.

    The size of one part is the first guess for the next, so that no more than a few times the
    part is tokenised to find its end, however long the rest is.
    """

    def fit(size: int) -> bool:
        return size <= 1 or fits(text[start : start + size].strip())

    size = 1
    while start < end:
        size = min(size, end - start)
        if fit(size):
            while size < end - start and fit(larger := min(2 * size, end - start)):
                size = larger
        else:
            while not fit(size):
                size = (size + 1) // 2
        yield from _stripped(text, start, start + size)
        start += size


def _stripped(text: str, start: int, end: int) -> Iterator[Span]:
    part = text[start:end]
    if kept := part.strip():
        start += len(part) - len(part.lstrip())
        yield Span(start, start + len(kept))


def _is_regional(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"
