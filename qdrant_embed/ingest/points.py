"""Documents to points, and found points to results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qdrant_client import models

from qdrant_embed.ingest.documents import DOCUMENT_KEY, PendingPoint
from qdrant_embed.ingest.ids import ID_KEY


def to_points(
    documents: Sequence[PendingPoint],
    vectors: Sequence[Mapping[str, Any]],
    document_key: str = DOCUMENT_KEY,
) -> list[models.PointStruct]:
    """Points, one for each document, with the vectors of the same place, by their names."""
    return [
        models.PointStruct(
            id=document.id,
            # a vector without a name goes without a dict, unless a sparse one stands beside it
            vector=named[""] if set(named) == {""} else dict(named),
            payload=document.payload(document_key),
        )
        for document, named in zip(documents, vectors, strict=True)
    ]


def id_of(point: models.PointStruct | models.Record | models.ScoredPoint) -> str | int:
    """The point's id as users see it: as it was given, else as Qdrant has it, a whole number or a
    UUID written with hyphens. That of a chunk is its document's.
    """
    given = (point.payload or {}).get(ID_KEY)
    if isinstance(given, str | int):
        return given
    return point.id if isinstance(point.id, int) else str(point.id)
