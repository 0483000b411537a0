"""A Qdrant behind REST: what is stored when requests fail, and how often it is asked."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import grpc
import httpx
import pytest
from clients import at, opened
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
from rest_server import Fault, Server
from tiny import TinyModel

from qdrant_embed import (
    IngestError,
    PermissionRefusal,
    QdrantClient,
    ServerRefusal,
    ServerUnavailableError,
)
from qdrant_embed.backoff import Backoff
from qdrant_embed.engines.server import is_transient
from qdrant_embed.flows import requests
from qdrant_embed.flows.requests import MAX_RETRIES

UPSERT = "PUT /collections/demo/points"


@pytest.fixture
def remote(
    kind: str, server: Server, tiny: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> Iterator[QdrantClient]:
    """A client of the server, on the tiny model, that waits no time between tries."""
    monkeypatch.setattr(requests, "BACKOFF", Backoff(0.001, 0.01))
    with opened(kind, **at(server)) as client:
        client.set_model(tiny.path)
        yield client


def count(server: Server) -> int:
    return server.database.count("demo").count


def test_each_batch_is_one_request(remote: QdrantClient, server: Server) -> None:
    ids = remote.add("demo", [f"cat {n}" for n in range(70)], batch_size=32)
    assert server.requests.count(UPSERT) == 3
    assert count(server) == len(set(ids)) == 70


def test_a_query_is_one_request(remote: QdrantClient, server: Server) -> None:
    remote.add("demo", ["cat", "dog"])
    server.requests.clear()
    remote.query("demo", "cat")
    remote.query_batch("demo", ["cat", "dog", "ship"])
    assert server.requests == ["POST /collections/demo/points/query/batch"] * 2


def test_an_error_of_looking_is_not_taken_for_absence(remote: QdrantClient, server: Server) -> None:
    for exists in (False, True):
        if exists:
            remote.add("demo", ["cat"])
        server.requests.clear()
        server.fail_once("GET /collections/demo", Fault(503), times=99)
        with pytest.raises(ServerUnavailableError, match="503"):
            remote.add("demo", ["dog"])
        assert not any(asked == "PUT /collections/demo" for asked in server.requests)
        server.fault = lambda _: None


@pytest.mark.parametrize("after_commit", [False, True])
@pytest.mark.parametrize("status", [0, 408, 429, 500, 503])
def test_passing_failures_are_tried_again_and_nothing_is_stored_twice(
    remote: QdrantClient, server: Server, status: int, after_commit: bool
) -> None:
    server.fail_once(UPSERT, Fault(status, after_commit), times=3)
    ids = remote.add("demo", ["cat"] * 70, batch_size=32)
    assert count(server) == len(ids) == 70
    assert {record.id for record in server.database.scroll("demo", limit=100)[0]} == set(ids)


def test_retry_after_is_honoured(
    remote: QdrantClient, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    async def wait(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("qdrant_embed.flows.io.time", SimpleNamespace(sleep=waited.append))
    monkeypatch.setattr("qdrant_embed.flows.io.asyncio.sleep", wait)
    server.fail_once(UPSERT, Fault(429, headers=(("Retry-After", "3"),)))
    remote.add("demo", ["cat"])
    assert [seconds for seconds in waited if seconds] == [3.0]  # the server sleeps, too
    assert count(server) == 1


def test_what_takes_too_long_is_given_up(
    remote: QdrantClient, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits an hour because a server says so."""
    for status, error in ((429, ResourceExhaustedResponse), (503, UnexpectedResponse)):
        server.requests.clear()
        server.fail_once(UPSERT, Fault(status, headers=(("Retry-After", "3600"),)))
        with pytest.raises(ServerUnavailableError, match=r"asks to wait 3600 s.*once") as caught:
            remote.add("demo", ["cat"])
        assert isinstance(caught.value.__cause__, error)
        assert server.requests.count(UPSERT) == 1
    monkeypatch.setattr(requests, "LONGEST_RETRYING", 0.0)
    server.fail_once(UPSERT, Fault(503), times=9)
    with pytest.raises(ServerUnavailableError, match="503"):
        remote.add("demo", ["cat"])


@pytest.mark.slow
@pytest.mark.parametrize("after_commit", [False, True])
@pytest.mark.parametrize("status", [0, 503])
def test_every_request_is_tried_again(
    remote: QdrantClient, server: Server, status: int, after_commit: bool
) -> None:
    """Each kind of request fails the first time."""
    failed: set[str] = set()

    def first_time(request: str) -> Fault | None:
        if request in failed or not request.partition(" ")[2].strip("/"):
            return None
        failed.add(request)
        return Fault(status, after_commit)

    server.fault = first_time
    remote.add("demo", ["cat", "dog"], ids="content", on_existing="skip")
    remote.add("demo", ["cat", "ship"], ids="content", on_existing="skip")
    assert remote.query("demo", "dog")[0].document == "dog"
    assert count(server) == 3
    assert len(failed) == 5  # read, create, look up, store, query


def test_queries_are_tried_again_for_a_passing_failure_only(
    remote: QdrantClient, server: Server
) -> None:
    remote.add("demo", ["cat"])
    query = "POST /collections/demo/points/query/batch"
    server.fail_once(query, Fault(503), times=MAX_RETRIES)
    assert len(remote.query("demo", "cat")) == 1
    server.fail_once(query, Fault(503), times=MAX_RETRIES + 1)
    with pytest.raises(ServerUnavailableError, match="503"):
        remote.query("demo", "cat")
    server.requests.clear()
    server.fail_once(query, Fault(403), times=9)
    with pytest.raises(PermissionRefusal, match="403") as caught:
        remote.query("demo", "cat")
    assert isinstance(caught.value.__cause__, UnexpectedResponse)
    assert server.requests.count(query) == 1


@pytest.mark.parametrize(
    "too_large",
    [
        Fault(413),
        Fault(400, message="Payload error: JSON payload (9 bytes) is larger than allowed"),
    ],
)
def test_batches_that_are_too_large_are_sent_in_parts(
    remote: QdrantClient, server: Server, too_large: Fault
) -> None:
    server.largest, server.too_large = 20_000, too_large
    texts = ["cat " * 2000 if n == 20 else f"cat {n}" for n in range(70)]
    ids = remote.add("demo", texts, ids=range(70), batch_size=70)
    assert ids == list(range(70))
    assert count(server) == 70
    assert server.database.retrieve("demo", [20])[0].payload == {"document": texts[20]}
    with pytest.raises(IngestError, match="1 document is stored") as caught:
        remote.add("demo", ["cat", "dog " * 6000], ids=[100, 101])
    assert caught.value.stored_ids == [100]
    refusal = caught.value.__cause__
    assert isinstance(refusal, ServerRefusal)
    assert "the document of point 101 takes about 0.0 MB" in str(refusal)
    assert isinstance(refusal.__cause__, UnexpectedResponse)


def test_a_refusal_is_not_tried_again(remote: QdrantClient, server: Server) -> None:
    remote.add("demo", ["cat"])
    server.requests.clear()
    server.fail_once(UPSERT, Fault(400), times=9)
    with pytest.raises(ServerRefusal, match="injected") as caught:
        remote.add("demo", ["dog"])
    assert isinstance(caught.value.__cause__, UnexpectedResponse)
    assert server.requests.count(UPSERT) == 1


def test_what_is_stored_before_a_failure_is_said(remote: QdrantClient, server: Server) -> None:
    upserts = 0

    def second_and_later(request: str) -> Fault | None:
        nonlocal upserts
        upserts += request == UPSERT
        return Fault(500) if upserts > 1 else None

    server.fault = second_and_later
    texts = [f"cat {n}" for n in range(64)]
    with pytest.raises(IngestError, match="32 documents are stored") as caught:
        remote.add("demo", texts, ids=range(64), batch_size=32, max_retries=1)
    assert caught.value.stored_ids == list(range(32))
    assert caught.value.failed_index == 32
    assert isinstance(caught.value.__cause__, ServerUnavailableError)
    assert isinstance(caught.value.__cause__.__cause__, UnexpectedResponse)
    assert upserts == 3
    assert count(server) == 32


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
    with pytest.raises(PermissionRefusal, match="403"):
        remote.add("demo", ["cat"])


class UnavailableCall(grpc.RpcError, grpc.Call):  # type: ignore[misc] # grpc ships no types
    """A gRPC error as a broken channel raises it."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return ""


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
    assert is_transient(error) is transient
