"""Dense encoders behind one interface: models by name, and objects of a user's own.

The rest of the package asks `Encoder` only. What a user's object cannot do, `CustomEncoder` does
in its place, or refuses in its name.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from qdrant_embed.encoder.interfaces import (
    Chunk,
    DenseEncoder,
    Distance,
    EncoderDescription,
    Vector,
    check_encoder,
    describe,
)
from qdrant_embed.encoder.long_texts.overflow import OverflowOptions
from qdrant_embed.encoder.run.cores import usable_cores
from qdrant_embed.encoder.run.job import EncodeJob, EncodeStats
from qdrant_embed.encoder.text import TextEmbedding, variant
from qdrant_embed.errors import InputError, ModelError, check_whole

logger = logging.getLogger(__name__)


class Encoder(Protocol):
    """What a collection needs of its dense encoder. Each is equal to itself alone.

    Attributes:
        stats: what it has read, where that is counted.
    """

    @property
    def name(self) -> str:
        """The model's name."""

    @property
    def dimension(self) -> int:
        """Numbers in one vector."""

    @property
    def distance(self) -> Distance:
        """How Qdrant compares its vectors; known without loading a model."""

    @property
    def splits(self) -> bool:
        """Whether collections that it begins store each document as one point or more."""

    @property
    def stats(self) -> EncodeStats | None:
        """What it has read, where that is counted."""

    def describe(self) -> EncoderDescription:
        """Return everything that its vectors depend on; may load the model."""

    def documents(self, texts: Sequence[str]) -> Vector:
        """Encode documents: float32 [texts, dimension].

        Raises:
            ModelError: it returned something else.
        """

    def chunks(self, texts: Sequence[str]) -> list[list[Chunk]]:
        """Split documents, and encode their chunks: a list for each document, never an empty one.

        Raises:
            ModelError: it returned something else.
        """

    def queries(self, texts: Sequence[str]) -> Vector:
        """Encode queries: float32 [texts, dimension].

        Raises:
            ModelError: it returned something else.
        """

    def check_lengths(self, texts: Iterable[str], first: int = 0) -> None:
        """Refuse documents that are too long, where none may be cut.

        Args:
            texts: the documents.
            first: position of the first of them, for the message.

        Raises:
            InputError: one is too long.
        """

    def with_threads(self, threads: int | None) -> Encoder:
        """Return the same encoder using `threads` threads; 0 for every core, ``None`` as it is.

        Raises:
            InputError: it cannot be told, or `threads` is negative.
        """

    def counting(self) -> Encoder:
        """Return the same encoder with counts of its own, where it can count."""

    def cancel(self) -> None:
        """Stop what this very encoder is encoding, where it can stop; its result is not wanted."""

    def without_prefixes(self) -> Encoder | None:
        """Return the same encoder without prefixes; ``None`` where documents have none anyway."""

    def with_overflow(self, overflow: OverflowOptions) -> Encoder:
        """Return the same encoder treating long texts in another way, where that is ours."""

    def warn_of_truncation(self, collection_name: str) -> None:
        """Log how many of the counted texts were cut or have no known word, if any."""


@dataclass(frozen=True, eq=False)
class ModelEncoder:
    """A model by name; see `Encoder`."""

    embedding: TextEmbedding
    job: EncodeJob | None = None

    @property
    def stats(self) -> EncodeStats | None:
        """See `Encoder.stats`."""
        return None if self.job is None else self.job.stats

    @property
    def name(self) -> str:
        """See `Encoder.name`."""
        return self.embedding.model_name

    @property
    def dimension(self) -> int:
        """See `Encoder.dimension`."""
        return self.embedding.dimension

    @property
    def distance(self) -> Distance:
        """See `Encoder.distance`."""
        return "Cosine"

    @property
    def splits(self) -> bool:
        """See `Encoder.splits`."""
        return self.embedding.overflow == "chunk"

    def describe(self) -> EncoderDescription:
        """See `Encoder.describe`."""
        return self.embedding.describe()

    def documents(self, texts: Sequence[str]) -> Vector:
        """See `Encoder.documents`."""
        return checked_vectors(self, self.embedding.passage_embed(texts), len(texts))

    def chunks(self, texts: Sequence[str]) -> list[list[Chunk]]:
        """See `Encoder.chunks`."""
        return list(self.embedding.chunks(texts))

    def queries(self, texts: Sequence[str]) -> Vector:
        """See `Encoder.queries`."""
        return checked_vectors(self, self.embedding.query_embed(texts), len(texts))

    def check_lengths(self, texts: Iterable[str], first: int = 0) -> None:
        """See `Encoder.check_lengths`."""
        self.embedding.check_lengths(texts, first)

    def with_threads(self, threads: int | None) -> ModelEncoder:
        """See `Encoder.with_threads`."""
        if threads is None:
            return self
        check_whole("parallel", threads, 0)
        return replace(self, embedding=variant(self.embedding, threads=threads or usable_cores()))

    def counting(self) -> ModelEncoder:
        """See `Encoder.counting`."""
        job = EncodeJob()
        return replace(self, embedding=variant(self.embedding, job=job), job=job)

    def cancel(self) -> None:
        """See `Encoder.cancel`."""
        if self.job is not None:
            self.job.cancel_token.cancel()

    def without_prefixes(self) -> ModelEncoder | None:
        """See `Encoder.without_prefixes`."""
        # where a model's documents have no prefix by design, its query prefix is right for them
        if not self.embedding.spec.document_prefix:
            return None
        bare = variant(self.embedding, query_prefix="", document_prefix="")
        return replace(self, embedding=bare)

    def with_overflow(self, overflow: OverflowOptions) -> ModelEncoder:
        """See `Encoder.with_overflow`."""
        return replace(self, embedding=variant(self.embedding, overflow=overflow))

    def warn_of_truncation(self, collection_name: str) -> None:
        """See `Encoder.warn_of_truncation`."""
        if self.stats is not None and self.stats.truncated:
            logger.warning(
                "texts longer than %d tokens are cut there (%s), %d of those added to %r: what "
                "follows is not searchable; overflow='chunk' and 'mean' read all of a text",
                self.embedding.spec.max_tokens,
                self.embedding.model_name,
                self.stats.truncated,
                collection_name,
            )
        if self.stats is not None and self.stats.unknown:
            logger.warning(
                "the tokenizer of %s knows no word of %d of the texts added to %r, such as words "
                "of more than 100 characters or a script that it lacks: their vectors say nothing "
                "of them, so they are found by chance; a multilingual model knows more scripts",
                self.embedding.model_name,
                self.stats.unknown,
                collection_name,
            )


@dataclass(frozen=True, eq=False)
class CustomEncoder:
    """An encoder object of a user's own; see `Encoder`."""

    encoder: DenseEncoder
    stats: None = None

    @property
    def name(self) -> str:
        """See `Encoder.name`."""
        return self.encoder.model_name

    @property
    def dimension(self) -> int:
        """See `Encoder.dimension`."""
        return self.encoder.dimension

    @property
    def distance(self) -> Distance:
        """See `Encoder.distance`."""
        return self.describe().distance

    @property
    def splits(self) -> bool:
        """See `Encoder.splits`."""
        return False

    def describe(self) -> EncoderDescription:
        """See `Encoder.describe`."""
        return describe(self.encoder)

    def documents(self, texts: Sequence[str]) -> Vector:
        """See `Encoder.documents`."""
        return checked_vectors(self, self.encoder.passage_embed(texts), len(texts))

    def chunks(self, texts: Sequence[str]) -> list[list[Chunk]]:
        """See `Encoder.chunks`: each document is one chunk."""
        rows = self.documents(texts)
        return [[Chunk(0, len(text), row)] for text, row in zip(texts, rows, strict=True)]

    def queries(self, texts: Sequence[str]) -> Vector:
        """See `Encoder.queries`."""
        return checked_vectors(self, self.encoder.query_embed(texts), len(texts))

    def check_lengths(self, texts: Iterable[str], first: int = 0) -> None:
        """See `Encoder.check_lengths`: whether it cuts texts is its own business."""

    def with_threads(self, threads: int | None) -> CustomEncoder:
        """See `Encoder.with_threads`."""
        if threads is None:
            return self
        raise InputError("parallel= is for models by name; an encoder object has its own ways")

    def counting(self) -> CustomEncoder:
        """See `Encoder.counting`: it does not tell."""
        return self

    def cancel(self) -> None:
        """See `Encoder.cancel`: it goes on to its end."""

    def without_prefixes(self) -> None:
        """See `Encoder.without_prefixes`: it has its own ways."""

    def with_overflow(self, overflow: OverflowOptions) -> CustomEncoder:
        """See `Encoder.with_overflow`: it has its own ways."""
        del overflow
        return self

    def warn_of_truncation(self, collection_name: str) -> None:
        """See `Encoder.warn_of_truncation`: it does not tell."""


def adapt(candidate: object) -> Encoder:
    """Return the encoder behind the package's own interface.

    Raises:
        InputError: it lacks a name of `DenseEncoder`.
    """
    if isinstance(candidate, TextEmbedding):
        return ModelEncoder(candidate)
    return CustomEncoder(check_encoder(candidate))


def checked_vectors(encoder: Encoder, given: Iterable[Vector], count: int) -> Vector:
    """Return what an encoder gave for `count` texts as float32 [count, dimension].

    Raises:
        ModelError: it gave something else.
    """
    name, expected = encoder.name, (count, encoder.dimension)
    vectors = listed(given, name)
    if len(vectors) != count:
        raise ModelError(f"encoder {name} gave {len(vectors)} vectors for {count} texts")
    try:
        matrix = np.asarray(vectors, np.float32)
    except (ValueError, TypeError) as error:
        raise ModelError(f"encoder {name} gave vectors that are no numbers: {error}") from error
    if count and matrix.shape != expected:
        raise ModelError(f"encoder {name} gave vectors of shape {matrix.shape}, not {expected}")
    if not np.isfinite(matrix).all():
        raise ModelError(f"encoder {name} gave a vector with NaN or infinity in it")
    return matrix.reshape(expected)


def listed(vectors: Iterable[Any], name: str) -> list[Any]:
    """Return `vectors` as a list.

    Raises:
        ModelError: encoder `name` gave something that cannot be iterated.
    """
    if not isinstance(vectors, Iterable):
        raise ModelError(f"encoder {name} gave a {type(vectors).__name__}, not a list of vectors")
    return list(vectors)
