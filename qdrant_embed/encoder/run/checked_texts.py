"""Checks texts that users pass, as they are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from qdrant_embed.errors import InputError, check_unicode


def checked_texts(
    texts: str | Iterable[str], prefix: str = "", *, any_unicode: bool = False
) -> Iterator[str]:
    """Yield each of `texts` with `prefix` before it; a single str is one text.

    Lone surrogates, which tokenizers do not accept, are refused unless `any_unicode` is set.

    Raises:
        InputError: at once if `texts` is neither; when its turn comes if one is not a str.
    """
    if isinstance(texts, str):
        texts = [texts]
    if not isinstance(texts, Iterable):
        raise InputError(f"texts must be strings, not {type(texts).__name__}")
    return _checked(texts, prefix, any_unicode)


def _checked(texts: Iterable[str], prefix: str, any_unicode: bool) -> Iterator[str]:
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(
                f"text number {position} is {type(text).__name__}, not str: {text!r:.80}",
                index=position,
            )
        if not (any_unicode or text.isascii()):
            check_unicode(f"text number {position}", text, index=position)
        yield prefix + text
