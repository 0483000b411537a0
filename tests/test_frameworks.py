"""What the modules of frameworks stand on, without any of them: see tests/frameworks/."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import qdrant_client
from qdrant_client import models
from tiny import TinyModel

from qdrant_embed import AsyncQdrantClient, Document, InputError, QdrantClient
from qdrant_embed.collection.payload import PayloadCodec
from qdrant_embed.frameworks import FrameworkCollection
from qdrant_embed.search.filters import below

DOCUMENTS = [Document("a storm", {"year": 1}, id=1), Document("the cat sat", {"year": 2}, id=2)]


def collection(client: Any, **options: Any) -> FrameworkCollection:
    names = {"dense_name": "", "sparse_name": "words", **options}
    return FrameworkCollection(client, "demo", PayloadCodec("text"), **names)


def added(own: FrameworkCollection) -> FrameworkCollection:
    own.run(lambda: own.add(DOCUMENTS))
    return own


def test_a_new_collection_has_the_frameworks_names_and_payloads(tiny: TinyModel) -> None:
    client = QdrantClient(":memory:")
    own = collection(client)
    client.set_model(tiny.path)  # later than the collection was named
    client.set_sparse_model("Qdrant/bm25")
    added(own)
    params = client.get_collection("demo").config.params
    assert isinstance(params.vectors, models.VectorParams) or set(params.vectors or ()) == {""}
    assert set(params.sparse_vectors or ()) == {"words"}
    (point,) = client.retrieve("demo", [1])
    assert point.payload == {"text": "a storm", "year": 1}
    client.document_key = "text"
    assert client.query("demo", "a storm", limit=1)[0].document == "a storm"


def test_a_name_that_the_user_chose_is_that_of_the_vector(tiny: TinyModel) -> None:
    client = QdrantClient(":memory:")
    client.set_model(tiny.path, vector_name="mine")
    client.set_sparse_model("Qdrant/bm25", vector_name="terms")
    added(collection(client))
    params = client.get_collection("demo").config.params
    assert set(params.vectors or ()) == {"mine"}
    assert set(params.sparse_vectors or ()) == {"terms"}


@pytest.mark.parametrize("name", ["", "usual", "fast-tiny-bert"])
def test_the_vector_of_a_collection_of_somebody_else_is_found(tiny: TinyModel, name: str) -> None:
    client = QdrantClient(":memory:")
    client.set_model(tiny.path)
    size = models.VectorParams(size=client.get_embedding_size(), distance=models.Distance.COSINE)
    client.create_collection("demo", {name: size} if name else size)
    vector: Any = [1.0] * size.size
    point = models.PointStruct(
        id=9, vector={name: vector} if name else vector, payload={"text": "theirs"}
    )
    client.upsert("demo", [point])
    own = added(collection(client, dense_name="usual"))
    hits = own.run(lambda: own.search("a storm", limit=5))
    assert {hit.document for hit in hits} == {"a storm", "the cat sat", "theirs"}
    assert client.get_collection("demo").config.metadata in (None, {})


def test_one_flow_serves_both_clients(tiny: TinyModel) -> None:
    async def program() -> None:
        client = AsyncQdrantClient(":memory:")
        client.set_model(tiny.path)
        own = collection(client)
        await own.arun(lambda: own.add(DOCUMENTS))
        (hit,) = await own.arun(lambda: own.search("a storm", limit=1))
        assert (hit.id, hit.document) == (1, "a storm")
        assert await own.arun(own.count) == 2
        with pytest.raises(InputError, match="asynchronous methods only"):
            own.run(own.count)
        await client.close()

    asyncio.run(program())
    own = collection(QdrantClient(":memory:"))
    own.client.set_model(tiny.path)
    asyncio.run(own.arun(lambda: own.add(DOCUMENTS)))
    assert own.run(own.count) == 2


def test_a_vector_is_searched_with_the_words_of_its_text(tiny: TinyModel) -> None:
    client = QdrantClient(":memory:")
    client.set_model(tiny.path)
    client.set_sparse_model("Qdrant/bm25")
    own = added(collection(client))
    vector = own.selection.current.queries(["a storm"])[0].tolist()
    fused = own.run(lambda: own.search_vector(vector, "a storm", limit=2))
    assert fused == own.run(lambda: own.search("a storm", limit=2))
    assert own.distance() is None
    dense = own.run(lambda: own.search_vector(vector, limit=1))
    assert dense[0].score == pytest.approx(1, abs=0.02)
    with pytest.raises(InputError, match="has 2 dimensions"):
        own.run(lambda: own.search_vector([1.0, 2.0]))


def test_what_cannot_be_used_is_refused() -> None:
    with pytest.raises(InputError, match="of qdrant_embed, not qdrant_client"):
        collection(qdrant_client.QdrantClient(":memory:"))


def test_filters_are_put_below_a_key() -> None:
    where = {"year": {"gte": 1}, "or": [{"a.b": 1}, {"not": {"c": [1]}}], '"or"': 2}
    assert below(where, "metadata") == {
        "metadata.year": {"gte": 1},
        "or": [{"metadata.a.b": 1}, {"not": {"metadata.c": [1]}}],
        'metadata."or"': 2,
    }
