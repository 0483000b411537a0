"""Payloads of points: a document's text, its metadata, and the fields that this package adds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qdrant_embed.errors import check_str

if TYPE_CHECKING:  # the command reads documents before it needs qdrant_client
    from qdrant_client import models

DOCUMENT_KEY = "document"
ID_KEY = "qdrant_embed_id"  # a user's id that is not valid as a point's id
CHUNK_KEY = "qdrant_embed_chunk"  # the part of a document that the point stores
PARENT_FIELD = f"{CHUNK_KEY}.parent"  # path in the payload to the document of a chunk

WHOLE_NUMBERS = range(-(2**63), 2**63)  # that a payload can hold, over REST and over gRPC
_FLOAT_TOLERANCE = 1e-15
_DIGITS = 20  # of the largest id
_NUMBERS = 2**53  # below which every JSON reader reads whole numbers alike
_CHUNK_TEXTS = ("parent", "before", "after", "document_sha256", "spans_sha256", "updated_sha256")


@dataclass(frozen=True)
class PayloadCodec:
    """The format of payloads; the only place that knows their keys.

    A payload is flat, as in the predecessor: the text under `document_key`, next to the metadata.
    `ID_KEY` holds the id that users see, if it differs from the point's, and `CHUNK_KEY` the part
    of the document that the point stores, if the collection is chunked.

    Attributes:
        document_key: the key of the text.

    Raises:
        InputError: if `document_key` is not a str.
    """

    document_key: str = DOCUMENT_KEY

    def __post_init__(self) -> None:
        check_str("document_key", self.document_key)

    @property
    def reserved_keys(self) -> Mapping[str, str]:
        """Keys that metadata cannot have, and what is stored under them."""
        return {self.document_key: "the text", ID_KEY: "the id", CHUNK_KEY: "the chunk"}

    def encode(
        self,
        text: str,
        metadata: Mapping[str, Any],
        user_id: str | int | None = None,
        chunk: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return the payload of a point.

        Args:
            text: text of the document or the chunk.
            metadata: the document's metadata, without reserved keys.
            user_id: the id that users see, if it differs from the point's.
            chunk: the part of the document that the point stores, in a chunked collection.
        """
        payload = {self.document_key: text, **metadata}
        if user_id is not None:
            payload[ID_KEY] = user_id
        if chunk is not None:
            payload[CHUNK_KEY] = dict(chunk)
        return payload

    def document(self, payload: Mapping[str, Any] | None) -> str:
        """Return the text as a str; ``""`` if there is none."""
        return str((payload or {}).get(self.document_key, ""))

    def text(self, payload: Mapping[str, Any] | None) -> object:
        """Return the value of the text's key, which is anything if another tool wrote it."""
        return (payload or {}).get(self.document_key)

    def metadata(self, payload: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the user's metadata."""
        reserved = self.reserved_keys
        return {key: value for key, value in (payload or {}).items() if key not in reserved}


def user_id(point: models.PointStruct | models.Record | models.ScoredPoint) -> str | int:
    """Return a point's id as users see it.

    It is the id that was passed to `add`, else the point's: a whole number, or a UUID with hyphens.
    The id of a chunk is that of its document.
    """
    payload = point.payload or {}
    stored = payload.get(ID_KEY)
    if type(stored) is str or type(stored) is int:
        return stored
    if CHUNK_KEY in payload and (parent := chunk_parent(payload)) is not None:
        return parent_id(parent)  # a whole number that no payload can hold
    return point.id if isinstance(point.id, int) else str(point.id)


def parent_id(parent: str) -> str | int:
    """Return the id of a document's first point, as a point has it, from what its chunks say."""
    return int(parent) if parent.isdecimal() and len(parent) <= _DIGITS else parent


def same_json(first: object, second: object) -> bool:
    """Return whether two JSON values are equal as far as a server can tell them apart.

    A server returns a float as the nearest one or the one next to it (1 of 10 with 17 digits, none
    with fewer than 8). A whole number never equals a float or a bool.
    """
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(
            same_json(value, second[key]) for key, value in first.items()
        )
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(same_json, first, second))
    if isinstance(first, float) and isinstance(second, float):
        return math.isclose(first, second, rel_tol=_FLOAT_TOLERANCE)
    return type(first) is type(second) and first == second


@dataclass(frozen=True)
class ChunkFacts:
    """What a chunk's payload says of its place in a document, checked.

    Attributes:
        parent: the id of the document's first point, as a str.
        position: position among the document's chunks, from 0.
        count: number of these chunks.
        start: where its text begins in the document's.
        end: where it ends.
        before: what of the text stands before it, and is in no chunk; ``None`` for spaces alone.
        after: what stands behind it, and is in no chunk, if there is something.
        version: what the chunks of one version of a document have in common.
        digest: the digest of the text and metadata that the document has now; ``""`` if that is not
            known.
    """

    parent: str
    position: int
    count: int
    start: int
    end: int
    before: str | None
    after: str | None
    version: tuple[object, ...]
    digest: str | None


def chunk_facts(payload: Mapping[str, Any] | None) -> ChunkFacts | None:
    """Return what a payload says of a chunk.

    It is ``None`` for a point that is a document of its own, also one under whose key somebody else
    has stored something: what `add` never writes is no chunk.
    """
    chunk = (payload or {}).get(CHUNK_KEY)
    if not isinstance(chunk, Mapping):
        return None
    numbers = [
        number
        for name in ("position", "count", "start", "end")
        if type(number := chunk.get(name)) is int and 0 <= number < _NUMBERS
    ]
    if len(numbers) < 4:
        return None
    position, count, start, end = numbers
    texts = [chunk.get(name) for name in _CHUNK_TEXTS]
    if not all(text is None or isinstance(text, str) for text in texts):
        return None
    parent, before, after, document, spans, updated = texts
    if not parent or position >= count or start > end:
        return None
    digest = document if updated is None else updated
    return ChunkFacts(
        parent, position, count, start, end, before, after, (count, document, spans), digest
    )


def chunk_parent(payload: Mapping[str, Any] | None) -> str | None:
    """Return the document that a payload says its point is a chunk of, if it says so."""
    chunk = (payload or {}).get(CHUNK_KEY)
    parent = chunk.get("parent") if isinstance(chunk, Mapping) else None
    return parent if isinstance(parent, str) and parent else None
