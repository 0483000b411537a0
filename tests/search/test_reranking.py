"""The last hop of a query: a cross-encoder by its name, or a reranker of the user's own."""

from __future__ import annotations

import logging
import math
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from clients import WordTokens, at, opened, same
from rest_server import Server
from tiny import TinyModel

from qdrant_embed import (
    InputError,
    ModelDownloadError,
    ModelError,
    ModelFileError,
    QdrantClient,
    Reranker,
    TextCrossEncoder,
    UnknownModelError,
)
from qdrant_embed.encoder.interfaces import Overflow


class Longest:
    """Likes long texts; remembers what it was given."""

    def __init__(self) -> None:
        self.given: list[tuple[str, list[str]]] = []

    def rerank(self, query: str, documents: Sequence[str], /) -> Iterator[float]:
        self.given.append((query, list(documents)))
        yield from (float(len(document)) for document in documents)


@pytest.fixture
def filled(client: QdrantClient) -> QdrantClient:
    client.add("demo", ["cat " * n for n in range(1, 121)], ids=range(1, 121))
    return client


def test_the_reranker_has_the_last_word(filled: QdrantClient) -> None:
    reranker = Longest()
    assert isinstance(reranker, Reranker)
    hits = filled.query("demo", "cat", limit=3, reranker=reranker, rerank_limit=120)
    assert [hit.id for hit in hits] == [120, 119, 118]
    assert [hit.score for hit in hits] == [480.0, 476.0, 472.0]
    ((query, documents),) = reranker.given
    assert query == "cat"
    assert len(documents) == 120
    later = filled.query("demo", "cat", limit=2, offset=2, reranker=reranker, rerank_limit=120)
    assert [hit.id for hit in later] == [118, 117]


def test_it_is_given_more_than_is_wanted(filled: QdrantClient) -> None:
    reranker = Longest()
    filled.query_batch("demo", ["cat", "dog"], limit=2, reranker=reranker)
    filled.query("demo", "cat", limit=20, offset=10, reranker=reranker)
    filled.query("demo", "cat", reranker=reranker, where={"document": "dog"})  # which finds nothing
    assert [len(documents) for _, documents in reranker.given] == [50, 50, 90]


def test_hybrid_candidates_are_reranked(client: QdrantClient) -> None:
    client.set_sparse_model("Qdrant/bm25")
    client.add("demo", ["cat", "cat dog", "ship"])
    (best, *_) = client.query("demo", "ship", reranker=Longest())
    assert best.document == "cat dog"


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([1.0], "1 scores for 50 texts"),
        ([float("nan")] * 50, "NaN"),
        (["good"] * 50, "not numbers"),
        (None, "not numbers"),
    ],
)
def test_what_it_gives_is_checked(filled: QdrantClient, scores: Any, message: str) -> None:
    class Wrong:
        def rerank(self, query: str, documents: Sequence[str], /) -> Any:
            return scores

    with pytest.raises(ModelError, match=f"reranker Wrong returned .*{message}"):
        filled.query("demo", "cat", reranker=Wrong())


# cross-encoders by name

DOCUMENTS = ["the cat sat on the mat", "a ship sailed to sea", "the stock market fell", "the cat"]


def scores(folder: Path, query: str, texts: Sequence[str]) -> list[float]:
    return list(TextCrossEncoder(folder).rerank(query, texts))


def test_a_cross_encoder_is_named(everywhere: QdrantClient, reranker: Path) -> None:
    everywhere.add("demo", DOCUMENTS, [{"n": n} for n in range(4)], ids=range(4))
    plain = everywhere.query("demo", "the cat")
    hits = everywhere.query("demo", "the cat", reranker=reranker)
    assert {hit.id for hit in hits} == {hit.id for hit in plain}
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    found = scores(reranker, "the cat", [hit.document for hit in hits])
    assert [hit.score for hit in hits] == pytest.approx(found, abs=1e-5)
    retrieved = {hit.id: hit.score for hit in plain}
    assert [hit.retrieval_score for hit in hits] == pytest.approx(
        [retrieved[hit.id] for hit in hits], abs=1e-5
    )
    assert {hit.retrieval_score for hit in plain} == {None}
    (one, other) = everywhere.query_batch(
        "demo", ["the cat", "a ship"], limit=2, where={"n": {"lt": 3}}, reranker=str(reranker)
    )
    assert len(one) == len(other) == 2
    assert all(hit.metadata["n"] < 3 for hit in [*one, *other])
    best = max(scores(reranker, "a ship", DOCUMENTS[:3]))
    assert other[0].score == pytest.approx(best, abs=1e-5)


def test_a_clients_reranker_is_set_once(anywhere: QdrantClient, reranker: Path) -> None:
    anywhere.add("demo", DOCUMENTS, ids=range(4))
    plain = anywhere.query("demo", "the cat")
    anywhere.set_reranker(reranker)
    hits = anywhere.query("demo", "the cat")
    assert same(hits, anywhere.query("demo", "the cat", reranker=reranker))
    assert hits[0].retrieval_score is not None
    (longest, *_) = anywhere.query("demo", "the cat", reranker=Longest())
    assert longest.document == DOCUMENTS[0]
    assert same(anywhere.query("demo", "the cat", limit=2, offset=1), hits[1:3])
    anywhere.set_reranker(Longest())
    assert same(anywhere.query("demo", "the cat")[:1], [longest])
    anywhere.set_reranker(None)
    assert same(anywhere.query("demo", "the cat"), plain)


@pytest.mark.parametrize("hybrid", [False, True], ids=["dense", "hybrid"])
@pytest.mark.parametrize("late", [False, True], ids=["one stage", "late"])
@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "chunked"])
def test_one_request_a_query(
    kind: str,
    server: Server,
    tiny: TinyModel,
    reranker: Path,
    hybrid: bool,
    late: bool,
    chunked: bool,
) -> None:
    with opened(kind, **at(server)) as client:
        overflow: Overflow = "chunk" if chunked else "truncate"
        client.set_model(tiny.path, max_length=8, overflow=overflow)
        client.set_sparse_model("Qdrant/bm25" if hybrid else None)
        client.set_late_model(WordTokens() if late else None)
        long = "the ship sailed to sea in a storm and the market fell and the cat sat on the mat"
        client.add("demo", [*DOCUMENTS, long], ids=range(5))
        client.query("demo", "the cat", reranker=reranker)
        server.requests.clear()
        hits = client.query("demo", "the cat", limit=5, reranker=reranker)
        client.query_batch("demo", ["the cat", "a ship"], reranker=reranker)
        assert server.requests == ["POST /collections/demo/points/query/batch"] * 2
        assert {hit.id for hit in hits} == set(range(5))
        found = scores(reranker, "the cat", [hit.document for hit in hits])
        assert [hit.score for hit in hits] == pytest.approx(found, abs=1e-5)
        # of a document in chunks, the best one is scored
        assert (long in [hit.document for hit in hits]) != chunked


def test_examples_alone_are_not_reranked_unless_that_is_asked_for(
    anywhere: QdrantClient, reranker: Path
) -> None:
    anywhere.add("demo", DOCUMENTS, ids=range(4))
    plain = anywhere.query("demo", like=[0])
    anywhere.set_reranker(reranker)
    assert same(anywhere.query("demo", like=[0]), plain)
    with pytest.raises(InputError, match="reranker compares hits with a text"):
        anywhere.query("demo", like=[0], reranker=reranker)
    hits = anywhere.query("demo", "the cat", like=[0], diversity=0.3)
    found = scores(reranker, "the cat", [hit.document for hit in hits])
    assert [hit.score for hit in hits] == pytest.approx(found, abs=1e-5)
    assert found == sorted(found, reverse=True)


def test_nothing_is_requested_if_there_is_no_such_reranker(
    kind: str, server: Server, tiny: TinyModel, tmp_path: Path
) -> None:
    with opened(kind, **at(server), offline=True) as client:
        client.set_model(tiny.path)
        client.add("demo", DOCUMENTS)
        client.query("demo", "the cat")
        server.requests.clear()
        for name, error in (
            ("ms-marco-MiniLM-L7-v2", UnknownModelError),
            ("BAAI/bge-small-en-v1.5", UnknownModelError),
            ("cross-encoder/ms-marco-MiniLM-L6-v2", ModelDownloadError),
            (tiny.path, ModelFileError),
            (tmp_path, ModelError),
        ):
            with pytest.raises(error):
                client.query("demo", "the cat", reranker=name)
        for wrong in (object(), Longest, 3):
            with pytest.raises(InputError, match="reranker must"):
                client.query("demo", "the cat", reranker=wrong)  # type: ignore[arg-type]
            with pytest.raises(InputError, match="reranker must"):
                client.set_reranker(wrong)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="max_tokens, precision: only models by name"):
            client.set_reranker(Longest(), max_tokens=9, precision="fp32")
        assert server.requests == []


def test_options_of_a_reranker_are_passed_on(client: QdrantClient, reranker: Path) -> None:
    client.add("demo", DOCUMENTS)
    raw = {hit.document: hit.score for hit in client.query("demo", "cat", reranker=reranker)}
    client.set_reranker(reranker, activation="sigmoid", threads=1)
    for hit in client.query("demo", "cat"):
        assert hit.score == pytest.approx(1 / (1 + math.exp(-raw[hit.document])), abs=1e-6)
    client.set_reranker(reranker, max_tokens=5)
    short = {hit.document: hit.score for hit in client.query("demo", "cat")}
    assert short != pytest.approx(raw, abs=1e-5)


def test_the_time_it_took_is_logged(
    client: QdrantClient, reranker: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client.add("demo", DOCUMENTS)
    with caplog.at_level(logging.DEBUG, "qdrant_embed"):
        client.query("demo", "cat", reranker=reranker)
        client.query("demo", "cat", reranker=Longest())
    told = [r.getMessage() for r in caplog.records if "scored 4 texts in" in r.getMessage()]
    assert [text.endswith(" ms") for text in told] == [True, True]
    assert told[1].startswith("reranker Longest scored")


def test_a_copied_client_has_the_same_reranker(
    server: Server, tiny: TinyModel, reranker: Path
) -> None:
    with opened("sync", **at(server)) as client:
        client.set_model(tiny.path)
        client.set_reranker(reranker)
        client.add("demo", DOCUMENTS)
        other = pickle.loads(pickle.dumps(client))
        assert same(other.query("demo", "cat"), client.query("demo", "cat"))
        assert other.query("demo", "cat")[0].retrieval_score is not None
        other.close()
