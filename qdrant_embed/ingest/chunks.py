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
    ChunkFacts,
    PayloadCodec,
    chunk_facts,
    chunk_parent,
    parent_id,
)
from qdrant_embed.encoder.interfaces import Chunk
from qdrant_embed.engines.points import Points
from qdrant_embed.ingest.documents import InputDocument
from qdrant_embed.ingest.ids import canonical_json, chunk_id
from qdrant_embed.limits import CHUNK_GAP


def chunk_payloads(
    document: InputDocument, chunks: Sequence[Chunk], codec: PayloadCodec
) -> dict[str | int, dict[str, Any]]:
    """Return the payload of each chunk by the id of its point; the first has the document's id.

    Each holds the document's metadata, its id as users see it, and the facts of the chunk:
    ``parent`` (id of the document's first point, as a str), ``position`` (from 0), ``count``
    (number of chunks), ``start`` and ``end`` in the document's text, and the digests
    ``document_sha256`` (of text and metadata) and ``spans_sha256`` (of where the text is split).
    What of the text is in no chunk is in ``before`` of the chunk that follows, unless it consists
    of spaces, and in ``after`` of the last one. `update_metadata` adds ``updated_sha256``.
    """
    facts = {
        "parent": str(document.point_id),
        "count": len(chunks),
        "document_sha256": document_digest(document),
        "spans_sha256": _digest([[chunk.start, chunk.end] for chunk in chunks]),
    }
    between = _between(document.text, chunks)
    user_id: str | int | None = document.user_id
    if isinstance(user_id, int) and user_id not in WHOLE_NUMBERS:
        user_id = None  # which the parent says as well
    return {
        chunk_id(document.point_id, position): codec.encode(
            document.text[chunk.start : chunk.end],
            document.metadata,
            user_id,
            {**facts, "position": position, "start": chunk.start, "end": chunk.end}
            | between[position],
        )
        for position, chunk in enumerate(chunks)
    }


def document_digest(document: InputDocument) -> str:
    """Return the SHA-256 of the document's text and metadata, in hexadecimal."""
    return content_digest(document.text, document.metadata)


def content_digest(text: str, metadata: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a text and its metadata, in hexadecimal."""
    return _digest([text, dict(metadata)])


def update_digest(digest: str) -> dict[str, str]:
    """Return the facts to set in a document's chunks when its metadata has been changed."""
    return {"updated_sha256": digest}


def joined_text(parts: Iterable[tuple[ChunkFacts, str]]) -> str:
    """Return the text of a document, given the facts and texts of its chunks.

    A missing chunk, and what no chunk has, are as many spaces, so that offsets are right. Of more
    than `CHUNK_GAP` spaces the rest is left out: somebody else wrote these facts.
    """
    text, reached, after, gaps = [], 0, "", CHUNK_GAP
    for facts, part in sorted(parts, key=_place):
        if facts.start > reached:
            gap = min(facts.start - reached, gaps)
            gaps -= gap
            text.append((facts.before or "").rjust(gap))
            reached = facts.start
        text.append(part[reached - facts.start :])
        reached = max(reached, facts.end)
        after = after if facts.after is None else facts.after
    return "".join([*text, after])


def _place(part: tuple[ChunkFacts, str]) -> tuple[int, int, int]:
    facts, _ = part
    return facts.start, facts.end, facts.position


def _between(text: str, chunks: Sequence[Chunk]) -> list[dict[str, str]]:
    """Return for each chunk what of the text is in none, and must be known to join them."""
    found: list[dict[str, str]] = [{} for _ in chunks]
    order = sorted(range(len(chunks)), key=lambda n: (chunks[n].start, chunks[n].end, n))
    reached = 0
    for position in order:
        before = text[reached : chunks[position].start]
        if before.strip(" "):
            found[position]["before"] = before
        reached = max(reached, chunks[position].end)
    if order and reached < len(text):
        found[order[-1]]["after"] = text[reached:]
    return found


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
        self._points: defaultdict[str, dict[str | int, ChunkFacts | None]] = defaultdict(dict)
        for record in records:
            if (parent := chunk_parent(record.payload)) is not None:
                self._points[parent][cast("str | int", record.id)] = chunk_facts(record.payload)

    def of(self, document: InputDocument) -> set[str | int]:
        """Return the ids of the document's points."""
        return set(self._points.get(str(document.point_id), ()))

    def are_all_of(self, document: InputDocument) -> bool:
        """Return whether the stored points are exactly the document's chunks.

        After an `add` that was killed, some can be missing, belong to another text, or to the same
        text split in another way.
        """
        points = self._points.get(str(document.point_id))
        if not points:
            return False
        expected = {chunk_id(document.point_id, position) for position in range(len(points))}
        if points.keys() != expected:
            return False
        [facts, *others] = points.values()
        return (
            facts is not None
            and facts.count == len(points)
            and facts.digest == document_digest(document)
            and all(
                other is not None and (other.version, other.digest) == (facts.version, facts.digest)
                for other in others
            )
        )


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
