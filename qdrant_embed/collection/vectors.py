"""The vectors of a collection, each with the encoder that fills and searches them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from qdrant_client import models

from qdrant_embed.collection.encoders import Encoder, ModelTerms, as_numbers, vector_list
from qdrant_embed.collection.options import CollectionOptions, sparse_vector_params
from qdrant_embed.collection.stamp import (
    Stamp,
    describe_late,
    describe_sparse,
    late_stamp_of,
    sparse_stamp_of,
    stamp_of,
)
from qdrant_embed.collection.stored import StoredCollection
from qdrant_embed.encoder.interfaces import (
    LateEncoder,
    SparseEncoder,
    SparseVector,
    Vector,
)
from qdrant_embed.engines.points import Points
from qdrant_embed.errors import ModelError

logger = logging.getLogger(__name__)

_MOST_NUMBERS = 1 << 20  # that the vectors of a point's tokens have together stay below it


@dataclass(frozen=True)
class DenseVectors:
    """The dense vectors of a collection.

    Attributes:
        encoder: encodes documents and queries.
        vector_name: name of the vector; ``""`` for the unnamed one.
        search_params: options of a search that has none: of quantised vectors, to rescore.
    """

    encoder: Encoder
    vector_name: str
    search_params: models.SearchParams | None = None


@dataclass(frozen=True)
class SparseVectors:
    """The sparse vectors of a collection.

    Attributes:
        encoder: encodes documents and queries.
        vector_name: name of the vector.
        counts: for each call of `documents`, how many texts have letters and yet no term.
    """

    encoder: SparseEncoder
    vector_name: str
    counts: list[int] = field(default_factory=list, compare=False, repr=False)

    def documents(self, texts: Sequence[str]) -> list[models.SparseVector]:
        """Encode documents and return their sparse vectors, some of which can be empty.

        Raises:
            ModelError: if the encoder returned something else than one vector per text.
        """
        return self.counted(texts, self.encoder.passage_embed(texts))

    def counted(self, texts: Sequence[str], returned: Iterable[Any]) -> list[models.SparseVector]:
        """Check the vectors that the encoder returned for documents, and count empty ones.

        Raises:
            ModelError: if the encoder returned something else than one vector per text.
        """
        vectors = self.checked(returned, len(texts))
        self.counts.append(
            sum(
                not vector.indices and any(map(str.isalpha, text))
                for vector, text in zip(vectors, texts, strict=True)
            )
        )
        return vectors

    def counting(self) -> SparseVectors:
        """Return the same vectors with new counts."""
        return replace(self, counts=[])

    def warn_of_no_terms(self, collection_name: str) -> None:
        """Log how many of the encoded documents have no term, if any."""
        if count := sum(self.counts):
            logger.warning(
                "%s finds no term in %d of the texts added to %r, although they have letters, so "
                "no query finds these texts by their words",
                self.encoder.model_name,
                count,
                collection_name,
            )

    def queries(self, texts: Sequence[str]) -> list[models.SparseVector]:
        """Encode queries and return their sparse vectors, some of which can be empty.

        Raises:
            ModelError: if the encoder returned something else than one vector per text.
        """
        return self.checked(self.encoder.query_embed(texts), len(texts))

    def checked(self, returned: Iterable[Any], count: int) -> list[models.SparseVector]:
        """Check the vectors that the encoder returned for this number of texts.

        Raises:
            ModelError: if the encoder returned something else than one vector per text.
        """
        name = self.encoder.model_name
        vectors = vector_list(returned, name)
        if len(vectors) != count:
            raise ModelError(
                f"sparse encoder {name} returned {len(vectors)} vectors for {count} texts"
            )
        return [_checked_sparse(name, vector) for vector in vectors]


@dataclass(frozen=True)
class LateVectors:
    """The vectors of tokens in a collection.

    Attributes:
        encoder: encodes documents and queries.
        vector_name: name of the vectors.
        search_params: options of a search that has none: of quantised vectors, to rescore.
    """

    encoder: LateEncoder
    vector_name: str
    search_params: models.SearchParams | None = None

    def documents(self, texts: Sequence[str]) -> list[Vector]:
        """Encode documents and return the vectors of each, float32 [tokens, dimension].

        Raises:
            ModelError: if the encoder returned something else.
        """
        found = self._checked(self.encoder.passage_embed(texts), len(texts))
        most = (_MOST_NUMBERS - 1) // self.encoder.dimension
        if longer := sum(len(rows) > most for rows in found):
            logger.warning(
                "%s returned more than the %d vectors that Qdrant stores for a text, for %d of "
                "them: those of the last tokens are left out",
                self.encoder.model_name,
                most,
                longer,
            )
        return [rows[:most] for rows in found]

    def queries(self, texts: Sequence[str]) -> list[list[list[float]]]:
        """Encode queries and return the vectors of each.

        Raises:
            ModelError: if the encoder returned something else.
        """
        return [
            rows.tolist() for rows in self._checked(self.encoder.query_embed(texts), len(texts))
        ]

    def _checked(self, returned: Iterable[Any], count: int) -> list[Vector]:
        name, dimension = self.encoder.model_name, self.encoder.dimension
        vectors = vector_list(returned, name)
        if len(vectors) != count:
            raise ModelError(
                f"late-interaction encoder {name} returned {len(vectors)} lists of vectors for "
                f"{count} texts"
            )
        return [_checked_tokens(name, rows, dimension) for rows in vectors]


@dataclass(frozen=True)
class CollectionVectors:
    """All vectors of a collection that this client fills and searches.

    Attributes:
        dense: the dense vectors.
        sparse: the sparse vectors, if there are any.
        chunked: whether a document is stored as one point per chunk.
        late: the vectors of tokens, if there are any.
    """

    dense: DenseVectors
    sparse: SparseVectors | None = None
    chunked: bool = False
    late: LateVectors | None = None

    @property
    def shown_names(self) -> list[str]:
        """Names of the vectors that hits can have; ``""`` for the unnamed one."""
        sparse = [] if self.sparse is None else [self.sparse.vector_name]
        return [self.dense.vector_name, *sparse]

    @property
    def names(self) -> list[str]:
        """Names of all the vectors; ``""`` for the unnamed one."""
        late = [] if self.late is None else [self.late.vector_name]
        return [*self.shown_names, *late]

    def points(
        self,
        ids: Sequence[str | int],
        payloads: Sequence[Mapping[str, Any]],
        texts: Sequence[str],
        rows: Vector | None = None,
    ) -> Points:
        """Encode documents and return their points.

        Args:
            ids: id of each point.
            payloads: payload of each point.
            texts: text of each point.
            rows: dense vectors of the texts, if they are encoded already.

        Raises:
            ModelError: if an encoder returned something else than one vector per text.
        """
        sparse = self.sparse
        terms: list[models.SparseVector] | None = None
        if rows is None:
            if sparse is not None and (both := self._both(texts, query=False)) is not None:
                rows, terms = both[0], sparse.counted(texts, both[1])
            else:
                rows = self.dense.encoder.documents(texts)
        if not len(ids) == len(payloads) == len(texts) == len(rows):
            raise ModelError(f"{len(rows)} vectors for {len(texts)} texts")
        if sparse is not None and terms is None:
            terms = sparse.documents(texts)
        return Points(
            ids=ids,
            payloads=payloads,
            dense=rows,
            dense_name=self.dense.vector_name,
            sparse=terms,
            sparse_name="" if sparse is None else sparse.vector_name,
            late=None if self.late is None else self.late.documents(texts),
            late_name="" if self.late is None else self.late.vector_name,
        )

    def queries(self, texts: Sequence[str]) -> tuple[Vector, list[models.SparseVector]]:
        """Encode queries for both vectors; no sparse vectors without a sparse encoder.

        Raises:
            ModelError: if an encoder returned something else than one vector per text.
        """
        sparse = self.sparse
        if sparse is None:
            return self.dense.encoder.queries(texts), []
        if (both := self._both(texts, query=True)) is not None:
            return both[0], sparse.checked(both[1], len(texts))
        return self.dense.encoder.queries(texts), sparse.queries(texts)

    def _both(
        self, texts: Sequence[str], *, query: bool
    ) -> tuple[Vector, list[SparseVector]] | None:
        """Encode texts for both vectors in one pass of a network, if one model computes both."""
        encoder = None if self.sparse is None else self.sparse.encoder
        if not isinstance(encoder, ModelTerms):
            return None
        return encoder.both(self.dense.encoder, texts, query=query)

    def searched_as(self, collection: StoredCollection) -> CollectionVectors:
        """Return the same vectors, to be searched as suits the way a collection stores them."""
        dense, late = self.dense, self.late
        dense = replace(dense, search_params=collection.search_params(dense.vector_name))
        if late is not None:
            late = replace(late, search_params=collection.search_params(late.vector_name))
        return replace(self, dense=dense, late=late)

    def counting(self, encoder: Encoder) -> CollectionVectors:
        """Return the same vectors with another dense encoder, and new counts."""
        sparse = None if self.sparse is None else self.sparse.counting()
        return replace(self, dense=replace(self.dense, encoder=encoder), sparse=sparse)

    def warn_of_no_terms(self, collection_name: str) -> None:
        """Log how many of the encoded documents have no term, if any."""
        if self.sparse is not None:
            self.sparse.warn_of_no_terms(collection_name)

    def stamp(self) -> Stamp:
        """Return the stamp of a collection that these encoders write."""
        sparse = None
        if self.sparse is not None:
            sparse = sparse_stamp_of(describe_sparse(self.sparse.encoder), self.sparse.vector_name)
        late = None
        if self.late is not None:
            late = late_stamp_of(describe_late(self.late.encoder), self.late.vector_name)
        dense = self.dense.encoder.describe()
        if self.chunked:  # regardless of what a custom encoder's description says
            dense = replace(dense, overflow="chunk")
        return stamp_of(dense, self.dense.vector_name, sparse, late)

    def creation(self, options: CollectionOptions) -> dict[str, Any]:
        """Return the arguments of ``create_collection`` except the name."""
        sparse, late = self.sparse, self.late
        vectors = options.creation(
            self.dense.encoder.describe(),
            self.dense.vector_name,
            describe_sparse(sparse.encoder) if sparse is not None else None,
            sparse.vector_name if sparse is not None else "",
            describe_late(late.encoder) if late is not None else None,
            late.vector_name if late is not None else "",
        )
        return vectors | {"metadata": self.stamp().metadata()}

    def missing_sparse(
        self, collection: StoredCollection
    ) -> Mapping[str, models.SparseVectorNameConfig]:
        """Return the sparse vectors that the collection still lacks, by name."""
        if self.sparse is None or self.sparse.vector_name in collection.sparse_vectors:
            return {}
        params = sparse_vector_params(describe_sparse(self.sparse.encoder))
        config = models.SparseVectorConfig(modifier=params.modifier)
        return {self.sparse.vector_name: models.SparseVectorNameConfig(sparse=config)}

    def missing_stamp(self, collection: StoredCollection) -> Stamp | None:
        """Return the stamp to write, if one is missing.

        An empty collection without a stamp needs all of it; a stamped one that gets sparse
        vectors, or the vectors of tokens, needs their part.
        """
        stamp = collection.stamp
        if stamp is None:
            return self.stamp() if collection.is_empty else None
        ours = self.stamp()
        whole = replace(stamp, sparse=stamp.sparse or ours.sparse, late=stamp.late or ours.late)
        return None if whole == stamp else whole


def _checked_tokens(name: str, returned: Any, dimension: int) -> Vector:
    rows = as_numbers(returned, name)
    if rows.ndim != 2 or not len(rows) or rows.shape[1] != dimension:
        raise ModelError(
            f"late-interaction encoder {name} returned vectors of shape {rows.shape} for a text; "
            f"return [tokens, {dimension}], with one token at least"
        )
    return rows


def _checked_sparse(name: str, vector: Any) -> models.SparseVector:
    try:
        indices, values = np.asarray(vector.indices), np.asarray(vector.values, np.float32)
    except (AttributeError, ValueError, TypeError) as error:
        raise ModelError(
            f"sparse encoder {name} returned a {type(vector).__name__}, whose indices and values "
            f"are not lists of numbers: {error}"
        ) from error
    if indices.shape != values.shape or indices.ndim != 1:
        raise ModelError(
            f"sparse encoder {name} returned indices of shape {indices.shape} and values of shape "
            f"{values.shape}; return one index per value"
        )
    if indices.size and not (
        np.issubdtype(indices.dtype, np.integer) and indices.min() >= 0 and indices.max() < 2**32
    ):
        raise ModelError(
            f"sparse encoder {name} returned indices that are not whole numbers from 0 to 2**32-1"
        )
    if len(np.unique(indices)) != indices.size:
        raise ModelError(f"sparse encoder {name} returned an index twice")
    if not np.isfinite(values).all():
        raise ModelError(f"sparse encoder {name} returned a value that is NaN or infinite")
    return models.SparseVector(indices=indices.tolist(), values=values.tolist())
