"""Which model a client uses, and what a collection remembers of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clients import LetterEncoder, WordEncoder, WordTokens, opened, same, stamp, stored, vectors
from qdrant_client import models
from tiny import TinyModel

from qdrant_embed import (
    CollectionMismatchError,
    EncoderDescription,
    InputError,
    LateDescription,
    ModelError,
    QdrantClient,
    SparseDescription,
    TextEmbedding,
    UnknownModelError,
)
from qdrant_embed.encoder.facts.catalog import DEFAULT_MODEL, MINILM


def test_a_database_on_disk_opens_again_and_follows_its_own_models(
    kind: str, tiny_e5_name: str, tmp_path: Path
) -> None:
    with opened(kind, path=str(tmp_path / "db")) as first:
        first.set_model(tiny_e5_name)
        first.set_sparse_model("qdrant/BM25", language="german", k=1.5)
        ids = first.add("demo", ["cat", "dog", "ship"])
        expected = first.query("demo", "cat")
        assert stamp(first)["sparse"]["language"] == "german"
    with opened(kind, path=str(tmp_path / "db")) as second:
        assert same(second.query("demo", "cat"), expected)
        (new,) = second.add("demo", ["storm"])
        assert len(stored(second)) == len(ids) + 1
        assert set(vectors(second, new)) == {"fast-tiny-e5", "fast-sparse-bm25"}


def test_both_prefixes_are_applied_and_stamped(client: QdrantClient, tiny_e5: TinyModel) -> None:
    client.set_model(tiny_e5.path)
    (point,) = client.add("demo", ["cat"])
    encoder = TextEmbedding(tiny_e5.path)
    (vector,) = vectors(client, point).values()
    assert vector == pytest.approx(next(encoder.embed("passage: cat")), abs=1e-6)
    (hit,) = client.query("demo", "dog")
    expected = float(next(encoder.embed("passage: cat")) @ next(encoder.embed("query: dog")))
    assert hit.score == pytest.approx(expected, abs=1e-5)
    wrote = stamp(client)
    assert (wrote["query_prefix"], wrote["document_prefix"]) == ("query: ", "passage: ")
    assert (wrote["dimension"], wrote["distance"], wrote["pooling"]) == (32, "Cosine", "mean")
    assert len(wrote["weights_sha256"]) == 64


def test_a_name_nobody_knows_gets_close_matches(tiny: TinyModel) -> None:
    client = QdrantClient(":memory:")
    before = client.embedding_model_name
    with pytest.raises(UnknownModelError, match=DEFAULT_MODEL):
        client.set_model("BAAI/bge-smal-en-v1.5")
    assert client.embedding_model_name == before
    with pytest.raises(UnknownModelError):
        client.set_sparse_model("bm52")


def test_an_asynchronous_client_loads_at_first_use(tiny: TinyModel) -> None:
    with opened("async", ":memory:") as client:
        client.set_model("BAAI/bge-smal-en-v1.5")
        with pytest.raises(UnknownModelError, match=DEFAULT_MODEL):
            client.add("demo", ["cat"])
        assert not client.collection_exists("demo")


def test_setting_a_model_again_with_other_options_counts(
    client: QdrantClient, tiny_e5: TinyModel
) -> None:
    client.set_model(tiny_e5.path)
    client.set_model(tiny_e5.path, query_prefix="", document_prefix="", max_length=9)
    client.set_sparse_model("Qdrant/bm25")
    client.set_sparse_model("Qdrant/bm25", k=2.0)
    client.add("demo", ["cat"])
    wrote = stamp(client)
    assert (wrote["query_prefix"], wrote["document_prefix"], wrote["max_tokens"]) == ("", "", 9)
    assert wrote["sparse"]["k"] == 2.0


def test_another_model_on_the_same_collection_is_a_mismatch(
    client: QdrantClient, tiny_e5: TinyModel, minilm: TextEmbedding
) -> None:
    client.add("demo", ["cat"])
    for other in (tiny_e5.path, minilm):
        client.set_model(other)
        with pytest.raises(CollectionMismatchError, match="set_model"):
            client.query("demo", "cat")
        with pytest.raises(CollectionMismatchError, match="set_model"):
            client.add("demo", ["dog"])
    assert len(stored(client)) == 1


def test_one_client_follows_collections_of_different_models(
    kind: str, tiny_name: str, tiny_e5_name: str, tmp_path: Path
) -> None:
    for name, model in (("plain", tiny_name), ("prefixed", tiny_e5_name)):
        with opened(kind, path=str(tmp_path)) as writer:
            writer.set_model(model)
            writer.add(name, ["cat", "dog"])
    with opened(kind, path=str(tmp_path)) as reader:
        for name in ("plain", "prefixed", "plain"):
            assert reader.query(name, "cat", limit=1)[0].document == "cat"
        assert reader.embedding_model_name == DEFAULT_MODEL


def test_collections_made_with_the_helpers_are_taken_and_stamped(client: QdrantClient) -> None:
    client.set_sparse_model("Qdrant/bm25")
    params = client.get_fastembed_vector_params(
        on_disk=True, hnsw_config=models.HnswConfigDiff(m=8)
    )
    (name,) = params
    assert name == client.get_vector_field_name()
    assert (params[name].size, params[name].on_disk) == (client.get_embedding_size(), True)
    sparse = client.get_fastembed_sparse_vector_params(on_disk=True)
    assert sparse is not None
    assert sparse["fast-sparse-bm25"].modifier == models.Modifier.IDF
    assert sparse["fast-sparse-bm25"].index == models.SparseIndexParams(on_disk=True)
    client.create_collection("demo", vectors_config=params, sparse_vectors_config=sparse)
    client.add("demo", ["cat"])
    assert stamp(client)["sparse"]["vector_name"] == "fast-sparse-bm25"


def test_an_encoder_of_the_users_own(client: QdrantClient) -> None:
    client.set_model(LetterEncoder())
    assert client.get_vector_field_name() == "fast-letters"
    assert client.get_embedding_size() == 26
    client.add("demo", ["aaa", "bbb"])
    assert [hit.document for hit in client.query("demo", "ab b")] == ["bbb", "aaa"]
    with pytest.raises(InputError, match="parallel"):
        client.add("demo", ["c"], parallel=2)


def test_an_encoder_object_must_be_passed_again(kind: str, tmp_path: Path) -> None:
    with opened(kind, path=str(tmp_path)) as client:
        client.set_model(LetterEncoder())
        client.add("demo", ["aaa", "bbb"])
    with (
        opened(kind, path=str(tmp_path)) as follower,
        pytest.raises(CollectionMismatchError, match=r"mine/Letters.*set_model"),
    ):
        follower.query("demo", "a")


def test_what_is_no_encoder_is_refused(client: QdrantClient) -> None:
    with pytest.raises(InputError, match="missing query_embed"):
        client.set_model(type("Half", (), {**vars(LetterEncoder), "query_embed": None})())
    with pytest.raises(InputError, match="model_name, dimension"):
        client.set_model(object())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="threads, cuda"):
        client.set_model(LetterEncoder(), threads=2, cuda=True)
    with pytest.raises(InputError, match="missing describe"):
        client.set_sparse_model(LetterEncoder())  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"language: .*set them on the encoder"):
        client.set_sparse_model(None, language="german")


def no_description(_: Any) -> dict[str, str]:
    """What an encoder says of itself, in a form of its own."""
    return {"model": "mine"}


def test_what_is_no_description_is_refused(client: QdrantClient) -> None:
    client.set_model(type("Dense", (LetterEncoder,), {"describe": no_description})())
    with pytest.raises(
        InputError, match=r"describe\(\) of Dense .* EncoderDescription, not of dict"
    ):
        client.add("demo", ["cat"])
    client.set_model(LetterEncoder())
    client.set_sparse_model(type("Sparse", (WordEncoder,), {"describe": no_description})())
    with pytest.raises(
        InputError, match=r"describe\(\) of Sparse .* SparseDescription, not of dict"
    ):
        client.add("demo", ["cat"])
    with pytest.raises(InputError, match="SparseDescription"):
        client.get_fastembed_sparse_vector_params()
    client.set_sparse_model(None)
    client.set_late_model(type("Late", (WordTokens,), {"describe": no_description})())
    with pytest.raises(InputError, match=r"describe\(\) of Late .* LateDescription, not of dict"):
        client.add("demo", ["cat"])
    assert not client.collection_exists("demo")


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (
            {"dimension": "26"},
            r"='26' \(str\), which EncoderDescription does not allow: .* valid integer",
        ),
        ({"dimension": 0}, r"dimension of describe\(\) of Mine must be .* at least 1, not 0"),
        ({"dimension": np.float32(26)}, "valid integer"),
        ({"distance": "cosine"}, "distance='cosine' .* 'Cosine', 'Dot', 'Euclid'"),
        ({"pooling": "average"}, "pooling='average'"),
        ({"max_tokens": 1.5}, "max_tokens=1.5"),
        ({"max_tokens": -5}, "max_tokens of .* at least 1, not -5"),
        ({"query_prefix": b"q: "}, "query_prefix=b'q: '"),
        ({"query_prefix": "\ud800"}, "query_prefix of .* is not valid Unicode"),
        ({"document_prefix": "x" * 20_000}, "document_prefix of .* 20,000 characters"),
        ({"weights_sha256": "x" * 5_000}, "weights_sha256 of .* 5,000 characters"),
        ({"model": None}, "model=None .* valid string"),
    ],
)
def test_a_description_whose_facts_are_of_other_types_is_refused(
    client: QdrantClient, facts: dict[str, Any], message: str
) -> None:
    class Mine(LetterEncoder):
        def describe(self) -> EncoderDescription:
            known: dict[str, Any] = {"model": self.model_name, "dimension": self.dimension}
            return EncoderDescription(**known | facts)

    client.set_model(Mine())
    with pytest.raises(InputError, match=message):
        client.add("demo", ["cat"])
    assert not client.collection_exists("demo")


@pytest.mark.parametrize(
    ("facts", "stored_as"),
    [
        ({"distance": models.Distance.DOT}, {"distance": "Dot"}),
        ({"dimension": np.int64(26)}, {"dimension": 26}),
        ({"pooling": ["mean", "cls"]}, {"pooling": ["mean", "cls"]}),
        ({"query_prefix": np.str_("q: ")}, {"query_prefix": "q: "}),
    ],
)
def test_facts_of_like_types_are_taken(
    client: QdrantClient, facts: dict[str, Any], stored_as: dict[str, Any]
) -> None:
    @dataclass(frozen=True)
    class More(EncoderDescription):
        trained: str = "at home"

    class Mine(LetterEncoder):
        def describe(self) -> EncoderDescription:
            known: dict[str, Any] = {"model": self.model_name, "dimension": self.dimension}
            return More(**known | facts)

    client.set_model(Mine())
    client.add("demo", ["cat"])
    found = stamp(client)
    assert found.items() >= stored_as.items()
    assert "trained" not in found
    client.set_model(Mine())
    assert client.query("demo", "cat")[0].document == "cat"


def test_an_encoder_without_a_description_may_count_in_numpy(client: QdrantClient) -> None:
    class Mine(LetterEncoder):
        dimension: Any = np.int64(26)

    client.set_model(Mine())
    client.add("demo", ["cat"])
    assert stamp(client)["dimension"] == 26


def test_numbers_of_a_sparse_description_are_numbers(client: QdrantClient) -> None:
    class Sparse(WordEncoder):
        k: Any = np.float32(1.5)

        def describe(self) -> SparseDescription:
            return SparseDescription(model=self.model_name, k=self.k)

    client.set_model(LetterEncoder())
    client.set_sparse_model(Sparse())
    client.add("demo", ["cat"])
    assert stamp(client)["sparse"]["k"] == 1.5
    endless = Sparse()
    endless.k = float("nan")
    client.set_sparse_model(endless)
    with pytest.raises(InputError, match=r"k=nan .* finite number"):
        client.add("other", ["cat"])
    assert not client.collection_exists("other")


def test_facts_of_sparse_and_late_descriptions_are_checked_too(client: QdrantClient) -> None:
    class Sparse(WordEncoder):
        def describe(self) -> SparseDescription:
            return SparseDescription(model=self.model_name, idf="no")  # type: ignore[arg-type]

    class Late(WordTokens):
        def describe(self) -> LateDescription:
            return LateDescription(model=self.model_name, dimension=26.0)  # type: ignore[arg-type]

    client.set_model(LetterEncoder())
    client.set_sparse_model(Sparse())
    with pytest.raises(InputError, match=r"describe\(\) of Sparse says idf='no'"):
        client.add("demo", ["cat"])
    client.set_sparse_model(None)
    client.set_late_model(Late())
    with pytest.raises(InputError, match=r"describe\(\) of Late says dimension=26.0"):
        client.add("demo", ["cat"])
    assert not client.collection_exists("demo")


def test_what_is_no_description_is_refused_of_a_collection_that_exists(
    client: QdrantClient,
) -> None:
    client.set_model(LetterEncoder())
    client.set_sparse_model(WordEncoder())
    client.set_late_model(WordTokens())
    client.add("demo", ["cat"])
    client.set_sparse_model(type("Sparse", (WordEncoder,), {"describe": no_description})())
    with pytest.raises(InputError, match="SparseDescription, not of dict"):
        client.query("demo", "cat")
    client.set_sparse_model(WordEncoder())
    client.set_late_model(type("Late", (WordTokens,), {"describe": no_description})())
    with pytest.raises(InputError, match="LateDescription, not of dict"):
        client.query("demo", "cat")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([[0.0] * 26], "returned 1 vectors for 2 texts"),
        ([[0.0] * 3] * 2, r"shape \(2, 3\), not \(2, 26\)"),
        ([[0.0] * 26, [0.0]], "not numbers"),
        ([["x"] * 26] * 2, "not numbers"),
        ([[float("nan")] * 26] * 2, "NaN"),
    ],
)
def test_an_encoder_that_gives_something_else_stores_nothing(
    client: QdrantClient, given: Any, message: str
) -> None:
    encoder = LetterEncoder()
    encoder.passage_embed = lambda texts: given  # type: ignore[method-assign]
    client.set_model(encoder)
    with pytest.raises(ModelError, match=message):
        client.add("demo", ["a", "b"])
    assert not client.collection_exists("demo")


def test_known_models_are_listed_without_network(kind: str) -> None:
    with opened(kind, ":memory:") as client:
        assert client.embedding_model_name == DEFAULT_MODEL
        assert client.get_vector_field_name() == "fast-bge-small-en-v1.5"
        assert client.get_embedding_size() == 384
        assert client.get_embedding_size("baai/BGE-base-en-v1.5") == 768
        assert client.list_text_models()[MINILM] == (384, models.Distance.COSINE)
        assert client.list_sparse_models()["Qdrant/bm25"]["requires_idf"] is True
        (params,) = client.get_fastembed_vector_params().values()
        assert (params.size, params.distance) == (384, models.Distance.COSINE)


def test_without_a_sparse_model_its_names_are_none(client: QdrantClient) -> None:
    assert client.sparse_embedding_model_name is None
    assert client.get_sparse_vector_field_name() is None
    assert client.get_fastembed_sparse_vector_params() is None


def test_a_sparse_models_names_are_the_predecessors(client: QdrantClient) -> None:
    client.set_sparse_model("qdrant/BM25")
    assert client.sparse_embedding_model_name == "Qdrant/bm25"
    assert client.get_sparse_vector_field_name() == "fast-sparse-bm25"
