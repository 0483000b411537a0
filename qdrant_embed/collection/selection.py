"""Which encoders serve which collection."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field, replace

from qdrant_embed.collection.stored import (
    StoredCollection,
    check_collection,
    check_has_sparse,
    check_sparse_collection,
    sparse_field_name,
    vector_field_name,
)
from qdrant_embed.collection.targets import Targets
from qdrant_embed.collection.vectors import DenseField, SparseField, Target
from qdrant_embed.encoder.facts.catalog import BM25, CATALOG, DEFAULT_MODEL, SPARSE_MODELS
from qdrant_embed.encoder.interfaces import (
    DenseEncoder,
    Overflow,
    SparseDescription,
    SparseEncoder,
    describe,
)
from qdrant_embed.encoder.sparse import SparseTextEmbedding
from qdrant_embed.encoder.text import TextEmbedding, variant
from qdrant_embed.errors import CollectionMismatchError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Followed:
    """A model that a collection asks for."""

    model: str
    max_tokens: int | None = None
    query_prefix: str | None = None
    document_prefix: str | None = None
    revision: str | None = None
    dimensions: int | None = None
    overflow: Overflow = "truncate"
    overlap: int = 0


@dataclass(frozen=True)
class _Choice:
    """What `set_model` and `set_sparse_model` chose, and the targets found with it."""

    dense: DenseEncoder | None = None
    dense_name: str | None = None
    sparse: SparseEncoder | None = None
    sparse_name: str | None = None
    follows_sparse: bool = True
    targets: Targets = field(default_factory=Targets)


class EncoderChoice:
    """The encoders of one client: those chosen, and those that collections ask for.

    Any number of threads may ask at once; no model is loaded twice, and asking for a name never
    waits for a model that is being loaded.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._choice = _Choice()
        self._following: dict[_Followed, TextEmbedding] = {}
        self._following_sparse: dict[SparseDescription, SparseEncoder] = {}
        self._warned: set[str] = set()

    @property
    def current(self) -> DenseEncoder:
        """The chosen encoder, else one of the default model, not loaded yet."""
        return self._choice.dense or self._loaded(_Followed(DEFAULT_MODEL))

    @property
    def current_sparse(self) -> SparseEncoder | None:
        """The chosen sparse encoder, if any."""
        return self._choice.sparse

    def vector_name(self) -> str:
        """The dense vector's name in a new collection."""
        chosen = self._choice.dense_name
        return vector_field_name(self.current.model_name) if chosen is None else chosen

    def sparse_name(self) -> str | None:
        """The sparse vector's name in a new collection; ``None`` without a sparse encoder."""
        sparse, chosen = self._choice.sparse, self._choice.sparse_name
        if sparse is None:
            return None
        return sparse_field_name(sparse.model_name) if chosen is None else chosen

    def choose(self, encoder: DenseEncoder, vector_name: str | None = None) -> None:
        """Makes `encoder` the one for every collection."""
        with self._lock:
            self._choice = replace(
                self._choice, dense=encoder, dense_name=vector_name, targets=Targets()
            )

    def choose_sparse(self, encoder: SparseEncoder | None, vector_name: str | None = None) -> None:
        """Makes `encoder` the sparse one for every collection; ``None`` for no sparse vectors."""
        with self._lock:
            self._choice = replace(
                self._choice,
                sparse=encoder,
                sparse_name=vector_name,
                follows_sparse=False,
                targets=Targets(),
            )

    @property
    def targets(self) -> Targets:
        """Those found lately with what is chosen now."""
        return self._choice.targets

    def searched(self, collection: StoredCollection) -> Target:
        """The target for queries in a collection, which is remembered.

        A stamped collection is served by its own models unless others were chosen; one that the
        predecessor wrote keeps its documents without a prefix.

        Raises:
            CollectionMismatchError: the chosen encoders do not fit, or none can be found.
        """
        choice = self._choice
        target = self._target(collection, choice)
        if target.sparse is not None:
            check_has_sparse(collection, target.sparse.vector_name)
        choice.targets.note(collection.name, target)
        return target

    def extended(self, collection: StoredCollection | None) -> Target:
        """The target for new documents in a collection; ``None`` for one yet to be created.

        Raises:
            CollectionMismatchError: as of `searched`; or the documents would lack the sparse
                vectors that all others in the collection have.
        """
        if collection is None:
            return self._new_target()
        target = self._target(collection, self._choice)
        stamp = collection.stamp
        if not target.chunked and _splits(target.dense.encoder):
            raise CollectionMismatchError(
                f"collection {collection.name!r} was not written with overflow='chunk': use "
                "another collection name and let add() create it, or set_model() without it",
                expected={"overflow": "chunk"},
                found={"overflow": None},
            )
        if target.sparse is None and stamp is not None and stamp.sparse is not None:
            raise CollectionMismatchError(
                f"collection {collection.name!r} has sparse vectors of {stamp.sparse.model}, which "
                "set_sparse_model(None) turned off: documents without them would not be found by "
                "their words. Choose that model, or use a client that never chose one",
                expected={"sparse model": None},
                found={"sparse model": stamp.sparse.model},
            )
        return target

    def accept(self, collection: StoredCollection, target: Target) -> None:
        """Remembers `target` for a collection that was made ready for it, if it fits.

        Raises:
            CollectionMismatchError: it does not: another process was first, with another model.
        """
        choice, sparse = self._choice, target.sparse
        dense = target.dense
        check_collection(collection, describe(dense.encoder), dense.vector_name)
        if sparse is not None:
            description = sparse.encoder.describe()
            name = check_sparse_collection(collection, description, sparse.vector_name)
            check_has_sparse(collection, name)
        if self._is_of(target, choice):
            choice.targets.note(collection.name, target)

    def _is_of(self, target: Target, choice: _Choice) -> bool:
        """Whether the choice is still the one the target was found with."""
        sparse = None if target.sparse is None else target.sparse.encoder
        return (choice.dense is None or choice.dense is target.dense.encoder) and (
            choice.follows_sparse or choice.sparse is sparse
        )

    def _new_target(self) -> Target:
        dense = DenseField(self.current, self.vector_name())
        sparse, name = self._choice.sparse, self.sparse_name()
        field = None if sparse is None or name is None else SparseField(sparse, name)
        return Target(dense, field, _splits(dense.encoder))

    def _target(self, collection: StoredCollection, choice: _Choice) -> Target:
        encoder = choice.dense or self._encoder_of(collection)
        vector_name = check_collection(collection, describe(encoder), choice.dense_name)
        chunked = collection.chunked
        if collection.stamp is None:
            if collection.is_empty:
                chunked = _splits(encoder)
            else:
                encoder = self._without_prefixes(encoder, collection.name)
        dense = DenseField(encoder, vector_name)
        sparse = self.followed_sparse(collection) if choice.follows_sparse else choice.sparse
        if sparse is None:
            return Target(dense, chunked=chunked)
        name = check_sparse_collection(collection, sparse.describe(), choice.sparse_name)
        return Target(dense, SparseField(sparse, name), chunked)

    def _encoder_of(self, collection: StoredCollection) -> DenseEncoder:
        """The encoder for a collection when none was chosen."""
        stamp = collection.stamp
        if stamp is None:
            for entry in CATALOG:
                if vector_field_name(entry.spec.name) in collection.vectors:
                    return self._loaded(_Followed(entry.spec.name))
            if collection.is_empty:
                return self.current
            raise CollectionMismatchError(
                f"collection {collection.name!r} does not say which model wrote its vectors: pass "
                "that model to set_model() first",
                expected={"model": "chosen"},
                found={"model": None},
            )
        if stamp.weights_sha256 is None:
            raise CollectionMismatchError(
                f"collection {collection.name!r} was written with an encoder object named "
                f"{stamp.model!r}: pass that encoder to set_model() first",
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
        encoder = self._loaded(followed)
        if stamp.revision and encoder.describe().weights_sha256 != stamp.weights_sha256:
            encoder = self._loaded(replace(followed, revision=stamp.revision))
        return encoder

    def followed_sparse(self, collection: StoredCollection) -> SparseEncoder | None:
        """The sparse encoder for a collection when nothing was chosen; ``None`` if it has none."""
        if collection.stamp is None:
            for name in SPARSE_MODELS:  # the predecessor's collections
                if sparse_field_name(name) in collection.sparse_vectors:
                    return self._loaded_sparse(SparseDescription(name))
            return None
        stamp = collection.stamp.sparse
        if stamp is None:
            return None
        if stamp.weights_sha256 is None and stamp.model != BM25:
            raise CollectionMismatchError(
                f"collection {collection.name!r} was written with a sparse encoder object named "
                f"{stamp.model!r}: pass that encoder to set_sparse_model() first",
                expected={"sparse model": stamp.model},
                found={"sparse model": None},
            )
        asked = replace(stamp, vector_name="", revision=None)
        encoder = self._loaded_sparse(asked)
        if stamp.revision and encoder.describe().weights_sha256 != stamp.weights_sha256:
            encoder = self._loaded_sparse(replace(asked, revision=stamp.revision))
        return encoder

    def _loaded(self, followed: _Followed) -> TextEmbedding:
        with self._lock:
            if followed not in self._following:
                self._following[followed] = TextEmbedding(
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
            return self._following[followed]

    def _loaded_sparse(self, asked: SparseDescription) -> SparseEncoder:
        with self._lock:
            if asked not in self._following_sparse:
                self._following_sparse[asked] = SparseTextEmbedding(
                    asked.model,
                    max_tokens=asked.max_tokens,
                    max_terms=asked.max_terms,
                    revision=asked.revision,
                    language=asked.language,
                    k=asked.k,
                    b=asked.b,
                    average_length=asked.average_length,
                    lazy_load=True,
                )
            return self._following_sparse[asked]

    def _without_prefixes(self, encoder: DenseEncoder, collection_name: str) -> DenseEncoder:
        """The encoder for documents of the predecessor, which put no prefix before anything."""
        # where a model's documents are bare by design, its query prefix is right for them
        if not isinstance(encoder, TextEmbedding) or not encoder.spec.document_prefix:
            return encoder
        if collection_name not in self._warned:
            self._warned.add(collection_name)
            logger.warning(
                "collection %r was not written by qdrant-embed: its documents are taken to have "
                "been embedded without the prefix %r that %s is trained for, and queries and new "
                "documents go without prefixes too. For better hits, add the documents to a new "
                "collection (said once)",
                collection_name,
                encoder.spec.document_prefix,
                encoder.model_name,
            )
        return variant(encoder, query_prefix="", document_prefix="")


def _splits(encoder: DenseEncoder) -> bool:
    """Whether the documents of a collection that the encoder begins are one point or more."""
    return isinstance(encoder, TextEmbedding) and encoder.overflow == "chunk"
