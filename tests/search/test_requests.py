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

from qdrant_embed import QdrantClient
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
SET_ELSEWHERE = {"reranker", "rerank_limit", "chunks"}  # tested below, and in test_reranking.py


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
        client.set_model(tiny.path, overflow="chunk" if chunked else "truncate", vector_name="d")
        if vectors == "hybrid":
            client.set_sparse_model(WordEncoder(), vector_name="s")
        client.add("demo", ["the cat sat", "the dog ran"], ids=[1, 2])
        yield client


def check(asked: dict[str, Any], hybrid: bool, grouped: bool) -> None:
    """Every option stands where a request of this form has it."""
    branches = asked["prefetch"] if hybrid else [asked]
    assert len(branches) == (2 if hybrid else 1)
    assert [branch["using"] for branch in branches] == (["d", "s"] if hybrid else ["d"])
    for branch in branches:
        assert branch["filter"]["must"][0]["must"] == FILTER["must"]
        assert branch["filter"]["must"][1]["must"][0]["key"] == "n"
        assert branch["params"] == json.loads(PARAMS.model_dump_json(exclude_unset=True))
        if hybrid:
            assert branch["limit"] == 333
    if hybrid:
        assert asked["query"] == {"fusion": "dbsf"}
        assert "filter" not in asked
        assert "params" not in asked
    assert asked["with_payload"] is True
    assert asked["with_vector"] == (["d", "s"] if hybrid else ["d"])
    assert asked["score_threshold"] == 0.125
    assert asked["shard_key"] == "a"
    # groups have no offset
    assert (asked["limit"], asked.get("offset")) == ((27, None) if grouped else (7, 20))


@pytest.mark.filterwarnings("ignore:Local mode performs exact")
@pytest.mark.parametrize("ways", ["query", "query_batch", "chunks"])
def test_every_option_reaches_the_server(
    remote: QdrantClient, server: Server, vectors: str, chunked: bool, ways: str
) -> None:
    server.bodies.clear()
    server.parameters.clear()
    options = OPTIONS | ({"fusion": "dbsf"} if vectors == "hybrid" else {})
    if ways == "query_batch":
        remote.query_batch("demo", ["a cat", "a dog"], **options)
    else:
        remote.query("demo", "a cat", **options, chunks=ways == "chunks")
    grouped = chunked and ways != "chunks"
    bodies = [json.loads(body) for _, body in server.bodies]
    asked = bodies if grouped else bodies[0]["searches"]
    assert len(asked) == (2 if ways == "query_batch" else 1)
    for request in asked:
        check(request, vectors == "hybrid", grouped)
        if grouped:
            assert request["group_by"] == "qdrant_embed_chunk.parent"
            assert request["group_size"] == 1
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
