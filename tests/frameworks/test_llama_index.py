"""LlamaIndex: an index on either client, and the library of its own store on the same data."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from clients import at
from llama_index.core import Document, MockEmbedding, StorageContext, VectorStoreIndex
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from llama_index.vector_stores.qdrant import QdrantVectorStore as Theirs
from qdrant_client import models
from rest_server import serving
from tiny import TinyModel

from qdrant_embed import AsyncQdrantClient, InputError, QdrantClient, TextEmbedding
from qdrant_embed.llama_index import QdrantEmbedding, QdrantVectorStore, sparse_functions

pytestmark = [
    # theirs asks for an index of payloads everywhere, and leaves connections of its uploads open
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect"),
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

TEXTS = ["the ship sailed", "a storm", "the cat sat", "a dog and one cat in the market"]
METADATA: list[dict[str, Any]] = [
    {"year": 2019, "kind": "sea"},
    {"year": 2021, "kind": "sea"},
    {"year": 2022, "kind": "pet", "tags": ["cat"]},
    {"year": 2024, "kind": "pet", "tags": ["cat", "dog"]},
]


def nodes() -> list[TextNode]:
    """Four nodes of two documents, with ids that theirs accepts."""
    return [
        TextNode(
            id_=f"00000000-0000-0000-0000-00000000000{number}",
            text=text,
            metadata=dict(metadata),
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=str(metadata["kind"]))},
        )
        for number, (text, metadata) in enumerate(zip(TEXTS, METADATA, strict=True))
    ]


def embedded(model: Any) -> list[TextNode]:
    """The same with their vectors, as an index passes them."""
    found = nodes()
    for node in found:
        node.embedding = model.get_text_embedding(
            node.get_content(metadata_mode=cast("Any", "embed"))
        )
    return found


@pytest.fixture(params=["memory", "local", "edge", "server", "grpc"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
    if request.param in ("server", "grpc"):
        with serving(grpc=request.param == "grpc") as running:
            yield at(running, grpc=request.param == "grpc")
    elif request.param == "memory":
        yield {"location": ":memory:"}
    else:
        yield {"path": str(tmp_path / "db"), "engine": request.param}


@pytest.fixture(params=["sync", "async"])
def client(request: pytest.FixtureRequest, place: dict[str, Any]) -> Any:
    return (QdrantClient if request.param == "sync" else AsyncQdrantClient)(**place)


class Caller:
    """A store on either client, whose methods are called alike."""

    def __init__(self, client: Any, *arguments: Any, **options: Any) -> None:
        self.client, self.store = client, QdrantVectorStore(client, *arguments, **options)

    async def __call__(self, method: str, *arguments: Any, **options: Any) -> Any:
        if isinstance(self.client, QdrantClient):
            return getattr(self.store, method)(*arguments, **options)
        name = "async_add" if method == "add" else f"a{method}"
        return await getattr(self.store, name)(*arguments, **options)


def where(*conditions: tuple[str, str, Any], by: str = "and") -> MetadataFilters:
    return MetadataFilters(
        filters=[
            MetadataFilter(key=key, operator=FilterOperator(operator), value=value)
            for key, operator, value in conditions
        ],
        condition=FilterCondition(by),
    )


FILTERS = [
    (where(("year", ">=", 2022)), {2, 3}),
    (where(("year", ">", 2022)), {3}),
    (where(("year", "<", 2021)), {0}),
    (where(("year", "<=", 2021)), {0, 1}),
    (where(("kind", "==", "sea"), ("year", "==", 2021)), {1}),
    (where(("year", "==", 2019), ("year", "==", 2024), by="or"), {0, 3}),
    (where(("kind", "!=", "sea")), {2, 3}),
    (where(("year", "in", [2019, 2024])), {0, 3}),
    (where(("kind", "in", ["sea", "pet"])), {0, 1, 2, 3}),
    (where(("kind", "nin", ["sea"])), {2, 3}),
    (where(("tags", "any", ["dog", "bird"])), {3}),
    (where(("tags", "all", ["dog", "cat"])), {3}),
    (where(("tags", "contains", "cat")), {2, 3}),
    (where(("tags", "is_empty", None)), {0, 1}),
    (where(("kind", "text_match", "sea")), {0, 1}),
    (where(("kind", "==", "sea"), by="not"), {2, 3}),
    (
        MetadataFilters(
            filters=[where(("kind", "==", "sea")), where(("year", ">", 2023))],
            condition=FilterCondition.OR,
        ),
        {0, 1, 3},
    ),
]


@pytest.mark.parametrize("own_model", [False, True], ids=["embed_model", "client"])
@pytest.mark.parametrize("hybrid", [False, True], ids=["dense", "hybrid"])
async def test_what_an_index_asks_of_a_store(
    client: Any, tiny: TinyModel, hybrid: bool, own_model: bool
) -> None:
    if hybrid:
        client.set_sparse_model("Qdrant/bm25")
    model = QdrantEmbedding(tiny.path)
    if own_model:
        client.set_model(tiny.path)
    call = Caller(client, "demo", embed_model=None if own_model else model)
    assert call.store.is_embedding_query is not own_model
    given = embedded(model)
    assert await call("add", given) == [node.node_id for node in given]
    vector = None if own_model else model.get_query_embedding("a storm")
    query = VectorStoreQuery(vector, similarity_top_k=4, query_str="a storm")
    found = await call("query", query)
    assert len(found.nodes) == 4
    first = next(node for node in found.nodes if node.text == "a storm")
    assert first.metadata == METADATA[1]
    assert first.ref_doc_id == "sea"
    assert found.ids == [node.node_id for node in found.nodes]
    assert found.similarities == sorted(found.similarities, reverse=True)
    for condition, expected in FILTERS:
        query = VectorStoreQuery(vector, similarity_top_k=4, query_str="a storm", filters=condition)
        answer = await call("query", query)
        assert {TEXTS.index(node.text) for node in answer.nodes} == expected
        back = await call("get_nodes", filters=condition)
        assert {TEXTS.index(node.text) for node in back} == expected
    for mode, more in (("hybrid", {"hybrid_top_k": 2}), ("mmr", {"mmr_threshold": 0.3})):
        query = VectorStoreQuery(
            vector,
            similarity_top_k=2,
            query_str="a storm",
            mode=VectorStoreQueryMode(mode),
            doc_ids=["sea"],
            **more,
        )
        answer = await call("query", query)
        assert {node.text for node in answer.nodes} == {*TEXTS[:2]}
    for mode in ("sparse", "text_search") if hybrid else ():
        query = VectorStoreQuery(
            vector, similarity_top_k=1, query_str="cats", mode=VectorStoreQueryMode(mode)
        )
        answer = await call("query", query)  # of the two texts with a cat, the shorter one
        assert [node.text for node in answer.nodes] == [TEXTS[2]]
        query = replace(query, query_str="nowhere", similarity_top_k=4)
        assert (await call("query", query)).nodes == []
        query = replace(query, query_str="cats", doc_ids=["sea"])
        assert (await call("query", query)).nodes == []
        query = replace(query, doc_ids=None, sparse_top_k=2)
        assert len((await call("query", replace(query, similarity_top_k=1))).nodes) == (
            2 if mode == "sparse" else 1
        )
    wanted = [given[2].node_id, given[0].node_id]
    assert {node.text for node in await call("get_nodes", wanted)} == {TEXTS[0], TEXTS[2]}
    await call("delete_nodes", [given[2].node_id])
    await call("delete", "sea")
    assert [node.text for node in await call("get_nodes")] == [TEXTS[3]]
    await call("clear")
    assert await call("get_nodes") == []
    close = client.close()
    if close is not None:
        await close


@pytest.mark.parametrize("own_model", [False, True], ids=["embed_model", "client"])
async def test_a_program_of_a_user(tiny: TinyModel, own_model: bool) -> None:
    client = QdrantClient(":memory:")
    client.set_model(tiny.path)
    model = QdrantEmbedding(tiny.path)
    store = QdrantVectorStore(client, "demo", embed_model=None if own_model else model)
    index = VectorStoreIndex.from_documents(
        [Document(text=text, id_=f"doc{number}") for number, text in enumerate(TEXTS)],
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=MockEmbedding(1) if own_model else model,
    )
    retriever = index.as_retriever(similarity_top_k=2)
    (best, _) = retriever.retrieve("a storm")
    assert best.node.get_content() == "a storm"
    assert best.score == pytest.approx(1, abs=0.02)
    (again, _) = await retriever.aretrieve("a storm")
    assert again.node.node_id == best.node.node_id
    index.delete_ref_doc("doc1")
    assert "a storm" not in {one.node.get_content() for one in retriever.retrieve("a storm")}
    loaded = VectorStoreIndex.from_vector_store(store, embed_model=model)
    assert loaded.as_retriever(similarity_top_k=1).retrieve("the cat sat")
    index.insert(Document(text="a goal", id_="goal"))
    (goal,) = index.as_retriever(
        similarity_top_k=1, vector_store_kwargs={"score_threshold": 0.9}
    ).retrieve("a goal")
    assert goal.node.ref_doc_id == "goal"


def test_vectors_of_nodes_are_stored_and_not_computed_again(tiny: TinyModel) -> None:
    class Counting(QdrantEmbedding):
        def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
            counted.append(len(texts))
            return super()._get_text_embeddings(texts)

    counted: list[int] = []
    client, model = QdrantClient(":memory:"), Counting(tiny.path)
    store = QdrantVectorStore(client, "demo", embed_model=model)
    VectorStoreIndex(
        nodes(),
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=model,
    )
    assert counted == [4]
    store.add(nodes()[:1])
    assert counted == [4, 1]
    stamp = (client.get_collection("demo").config.metadata or {})["qdrant_embed"]
    assert stamp["weights_sha256"] == TextEmbedding(tiny.path).describe().weights_sha256


def test_embeddings_of_others_are_used(tiny: TinyModel) -> None:
    client = QdrantClient(":memory:")
    store = QdrantVectorStore(client, "demo", embed_model=MockEmbedding(7))
    store.add(nodes())
    query = VectorStoreQuery([0.5] * 7, similarity_top_k=2)
    assert len(store.query(query).nodes or []) == 2
    with pytest.raises(InputError, match="3 dimensions"):
        store.query(VectorStoreQuery([0.5] * 3))


def test_a_reranker_of_the_client_reads_the_text_of_nodes(tiny: TinyModel) -> None:
    class Longest:
        def rerank(self, query: str, documents: Any) -> list[int]:
            assert set(documents) == {*TEXTS}
            return [len(document) for document in documents]

    client = QdrantClient(":memory:")
    client.set_model(tiny.path)
    client.set_reranker(Longest())
    store = QdrantVectorStore(client, "demo")
    store.add(nodes())
    found = store.query(VectorStoreQuery(query_str="a storm", similarity_top_k=1))
    assert [node.get_content() for node in found.nodes or []] == [TEXTS[3]]


@pytest.fixture(params=["memory", "server"])
def both(request: pytest.FixtureRequest) -> Iterator[QdrantClient]:
    if request.param == "memory":
        yield QdrantClient(":memory:")
    else:
        with serving() as server, QdrantClient(**at(server)) as client:
            yield client
        gc.collect()  # connections of theirs


def vector_names(point: models.Record) -> set[str]:
    return set(point.vector) if isinstance(point.vector, dict) else {""}


@pytest.mark.parametrize("hybrid", [False, True], ids=["dense", "hybrid"])
def test_a_collection_of_llama_index_is_read_and_extended_as_it_is(
    both: QdrantClient, tiny: TinyModel, hybrid: bool
) -> None:
    model = QdrantEmbedding(tiny.path)
    options: dict[str, Any] = {}
    if hybrid:
        document, query = sparse_functions()
        options = {
            "enable_hybrid": True,
            "sparse_doc_fn": document,
            "sparse_query_fn": query,
            "sparse_config": models.SparseVectorParams(modifier=models.Modifier.IDF),
        }
        both.set_sparse_model("Qdrant/bm25")
    theirs = Theirs("theirs", both, **options)
    theirs.add(cast("Any", embedded(model)))
    before, _ = both.scroll("theirs", with_vectors=True)
    ours = QdrantVectorStore(both, "theirs", embed_model=model)
    asked = VectorStoreQuery(
        model.get_query_embedding("a storm"), similarity_top_k=4, query_str="a storm"
    )
    found = ours.query(asked)
    assert {node.get_content() for node in found.nodes or []} == {*TEXTS}
    assert {node.node_id for node in ours.get_nodes()} == {node.node_id for node in nodes()}
    added = TextNode(text="a goal", metadata={"year": 2000, "kind": "game"})
    ours.add([added])
    after, _ = both.scroll("theirs", with_vectors=True)
    # local mode scales vectors again when it grows, by one rounding
    assert {point.id: point.payload for point in before}.items() <= {
        point.id: point.payload for point in after
    }.items()
    assert len(after) == len(before) + 1
    (point,) = (one for one in after if one.id == added.node_id)
    assert (point.payload or {}).keys() == (before[0].payload or {}).keys() - {"tags"}
    assert vector_names(point) == vector_names(before[0])
    again = Theirs("theirs", both, **options)
    goal = VectorStoreQuery(
        model.get_query_embedding("a goal"),
        similarity_top_k=5,
        query_str="a goal",
        filters=where(("year", "==", 2000)),
        mode=VectorStoreQueryMode.HYBRID if hybrid else VectorStoreQueryMode.DEFAULT,
    )
    assert [node.get_content() for node in again.query(goal).nodes or []] == ["a goal"]
    ours.delete("sea")
    assert {node.get_content() for node in again.get_nodes()} == {"a goal", *TEXTS[2:]}


def test_a_collection_of_an_old_release_has_an_unnamed_vector(tiny: TinyModel) -> None:
    client, model = QdrantClient(":memory:"), QdrantEmbedding(tiny.path)
    client.create_collection(
        "theirs", models.VectorParams(size=32, distance=models.Distance.COSINE)
    )
    theirs = Theirs("theirs", client)
    theirs.add(cast("Any", embedded(model)))
    ours = QdrantVectorStore(client, "theirs", embed_model=model)
    (found,) = ours.query(VectorStoreQuery(model.get_query_embedding("a storm"))).nodes or []
    assert found.get_content() in TEXTS
    ours.add(nodes()[:1])
    assert client.count("theirs").count == 4


@pytest.mark.parametrize("hybrid", [False, True], ids=["dense", "hybrid"])
def test_llama_index_reads_and_extends_a_collection_of_ours(
    both: QdrantClient, tiny: TinyModel, hybrid: bool
) -> None:
    model, options = QdrantEmbedding(tiny.path), {}
    if hybrid:
        both.set_sparse_model("Qdrant/bm25")
        document, query = sparse_functions()
        options = {"enable_hybrid": True, "sparse_doc_fn": document, "sparse_query_fn": query}
    ours = QdrantVectorStore(both, "ours", embed_model=model)
    ours.add(nodes())
    theirs = Theirs("ours", both, **cast("Any", options))
    index = VectorStoreIndex.from_vector_store(theirs, embed_model=model)
    assert len(index.as_retriever(similarity_top_k=4).retrieve("a storm")) == 4
    index.insert(Document(text="a goal", id_="goal"))
    assert "a goal" in {node.get_content() for node in ours.get_nodes()}
    ours.delete("goal")
    assert len(theirs.get_nodes()) == 4


def test_points_that_are_no_nodes_become_some(tiny: TinyModel) -> None:
    client = QdrantClient(":memory:")
    client.set_model(tiny.path)
    client.add("demo", TEXTS, METADATA, ids=[*"abcd"])
    store = QdrantVectorStore(client, "demo")
    (node,) = store.query(VectorStoreQuery(query_str="a storm")).nodes or []
    assert (node.get_content(), node.metadata, node.node_id) == ("a storm", METADATA[1], "b")


def test_what_cannot_be_used_is_refused(tiny: TinyModel) -> None:
    client = QdrantClient(":memory:")
    client.set_model(tiny.path)
    store = QdrantVectorStore(client, "demo")
    store.add(nodes())
    with pytest.raises(InputError, match="mode 'svm' is not supported"):
        store.query(VectorStoreQuery(query_str="a", mode=VectorStoreQueryMode.SVM))
    with pytest.raises(InputError, match="'demo' has no sparse vectors"):
        store.query(VectorStoreQuery(query_str="a", mode=VectorStoreQueryMode.SPARSE))
    with pytest.raises(InputError, match="mode 'sparse' searches by words"):
        store.query(VectorStoreQuery([0.0] * 32, mode=VectorStoreQueryMode.SPARSE))
    words = VectorStoreQuery(query_str="a", mode=VectorStoreQueryMode.SPARSE)
    with pytest.raises(InputError, match="a search by words has no like, reranker: omit it"):
        store.query(words, reranker="any", like=["a"])
    with pytest.raises(InputError, match="text_match_insensitive"):
        store.get_nodes(filters=where(("kind", "text_match_insensitive", "sea")))
    with pytest.raises(InputError, match="clear"):
        store.delete_nodes()
    with pytest.raises(InputError, match="has no text"):
        store.query(VectorStoreQuery([0.0] * 32))
    chunking = QdrantEmbedding(TextEmbedding(tiny.path, overflow="chunk"))
    with pytest.raises(InputError, match="chunks already"):
        QdrantVectorStore(client, "other", embed_model=chunking).add(nodes())


def test_vectors_are_those_of_the_encoder(tiny: TinyModel) -> None:
    model = QdrantEmbedding(tiny.path)
    assert model.model_name == str(tiny.path)
    rows = np.array([*TextEmbedding(tiny.path).passage_embed(TEXTS)])
    assert np.allclose(model.get_text_embedding_batch(TEXTS), rows, atol=1e-6)
    assert np.allclose(asyncio.run(model.aget_text_embedding_batch(TEXTS)), rows, atol=1e-6)
    assert np.allclose(model.get_query_embedding(TEXTS[1]), rows[1], atol=1e-6)
