"""LangChain's own suites, and what they do not ask: run by ``tox -e frameworks``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import numpy as np
import pytest
from clients import at
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStore
from langchain_qdrant import QdrantVectorStore as Theirs
from langchain_tests.integration_tests import (
    EmbeddingsIntegrationTests,
    RetrieversIntegrationTests,
    VectorStoreIntegrationTests,
)
from langchain_tests.unit_tests import EmbeddingsUnitTests
from qdrant_client import models
from rest_server import serving
from tiny import TinyModel

from qdrant_embed import (
    AsyncQdrantClient,
    CollectionNotFoundError,
    InputError,
    QdrantClient,
    TextEmbedding,
)
from qdrant_embed.langchain import QdrantEmbeddings, QdrantRetriever, QdrantVectorStore

TEXTS = ["the ship sailed", "a storm", "the cat sat", "a dog and one cat in the market"]
METADATA: list[dict[str, Any]] = [
    {"year": 2019},
    {"year": 2021},
    {"year": 2022, "tags": ["cats"]},
    {"year": 2024},
]
PLACES = ["memory", "local", "edge", "server", "grpc"]


class TestEmbeddingsUnit(EmbeddingsUnitTests):
    @pytest.fixture(autouse=True)
    def path(self, tiny: TinyModel) -> None:
        type(self).model = tiny.path

    model: Path

    @property
    def embeddings_class(self) -> type[QdrantEmbeddings]:
        return QdrantEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": self.model}


class TestEmbeddings(EmbeddingsIntegrationTests):
    @pytest.fixture(autouse=True)
    def path(self, tiny: TinyModel) -> None:
        type(self).model = tiny.path

    model: Path

    @property
    def embeddings_class(self) -> type[QdrantEmbeddings]:
        return QdrantEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": self.model}


@contextmanager
def opening(place: str, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """What opens a client of a new database: in memory, in a folder, or on a server."""
    if place in ("server", "grpc"):
        with serving(grpc=place == "grpc") as running:
            yield at(running, grpc=place == "grpc")
    elif place == "memory":
        yield {"location": ":memory:"}
    else:
        yield {"path": str(tmp_path / "db"), "engine": place}


@pytest.fixture
def arguments(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """The same; in memory where a test does not say where."""
    with opening(getattr(request, "param", "memory"), tmp_path) as found:
        yield found


class StoreSuite(VectorStoreIntegrationTests):
    """The suite, on our encoder and on embeddings of somebody else."""

    @pytest.fixture(params=["model", "embedding"])
    def embedding(self, request: pytest.FixtureRequest, tiny: TinyModel) -> Any:
        return None if request.param == "model" else self.get_embeddings()


class TestStore(StoreSuite):
    """With the synchronous client: asynchronous methods run in threads."""

    @pytest.fixture(params=PLACES)
    def place(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
        with opening(request.param, tmp_path) as arguments:
            yield arguments

    @pytest.fixture
    def vectorstore(
        self, place: dict[str, Any], tiny: TinyModel, embedding: Any
    ) -> Iterator[VectorStore]:
        with QdrantClient(**place) as client:
            client.set_model(tiny.path)
            store = QdrantVectorStore(client, "demo", embedding)
            size = 6 if embedding else client.get_embedding_size()
            client.create_collection(
                "demo", models.VectorParams(size=size, distance=models.Distance.COSINE)
            )
            yield store


class TestAsyncStore(StoreSuite):
    """With the asynchronous client, which has asynchronous methods alone."""

    @pytest.fixture(params=["memory", "edge", "server"])
    def place(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
        with opening(request.param, tmp_path) as arguments:
            yield arguments

    @property
    def has_sync(self) -> bool:
        return False

    @pytest.fixture
    async def vectorstore(self, place: dict[str, Any], tiny: TinyModel, embedding: Any) -> Any:
        async with AsyncQdrantClient(**place) as client:
            client.set_model(tiny.path)
            store = QdrantVectorStore(client, "demo", embedding)
            size = 6 if embedding else client.get_embedding_size()
            await client.create_collection(
                "demo", models.VectorParams(size=size, distance=models.Distance.COSINE)
            )
            yield store


class TestRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def filled(self, tiny: TinyModel) -> Iterator[None]:
        with QdrantClient(":memory:") as client:
            client.set_model(tiny.path)
            type(self).store = QdrantVectorStore(client, "demo")
            self.store.add_texts(TEXTS, METADATA)
            yield

    store: QdrantVectorStore

    @property
    def retriever_constructor(self) -> type[QdrantRetriever]:
        return QdrantRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"store": self.store}

    @property
    def retriever_query_example(self) -> str:
        return "a ship"


class TestLangChainsOwnRetriever(TestRetriever):
    @property
    def retriever_constructor(self) -> Any:
        return lambda store, k=4: store.as_retriever(search_kwargs={"k": k})


class Caller:
    """A store on either client, whose methods are called alike."""

    def __init__(self, client: Any, *arguments: Any, **options: Any) -> None:
        self.client, self.store = client, QdrantVectorStore(client, *arguments, **options)

    async def __call__(self, method: str, *arguments: Any, **options: Any) -> Any:
        if isinstance(self.client, QdrantClient):
            return getattr(self.store, method)(*arguments, **options)
        name = f"_a{method[1:]}" if method.startswith("_") else f"a{method}"
        return await getattr(self.store, name)(*arguments, **options)


@pytest.fixture(params=["sync", "async"])
def client(request: pytest.FixtureRequest, arguments: dict[str, Any], tiny: TinyModel) -> Any:
    kind = QdrantClient if request.param == "sync" else AsyncQdrantClient
    opened = kind(**arguments)
    opened.set_model(tiny.path)
    return opened


@pytest.mark.parametrize("hybrid", [False, True], ids=["dense", "hybrid"])
@pytest.mark.parametrize("arguments", PLACES, indirect=True)
async def test_what_users_ask_of_a_store(client: Any, hybrid: bool) -> None:
    if hybrid:
        client.set_sparse_model("Qdrant/bm25")
    call = Caller(client, "demo")
    ids = await call("add_texts", TEXTS, METADATA, ids=["a", "b", "c", str(uuid4())])
    assert ids[:3] == ["a", "b", "c"]
    found = await call("similarity_search_with_score", "a storm", k=2)
    (best, score), _ = found
    assert (best.page_content, best.metadata, best.id) == ("a storm", {"year": 2021}, "b")
    assert score >= found[1][1]
    for condition in (
        {"year": {"gte": 2022}},
        {"or": [{"tags": "cats"}, {"year": 2024}]},
        models.Filter(
            must=[models.FieldCondition(key="metadata.year", range=models.Range(gte=2022))]
        ),
    ):
        documents = await call("similarity_search", "a storm", filter=condition)
        assert {document.page_content for document in documents} == {*TEXTS[2:]}
    relevant = await call("similarity_search_with_relevance_scores", "a storm", k=4)
    assert len(relevant) == 4
    assert all(0 <= score <= 1.0001 for _, score in relevant)
    least = relevant[0][1] - 1e-6
    above = await call(
        "similarity_search_with_relevance_scores", "a storm", k=4, score_threshold=least
    )
    assert [document.id for document, _ in above] == ["b"]
    for spread in (0.0, 0.5, 1.0):
        chosen = await call(
            "max_marginal_relevance_search", "a storm", k=3, fetch_k=4, lambda_mult=spread
        )
        assert len({document.id for document in chosen}) == 3
        assert chosen[0].id == "b"
    nearest = await call("max_marginal_relevance_search", "a storm", k=4, lambda_mult=1.0)
    if not hybrid:
        assert [one.id for one in nearest] == [one.id for one, _ in relevant]
    vector = [*client._selection.current.queries(["a storm"])[0]]
    (by_vector, _), *_ = await call("similarity_search_with_score_by_vector", vector)
    assert by_vector.id == "b"
    assert (await call("similarity_search_by_vector", vector, k=1))[0].id == "b"
    diverse = await call("max_marginal_relevance_search_by_vector", vector, k=2)
    assert diverse[0].id == "b"
    retriever = call.store.as_retriever(search_type="mmr", search_kwargs={"k": 2, "fetch_k": 4})
    assert len(await retriever.ainvoke("a storm")) == 2
    assert await call("delete", ["b", "nothing"])
    left = await call("get_by_ids", ["c", "b", "a"])
    assert [one.id for one in left] == ["c", "a"]
    assert left[0].metadata == METADATA[2]
    close = client.close()
    if close is not None:
        await close


async def test_a_reranker_and_other_options_of_a_query(client: Any) -> None:
    class Longest:
        def rerank(self, query: str, documents: Any) -> list[int]:
            return [len(document) for document in documents]

    call = Caller(client, "demo")
    await call("add_texts", TEXTS)
    (best,) = await call("similarity_search", "a storm", k=1, reranker=Longest())
    assert best.page_content == TEXTS[3]
    skipped = await call("similarity_search", "a storm", k=1, offset=1)
    assert skipped[0].page_content != "a storm"
    retriever = QdrantRetriever(store=call.store, k=1, options={"reranker": Longest()})
    assert (await retriever.ainvoke("a storm"))[0].page_content == TEXTS[3]
    with pytest.raises(TypeError, match="no_such_option"):
        await call("similarity_search", "a storm", no_such_option=1)
    with pytest.raises(InputError, match="a reranker compares hits with a text"):
        await call("similarity_search_by_vector", [0.0] * 32, reranker=Longest())
    with pytest.raises(InputError, match="has 3 dimensions"):
        await call("similarity_search_by_vector", [0.0] * 3)


async def test_texts_become_a_store(tiny: TinyModel, tmp_path: Path) -> None:
    embedding = QdrantEmbeddings(tiny.path)
    store = QdrantVectorStore.from_texts(TEXTS, embedding, METADATA, location=":memory:")
    assert store.embeddings is embedding
    assert store.similarity_search("a storm", k=1)[0].page_content == "a storm"
    documents = [Document(page_content="one", metadata={"n": 1}), Document(page_content="two")]
    other = QdrantVectorStore.from_documents(
        documents, embedding, client=cast("QdrantClient", store.client), collection_name="other"
    )
    (one,) = other.similarity_search("one", k=1)
    assert (one.page_content, one.metadata) == ("one", {"n": 1})
    assert one.id is not None
    awaited = await QdrantVectorStore.afrom_texts(
        TEXTS, embedding, path=str(tmp_path / "db"), collection_name="demo", ids=[*"abcd"]
    )
    assert (await awaited.asimilarity_search("a storm", k=1))[0].id == "b"
    with pytest.raises(InputError, match="asynchronous methods only"):
        awaited.similarity_search("a storm")
    await cast("AsyncQdrantClient", awaited.client).close()
    with pytest.raises(InputError, match="no_such_option"):
        QdrantVectorStore.from_texts(TEXTS, embedding, no_such_option=1)


def test_documents_without_ids_and_with_get_one() -> None:
    embedding = DeterministicFakeEmbedding(size=6)
    store = QdrantVectorStore(QdrantClient(":memory:"), "demo", embedding)
    documents = [Document(page_content="a", id="mine"), Document(page_content="b")]
    mine, other = store.add_documents(documents)
    assert mine == "mine"
    assert {one.page_content for one in store.get_by_ids([mine, other])} == {"a", "b"}


def test_what_cannot_be_used_is_refused(tiny: TinyModel) -> None:
    import qdrant_client

    with pytest.raises(InputError, match="of qdrant_embed, not qdrant_client"):
        QdrantVectorStore(cast("Any", qdrant_client.QdrantClient(":memory:")), "demo")
    client = QdrantClient(":memory:")
    client.set_model(tiny.path)
    store = QdrantVectorStore(client, "demo")
    with pytest.raises(CollectionNotFoundError):
        store.similarity_search("a typo in a name")
    with pytest.raises(InputError, match="metadatas has 1 items for 2 texts"):
        store.add_texts(["a", "b"], [{}])
    with pytest.raises(InputError, match="not a single str"):
        store.add_texts("a")
    with pytest.raises(InputError, match="delete_collection"):
        store.delete()
    with pytest.raises(InputError, match="lambda_mult"):
        store.max_marginal_relevance_search("a", lambda_mult=2)


def test_models_set_later_are_followed(tiny: TinyModel, tiny_e5: TinyModel) -> None:
    client = QdrantClient(":memory:")
    store = QdrantVectorStore(client, "demo")
    client.set_model(tiny.path)
    client.set_sparse_model("Qdrant/bm25")
    store.add_texts(TEXTS)
    info = client.get_collection("demo").config
    assert (info.metadata or {})["qdrant_embed"]["model"] == str(tiny.path)
    assert list(info.params.sparse_vectors or {}) == ["langchain-sparse"]
    assert store.similarity_search("cat", k=1)[0].page_content in TEXTS[2:]


def test_collections_of_the_client_itself_are_used_with_their_keys(tiny: TinyModel) -> None:
    client = QdrantClient(":memory:")
    client.set_model(tiny.path)
    client.add("demo", TEXTS, METADATA, ids=[1, 2, 3, 4])
    with pytest.raises(InputError, match="content_payload_key='document', metadata_payload_key"):
        QdrantVectorStore(client, "demo").similarity_search("a storm")
    store = QdrantVectorStore(
        client, "demo", content_payload_key="document", metadata_payload_key=None
    )
    (found,) = store.similarity_search("a storm", k=1, filter={"year": {"lt": 2022}})
    assert (found.page_content, found.metadata, found.id) == ("a storm", {"year": 2021}, "2")
    store.add_texts(["the goal"], [{"year": 2000}], ids=["goal"])
    (hit,) = client.query("demo", "the goal", limit=1)
    assert (hit.document, hit.id, hit.metadata["year"]) == ("the goal", "goal", 2000)


def test_chunks_say_which_part_they_are(tiny: TinyModel) -> None:
    client = QdrantClient(":memory:")
    client.set_model(tiny.path, overflow="chunk", max_length=16)
    store = QdrantVectorStore(client, "demo")
    text = "the cat sat on the mat. " * 10 + "a ship sailed in a storm."
    store.add_texts([text], [{"year": 1}], ids=["long"])
    (found,) = store.similarity_search("a ship sailed in a storm", k=1)
    place = found.metadata["qdrant_embed_chunk"]
    assert text[place["start"] : place["end"]] == found.page_content
    (whole,) = store.get_by_ids(["long"])
    assert whole.page_content == text
    assert whole.metadata == {"year": 1}
    store.delete(["long"])
    assert client.count("demo").count == 0


@pytest.fixture(params=["memory", "server"])
def both(request: pytest.FixtureRequest) -> Iterator[QdrantClient]:
    if request.param == "memory":
        yield QdrantClient(":memory:")
    else:
        with serving() as server, QdrantClient(**at(server)) as client:
            yield client


@pytest.mark.parametrize("vector_name", ["", "text"])
def test_a_collection_of_langchain_qdrant_is_read_and_extended_as_it_is(
    both: QdrantClient, tiny: TinyModel, vector_name: str
) -> None:
    embedding = QdrantEmbeddings(TextEmbedding(tiny.path))
    both.create_collection(
        "theirs", {vector_name: models.VectorParams(size=32, distance=models.Distance.COSINE)}
    )
    theirs = Theirs(both, "theirs", embedding, vector_name=vector_name)
    ids = [str(uuid4()) for _ in TEXTS]
    theirs.add_texts(TEXTS, METADATA, ids=ids)
    ours = QdrantVectorStore(both, "theirs", embedding, vector_name=vector_name)
    (found,) = ours.similarity_search("a storm", k=1, filter={"year": 2021})
    assert (found.page_content, found.metadata, found.id) == ("a storm", {"year": 2021}, ids[1])
    assert [one.page_content for one in ours.get_by_ids(ids)] == TEXTS
    ours.add_texts(["the goal"], [{"year": 2000}], ids=["goal"])
    (point,) = both.scroll(
        "theirs",
        models.Filter(
            must=[models.FieldCondition(key="metadata.year", match=models.MatchValue(value=2000))]
        ),
    )[0]
    assert point.payload == {
        "page_content": "the goal",
        "metadata": {"year": 2000},
        "qdrant_embed_id": "goal",
    }
    again = Theirs(both, "theirs", embedding, vector_name=vector_name)
    (back,) = again.similarity_search("the goal", k=1)
    assert back.page_content == "the goal"
    assert back.metadata["year"] == 2000
    ours.delete(ids)
    assert both.count("theirs").count == 1


def test_a_hybrid_collection_of_langchain_qdrant_is_extended(
    both: QdrantClient, tiny: TinyModel
) -> None:
    from langchain_qdrant import RetrievalMode
    from langchain_qdrant.sparse_embeddings import SparseEmbeddings, SparseVector

    from qdrant_embed import SparseTextEmbedding

    class Words(SparseEmbeddings):
        bm25 = SparseTextEmbedding("Qdrant/bm25")

        def embed_documents(self, texts: list[str]) -> list[SparseVector]:
            return [
                SparseVector(indices=one.indices.tolist(), values=one.values.tolist())
                for one in self.bm25.passage_embed(texts)
            ]

        def embed_query(self, text: str) -> SparseVector:
            (one,) = self.bm25.query_embed([text])
            return SparseVector(indices=one.indices.tolist(), values=one.values.tolist())

    embedding = QdrantEmbeddings(tiny.path)
    both.create_collection(
        "theirs",
        models.VectorParams(size=32, distance=models.Distance.COSINE),
        sparse_vectors_config={
            "langchain-sparse": models.SparseVectorParams(modifier=models.Modifier.IDF)
        },
    )
    options: dict[str, Any] = {
        "sparse_embedding": Words(),
        "retrieval_mode": RetrievalMode.HYBRID,
    }
    theirs = Theirs(both, "theirs", embedding, **options)
    theirs.add_texts(TEXTS, METADATA)
    both.set_sparse_model("Qdrant/bm25")
    ours = QdrantVectorStore(both, "theirs", embedding)
    (found,) = ours.similarity_search("dog market", k=1)
    assert found.page_content == TEXTS[3]
    ours.add_texts(["error E4711"])
    (point,) = [
        one
        for one in both.scroll("theirs", with_vectors=True)[0]
        if (one.payload or {})["page_content"] == "error E4711"
    ]
    assert set(cast("dict[str, Any]", point.vector)) == {"", "langchain-sparse"}
    found = theirs.similarity_search("E4711", k=5)
    assert "error E4711" in [one.page_content for one in found]


def test_langchain_qdrant_reads_and_extends_a_collection_of_ours(
    both: QdrantClient, tiny: TinyModel
) -> None:
    embedding = QdrantEmbeddings(tiny.path)
    ours = QdrantVectorStore(both, "ours", embedding)
    ours.add_texts(TEXTS, METADATA)
    theirs = Theirs(both, "ours", embedding)
    (found,) = theirs.similarity_search("a storm", k=1)
    assert (found.page_content, found.metadata["year"]) == ("a storm", 2021)
    theirs.add_texts(["the goal"], [{"year": 2000}])
    (back,) = ours.similarity_search("the goal", k=1)
    assert (back.page_content, back.metadata) == ("the goal", {"year": 2000})
    assert both.get_collection("ours").config.metadata is not None


def test_a_chain_of_runnables_takes_the_retriever(tiny: TinyModel) -> None:
    from langchain_core.runnables import RunnableLambda

    client = QdrantClient(":memory:")
    client.set_model(tiny.path)
    store = QdrantVectorStore(client, "demo")
    store.add_texts(TEXTS)
    retriever: BaseRetriever = store.as_retriever(search_kwargs={"k": 1})
    chain = retriever | RunnableLambda(lambda documents: documents[0].page_content)
    assert chain.invoke("a storm") == "a storm"
    assert asyncio.run(chain.abatch(["a storm", "the cat sat"])) == ["a storm", "the cat sat"]


def test_vectors_are_those_of_the_encoder(tiny: TinyModel) -> None:
    embedding = QdrantEmbeddings(tiny.path)
    rows = np.array([*TextEmbedding(tiny.path).passage_embed(TEXTS)])
    assert np.allclose(embedding.embed_documents(TEXTS), rows, atol=1e-6)
    assert embedding.embed_documents([]) == []


def test_langchains_indexing_adds_what_is_new_and_deletes_what_is_gone(tiny: TinyModel) -> None:
    from langchain_core.indexing import InMemoryRecordManager, index

    client = QdrantClient(":memory:")
    client.set_model(tiny.path)
    store = QdrantVectorStore(client, "demo")
    manager = InMemoryRecordManager("demo")
    manager.create_schema()

    def indexed(*texts: str) -> dict[str, int]:
        documents = [Document(page_content=text, metadata={"source": "a"}) for text in texts]
        return cast(
            "dict[str, int]",
            index(
                documents,
                manager,
                store,
                cleanup="full",
                source_id_key="source",
                key_encoder="sha256",
            ),
        )

    first = {"num_added": 4, "num_updated": 0, "num_skipped": 0, "num_deleted": 0}
    assert indexed(*TEXTS) == first
    second = {"num_added": 1, "num_updated": 0, "num_skipped": 2, "num_deleted": 2}
    assert indexed(*TEXTS[:2], "the goal") == second
    assert client.count("demo").count == 3
