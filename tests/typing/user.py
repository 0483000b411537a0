"""A program as a user writes it; checked by mypy --strict, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

import qdrant_embed
from qdrant_embed import (
    AsyncQdrantClient,
    AsyncQdrantEmbedMixin,
    Chunk,
    CollectionOptions,
    ContentIds,
    DenseEncoder,
    Document,
    IngestError,
    IngestProgress,
    ModelSpec,
    QdrantClient,
    QdrantEmbedMixin,
    QueryResponse,
    RankedDocument,
    Reranker,
    SparseDescription,
    SparseEncoder,
    SparseVector,
    StoredDocument,
    TextCrossEncoder,
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


class MyWords:
    """Fits SparseEncoder without naming it."""

    model_name = "words"

    def describe(self) -> SparseDescription:
        """What decides the vectors."""
        return SparseDescription("words", idf=True)

    def passage_embed(self, texts: Iterable[str], /) -> list[SparseVector]:
        """The same for every text."""
        return [SparseVector(np.array([1]), np.ones(1, np.float32)) for _ in texts]

    query_embed = passage_embed


class MyReranker:
    """Fits Reranker without naming it."""

    def rerank(self, query: str, documents: Sequence[str]) -> list[float]:
        """Longer is better."""
        return [float(len(document)) for document in documents]


class MyClient(QdrantEmbedMixin):
    """A client class of the user's own."""


class MyAsyncClient(AsyncQdrantEmbedMixin):
    """The same, asynchronous."""


def halves(text: str) -> list[tuple[int, int]]:
    """A splitter of the user's own."""
    return [(0, len(text) // 2), (len(text) // 2, len(text))]


def tell(progress: IngestProgress) -> None:
    """Shows how far it has come."""
    left: float | None = progress.seconds_left
    rate: float | None = progress.tokens_per_second
    print(progress.documents, progress.total, progress.tokens, progress.truncated, left, rate)


def program() -> None:
    """Uses every public method as documented."""
    client = QdrantClient(":memory:", timeout=10)
    client.set_model("BAAI/bge-small-en-v1.5", threads=2, lazy_load=True)
    client.set_model("nomic-ai/nomic-embed-text-v1.5", dimensions=256, lazy_load=True)
    client.set_model("folder", overflow="mean", overlap=32, splitter=halves, lazy_load=True)
    client.set_model("folder", overflow="chunk", lazy_load=True)
    client.query("demo", "b", chunks=True)
    client.delete_documents("demo", [1, UUID(int=1), "x"])
    client.update_metadata("demo", [1, UUID(int=1), "x"], {"seen": True})
    client.update_metadata("demo", [1], [{"seen": None}], wait=False)
    found: list[StoredDocument | None] = client.get_documents("demo", [1, "x"])
    print([document.text for document in found if document is not None])
    print(found[0].text)  # type: ignore[union-attr] # it may be missing
    for document in client.scroll_documents("demo", where={"k": 1}, after=1, batch_size=9):
        shown: str | int = document.id
        print(shown, document.text, document.metadata["k"], document.complete)
    client.add("copy", client.scroll_documents("demo"))
    parts: list[list[Chunk]] = list(TextEmbedding(overflow="chunk").chunks(["a", "b"]))
    print(parts[0][0].start, parts[0][0].end, parts[0][0].vector)
    client.set_model("folder", overflow="chop")  # type: ignore[arg-type] # must be refused
    client.set_model("folder", spec=ModelSpec("acme/embed", 384, "cls", 512), lazy_load=True)
    TextEmbedding("folder", lazy_load=True).export("/models/embed")
    ids: list[str | int] = client.add(
        "demo", ["a"], metadata=[{"k": 1}], ids=[1], batch_size=64, wait=False
    )
    client.add(collection_name="demo", documents=("a" for _ in range(3)), ids=[UUID(int=1), "x", 2])
    client.add("demo", [Document("a", {"k": 1}, "name"), "b"])
    client.add("demo", ["a"], ids="content")
    client.add("demo", ["a"], ids=ContentIds(keys=["k"]))
    client.add("demo", ["a"], progress=True)
    client.add("demo", ["a"], progress=tell)
    client.add("demo", ["a"], progress="yes")  # type: ignore[arg-type] # must be refused
    moved: int = client.migrate_model("demo", "folder", "new", progress=tell)
    client.retrieve("demo", [qdrant_embed.point_id("name")])
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
    print(moved, ids, score, text, vector, batches, vectors, client.get_embedding_size())
    words: SparseEncoder = MyWords()
    client.set_sparse_model(words, vector_name="words")
    client.set_sparse_model("Qdrant/bm25", language="german")
    sparse: dict[str, models.SparseVectorParams] | None
    sparse = client.get_fastembed_sparse_vector_params(modifier=models.Modifier.IDF)
    reranker: Reranker = MyReranker()
    where: Mapping[str, Any] = {"source": "docs", "year": {"gte": 2020}}
    client.query("demo", "b", where=where, fusion="dbsf", prefetch_limit=50, reranker=reranker)
    client.query("demo", "b", reranker="cross-encoder/ms-marco-MiniLM-L6-v2")
    client.set_reranker("cross-encoder/ms-marco-MiniLM-L6-v2", lazy_load=True, activation=None)
    client.set_reranker(reranker)
    before: float | None = hits[0].retrieval_score
    ranked: list[RankedDocument] = TextCrossEncoder().rank("b", ["a"], top_k=3)
    raw: list[float] = list(TextCrossEncoder(activation=None).rerank_pairs([("b", "a")]))
    print(before, ranked[0].index, ranked[0].score, ranked[0].document, raw)
    also: Reranker = TextCrossEncoder(lazy_load=True)
    client.query("demo", "b", reranker=also)
    client.query("demo", "b", reranker=3)  # type: ignore[arg-type] # must be refused
    client.query("demo", "b", fusion="sum")  # type: ignore[arg-type] # must be refused
    client.add("demo", ["a"], collection_options=CollectionOptions(on_disk=True, shard_number=2))
    indexed = CollectionOptions(indexed={"year": "integer", "lang": "keyword"})
    client.add("demo", ["a"], collection_options=indexed)
    copied: dict[str, int] = client.copy_to(QdrantClient(path="notes"), ["demo"], progress=tell)
    print(copied, MyClient(":memory:").copy_to(client, batch_size=64))
    client.copy_to(AsyncQdrantClient(":memory:"))  # type: ignore[arg-type] # must be refused
    client.document_key = "page_content"
    print(sparse, client.list_sparse_models(), client.list_text_models())
    client.query("demo", "b", no_such_option=1)  # type: ignore[call-arg] # must be refused
    client.set_model(3)  # type: ignore[arg-type] # must be refused
    try:
        client.add("demo", ["a"])
    except qdrant_embed.IngestError as error:
        print(error.stored_ids, error.failed_index)


async def asynchronous_program() -> None:
    """The same with await."""
    client = AsyncQdrantClient(url="http://localhost:6333")
    client.set_model("BAAI/bge-small-en-v1.5", vector_name="text")
    client.set_sparse_model("Qdrant/bm25")

    async def texts() -> AsyncIterator[str]:
        """Documents as they come."""
        yield "a"

    ids: list[str | int] = await client.add("demo", texts(), metadata=[{"k": 1}])
    hits: list[QueryResponse] = await client.query("demo", "b", where={"k": [1, 2]}, limit=3)
    batches: list[list[QueryResponse]] = await client.query_batch("demo", ["a"], rerank_limit=9)
    known: dict[str, tuple[int, models.Distance]] = await client.list_text_models()
    print(ids, hits, batches, known, client.get_vector_field_name())
    await client.query("demo", "b", no_such_option=1)  # type: ignore[call-arg] # must be refused
    await client.delete_documents("demo", ids)
    copied: dict[str, int] = await client.copy_to(AsyncQdrantClient(":memory:"))
    print(copied)
    await client.update_metadata("demo", ids, {"seen": True})
    found: list[StoredDocument | None] = await client.get_documents("demo", ids)
    print(found, [document.id async for document in client.scroll_documents("demo")])
    await client.add("copy", client.scroll_documents("demo"))
    account: IngestError | None = IngestError.behind(TimeoutError())
    print(account, await MyAsyncClient(":memory:").query("demo", "b"))
