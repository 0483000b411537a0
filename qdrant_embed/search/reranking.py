"""The last hop of a query: a reranker scores the texts that were found again."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence

from qdrant_embed.encoder.cross import TextCrossEncoder
from qdrant_embed.encoder.interfaces import Reranker
from qdrant_embed.errors import ModelError

logger = logging.getLogger(__name__)


def load_reranker(reranker: Reranker | None) -> None:
    """Load the model of a reranker, so that what is wrong with it is known before a request.

    Raises:
        ModelError: if the model cannot be found, downloaded or read.
    """
    if isinstance(reranker, TextCrossEncoder):
        reranker.load()


def rerank_scores(reranker: Reranker, query: str, documents: Sequence[str]) -> list[float]:
    """Return the reranker's scores, one per document.

    Raises:
        ModelError: if the reranker returned something else.
    """
    if not documents:
        return []
    if isinstance(reranker, TextCrossEncoder):
        name = reranker.model_name
    else:
        name = type(reranker).__name__
    started = time.perf_counter()
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
    milliseconds = 1000 * (time.perf_counter() - started)
    logger.debug("reranker %s scored %d texts in %.1f ms", name, len(documents), milliseconds)
    return scores
