"""Which encoder serves which collection, and what it gives, checked."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from qdrant_client import models

from qdrant_embed.collection import (
    Stamp,
    StoredCollection,
    check_collection,
    stamp_of,
    vector_field_name,
)
from qdrant_embed.encoder.catalog import CATALOG, DEFAULT_MODEL
from qdrant_embed.encoder.cores import usable_cores
from qdrant_embed.encoder.interfaces import DenseEncoder, Vector, describe
from qdrant_embed.encoder.text import TextEmbedding
from qdrant_embed.errors import CollectionMismatchError, InputError, ModelError, check_whole
from qdrant_embed.points import Document, to_points

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


@dataclass(frozen=True)
class Target:
    """A collection's vector, and the encoder that fills and searches it."""

    encoder: DenseEncoder
    vector_name: str

    def to_points(self, documents: Sequence[Document]) -> list[models.PointStruct]:
        """Points with the vectors of the documents' texts.

        Raises:
            ModelError: the encoder gave something else than a vector for each.
        """
        texts = [document.text for document in documents]
        vectors = self._checked(list(self.encoder.passage_embed(texts)), len(texts))
        return to_points(documents, vectors, self.vector_name)

    def encode_queries(self, texts: Sequence[str]) -> Vector:
        """Vectors of queries, float32 [texts, dimension].

        Raises:
            ModelError: the encoder gave something else.
        """
        return self._checked(list(self.encoder.query_embed(texts)), len(texts))

    def with_threads(self, threads: int | None) -> Target:
        """The same target, encoding with so many threads; 0 for every usable core.

        Raises:
            InputError: the encoder is a user's own object, or `threads` is below 0.
        """
        if threads is None:
            return self
        if not isinstance(self.encoder, TextEmbedding):
            raise InputError("parallel= is for models by name; an encoder object has its own ways")
        check_whole("parallel", threads, 0)
        return replace(self, encoder=self.encoder.variant(threads=threads or usable_cores()))

    def stamp(self) -> Stamp:
        """The stamp of a collection that this encoder writes."""
        return stamp_of(describe(self.encoder), self.vector_name)

    def _checked(self, vectors: list[Vector], count: int) -> Vector:
        name, expected = self.encoder.model_name, (count, self.encoder.dimension)
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


class EncoderChoice:
    """The encoders of one client: the one chosen by `set_model`, and those collections ask for.

    Any number of threads may ask at once; no model is loaded twice.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._chosen: DenseEncoder | None = None
        self._following: dict[_Followed, TextEmbedding] = {}
        self._targets: dict[str, Target] = {}
        self._warned: set[str] = set()

    @property
    def current(self) -> DenseEncoder:
        """The chosen encoder, else one of the default model, not loaded yet."""
        with self._lock:
            return self._chosen or self._loaded(_Followed(DEFAULT_MODEL))

    def choose(self, encoder: DenseEncoder) -> None:
        """Makes `encoder` the one for every collection."""
        with self._lock:
            self._chosen = encoder
            self._targets.clear()

    def remembered(self, collection_name: str) -> Target | None:
        """The target found before, so that a query need not ask the server again."""
        return self._targets.get(collection_name)

    def new_target(self) -> Target:
        """The target for a collection that is yet to be created."""
        encoder = self.current
        return Target(encoder, vector_field_name(describe(encoder).model))

    def accept(self, collection: StoredCollection, target: Target) -> None:
        """Remembers `target` for a collection that was created for it, if it fits.

        Raises:
            CollectionMismatchError: it does not: another process was first, with another model.
        """
        check_collection(collection, describe(target.encoder))
        self._targets[collection.name] = target

    def target(self, collection: StoredCollection) -> Target:
        """The target for a collection that exists.

        A stamped collection is served by its own model unless another was chosen; one that the
        predecessor wrote keeps its documents without a prefix.

        Raises:
            CollectionMismatchError: the chosen encoder does not fit, or none can be found.
        """
        with self._lock:
            encoder = self._chosen or self._encoder_of(collection)
            vector_name = check_collection(collection, describe(encoder))
            if collection.stamp is None and not collection.is_empty:
                encoder = self._without_prefixes(encoder, collection.name)
            target = Target(encoder, vector_name)
            self._targets[collection.name] = target
            return target

    def _encoder_of(self, collection: StoredCollection) -> DenseEncoder:
        """The encoder for a collection when none was chosen."""
        stamp = collection.stamp
        if stamp is None:
            for entry in CATALOG:
                if vector_field_name(entry.spec.name) in collection.vectors:
                    return self._loaded(_Followed(entry.spec.name))
            return self.current
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
        )
        encoder = self._loaded(followed)
        if stamp.revision and encoder.describe().weights_sha256 != stamp.weights_sha256:
            encoder = self._loaded(replace(followed, revision=stamp.revision))
        return encoder

    def _loaded(self, followed: _Followed) -> TextEmbedding:
        if followed not in self._following:
            self._following[followed] = TextEmbedding(
                followed.model,
                max_tokens=followed.max_tokens,
                query_prefix=followed.query_prefix,
                document_prefix=followed.document_prefix,
                revision=followed.revision,
                dimensions=followed.dimensions,
                lazy_load=True,
            )
        return self._following[followed]

    def _without_prefixes(self, encoder: DenseEncoder, collection_name: str) -> DenseEncoder:
        """The encoder as the predecessor would have used it, for documents it has written.

        It put no prefix before anything. Where a model's documents are bare by design, its query
        prefix is right for them all the same.
        """
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
        return encoder.variant(query_prefix="", document_prefix="")
