"""The points of documents: their vectors and payloads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np

from qdrant_embed.collection.payload import PayloadCodec
from qdrant_embed.collection.vectors import CollectionVectors
from qdrant_embed.engines.points import Points
from qdrant_embed.errors import InputError
from qdrant_embed.ingest.chunks import chunk_payloads
from qdrant_embed.ingest.documents import InputDocument


def encode_points(
    vectors: CollectionVectors, documents: Sequence[InputDocument], codec: PayloadCodec
) -> Points:
    """Encode documents and return their points, one per document or one per chunk, in order.

    Raises:
        ModelError: if an encoder returned something else than one vector per text.
        InputError: if a text is too long for an encoder with ``overflow="error"``, or an encoder
            cannot read it.
    """
    encoder = vectors.dense.encoder
    if not documents:
        none = np.empty((0, encoder.dimension), np.float32)
        return Points([], [], none, vectors.dense.vector_name)
    texts = [document.text for document in documents]
    if not vectors.chunked:
        for document in documents:
            encoder.check_lengths([document.text], document.position)
        ids = [document.point_id for document in documents]
        document_payloads = [document.payload(codec) for document in documents]
        with _position_of(documents):
            return vectors.points(ids, document_payloads, texts)
    with _position_of(documents):
        chunks = encoder.chunks(texts)
    payloads: dict[str | int, Mapping[str, Any]] = {}
    for document, parts in zip(documents, chunks, strict=True):
        payloads |= chunk_payloads(document, parts, codec)
    rows = np.stack([chunk.vector for chunk in chain.from_iterable(chunks)])
    chunk_texts = [codec.document(payload) for payload in payloads.values()]
    return vectors.points([*payloads], [*payloads.values()], chunk_texts, rows)


@contextmanager
def _position_of(documents: Sequence[InputDocument]) -> Iterator[None]:
    """Have an encoder's `InputError` about one of `documents` state its position in the input."""
    try:
        yield
    except InputError as error:
        if error.index is None:
            raise
        position = documents[error.index].position
        raise InputError(
            f"documents[{position}] cannot be encoded: {error}", index=position
        ) from error
