"""Dense encoders behind one interface: models by name, and custom encoders.

The rest of the package uses `Encoder` only. What a custom encoder cannot do, `CustomEncoder`
replaces or refuses.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.collection.stamp import describe
from qdrant_embed.encoder.interfaces import (
    Chunk,
    DenseEncoder,
    Distance,
    EncoderDescription,
    SparseDescription,
    SparseVector,
    Vector,
    check_encoder,
)
from qdrant_embed.encoder.long_texts.overflow import OverflowOptions
from qdrant_embed.encoder.run.cores import usable_cores
from qdrant_embed.encoder.run.job import EncodeJob, EncodeStats
from qdrant_embed.encoder.text import (
    TextEmbedding,
    describe_terms,
    is_also,
    variant,
    vectors_and_terms,
    weighs_terms_of,
)
from qdrant_embed.errors import InputError, ModelError, check_whole

logger = logging.getLogger(__name__)


class Encoder(Protocol):
    """Everything a collection needs of its dense encoder; encoders are compared by identity.

    Attributes:
        stats: counts of what it has encoded; ``None`` if it does not count.
    """

    @property
    def name(self) -> str:
        """The model's name."""

    @property
    def dimension(self) -> int:
        """Number of dimensions of a vector."""

    @property
    def distance(self) -> Distance:
        """Distance by which Qdrant compares its vectors; known without loading a model."""

    @property
    def splits(self) -> bool:
        """Whether new collections store each document as one point per chunk."""

    @property
    def stats(self) -> EncodeStats | None:
        """Counts of what it has encoded; ``None`` if it does not count."""

    def describe(self) -> EncoderDescription:
        """Return everything that its vectors depend on; this can load the model."""

    def documents(self, texts: Sequence[str]) -> Vector:
        """Encode documents and return their vectors, float32 [texts, dimension].

        Raises:
            ModelError: if the encoder returned something else.
        """

    def chunks(self, texts: Sequence[str]) -> list[list[Chunk]]:
        """Split documents and return their encoded chunks, at least one per document.

        Raises:
            ModelError: if the encoder returned something else.
        """

    def queries(self, texts: Sequence[str]) -> Vector:
        """Encode queries and return their vectors, float32 [texts, dimension].

        Raises:
            ModelError: if the encoder returned something else.
        """

    def check_lengths(self, texts: Iterable[str], first: int = 0) -> None:
        """Raise `InputError` if a document is too long, and the encoder has ``overflow="error"``.

        Args:
            texts: the documents.
            first: position of the first document in the input, for the message.

        Raises:
            InputError: if a document is too long.
        """

    def with_threads(self, threads: int | None) -> Encoder:
        """Return the encoder using `threads` threads; 0 for all cores, ``None`` for no change.

        Raises:
            InputError: if the encoder has no such option, or `threads` is negative.
        """

    def counting(self) -> Encoder:
        """Return the encoder with new counts, if it can count."""

    def cancel(self) -> None:
        """Cancel what this object is encoding, if it can be cancelled."""

    def without_prefixes(self) -> Encoder | None:
        """Return the encoder without prefixes; ``None`` if documents have no prefix anyway."""

    def with_overflow(self, overflow: OverflowOptions) -> Encoder:
        """Return the encoder with another way to handle long texts, if it has this option."""

    def warn_of_truncation(self, collection_name: str) -> None:
        """Log how many of the counted texts were truncated or have no known word, if any."""


@dataclass(frozen=True, eq=False)
class ModelEncoder:
    """An `Encoder` for a model by name."""

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
        # a model whose documents have no prefix by design still needs its query prefix
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
                "texts longer than %d tokens, the limit of %s, were truncated, %d of those added "
                "to %r; what follows the limit is not searchable. Use overflow='chunk' or 'mean' "
                "to encode all of a text",
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
    """An `Encoder` for a custom encoder object."""

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
        """See `Encoder.chunks`; each document is one chunk."""
        rows = self.documents(texts)
        return [[Chunk(0, len(text), row)] for text, row in zip(texts, rows, strict=True)]

    def queries(self, texts: Sequence[str]) -> Vector:
        """See `Encoder.queries`."""
        return checked_vectors(self, self.encoder.query_embed(texts), len(texts))

    def check_lengths(self, texts: Iterable[str], first: int = 0) -> None:
        """See `Encoder.check_lengths`; a custom encoder handles long texts itself."""

    def with_threads(self, threads: int | None) -> CustomEncoder:
        """See `Encoder.with_threads`."""
        if threads is None:
            return self
        raise InputError("parallel is for models by name; omit it with an encoder object")

    def counting(self) -> CustomEncoder:
        """See `Encoder.counting`; a custom encoder does not count."""
        return self

    def cancel(self) -> None:
        """See `Encoder.cancel`; a custom encoder cannot be cancelled."""

    def without_prefixes(self) -> None:
        """See `Encoder.without_prefixes`; a custom encoder handles prefixes itself."""

    def with_overflow(self, overflow: OverflowOptions) -> CustomEncoder:
        """See `Encoder.with_overflow`; a custom encoder handles long texts itself."""
        del overflow
        return self

    def warn_of_truncation(self, collection_name: str) -> None:
        """See `Encoder.warn_of_truncation`; a custom encoder does not count."""


@dataclass(frozen=True, eq=False)
class ModelTerms:
    """A `SparseEncoder`: the weights of terms that a dense model computes beside its vectors."""

    embedding: TextEmbedding

    @property
    def model_name(self) -> str:
        """See `SparseEncoder.model_name`."""
        return self.embedding.model_name

    def describe(self) -> SparseDescription:
        """See `SparseEncoder.describe`."""
        return describe_terms(self.embedding)

    def passage_embed(self, texts: Iterable[str]) -> Iterator[SparseVector]:
        """See `SparseEncoder.passage_embed`."""
        return (terms for _, terms in vectors_and_terms(self.embedding, [*texts], query=False))

    def query_embed(self, query: Iterable[str]) -> Iterator[SparseVector]:
        """See `SparseEncoder.query_embed`."""
        return (terms for _, terms in vectors_and_terms(self.embedding, [*query], query=True))

    def both(
        self, dense: Encoder, texts: Sequence[str], *, query: bool
    ) -> tuple[Vector, list[SparseVector]] | None:
        """Encode texts for both vectors in one pass, if `dense` runs the same model.

        Returns:
            The dense vectors, float32 [texts, dimension], and the sparse ones; ``None`` if `dense`
            is another encoder, or splits long texts.

        Raises:
            ModelError: if the encoder returned something else.
        """
        if not isinstance(dense, ModelEncoder):
            return None
        if not weighs_terms_of(self.embedding, dense.embedding):
            return None
        pairs = list(vectors_and_terms(dense.embedding, texts, query=query))
        rows = checked_vectors(dense, [row for row, _ in pairs], len(texts))
        return rows, [terms for _, terms in pairs]


def described_for(encoder: Encoder, stamp: EncoderDescription | None) -> EncoderDescription:
    """Return the description of `encoder`, with the stamp's digests if they are of the same model.

    A model that an earlier release ran from its own ONNX file, because it could not compile its
    weights, is the same model if its vectors are equal.

    Raises:
        OtherFormError: if they are not.
    """
    description = encoder.describe()
    if (
        stamp is None
        or stamp.weights_sha256 in (None, description.weights_sha256)
        or stamp.model.lower() != description.model.lower()
        or not isinstance(encoder, ModelEncoder)
        or not is_also(encoder.embedding, stamp.weights_sha256 or "", stamp.tokenizer_sha256)
    ):
        return description
    return replace(
        description,
        weights_sha256=stamp.weights_sha256,
        tokenizer_sha256=stamp.tokenizer_sha256,
    )


def adapt(candidate: object) -> Encoder:
    """Return an encoder with the interface that the package uses.

    Raises:
        InputError: if `candidate` lacks an attribute of `DenseEncoder`.
    """
    if isinstance(candidate, TextEmbedding):
        return ModelEncoder(candidate)
    return CustomEncoder(check_encoder(candidate))


def checked_vectors(encoder: Encoder, returned: Iterable[Vector], count: int) -> Vector:
    """Return the vectors that an encoder returned for `count` texts, float32 [count, dimension].

    Raises:
        ModelError: if the encoder returned something else.
    """
    name, expected = encoder.name, (count, encoder.dimension)
    vectors = vector_list(returned, name)
    if len(vectors) != count:
        raise ModelError(f"encoder {name} returned {len(vectors)} vectors for {count} texts")
    matrix = as_numbers(vectors, name)
    if count and matrix.shape != expected:
        raise ModelError(f"encoder {name} returned vectors of shape {matrix.shape}, not {expected}")
    return matrix.reshape(expected)


def as_numbers(vectors: Any, name: str) -> NDArray[np.float32]:
    """Return the vectors that encoder `name` returned as an array.

    Raises:
        ModelError: if they are not all finite numbers, or do not have one length.
    """
    try:
        array = np.asarray(vectors, np.float32)
    except (ValueError, TypeError) as error:
        raise ModelError(
            f"encoder {name} returned vectors that are not numbers: {error}"
        ) from error
    if not np.isfinite(array).all():
        raise ModelError(f"encoder {name} returned a vector that contains NaN or infinity")
    return array


def vector_list(returned: Iterable[Any], name: str) -> list[Any]:
    """Return the vectors that encoder `name` returned as a list.

    Raises:
        ModelError: if they cannot be iterated.
    """
    if not isinstance(returned, Iterable):
        raise ModelError(
            f"encoder {name} returned a {type(returned).__name__}, not a list of vectors"
        )
    return list(returned)
