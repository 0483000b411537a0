"""The vectors of a collection, each with the encoder that fills and searches it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
from qdrant_client import models

from qdrant_embed.collection.options import CollectionOptions, sparse_vector_params
from qdrant_embed.collection.stamp import Stamp, sparse_stamp_of, stamp_of
from qdrant_embed.collection.stored import StoredCollection
from qdrant_embed.encoder.interfaces import (
    Chunk,
    DenseEncoder,
    SparseEncoder,
    Vector,
    describe,
)
from qdrant_embed.encoder.run.cores import usable_cores
from qdrant_embed.encoder.run.job import EncodeJob
from qdrant_embed.encoder.text import TextEmbedding, variant
from qdrant_embed.errors import InputError, ModelError, check_whole
from qdrant_embed.ingest.chunks import chunk_points
from qdrant_embed.ingest.documents import PendingPoint
from qdrant_embed.ingest.points import to_points

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DenseField:
    """A dense vector's name, ``""`` for the unnamed one, and its encoder."""

    encoder: DenseEncoder
    vector_name: str

    def documents(self, texts: Sequence[str]) -> Vector:
        """Vectors of documents, float32 [texts, dimension].

        Raises:
            ModelError: the encoder gave something else.
        """
        return self._checked(self.encoder.passage_embed(texts), len(texts))

    def chunks(self, texts: Sequence[str]) -> list[list[Chunk]]:
        """The chunks of documents; a user's own encoder splits none.

        Raises:
            ModelError: the encoder gave something else.
        """
        if isinstance(self.encoder, TextEmbedding):
            return list(self.encoder.chunks(texts))
        rows = self.documents(texts)
        return [[Chunk(0, len(text), row)] for text, row in zip(texts, rows, strict=True)]

    def queries(self, texts: Sequence[str]) -> Vector:
        """The same of queries."""
        return self._checked(self.encoder.query_embed(texts), len(texts))

    def _checked(self, given: Iterable[Vector], count: int) -> Vector:
        name, expected = self.encoder.model_name, (count, self.encoder.dimension)
        vectors = _listed(given, name)
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


@dataclass(frozen=True)
class SparseField:
    """A sparse vector's name and its encoder."""

    encoder: SparseEncoder
    vector_name: str

    def documents(self, texts: Sequence[str]) -> list[models.SparseVector]:
        """Sparse vectors of documents; one may be empty.

        Raises:
            ModelError: the encoder gave something else.
        """
        return self._checked(self.encoder.passage_embed(texts), len(texts))

    def queries(self, texts: Sequence[str]) -> list[models.SparseVector]:
        """The same of queries."""
        return self._checked(self.encoder.query_embed(texts), len(texts))

    def _checked(self, given: Iterable[Any], count: int) -> list[models.SparseVector]:
        name = self.encoder.model_name
        vectors = _listed(given, name)
        if len(vectors) != count:
            raise ModelError(f"sparse encoder {name} gave {len(vectors)} vectors for {count} texts")
        return [_checked_sparse(name, vector) for vector in vectors]


@dataclass(frozen=True)
class Target:
    """All vectors of a collection that this client fills and searches.

    Attributes:
        dense: the dense vector.
        sparse: the sparse vector, if there is one.
        chunked: whether each document is one point or more.
        job: what the dense encoder has read, where that is counted.
    """

    dense: DenseField
    sparse: SparseField | None = None
    chunked: bool = False
    job: EncodeJob | None = None

    def to_points(
        self, documents: Sequence[PendingPoint], document_key: str
    ) -> list[models.PointStruct]:
        """Points with the vectors of the documents' texts.

        Raises:
            ModelError: an encoder gave something else than a vector for each.
            InputError: a text is too long for an encoder that cuts none.
        """
        if not documents:
            return []
        texts = [document.text for document in documents]
        if self.chunked:
            chunks = self.dense.chunks(texts)
            parts = map(chunk_points, documents, chunks)
            return self.points_of(
                list(chain.from_iterable(parts)),
                (chunk.vector for chunk in chain.from_iterable(chunks)),
                document_key,
            )
        for document in documents:
            self.check_lengths([document.text], document.position)
        return self.points_of(documents, self.dense.documents(texts), document_key)

    def points_of(
        self, documents: Sequence[PendingPoint], rows: Iterable[Vector], document_key: str
    ) -> list[models.PointStruct]:
        """A point for each document, whose dense vectors are known.

        Raises:
            ModelError: the sparse encoder gave something else than a vector for each.
        """
        texts = [document.text for document in documents]
        # row by row, for all at once would keep every other thread waiting
        vectors: list[dict[str, Any]] = [{self.dense.vector_name: row.tolist()} for row in rows]
        if self.sparse is not None:
            for named, vector in zip(vectors, self.sparse.documents(texts), strict=True):
                if vector.indices:
                    named[self.sparse.vector_name] = vector
        return to_points(documents, vectors, document_key)

    def check_lengths(self, texts: Iterable[str], first: int = 0) -> None:
        """Refuses texts that the dense encoder will not cut; `first` is the first one's position.

        Raises:
            InputError: one is too long.
        """
        if isinstance(self.dense.encoder, TextEmbedding):
            self.dense.encoder.check_lengths(texts, first)

    def with_threads(self, threads: int | None) -> Target:
        """The same target, encoding with so many threads; 0 for every usable core.

        Raises:
            InputError: the encoder is a user's own object, or `threads` is below 0.
        """
        if threads is None:
            return self
        encoder = self.dense.encoder
        if not isinstance(encoder, TextEmbedding):
            raise InputError("parallel= is for models by name; an encoder object has its own ways")
        check_whole("parallel", threads, 0)
        encoder = variant(encoder, threads=threads or usable_cores())
        return replace(self, dense=replace(self.dense, encoder=encoder))

    def call_off(self) -> None:
        """Has what is being encoded with this very target end soon, for nobody waits for it.

        A sparse encoder, or one that is a user's object, goes on to its end.
        """
        if self.job is not None:
            self.job.cancel_token.cancel()

    def counting(self) -> Target:
        """The same target with a `job` of its own, if its dense encoder is no user's object."""
        encoder = self.dense.encoder
        if not isinstance(encoder, TextEmbedding):
            return self
        job = EncodeJob()
        dense = replace(self.dense, encoder=variant(encoder, job=job))
        return replace(self, dense=dense, job=job)

    def warn_of_truncation(self, collection_name: str) -> None:
        """Logs how many texts were cut, if any of those that were counted."""
        encoder, job = self.dense.encoder, self.job
        if isinstance(encoder, TextEmbedding) and job is not None and job.stats.truncated:
            logger.warning(
                "texts longer than %d tokens are cut there (%s), %d of those added to %r: what "
                "follows is not searchable; overflow='chunk' and 'mean' read all of a text",
                encoder.spec.max_tokens,
                encoder.model_name,
                job.stats.truncated,
                collection_name,
            )

    def stamp(self) -> Stamp:
        """The stamp of a collection that these encoders write."""
        sparse = None
        if self.sparse is not None:
            sparse = sparse_stamp_of(self.sparse.encoder.describe(), self.sparse.vector_name)
        dense = describe(self.dense.encoder)
        if self.chunked:  # whatever an encoder of a user's own says
            dense = replace(dense, overflow="chunk")
        return stamp_of(dense, self.dense.vector_name, sparse)

    def creation(self, options: CollectionOptions) -> dict[str, Any]:
        """The arguments of ``create_collection`` besides the name."""
        dense, sparse = describe(self.dense.encoder), self.sparse
        vectors = (
            options.creation(dense, self.dense.vector_name)
            if sparse is None
            else options.creation(
                dense, self.dense.vector_name, sparse.encoder.describe(), sparse.vector_name
            )
        )
        return vectors | {"metadata": self.stamp().metadata()}

    def missing_sparse(
        self, collection: StoredCollection
    ) -> Mapping[str, models.SparseVectorNameConfig]:
        """Sparse vectors that the collection needs yet, by name."""
        if self.sparse is None or self.sparse.vector_name in collection.sparse_vectors:
            return {}
        params = sparse_vector_params(self.sparse.encoder.describe())
        config = models.SparseVectorConfig(modifier=params.modifier)
        return {self.sparse.vector_name: models.SparseVectorNameConfig(sparse=config)}

    def missing_stamp(self, collection: StoredCollection) -> Stamp | None:
        """The stamp to write: a whole one where the collection is empty and has none, and one with
        the sparse part where it has one without.
        """
        stamp = collection.stamp
        if stamp is None:
            return self.stamp() if collection.is_empty else None
        if self.sparse is None or stamp.sparse is not None:
            return None
        return replace(stamp, sparse=self.stamp().sparse)


def _listed(vectors: Iterable[Any], name: str) -> list[Any]:
    if not isinstance(vectors, Iterable):
        raise ModelError(f"encoder {name} gave a {type(vectors).__name__}, not a list of vectors")
    return list(vectors)


def _checked_sparse(name: str, vector: Any) -> models.SparseVector:
    try:
        indices, values = np.asarray(vector.indices), np.asarray(vector.values, np.float32)
    except (AttributeError, ValueError, TypeError) as error:
        raise ModelError(
            f"sparse encoder {name} gave a {type(vector).__name__} without number lists indices "
            f"and values: {error}"
        ) from error
    if indices.shape != values.shape or indices.ndim != 1:
        raise ModelError(
            f"sparse encoder {name} gave indices of shape {indices.shape} and values of shape "
            f"{values.shape}: one index is needed for each value"
        )
    if indices.size and not (
        np.issubdtype(indices.dtype, np.integer) and indices.min() >= 0 and indices.max() < 2**32
    ):
        raise ModelError(
            f"sparse encoder {name} gave indices that are no whole numbers from 0 to 2**32-1"
        )
    if len(np.unique(indices)) != indices.size:
        raise ModelError(f"sparse encoder {name} gave an index twice")
    if not np.isfinite(values).all():
        raise ModelError(f"sparse encoder {name} gave a value that is NaN or infinite")
    return models.SparseVector(indices=indices.tolist(), values=values.tolist())
