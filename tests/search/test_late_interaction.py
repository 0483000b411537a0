"""Late interaction on every store: vectors of tokens rank, in one request, what others found."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clients import (
    KINDS,
    SENTENCES,
    LetterEncoder,
    WordTokens,
    at,
    opened,
    same,
    stamp,
    stored,
    vectors,
)
from numpy.typing import NDArray
from qdrant_client import models
from rest_server import Server
from tiny import TinyModel

from qdrant_embed import (
    CollectionMismatchError,
    CollectionOptions,
    InputError,
    LateDescription,
    LateInteractionTextEmbedding,
    ModelError,
    QdrantClient,
    UntrustedModelError,
)
from qdrant_embed.collection.vectors import LateVectors

BATCH = "POST /collections/demo/points/query/batch"
NAME = "fast-late-wordtokens"
TEXTS = [f"{sentence}, {number}" for number in range(6) for sentence in SENTENCES]
QUERY = "a cat in the capital of france"
LATE = Path(__file__).parents[1] / "fixtures" / "late" / "stanford"


class Lengths:
    """A reranker that prefers long texts."""

    def rerank(self, query: str, documents: Sequence[str], /) -> list[int]:
        del query
        return [len(document) for document in documents]


def largest_sums(query: str, texts: Iterable[str]) -> list[float]:
    """The score of each text by `WordTokens`, computed apart."""
    encoder = WordTokens()
    (asked,) = encoder.query_embed([query])
    return [float((asked @ rows.T).max(axis=1).sum()) for rows in encoder.passage_embed(texts)]


@pytest.fixture
def late(everywhere: QdrantClient) -> QdrantClient:
    """A client of either kind on every store, dense or hybrid, with late interaction."""
    everywhere.set_late_model(WordTokens())
    return everywhere


def test_hits_are_ranked_by_the_sum_of_the_greatest_cosines(late: QdrantClient) -> None:
    late.add("demo", TEXTS, [{"n": n} for n in range(30)], ids=range(30))
    scores = largest_sums(QUERY, TEXTS)
    ranking = sorted(range(30), key=lambda n: (-round(scores[n], 4), n))
    hits = late.query("demo", QUERY, limit=30)
    assert [round(hit.score, 4) for hit in hits] == [
        pytest.approx(scores[int(hit.id)], abs=1e-3) for hit in hits
    ]
    assert sorted(int(hit.id) for hit in hits) == list(range(30))
    assert [int(hit.id) for hit in hits][:3] == ranking[:3]
    # pages, batches and filters are those of any query
    first, second = (late.query("demo", QUERY, limit=10, offset=at) for at in (0, 10))
    assert same([*first, *second], hits[:20])
    batch = late.query_batch("demo", [QUERY, "ship"], limit=5)
    assert same(batch[0], hits[:5])
    assert same(batch[1], late.query("demo", "ship", limit=5))
    odd = late.query("demo", QUERY, where={"n": {"gte": 20}}, limit=30)
    assert same(odd, [hit for hit in hits if int(hit.id) >= 20])
    best = late.query("demo", QUERY, score_threshold=hits[4].score - 1e-3, limit=30)
    assert [hit.score >= hits[4].score - 1e-3 for hit in best] == [True] * len(best)
    again = late.query("demo", QUERY, limit=3, reranker=Lengths())
    lengths = sorted((len(text) for text in TEXTS), reverse=True)
    assert [hit.score for hit in again] == lengths[:3]
    # groups, diversity and examples start from the same ranking
    groups = late.query_groups("demo", QUERY, group_by="n", limit=4)
    assert [group.hits[0].id for group in groups] == [hit.id for hit in hits[:4]]
    assert [group.hits[0].score for group in groups] == pytest.approx(
        [hit.score for hit in hits[:4]], abs=1e-4
    )
    diverse = late.query("demo", QUERY, limit=5, diversity=0.5)
    assert len({hit.id for hit in diverse}) == 5
    # the ranking by tokens is one half of it
    assert diverse[0].document.split(",")[0] == hits[0].document.split(",")[0]
    assert same(late.query("demo", QUERY, limit=5, diversity=0), hits[:5])
    with pytest.raises(InputError, match="diversity is in the order of hits"):
        late.query("demo", QUERY, diversity=0.5, fusion="dbsf")
    liked = late.query("demo", QUERY, like=[3], limit=30)
    assert same(liked, [hit for hit in hits if hit.id != 3])
    # a hit shows the vectors that it did before
    (shown,) = late.query("demo", QUERY, limit=1, with_vectors=True)
    assert len(shown.embedding or []) == 32


def test_vectors_of_tokens_are_stored_as_they_are(anywhere: QdrantClient) -> None:
    late = anywhere
    late.set_late_model(WordTokens())
    late.add("demo", TEXTS[:3], ids=[1, 2, 3])
    for number, rows in enumerate(WordTokens().passage_embed(TEXTS[:3]), start=1):
        np.testing.assert_allclose(vectors(late, number)[NAME], rows, atol=1e-6)
    late.add("demo", ["another text"], ids=[2])
    (rows,) = WordTokens().passage_embed(["another text"])
    np.testing.assert_allclose(vectors(late, 2)[NAME], rows, atol=1e-6)
    assert late.add("demo", TEXTS[:1], ids=[1], on_existing="skip") == [1]
    assert stamp(late)["late"] == {
        "model": "mine/WordTokens",
        "dimension": 26,
        "distance": "Cosine",
        "vector_name": NAME,
    }
    params = late.get_collection("demo").config.params.vectors
    assert isinstance(params, dict)
    assert params[NAME].multivector_config is not None


def test_documents_in_chunks_are_found_by_their_best_one(
    anywhere: QdrantClient, tiny: TinyModel
) -> None:
    class Short(WordTokens):
        model_name = "mine/Short"

    anywhere.set_model(tiny.path, overflow="chunk", max_length=8)
    anywhere.set_late_model(Short())
    documents = [f"{'mat ' * 12}{word} {'sea ' * 12}" for word in ("cat", "dog", "ship", "paris")]
    anywhere.add("demo", documents, ids=range(4))
    (best, *_) = anywhere.query("demo", "ship", limit=4)
    assert best.id == 2
    assert "ship" in best.document
    assert len(anywhere.query("demo", "ship", limit=4)) == 4
    chunks = anywhere.query("demo", "ship", limit=20, chunks=True)
    assert chunks[0] == best
    assert len(chunks) > 4


def test_a_migration_keeps_the_model_or_brings_it(
    anywhere: QdrantClient, tiny_e5: TinyModel
) -> None:
    late = anywhere
    late.set_late_model(WordTokens())
    late.add("demo", SENTENCES, ids=range(5))
    assert late.migrate_model("demo", tiny_e5.path, "new") == 5
    assert stamp(late, "new")["late"] == stamp(late)["late"]
    np.testing.assert_allclose(vectors(late, 3, "new")[NAME], vectors(late, 3)[NAME], atol=1e-6)
    assert stored(late, "new") == stored(late)
    # what was written without gets it, and loses it again
    late.set_late_model(None)
    late.add("plain", SENTENCES, ids=range(5))
    with pytest.raises(CollectionMismatchError, match="turned off"):
        late.add("demo", ["more"])
    assert len(late.query("demo", QUERY, limit=3)) == 3  # by the other vectors
    late.migrate_model("demo", tiny_e5.path, "less")
    assert "late" not in stamp(late, "less")
    late.set_late_model(WordTokens())
    with pytest.raises(CollectionMismatchError, match=r"could not be found .* migrate_model"):
        late.query("plain", QUERY)
    with pytest.raises(CollectionMismatchError, match="migrate_model"):
        late.add("plain", ["more"])
    late.migrate_model("plain", tiny_e5.path, "full")
    assert stamp(late, "full")["late"]["model"] == "mine/WordTokens"


def test_a_collection_follows_its_own_model(anywhere: QdrantClient) -> None:
    class Other(WordTokens):
        model_name = "mine/Other"

    anywhere.set_late_model(WordTokens())
    anywhere.add("demo", TEXTS[:5])
    anywhere.set_late_model(Other())
    with pytest.raises(CollectionMismatchError, match=r"mine/WordTokens.*set_late_model\(\)"):
        anywhere.query("demo", QUERY)


def test_a_copy_has_the_vectors_of_tokens(
    anywhere: QdrantClient, kind: str, tiny: TinyModel
) -> None:
    late = anywhere
    late.set_late_model(WordTokens())
    late.add("demo", TEXTS[:7], ids=range(7))
    hits = late.query("demo", QUERY)
    with opened(kind, ":memory:") as other:
        (found,) = late.get_collections().collections  # whose name is longer on a server
        late.copy_to(vars(other).get("client", other), [found.name])
        other.set_model(tiny.path)
        other.set_late_model(WordTokens())
        scores = {hit.id: hit.score for hit in other.query(found.name, QUERY)}
        # stores round alike up to the order of texts that are almost equally near
        assert scores == pytest.approx({hit.id: hit.score for hit in hits}, abs=1e-4)
        (point,) = other.retrieve(found.name, [3], with_vectors=True)
        assert isinstance(point.vector, dict)
        copied: Any = point.vector[NAME]
        np.testing.assert_allclose(copied, vectors(late, 3)[NAME], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hybrid", [False, True])
def test_a_query_is_one_request(kind: str, server: Server, *, hybrid: bool) -> None:
    with opened(kind, **at(server)) as client:
        client.set_model(LetterEncoder())
        if hybrid:
            client.set_sparse_model("Qdrant/bm25")
        client.set_late_model(WordTokens())
        client.add("demo", SENTENCES)  # no two of which have the same score
        client.query("demo", QUERY)
        server.requests.clear()
        server.bodies.clear()
        only = models.Filter(must=[models.HasIdCondition(has_id=[1])])
        client.query("demo", QUERY, limit=7, query_filter=only)
        client.query_batch("demo", [QUERY, "ship"], limit=7, prefetch_limit=40)
        assert server.requests == [BATCH] * 2
        (first,), (second, _) = (json.loads(body)["searches"] for _, body in server.bodies)
    for search, depth in ((first, 100), (second, 40)):
        assert search["using"] == NAME
        assert len(search["query"]["nearest"]) == len(QUERY.split())
        names = ["fast-letters", "fast-sparse-bm25"][: 1 + hybrid]
        assert [branch["using"] for branch in search["prefetch"]] == names
        assert {branch["limit"] for branch in search["prefetch"]} == {depth}
    assert all(branch["filter"] for branch in first["prefetch"])


def test_the_vector_has_no_index_and_can_be_quantised(server: Server) -> None:
    int8 = models.ScalarQuantization(
        scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8)
    )
    options = CollectionOptions(late_on_disk=True, late_quantization_config=int8)
    with opened("sync", **at(server)) as client:
        client.set_model(LetterEncoder())
        client.set_late_model(WordTokens(), vector_name="tokens")
        assert client.get_late_vector_field_name() == "tokens"
        client.add("demo", TEXTS, collection_options=options)
        created = next(json.loads(body) for request, body in server.bodies if b"on_disk" in body)
    params = created["vectors"]["tokens"]
    assert params["hnsw_config"]["m"] == 0
    assert params["on_disk"] is True
    assert params["quantization_config"]["scalar"]["type"] == "int8"
    assert params["multivector_config"] == {"comparator": "max_sim"}
    assert "quantization_config" not in created["vectors"]["fast-letters"]
    with pytest.raises(InputError, match="quantization_config cannot be 5"):
        CollectionOptions(late_quantization_config=5)  # type: ignore[arg-type]


def test_more_requests_only_beyond_the_first_candidates(server: Server) -> None:
    with opened("sync", **at(server)) as client:
        client.set_model(LetterEncoder())
        client.set_late_model(WordTokens())
        client.add("demo", [f"{chr(97 + n % 26)} {'a' * (n % 40)} b" for n in range(150)])
        client.query("demo", "a b", limit=1)
        whole = client.query("demo", "a b", limit=150, prefetch_limit=150)
        assert len({hit.id for hit in whole}) == 150
        server.requests.clear()
        assert len({hit.id for hit in client.query("demo", "a b", limit=150)}) == 150
        assert server.requests.count(BATCH) == 1


def test_a_model_by_name_is_stamped_followed_and_trusted_as_others_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = QdrantClient(":memory:")
    client.set_model(LetterEncoder())
    client.set_late_model(LATE, precision="fp32", cache_dir=tmp_path)
    assert client.late_embedding_model_name == str(LATE)
    assert client.get_late_vector_field_name() == "fast-late-stanford"
    client.add("demo", SENTENCES)
    encoder = LateInteractionTextEmbedding(LATE, precision="fp32", cache_dir=tmp_path)
    (asked,) = encoder.query_embed(["the ship"])
    scores = [float((asked @ rows.T).max(axis=1).sum()) for rows in encoder.embed(SENTENCES)]
    hits = client.query("demo", "the ship")
    assert [hit.score for hit in hits] == pytest.approx(sorted(scores, reverse=True), abs=1e-4)
    written = stamp(client)["late"]
    assert written["weights_sha256"] == encoder.describe().weights_sha256
    assert written["max_tokens"] == 48
    # a folder is never followed
    client._selection._chosen = type(client._selection._chosen)(dense=client._selection.current)
    with pytest.raises(UntrustedModelError, match=r"folder.*set_late_model\(\)"):
        client.query("demo", "the ship")
    client.close()


def test_what_an_encoder_of_a_users_own_returns_is_checked() -> None:
    class Wrong(WordTokens):
        rows: Any = None

        def passage_embed(self, texts: Iterable[str], /) -> list[NDArray[np.float32]]:
            return [self.rows for _ in texts]

        query_embed = passage_embed

    client = QdrantClient(":memory:")
    client.set_model(LetterEncoder())
    wrong = Wrong()
    client.set_late_model(wrong)
    for rows, message in (
        (np.ones((0, 26)), "shape .0, 26. for a text"),
        (np.ones(26), r"shape .26,. for a text"),
        (np.ones((2, 25)), r"return .tokens, 26."),
        (np.full((2, 26), np.nan), "NaN"),
        ([["a"]], "not numbers"),
        (None, "."),
    ):
        wrong.rows = rows
        with pytest.raises(ModelError, match=message):
            client.add("demo", ["a text"])
    assert not client.collection_exists("demo")
    for encoder in (WordTokens, object(), 5):
        with pytest.raises(InputError):
            client.set_late_model(encoder)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="max_tokens: only models by name"):
        client.set_late_model(WordTokens(), max_tokens=5)
    client.set_late_model(WordTokens())
    client.set_model(LetterEncoder(), vector_name="")
    with pytest.raises(InputError, match="needs a name"):
        client.add("unnamed", ["a text"])
    client.close()


def test_what_is_more_than_a_server_stores_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    class Many(WordTokens):
        dimension = 4096

        def passage_embed(self, texts: Iterable[str], /) -> list[NDArray[np.float32]]:
            return [np.ones((len(text), 4096), np.float32) for text in texts]

    found = LateVectors(Many(), "tokens").documents(["a" * 255, "a" * 256])
    assert [len(rows) for rows in found] == [255, 255]  # Qdrant: fewer than 1,048,576 numbers
    assert "more than the 255 vectors that Qdrant stores for a text, for 1 of them" in caplog.text


def test_a_vector_made_by_hand_must_fit() -> None:
    client = QdrantClient(":memory:")
    client.set_model(LetterEncoder())
    client.set_late_model(WordTokens())
    dense = client.get_fastembed_vector_params()
    for changes in ({"size": 25}, {"distance": models.Distance.DOT}, {"multivector_config": None}):
        right = CollectionOptions().late_vector_params(LateDescription("mine/WordTokens", 26))
        client.create_collection("demo", dense | {NAME: right.model_copy(update=changes)})
        with pytest.raises(CollectionMismatchError, match="needs"):
            client.add("demo", ["a text"])
        client.delete_collection("demo")
    client.create_collection("demo", dense | {NAME: right})
    client.add("demo", ["a text"])
    assert stamp(client)["late"]["vector_name"] == NAME
    assert len(client.query("demo", "text")) == 1
    # one that has documents without it
    client.create_collection("other", dense | {NAME: right})
    client.set_late_model(None)
    client.add("other", ["a text"])
    client.set_late_model(WordTokens())
    with pytest.raises(CollectionMismatchError, match="was not written with mine/WordTokens"):
        client.query("other", "text")
    client.close()


@pytest.mark.parametrize("names", [("v", "v", "t"), ("v", "s", "v"), ("v", "t", "t")])
def test_each_vector_has_a_name_of_its_own(client: QdrantClient, names: tuple[str, ...]) -> None:
    dense, sparse, late = names
    client.set_model(LetterEncoder(), vector_name=dense)
    client.set_sparse_model("Qdrant/bm25", vector_name=sparse)
    client.set_late_model(WordTokens(), vector_name=late)
    with pytest.raises(InputError, match=r"have the same name.*pass another vector_name"):
        client.add("demo", ["a text"])
    assert not client.collection_exists("demo")
