"""The points of documents: their vectors and payloads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from qdrant_client import models

from qdrant_embed.collection.payload import PayloadCodec
from qdrant_embed.collection.vectors import CollectionVectors
from qdrant_embed.ingest.chunks import chunk_payloads
from qdrant_embed.ingest.documents import InputDocument


def encode_points(
    vectors: CollectionVectors, documents: Sequence[InputDocument], codec: PayloadCodec
) -> list[models.PointStruct]:
    """Encode documents and return their points, one per document or one per chunk, in order.

    Raises:
        ModelError: if an encoder returned something else than one vector per text.
        InputError: if a text is too long for an encoder with ``overflow="error"``.
    """
    if not documents:
        return []
    encoder = vectors.dense.encoder
    texts = [document.text for document in documents]
    if vectors.chunked:
        chunks = encoder.chunks(texts)
        payloads: dict[str | int, Mapping[str, Any]] = {}
        for document, parts in zip(documents, chunks, strict=True):
            payloads |= chunk_payloads(document, parts, codec)
        parts_of_all = chain.from_iterable(chunks)
        chunk_texts = [codec.document(payload) for payload in payloads.values()]
        encoded = vectors.complete(chunk_texts, (chunk.vector for chunk in parts_of_all))
    else:
        for document in documents:
            encoder.check_lengths([document.text], document.position)
        payloads = {document.point_id: document.payload(codec) for document in documents}
        encoded = vectors.encode(texts)
    return _points(payloads, encoded)


def _points(
    payloads: Mapping[str | int, Mapping[str, Any]], vectors: Iterable[models.VectorStruct]
) -> list[models.PointStruct]:
    return [
        models.PointStruct(id=point_id, vector=vector, payload=dict(payload))
        for (point_id, payload), vector in zip(payloads.items(), vectors, strict=True)
    ]
