"""Documents as several points each: their chunks, and what a collection has of them."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from qdrant_client import models

from qdrant_embed.encoder.interfaces import Chunk
from qdrant_embed.ingest.documents import PendingPoint
from qdrant_embed.ingest.ids import CHUNK_KEY, ID_KEY, canonical_json, chunk_id

PARENT_FIELD = f"{CHUNK_KEY}.parent"


def chunk_points(document: PendingPoint, chunks: Sequence[Chunk]) -> list[PendingPoint]:
    """A point for each chunk; the first has the document's own id.

    All carry the document's metadata and its id as users see it, and under ``qdrant_embed_chunk``
    ``parent`` (the id of the document's first point, as a str), ``position`` (from 0 on),
    ``count`` (of chunks), ``start`` and ``end`` in the document's text, and the digests
    ``document_sha256`` (of text and metadata) and ``spans_sha256`` (of how the text is split).
    """
    facts = {
        "parent": str(document.id),
        "count": len(chunks),
        "document_sha256": document_digest(document),
        "spans_sha256": _digest([[chunk.start, chunk.end] for chunk in chunks]),
    }
    return [
        PendingPoint(
            point := chunk_id(document.id, position),
            point,
            document.text[chunk.start : chunk.end],
            {
                **document.metadata,
                ID_KEY: document.shown_id,
                CHUNK_KEY: {
                    **facts,
                    "position": position,
                    "start": chunk.start,
                    "end": chunk.end,
                },
            },
            document.position,
        )
        for position, chunk in enumerate(chunks)
    ]


def document_digest(document: PendingPoint) -> str:
    """The SHA-256 of the document's text and metadata, in hexadecimal."""
    return _digest([document.text, dict(document.metadata)])


def of_documents(ids: Iterable[str | int]) -> models.FieldCondition:
    """The condition that chunks of these documents fulfil; ids as Qdrant has them."""
    return models.FieldCondition(key=PARENT_FIELD, match=models.MatchAny(any=[*map(str, ids)]))


class StoredChunks:
    """What a collection has of some documents.

    Args:
        records: every point that `of_documents` finds, with what is under ``qdrant_embed_chunk``.
    """

    def __init__(self, records: Iterable[models.Record]) -> None:
        self._points: defaultdict[str, dict[str | int, Mapping[str, Any]]] = defaultdict(dict)
        for record in records:
            facts = (record.payload or {})[CHUNK_KEY]
            self._points[facts["parent"]][cast(str | int, record.id)] = facts

    def of(self, document: PendingPoint) -> set[str | int]:
        """Ids of the document's points."""
        return set(self._points.get(str(document.id), ()))

    def are_all_of(self, document: PendingPoint) -> bool:
        """Whether the document's points are all its chunks, and nothing else.

        After an `add` that was killed they are not: some are missing, are of another text, or are
        of the same text but split in another way.
        """
        points = self._points.get(str(document.id), {})
        wanted = {chunk_id(document.id, position) for position in range(len(points))}
        said = {
            (facts.get("count"), facts.get("document_sha256"), facts.get("spans_sha256"))
            for facts in points.values()
        }
        if points.keys() != wanted or len(said) != 1:
            return False
        ((count, digest, _),) = said
        return count == len(points) and digest == document_digest(document)


class Replacement:
    """Documents on their way into a collection, chunk by chunk, and what of them becomes stale."""

    def __init__(self) -> None:
        self._left: dict[str, int] = {}
        self._old: dict[str, set[str | int]] = {}
        self._stale: dict[str, set[str | int]] = {}

    def expect(self, documents: Iterable[PendingPoint], stored: StoredChunks) -> None:
        """Notes which points the collection has of documents that are to be stored anew."""
        for document in documents:
            if old := stored.of(document):
                self._old[str(document.id)] = old

    def note_stored(self, points: Iterable[models.PointStruct]) -> Iterator[str | int]:
        """Ids of the documents that are complete with these points, with nothing stale left."""
        for point in points:
            facts = (point.payload or {})[CHUNK_KEY]
            parent = facts["parent"]
            self._old.get(parent, set()).discard(cast(str | int, point.id))
            left = self._left.pop(parent, facts["count"]) - 1
            if left:
                self._left[parent] = left
            elif old := self._old.pop(parent, None):
                self._stale[parent] = old
            else:
                yield _document_id(parent)

    @property
    def stale(self) -> list[str | int]:
        """Points that are to be deleted, now that all that replaces them is stored."""
        return [point for points in self._stale.values() for point in points]

    def note_deleted(self) -> list[str | int]:
        """Ids of the documents whose stale points are deleted."""
        complete = [_document_id(parent) for parent in self._stale]
        self._stale.clear()
        return complete


def _document_id(parent: str) -> str | int:
    return int(parent) if parent.isdecimal() else parent


def _digest(value: object) -> str:
    return hashlib.sha256(canonical_json(value)).hexdigest()
