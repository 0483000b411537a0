"""The last hop of a query: a reranker of the user's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from qdrant_embed import ModelError, QdrantClient, Reranker


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
