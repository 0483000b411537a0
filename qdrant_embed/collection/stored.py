"""An existing collection's configuration, and whether an encoder fits it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath

from qdrant_client import models

from qdrant_embed.collection.stamp import (
    STAMP_KEY,
    BulkMark,
    CopyMark,
    LateStamp,
    Stamp,
    check_late_stamp,
    check_sparse_stamp,
    check_stamp,
    read_bulk,
    read_mark,
    read_stamp,
)
from qdrant_embed.encoder.interfaces import (
    EncoderDescription,
    LateDescription,
    SparseDescription,
)
from qdrant_embed.engines.names import as_vector_name
from qdrant_embed.errors import CollectionMismatchError, InputError

VECTOR_NAME_PREFIX = "fast-"  # the predecessor's, so that its collections still work
SPARSE_NAME_PREFIX = "fast-sparse-"
LATE_NAME_PREFIX = "fast-late-"
_COARSE = (
    models.TurboQuantBitSize.BITS1,
    models.TurboQuantBitSize.BITS1_5,
    models.TurboQuantBitSize.BITS2,
)


@dataclass(frozen=True)
class StoredCollection:
    """The configuration of an existing collection.

    Attributes:
        name: name of the collection.
        vectors: parameters of the dense vectors by name; the unnamed one is ``""``.
        sparse_vectors: parameters of the sparse vectors by name.
        stamp: the record of the encoders that wrote it, if it has one.
        points: number of its points, about; ``None`` if the server does not say.
        indexed: names of the payload fields that have an index.
        has_custom_sharding: whether each point is stored in a shard that its shard key names.
        copies: number of copies of each shard.
        copies_written: number of copies that must confirm a write.
        mark: what it says of the copy that it is, until all of that is complete.
        quantized: how dense vectors are quantised, by their names, as far as they are.
        bulk: what it says of its loading, until its index is built again.
        indexing_threshold: kB of vectors from which its server builds an index; 0 if that is off,
            ``None`` for the server's default.
        most_oversampling: the greatest that its strict mode accepts, if there is a limit.
    """

    name: str
    vectors: Mapping[str, models.VectorParams]
    sparse_vectors: Mapping[str, models.SparseVectorParams]
    stamp: Stamp | None
    points: int | None
    indexed: frozenset[str] = frozenset()
    has_custom_sharding: bool = False
    copies: int = 1
    copies_written: int = 1
    mark: CopyMark | None = None
    quantized: Mapping[str, models.QuantizationConfig] = field(default_factory=dict)
    bulk: BulkMark | None = None
    indexing_threshold: int | None = None
    most_oversampling: float | None = None

    @property
    def vector_names(self) -> set[str]:
        """Names of all its vectors; the unnamed one is ``""``."""
        return {*self.vectors, *self.sparse_vectors}

    @property
    def has_sparse_stamp(self) -> bool:
        """Whether it says what wrote its sparse vectors."""
        return self.stamp is not None and self.stamp.sparse is not None

    @property
    def late_stamp(self) -> LateStamp | None:
        """The record of what wrote the vectors of its tokens, if there is one."""
        return None if self.stamp is None else self.stamp.late

    @property
    def is_empty(self) -> bool:
        """Whether it has no points."""
        return self.points == 0

    def check_is_whole(self) -> None:
        """Raise `CollectionMismatchError` if it is a copy that is not complete."""
        if self.mark is not None and not self.mark.complete:
            raise CollectionMismatchError(
                f"collection {self.name!r} is an unfinished copy of {self.mark.origin}: call "
                "copy_to() again, which completes it",
                expected={"complete": True},
                found={"complete": False},
            )

    def check_shard_keys(self, selector: models.ShardKeySelector | None) -> None:
        """Raise `InputError` if documents cannot be added without a shard key."""
        if self.has_custom_sharding and selector in (None, []):
            raise InputError(
                f"collection {self.name!r} has custom sharding: pass shard_key_selector="
            )

    def shard_keys(self, selector: models.ShardKeySelector | None) -> list[models.ShardKey]:
        """Return the shards that must exist for an `add` whose ``shard_key_selector`` is given.

        Of a key with a fallback it is the fallback: the point of it is that the other may not
        exist.
        """
        if selector is None or not self.has_custom_sharding:
            return []
        if isinstance(selector, models.ShardKeyWithFallback):
            return [selector.fallback]
        return list(selector) if isinstance(selector, list) else [selector]

    def search_params(self, vector_name: str) -> models.SearchParams | None:
        """Return the default options for searching a vector; ``None`` if it is not quantised.

        Twice as many candidates as hits, found by the quantised vectors, are scored again by the
        stored ones; four times as many where a value takes less than 4 bits.
        """
        config = self.quantized.get(vector_name)
        if config is None:
            return None
        is_coarse = isinstance(config, models.BinaryQuantization | models.ProductQuantization) or (
            isinstance(config, models.TurboQuantization) and config.turbo.bits in _COARSE
        )
        oversampling = min(4.0 if is_coarse else 2.0, self.most_oversampling or math.inf)
        again = models.QuantizationSearchParams(rescore=True, oversampling=oversampling)
        return models.SearchParams(quantization=again)

    @property
    def chunked(self) -> bool:
        """Whether a document is stored as one point per chunk."""
        return self.stamp is not None and self.stamp.overflow == "chunk"


def vector_field_name(model_name: str) -> str:
    """Return ``fast-`` and the last part of the model's name in lower case, as Qdrant allows it.

    See `as_vector_name` for what is replaced.
    """
    return as_vector_name(VECTOR_NAME_PREFIX + PurePath(model_name).name.lower())


def sparse_field_name(model_name: str) -> str:
    """Return ``fast-sparse-`` and the rest as of `vector_field_name`."""
    return as_vector_name(SPARSE_NAME_PREFIX + PurePath(model_name).name.lower())


def late_field_name(model_name: str) -> str:
    """Return the default name of the vectors of tokens; ``fast-late-`` comes before the model's."""
    return as_vector_name(LATE_NAME_PREFIX + PurePath(model_name).name.lower())


def read_collection(
    name: str, info: models.CollectionInfo, *, keeps_settings: bool = True
) -> StoredCollection:
    """Return a collection's configuration, given Qdrant's `info` about it.

    Args:
        name: name of the collection.
        info: what Qdrant says of it.
        keeps_settings: see `Engine`; vectors of others are never quantised.

    Raises:
        CollectionMismatchError: if its stamp cannot be read.
    """
    params = info.config.params
    config, strict = params.vectors, info.config.strict_mode_config
    vectors = config if isinstance(config, dict) else {"": config} if config is not None else {}
    return StoredCollection(
        name=name,
        vectors=vectors,
        sparse_vectors=params.sparse_vectors or {},
        stamp=read_stamp(name, info.config.metadata),
        points=info.points_count,
        indexed=frozenset(info.payload_schema or ()),
        has_custom_sharding=params.sharding_method == models.ShardingMethod.CUSTOM,
        copies=params.replication_factor or 1,
        copies_written=params.write_consistency_factor or 1,
        mark=read_mark(name, info.config.metadata),
        quantized={
            vector: quantization
            for vector, one in vectors.items()
            if keeps_settings
            and (quantization := one.quantization_config or info.config.quantization_config)
        },
        bulk=read_bulk(info.config.metadata),
        indexing_threshold=info.config.optimizer_config.indexing_threshold,
        most_oversampling=strict.search_max_oversampling if strict and strict.enabled else None,
    )


def check_collection(
    collection: StoredCollection, encoder: EncoderDescription, vector_name: str | None = None
) -> str:
    """Check that `encoder` fits the collection, and return the name of its vector.

    It is the name in the stamp, else `vector_name`, else the predecessor's name for the model, else
    the unnamed vector of a collection that has no other.

    Raises:
        CollectionMismatchError: if the encoder does not fit.
    """
    stamp = collection.stamp
    name = vector_field_name(encoder.model) if vector_name is None else vector_name
    if stamp is not None:
        check_stamp(collection.name, stamp, encoder)
        name = stamp.vector_name
    elif vector_name is None and name not in collection.vectors and set(collection.vectors) == {""}:
        name = ""
    params = collection.vectors.get(name)
    expected = {"vector": name, "size": encoder.dimension, "distance": encoder.distance}
    if params is None:
        found: dict[str, object] = {"vectors": sorted(collection.vectors)}
        raise CollectionMismatchError(
            f"collection {collection.name!r} has no vector {name!r} for {encoder.model}; it has "
            f"{_vector_list(collection.vectors)}. If one of these holds the model's vectors, call "
            f"set_model({encoder.model!r}, vector_name=...). Otherwise use another collection name "
            "and let add() create the collection, create it with "
            "vectors_config=client.get_fastembed_vector_params(), or add the vector with "
            "client.create_vector_name()",
            expected=expected,
            found=found,
        )
    if params.multivector_config is not None:
        raise CollectionMismatchError(
            f"{_vector_label(name)} of collection {collection.name!r} holds several vectors per "
            f"point, but {encoder.model} returns one; use another vector or collection",
            expected=expected | {"multivector": False},
            found={"vector": name, "multivector": True},
        )
    found = {"vector": name, "size": params.size, "distance": params.distance.value}
    if found != expected:
        raise CollectionMismatchError(
            f"{_vector_label(name)} of collection {collection.name!r} has {params.size} "
            f"dimensions and distance {params.distance.value}, but {encoder.model} needs "
            f"{encoder.dimension} and {encoder.distance}; use another collection",
            expected=expected,
            found=found,
        )
    return name


def check_sparse_collection(
    collection: StoredCollection, encoder: SparseDescription, vector_name: str | None = None
) -> str:
    """Check that a sparse encoder fits the collection, and return the name of its vector.

    It is the name in the stamp, else `vector_name`, else the predecessor's name for the model. The
    collection need not have this vector yet.

    Raises:
        CollectionMismatchError: if another model wrote the vector, or it lacks the modifier that
            the encoder needs.
    """
    name = sparse_field_name(encoder.model) if vector_name is None else vector_name
    if collection.stamp is not None and collection.stamp.sparse is not None:
        check_sparse_stamp(collection.name, collection.stamp.sparse, encoder)
        name = collection.stamp.sparse.vector_name
    params = collection.sparse_vectors.get(name)
    if params is not None and encoder.idf and params.modifier != models.Modifier.IDF:
        found = params.modifier.value if params.modifier else None
        raise CollectionMismatchError(
            f"sparse vector {name!r} of collection {collection.name!r} has the modifier {found}, "
            f"but {encoder.model} needs idf; create the collection with sparse_vectors_config="
            "client.get_fastembed_sparse_vector_params(), or set the modifier with "
            f"client.update_collection({collection.name!r}, sparse_vectors_config=...)",
            expected={"modifier": "idf"},
            found={"modifier": found},
        )
    return name


def check_late_collection(
    collection: StoredCollection, encoder: LateDescription, vector_name: str | None = None
) -> str:
    """Check that a late-interaction encoder fits the collection; return the name of its vector.

    It is the name in the stamp, else `vector_name`, else that for the model. A collection has this
    vector from the start: points without it would not be found.

    Raises:
        CollectionMismatchError: if another model wrote the vector, the collection lacks it, or has
            points without it.
    """
    name = late_field_name(encoder.model) if vector_name is None else vector_name
    stamp = collection.late_stamp
    if stamp is not None:
        check_late_stamp(collection.name, stamp, encoder)
        name = stamp.vector_name
    params = collection.vectors.get(name)
    if params is None or (stamp is None and not collection.is_empty):
        raise CollectionMismatchError(
            f"collection {collection.name!r} was not written with {encoder.model}, so its "
            f"documents have no vectors {name!r} and could not be found by them. migrate_model() "
            "writes its documents with these to a new collection. Call set_late_model(None) to "
            "search without late interaction",
            expected={"vector": name},
            found={"vectors": sorted(collection.vectors)},
        )
    multivector = params.multivector_config
    expected = {
        "size": encoder.dimension,
        "distance": encoder.distance,
        "comparator": models.MultiVectorComparator.MAX_SIM.value,
    }
    found = {
        "size": params.size,
        "distance": params.distance.value,
        "comparator": multivector.comparator.value if multivector else None,
    }
    if found != expected:
        raise CollectionMismatchError(
            f"vector {name!r} of collection {collection.name!r} has {found}, but {encoder.model} "
            f"needs {expected}; use another collection, or set_late_model(..., vector_name=...)",
            expected=expected,
            found=found,
        )
    return name


def check_has_sparse(collection: StoredCollection, vector_name: str) -> None:
    """Raise `CollectionMismatchError` if the collection lacks the sparse vector `vector_name`."""
    if vector_name not in collection.sparse_vectors:
        raise CollectionMismatchError(
            f"collection {collection.name!r} has no sparse vector {vector_name!r}; add() creates "
            "it when this client next stores a document (documents stored earlier are found by "
            "their dense vectors alone until they are added again). Call set_sparse_model(None) to "
            "search without it",
            expected={"sparse vector": vector_name},
            found={"sparse vectors": sorted(collection.sparse_vectors)},
        )


def check_is_stamped(collection: StoredCollection) -> None:
    """Raise `CollectionMismatchError` if the server has not stored the collection's stamp."""
    if collection.stamp is None:
        raise CollectionMismatchError(
            f"the server did not store the metadata of collection {collection.name!r}, which "
            "records the model that writes it; upgrade to Qdrant 1.16 or newer",
            expected={STAMP_KEY: "a stamp"},
            found={STAMP_KEY: None},
        )


def _vector_label(name: str) -> str:
    return f"vector {name!r}" if name else "the unnamed vector"


def _vector_list(vectors: Mapping[str, models.VectorParams]) -> str:
    names = [repr(name) if name else "one unnamed vector" for name in sorted(vectors)]
    return ", ".join(names) or "no dense vector"
