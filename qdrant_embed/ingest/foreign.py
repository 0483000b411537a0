"""What stored points have that `add` does not own, and keeps when it stores documents again."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from qdrant_client import models

from qdrant_embed.collection.payload import CHUNK_KEY, PayloadCodec, chunk_facts
from qdrant_embed.engines.points import Kept, Points


class Foreign:
    """What the points of documents that are about to be stored again have from somebody else.

    These are vectors under other names, and keys of the payload that the documents do not have. A
    point that has neither is stored as a new one would be, which takes less time.

    Args:
        codec: knows the keys of our own.

    Attributes:
        has_vectors: whether the collection has vectors under other names than ours.
    """

    def __init__(self, codec: PayloadCodec) -> None:
        self._codec, self.has_vectors = codec, False
        self._points: dict[str | int, Kept] = {}
        self._documents: dict[str, Mapping[str, Any]] = {}

    @property
    def look_up(self) -> models.PayloadSelectorExclude:
        """The part of a payload to look up: all of it but the text."""
        return models.PayloadSelectorExclude(exclude=[self._codec.document_key])

    def note(self, point: models.Record, owned: Collection[str]) -> None:
        """Note what a point has besides the keys of the payload that will be stored in it."""
        payload, reserved = point.payload or {}, self._codec.reserved_keys
        others = {
            key: value for key, value in payload.items() if key not in owned and key not in reserved
        }
        if not others and not self.has_vectors:
            return
        stale = any(key in reserved and key not in owned for key in payload)
        self._points[point.id] = Kept(others, overwrites=stale)  # type: ignore[index]
        chunk = chunk_facts(payload)
        if chunk is not None and chunk.position == 0 and others:
            self._documents[chunk.parent] = others

    def split(self, points: Points) -> tuple[Points, Points, dict[str | int, Kept]]:
        """Return the points to store as new ones, those to change, and what the latter keep.

        New chunks get the keys that the first chunk of their document has from somebody else.
        """
        kept = {
            point: noted
            for point in points.ids
            if (noted := self._points.pop(point, None)) is not None
        }
        if not kept and not self._documents:
            return points, points[:0], kept
        fresh = points.where(lambda point: point not in kept)
        fresh = fresh.with_payloads([self._with_others(payload) for payload in fresh.payloads])
        return fresh, points.where(kept.__contains__), kept

    def forget(self, document: str | int) -> None:
        """Forget what the first chunk of a document had, once all of the document is stored."""
        self._documents.pop(str(document), None)

    def _with_others(self, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        parent = payload[CHUNK_KEY]["parent"] if CHUNK_KEY in payload else None
        return {**self._documents[parent], **payload} if parent in self._documents else payload
