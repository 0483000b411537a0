"""Every option of a query reaches the server in every form that a request can have."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest
from clients import LetterEncoder, WordEncoder, at, opened
from qdrant_client import models
from rest_server import Server
from tiny import TinyModel

from qdrant_embed import InputError, QdrantClient
from qdrant_embed.search.search import Search

PARAMS = models.SearchParams(hnsw_ef=7, exact=True)
FILTER = {"must": [{"has_id": [1]}]}
# a value for each option, none of which is the default
OPTIONS: dict[str, Any] = {
    "query_filter": models.Filter(must=[models.HasIdCondition(has_id=[1])]),
    "limit": 7,
    "where": {"n": 1},
    "with_vectors": True,
    "search_params": PARAMS,
    "score_threshold": 0.125,
    "offset": 20,
    "fusion": "dbsf",
    "prefetch_limit": 333,
    "consistency": models.ReadConsistencyType.MAJORITY,
    "shard_key_selector": "a",
    "timeout": 5,
}
# tested below, and in test_reranking.py
SET_ELSEWHERE = {"reranker", "rerank_limit", "chunks", "diversity", "like", "unlike"}


def test_no_option_is_forgotten_here() -> None:
    assert {field.name for field in fields(Search)} == OPTIONS.keys() | SET_ELSEWHERE


@pytest.fixture(params=["dense", "hybrid"])
def vectors(request: pytest.FixtureRequest) -> str:
    """The kinds of vectors in a collection."""
    kinds: str = request.param
    return kinds


@pytest.fixture(params=[False, True], ids=["whole", "chunked"])
def chunked(request: pytest.FixtureRequest) -> bool:
    """Whether documents are stored in chunks."""
    split: bool = request.param
    return split


@pytest.fixture
def remote(
    kind: str, server: Server, tiny: TinyModel, vectors: str, chunked: bool
) -> Iterator[QdrantClient]:
    """A client of a collection of that kind on the server."""
    with opened(kind, **at(server)) as client:
        if chunked:
            client.set_model(tiny.path, overflow="chunk", vector_name="d")
        else:  # whose equal vectors have equal scores, to the last bit
            client.set_model(LetterEncoder(), vector_name="d")
        if vectors == "hybrid":
            client.set_sparse_model(WordEncoder(), vector_name="s")
        client.add("demo", ["the cat sat", "the dog ran"], ids=[1, 2])
        yield client


RETRIEVE = "POST /collections/demo/points"


def check(asked: dict[str, Any], hybrid: bool, others: bool = False) -> None:
    """Every option is where a request of this form has it, but for those of the page.

    Args:
        asked: the request.
        hybrid: whether it has a branch for each vector.
        others: whether it searches documents other than those found before.
    """
    branches = asked["prefetch"] if hybrid else [asked]
    assert len(branches) == (2 if hybrid else 1)
    assert [branch["using"] for branch in branches] == (["d", "s"] if hybrid else ["d"])
    for branch in branches:
        chosen = branch["filter"]["must"][0] if others else branch["filter"]
        assert chosen["must"][0]["must"] == FILTER["must"]
        assert chosen["must"][1]["must"][0]["key"] == "n"
        assert branch["params"] == json.loads(PARAMS.model_dump_json(exclude_unset=True))
        if hybrid:
            assert branch["limit"] == 333
    if hybrid:
        assert asked["query"] == {"fusion": "dbsf"}
        assert "filter" not in asked
        assert "params" not in asked
    assert asked["score_threshold"] == 0.125
    assert asked["shard_key"] == "a"


@pytest.mark.filterwarnings("ignore:Local mode performs exact")
@pytest.mark.parametrize("ways", ["query", "query_batch", "chunks"])
@pytest.mark.parametrize("offset", [5, 20])
def test_every_option_reaches_the_server(
    remote: QdrantClient, server: Server, vectors: str, chunked: bool, ways: str, offset: int
) -> None:
    server.bodies.clear()
    server.parameters.clear()
    options = OPTIONS | {"offset": offset}
    if ways == "query_batch":
        remote.query_batch("demo", ["a cat", "a dog"], **options)
    else:
        remote.query("demo", "a cat", **options, chunks=ways == "chunks")
    ((_, body),) = server.bodies
    asked = json.loads(body)["searches"]
    assert len(asked) == (2 if ways == "query_batch" else 1)
    documents, hybrid = chunked and ways != "chunks", vectors == "hybrid"
    ties = 3 if hybrid else 1  # hits on either side of the page
    page: tuple[int, int | None] = 7 + 2 * ties, offset - ties
    if documents:
        page = 4 * (7 + offset) + (3 if hybrid else 0), None
    bare = documents and offset > 7  # a page far down: most payloads would be for nothing
    if bare and hybrid:
        page = 2 * 333, None
    for request in asked:
        check(request, hybrid)
        assert (request["limit"], request.get("offset")) == page
        if bare:
            assert request["with_payload"] == ["qdrant_embed_chunk.parent"]
            assert request["with_vector"] is False
        else:
            assert request["with_payload"] is True
            assert request["with_vector"] == (["d", "s"] if hybrid else ["d"])
    assert set(server.parameters[0].split("&")) == {"consistency=majority", "timeout=5"}


@pytest.mark.filterwarnings("ignore:Local mode performs exact")
@pytest.mark.parametrize("diversity", [None, 0.25])
@pytest.mark.parametrize("like", [False, True])
def test_every_option_goes_with_diversity_and_examples(
    remote: QdrantClient,
    server: Server,
    vectors: str,
    chunked: bool,
    diversity: float | None,
    like: bool,
) -> None:
    server.bodies.clear()
    examples: dict[str, Any] = {"like": [1], "unlike": [2]} if like else {}
    options = OPTIONS | {"offset": 0, "diversity": diversity, **examples}
    hybrid = vectors == "hybrid"
    if hybrid and diversity is not None:
        with pytest.raises(InputError, match="fusion='dbsf' fuses by scores"):
            remote.query("demo", "a cat", **options)
        options["fusion"] = "rrf"
    remote.query("demo", "a cat", **options)
    ((_, body),) = server.bodies
    (asked,) = json.loads(body)["searches"]
    dense = asked["prefetch"][0] if hybrid else asked
    if diversity is not None:
        if hybrid:
            assert asked.pop("query") == {"fusion": "rrf"}
            asked["query"] = {"fusion": "dbsf"}
        mmr = {"diversity": 0.25} | ({} if hybrid else {"candidates_limit": 333})
        assert dense["query"]["mmr"] == mmr
        assert dense["using"] == "d"
        if not hybrid:
            assert asked["limit"] == (28 if chunked else 7)
        if like or hybrid:
            assert "filter" not in dense
            (inner,) = dense.pop("prefetch")
            assert inner["limit"] == 333
            dense |= {key: inner[key] for key in ("query", "filter")}
    check(asked, hybrid, others=like)
    for branch in (asked["prefetch"] if hybrid else [asked])[: 1 if like else 0]:
        recommend = branch["query"]["recommend"]
        assert recommend["positive"][1:] == [1]
        assert recommend["negative"] == [2]
        excluded = branch["filter"]["must_not"]
        assert excluded[0] == {"has_id": [1, 2]}
        assert [each["match"] for each in excluded[1:]] == [{"any": ["1", "2"]}] * chunked


@pytest.mark.filterwarnings("ignore:Local mode performs exact")
def test_every_option_reaches_the_server_in_further_rounds(
    remote: QdrantClient, server: Server, vectors: str, chunked: bool
) -> None:
    hybrid = vectors == "hybrid"
    # points of one score: the ties at the end of a page, and documents of many chunks
    text = "the cat sat"
    remote.add("demo", [text] * 40, [{"n": 1}] * 40, ids=range(100, 140))
    if chunked:
        for point in range(100, 140):
            remote.set_payload("demo", {"qdrant_embed_chunk": {"parent": "100"}}, [point])
    remote.add("demo", ["a dog ran"], [{"n": 1}], ids=[7])
    ids = models.Filter(must=[models.HasIdCondition(has_id=[7, *range(100, 140)])])
    options = OPTIONS | {"query_filter": ids, "limit": 2, "offset": 0, "score_threshold": -9.0}
    remote.query("demo", "a cat")
    server.bodies.clear()
    server.parameters.clear()
    hits = remote.query("demo", text, **options)
    assert len(hits) == 2
    assert all(hit.embedding and hit.document for hit in hits)
    *rounds, last = server.bodies
    assert last[0] == RETRIEVE
    assert len(rounds) == 2
    for position, (_, body) in enumerate(rounds):
        (asked,) = json.loads(body)["searches"]
        asked["score_threshold"] = 0.125  # which would leave nothing out
        for branch in asked["prefetch"] if hybrid else [asked]:
            chosen = branch["filter"]
            if chunked and position and not hybrid:
                assert chosen["must_not"][0]["match"] == {"any": ["100"]}
                chosen = chosen["must"][0]
            assert chosen["must"][0]["must"][0]["has_id"][0] == 7
            chosen["must"][0]["must"] = FILTER["must"]
        check(asked, hybrid, others=bool(chunked and position and not hybrid))
        assert (asked["with_payload"] is True) == (position == 0)
    retrieved = json.loads(last[1])
    assert retrieved["with_payload"] is True
    assert retrieved["with_vector"] == (["d", "s"] if hybrid else ["d"])
    assert retrieved["shard_key"] == "a"
    for parameters in server.parameters:
        assert set(parameters.split("&")) == {"consistency=majority", "timeout=5"}


def test_an_error_of_a_users_encoder_costs_no_request(kind: str, server: Server) -> None:
    class Failing(LetterEncoder):
        def query_embed(self, query: Any, /) -> Any:
            raise ValueError("no such word")

    with opened(kind, **at(server)) as client:
        encoder = LetterEncoder()
        client.set_model(encoder)
        client.add("demo", ["cat"])
        client.query("demo", "cat")
        encoder.query_embed = Failing().query_embed  # type: ignore[method-assign] # fails from now on
        server.requests.clear()
        with pytest.raises(ValueError, match="no such word"):
            client.query("demo", "cat")
        assert server.requests == []
