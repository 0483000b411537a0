"""A Qdrant behind REST: what is stored when requests fail, and how often it is asked."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import httpx
import pytest
from clients import at, opened
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
from rest_server import Fault, Server
from tiny import TinyModel

from qdrant_embed import IngestError, QdrantClient, retries

UPSERT = "PUT /collections/demo/points"


@pytest.fixture
def remote(
    kind: str, server: Server, tiny: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> Iterator[QdrantClient]:
    """A client of the server, on the tiny model, that waits no time between tries."""
    monkeypatch.setattr(retries, "_FIRST_WAIT", 0.001)
    with opened(kind, **at(server)) as client:
        client.set_model(tiny.path)
        yield client


def count(server: Server) -> int:
    return server.database.count("demo").count


def test_each_batch_is_one_request(remote: QdrantClient, server: Server) -> None:
    ids = remote.add("demo", [f"cat {n}" for n in range(70)])
    assert server.requests.count(UPSERT) == 3
    assert count(server) == len(set(ids)) == 70


def test_a_query_is_one_request(remote: QdrantClient, server: Server) -> None:
    remote.add("demo", ["cat", "dog"])
    server.requests.clear()
    remote.query("demo", "cat")
    remote.query_batch("demo", ["cat", "dog", "ship"])
    assert server.requests == ["POST /collections/demo/points/query/batch"] * 2


def test_an_error_of_looking_is_not_taken_for_absence(remote: QdrantClient, server: Server) -> None:
    for request in ("GET /collections/demo/exists", "GET /collections/demo"):
        if request.endswith("demo"):
            remote.add("demo", ["cat"])
        server.requests.clear()
        server.fail_once(request, Fault(503), times=9)
        with pytest.raises(UnexpectedResponse, match="503"):
            remote.add("demo", ["dog"])
        assert not any(asked == "PUT /collections/demo" for asked in server.requests)
        server.fault = lambda _: None


@pytest.mark.parametrize("after_commit", [False, True])
@pytest.mark.parametrize("status", [0, 408, 429, 500, 503])
def test_passing_failures_are_tried_again_and_nothing_is_stored_twice(
    remote: QdrantClient, server: Server, status: int, after_commit: bool
) -> None:
    server.fail_once(UPSERT, Fault(status, after_commit), times=3)
    ids = remote.add("demo", ["cat"] * 70)
    assert count(server) == len(ids) == 70
    assert {record.id for record in server.database.scroll("demo", limit=100)[0]} == set(ids)


def test_retry_after_is_honoured(
    remote: QdrantClient, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    async def wait(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("qdrant_embed.client.time.sleep", waited.append)
    monkeypatch.setattr("qdrant_embed.async_client.asyncio.sleep", wait)
    server.fail_once(UPSERT, Fault(429, headers=(("Retry-After", "3"),)))
    remote.add("demo", ["cat"])
    assert waited == [3.0]
    assert count(server) == 1


def test_a_refusal_is_not_tried_again(remote: QdrantClient, server: Server) -> None:
    remote.add("demo", ["cat"])
    server.requests.clear()
    server.fail_once(UPSERT, Fault(400), times=9)
    with pytest.raises(UnexpectedResponse, match="400"):
        remote.add("demo", ["dog"])
    assert server.requests.count(UPSERT) == 1


def test_what_is_stored_before_a_failure_is_said(remote: QdrantClient, server: Server) -> None:
    upserts = 0

    def third_and_later(request: str) -> Fault | None:
        nonlocal upserts
        upserts += request == UPSERT
        return Fault(500) if upserts > 2 else None

    server.fault = third_and_later
    texts = [f"cat {n}" for n in range(100)]
    with pytest.raises(IngestError, match="64 documents are stored") as caught:
        remote.add("demo", texts, ids=range(100), max_retries=1)
    assert caught.value.stored_ids == list(range(64))
    assert caught.value.failed_index == 64
    assert isinstance(caught.value.__cause__, UnexpectedResponse)
    assert upserts == 4
    assert count(server) == 64


def test_a_collection_that_another_process_creates_first_is_used(
    remote: QdrantClient, server: Server
) -> None:
    # the creation is carried out and answered with a conflict, as the slower of two is told
    server.fail_once("PUT /collections/demo", Fault(409, after_commit=True))
    remote.add("demo", ["cat"])
    assert count(server) == 1


def test_a_collection_that_cannot_be_created_is_the_servers_error(
    remote: QdrantClient, server: Server
) -> None:
    server.fail_once("PUT /collections/demo", Fault(403))
    with pytest.raises(UnexpectedResponse, match="403"):
        remote.add("demo", ["cat"])


class UnavailableCall(grpc.RpcError, grpc.Call):  # type: ignore[misc] # grpc ships no types
    """A gRPC error as a broken channel raises it."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code


UnavailableCall.__abstractmethods__ = frozenset()  # all its methods are abstract


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (UnexpectedResponse(400, "", b"", httpx.Headers()), False),
        (UnexpectedResponse(404, "", b"", httpx.Headers()), False),
        (UnexpectedResponse(502, "", b"", httpx.Headers()), True),
        (ResponseHandlingException(httpx.ReadTimeout("")), True),
        (ResponseHandlingException(httpx.ConnectError("")), True),
        (ResponseHandlingException(ValueError("not JSON")), False),
        (ResourceExhaustedResponse("slow down", 1), True),
        (UnavailableCall(grpc.StatusCode.UNAVAILABLE), True),
        (UnavailableCall(grpc.StatusCode.INVALID_ARGUMENT), False),
        (grpc.RpcError(), False),
        (ValueError("local"), False),
    ],
)
def test_only_what_may_pass_is_transient(error: Exception, transient: bool) -> None:
    assert retries.is_transient(error) is transient


def test_waits_double_up_to_a_limit_with_jitter() -> None:
    error = UnexpectedResponse(503, "", b"", httpx.Headers())
    for tries, longest in [(1, 0.25), (2, 0.5), (4, 2.0), (6, 8.0), (60, 8.0)]:
        waits = {retries.wait_seconds(error, tries) for _ in range(20)}
        assert len(waits) > 1
        assert all(longest / 2 <= wait <= longest for wait in waits)
