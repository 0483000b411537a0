"""The client as its users have it: add and query on real local Qdrants."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdrant_client
from numpy.typing import NDArray
from qdrant_client import models
from tiny import TinyModel, tiny_bert

from qdrant_embed import (
    CollectionMismatchError,
    IngestError,
    InputError,
    ModelError,
    QdrantClient,
    QdrantEmbedMixin,
    QueryResponse,
    TextEmbedding,
    UnknownModelError,
)
from qdrant_embed.encoder.catalog import DEFAULT_MODEL, MINILM

SENTENCES = [
    "The cat sat on the mat and purred",
    "Paris is the capital of France",
    "The stock market fell by three percent",
    "The striker scored two goals in the final",
    "The ship sailed through the storm",
]


class LetterEncoder:
    """An encoder of a user's own: counts letters."""

    model_name = "mine/Letters"
    dimension = 26

    def passage_embed(self, texts: Iterable[str], /) -> Iterable[NDArray[np.float32]]:
        return np.array([[text.count(chr(97 + i)) + 0.1 for i in range(26)] for text in texts])

    query_embed = passage_embed


def same(found: list[QueryResponse], expected: list[QueryResponse]) -> bool:
    """The same hits; scores may differ by what float32 rounds off in another batch."""
    return [hit.model_copy(update={"score": 0.0}) for hit in found] == [
        hit.model_copy(update={"score": 0.0}) for hit in expected
    ] and [hit.score for hit in found] == pytest.approx([hit.score for hit in expected], abs=1e-5)


def stored(client: qdrant_client.QdrantClient, name: str = "demo") -> dict[Any, dict[str, Any]]:
    """Payloads by id."""
    points, _ = client.scroll(name, limit=10_000)
    return {point.id: point.payload or {} for point in points}


@pytest.fixture(params=["memory", "path"])
def real(
    request: pytest.FixtureRequest, tmp_path: Path, minilm: TextEmbedding
) -> Iterator[QdrantClient]:
    """A client on real weights, in memory and on disk."""
    if request.param == "memory":
        client = QdrantClient(":memory:")
    else:
        client = QdrantClient(path=str(tmp_path))
    client.set_model(minilm)
    yield client
    client.close()


def test_text_goes_in_and_the_right_answer_comes_out(real: QdrantClient) -> None:
    metadata = [{"n": n, "even": n % 2 == 0} for n in range(5)]
    ids = real.add("demo", SENTENCES, metadata)
    assert stored(real) == {
        i: {"document": text, **entry}
        for i, text, entry in zip(ids, SENTENCES, metadata, strict=True)
    }
    (best, second) = real.query("demo", "Which city is the French capital?", limit=2)
    assert (best.id, best.document) == (ids[1], SENTENCES[1])
    assert best.metadata == {"document": SENTENCES[1], **metadata[1]}
    assert best.score > second.score
    assert best.embedding is None
    only_even = models.Filter(
        must=[models.FieldCondition(key="even", match=models.MatchValue(value=True))]
    )
    hits = real.query("demo", "Which city is the French capital?", only_even)
    assert {hit.metadata["n"] for hit in hits} == {0, 2, 4}


def test_query_batch_answers_each_query_in_order(real: QdrantClient) -> None:
    real.add("demo", SENTENCES)
    queries = ["kitten", "share prices", "football"]
    answers = real.query_batch("demo", queries, limit=1)
    assert [answer[0].document for answer in answers] == [SENTENCES[i] for i in (0, 2, 3)]
    for answer, query in zip(answers, queries, strict=True):
        assert same(answer, real.query("demo", query, limit=1))
    assert real.query_batch("demo", []) == []


def test_search_options_reach_the_search(real: QdrantClient, minilm: TextEmbedding) -> None:
    real.add("demo", SENTENCES)
    every = real.query("demo", "kitten")
    assert same(real.query("demo", "kitten", offset=2, limit=2), every[2:4])
    threshold = every[1].score - 1e-6
    assert same(real.query("demo", "kitten", score_threshold=threshold), every[:2])
    (hit,) = real.query("demo", "kitten", limit=1, with_vectors=True, timeout=5)
    assert hit.embedding == pytest.approx(next(minilm.embed(SENTENCES[0])), abs=1e-5)
    with pytest.raises(TypeError, match="no_such_option"):
        real.query("demo", "kitten", no_such_option=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="no_such_option"):
        real.add("demo", ["x"], no_such_option=1)  # type: ignore[call-arg]


def test_a_database_on_disk_opens_again_and_follows_its_own_model(
    tiny_e5: TinyModel, tmp_path: Path
) -> None:
    first = QdrantClient(path=str(tmp_path / "db"))
    first.set_model(tiny_e5.path)
    ids = first.add("demo", ["cat", "dog", "ship"])
    expected = first.query("demo", "cat")
    first.close()
    second = QdrantClient(path=str(tmp_path / "db"))
    found = second.query("demo", "cat")
    assert same(found, expected)
    second.add("demo", ["storm"])
    assert len(stored(second)) == len(ids) + 1
    second.close()


def test_both_prefixes_are_applied_and_stamped(tiny_e5: TinyModel) -> None:
    client = QdrantClient(":memory:")
    client.set_model(tiny_e5.path)
    (point,) = client.add("demo", ["cat"])
    encoder = TextEmbedding(tiny_e5.path)
    (record,) = client.retrieve("demo", [point], with_vectors=True)
    assert isinstance(record.vector, dict)
    (vector,) = record.vector.values()
    assert vector == pytest.approx(next(encoder.embed("passage: cat")), abs=1e-6)
    (hit,) = client.query("demo", "dog")
    expected = float(next(encoder.embed("passage: cat")) @ next(encoder.embed("query: dog")))
    assert hit.score == pytest.approx(expected, abs=1e-5)
    stamp = (client.get_collection("demo").config.metadata or {})["qdrant_embed"]
    assert (stamp["query_prefix"], stamp["document_prefix"]) == ("query: ", "passage: ")
    assert (stamp["dimension"], stamp["distance"], stamp["pooling"]) == (32, "Cosine", "mean")
    assert len(stamp["weights_sha256"]) == 64


def test_ids_come_back_as_qdrant_shows_them(client: QdrantClient) -> None:
    given: list[int | str | uuid.UUID] = [7, uuid.UUID(int=8), uuid.UUID(int=9).hex]
    ids = client.add("demo", ["cat", "dog", "ship"], ids=given)
    assert ids == [7, str(uuid.UUID(int=8)), str(uuid.UUID(int=9))]
    assert set(stored(client)) == set(ids)
    random_ids = client.add("demo", ["cat", "dog"])
    assert {record.id for record in client.retrieve("demo", random_ids)} == set(random_ids)


def test_the_same_ids_overwrite(client: QdrantClient) -> None:
    client.add("demo", ["cat", "dog"], ids=[1, 2])
    client.add("demo", ["ship"], ids=[2])
    assert stored(client) == {1: {"document": "cat"}, 2: {"document": "ship"}}


@pytest.mark.parametrize("count", [1, 31, 32, 33, 1025])
def test_as_many_points_as_documents_whatever_the_batches(client: QdrantClient, count: int) -> None:
    texts = [f"cat {n}" for n in range(count)]
    ids = client.add("demo", (text for text in texts), ({"n": n} for n in range(count)))
    assert len(set(ids)) == count
    found = stored(client)
    assert [found[i]["n"] for i in ids] == list(range(count))
    assert [found[i]["document"] for i in ids] == texts


def test_nothing_in_means_nothing_created(client: QdrantClient) -> None:
    assert client.add("demo", []) == []
    assert client.add("demo", iter([]), metadata=[], ids=[]) == []
    assert not client.collection_exists("demo")


BAD_INPUT: list[tuple[dict[str, Any], str]] = [
    ({"documents": "hello"}, "list of str"),
    ({"documents": ["a", None]}, r"documents\[1\]"),
    ({"documents": ["a", 3]}, r"documents\[1\]"),
    ({"documents": ["a", "b"], "metadata": [{}]}, "2 documents, 1 metadata"),
    ({"documents": ["a"], "metadata": [{}, {}]}, "1 documents, 2 metadata"),
    ({"documents": ["a", "b"], "ids": [1]}, "2 documents, 1 ids"),
    ({"documents": ["a"], "ids": [1, 2]}, "1 documents, 2 ids"),
    ({"documents": ["a"], "ids": []}, "1 documents, 0 ids"),
    ({"documents": ["a"], "metadata": ["x"]}, r"metadata\[0\] must be a dict"),
    ({"documents": ["a"], "metadata": [{"document": "x"}]}, "'document'"),
    ({"documents": ["a"], "ids": ["x"]}, r"ids\[0\]"),
    ({"documents": ["a", "b"], "ids": [1, 1]}, r"ids\[1\]"),
    ({"documents": iter(["a", "b"]), "metadata": iter([{}])}, "metadata ended after 1"),
    ({"documents": ["a"], "batch_size": 0}, "batch_size"),
    ({"documents": ["a"], "max_retries": -1}, "max_retries"),
    ({"documents": ["a"], "parallel": -1}, "parallel"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_INPUT)
def test_bad_input_is_refused_before_anything_is_stored(
    client: QdrantClient, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        client.add("demo", **arguments)
    assert not client.collection_exists("demo")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"query_text": ""}, "empty"),
        ({"query_text": "  \n"}, "empty"),
        ({"query_text": None}, "must be a str"),
        ({"query_text": "cat", "limit": 0}, "limit"),
        ({"query_text": "cat", "limit": 2.5}, "limit"),
        ({"query_text": "cat", "offset": -1}, "offset"),
    ],
)
def test_bad_queries_are_refused(
    client: QdrantClient, arguments: dict[str, Any], message: str
) -> None:
    client.add("demo", ["cat"])
    with pytest.raises(InputError, match=message):
        client.query("demo", **arguments)
    with pytest.raises(InputError, match="list of str"):
        client.query_batch("demo", "cat")


def test_a_missing_collection_is_qdrants_own_error(client: QdrantClient) -> None:
    with pytest.raises(ValueError, match="not found"):
        client.query("demo", "cat")


def test_input_that_turns_bad_midway_says_what_is_stored(client: QdrantClient) -> None:
    texts = [*["cat"] * 3000, None, *["dog"] * 10]
    with pytest.raises(IngestError, match=r"documents\[3000\]") as caught:
        client.add("demo", (text for text in texts))  # type: ignore[misc]
    assert isinstance(caught.value.__cause__, InputError)
    assert caught.value.failed_index == len(caught.value.stored_ids) > 0
    assert set(stored(client)) == set(caught.value.stored_ids)


def test_a_name_nobody_knows_gets_close_matches(client: QdrantClient) -> None:
    before = client.embedding_model_name
    with pytest.raises(UnknownModelError, match=DEFAULT_MODEL):
        client.set_model("BAAI/bge-smal-en-v1.5")
    assert client.embedding_model_name == before


def test_setting_a_model_again_with_other_options_counts(tiny_e5: TinyModel) -> None:
    client = QdrantClient(":memory:")
    client.set_model(tiny_e5.path)
    client.set_model(tiny_e5.path, query_prefix="", document_prefix="", max_length=9)
    client.add("demo", ["cat"])
    stamp = (client.get_collection("demo").config.metadata or {})["qdrant_embed"]
    assert (stamp["query_prefix"], stamp["document_prefix"], stamp["max_tokens"]) == ("", "", 9)


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
    tiny: TinyModel, tiny_e5: TinyModel, tmp_path: Path
) -> None:
    for name, model in (("plain", tiny), ("prefixed", tiny_e5)):
        writer = QdrantClient(path=str(tmp_path))
        writer.set_model(model.path)
        writer.add(name, ["cat", "dog"])
        writer.close()
    reader = QdrantClient(path=str(tmp_path))
    for name in ("plain", "prefixed", "plain"):
        assert reader.query(name, "cat", limit=1)[0].document == "cat"
    assert reader.embedding_model_name == DEFAULT_MODEL
    reader.close()


def test_a_collection_made_anew_behind_the_clients_back_is_looked_at_again(
    client: QdrantClient, tiny_e5: TinyModel
) -> None:
    client.add("demo", ["cat"])
    client.query("demo", "cat")
    client.delete_collection("demo")
    with pytest.raises(ValueError, match="not found"):
        client.query("demo", "cat")
    client.add("demo", ["dog"])
    assert [hit.document for hit in client.query("demo", "cat")] == ["dog"]
    client.delete_collection("demo")
    client.set_model(tiny_e5.path)
    client.add("demo", ["ship"])
    assert [hit.document for hit in client.query("demo", "cat")] == ["ship"]


def test_collections_made_with_the_helper_are_taken_and_stamped(client: QdrantClient) -> None:
    params = client.get_fastembed_vector_params(
        on_disk=True, hnsw_config=models.HnswConfigDiff(m=8)
    )
    (name,) = params
    assert name == client.get_vector_field_name()
    assert (params[name].size, params[name].on_disk) == (client.get_embedding_size(), True)
    client.create_collection("demo", vectors_config=params)
    client.add("demo", ["cat"])
    assert "qdrant_embed" in (client.get_collection("demo").config.metadata or {})


def test_a_collection_made_by_hand_with_an_unnamed_vector_is_explained(
    client: QdrantClient,
) -> None:
    client.create_collection("hand", models.VectorParams(size=32, distance=models.Distance.COSINE))
    for use in (lambda: client.add("hand", ["cat"]), lambda: client.query("hand", "cat")):
        with pytest.raises(CollectionMismatchError, match="one unnamed vector"):
            use()
    assert client.count("hand").count == 0


def predecessor_collection(client: QdrantClient, model: TinyModel, texts: list[str]) -> str:
    """A collection as the predecessor left it: no stamp, documents without any prefix."""
    vector_name = f"fast-{model.path.name}"
    client.create_collection(
        "old", {vector_name: models.VectorParams(size=32, distance=models.Distance.COSINE)}
    )
    client.upsert(
        "old",
        [
            models.PointStruct(
                id=i, vector={vector_name: vector.tolist()}, payload={"document": text}
            )
            for i, (text, vector) in enumerate(
                zip(texts, TextEmbedding(model.path).embed(texts), strict=True)
            )
        ],
    )
    return vector_name


def test_the_predecessors_collections_stay_without_prefixes_and_it_is_said_once(
    tiny_e5: TinyModel, caplog: pytest.LogCaptureFixture
) -> None:
    client = QdrantClient(":memory:")
    vector_name = predecessor_collection(client, tiny_e5, ["cat", "dog"])
    client.set_model(tiny_e5.path)
    (best, _) = client.query("old", "cat")
    assert (best.document, round(best.score, 4)) == ("cat", 1.0)
    (new,) = client.add("old", ["ship"])
    (record,) = client.retrieve("old", [new], with_vectors=[vector_name])
    assert isinstance(record.vector, dict)
    bare = next(TextEmbedding(tiny_e5.path).embed("ship"))
    assert record.vector[vector_name] == pytest.approx(bare, abs=1e-6)
    (warning,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert "add the documents to a new collection" in warning.getMessage()
    assert "qdrant_embed" not in (client.get_collection("old").config.metadata or {})


def test_where_documents_are_bare_by_design_queries_keep_their_prefix(tmp_path: Path) -> None:
    bge_like = tiny_bert(tmp_path / "tiny-bge", prompts={"query": "query: ", "document": ""})
    client = QdrantClient(":memory:")
    predecessor_collection(client, bge_like, ["cat"])
    client.set_model(bge_like.path)
    (hit,) = client.query("old", "cat")
    encoder = TextEmbedding(bge_like.path)
    expected = float(next(encoder.embed("query: cat")) @ next(encoder.embed("cat")))
    assert hit.score == pytest.approx(expected, abs=1e-5)


def test_the_predecessors_vector_name_tells_the_model(minilm: TextEmbedding) -> None:
    client = QdrantClient(":memory:")
    client.create_collection(
        "old",
        {"fast-all-minilm-l6-v2": models.VectorParams(size=384, distance=models.Distance.COSINE)},
    )
    client.upload_collection(
        "old",
        [{"fast-all-minilm-l6-v2": vector.tolist()} for vector in minilm.embed(SENTENCES)],
    )
    (hit, *_) = client.query("old", SENTENCES[2])
    assert hit.score == pytest.approx(1, abs=1e-4)
    assert hit.document == ""


def test_an_encoder_of_the_users_own(client: QdrantClient) -> None:
    client.set_model(LetterEncoder())
    assert client.get_vector_field_name() == "fast-letters"
    assert client.get_embedding_size() == 26
    client.add("demo", ["aaa", "bbb"])
    assert [hit.document for hit in client.query("demo", "ab b")] == ["bbb", "aaa"]
    with pytest.raises(InputError, match="parallel"):
        client.add("demo", ["c"], parallel=2)
    follower = QdrantClient(":memory:")
    follower._client = client._client
    with pytest.raises(CollectionMismatchError, match=r"mine/Letters.*set_model"):
        follower.query("demo", "a")


def test_what_is_no_encoder_is_refused(client: QdrantClient) -> None:
    with pytest.raises(InputError, match="missing query_embed"):
        client.set_model(type("Half", (), {**vars(LetterEncoder), "query_embed": None})())
    with pytest.raises(InputError, match="model_name, dimension"):
        client.set_model(object())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="threads, cuda"):
        client.set_model(LetterEncoder(), threads=2, cuda=True)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ([[0.0] * 26], "gave 1 vectors for 2 texts"),
        ([[0.0] * 3] * 2, r"shape \(2, 3\), not \(2, 26\)"),
        ([[0.0] * 26, [0.0]], "no numbers"),
        ([["x"] * 26] * 2, "no numbers"),
        ([[float("nan")] * 26] * 2, "NaN"),
    ],
)
def test_an_encoder_that_gives_something_else_stores_nothing(vectors: Any, message: str) -> None:
    encoder = LetterEncoder()
    encoder.passage_embed = lambda texts: vectors  # type: ignore[method-assign]
    client = QdrantClient(":memory:")
    client.set_model(encoder)
    with pytest.raises(ModelError, match=message):
        client.add("demo", ["a", "b"])
    assert not client.collection_exists("demo")


def test_the_mixin_fits_a_client_class_of_the_users_own(tiny: TinyModel) -> None:
    class Base(qdrant_client.QdrantClient):
        pass

    class Before(QdrantEmbedMixin, Base):
        pass

    class After(Base, QdrantEmbedMixin):
        pass

    for kind in (Before, After):
        client = kind(":memory:")
        client.set_model(tiny.path)
        client.add("demo", ["cat"])
        assert client.query("demo", "cat")[0].document == "cat"
        assert client.get_embedding_size() == 32


def test_known_models_are_listed_without_network() -> None:
    client = QdrantClient(":memory:")
    assert client.embedding_model_name == DEFAULT_MODEL
    assert client.get_vector_field_name() == "fast-bge-small-en-v1.5"
    assert client.get_embedding_size() == 384
    assert client.get_embedding_size("baai/BGE-base-en-v1.5") == 768
    assert client.list_text_models()[MINILM] == (384, models.Distance.COSINE)


def test_without_a_sparse_model_its_names_are_none(client: QdrantClient) -> None:
    assert client.sparse_embedding_model_name is None
    assert client.get_sparse_vector_field_name() is None
    client.create_collection(
        "demo",
        vectors_config=client.get_fastembed_vector_params(),
        sparse_vectors_config=client.get_fastembed_sparse_vector_params(),
    )
    assert len(client.add("demo", ["cat"])) == 1


def test_threads_may_query_one_client(client: QdrantClient) -> None:
    texts = [f"{word} {n}" for n in range(20) for word in ("cat", "dog", "ship")]
    client.add("demo", texts)
    serial = {text: client.query("demo", text, limit=3) for text in texts}
    wrong: list[object] = []

    def work() -> None:
        try:
            wrong.extend(
                text
                for text in texts
                if not same(client.query("demo", text, limit=3), serial[text])
            )
        except Exception as error:  # whatever a thread raises must fail the test
            wrong.append(error)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
