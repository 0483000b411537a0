"""Hits that differ from each other, and hits that resemble stored documents or do not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from clients import at, opened
from numpy.typing import NDArray
from rest_server import Server
from tiny import TinyModel

from qdrant_embed import (
    DocumentNotFoundError,
    EncoderDescription,
    InputError,
    QdrantClient,
    QueryResponse,
    SparseDescription,
    SparseVector,
)
from qdrant_embed.search import search

SIZE, COUNT = 8, 40
BATCH = "POST /collections/demo/points/query/batch"
WHERE = {"kind": "a"}


def rows(seed: int, count: int = COUNT) -> dict[str, NDArray[np.float32]]:
    """Vectors of texts and of the query, of several lengths, many of them near each other."""
    random = np.random.default_rng(seed)
    centers = random.normal(size=(6, SIZE))
    found = {"q": centers.sum(axis=0)}
    for number in range(count):
        noise = random.normal(0, 0.15, SIZE)
        found[f"d{number}"] = (centers[number % 6] + noise) * random.uniform(0.5, 2)
    return {text: row.astype(np.float32) for text, row in found.items()}


class Table:
    """A dense encoder of a user's own that looks texts up."""

    model_name = "mine/Table"
    dimension = SIZE

    def __init__(self, seed: int = 0, count: int = COUNT) -> None:
        self.rows = rows(seed, count)

    def describe(self) -> EncoderDescription:
        return EncoderDescription(model=self.model_name, dimension=SIZE)

    def passage_embed(self, texts: Iterable[str], /) -> NDArray[np.float32]:
        return np.array([self.rows[text] for text in texts])

    query_embed = passage_embed

    def unit(self, text: str) -> NDArray[np.float64]:
        row = self.rows[text].astype(np.float64)
        return np.asarray(row / np.linalg.norm(row))


class Scores:
    """A sparse encoder whose scores for the query are random."""

    model_name = "mine/Scores"

    def describe(self) -> SparseDescription:
        return SparseDescription(model=self.model_name, idf=False)

    def passage_embed(self, texts: Iterable[str], /) -> list[SparseVector]:
        return [self._vector(abs(np.sin(1 + int(text[1:]) ** 2))) for text in texts]

    def query_embed(self, query: Iterable[str], /) -> list[SparseVector]:
        return [self._vector(1) for _ in query]

    def _vector(self, value: float) -> SparseVector:
        return SparseVector(np.array([0], np.int64), np.array([value], np.float32))


def filled(client: QdrantClient, *, hybrid: bool = False, count: int = COUNT) -> Table:
    """Write the documents "d0", "d1" and so on, with their numbers as ids."""
    table = Table(count=count)
    client.set_model(table)
    client.set_sparse_model(Scores() if hybrid else None)
    numbers = range(count)
    metadata = [{"kind": "ab"[number % 2]} for number in numbers]
    client.add("demo", [f"d{number}" for number in numbers], metadata, list(numbers))
    return table


def chosen(table: Table, candidates: Sequence[Any], diversity: float) -> list[Any]:
    """Order candidates by maximal marginal relevance, by its definition."""
    vectors = np.array([table.unit(f"d{number}") for number in candidates])
    near, alike = vectors @ table.unit("q"), vectors @ vectors.T
    order = [int(np.argmax(near))]
    while len(order) < len(candidates):
        gain = (1 - diversity) * near - diversity * alike[:, order].max(axis=1)
        gain[order] = -np.inf
        order.append(int(np.argmax(gain)))
    return [candidates[place] for place in order]


def nearest(table: Table, query: NDArray[np.float64], numbers: Iterable[int]) -> list[int]:
    return sorted(numbers, key=lambda number: -float(table.unit(f"d{number}") @ query))


def ids(hits: Sequence[QueryResponse]) -> list[Any]:
    return [hit.id for hit in hits]


# diversity


@pytest.mark.parametrize("diversity", [0, 0.3, 0.5, 0.9, 1])
def test_hits_are_chosen_by_maximal_marginal_relevance(
    unset: QdrantClient, diversity: float
) -> None:
    table = filled(unset)
    expected = chosen(table, nearest(table, table.unit("q"), range(COUNT)), diversity)
    hits = unset.query("demo", "q", diversity=diversity, limit=12)
    assert ids(hits) == expected[:12]
    similarities = [float(table.unit(f"d{hit.id}") @ table.unit("q")) for hit in hits]
    assert [hit.score for hit in hits] == pytest.approx(similarities, abs=1e-5)
    assert [hit.document for hit in hits] == [f"d{hit.id}" for hit in hits]


def test_pages_continue_each_other_and_keep_to_the_filter(unset: QdrantClient) -> None:
    table = filled(unset)
    among = nearest(table, table.unit("q"), range(0, COUNT, 2))
    expected = chosen(table, among, 0.4)
    pages = [
        unset.query("demo", "q", where=WHERE, diversity=0.4, limit=4, offset=offset)
        for offset in range(0, 24, 4)
    ]
    assert [number for page in pages for number in ids(page)] == expected
    (batched,) = unset.query_batch("demo", ["q"], where=WHERE, diversity=0.4, with_vectors=True)
    assert ids(batched) == expected[:10]
    assert batched[0].embedding is not None


def fused(*orders: Sequence[int]) -> dict[int, float]:
    """Scores of reciprocal rank fusion, by Qdrant's definition."""
    scores: dict[int, float] = {}
    for order in orders:
        for rank, number in enumerate(order):
            scores[number] = scores.get(number, 0) + 1 / (rank + 2)
    return scores


def by_words(numbers: Iterable[int]) -> list[int]:
    return sorted(numbers, key=lambda number: -abs(np.sin(1 + number**2)))


@pytest.mark.parametrize("diversity", [0, 0.5])
def test_of_a_hybrid_search_the_dense_branch_is_diverse(
    unset: QdrantClient, diversity: float
) -> None:
    table = filled(unset, hybrid=True)
    among = nearest(table, table.unit("q"), range(0, COUNT, 2))
    expected = fused(chosen(table, among, diversity), by_words(among))
    options: Any = {"where": WHERE, "diversity": diversity}
    hits = unset.query("demo", "q", limit=20, **options)
    assert {hit.id: pytest.approx(hit.score, abs=1e-6) for hit in hits} == expected
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    pages = [unset.query("demo", "q", limit=5, offset=at, **options) for at in (0, 5, 10, 15)]
    assert [number for page in pages for number in ids(page)] == ids(hits)
    if not diversity:
        assert ids(hits) == ids(unset.query("demo", "q", limit=20, where=WHERE))


def test_the_candidates_of_a_hybrid_search_are_those_of_its_branches(unset: QdrantClient) -> None:
    table = filled(unset, hybrid=True)
    near = nearest(table, table.unit("q"), range(COUNT))[:7]
    expected = fused(chosen(table, near, 0.6), by_words(range(COUNT))[:7])
    hits = unset.query("demo", "q", limit=7, prefetch_limit=7, diversity=0.6)
    best = sorted(expected.values(), reverse=True)[:7]
    assert [hit.score for hit in hits] == pytest.approx(best, abs=1e-6)
    with pytest.raises(InputError, match=r"fusion='dbsf' fuses by scores"):
        unset.query("demo", "q", diversity=0.5, fusion="dbsf")


def test_beyond_the_first_candidates_more_are_chosen_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_DIVERSE_DEPTHS", (10, 40, 160))
    client = QdrantClient(":memory:")
    table = filled(client, count=60)
    order = nearest(table, table.unit("q"), range(60))
    first = chosen(table, order[:10], 0.5)
    more = [number for number in chosen(table, order[:40], 0.5) if number not in first]
    last = [number for number in chosen(table, order, 0.5) if number not in first + more]
    assert ids(client.query("demo", "q", diversity=0.5, limit=10)) == first
    assert ids(client.query("demo", "q", diversity=0.5, limit=20)) == [*first, *more[:10]]
    page = client.query("demo", "q", diversity=0.5, limit=7, offset=8)
    assert ids(page) == [*first[8:], *more[:5]]
    assert page[0].document == f"d{page[0].id}"
    assert ids(client.query("demo", "q", diversity=0.5, limit=99)) == [*first, *more, *last]
    wide = client.query("demo", "q", diversity=0.5, limit=15, prefetch_limit=20)
    assert ids(wide) == chosen(table, order[:20], 0.5)[:15]


class Longest:
    """A reranker that prefers the largest number."""

    def rerank(self, query: str, documents: Sequence[str], /) -> list[float]:
        return [float(document[1:]) for document in documents]


def test_a_reranker_scores_the_chosen_hits(unset: QdrantClient) -> None:
    table = filled(unset)
    expected = chosen(table, nearest(table, table.unit("q"), range(COUNT)), 0.5)[:8]
    hits = unset.query("demo", "q", limit=3, diversity=0.5, reranker=Longest(), rerank_limit=8)
    assert ids(hits) == sorted(expected, reverse=True)[:3]


@pytest.mark.parametrize("diversity", [-0.1, 1.01, float("nan"), True, "0.3"])
def test_what_is_no_share_is_refused(diversity: Any) -> None:
    client = QdrantClient(":memory:")
    with pytest.raises(InputError, match=r"diversity must be a number from 0 to 1"):
        client.query("demo", "q", diversity=diversity)


def test_too_many_candidates_are_refused() -> None:
    client = QdrantClient(":memory:")
    filled(client)
    with pytest.raises(
        InputError, match=r"reach hit 1700, but a search with diversity ranks 1600 by"
    ):
        client.query("demo", "q", diversity=0.3, limit=1700)
    with pytest.raises(InputError, match=r"from 16,384 candidates at most"):
        client.query("demo", "q", diversity=0.3, prefetch_limit=20_000)


# examples


def averaged(table: Table, like: Iterable[str], unlike: Iterable[str] = ()) -> NDArray[np.float64]:
    """The vector that examples are searched by, by Qdrant's definition."""
    liked = np.mean([table.unit(text) for text in like], axis=0)
    unliked = [table.unit(text) for text in unlike]
    return np.asarray(liked if not unliked else 2 * liked - np.mean(unliked, axis=0))


@pytest.mark.parametrize(
    ("text", "like", "unlike"),
    [
        ("q", [3, 10], [7]),
        ("q", [3], []),
        ("q", [], [7, 8]),
        (None, [3, 10], [7]),
        (None, [3], []),
    ],
)
def test_examples_are_searched_by_their_average(
    unset: QdrantClient, text: str | None, like: list[int], unlike: list[int]
) -> None:
    table = filled(unset)
    texts = [*([text] if text else []), *(f"d{number}" for number in like)]
    query = averaged(table, texts, [f"d{number}" for number in unlike])
    others = [number for number in range(COUNT) if number not in {*like, *unlike}]
    expected = nearest(table, query, others)
    hits = unset.query("demo", text, like=like, unlike=unlike, limit=12)
    assert ids(hits) == expected[:12]
    scores = [float(table.unit(f"d{hit.id}") @ query) / np.linalg.norm(query) for hit in hits]
    assert [hit.score for hit in hits] == pytest.approx(scores, abs=1e-5)
    some = [number for number in expected if number % 2 == 0]
    page = unset.query("demo", text, like=like, unlike=unlike, where=WHERE, limit=5, offset=3)
    assert ids(page) == some[3:8]


def test_in_a_hybrid_search_examples_are_part_of_the_dense_branch(unset: QdrantClient) -> None:
    table = filled(unset, hybrid=True)
    alone = unset.query("demo", like=[3], limit=5)
    expected = nearest(table, table.unit("d3"), [n for n in range(COUNT) if n != 3])
    assert ids(alone) == expected[:5]
    both = unset.query("demo", "q", like=[3], limit=COUNT, prefetch_limit=COUNT, fusion="dbsf")
    plain = unset.query("demo", "q", limit=COUNT, prefetch_limit=COUNT, fusion="dbsf")
    assert set(ids(both)) == set(range(COUNT)) - {3}
    assert [number for number in ids(plain) if number != 3] != ids(both)


def test_hits_like_examples_can_differ(unset: QdrantClient) -> None:
    table = filled(unset)
    others = [number for number in range(COUNT) if number not in (3, 7)]
    query = averaged(table, ["q", "d3"], ["d7"])
    candidates = nearest(table, query, others)[:10]
    hits = unset.query("demo", "q", like=[3], unlike=[7], diversity=0.5, limit=6, prefetch_limit=10)
    assert ids(hits) == chosen(table, candidates, 0.5)[:6]


def test_ids_of_every_kind_are_examples(unset: QdrantClient) -> None:
    table = Table()
    unset.set_model(table)
    given: list[Any] = ["a/b", "9f6a4c1e-0b0e-4e0e-8a40-0d3f6b8f0001", 5, 6]
    unset.add("demo", ["d0", "d1", "d2", "d3"], ids=given)
    hits = unset.query("demo", like=given[:1], unlike=given[1:2])
    assert set(ids(hits)) == {5, 6}
    assert set(ids(unset.query("demo", "q", like=[6]))) == {*given[:3]}


def test_an_example_that_does_not_exist_is_named(unset: QdrantClient) -> None:
    filled(unset)
    for _ in range(2):  # with vectors that are read, and remembered
        with pytest.raises(DocumentNotFoundError, match=r"demo' has no documents with 2") as error:
            unset.query("demo", "q", like=[3, "none"], unlike=[4711])
        assert error.value.missing_ids == ["none", 4711]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (None, {}, r"query_text is missing: pass a text, or ids of documents as like"),
        (None, {"unlike": [1]}, r"unlike needs something to search for besides"),
        (None, {"like": [1], "diversity": 0.5}, r"diversity compares hits with a text"),
        (None, {"like": [1], "reranker": Longest()}, r"reranker compares hits with a text"),
        ("q", {"like": [1, 2], "unlike": [2]}, r"like and unlike both have the id 2"),
        ("q", {"like": "abc"}, r"like must be a list of ids, not 'abc'"),
        ("q", {"unlike": [1.5]}, r"an id must be a whole number"),
        (" ", {"like": [1]}, r"a query text is empty"),
    ],
)
def test_examples_that_cannot_be_used_are_refused(
    text: str | None, options: Any, message: str
) -> None:
    client = QdrantClient(":memory:")
    filled(client)
    with pytest.raises(InputError, match=message):
        client.query("demo", text, **options)


def test_a_batch_has_texts(unset: QdrantClient) -> None:
    filled(unset)
    for texts in (None, "q", 5):
        with pytest.raises(InputError, match="query_texts must be a list of str, not"):
            unset.query_batch("demo", texts, like=[3])  # type: ignore[arg-type]


# documents in chunks, and requests

LONG = [f"{word} " * 40 for word in ("the cat", "a dog", "paris", "the market", "a ship")]


@pytest.mark.parametrize("options", [{"diversity": 0.4}, {"like": [2]}])
def test_documents_in_chunks_are_found_once(
    unset: QdrantClient, tiny: TinyModel, options: Any
) -> None:
    unset.set_model(tiny.path, max_length=16, overflow="chunk")
    unset.add("demo", LONG, ids=[1, 2, 3, 4, 5])
    assert unset.count("demo").count > 10
    expected = {1, 2, 3, 4, 5} - set(options.get("like", ()))
    hits = unset.query("demo", "cat", limit=5, **options)
    assert len(hits) == len(expected)
    assert set(ids(hits)) == expected
    again = [unset.query("demo", "cat", limit=2, offset=at, **options) for at in (0, 2, 4)]
    assert [number for page in again for number in ids(page)] == ids(hits)
    parts = unset.query("demo", "cat", limit=9, chunks=True, **options)
    assert set(ids(parts)) <= expected
    assert len(parts) == 9


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("hybrid", [False, True])
def test_all_of_it_is_one_request(server: Server, kind: str, hybrid: bool) -> None:
    with opened(kind, **at(server)) as client:
        filled(client, hybrid=hybrid)
        client.query("demo", "q")
        server.requests.clear()
        for options in (
            {"diversity": 0.3},
            {"like": [1], "unlike": [2]},
            {"like": [1], "diversity": 0.3, "limit": 4},
        ):
            client.query("demo", "q", **options)
        client.query("demo", like=[4])
        assert server.requests == [BATCH] * 4
