"""Words of a text: as fastembed finds them, or with pairs of characters where no spaces part words.

Chinese, Japanese and Thai have no spaces between words, and Korean words end in particles. There,
each pair of neighbouring characters counts as a word (Nie et al. 2000), and a single character if
it stands alone. All other words of the same text are found as usual.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from qdrant_embed.encoder.interfaces import CUSTOM, WordTokenizer
from qdrant_embed.errors import InputError

BIGRAMS = "bigrams"  # the built-in tokenizer's name, as an option and in the stamp

_WORD = re.compile(r"\w+")
_ASCII_WORDS = {c: chr(c).lower() if _WORD.match(chr(c)) else " " for c in range(128)}
_SOFT_HYPHEN = "\u00ad"
# Thai with its vowel signs and tones, which are no letters to `re`; Hangul; iteration marks and
# kana; Han
_UNSPACED = (
    "\u0e01-\u0e3a\u0e40-\u0e4e"
    "\u1100-\u11ff\u3131-\u318e\uac00-\ud7a3"
    "\u3005-\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9d"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_RUN = re.compile(f"[{_UNSPACED}]+|(?:(?![{_UNSPACED}])\\w)+")
_IS_UNSPACED = re.compile(f"[{_UNSPACED}]")


def normalized(text: str) -> str:
    """Return a text in Unicode's form NFKC, without soft hyphens.

    Letters of full width, ligatures and composed letters are then the same however they are typed,
    and a word is whole wherever it may be broken.
    """
    if text.isascii():
        return text
    return unicodedata.normalize("NFKC", text.replace(_SOFT_HYPHEN, ""))


def words(text: str) -> list[str]:
    """Split a text into words in lower case."""
    if text.isascii():
        return text.translate(_ASCII_WORDS).split()
    return _lowered(text, _WORD)


def bigrams(text: str) -> list[str]:
    """Split a text into words in lower case, and into pairs of characters where words have none."""
    if text.isascii():
        return words(text)
    found: list[str] = []
    for run in _lowered(text, _RUN):
        if len(run) < 2 or not _IS_UNSPACED.match(run):
            found.append(run)
        else:
            found.extend(run[start : start + 2] for start in range(len(run) - 1))
    return found


def custom_words(tokenizer: WordTokenizer, text: str) -> list[str]:
    """Return what a user's own tokenizer makes of a text, in lower case.

    Raises:
        InputError: it does not return strings.
    """
    found = tokenizer(text)
    if isinstance(found, str) or not isinstance(found, Iterable):
        raise InputError(f"tokenizer must return a list of str, not {type(found).__name__}")
    listed = list(found)
    for word in listed:
        if not isinstance(word, str):
            raise InputError(f"tokenizer returned {word!r:.80}, which is not a str")
    return [word.lower() for word in listed if word and not word.isspace()]


def stamped_name(tokenizer: str | WordTokenizer | None) -> str | None:
    """Return a tokenizer's name for the stamp of a collection; ``None`` for the usual words."""
    if tokenizer is None or isinstance(tokenizer, str):
        return tokenizer
    name = getattr(tokenizer, "__qualname__", type(tokenizer).__qualname__)
    return f"{CUSTOM}{name:.200}"


def has_letters(text: str) -> bool:
    """Return whether there is a letter in a text."""
    return any(map(str.isalpha, text))


def _lowered(text: str, pattern: re.Pattern[str]) -> list[str]:
    """Find what `pattern` matches, in lower case.

    Punctuation is removed before lowering, because it decides how a final sigma is lowered, and
    again after it, because one letter (U+0130) is lowered to two characters, of which the second
    is no part of a word.
    """
    return pattern.findall(" ".join(pattern.findall(text)).lower())
