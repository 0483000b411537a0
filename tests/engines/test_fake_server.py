"""The fake servers play what a real one does, and a local database does not."""

from __future__ import annotations

import http.client
import json
import math
import time
import warnings
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest
import qdrant_client
from clients import at
from fake_server.rules import as_stored, read_float
from qdrant_client import models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
from rest_server import Fault, Server

UPSERT = {"rest": "PUT /collections/demo/points", "grpc": "Points/Upsert"}
REFUSED = (UnexpectedResponse, grpc.RpcError)


@pytest.fixture(params=["rest", "grpc"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def plain(grpc_server: Server, transport: str) -> Iterator[qdrant_client.QdrantClient]:
    """A client of qdrant-client's own."""
    client = qdrant_client.QdrantClient(**at(grpc_server, grpc=transport == "grpc"))
    yield client
    client.close()


def chunked(client: qdrant_client.QdrantClient, *chunks: tuple[str, float, float]) -> None:
    """Store chunks with their parent, cosine and sparse weight for the queries below."""
    client.create_collection(
        "demo",
        {"text": models.VectorParams(size=2, distance=models.Distance.COSINE)},
        sparse_vectors_config={"words": models.SparseVectorParams()},
    )
    client.upsert(
        "demo",
        [
            models.PointStruct(
                id=number,
                vector={
                    "text": [cosine, math.sqrt(1 - cosine**2)],
                    "words": models.SparseVector(indices=[1], values=[weight]),
                },
                payload={"parent": parent},
            )
            for number, (parent, cosine, weight) in enumerate(chunks)
        ],
    )


def fused(limit: int) -> list[models.Prefetch]:
    words = models.SparseVector(indices=[1], values=[1.0])
    return [
        models.Prefetch(query=[1.0, 0.0], using="text", limit=limit),
        models.Prefetch(query=words, using="words", limit=limit),
    ]


def test_a_group_search_of_a_fused_query_ranks_wrongly(plain: qdrant_client.QdrantClient) -> None:
    """A is found first: its one chunk is the second by each list, its other the first by one."""
    chunked(plain, ("A", 0.9, 1), ("A", 0.8, 2), ("B", 0.5, 0.5))
    rrf = models.FusionQuery(fusion=models.Fusion.RRF)
    found = plain.query_points_groups(
        "demo", "parent", rrf, prefetch=fused(10), limit=2, group_size=1
    )
    assert [group.id for group in found.groups] == ["B", "A"]
    points = plain.query_points("demo", rrf, prefetch=fused(10), limit=3, with_payload=True)
    assert [(point.payload or {})["parent"] for point in points.points] == ["A", "A", "B"]


@pytest.mark.parametrize("limit", [6, 12, 20])
def test_a_group_search_ends_after_five_rounds(
    plain: qdrant_client.QdrantClient, limit: int
) -> None:
    chunks = [(f"document {place // 60}", 1 - place / 2000, 1.0) for place in range(30 * 60)]
    chunked(plain, *chunks)
    found = plain.query_points_groups(
        "demo", "parent", [1.0, 0.0], using="text", limit=limit, group_size=1
    )
    assert [group.id for group in found.groups] == [f"document {place}" for place in range(5)]


def test_floats_come_back_one_unit_off(plain: qdrant_client.QdrantClient, transport: str) -> None:
    """And a filter on equality does not find what was given, over gRPC."""
    given = 1.5777777777770001
    chunked(plain, ("A", 0.9, 1))
    plain.set_payload("demo", {"f": given}, [0])
    (record,) = plain.retrieve("demo", [0])
    back = (record.payload or {})["f"]
    assert back != given
    assert math.isclose(back, given, rel_tol=1e-15)
    same = models.FieldCondition(key="f", range=models.Range(gte=given, lte=given))
    found, _ = plain.scroll("demo", models.Filter(must=[same]))
    assert len(found) == (1 if transport == "rest" else 0)


def test_short_numbers_come_back_as_they_are() -> None:
    for number in (0.1, 1.5, 123.4567891, -0.0, 1e-320, 1e300, 2.5e-10, 18446744073709551615.0):
        assert as_stored(number) == read_float(repr(number)) == number, number
    assert read_float("18446744073709551616") == 2.0**64


def test_prefetches_of_a_group_search_have_no_limit(
    plain: qdrant_client.QdrantClient, grpc_server: Server
) -> None:
    chunked(plain, ("A", 0.9, 1), ("B", 0.8, 2))
    grpc_server.restrict("demo", max_query_limit=5)
    rrf = models.FusionQuery(fusion=models.Fusion.RRF)
    plain.query_points_groups("demo", "parent", rrf, prefetch=fused(8), limit=5, group_size=1)
    with pytest.raises(REFUSED, match="Limit exceeded 8 > 5"):
        plain.query_points("demo", rrf, prefetch=fused(8), limit=3)


def test_a_lack_of_rights_and_of_a_key(grpc_server: Server, transport: str) -> None:
    grpc_server.tokens = {"all": "manage", "look": "read", "mine": {"demo": "rw"}}
    options = at(grpc_server, grpc=transport == "grpc")

    def refusal(key: str | None, ask: Any) -> str:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a key over http
            client = qdrant_client.QdrantClient(**options, api_key=key)
        try:
            with pytest.raises(REFUSED) as error:
                ask(client)
        finally:
            client.close()
        return str(error.value)

    config = models.VectorParams(size=2, distance=models.Distance.DOT)
    assert "Must provide an API key" in refusal(None, lambda client: client.get_collections())
    assert "Invalid API key or JWT" in refusal("no", lambda client: client.get_collections())
    assert "Forbidden: Global manage access is required" in refusal(
        "look", lambda client: client.create_collection("demo", config)
    )
    assert "Forbidden: Global access is required" in refusal(
        "mine", lambda client: client.create_collection("demo", config)
    )
    assert "Access to collection other is required" in refusal(
        "mine", lambda client: client.get_collection("other")
    )


def test_what_is_in_the_queue_is_not_seen(
    plain: qdrant_client.QdrantClient, grpc_server: Server
) -> None:
    chunked(plain)
    grpc_server.node.queueing = True
    point = models.PointStruct(id=1, vector={}, payload={})
    plain.upsert("demo", [point], wait=False)
    assert plain.count("demo").count == 0
    plain.delete("demo", [99])  # with wait=True
    assert plain.count("demo").count == 1


def test_shard_keys(plain: qdrant_client.QdrantClient, grpc_server: Server) -> None:
    config = models.VectorParams(size=2, distance=models.Distance.DOT)
    plain.create_collection("demo", config, sharding_method=models.ShardingMethod.CUSTOM)
    with pytest.raises(REFUSED, match="Distributed mode disabled"):
        plain.create_shard_key("demo", "a")
    grpc_server.node.distributed = True
    for key in ("a", "b"):
        plain.create_shard_key("demo", key)
    with pytest.raises(REFUSED, match="Shard key c not found"):
        plain.upsert("demo", [models.PointStruct(id=1, vector=[1.0, 0.0])], shard_key_selector="c")
    plain.upsert("demo", [models.PointStruct(id=1, vector=[1.0, 0.0])], shard_key_selector="a")
    plain.upsert("demo", [models.PointStruct(id=2, vector=[2.0, 0.0])], shard_key_selector="b")

    def found(selector: Any) -> list[Any]:
        points = plain.query_points("demo", [1.0, 0], shard_key_selector=selector).points
        return [point.id for point in points]

    assert (found(None), found("a"), found(["b"])) == ([2, 1], [1], [2])


def test_a_collection_without_a_shard_panics(plain: qdrant_client.QdrantClient) -> None:
    config = models.VectorParams(size=2, distance=models.Distance.DOT)
    plain.create_collection("demo", config, sharding_method=models.ShardingMethod.CUSTOM)
    with pytest.raises((ResponseHandlingException, grpc.RpcError)):
        plain.query_points("demo", [1.0, 0])


@pytest.mark.parametrize("status", [0, 500, 503])
def test_faults_have_gRPCs_codes(  # noqa: N802
    plain: qdrant_client.QdrantClient, grpc_server: Server, transport: str, status: int
) -> None:
    chunked(plain)
    grpc_server.fail_once(UPSERT[transport], Fault(status, after_commit=True, late=0.01))
    point = models.PointStruct(id=1, vector={}, payload={})
    with pytest.raises((*REFUSED, ResponseHandlingException)) as error:
        plain.upsert("demo", [point])
    if isinstance(error.value, grpc.RpcError):
        expected = {0: "UNAVAILABLE", 500: "INTERNAL", 503: "UNAVAILABLE"}
        assert error.value.code().name == expected[status]
    assert plain.count("demo").count == 1
    limited = Fault(429, headers=(("Retry-After", "3"),))
    grpc_server.fail_once(UPSERT[transport], limited)
    with pytest.raises(ResourceExhaustedResponse) as exhausted:
        plain.upsert("demo", [point])
    assert exhausted.value.retry_after_s == 3


def asked(server: Server, times: int, **headers: str) -> list[tuple[float, httpx.Response]]:
    """Ask for many points on one connection, and return how long each answer took."""
    timed = []
    with httpx.Client(base_url=server.url, headers=headers) as client:
        for _ in range(times):
            start = time.perf_counter()
            answer = client.post("/collections/demo/points/scroll", json={"limit": 100})
            timed.append((time.perf_counter() - start, answer))
    return timed


def many(server: Server) -> None:
    config = models.VectorParams(size=2, distance=models.Distance.DOT)
    server.database.create_collection("demo", config)
    points = [
        models.PointStruct(id=n, vector=[1.0, 0.0], payload={"text": f"text {n}" * 9})
        for n in range(100)
    ]
    server.database.upsert("demo", points)


def test_compressed_answers_stall_on_connections_that_are_kept(server: Server) -> None:
    many(server)
    server.stall = 0.2
    (_, first), (second, answer) = asked(server, 2)
    assert first.headers["content-encoding"] == "gzip"
    assert second > 0.2
    (_, _), (second, plain) = asked(server, 2, **{"Accept-Encoding": "identity"})
    assert second < 0.2
    assert "content-length" in plain.headers
    shown = [found.json()["result"] for found in (answer, plain)]
    assert shown[0] == shown[1]


def test_a_body_too_large_is_answered_and_the_connection_reset(server: Server) -> None:
    many(server)
    server.body_limit = 1000
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
    connection.putrequest("PUT", "/collections/demo/points")
    connection.putheader("Content-Length", "3000000")
    connection.endheaders()
    answer = connection.getresponse()
    error = json.loads(answer.read())["status"]["error"]
    assert (answer.status, error) == (
        400,
        "JSON payload (3000000 bytes) is larger than allowed (limit: 1000 bytes).",
    )
    with pytest.raises(OSError, match=r"reset|Broken pipe|abort"):
        keep_sending(connection)
    connection.close()


def keep_sending(connection: http.client.HTTPConnection) -> None:
    for _ in range(100):
        connection.send(b"x" * 30_000)
        time.sleep(0.01)


def test_an_answer_can_be_cut_off(server: Server) -> None:
    many(server)
    server.fail_once("scroll", Fault(200, reset_after=50))
    with pytest.raises(httpx.ReadError):
        asked(server, 1, **{"Accept-Encoding": "identity"})


def test_a_server_can_be_stopped_and_started(
    plain: qdrant_client.QdrantClient, grpc_server: Server
) -> None:
    """On the same ports, with what it had."""
    chunked(plain, ("A", 0.9, 1))
    url, port = grpc_server.url, grpc_server.grpc_port
    grpc_server.stop()
    with pytest.raises((ResponseHandlingException, grpc.RpcError)):
        plain.count("demo")
    grpc_server.start()
    assert (grpc_server.url, grpc_server.grpc_port) == (url, port)
    for _ in range(100):  # a channel waits a second before it connects again
        try:
            assert plain.count("demo").count == 1
            break
        except grpc.RpcError:
            time.sleep(0.1)
    else:
        pytest.fail("nothing answers")
