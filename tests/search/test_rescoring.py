"""A search in quantised vectors scores candidates again, unless the user has options."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from clients import LetterEncoder, WordEncoder, WordTokens, at, opened, same
from qdrant_client import models
from rest_server import Server

from qdrant_embed import CollectionOptions, QdrantClient

INT8 = models.ScalarQuantization(
    scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8)
)
BINARY = models.BinaryQuantization(binary=models.BinaryQuantizationConfig())
KINDS: list[tuple[Any, float]] = [
    (INT8, 2.0),
    (models.TurboQuantization(turbo=models.TurboQuantQuantizationConfig()), 2.0),
    (
        models.TurboQuantization(
            turbo=models.TurboQuantQuantizationConfig(bits=models.TurboQuantBitSize.BITS1)
        ),
        4.0,
    ),
    (BINARY, 4.0),
    (
        models.ProductQuantization(
            product=models.ProductQuantizationConfig(compression=models.CompressionRatio.X16)
        ),
        4.0,
    ),
]


@pytest.fixture
def remote(kind: str, server: Server) -> Iterator[QdrantClient]:
    """A client of a server."""
    with opened(kind, **at(server)) as client:
        client.set_model(LetterEncoder())
        yield client


def asked(server: Server) -> list[dict[str, Any]]:
    """The searches that were sent, and forget them."""
    found = [
        search
        for request, body in server.bodies
        if request.endswith("/points/query/batch")
        for search in json.loads(body)["searches"]
    ]
    server.bodies.clear()
    return found


def again(oversampling: float) -> dict[str, Any]:
    return {"rescore": True, "oversampling": oversampling}


def shown(params: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in params["quantization"].items() if key != "ignore"}


@pytest.mark.parametrize(("quantization", "oversampling"), KINDS)
def test_each_kind_is_rescored(
    remote: QdrantClient, server: Server, quantization: Any, oversampling: float
) -> None:
    options = CollectionOptions(quantization_config=quantization)
    remote.add("demo", ["a", "b"], collection_options=options)
    server.bodies.clear()
    server.requests.clear()
    remote.query("demo", "a")
    remote.query("demo", "b", diversity=0.5)
    assert [shown(search["params"]) for search in asked(server)] == [again(oversampling)] * 2
    # the configuration is known from the add: not one request more than before
    assert server.requests == ["POST /collections/demo/points/query/batch"] * 2


def test_options_of_the_user_are_left_alone(remote: QdrantClient, server: Server) -> None:
    remote.add("demo", ["a"], collection_options=CollectionOptions(quantization_config=INT8))
    asked(server)
    remote.query("demo", "a", search_params=models.SearchParams(hnsw_ef=7))
    (search,) = asked(server)
    assert search["params"]["hnsw_ef"] == 7
    assert search["params"].get("quantization") is None


def test_exact_vectors_are_not_rescored(remote: QdrantClient, server: Server) -> None:
    remote.add("demo", ["a"])
    asked(server)
    remote.query("demo", "a")
    (search,) = asked(server)
    assert search.get("params") is None


def test_of_a_collection_that_somebody_else_made(remote: QdrantClient, server: Server) -> None:
    params = remote.get_fastembed_vector_params()
    remote.create_collection("demo", vectors_config=params, quantization_config=INT8)
    remote.add("demo", ["a"])
    asked(server)
    remote.query("demo", "a")
    assert shown(asked(server)[0]["params"]) == again(2.0)


def test_only_the_dense_branch_is_rescored(remote: QdrantClient, server: Server) -> None:
    remote.set_sparse_model(WordEncoder())
    remote.add("demo", ["a"], collection_options=CollectionOptions(quantization_config=INT8))
    asked(server)
    remote.query("demo", "a")
    (search,) = asked(server)
    dense, sparse = search["prefetch"]
    assert shown(dense["params"]) == again(2.0)
    assert sparse.get("params") is None
    assert search.get("params") is None


@pytest.mark.parametrize(("enabled", "oversampling"), [(True, 1.5), (False, 2.0)])
def test_no_more_than_strict_mode_accepts(
    remote: QdrantClient, server: Server, enabled: bool, oversampling: float
) -> None:
    strict = models.StrictModeConfig(enabled=enabled, search_max_oversampling=1.5)
    params = remote.get_fastembed_vector_params()
    remote.create_collection(
        "demo", vectors_config=params, quantization_config=INT8, strict_mode_config=strict
    )
    remote.add("demo", ["a"])
    asked(server)
    remote.query("demo", "a")
    assert shown(asked(server)[0]["params"]) == again(oversampling)


def test_local_mode_which_has_no_quantised_vectors_gets_no_options(client: QdrantClient) -> None:
    client.add("demo", ["a", "b"], collection_options=CollectionOptions(quantization_config=INT8))
    assert len(client.query("demo", "a")) == 2  # a warning would be an error


def test_vectors_of_tokens_are_rescored_as_they_are_stored(
    remote: QdrantClient, server: Server
) -> None:
    remote.set_model(LetterEncoder(), vector_name="d")
    remote.set_late_model(WordTokens(), vector_name="l")
    options = CollectionOptions(late_quantization_config=INT8)
    remote.add("demo", ["a", "b"], collection_options=options)
    asked(server)
    remote.query("demo", "a")
    (search,) = asked(server)
    assert search["using"] == "l"
    assert shown(search["params"]) == again(2.0)
    (dense,) = search["prefetch"]
    assert dense.get("params") is None


def test_groups_are_rescored(remote: QdrantClient, server: Server) -> None:
    options = CollectionOptions(quantization_config=INT8)
    remote.add("demo", ["a", "b"], collection_options=options)
    asked(server)
    remote.query_groups("demo", "a", group_by="kind")
    assert [shown(search["params"]) for search in asked(server)] == [again(2.0)]


def test_hits_are_those_of_whole_vectors(anywhere: QdrantClient) -> None:
    texts = [f"{word} {number}" for word in ("cat", "dog", "bee") for number in range(20)]
    anywhere.add("whole", texts, ids=range(60))
    options = CollectionOptions(quantization_config=BINARY)
    anywhere.add("demo", texts, ids=range(60), collection_options=options)
    anywhere.wait_until_indexed("demo")
    # four times as many candidates are all
    expected = anywhere.query("whole", "cat 7", limit=20)
    assert same(anywhere.query("demo", "cat 7", limit=20), expected)
