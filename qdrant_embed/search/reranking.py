"""Rerankers, which score the texts that a query has found again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

from qdrant_embed.errors import InputError, ModelError


@runtime_checkable
class Reranker(Protocol):
    """Any object that scores texts against a query, such as a cross-encoder.

    ``fastembed``'s ``TextCrossEncoder`` can be passed as is. `rerank` can be called from several
    threads concurrently, and is never called on the event loop.
    """

    def rerank(self, query: str, documents: Sequence[str], /) -> Iterable[Any]:
        """Return one score per document, in order; higher is better."""


def check_reranker(candidate: object) -> None:
    """Raise `InputError` unless `candidate` is a `Reranker` or ``None``."""
    if isinstance(candidate, type):
        raise InputError(
            f"reranker must be an object, but {candidate.__name__} is a class; pass an instance"
        )
    if candidate is not None and not isinstance(candidate, Reranker):
        raise InputError(
            "reranker must have the method rerank(query, documents), which "
            f"{type(candidate).__name__} lacks"
        )


def rerank_scores(reranker: Reranker, query: str, documents: Sequence[str]) -> list[float]:
    """Return the reranker's scores, one per document.

    Raises:
        ModelError: if the reranker returned something else.
    """
    if not documents:
        return []
    name = type(reranker).__name__
    try:
        scores = [float(score) for score in reranker.rerank(query, documents)]
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"reranker {name} returned scores that are not numbers: {error}"
        ) from error
    if len(scores) != len(documents):
        raise ModelError(
            f"reranker {name} returned {len(scores)} scores for {len(documents)} texts"
        )
    if not all(map(math.isfinite, scores)):
        raise ModelError(f"reranker {name} returned a score that is NaN or infinite")
    return scores
