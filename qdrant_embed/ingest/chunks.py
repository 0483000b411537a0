"""Documents stored as one point per chunk: their payloads, and how old chunks are replaced."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from qdrant_client import models

from qdrant_embed.collection.payload import (
    CHUNK_KEY,
    PARENT_FIELD,
    WHOLE_NUMBERS,
    PayloadCodec,
    chunk_of,
    parent_id,
)
from qdrant_embed.encoder.interfaces import Chunk
from qdrant_embed.engines.points import Points
from qdrant_embed.ingest.documents import InputDocument
from qdrant_embed.ingest.ids import canonical_json, chunk_id


def chunk_payloads(
    document: InputDocument, chunks: Sequence[Chunk], codec: PayloadCodec
) -> dict[str | int, dict[str, Any]]:
    """Return the payload of each chunk by the id of its point; the first has the document's id.

    Each holds the document's metadata, its id as users see it, and the facts of the chunk:
    ``parent`` (id of the document's first point, as a str), ``position`` (from 0), ``count``
    (number of chunks), ``start`` and ``end`` in the document's text, and the digests
    ``document_sha256`` (of text and metadata) and ``spans_sha256`` (of where the text is split).
    """
    facts = {
        "parent": str(document.point_id),
        "count": len(chunks),
        "document_sha256": document_digest(document),
        "spans_sha256": _digest([[chunk.start, chunk.end] for chunk in chunks]),
    }
    user_id: str | int | None = document.user_id
    if isinstance(user_id, int) and user_id not in WHOLE_NUMBERS:
        user_id = None  # which the parent says as well
    return {
        chunk_id(document.point_id, position): codec.encode(
            document.text[chunk.start : chunk.end],
            document.metadata,
            user_id,
            {**facts, "position": position, "start": chunk.start, "end": chunk.end},
        )
        for position, chunk in enumerate(chunks)
    }


def document_digest(document: InputDocument) -> str:
    """Return the SHA-256 of the document's text and metadata, in hexadecimal."""
    return _digest([document.text, dict(document.metadata)])


def chunks_of(point_ids: Iterable[str | int]) -> models.FieldCondition:
    """Return the condition that the chunks of documents meet, given the documents' point ids."""
    return models.FieldCondition(
        key=PARENT_FIELD, match=models.MatchAny(any=[*map(str, point_ids)])
    )


class StoredChunks:
    """A collection's chunks of the documents that were looked up.

    Args:
        records: all points that meet `chunks_of`, with the facts of their chunks.
    """

    def __init__(self, records: Iterable[models.Record]) -> None:
        self._points: defaultdict[str, dict[str | int, Mapping[str, Any]]] = defaultdict(dict)
        for record in records:
            facts = chunk_of(record)
            self._points[facts["parent"]][cast("str | int", record.id)] = facts

    def of(self, document: InputDocument) -> set[str | int]:
        """Return the ids of the document's points."""
        return set(self._points.get(str(document.point_id), ()))

    def are_all_of(self, document: InputDocument) -> bool:
        """Return whether the stored points are exactly the document's chunks.

        After an `add` that was killed, some can be missing, belong to another text, or to the same
        text split in another way.
        """
        points = self._points.get(str(document.point_id), {})
        expected = {chunk_id(document.point_id, position) for position in range(len(points))}
        versions = {
            (facts.get("count"), facts.get("document_sha256"), facts.get("spans_sha256"))
            for facts in points.values()
        }
        if points.keys() != expected or len(versions) != 1:
            return False
        ((count, digest, _),) = versions
        return count == len(points) and digest == document_digest(document)


class Replacement:
    """The state of documents that are stored chunk by chunk, and of their old points."""

    def __init__(self) -> None:
        self._left: dict[str, int] = {}
        self._old: dict[str, set[str | int]] = {}
        self._stale: dict[str, set[str | int]] = {}

    def expect(self, documents: Iterable[InputDocument], stored: StoredChunks) -> None:
        """Note the collection's points of documents that are about to be stored again."""
        for document in documents:
            if old := stored.of(document):
                self._old[str(document.point_id)] = old

    def note_stored(self, points: Points) -> Iterator[str | int]:
        """Yield the ids of documents that these points complete, unless old points are stale."""
        for point_id, payload in zip(points.ids, points.payloads, strict=True):
            facts = payload[CHUNK_KEY]
            parent = facts["parent"]
            self._old.get(parent, set()).discard(point_id)
            left = self._left.pop(parent, facts["count"]) - 1
            if left:
                self._left[parent] = left
            elif old := self._old.pop(parent, None):
                self._stale[parent] = old
            else:
                yield parent_id(parent)

    @property
    def stale(self) -> list[str | int]:
        """Old points to delete, because everything that replaces them is stored."""
        return [point for points in self._stale.values() for point in points]

    def note_deleted(self) -> list[str | int]:
        """Return the ids of documents whose stale points have just been deleted."""
        complete = [parent_id(parent) for parent in self._stale]
        self._stale.clear()
        return complete


def _digest(value: object) -> str:
    return hashlib.sha256(canonical_json(value)).hexdigest()
