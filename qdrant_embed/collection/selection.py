"""Selection of the encoders for a collection."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, field, replace
from typing import Any

from qdrant_embed.collection.encoders import Encoder, adapt
from qdrant_embed.collection.stored import (
    StoredCollection,
    check_collection,
    check_has_sparse,
    check_sparse_collection,
    sparse_field_name,
    vector_field_name,
)
from qdrant_embed.collection.vectors import CollectionVectors, DenseVectors, SparseVectors
from qdrant_embed.encoder.facts.catalog import BM25, CATALOG, DEFAULT_MODEL, SPARSE_MODELS
from qdrant_embed.encoder.interfaces import Overflow, SparseDescription, SparseEncoder
from qdrant_embed.encoder.sparse import SparseTextEmbedding
from qdrant_embed.encoder.text import TextEmbedding
from qdrant_embed.errors import CollectionMismatchError
from qdrant_embed.forks import ForkLock

logger = logging.getLogger(__name__)

_LIFETIME = 60.0  # seconds; other clients can move an alias or add sparse vectors to a collection


@dataclass(frozen=True)
class _Followed:
    """The facts of a collection's own model, by which it is loaded."""

    model: str
    max_tokens: int | None = None
    query_prefix: str | None = None
    document_prefix: str | None = None
    revision: str | None = None
    dimensions: int | None = None
    overflow: Overflow = "truncate"
    overlap: int = 0


@dataclass(frozen=True)
class _Recent:
    """A collection as it was read, its vectors, and until when they are believed."""

    stored: StoredCollection
    vectors: CollectionVectors
    expires: float


class RecentVectors:
    """A cache of collections' vectors by name or alias, which saves a request per query.

    An entry expires after a minute. Threads can share an object.
    """

    def __init__(self) -> None:
        self._entries: dict[str, _Recent] = {}

    def find(self, collection_name: str) -> CollectionVectors | None:
        """Return the vectors of a collection; ``None`` if it must be read from the server."""
        entry = self._entries.get(collection_name)
        return entry.vectors if entry is not None and time.monotonic() < entry.expires else None

    def last_read(self, collection_name: str) -> StoredCollection | None:
        """Return the collection as it was read last; ``None`` if it has not been read."""
        entry = self._entries.get(collection_name)
        return None if entry is None else entry.stored

    def remember(self, stored: StoredCollection, vectors: CollectionVectors) -> None:
        """Store a collection that was just read from the server, and its vectors."""
        self._entries[stored.name] = _Recent(stored, vectors, time.monotonic() + _LIFETIME)

    def forget(self, collection_name: str) -> None:
        """Remove an entry whose name now resolves to another collection."""
        self._entries.pop(collection_name, None)


@dataclass(frozen=True)
class _Chosen:
    """The choice made with `set_model` and `set_sparse_model`, and the vectors found with it."""

    dense: Encoder | None = None
    dense_name: str | None = None
    sparse: SparseEncoder | None = None
    sparse_name: str | None = None
    follows_sparse: bool = True
    recent: RecentVectors = field(default_factory=RecentVectors)


class EncoderSelection:
    """The encoders of one client: those that the user chose, and the collections' own.

    Threads can share an object. No model is loaded twice, and reading a model's name never waits
    for another model to load.

    Attributes:
        advised: collections and their fields of which was said that they lack an index.
    """

    def __init__(self) -> None:
        self._lock = ForkLock()
        self._chosen = _Chosen()
        self._following: dict[_Followed, Encoder] = {}
        self._following_sparse: dict[SparseDescription, SparseEncoder] = {}
        self._warned: set[str] = set()
        self.advised: set[tuple[str, str]] = set()
        self._whole: dict[str, float] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return the choice: what is chosen and loaded beyond it belongs to this process."""
        return {"chosen": replace(self._chosen, recent=RecentVectors())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]
        self._chosen = state["chosen"]

    @property
    def current(self) -> Encoder:
        """The chosen encoder, else the default model, which is not loaded yet."""
        return self._chosen.dense or self._follow(_Followed(DEFAULT_MODEL))

    @property
    def current_sparse(self) -> SparseEncoder | None:
        """The chosen sparse encoder, if any."""
        return self._chosen.sparse

    @property
    def recent(self) -> RecentVectors:
        """Vectors found recently with the current choice."""
        return self._chosen.recent

    def vector_name(self) -> str:
        """Return the dense vector's name in a new collection."""
        chosen = self._chosen.dense_name
        return vector_field_name(self.current.name) if chosen is None else chosen

    def sparse_name(self) -> str | None:
        """Return the sparse vector's name in a new collection; ``None`` without an encoder."""
        sparse, chosen = self._chosen.sparse, self._chosen.sparse_name
        if sparse is None:
            return None
        return sparse_field_name(sparse.model_name) if chosen is None else chosen

    def choose(self, encoder: Encoder, vector_name: str | None = None) -> None:
        """Choose the encoder for all collections."""
        with self._lock:
            self._chosen = replace(
                self._chosen, dense=encoder, dense_name=vector_name, recent=RecentVectors()
            )

    def choose_sparse(self, encoder: SparseEncoder | None, vector_name: str | None = None) -> None:
        """Choose the sparse encoder for all collections; ``None`` for no sparse vectors."""
        with self._lock:
            self._chosen = replace(
                self._chosen,
                sparse=encoder,
                sparse_name=vector_name,
                follows_sparse=False,
                recent=RecentVectors(),
            )

    def is_known_to_be_whole(self, collection_name: str) -> bool:
        """Return whether the collection was found to be no unfinished copy within the last minute.

        `find` of `recent` tells the same, because vectors are selected in whole collections only.
        """
        is_known = time.monotonic() < self._whole.get(collection_name, -math.inf)
        return is_known or self.recent.find(collection_name) is not None

    def check_is_whole(self, collection: StoredCollection) -> None:
        """Raise `CollectionMismatchError` if a collection is a copy that is not complete."""
        collection.check_is_whole()
        self._whole[collection.name] = time.monotonic() + _LIFETIME

    def for_query(self, collection: StoredCollection) -> CollectionVectors:
        """Select the vectors to search in a collection, and remember them.

        A stamped collection is searched with its own models unless others were chosen. In one that
        the predecessor wrote, documents stay without a prefix.

        Raises:
            CollectionMismatchError: if the chosen encoders do not fit, or none can be found.
            ModelError: if a model cannot be found, downloaded or read.
        """
        chosen = self._chosen
        vectors = self._select(collection, chosen)
        if vectors.sparse is not None:
            check_has_sparse(collection, vectors.sparse.vector_name)
        chosen.recent.remember(collection, vectors)
        return vectors

    def for_add(self, collection: StoredCollection | None) -> CollectionVectors:
        """Select the vectors of new documents in a collection; ``None`` for a new collection.

        Raises:
            CollectionMismatchError: see `for_query`; also if the documents would lack the sparse
                vectors that all others in the collection have.
            ModelError: if a model cannot be found, downloaded or read.
        """
        if collection is None:
            return self._of_new_collection()
        vectors = self._select(collection, self._chosen)
        stamp = collection.stamp
        if not vectors.chunked and vectors.dense.encoder.splits:
            raise CollectionMismatchError(
                f"collection {collection.name!r} was not written with overflow='chunk'; use "
                "another collection name and let add() create the collection, or call set_model() "
                "without overflow='chunk'",
                expected={"overflow": "chunk"},
                found={"overflow": None},
            )
        if vectors.sparse is None and stamp is not None and stamp.sparse is not None:
            raise CollectionMismatchError(
                f"collection {collection.name!r} has sparse vectors of {stamp.sparse.model}, which "
                "set_sparse_model(None) turned off; documents without them could not be found by "
                f"their words. Call set_sparse_model({stamp.sparse.model!r}), or use a client "
                "without set_sparse_model()",
                expected={"sparse model": None},
                found={"sparse model": stamp.sparse.model},
            )
        return vectors

    def remember(self, collection: StoredCollection, vectors: CollectionVectors) -> None:
        """Remember the vectors of a collection that was just prepared for them.

        Raises:
            CollectionMismatchError: if another process has prepared it for another model first.
        """
        chosen, sparse = self._chosen, vectors.sparse
        dense = vectors.dense
        check_collection(collection, dense.encoder.describe(), dense.vector_name)
        if sparse is not None:
            description = sparse.encoder.describe()
            name = check_sparse_collection(collection, description, sparse.vector_name)
            check_has_sparse(collection, name)
        if self._is_of(vectors, chosen):
            chosen.recent.remember(collection, vectors)

    def _is_of(self, vectors: CollectionVectors, chosen: _Chosen) -> bool:
        """Return whether the vectors were selected with this choice."""
        sparse = None if vectors.sparse is None else vectors.sparse.encoder
        return (chosen.dense is None or chosen.dense == vectors.dense.encoder) and (
            chosen.follows_sparse or chosen.sparse is sparse
        )

    def _of_new_collection(self) -> CollectionVectors:
        dense = DenseVectors(self.current, self.vector_name())
        encoder, name = self._chosen.sparse, self.sparse_name()
        sparse = None if encoder is None or name is None else SparseVectors(encoder, name)
        return CollectionVectors(dense, sparse, dense.encoder.splits)

    def _select(self, collection: StoredCollection, chosen: _Chosen) -> CollectionVectors:
        collection.check_is_whole()
        encoder = chosen.dense or self._encoder_of(collection)
        vector_name = check_collection(collection, encoder.describe(), chosen.dense_name)
        chunked = collection.chunked
        if collection.stamp is None:
            if collection.is_empty:
                chunked = encoder.splits
            else:
                encoder = self._without_prefixes(encoder, collection.name)
        dense = DenseVectors(encoder, vector_name)
        sparse = self.followed_sparse(collection) if chosen.follows_sparse else chosen.sparse
        if sparse is None:
            return CollectionVectors(dense, chunked=chunked)
        name = check_sparse_collection(collection, sparse.describe(), chosen.sparse_name)
        return CollectionVectors(dense, SparseVectors(sparse, name), chunked)

    def _encoder_of(self, collection: StoredCollection) -> Encoder:
        """Return the encoder of a collection when the user chose none."""
        stamp = collection.stamp
        if stamp is None:
            for entry in CATALOG:
                if vector_field_name(entry.spec.name) in collection.vectors:
                    return self._follow(_Followed(entry.spec.name))
            if collection.is_empty:
                return self.current
            raise CollectionMismatchError(
                f"collection {collection.name!r} does not record which model wrote its vectors; "
                "pass that model to set_model() first",
                expected={"model": "chosen"},
                found={"model": None},
            )
        if stamp.weights_sha256 is None:
            raise CollectionMismatchError(
                f"collection {collection.name!r} was written with an encoder object named "
                f"{stamp.model!r}; pass that encoder to set_model() first",
                expected={"model": stamp.model},
                found={"model": None},
            )
        followed = _Followed(
            stamp.model,
            stamp.max_tokens,
            stamp.query_prefix,
            stamp.document_prefix,
            dimensions=stamp.dimension,
            overflow=stamp.overflow or "truncate",
            overlap=stamp.overlap or 0,
        )
        encoder = self._follow(followed)
        if stamp.revision and encoder.describe().weights_sha256 != stamp.weights_sha256:
            encoder = self._follow(replace(followed, revision=stamp.revision))
        return encoder

    def followed_sparse(self, collection: StoredCollection) -> SparseEncoder | None:
        """Return the encoder of a collection's own sparse vectors; ``None`` if it has none.

        Raises:
            CollectionMismatchError: if they were written with a custom encoder.
            ModelError: if the model cannot be found, downloaded or read.
        """
        if collection.stamp is None:
            for name in SPARSE_MODELS:  # the predecessor's collections
                if sparse_field_name(name) in collection.sparse_vectors:
                    return self._follow_sparse(SparseDescription(name))
            return None
        stamp = collection.stamp.sparse
        if stamp is None:
            return None
        if stamp.weights_sha256 is None and stamp.model != BM25:
            raise CollectionMismatchError(
                f"collection {collection.name!r} was written with a sparse encoder object named "
                f"{stamp.model!r}; pass that encoder to set_sparse_model() first",
                expected={"sparse model": stamp.model},
                found={"sparse model": None},
            )
        followed = replace(stamp, vector_name="", revision=None)
        encoder = self._follow_sparse(followed)
        if stamp.revision and encoder.describe().weights_sha256 != stamp.weights_sha256:
            encoder = self._follow_sparse(replace(followed, revision=stamp.revision))
        return encoder

    def _follow(self, followed: _Followed) -> Encoder:
        with self._lock:
            if followed not in self._following:
                self._following[followed] = adapt(
                    TextEmbedding(
                        followed.model,
                        max_tokens=followed.max_tokens,
                        query_prefix=followed.query_prefix,
                        document_prefix=followed.document_prefix,
                        revision=followed.revision,
                        dimensions=followed.dimensions,
                        overflow=followed.overflow,
                        overlap=followed.overlap,
                        lazy_load=True,
                    )
                )
            return self._following[followed]

    def _follow_sparse(self, followed: SparseDescription) -> SparseEncoder:
        with self._lock:
            if followed not in self._following_sparse:
                self._following_sparse[followed] = SparseTextEmbedding(
                    followed.model,
                    max_tokens=followed.max_tokens,
                    max_terms=followed.max_terms,
                    revision=followed.revision,
                    language=followed.language,
                    k=followed.k,
                    b=followed.b,
                    average_length=followed.average_length,
                    lazy_load=True,
                )
            return self._following_sparse[followed]

    def _without_prefixes(self, encoder: Encoder, collection_name: str) -> Encoder:
        """Return the encoder for a collection of the predecessor, which added no prefixes."""
        bare = encoder.without_prefixes()
        if bare is None:
            return encoder
        if collection_name not in self._warned:
            self._warned.add(collection_name)
            logger.warning(
                "collection %r was not written by qdrant-embed, so its documents are assumed to "
                "have been encoded without the prefix %r that %s was trained with, and queries and "
                "new documents get no prefix either; for better hits, add the documents to a new "
                "collection (logged once)",
                collection_name,
                encoder.describe().document_prefix,
                encoder.name,
            )
        return bare
