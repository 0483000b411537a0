"""The models that are served. A request names one of them: no name leads anywhere else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias, TypeVar

from qdrant_embed.encoder.cross import TextCrossEncoder, scores_of_tokens, tokens_of_pairs
from qdrant_embed.encoder.interfaces import Vector
from qdrant_embed.encoder.run.cores import usable_cores
from qdrant_embed.encoder.text import TextEmbedding, tokens_of, vectors_of_tokens
from qdrant_embed.serve.batching import Lane
from qdrant_embed.serve.failures import Refusal

InputType: TypeAlias = Literal["query", "document"]

M = TypeVar("M", "Embedder", "Scorer")


@dataclass(frozen=True)
class Embedded:
    """A text's vector, float32 [dimension], and the number of tokens that were read of it."""

    vector: Vector
    tokens: int


@dataclass(frozen=True)
class Scored:
    """A pair's score, and the number of tokens that were read of it."""

    score: float
    tokens: int


class Embedder:
    """A served model of dense vectors.

    Args:
        embedding: the model.
        executor: where batches are computed.
        on_batch: called with the number of texts of each batch.

    Attributes:
        embedding: the argument.
    """

    def __init__(
        self,
        embedding: TextEmbedding,
        executor: ThreadPoolExecutor,
        on_batch: Callable[[int], None],
    ) -> None:
        self.embedding = embedding
        self._lanes: dict[InputType | None, Lane[str, list[int], Embedded]] = {
            kind: Lane(
                partial(tokens_of, embedding, kind=kind),
                partial(self._compute, kind),
                len,
                executor,
                usable_cores(),
                on_batch,
            )
            for kind in (None, "query", "document")
        }

    @property
    def name(self) -> str:
        """The model's name."""
        return self.embedding.model_name

    def load(self) -> None:
        """Load the model now."""
        self.embedding.load()

    async def embed(self, texts: Sequence[str], kind: InputType | None) -> list[Embedded]:
        """Return the vector of each text, in order, together with texts of other requests.

        Args:
            texts: the texts.
            kind: which prefix they get; none by default.
        """
        return await self._lanes[kind].results(texts)

    def _compute(self, kind: InputType | None, ids: list[list[int]]) -> list[Embedded]:
        vectors = vectors_of_tokens(self.embedding, ids, kind)
        return [Embedded(vector, len(read)) for vector, read in zip(vectors, ids, strict=True)]


class Scorer:
    """A served cross-encoder.

    Args:
        encoder: the model.
        executor: where batches are computed.
        on_batch: called with the number of pairs of each batch.

    Attributes:
        encoder: the argument.
    """

    def __init__(
        self,
        encoder: TextCrossEncoder,
        executor: ThreadPoolExecutor,
        on_batch: Callable[[int], None],
    ) -> None:
        self.encoder = encoder
        self._lane: Lane[tuple[str, str], Any, Scored] = Lane(
            partial(tokens_of_pairs, encoder),
            self._compute,
            lambda pair: len(pair[0]) + len(pair[1]),
            executor,
            usable_cores(),
            on_batch,
        )

    @property
    def name(self) -> str:
        """The model's name."""
        return self.encoder.model_name

    def load(self) -> None:
        """Load the model now."""
        self.encoder.load()

    async def score(self, query: str, documents: Sequence[str]) -> list[Scored]:
        """Return the score of each document, in order, together with pairs of other requests."""
        return await self._lane.results([(query, document) for document in documents])

    def _compute(self, pairs: list[Any]) -> list[Scored]:
        scores = scores_of_tokens(self.encoder, pairs)
        return [Scored(score, len(pair)) for score, pair in zip(scores, pairs, strict=True)]


class ServedModels:
    """The models of a service, by name; of each kind, the first is the default.

    Args:
        embeddings: models of dense vectors, not loaded yet.
        rerankers: cross-encoders, not loaded yet.
        on_batch: called with the number of items of each batch.
    """

    def __init__(
        self,
        embeddings: Sequence[TextEmbedding],
        rerankers: Sequence[TextCrossEncoder] = (),
        on_batch: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._executor = ThreadPoolExecutor(usable_cores(), thread_name_prefix="encode")
        self.embedders = [Embedder(model, self._executor, on_batch) for model in embeddings]
        self.scorers = [Scorer(model, self._executor, on_batch) for model in rerankers]

    def load(self) -> None:
        """Load all models."""
        for embedder in self.embedders:
            embedder.load()
        for scorer in self.scorers:
            scorer.load()

    def close(self) -> None:
        """End the threads, once they have computed what was begun."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def embedder(self, name: str | None) -> Embedder:
        """Return the model of dense vectors with this name; the default without a name.

        Raises:
            Refusal: if it is not served.
        """
        return _named(self.embedders, name, "--model")

    def scorer(self, name: str | None) -> Scorer:
        """Return the cross-encoder with this name; the default without a name.

        Raises:
            Refusal: if it is not served.
        """
        return _named(self.scorers, name, "--reranker")


def _named(served: Sequence[M], name: str | None, option: str) -> M:
    if name is None and served:
        return served[0]
    for model in served:
        if name is not None and model.name.lower() == name.lower():
            return model
    names = ", ".join(model.name for model in served)
    there = f"it has {names}" if names else "it has none"
    asked = "no model was named" if name is None else f"model {name!r:.200} is not served"
    raise Refusal(
        404,
        f"{asked}: start the service with {option} to serve a model of this kind; {there}",
        "model_not_found",
        "model",
    )
