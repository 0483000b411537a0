"""How a collection keeps text: the vector's name and size, and the stamp of what wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from qdrant_client import models

from qdrant_embed.encoder.interfaces import Distance, EncoderDescription, Pooling
from qdrant_embed.errors import CollectionMismatchError

STAMP_KEY = "qdrant_embed"
VECTOR_NAME_PREFIX = "fast-"  # the predecessor's, so that its collections go on working


class Stamp(BaseModel):
    """What wrote a collection; kept in its Qdrant metadata under ``qdrant_embed``.

    The fields are those of `EncoderDescription`, and the vector's name. ``weights_sha256`` is
    ``None`` where the encoder was an object of the user's own.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    version: int = 1
    vector_name: str
    model: str
    dimension: int
    distance: Distance = "Cosine"
    revision: str | None = None
    weights_sha256: str | None = None
    pooling: Pooling | None = None
    query_prefix: str | None = None
    document_prefix: str | None = None
    max_tokens: int | None = None
    overflow: str | None = None

    def metadata(self) -> dict[str, Any]:
        """The collection metadata that holds this stamp."""
        return {STAMP_KEY: self.model_dump(exclude_none=True)}


@dataclass(frozen=True)
class StoredCollection:
    """What the clients need to know of a collection that exists.

    Attributes:
        name: of the collection.
        vectors: dense vectors by name; the unnamed one is ``""``.
        stamp: what wrote it, if it says so.
        is_empty: it holds no point.
    """

    name: str
    vectors: Mapping[str, models.VectorParams]
    stamp: Stamp | None
    is_empty: bool


def vector_field_name(model_name: str) -> str:
    """``fast-`` and the last part of the model's name, in lower case."""
    return VECTOR_NAME_PREFIX + PurePath(model_name).name.lower()


def vector_params(
    encoder: EncoderDescription,
    *,
    on_disk: bool | None = None,
    quantization_config: models.QuantizationConfig | None = None,
    hnsw_config: models.HnswConfigDiff | None = None,
) -> models.VectorParams:
    """The vector's size and distance, with Qdrant's own options where given."""
    return models.VectorParams(
        size=encoder.dimension,
        distance=models.Distance(encoder.distance),
        on_disk=on_disk,
        quantization_config=quantization_config,
        hnsw_config=hnsw_config,
    )


def stamp_of(encoder: EncoderDescription, vector_name: str) -> Stamp:
    """The stamp for a collection that `encoder` writes."""
    return Stamp(vector_name=vector_name, **asdict(encoder))


def read_collection(name: str, info: models.CollectionInfo) -> StoredCollection:
    """What `info` says.

    Raises:
        CollectionMismatchError: its stamp cannot be read.
    """
    config = info.config.params.vectors
    vectors = config if isinstance(config, dict) else {"": config} if config is not None else {}
    return StoredCollection(
        name=name,
        vectors=vectors,
        stamp=_read_stamp(name, (info.config.metadata or {}).get(STAMP_KEY)),
        is_empty=info.points_count == 0,
    )


def check_collection(collection: StoredCollection, encoder: EncoderDescription) -> str:
    """The name of the vector to use, once `encoder` is seen to fit the collection.

    Raises:
        CollectionMismatchError: it does not.
    """
    stamp = collection.stamp
    if stamp is not None:
        _check_stamp(collection.name, stamp, encoder)
    vector_name = stamp.vector_name if stamp else vector_field_name(encoder.model)
    params = collection.vectors.get(vector_name)
    expected = {
        "vector": vector_name,
        "size": encoder.dimension,
        "distance": encoder.distance,
    }
    if params is None:
        found: dict[str, object] = {"vectors": sorted(collection.vectors)}
        raise CollectionMismatchError(
            f"collection {collection.name!r} has no vector {vector_name!r} for {encoder.model}: "
            f"it has {_names(collection.vectors)}; use another collection name and let add() "
            "create it, or create it with vectors_config=client.get_fastembed_vector_params()",
            expected=expected,
            found=found,
        )
    found = {"vector": vector_name, "size": params.size, "distance": params.distance.value}
    if found != expected:
        raise CollectionMismatchError(
            f"vector {vector_name!r} of collection {collection.name!r} has {params.size} "
            f"dimensions and distance {params.distance.value}, but {encoder.model} needs "
            f"{encoder.dimension} and {encoder.distance}; use another collection",
            expected=expected,
            found=found,
        )
    return vector_name


def check_is_stamped(collection: StoredCollection) -> None:
    """Raises `CollectionMismatchError` where the server did not keep the stamp it was given."""
    if collection.stamp is None:
        raise CollectionMismatchError(
            f"the server did not keep the metadata of collection {collection.name!r}, so the "
            "model that writes it could not be told later: Qdrant 1.16 or newer is needed",
            expected={STAMP_KEY: "a stamp"},
            found={STAMP_KEY: None},
        )


def _check_stamp(name: str, stamp: Stamp, encoder: EncoderDescription) -> None:
    wrote, asks = stamp.model_dump(), asdict(encoder)
    compared = ["dimension", "distance", "pooling", "query_prefix", "document_prefix"]
    compared += ["max_tokens", "overflow"]
    if stamp.weights_sha256 and encoder.weights_sha256:
        compared.append("weights_sha256")  # equal weights are the same model by any name
    elif stamp.model.lower() != encoder.model.lower():
        compared.append("model")
    differing = [
        key
        for key in compared
        if wrote[key] is not None and asks[key] is not None and wrote[key] != asks[key]
    ]
    if not differing:
        return
    sides = "; ".join(f"{key} {wrote[key]!r}, not {asks[key]!r}" for key in differing)
    raise CollectionMismatchError(
        f"collection {name!r} was written by {stamp.model}, which differs from this client's "
        f"{encoder.model}: {sides}. Without set_model() the client follows the collection's own "
        "model; to change a collection's model, add its documents to a new collection",
        expected={key: asks[key] for key in differing},
        found={key: wrote[key] for key in differing},
    )


def _read_stamp(name: str, stored: object) -> Stamp | None:
    if stored is None:
        return None
    try:
        stamp = Stamp.model_validate(stored)
    except ValidationError as error:
        raise CollectionMismatchError(
            f"the stamp of collection {name!r} cannot be read ({error.error_count()} fields): "
            f"its metadata {STAMP_KEY!r} was changed by something else",
            expected={"version": 1},
            found={STAMP_KEY: stored},
        ) from error
    if stamp.version != 1:
        raise CollectionMismatchError(
            f"collection {name!r} was written by a newer qdrant-embed (stamp version "
            f"{stamp.version}): upgrade this one",
            expected={"version": 1},
            found={"version": stamp.version},
        )
    return stamp


def _names(vectors: Mapping[str, models.VectorParams]) -> str:
    names = [repr(name) if name else "one unnamed vector" for name in sorted(vectors)]
    return ", ".join(names) or "no dense vector"
