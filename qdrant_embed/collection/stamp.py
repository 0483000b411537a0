"""The stamp: what a collection says of the encoders that wrote it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from qdrant_embed.encoder.interfaces import EncoderDescription, SparseDescription
from qdrant_embed.errors import CollectionMismatchError

STAMP_KEY = "qdrant_embed"

_DENSE_FACTS = ("dimension", "distance", "pooling", "query_prefix", "document_prefix")
_TEXT_FACTS = ("max_tokens", "overflow", "overlap")
_SPARSE_FACTS = ("idf", "max_tokens", "max_terms", "language", "k", "b", "average_length")


@dataclass(frozen=True, kw_only=True)
class SparseStamp(SparseDescription):
    """What wrote a collection's sparse vectors, and their name."""

    vector_name: str


@dataclass(frozen=True, kw_only=True)
class Stamp(EncoderDescription):
    """What wrote a collection; kept in its Qdrant metadata under ``qdrant_embed``.

    ``weights_sha256`` is ``None`` where the encoder was an object of the user's own.

    Attributes:
        vector_name: ``""`` for the unnamed vector.
        version: of the stamp's own form.
        sparse: the same of the sparse encoder, where there is one.
    """

    vector_name: str
    version: int = 1
    sparse: SparseStamp | None = None

    def metadata(self) -> dict[str, Any]:
        """The collection metadata that holds this stamp."""
        return {STAMP_KEY: _STAMPS.dump_python(self, exclude_none=True)}


_STAMPS = TypeAdapter(Stamp)  # which also checks what is read


def stamp_of(
    encoder: EncoderDescription, vector_name: str, sparse: SparseStamp | None = None
) -> Stamp:
    """The stamp for a collection that `encoder` writes."""
    return Stamp(vector_name=vector_name, sparse=sparse, **asdict(encoder))


def sparse_stamp_of(encoder: SparseDescription, vector_name: str) -> SparseStamp:
    """The part of the stamp for the sparse encoder."""
    return SparseStamp(vector_name=vector_name, **asdict(encoder))


def read_stamp(name: str, metadata: Mapping[str, Any] | None) -> Stamp | None:
    """The stamp in the metadata of the collection `name`, if there is one.

    Raises:
        CollectionMismatchError: it cannot be read.
    """
    stored = (metadata or {}).get(STAMP_KEY)
    if stored is None:
        return None
    try:
        stamp = _STAMPS.validate_python(stored)
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


def check_stamp(name: str, stamp: Stamp, encoder: EncoderDescription) -> None:
    """Raises `CollectionMismatchError` where `encoder` gives other vectors than the stamp's."""
    wrote, asks = asdict(stamp), asdict(encoder)
    for facts in (wrote, asks):
        if facts["overflow"] == "error":  # what it takes has the vectors of "truncate"
            facts["overflow"] = "truncate"
    _compare(name, wrote, asks, (*_DENSE_FACTS, *_TEXT_FACTS), "set_model()")


def check_sparse_stamp(name: str, stamp: SparseStamp, encoder: SparseDescription) -> None:
    """The same for a sparse encoder."""
    _compare(name, asdict(stamp), asdict(encoder), _SPARSE_FACTS, "set_sparse_model()")


def _compare(
    name: str,
    wrote: Mapping[str, Any],
    asks: Mapping[str, Any],
    facts: Sequence[str],
    setter: str,
) -> None:
    compared = list(facts)
    if wrote["weights_sha256"] and asks["weights_sha256"]:
        compared.append("weights_sha256")  # equal weights are the same model by any name
    elif wrote["model"].lower() != asks["model"].lower():
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
        f"collection {name!r} was written by {wrote['model']}, which differs from this client's "
        f"{asks['model']}: {sides}. Without {setter} the client follows the collection's own "
        "model; to change a collection's model, add its documents to a new collection",
        expected={key: asks[key] for key in differing},
        found={key: wrote[key] for key in differing},
    )
