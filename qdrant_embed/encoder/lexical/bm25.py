"""BM25 as sparse vectors, those of ``Qdrant/bm25`` in fastembed 0.9.1 unless an option differs.

A text is split into words in lower case, without stop words and words of more than 40 characters,
which are reduced to their Snowball stems; the index of a stem is its 32-bit murmur hash. How rare a
stem is can be known for a whole collection only: Qdrant itself multiplies that in (the vector's
modifier ``idf``).
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from numbers import Real
from typing import TypeVar

import numpy as np

from qdrant_embed.encoder.facts.sparse_catalog import BM25
from qdrant_embed.encoder.interfaces import (
    CUSTOM,
    SparseDescription,
    SparseVector,
    WordTokenizer,
)
from qdrant_embed.encoder.lexical.words import (
    BIGRAMS,
    bigrams,
    custom_words,
    has_letters,
    normalized,
    stamped_name,
    words,
)
from qdrant_embed.errors import InputError, MissingDependencyError

try:
    from mmh3 import hash as murmur_hash
    from py_rust_stemmers import SnowballStemmer
except ImportError as error:
    raise MissingDependencyError(str(error.name), "BM25") from error

logger = logging.getLogger(__name__)

T = TypeVar("T")

LANGUAGES = (
    "arabic", "danish", "dutch", "english", "finnish", "french", "german", "greek", "hungarian",
    "italian", "norwegian", "portuguese", "romanian", "russian", "spanish", "swedish", "tamil",
    "turkish",
)  # fmt: skip

_LONGEST_WORD = 40
_MOST_REMEMBERED = 1 << 16  # about 10 MB for each language


@dataclass(frozen=True)
class Bm25:
    """Turns texts into the term-frequency half of BM25, and queries into their stems.

    Threads may share it, but it computes in Python: several threads are no faster than one.

    Attributes:
        language: selects stop words and stemmer; one of `LANGUAGES`.
        k: how soon repetitions of a word stop counting; with 0 every word counts once.
        b: from 0 to 1, how much less a word counts in longer texts.
        average_length: stems in an average document of the collection.
        normalize_text: whether texts are normalised before they are split; fastembed does not.
        tokenizer: splits a text into words: ``bigrams``, or a user's own function; by default, as
            fastembed does.

    Raises:
        InputError: the language or the tokenizer is unknown, or a number is out of its range.
    """

    language: str = "english"
    k: float = 1.2
    b: float = 0.75
    average_length: float = 256.0
    normalize_text: bool = False
    tokenizer: str | WordTokenizer | None = None
    _warned: list[bool] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.language not in LANGUAGES:
            raise InputError(
                f"language must be one of {', '.join(LANGUAGES)}; not {self.language!r}"
            )
        _check_number("k", self.k, 0, math.inf)
        _check_number("b", self.b, 0, 1)
        _check_number("average_length", self.average_length, 1, math.inf)
        if not isinstance(self.normalize_text, bool):
            raise InputError(f"normalize_text must be True or False, not {self.normalize_text!r}")
        if not (callable(self.tokenizer) or self.tokenizer in (None, BIGRAMS)):
            own = isinstance(self.tokenizer, str) and self.tokenizer.startswith(CUSTOM)
            raise InputError(
                f"tokenizer must be {BIGRAMS!r}, or a function that takes a text and returns its "
                f"words, not {self.tokenizer!r:.250}"
                + ("; pass the function that the collection was written with" if own else "")
            )

    @property
    def model_name(self) -> str:
        """``Qdrant/bm25``."""
        return BM25

    def describe(self) -> SparseDescription:
        """Describe everything that the vectors depend on."""
        return SparseDescription(
            model=BM25,
            idf=True,
            language=self.language,
            k=self.k,
            b=self.b,
            average_length=self.average_length,
            normalize_text=self.normalize_text or None,
            tokenizer=stamped_name(self.tokenizer),
        )

    def document(self, text: str) -> SparseVector:
        """Compute the vector of a document: a weight for each stem, by its count and the length."""
        counts = self._stem_counts(text)
        k, length = self.k, sum(counts.values())
        saturation = k * (1 - self.b + self.b * length / self.average_length)
        return _vector(
            {
                _INDICES[stem]: count * (k + 1) / (count + saturation)
                for stem, count in counts.items()
            }
        )

    def query(self, text: str) -> SparseVector:
        """Compute the vector of a query: 1 for each stem."""
        return _vector({_INDICES[stem]: 1.0 for stem in self._stem_counts(text)})

    def _stem_counts(self, text: str) -> Counter[str]:
        counts = Counter(map(_stems(self.language).__getitem__, self._words(text)))
        del counts[""]
        if not counts and not self._warned and has_letters(text):
            self._warned.append(True)
            logger.warning(
                "%s finds no term in some texts: all of their words are stop words (%s) or have "
                "more than %d characters, and no query finds them by words; tokenizer=%r finds "
                "words of scripts without spaces (said once)",
                BM25,
                self.language,
                _LONGEST_WORD,
                BIGRAMS,
            )
        return counts

    def _words(self, text: str) -> list[str]:
        if self.normalize_text:
            text = normalized(text)
        if self.tokenizer is None:
            return words(text)
        return (
            bigrams(text) if isinstance(self.tokenizer, str) else custom_words(self.tokenizer, text)
        )


def _check_number(option: str, value: object, least: float, most: float) -> None:
    if (
        isinstance(value, bool)
        or not isinstance(value, Real)
        or not least <= float(value) <= most
        or math.isinf(value)
    ):
        limits = f"from {least} {'up' if math.isinf(most) else f'to {most}'}"
        raise InputError(f"{option} must be a number {limits}, not {value!r}")


class _Remembered(dict[str, T]):
    """The result of `compute` for each word, kept: most words of a text were seen before."""

    def __init__(self, compute: Callable[[str], T]) -> None:
        self._compute = compute

    def __missing__(self, word: str) -> T:
        if len(self) >= _MOST_REMEMBERED:
            self.clear()
        value = self[word] = self._compute(word)
        return value


_INDICES = _Remembered(lambda stem: abs(murmur_hash(stem)))


@cache
def _stems(language: str) -> _Remembered[str]:
    """Map each word in lower case to its stem, or to "" if it does not count."""
    stop_words = _stop_words(language)
    stem: Callable[[str], str] = SnowballStemmer(language).stem_word

    def stem_of(word: str) -> str:
        if word in stop_words or word == "_" or len(word) > _LONGEST_WORD:
            return ""
        return stem(word)

    return _Remembered(stem_of)


def _stop_words(language: str) -> frozenset[str]:
    path = files("qdrant_embed.encoder.lexical") / "stopwords" / f"{language}.txt"
    return frozenset(path.read_text("utf-8").splitlines() if path.is_file() else ())


def _vector(values: dict[int, float]) -> SparseVector:
    return SparseVector(
        np.fromiter(values, np.int64, len(values)),
        np.fromiter(values.values(), np.float32, len(values)),
    )
