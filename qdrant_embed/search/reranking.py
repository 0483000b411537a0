"""The last hop of a query: somebody else's second opinion on what was found."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

from qdrant_embed.errors import InputError, ModelError


@runtime_checkable
class Reranker(Protocol):
    """Any object that scores texts against a query, such as a cross-encoder.

    ``fastembed``'s ``TextCrossEncoder`` is one as it stands. `rerank` may be called from several
    threads at once, and never on the event loop.
    """

    def rerank(self, query: str, documents: Sequence[str], /) -> Iterable[Any]:
        """One number for each document, in order; higher is better."""


def check_reranker(candidate: object) -> None:
    """Raises `InputError` unless `candidate` is a `Reranker`, or ``None``."""
    if isinstance(candidate, type):
        raise InputError(f"a reranker is an object, and {candidate.__name__} a class: make one")
    if candidate is not None and not isinstance(candidate, Reranker):
        raise InputError(
            "a reranker has the method rerank(query, documents); "
            f"{type(candidate).__name__} has not"
        )


def rerank_scores(reranker: Reranker, query: str, documents: Sequence[str]) -> list[float]:
    """The reranker's scores, one for each document.

    Raises:
        ModelError: it gave something else.
    """
    if not documents:
        return []
    name = type(reranker).__name__
    try:
        scores = [float(score) for score in reranker.rerank(query, documents)]
    except (TypeError, ValueError) as error:
        raise ModelError(f"reranker {name} gave scores that are no numbers: {error}") from error
    if len(scores) != len(documents):
        raise ModelError(f"reranker {name} gave {len(scores)} scores for {len(documents)} texts")
    if not all(map(math.isfinite, scores)):
        raise ModelError(f"reranker {name} gave a score that is NaN or infinite")
    return scores
