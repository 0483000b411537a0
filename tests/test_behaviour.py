"""What both clients do on every kind of database, dense and hybrid."""

from __future__ import annotations

import uuid
from typing import Any

import grpc
import pytest
import qdrant_client
from clients import SENTENCES, LetterEncoder, same, stamp, stored, vectors
from qdrant_client import models
from qdrant_client.http.exceptions import UnexpectedResponse
from tiny import TinyModel

from qdrant_embed import (
    CollectionMismatchError,
    CollectionNotFoundError,
    QdrantClient,
    QdrantEmbedMixin,
    ServerRefusal,
    TextEmbedding,
)

OWN = (UnexpectedResponse, grpc.RpcError, ValueError)  # errors of qdrant_client
TEXTS = ["the cat sat", "paris is the capital", "the market fell", "the player won", "the ship"]


def test_text_goes_in_and_the_right_answer_comes_out(everywhere: QdrantClient) -> None:
    metadata = [{"n": n, "even": n % 2 == 0} for n in range(5)]
    ids = everywhere.add("demo", TEXTS, metadata)
    assert stored(everywhere) == {
        i: {"document": text, **entry} for i, text, entry in zip(ids, TEXTS, metadata, strict=True)
    }
    (best, second) = everywhere.query("demo", TEXTS[1], limit=2)
    assert (best.id, best.document) == (ids[1], TEXTS[1])
    assert best.metadata == {"document": TEXTS[1], **metadata[1]}
    assert best.score > second.score
    assert best.embedding is None
    assert best.sparse_embedding is None


def test_only_points_that_fit_both_filters_are_found(everywhere: QdrantClient) -> None:
    everywhere.add("demo", TEXTS, [{"n": n, "even": n % 2 == 0} for n in range(5)])
    only_even = models.Filter(
        must=[models.FieldCondition(key="even", match=models.MatchValue(value=True))]
    )
    for text in TEXTS:
        hits = everywhere.query("demo", text, only_even)
        assert {hit.metadata["n"] for hit in hits} == {0, 2, 4}
        hits = everywhere.query("demo", text, only_even, where={"n": {"gte": 1}})
        assert {hit.metadata["n"] for hit in hits} == {2, 4}
    # a branch that ignored the filter would bring the best text back
    assert everywhere.query("demo", TEXTS[1], where={"n": {"not": 1}}, limit=1)[0].id != 1


def test_query_batch_answers_each_query_in_order(everywhere: QdrantClient) -> None:
    everywhere.add("demo", TEXTS)
    queries = [TEXTS[3], TEXTS[0], TEXTS[2]]
    answers = everywhere.query_batch("demo", queries, limit=2, where={})
    assert [answer[0].document for answer in answers] == queries
    for answer, query in zip(answers, queries, strict=True):
        assert same(answer, everywhere.query("demo", query, limit=2))
    assert everywhere.query_batch("demo", []) == []


@pytest.mark.filterwarnings("ignore:Local mode performs exact")  # it takes no search_params
def test_search_options_reach_the_search(everywhere: QdrantClient) -> None:
    everywhere.add("demo", TEXTS)
    options: dict[str, Any] = {"search_params": models.SearchParams(exact=True), "timeout": 5}
    every = everywhere.query("demo", "the cat", **options)
    assert len(every) == 5
    assert same(everywhere.query("demo", "the cat", offset=2, limit=2, **options), every[2:4])
    threshold = every[1].score - 1e-6
    assert same(everywhere.query("demo", "the cat", score_threshold=threshold), every[:2])
    (batch,) = everywhere.query_batch("demo", ["the cat"], score_threshold=threshold, **options)
    assert same(batch, every[:2])


def test_vectors_come_back_when_asked_for(everywhere: QdrantClient, tiny: TinyModel) -> None:
    (point, _) = everywhere.add("demo", TEXTS[:2])
    (hit,) = everywhere.query("demo", TEXTS[0], limit=1, with_vectors=True)
    assert hit.embedding == pytest.approx(next(TextEmbedding(tiny.path).embed(TEXTS[0])), abs=1e-5)
    own = vectors(everywhere, point)
    assert set(own) == {everywhere.get_vector_field_name()} | (
        {everywhere.get_sparse_vector_field_name()} - {None}
    )
    if everywhere.sparse_embedding_model_name:
        assert hit.sparse_embedding == own["fast-sparse-bm25"]
    else:
        assert hit.sparse_embedding is None


def test_unknown_options_are_type_errors(everywhere: QdrantClient) -> None:
    with pytest.raises(TypeError, match="no_such_option"):
        everywhere.query("demo", "cat", no_such_option=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="no_such_option"):
        everywhere.query_batch("demo", ["cat"], no_such_option=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="no_such_option"):
        everywhere.add("demo", ["x"], no_such_option=1)  # type: ignore[call-arg]


def test_ids_come_back_as_qdrant_shows_them(everywhere: QdrantClient) -> None:
    given: list[int | str | uuid.UUID] = [7, uuid.UUID(int=8), uuid.UUID(int=9).hex]
    ids = everywhere.add("demo", ["cat", "dog", "ship"], ids=given)
    assert ids == [7, str(uuid.UUID(int=8)), str(uuid.UUID(int=9))]
    assert set(stored(everywhere)) == set(ids)
    assert {hit.id for hit in everywhere.query("demo", "cat")} == set(ids)
    random_ids = everywhere.add("demo", ["cat", "dog"])
    assert {record.id for record in everywhere.retrieve("demo", random_ids)} == set(random_ids)


def test_the_same_ids_overwrite(everywhere: QdrantClient) -> None:
    for _ in range(2):
        everywhere.add("demo", ["cat", "dog"], ids=[1, 2])
    everywhere.add("demo", ["ship"], ids=[2])
    assert stored(everywhere) == {1: {"document": "cat"}, 2: {"document": "ship"}}


@pytest.mark.parametrize("count", [1, 31, 32, 33, 1025])
def test_as_many_points_as_documents_whatever_the_batches(client: QdrantClient, count: int) -> None:
    client.set_sparse_model("Qdrant/bm25")
    texts = [f"cat {n}" for n in range(count)]
    ids = client.add("demo", (text for text in texts), ({"n": n} for n in range(count)))
    assert len(set(ids)) == count
    found = stored(client)
    assert [found[i]["n"] for i in ids] == list(range(count))
    assert [found[i]["document"] for i in ids] == texts


def test_nothing_in_means_nothing_created(everywhere: QdrantClient) -> None:
    assert everywhere.add("demo", []) == []
    assert everywhere.add("demo", iter([]), metadata=[], ids=[]) == []
    assert not everywhere.collection_exists("demo")


def test_a_missing_collection_is_one_error(anywhere: QdrantClient) -> None:
    for ask in (
        lambda: anywhere.query("demo", "cat"),
        lambda: anywhere.query_batch("demo", ["cat", "dog"]),
        lambda: anywhere.delete_documents("demo", [1]),
        lambda: anywhere.get_documents("demo", [1]),
        lambda: list(anywhere.scroll_documents("demo")),
        lambda: anywhere.update_metadata("demo", [1], {"n": 1}),
        lambda: anywhere.migrate_model("demo", LetterEncoder(), "new"),
    ):
        with pytest.raises(
            CollectionNotFoundError, match=r"collection '.*demo' was not found"
        ) as found:
            ask()
        assert isinstance(found.value, LookupError)
        assert found.value.collection_name.endswith("demo")
        assert isinstance(found.value.__cause__, OWN)
    with pytest.raises(OWN):  # qdrant_client's own method
        anywhere.get_collection("demo")


def test_a_vector_of_another_size_is_one_error(anywhere: QdrantClient) -> None:
    """The collection was made again behind the client's back, and is still remembered."""
    anywhere.add("demo", ["cat"])
    info = anywhere.get_collection("demo")
    names = [*(info.config.params.vectors or {})]
    anywhere.query("demo", "cat")
    anywhere.delete_collection("demo")
    size = models.VectorParams(size=3, distance=models.Distance.COSINE)
    anywhere.create_collection("demo", {str(names[0]): size}, metadata=info.config.metadata)
    with pytest.raises((ServerRefusal, CollectionMismatchError)) as caught:
        anywhere.query("demo", "cat")
    assert isinstance(caught.value, ValueError)


def test_a_collection_made_anew_behind_the_clients_back_is_looked_at_again(
    everywhere: QdrantClient, tiny_e5: TinyModel
) -> None:
    everywhere.add("demo", ["cat"])
    everywhere.query("demo", "cat")
    everywhere.delete_collection("demo")
    with pytest.raises(CollectionNotFoundError, match=r"(?i)not found"):
        everywhere.query("demo", "cat")
    everywhere.add("demo", ["dog"])
    assert [hit.document for hit in everywhere.query("demo", "cat")] == ["dog"]
    everywhere.delete_collection("demo")
    everywhere.set_model(tiny_e5.path)
    everywhere.add("demo", ["ship"])
    assert [hit.document for hit in everywhere.query("demo", "cat")] == ["ship"]


def test_real_sentences_are_found_by_their_meaning(
    client: QdrantClient, minilm: TextEmbedding
) -> None:
    client.set_model(minilm)
    client.add("demo", SENTENCES)
    queries = ["kitten", "Which city is the French capital?", "share prices", "football", "gale"]
    answers = client.query_batch("demo", queries, limit=1)
    assert [answer[0].document for answer in answers] == SENTENCES
    client.set_sparse_model("Qdrant/bm25")
    client.add("hybrid", SENTENCES)
    answers = client.query_batch("hybrid", [*queries[:4], "ship"], limit=1)
    assert [answer[0].document for answer in answers] == SENTENCES
    assert stamp(client, "hybrid")["sparse"]["model"] == "Qdrant/bm25"


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
