"""Collections of the predecessor and of other tools, or made by hand, are read and extended."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from clients import SENTENCES, cosine, opened, stamp, stored, vectors
from qdrant_client import models
from tiny import TinyModel, tiny_bert

from qdrant_embed import CollectionMismatchError, QdrantClient, SparseTextEmbedding, TextEmbedding

FASTEMBEDS = SparseTextEmbedding(normalize_text=False)


def predecessor_collection(
    client: QdrantClient, model: TinyModel, texts: list[str], *, sparse: bool = False
) -> str:
    """A collection as the predecessor left it: no stamp, documents without any prefix."""
    name = f"fast-{model.path.name}"
    dense = [vector.tolist() for vector in TextEmbedding(model.path).embed(texts)]
    points: list[dict[str, Any]] = [{name: vector} for vector in dense]
    if sparse:
        for point, words in zip(points, FASTEMBEDS.embed(texts), strict=True):
            point["fast-sparse-bm25"] = models.SparseVector(
                indices=words.indices.tolist(), values=words.values.tolist()
            )
    idf = models.SparseVectorParams(modifier=models.Modifier.IDF)
    client.create_collection(
        "old", {name: cosine(32)}, {"fast-sparse-bm25": idf} if sparse else None
    )
    client.upsert(
        "old",
        [
            models.PointStruct(id=i, vector=vector, payload={"document": text})
            for i, (text, vector) in enumerate(zip(texts, points, strict=True))
        ],
    )
    return name


def test_its_collections_stay_without_prefixes_and_it_is_said_once(
    client: QdrantClient, tiny_e5: TinyModel, caplog: pytest.LogCaptureFixture
) -> None:
    vector_name = predecessor_collection(client, tiny_e5, ["cat", "dog"])
    client.set_model(tiny_e5.path)
    (best, _) = client.query("old", "cat")
    assert (best.document, round(best.score, 4)) == ("cat", 1.0)
    (new,) = client.add("old", ["ship"])
    bare = next(TextEmbedding(tiny_e5.path).embed("ship"))
    assert vectors(client, new, "old")[vector_name] == pytest.approx(bare, abs=1e-6)
    (warning,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert "add the documents to a new collection" in warning.getMessage()
    assert "qdrant_embed" not in (client.get_collection("old").config.metadata or {})


def test_where_documents_are_bare_by_design_queries_keep_their_prefix(
    client: QdrantClient, tmp_path: Path
) -> None:
    bge_like = tiny_bert(tmp_path / "tiny-bge", prompts={"query": "query: ", "document": ""})
    predecessor_collection(client, bge_like, ["cat"])
    client.set_model(bge_like.path)
    (hit,) = client.query("old", "cat")
    encoder = TextEmbedding(bge_like.path)
    expected = float(next(encoder.embed("query: cat")) @ next(encoder.embed("cat")))
    assert hit.score == pytest.approx(expected, abs=1e-5)


def test_its_vector_name_tells_the_model(kind: str, minilm: TextEmbedding) -> None:
    with opened(kind, ":memory:") as client:
        name = "fast-all-minilm-l6-v2"
        client.create_collection("old", {name: cosine(384)})
        client.upload_collection(
            "old", [{name: vector.tolist()} for vector in minilm.embed(SENTENCES)]
        )
        (hit, *_) = client.query("old", SENTENCES[2])
        assert hit.score == pytest.approx(1, abs=1e-4)
        assert hit.document == ""


@pytest.mark.parametrize("chosen", [True, False])
def test_its_hybrid_collections_are_searched_and_extended_with_both_vectors(
    client: QdrantClient, tiny: TinyModel, chosen: bool
) -> None:
    predecessor_collection(client, tiny, ["the cat", "the dog", "a ship"], sparse=True)
    if chosen:
        client.set_sparse_model("Qdrant/bm25")
    best, *_ = client.query("old", "the dog", with_vectors=True)
    assert best.document == "the dog"
    assert best.sparse_embedding is not None
    (new,) = client.add("old", ["storm"])
    assert set(vectors(client, new, "old")) == {"fast-tiny-bert", "fast-sparse-bm25"}
    assert stored(client, "old")[new] == {"document": "storm"}
    text = "\uff33\uff34\uff2f\uff32\uff2d"  # storm in letters of full width
    (wide,) = client.add("old", [text])
    (words,) = FASTEMBEDS.embed(text)
    assert vectors(client, wide, "old")["fast-sparse-bm25"].indices == words.indices.tolist()


def test_an_unnamed_vector_is_taken_where_it_fits(client: QdrantClient) -> None:
    client.create_collection("hand", cosine(32))
    (first,) = client.add("hand", ["the cat"])
    client.set_sparse_model("Qdrant/bm25")
    (second,) = client.add("hand", ["the dog"])
    assert set(vectors(client, second, "hand")) == {"", "fast-sparse-bm25"}
    best, other = client.query("hand", "the dog", with_vectors=True)
    assert (best.id, other.id) == (second, first)
    assert best.embedding is not None
    assert len(best.embedding) == 32
    assert best.sparse_embedding is not None
    assert stamp(client, "hand")["vector_name"] == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "message"),
    [
        (cosine(33), "the unnamed vector .* has 33 dimensions"),
        (models.VectorParams(size=32, distance=models.Distance.DOT), "distance Dot"),
        ({"text": cosine(32)}, "it has 'text'.* vector_name="),
        ({"text": cosine(32), "fast-tiny-bert": cosine(8)}, "has 8 dimensions"),
    ],
)
def test_what_does_not_fit_is_explained_looked_up_and_never_created(
    anywhere: QdrantClient, config: Any, message: str, request: pytest.FixtureRequest
) -> None:
    anywhere.create_collection("hand", config)
    for use in (lambda: anywhere.add("hand", ["cat"]), lambda: anywhere.query("hand", "cat")):
        with pytest.raises(CollectionMismatchError, match=message):
            use()
    assert anywhere.count("hand").count == 0
    if "server" in request.node.callspec.id and request.config.getoption("url") is None:
        requests = request.getfixturevalue("server").requests
        assert requests.count("PUT /collections/hand") == 1  # our own, above
        # before it would be stamped, it is read again: others may have sent something to it
        assert requests.count("GET /collections/hand") == 3


def test_a_vector_with_a_name_of_its_own(client: QdrantClient, tiny: TinyModel) -> None:
    client.create_collection("hand", {"text": cosine(32), "image": cosine(8)})
    client.set_model(tiny.path, vector_name="text")
    client.set_sparse_model("Qdrant/bm25", vector_name="words")
    assert client.get_vector_field_name() == "text"
    assert client.get_sparse_vector_field_name() == "words"
    assert set(client.get_fastembed_vector_params()) == {"text"}
    for name in ("hand", "new"):
        (point,) = client.add(name, ["the cat"])
        assert set(vectors(client, point, name)) == {"text", "words"}
        assert client.query(name, "the cat")[0].id == point
    client.set_model(tiny.path, vector_name="")
    client.add("unnamed", ["the cat"])
    assert isinstance(client.get_collection("unnamed").config.params.vectors, models.VectorParams)
    assert client.query("unnamed", "the cat")[0].document == "the cat"
    assert client.query("hand", "the cat")[0].document == "the cat"  # whose stamp says "text"


def test_vectors_of_an_unknown_model_are_not_guessed_at(kind: str) -> None:
    with opened(kind, ":memory:") as client:
        client.create_collection("hand", cosine(384))
        client.upsert("hand", [models.PointStruct(id=1, vector=[0.1] * 384)])
        with pytest.raises(CollectionMismatchError, match=r"which model .* set_model\(\) first"):
            client.query("hand", "cat")


def test_the_text_may_lie_under_another_key(client: QdrantClient, tiny: TinyModel) -> None:
    client.document_key = "page_content"
    client.create_collection("hand", cosine(32))
    vector = next(TextEmbedding(tiny.path).embed("the cat")).tolist()
    payload = {"page_content": "the cat", "metadata": {"source": "a"}}
    client.upsert("hand", [models.PointStruct(id=1, vector=vector, payload=payload)])
    client.add("hand", ["the dog"], [{"document": "kept", "metadata": {"source": "b"}}], ids=[2])
    found = {hit.id: hit for hit in client.query("hand", "the cat")}
    assert (found[1].document, found[2].document) == ("the cat", "the dog")
    assert found[2].metadata["document"] == "kept"
    (hit,) = client.query("hand", "the cat", where={"metadata.source": "b"})
    assert hit.id == 2
    with pytest.raises(ValueError, match="'page_content'"):
        client.add("hand", ["x"], [{"page_content": "y"}])
