"""SPLADE: a network that weighs the terms of its vocabulary by what a text is about."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.encoder.interfaces import SparseDescription, SparseVector, Vector
from qdrant_embed.encoder.model import Model, ModelOptions
from qdrant_embed.encoder.run.cores import worker_count
from qdrant_embed.encoder.run.pipeline import Pipeline
from qdrant_embed.errors import check_whole

# the head has a number for each token and term: 128 tokens of 30,522 terms are 16 MB a thread
_TOKENS_PER_BATCH = 128


class Splade:
    """Turns texts, documents and queries alike, into weights of terms.

    A term is kept if its weight is above 0, as fastembed does; with `max_terms` only the
    heaviest so many are. The index of a term is its token id.

    Args:
        options: the model; a folder, or a repository of the hub, of a ``BertForMaskedLM``.
        threads: texts computed at once; ``None`` for every usable core.
        max_terms: terms kept of each text; ``None`` for all above 0.
    """

    def __init__(
        self, options: ModelOptions, threads: int | None = None, max_terms: int | None = None
    ) -> None:
        if max_terms is not None:
            check_whole("max_terms", max_terms, 1)
        self._model = Model(options)
        self._threads = worker_count("threads", threads)
        self._max_terms = max_terms
        self._pipeline = Pipeline(self._model, self._sparse, _TOKENS_PER_BATCH)

    @property
    def model_name(self) -> str:
        """The model's name as the hub spells it; a folder's path for a model without one."""
        return self._model.name

    def load(self) -> None:
        """Finds, compiles and loads the model now, where that has not happened yet."""
        _ = self._model.runtime

    def describe(self) -> SparseDescription:
        """Everything the vectors depend on."""
        facts = self._model.facts
        return SparseDescription(
            model=facts.spec.name,
            revision=facts.source.revision,
            weights_sha256=facts.weights_sha256,
            max_tokens=facts.spec.max_tokens,
            max_terms=self._max_terms,
        )

    def vectors(
        self, texts: Iterator[str], window: int, parallel: int | None
    ) -> Iterator[SparseVector]:
        """The vector of each text, in order."""
        workers = self._threads if parallel is None else worker_count("parallel", parallel or None)
        return self._pipeline.run(texts, window, workers)

    def _sparse(self, weights: Vector) -> list[SparseVector]:
        return [self._kept(row) for row in weights]

    def _kept(self, weights: Vector) -> SparseVector:
        terms: NDArray[np.int64] = np.flatnonzero(weights)
        if self._max_terms is not None and len(terms) > self._max_terms:
            heaviest = np.argsort(-weights[terms], kind="stable")[: self._max_terms]
            terms = np.sort(terms[heaviest])
        return SparseVector(terms, weights[terms])
