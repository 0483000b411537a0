"""Haystack: its suites of document stores, and pipelines with our components."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import haystack
import numpy as np
import pytest
from clients import at
from haystack import Document, Pipeline
from haystack.components.writers import DocumentWriter
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.document_stores.types import DuplicatePolicy
from haystack.errors import FilterError
from haystack.testing.document_store import (
    CountDocumentsTest,
    DeleteDocumentsTest,
    FilterDocumentsTest,
    WriteDocumentsTest,
)
from rest_server import serving
from tiny import TinyModel

from qdrant_embed import AsyncQdrantClient, InputError, QdrantClient, TextEmbedding
from qdrant_embed.haystack import (
    QdrantDocumentEmbedder,
    QdrantDocumentStore,
    QdrantRetriever,
    QdrantSparseDocumentEmbedder,
    QdrantSparseTextEmbedder,
    QdrantTextEmbedder,
)

TEXTS = ["the ship sailed", "a storm", "the cat sat", "a dog and one cat in the market"]
YEARS = [2019, 2021, 2022, 2024]


def documents() -> list[Document]:
    return [
        Document(id=f"doc{number}", content=text, meta={"year": year})
        for number, (text, year) in enumerate(zip(TEXTS, YEARS, strict=True))
    ]


@pytest.fixture(params=["memory", "edge", "server"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
    if request.param == "server":
        with serving() as running:
            yield at(running)
    elif request.param == "memory":
        yield {"location": ":memory:"}
    else:
        yield {"path": str(tmp_path / "db"), "engine": request.param}


class TestStore(CountDocumentsTest, WriteDocumentsTest, DeleteDocumentsTest, FilterDocumentsTest):
    """Haystack's suites; documents come back in another order, and without vectors."""

    @pytest.fixture
    def document_store(
        self, place: dict[str, Any], tiny: TinyModel
    ) -> Iterator[QdrantDocumentStore]:
        with QdrantClient(**place) as client:
            client.set_model(tiny.path)
            yield QdrantDocumentStore(client, "demo")

    @staticmethod
    def assert_documents_are_equal(received: list[Document], expected: list[Document]) -> None:
        def comparable(found: list[Document]) -> list[str]:
            return sorted(f"{one.id} {one.content} {json.dumps(one.meta)}" for one in found)

        assert comparable(received) == comparable(expected)

    def test_write_documents(self, document_store: Any) -> None:
        """By default, what is there already is refused."""
        assert document_store.write_documents(documents()) == 4
        with pytest.raises(DuplicateDocumentError):
            document_store.write_documents(documents())


@pytest.fixture(params=["sync", "async"])
def store(request: pytest.FixtureRequest, place: dict[str, Any], tiny: TinyModel) -> Any:
    client = (QdrantClient if request.param == "sync" else AsyncQdrantClient)(**place)
    client.set_model(tiny.path)
    return QdrantDocumentStore(client, "demo")


async def test_every_method_on_either_client(store: QdrantDocumentStore) -> None:
    assert await store.count_documents_async() == 0
    assert await store.filter_documents_async() == []
    assert await store.write_documents_async(documents()) == 4
    more = [*documents()[:2], Document(id="new", content="a goal"), Document(id="new", content="b")]
    assert await store.write_documents_async(more, DuplicatePolicy.SKIP) == 1
    (new,) = await store.filter_documents_async({"field": "id", "operator": "==", "value": "new"})
    assert (new.content, new.meta) == ("a goal", {})
    retriever = QdrantRetriever(store, top_k=1)
    (best,) = (await retriever.run_async("a storm"))["documents"]
    assert (best.id, best.content, best.meta) == ("doc1", "a storm", {"year": 2021})
    assert best.score == pytest.approx(1, abs=0.02)
    late = {"field": "meta.year", "operator": ">=", "value": 2022}
    found = (await retriever.run_async("a storm", filters=late, top_k=9))["documents"]
    assert {one.id for one in found} == {"doc2", "doc3"}
    await store.delete_documents_async(["doc1", "nothing"])
    assert await store.count_documents_async() == 4
    close = store.client.close()
    if close is not None:
        await cast("Any", close)


def test_a_pipeline_indexes_and_another_answers(tiny: TinyModel) -> None:
    client = QdrantClient(":memory:")
    client.set_model(tiny.path)
    client.set_sparse_model("Qdrant/bm25")
    store = QdrantDocumentStore(client, "demo")
    indexing = Pipeline()
    indexing.add_component("writer", DocumentWriter(store))
    indexing.run({"writer": {"documents": documents()}})
    asking = Pipeline()
    asking.add_component("retriever", QdrantRetriever(store, options={"offset": 0}))
    found = asking.run({"retriever": {"query": "a storm", "top_k": 2}})["retriever"]["documents"]
    assert "a storm" in [one.content for one in found]
    assert store.count_documents() == 4


def test_embedders_serve_any_store(tiny: TinyModel) -> None:
    dense, sparse = QdrantDocumentEmbedder(str(tiny.path)), QdrantSparseDocumentEmbedder()
    given = documents()
    embedded = dense.run(sparse.run(given)["documents"])["documents"]
    assert given[0].embedding is None
    rows = np.array([*TextEmbedding(tiny.path).passage_embed(TEXTS)])
    assert np.allclose([one.embedding for one in embedded], rows, atol=1e-6)
    assert all(one.sparse_embedding.indices for one in embedded)
    assert [one.id for one in embedded] == [one.id for one in given]
    theirs = InMemoryDocumentStore()
    theirs.write_documents(embedded)
    vector = QdrantTextEmbedder(str(tiny.path)).run("a storm")["embedding"]
    assert np.allclose(vector, rows[1], atol=1e-6)
    (best,) = theirs.embedding_retrieval(vector, top_k=1)
    assert best.content == "a storm"
    words = QdrantSparseTextEmbedder().run("a storm")["sparse_embedding"]
    assert len(words.indices) == 1
    with_year = QdrantDocumentEmbedder(TextEmbedding(tiny.path), ["year"], " ").run(given[:1])
    (row,) = TextEmbedding(tiny.path).passage_embed(["2019 the ship sailed"])
    assert np.allclose(with_year["documents"][0].embedding, row, atol=1e-6)


async def test_components_run_in_an_asynchronous_pipeline(tiny: TinyModel) -> None:
    pipeline = getattr(haystack, "AsyncPipeline", Pipeline)()  # one class since 3.0
    pipeline.add_component("query", QdrantTextEmbedder(str(tiny.path)))
    pipeline.add_component("documents", QdrantDocumentEmbedder(str(tiny.path)))
    answer = await pipeline.run_async(
        {"query": {"text": "a storm"}, "documents": {"documents": documents()}}
    )
    assert len(answer["query"]["embedding"]) == 32
    assert len(answer["documents"]["documents"]) == 4


@pytest.mark.filterwarnings("ignore:Api key is used")  # over http, on loopback
def test_pipelines_are_saved_without_keys(
    tiny: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as running, QdrantClient(**at(running), api_key="secret") as client:
        pipeline = Pipeline()
        store = QdrantDocumentStore(client, "demo")
        pipeline.add_component("retriever", QdrantRetriever(store, {"a": 1}, 7))
        pipeline.add_component("embedder", QdrantTextEmbedder(tiny.path))
        pipeline.add_component("documents", QdrantDocumentEmbedder(tiny.path, ["year"]))
        pipeline.add_component("sparse", QdrantSparseDocumentEmbedder())
        saved = pipeline.dumps()
        assert "secret" not in saved
        monkeypatch.setenv("QDRANT_API_KEY", "other")
        is_new = not hasattr(haystack, "AsyncPipeline")  # 3.0 asks which modules may be imported
        allowed: dict[str, Any] = {"allowed_modules": ["qdrant_embed.haystack"]} if is_new else {}
        again = Pipeline.loads(saved, **allowed)
        assert again.dumps() == saved
        loaded = cast("Any", again.get_component("retriever"))._store.client
        assert loaded.init_options["api_key"] == "other"
        loaded.close()
    pipeline = Pipeline()
    pipeline.add_component("embedder", QdrantTextEmbedder(TextEmbedding(tiny.path)))
    with pytest.raises(Exception, match="cannot be serialised"):
        pipeline.dumps()


def test_what_cannot_be_used_is_refused(tiny: TinyModel) -> None:
    client = QdrantClient(":memory:")
    client.set_model(tiny.path)
    store = QdrantDocumentStore(client, "demo")
    with pytest.raises(InputError, match="has no content"):
        store.write_documents([Document(meta={"a": 1})])
    with pytest.raises(InputError, match="must be a list of Document"):
        store.write_documents(cast("Any", ["text"]))
    with pytest.raises(InputError, match="a QdrantDocumentStore of"):
        QdrantRetriever(cast("Any", InMemoryDocumentStore()))
    with pytest.raises(InputError, match="text must be a str"):
        QdrantTextEmbedder(tiny.path).run(cast("Any", ["a"]))
    with pytest.raises(InputError, match="documents must be a list"):
        QdrantDocumentEmbedder(tiny.path).run(cast("Any", "a"))
    for wrong in (
        {"operator": "XOR", "conditions": []},
        {"field": "meta.a", "operator": "~", "value": 1},
        {"field": "meta.a", "operator": ">", "value": [1]},
    ):
        with pytest.raises(FilterError):
            store.filter_documents(wrong)


def test_a_collection_of_the_client_itself_is_read(tiny: TinyModel) -> None:
    client = QdrantClient(":memory:")
    client.set_model(tiny.path)
    client.add("demo", TEXTS, [{"year": year} for year in YEARS], ids=[1, 2, 3, 4])
    store = QdrantDocumentStore(client, "demo")
    (best,) = QdrantRetriever(store, top_k=1).run("a storm")["documents"]
    assert (best.content, best.meta, best.id) == ("a storm", {"year": 2021}, "2")


@pytest.mark.skipif(
    importlib.util.find_spec("haystack_integrations") is None, reason="needs qdrant-haystack"
)
def test_a_collection_of_qdrant_haystack_is_read_and_extended(
    tiny: TinyModel, tmp_path: Path
) -> None:
    from haystack_integrations.document_stores.qdrant import QdrantDocumentStore as Theirs

    with serving() as running:
        options = {"check_compatibility": False}
        theirs = Theirs(url=running.url, index="theirs", embedding_dim=32, client_kwargs=options)
        embedder = QdrantDocumentEmbedder(tiny.path)
        theirs.write_documents(embedder.run(documents())["documents"])
        with QdrantClient(**at(running)) as client:
            client.set_model(tiny.path)
            store = QdrantDocumentStore(client, "theirs")
            (best,) = QdrantRetriever(store, top_k=1).run("a storm")["documents"]
            assert (best.id, best.content, best.meta) == ("doc1", "a storm", {"year": 2021})
            changed = Document(id="doc1", content="a goal", meta={"year": 1})
            assert store.write_documents([changed], DuplicatePolicy.OVERWRITE) == 1
            assert store.count_documents() == 4
        (back,) = theirs.filter_documents({"field": "meta.year", "operator": "==", "value": 1})
        assert (back.id, back.content) == ("doc1", "a goal")
        theirs.close()
