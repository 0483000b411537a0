"""A program as a user writes it; checked by mypy --strict, never run."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

import qdrant_embed
from qdrant_embed import (
    DenseEncoder,
    ModelSpec,
    QdrantClient,
    QdrantEmbedMixin,
    QueryResponse,
    TextEmbedding,
)


class MyEncoder:
    """Fits DenseEncoder without naming it."""

    model_name = "mine"
    dimension = 3

    def passage_embed(self, texts: Iterable[str], /) -> list[list[float]]:
        """Three numbers a text."""
        return [[1.0, 2.0, 3.0] for _ in texts]

    def query_embed(self, query: Iterable[str], /) -> NDArray[np.float32]:
        """The same, as an array."""
        return np.ones((len(list(query)), 3), np.float32)


class MyClient(QdrantEmbedMixin):
    """A client class of the user's own."""


def program() -> None:
    """Uses every public method as documented."""
    client = QdrantClient(":memory:", timeout=10)
    client.set_model("BAAI/bge-small-en-v1.5", threads=2, lazy_load=True)
    client.set_model("nomic-ai/nomic-embed-text-v1.5", dimensions=256, lazy_load=True)
    client.set_model("folder", spec=ModelSpec("acme/embed", 384, "cls", 512), lazy_load=True)
    TextEmbedding("folder", lazy_load=True).export("/models/embed")
    ids: list[str | int] = client.add(
        "demo", ["a"], metadata=[{"k": 1}], ids=[1], batch_size=64, wait=False
    )
    client.add(collection_name="demo", documents=("a" for _ in range(3)), ids=[UUID(int=1), "x", 2])
    hits: list[QueryResponse] = client.query("demo", query_text="b", limit=3, with_vectors=True)
    score: float = hits[0].score
    text: str = hits[0].document
    vector: list[float] | None = hits[0].embedding
    batches: list[list[QueryResponse]] = client.query_batch(
        "demo", ["a"], query_filter=models.Filter(), score_threshold=0.5
    )
    config: dict[str, models.VectorParams] = client.get_fastembed_vector_params(on_disk=True)
    client.create_collection("own", vectors_config=config)
    encoder: DenseEncoder = MyEncoder()
    MyClient(":memory:").set_model(encoder)
    vectors: list[NDArray[np.float32]] = list(TextEmbedding().embed(["a", "b"]))
    print(ids, score, text, vector, batches, vectors, client.get_embedding_size())
    client.query("demo", "b", no_such_option=1)  # type: ignore[call-arg] # must be refused
    client.set_model(3)  # type: ignore[arg-type] # must be refused
    try:
        client.add("demo", ["a"])
    except qdrant_embed.IngestError as error:
        print(error.stored_ids, error.failed_index)
