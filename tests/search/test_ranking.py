"""The order of what is found: pages, equal scores, documents found by their chunks."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from clients import at, opened, same
from numpy.typing import NDArray
from qdrant_client import models
from rest_server import Server
from tiny import TinyModel

from qdrant_embed import (
    EncoderDescription,
    InputError,
    QdrantClient,
    QueryResponse,
    SparseDescription,
    SparseVector,
)
from qdrant_embed.search.ranking import DEPTHS, DenseRanking, FusedRanking, Ranking

KEY = "qdrant_embed_chunk"
BATCH = "POST /collections/demo/points/query/batch"
RETRIEVE = "POST /collections/demo/points"
SIZE = 4
FUSIONS = ["dense", "rrf", "dbsf"]


class Table:
    """A dense encoder of a user's own that looks texts up."""

    model_name = "mine/Table"
    dimension = SIZE

    def __init__(self, rows: dict[str, NDArray[np.float32]], **facts: Any) -> None:
        self.rows, self.facts = rows, facts

    def describe(self) -> EncoderDescription:
        return EncoderDescription(model=self.model_name, dimension=SIZE, **self.facts)

    def passage_embed(self, texts: Iterable[str], /) -> NDArray[np.float32]:
        return np.array([self.rows[text] for text in texts])

    query_embed = passage_embed


class SparseTable:
    """A sparse encoder of a user's own that looks texts up: weights of words by their numbers."""

    model_name = "mine/SparseTable"

    def __init__(self, rows: dict[str, dict[int, float]]) -> None:
        self.rows = rows

    def describe(self) -> SparseDescription:
        return SparseDescription(model=self.model_name, idf=False)

    def passage_embed(self, texts: Iterable[str], /) -> list[SparseVector]:
        rows = (self.rows[text] for text in texts)
        return [
            SparseVector(np.array(list(row), np.int64), np.array(list(row.values()), np.float32))
            for row in rows
        ]

    query_embed = passage_embed


class Corpus:
    """Documents of chunks whose scores for the query ``"q"`` are given.

    Args:
        documents: for each its chunks, with the cosine, and the sparse score.
    """

    def __init__(self, documents: Sequence[Sequence[tuple[float, float]]], seed: int = 0) -> None:
        generator = random.Random(seed)
        self.points: list[models.PointStruct] = []
        self.vectors: list[dict[str, Any]] = []
        self.dense: list[float] = []
        self.sparse: list[float] = []
        for number, chunks in enumerate(documents):
            parent = str(uuid.UUID(int=generator.getrandbits(128), version=4))
            for position, (cosine, weight) in enumerate(chunks):
                other = str(uuid.UUID(int=generator.getrandbits(128), version=4))
                row = np.zeros(SIZE)
                row[0], row[1] = cosine, (1 - cosine**2) ** 0.5
                self.dense.append(cosine)
                self.sparse.append(weight)
                sparse = models.SparseVector(indices=[1], values=[weight])
                self.vectors.append({"d": row.tolist(), "s": sparse})
                payload = {
                    "document": f"{number}/{position}",
                    "n": number,
                    KEY: {"parent": parent, "position": position, "count": len(chunks)},
                }
                point = models.PointStruct(
                    id=other if position else parent, vector={}, payload=payload
                )
                self.points.append(point)

    def store(self, client: QdrantClient, way: str, *, chunked: bool = True) -> None:
        """Make the collection, in chunks or not, and let the client search it."""
        query: NDArray[np.float32] = np.zeros(SIZE, np.float32)
        query[0] = 1
        facts = {"overflow": "chunk"} if chunked else {}
        encoder = Table({"q": query, "x": query}, **facts)
        client.set_model(encoder, vector_name="d")
        if way != "dense":
            client.set_sparse_model(SparseTable({"q": {1: 1.0}, "x": {1: 1.0}}), vector_name="s")
        (made,) = client.add("demo", ["x"])
        client.delete("demo", [made])
        client.set_model(encoder, vector_name="d")  # so that the collection is read again
        points = [
            models.PointStruct(
                id=point.id,
                vector={name: vector[name] for name in ("d", "s")[: 1 if way == "dense" else 2]},
                payload={k: v for k, v in (point.payload or {}).items() if chunked or k != KEY},
            )
            for point, vector in zip(self.points, self.vectors, strict=True)
        ]
        for start in range(0, len(points), 500):
            client.upsert("demo", points[start : start + 500])

    def ranking(self, way: str, *, chunked: bool = True) -> list[str]:
        """The ids of all hits in their right order, from the definition."""
        ids = [str(point.id) for point in self.points]
        parents = [(point.payload or {})[KEY]["parent"] for point in self.points]
        keys = parents if chunked else ids
        ranked: list[int] = []
        for scores in self._tiers(way, chunked):
            order = sorted(scores, key=lambda i: (-round(scores[i], 7), keys[i], ids[i]))
            ranked += [i for i in order if i not in ranked]
        return list(dict.fromkeys(keys[i] for i in ranked))

    def _tiers(self, way: str, chunked: bool) -> Iterator[dict[int, float]]:
        if way == "dense":
            yield dict(enumerate(self.dense))
            return
        for depth in (400, 1600, 6400, 25600) if chunked else (100, 400, 1600, 6400, 25600):
            scores: dict[int, float] = {}
            for branch in (self.dense, self.sparse):
                order = np.argsort(-np.array(branch), kind="stable")[:depth]
                values = np.array(branch)[order]
                spread = 6 * values.std(ddof=1) if len(values) > 1 else 0.0
                for rank, i in enumerate(order):
                    score = 1 / (rank + 2)
                    if way == "dbsf":
                        score = (branch[i] - values.mean()) / spread + 0.5 if spread > 0 else 0.5
                    scores[int(i)] = scores.get(int(i), 0.0) + score
            yield scores
            if len(scores) < depth:
                return


@pytest.fixture(params=["memory", "server", "grpc"])
def quick(request: pytest.FixtureRequest, kind: str) -> Iterator[QdrantClient]:
    """A client of either kind on a database that stores thousands of points in no time."""
    places: dict[str, Callable[[], dict[str, Any]]] = {
        "memory": lambda: {"location": ":memory:"},
        "server": lambda: at(request.getfixturevalue("server")),
        "grpc": lambda: at(request.getfixturevalue("grpc_server"), grpc=True),
    }
    with opened(kind, **places[request.param]()) as client:
        yield client


def options(way: str) -> dict[str, Any]:
    """The arguments of a search of this kind."""
    return {} if way == "dense" else {"fusion": way}


def corpus(
    seed: int, documents: int, chunks: int, *, nearby: float = 0.0, related: float = 0.3
) -> Corpus:
    """A random one: `nearby` chunks of a document have nearly one score, `related` branches too."""
    generator = np.random.default_rng(seed)
    made = []
    for _ in range(documents):
        at = generator.uniform(0.05, 0.95, 2)
        at[1] = related * at[0] + (1 - related) * at[1]
        count = int(generator.integers(1, chunks + 1))
        spread = generator.uniform(0.05, 0.95, (count, 2)) * (1 - nearby) + at * nearby
        made.append([(float(cosine), float(weight)) for cosine, weight in spread])
    return Corpus(made, seed)


def shown(hits: Sequence[QueryResponse]) -> list[str]:
    """The documents or points that were found."""
    return [hit.metadata[KEY]["parent"] for hit in hits]


# documents


@pytest.mark.parametrize("seed", range(112))
def test_documents_are_ranked_by_their_best_chunks(seed: int) -> None:
    generator = random.Random(seed)
    way = FUSIONS[seed % 3]
    nearby = generator.choice([0.0, 0.5, 0.99])
    found = corpus(
        seed,
        generator.choice([2, 5, 20, 60]),
        generator.choice([1, 3, 8, 40]),
        nearby=nearby,
        related=generator.random(),
    )
    expected = found.ranking(way)
    with opened("sync", ":memory:") as client:
        found.store(client, way)
        for limit in (1, 3, 10, 25):
            hits = client.query("demo", "q", limit=limit, **options(way))
            assert shown(hits) == expected[:limit]
            offset = generator.randrange(40)
            page = client.query("demo", "q", limit=limit, offset=offset, **options(way))
            assert shown(page) == expected[offset : offset + limit]
            assert all(hit.document and hit.metadata["n"] >= 0 for hit in page)


@pytest.mark.parametrize("way", FUSIONS)
def test_what_groups_of_a_server_get_wrong(anywhere: QdrantClient, way: str) -> None:
    Corpus([[(0.9, 1), (0.8, 2)], [(0.5, 0.5)]]).store(anywhere, way)
    hits = anywhere.query("demo", "q", limit=2, **options(way))
    assert [hit.metadata["n"] for hit in hits] == [0, 1]
    assert len(anywhere.query("demo", "q", limit=1, **options(way))) == 1


@pytest.mark.parametrize("way", FUSIONS)
@pytest.mark.slow
def test_documents_whose_chunks_are_neighbours(quick: QdrantClient, way: str) -> None:
    near = [
        [(0.99 - (60 * n + c) * 1e-4, 50 - (60 * n + c) * 1e-2) for c in range(60)]
        for n in range(30)
    ]
    Corpus(near).store(quick, way)
    for limit in (6, 20, 40):
        hits = quick.query("demo", "q", limit=limit, **options(way))
        assert [hit.metadata["n"] for hit in hits] == list(range(min(limit, 30)))
        assert all(hit.document == f"{n}/0" for n, hit in enumerate(hits))
    several = quick.query_batch("demo", ["q", "x"], limit=12, offset=7, **options(way))
    assert [[hit.metadata["n"] for hit in hits] for hits in several] == [list(range(7, 19))] * 2


@pytest.fixture
def remote(kind: str, server: Server) -> Iterator[QdrantClient]:
    """A client of the server, of either kind."""
    with opened(kind, **at(server)) as client:
        yield client


@pytest.mark.parametrize("way", FUSIONS)
def test_one_request_as_a_rule(remote: QdrantClient, server: Server, way: str) -> None:
    found = corpus(1, 200, 4)
    found.store(remote, way)
    remote.query("demo", "q", **options(way))
    server.requests.clear()
    for limit, offset in ((1, 0), (5, 0), (10, 0), (10, 10), (50, 0)):
        hits = remote.query("demo", "q", limit=limit, offset=offset, **options(way))
        assert shown(hits) == found.ranking(way)[offset : offset + limit]
    remote.query_batch("demo", ["q", "x"] * 20, **options(way))
    assert server.requests == [BATCH] * 6


@pytest.mark.parametrize("way", FUSIONS)
def test_more_requests_where_needed_and_not_many(
    remote: QdrantClient, server: Server, way: str
) -> None:
    deep = [[(0.9 - c * 1e-5, 9 - c * 1e-4) for c in range(700)]]
    Corpus(deep + [[(0.1 + n * 1e-3, n * 1e-3)] for n in range(30)]).store(remote, way)
    remote.query("demo", "q", limit=1, **options(way))
    server.requests.clear()
    server.bodies.clear()
    assert len(remote.query("demo", "q", limit=10, **options(way))) == 10
    # fused: the page, a tier of 400, one of 1,600; dense: what is not of the first document
    assert server.requests == [BATCH] * (2 if way == "dense" else 3) + [RETRIEVE]
    server.requests.clear()
    assert len(remote.query_batch("demo", ["q", "x", "q"], limit=10, **options(way))[2]) == 10
    assert server.requests == [BATCH] * (2 if way == "dense" else 3) + [RETRIEVE]
    # a page far down: the payloads of the documents before it are not sent
    server.requests.clear()
    assert len(remote.query("demo", "q", limit=3, offset=20, **options(way))) == 3
    assert server.requests[-1] == RETRIEVE
    assert len(server.requests) <= 4


@pytest.mark.parametrize("way", FUSIONS)
def test_options_of_documents_hold_in_every_round(quick: QdrantClient, way: str) -> None:
    found = corpus(3, 80, 12, nearby=0.95)
    found.store(quick, way)
    whole = quick.query("demo", "q", limit=80, **options(way))
    assert shown(whole) == found.ranking(way)[:80]
    odd: dict[str, Any] = {
        "where": {"n": {"gte": 40}},
        "query_filter": models.Filter(
            must_not=[models.FieldCondition(key="n", match=models.MatchValue(value=79))]
        ),
    }
    hits = quick.query("demo", "q", limit=60, **odd, **options(way))
    assert {hit.metadata["n"] for hit in hits} == set(range(40, 79))
    if way == "dense":
        assert same(hits, [hit for hit in whole if 40 <= hit.metadata["n"] < 79])
    for rank in (0, 9, 30):
        above = [hit for hit in whole if hit.score >= whole[rank].score]
        found_above = quick.query(
            "demo", "q", limit=80, score_threshold=whole[rank].score - 1e-7, **options(way)
        )
        assert shown(found_above) == shown(above)
    for limit, offset in ((3, 0), (3, 30)):
        for hit in quick.query(
            "demo", "q", limit=limit, offset=offset, with_vectors=True, **options(way)
        ):
            assert hit.embedding is not None
            assert (hit.sparse_embedding is not None) == (way != "dense")


def test_points_that_are_no_chunks_are_documents(anywhere: QdrantClient) -> None:
    Corpus([[(0.9 - c / 1000, 1) for c in range(90)]]).store(anywhere, "dense")
    rows = [[0.5 + n / 100, 0.6, 0.0, 0.0] for n in range(5)]
    foreign = [models.PointStruct(id=n, vector={"d": row}) for n, row in enumerate(rows)]
    anywhere.upsert("demo", foreign)
    hits = anywhere.query("demo", "q", limit=4)
    assert len({str(hit.id) for hit in hits}) == 4
    assert [hit.id for hit in hits[1:]] == [4, 3, 2]


def test_a_reranker_gets_the_documents_it_asked_for(remote: QdrantClient, server: Server) -> None:
    class Counting:
        def __init__(self) -> None:
            self.given: list[int] = []

        def rerank(self, query: str, documents: Sequence[str]) -> list[float]:
            self.given.append(len(set(documents)))
            return [float(n) for n in range(len(documents))]

    for way in ("rrf", "dbsf"):
        if remote.collection_exists("demo"):
            remote.delete_collection("demo")
        found = corpus(2, 160, 9, nearby=0.9)
        found.store(remote, way)
        reranker = Counting()
        remote.query("demo", "q", reranker=reranker, **options(way))
        remote.query("demo", "q", reranker=reranker, rerank_limit=130, **options(way))
        hits = remote.query("demo", "q", reranker=reranker, rerank_limit=160, **options(way))
        assert reranker.given == [50, 130, 160]
        assert shown(hits) == found.ranking(way)[:-11:-1]


# pages


@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "chunked"])
@pytest.mark.parametrize("way", FUSIONS)
def test_pages_continue_each_other(anywhere: QdrantClient, way: str, chunked: bool) -> None:
    found = corpus(5, 130, 4, nearby=0.3)
    found.store(anywhere, way, chunked=chunked)
    expected = found.ranking(way, chunked=chunked)
    key = shown if chunked else lambda hits: [str(hit.id) for hit in hits]
    pages = [
        anywhere.query("demo", "q", limit=10, offset=10 * page, **options(way))
        for page in range(14)
    ]
    ids = [i for page in pages for i in key(page)]
    assert ids == expected[: len(ids)]
    assert len(set(ids)) == len(ids) == min(140, len(expected))
    for limit in (1, 3, 99, 100, 101, 130):
        hits = anywhere.query("demo", "q", limit=limit, **options(way))
        assert key(hits) == expected[:limit]
    assert anywhere.query("demo", "q", limit=10, offset=5000, **options(way)) == []


class Shaken(QdrantClient):
    """Finds equal scores in another order each time, as a server does."""

    requests = 0

    def query_batch_points(
        self,
        collection_name: str,
        requests: Sequence[models.QueryRequest],
        *args: Any,
        **kwargs: Any,
    ) -> list[models.QueryResponse]:
        self.requests += 1
        whole = [r.model_copy(update={"limit": 10_000, "offset": None}) for r in requests]
        answers = super().query_batch_points(collection_name, whole, *args, **kwargs)
        for request, answer in zip(requests, answers, strict=True):
            mixed = random.sample(answer.points, len(answer.points))
            mixed.sort(key=lambda point: -point.score)
            start = request.offset or 0
            answer.points = mixed[start : start + (request.limit or 10)]
        return answers


@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "chunked"])
@pytest.mark.parametrize("way", FUSIONS)
def test_equal_scores_in_another_order_each_time(way: str, chunked: bool) -> None:
    twice = [[(round(0.9 - 0.005 * (n // 2), 4), 1 + n / 10)] * 2 for n in range(150)]
    found = Corpus(twice)
    client = Shaken(":memory:")
    found.store(client, way, chunked=chunked)
    once = client.query("demo", "q", limit=150, **options(way))
    assert len({str(hit.id) for hit in once}) == 150
    client.requests = 0
    for _ in range(3):
        pages = [
            hit.model_dump()
            for page in range(15)
            for hit in client.query("demo", "q", limit=10, offset=10 * page, **options(way))
        ]
        assert [hit["id"] for hit in pages] == [hit.id for hit in once]
    assert [hit.id for hit in client.query("demo", "q", limit=7, **options(way))] == [
        hit.id for hit in once[:7]
    ]
    client.close()


def test_few_ties_cost_no_further_request() -> None:
    client = Shaken(":memory:")
    corpus(8, 100, 1, related=0.0).store(client, "rrf", chunked=False)
    client.requests = 0
    for page in range(9):
        client.query("demo", "q", offset=10 * page)
    assert client.requests == 9
    client.close()


def test_more_equal_scores_than_anyone_sorts(quick: QdrantClient) -> None:
    Corpus([[(0.5, 1)]] * 400).store(quick, "dense", chunked=False)
    hits = quick.query("demo", "q", limit=20)
    assert len({str(hit.id) for hit in hits}) == 20
    assert all(hit.document for hit in hits)


def test_distances_are_best_when_smallest(client: QdrantClient) -> None:
    rows = {f"x{n}": np.array([float(n), *[0.0] * (SIZE - 1)], np.float32) for n in range(9)}
    client.set_model(Table(rows, distance="Euclid"))
    client.add("demo", list(rows), ids=range(9))
    hits = client.query("demo", "x0", limit=4)
    assert [hit.id for hit in hits] == [0, 1, 2, 3]
    assert [hit.id for hit in client.query("demo", "x0", limit=4, offset=2)] == [2, 3, 4, 5]


def test_how_far_a_hybrid_search_reaches(anywhere: QdrantClient) -> None:
    found = corpus(9, 40, 3)
    found.store(anywhere, "rrf")
    with pytest.raises(
        InputError, match=r"reach hit 6401, but .* 6400 by default: .*at least 6401"
    ):
        anywhere.query("demo", "q", limit=6400, offset=1)
    assert anywhere.query("demo", "q", limit=6399, offset=1) == anywhere.query(
        "demo", "q", limit=39, offset=1, prefetch_limit=10_000
    )
    assert shown(anywhere.query("demo", "q", limit=40, prefetch_limit=40)) != []


def test_candidates_of_ones_own_are_all_there_is(remote: QdrantClient, server: Server) -> None:
    found = corpus(9, 90, 1)
    found.store(remote, "rrf", chunked=False)
    remote.query("demo", "q")
    server.requests.clear()
    hits = remote.query("demo", "q", limit=20, offset=0, prefetch_limit=20)
    rest = remote.query("demo", "q", limit=9, offset=11, prefetch_limit=20)
    assert [hit.id for hit in rest] == [hit.id for hit in hits[11:]]
    assert server.requests == [BATCH] * 2


# strict mode


def under_a_cap(client: QdrantClient, ranking: Ranking, cap: int) -> list[str]:
    """The documents of a page, where strict mode lets no limit be above a cap."""
    rounds = 0
    while not ranking.known:
        sent = ranking.requests(cap)
        for request in sent:
            assert all(each.limit <= cap for each in (request, *(request.prefetch or [])))
        found = client.query_batch_points("demo", sent)
        ranking.take(sent, [answer.points for answer in found])
        rounds += 1
    assert rounds <= 8
    return [(point.payload or {})[KEY]["parent"] for point in ranking.page()]


def test_what_a_cap_leaves_of_a_ranking() -> None:
    found = corpus(4, 40, 30, nearby=0.9)
    with opened("sync", ":memory:") as client:
        found.store(client, "rrf")
        query = [1.0, *[0.0] * (SIZE - 1)]
        dense = models.QueryRequest(query=query, using="d", with_payload=True)
        for cap in (30, 100):
            ranking: Ranking = DenseRanking(dense, 0, 10, documents=True)
            assert under_a_cap(client, ranking, cap) == found.ranking("dense")[:10]
        words = models.SparseVector(indices=[1], values=[1.0])
        fused = models.QueryRequest(
            prefetch=[
                models.Prefetch(query=query, using="d"),
                models.Prefetch(query=words, using="s"),
            ],
            query=models.FusionQuery(fusion=models.Fusion.RRF),
            with_payload=True,
        )
        shorter = [
            under_a_cap(
                client, FusedRanking(fused, 0, limit, documents=True, depths=DEPTHS[1:]), 100
            )
            for limit in (1, 3, 10, 25)
        ]
        assert all(page == shorter[-1][: len(page)] for page in shorter)
        assert 0 < len(set(shorter[-1])) == len(shorter[-1])


@pytest.mark.parametrize(
    "index", [models.PayloadSchemaType.INTEGER, models.PayloadSchemaType.FLOAT]
)
@pytest.mark.parametrize("grpc", [False, True], ids=["rest", "grpc"])
def test_numbers_pass_under_strict_mode_with_either_index(
    kind: str, grpc_server: Server, tiny: TinyModel, index: models.PayloadSchemaType, grpc: bool
) -> None:
    with opened(kind, **at(grpc_server, grpc=grpc)) as client:
        client.set_model(tiny.path)
        client.add("demo", ["cat", "dog", "sea"], [{"year": year} for year in (3, 4, 5)])
        client.create_payload_index("demo", "year", index)
        grpc_server.restrict("demo", unindexed_filtering_retrieve=False)
        for where in ({"year": 3}, {"year": 3.0}, {"year": {"not": 3}}, {"year": {"gt": 3}}):
            hits = client.query("demo", "cat", where=where)
            assert {hit.metadata["year"] == 3 for hit in hits} == {where in ({"year": 3},)}
        assert len(client.query("demo", "cat", where={"year": [3.0, 5.0]})) == 2
