"""A server that brings no answer: one error of ours over REST and gRPC, with both clients."""

from __future__ import annotations

import logging
import pickle
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from clients import LetterEncoder, at, opened
from hypothesis import given
from hypothesis import strategies as st
from listeners import encrypted, listening
from qdrant_client.http.exceptions import (
    ApiException,
    ResponseHandlingException,
    UnexpectedResponse,
)
from rest_server import Fault, Server

from qdrant_embed import (
    IngestError,
    QdrantClient,
    QdrantEmbedError,
    ServerRefusal,
    ServerUnavailableError,
)
from qdrant_embed.backoff import Backoff
from qdrant_embed.engines.server import (
    Tries,
    explain,
    is_transient,
    is_unanswered,
    missing_right,
    trouble_of,
)
from qdrant_embed.engines.server import unavailable as found_unavailable
from qdrant_embed.flows import requests

TEXTS = [f"text {n}" for n in range(20)]
SECRET = "s3cret"
THEIRS = (ApiException, grpc.RpcError)
CALLS: dict[str, Callable[[QdrantClient], object]] = {
    "add": lambda client: client.add("demo", TEXTS, max_retries=2),
    "add again": lambda client: client.add(
        "demo", TEXTS, ids="content", on_existing="skip", max_retries=2
    ),
    "query": lambda client: client.query("demo", "text"),
    "query_batch": lambda client: client.query_batch("demo", ["text", "cat"]),
    "migrate_model": lambda client: client.migrate_model("demo", LetterEncoder(), "new"),
    "update_metadata": lambda client: client.update_metadata("demo", [1], {"a": 1}, max_retries=2),
    "get_documents": lambda client: client.get_documents("demo", [1], max_retries=2),
    "scroll_documents": lambda client: list(client.scroll_documents("demo")),
    "delete_documents": lambda client: client.delete_documents("demo", [1], max_retries=2),
}


@pytest.fixture(params=["rest", "grpc"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def remote(kind: str, grpc_server: Server, transport: str) -> Iterator[QdrantClient]:
    """A client of either kind over either transport, of a collection with documents."""
    with opened(kind, **at(grpc_server, grpc=transport == "grpc")) as client:
        client.set_model(LetterEncoder())
        client.add("demo", TEXTS, ids=range(20))
        yield client


@contextmanager
def asking(kind: str, transport: str, taken: int, **options: Any) -> Iterator[QdrantClient]:
    """A client of what listens on a port of loopback, over either transport."""
    options = {"url": f"http://127.0.0.1:{taken}", "check_compatibility": False} | options
    if transport == "grpc":
        options |= {"prefer_grpc": True, "grpc_port": taken}
    with opened(kind, **options) as client:
        client.set_model(LetterEncoder())
        yield client


def unavailable(call: Callable[[], object]) -> ServerUnavailableError:
    """The error of a call: one line, and what ``qdrant_client`` raised as its cause."""
    with pytest.raises(ServerUnavailableError) as caught:
        call()
    error = caught.value
    assert "\n" not in str(error)
    assert isinstance(error.__cause__, THEIRS)
    return error


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_server_that_is_down_is_one_error_of_every_method(
    remote: QdrantClient,
    grpc_server: Server,
    transport: str,
    call: Callable[[QdrantClient], object],
) -> None:
    grpc_server.stop()
    error = unavailable(lambda: call(remote))
    where = (
        rf"http://127\.0\.0\.1:{grpc_server.grpc_port} \(gRPC\)"
        if transport == "grpc"
        else re.escape(grpc_server.url)
    )
    assert re.fullmatch(
        rf"Qdrant at {where} is not available: the connection was refused \(a request about "
        r"collection '(demo|new)', tried \d+ times in [\d.]+ s\); check the address and its port, "
        r"and that the server runs",
        str(error),
    )
    assert error.found == "the connection was refused"
    assert isinstance(error, ConnectionError)
    assert isinstance(error, QdrantEmbedError)
    assert not isinstance(error, TimeoutError | ValueError)


def test_methods_of_qdrant_client_raise_its_own_errors(
    remote: QdrantClient, grpc_server: Server
) -> None:
    grpc_server.stop()
    with pytest.raises(THEIRS):
        remote.count("demo")


def test_a_look_up_is_not_tried_twice_as_often(
    remote: QdrantClient,
    grpc_server: Server,
    transport: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No number of copies helps where nobody listens."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(requests, "BACKOFF", Backoff(0.1, 0.1))
    look_up = "Points/Get" if transport == "grpc" else "POST /collections/demo/points"
    stopped = threading.Event()

    def goes_away(request: str) -> Fault | None:
        if request != look_up:
            return None
        if not stopped.is_set():
            stopped.set()
            threading.Thread(target=grpc_server.stop).start()
        return Fault(503)

    grpc_server.fault = goes_away
    error = unavailable(
        lambda: remote.add("demo", TEXTS, ids=range(20), on_existing="skip", max_retries=5)
    )
    assert "tried 6 times" in str(error)
    assert caplog.text.count("trying again") == 5


def test_an_add_that_had_begun_carries_it(
    remote: QdrantClient, grpc_server: Server, transport: str
) -> None:
    uploads = 0

    def later_ones(request: str) -> Fault | None:
        nonlocal uploads
        uploads += request in ("PUT /collections/demo/points", "Points/Upsert")
        return Fault(503, message="too busy") if uploads > 1 else None

    grpc_server.fault = later_ones
    with pytest.raises(IngestError, match=r"Qdrant at http.* is not available: ") as caught:
        remote.add("demo", TEXTS, batch_size=5, max_retries=1)
    assert len(caught.value.stored_ids) == 5
    error = caught.value.__cause__
    assert isinstance(error, ServerUnavailableError)
    status = "UNAVAILABLE" if transport == "grpc" else "503 Service Unavailable"
    assert error.found == f"it answered {status} (too busy)"
    assert isinstance(error.__cause__, THEIRS)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 507])
def test_what_a_server_answers_instead_is_said(
    remote: QdrantClient, grpc_server: Server, transport: str, status: int
) -> None:
    asked = "QueryBatch" if transport == "grpc" else "/points/query/batch"
    grpc_server.fail_once(asked, Fault(status, message="the node\n is starting"), times=99)
    error = unavailable(lambda: remote.query("demo", "text"))
    assert error.found.startswith("it answered ")
    assert "(the node is starting)" in error.found
    assert transport == "grpc" or f" {status} " in error.found
    tried = "once" if status == 507 else r"15 times in [\d.]+ s"
    way_out = "try again later, or look into the server's log"
    if status == 507 and transport == "rest":
        way_out = "make space on the server's disk"
    ends = rf"tried {tried}\); {way_out}$"
    assert re.search(ends, str(error))


def test_a_server_that_is_frozen_has_a_time(kind: str, transport: str) -> None:
    with (
        listening(lambda connection: time.sleep(5)) as port,
        asking(kind, transport, port, timeout=60) as client,
    ):
        start = time.monotonic()
        error = unavailable(lambda: client.query("demo", "text", timeout=1))
        assert time.monotonic() - start < 4.5
    assert error.found == "no answer within 1 s"
    assert "tried once); check how busy the server is" in str(error)


def test_each_address_of_a_host_is_tried(kind: str, transport: str) -> None:
    """Each fails in its own way, and what is asked over REST says that of none."""
    with asking(kind, transport, 9, url="http://localhost:9") as client:
        error = unavailable(lambda: client.add("demo", TEXTS, max_retries=0))
    assert error.found == "the connection was refused"
    assert "(a request about collection 'demo', tried once); check the address" in str(error)


def test_a_host_that_does_not_exist(kind: str, transport: str) -> None:
    with asking(kind, transport, 9, url="http://nowhere.invalid:9") as client:
        error = unavailable(lambda: client.add("demo", TEXTS, max_retries=1))
    assert error.address.startswith("http://nowhere.invalid:9")
    assert error.found == "no host has this name"
    assert "tried 2 times in" in str(error)


@pytest.mark.parametrize("trusted", ["no authority", "another name"])
def test_a_certificate_is_not_waited_for(
    kind: str, transport: str, trusted: str, grpc_server: Server, certificates: Path
) -> None:
    plain = grpc_server.grpc_port if transport == "grpc" else int(grpc_server.url.split(":")[-1])
    assert plain is not None
    ca = certificates / "ca.pem"
    options: dict[str, Any] = {"url": "https://localhost"}
    if trusted == "another name":
        options = {"url": "https://127.0.0.1", "verify": ssl.create_default_context(cafile=str(ca))}
        options["grpc_options"] = {"root_certificates": ca.read_bytes()}
    with encrypted(certificates, plain) as port:
        options["url"] += f":{port}"
        with asking(kind, transport, port, **options) as client:
            error = unavailable(lambda: client.add("demo", TEXTS))
    assert "tried once" in str(error)
    way_out = "in its certificate" if trusted == "another name" else '"root_certificates": ...}'
    assert str(error).endswith(way_out)


def test_a_server_without_tls_is_not_waited_for(kind: str, transport: str, server: Server) -> None:
    port = int(server.url.split(":")[-1])
    with asking(kind, transport, port, url=f"https://127.0.0.1:{port}") as client:
        error = unavailable(lambda: client.add("demo", TEXTS))
    assert "tried once" in str(error)
    assert str(error).endswith("the server does not speak TLS on this port, use http://")


@pytest.mark.parametrize("host", ["127.0.0.1", "nowhere.invalid"])
def test_neither_key_nor_user_is_shown(kind: str, transport: str, host: str) -> None:
    places: list[dict[str, Any]] = [
        {"url": f"http://me:{SECRET}@{host}:9/a?api-key={SECRET}"},
        {"url": None, "host": f"me:{SECRET}@{host}", "port": 9},
    ]
    for place in places:
        keys = {"headers": {"api-key": SECRET}}
        with asking(kind, transport, 9, **place, **keys) as client:
            error = unavailable(lambda: client.add("demo", TEXTS, max_retries=0))
        assert SECRET not in f"{error}{error.address}{error.found}"
        assert "me:" not in str(error)
        assert f"http://{host}:9" in str(error)


def test_a_place_that_has_moved_is_named(kind: str) -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(
            b"HTTP/1.1 308 Permanent Redirect\r\nLocation: https://there:443/a\r\n"
            b"Content-Length: 0\r\nConnection: close\r\n\r\n"
        )

    with listening(answer) as port, asking(kind, "rest", port) as client:
        error = unavailable(lambda: client.query("demo", "text"))
    assert error.found == "it answered 308 Permanent Redirect (https://there:443/a)"


def test_a_date_to_wait_until_is_obeyed(kind: str, grpc_server: Server) -> None:
    """``qdrant_client`` reads only whole seconds."""
    soon = (("Retry-After", "Fri, 31 Dec 1999 23:59:59 GMT"),)
    with opened(kind, **at(grpc_server)) as client:
        client.set_model(LetterEncoder())
        grpc_server.fail_once("PUT /collections/demo/points", Fault(429, headers=soon))
        assert len(client.add("demo", TEXTS)) == 20


def test_messages_that_are_too_large_are_a_refusal(
    remote: QdrantClient, grpc_server: Server
) -> None:
    grpc_server.largest = 10
    with pytest.raises(ServerRefusal):
        remote.query("demo", "text")


def test_the_error_can_be_sent_to_another_process(kind: str, transport: str) -> None:
    with asking(kind, transport, 9) as client:
        error = unavailable(lambda: client.query("demo", "text", timeout=1))
    there = pickle.loads(pickle.dumps(error))
    assert str(there) == str(error)
    assert (there.address, there.found) == (error.address, error.found)


ANY_TEXT = st.text() | st.sampled_from(
    ["", "\n\n", "connect\r\n: x", "<html>\n</html>", "{", "[1]"]
)


@given(st.integers(300, 599), ANY_TEXT, ANY_TEXT, st.floats(0, 1e5), st.integers(1, 99))
def test_whatever_is_answered_the_error_is_one_line(
    status: int, reason: str, text: str, seconds: float, count: int
) -> None:
    """What is neither refused nor of a key is unavailable, and nothing raises another error."""
    body = text.encode(errors="replace")
    answered = UnexpectedResponse(status, " ".join(reason.split()), body, httpx.Headers())
    for error in (answered, Told(text), ResponseHandlingException(httpx.ConnectError(text))):
        tries = Tries(count, seconds, seconds / count)
        explained = (
            missing_right(error, "demo", writes=False)
            or explain(error, "demo")
            or found_unavailable(error, "demo", tries, lambda grpc: f"http://h ({grpc})")
        )
        assert explained is not None
        assert len(str(explained).splitlines()) == 1
        assert len(str(explained)) < 1500


class Told(grpc.RpcError):  # type: ignore[misc] # grpc ships no types
    """An error of gRPC with details."""

    def __init__(self, details: str) -> None:
        self._details = details

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return self._details


@pytest.mark.parametrize(
    ("error", "trouble", "passes"),
    [
        (Told("connection attempt timed out before receiving SETTINGS frame"), "late", True),
        (Told("Expected SETTINGS frame as the first frame, got frame type 80"), "protocol", False),
        (Told("connect: Connection timed out (110)"), "unreachable", True),
        (Told("DNS resolution failed for h:1: Domain name not found"), "no host", True),
        (Told("recvmsg:Connection reset by peer"), "broken", True),
        (Told("Tls handshake failed: CERTIFICATE_VERIFY_FAILED"), "certificate", False),
        (Told("GOAWAY received; Error code: 11; Debug Text: too_many_resets"), "broken", True),
        (Told("too busy"), None, True),
        (ResponseHandlingException(httpx.ConnectTimeout("")), "unreachable", True),
        (ResponseHandlingException(httpx.PoolTimeout("")), "late", True),
        (ResponseHandlingException(httpx.ReadError("")), "broken", True),
        (ResponseHandlingException(httpx.ProxyError("407 Proxy")), "proxy", False),
    ],
)
def test_what_a_failed_connection_tells(error: Exception, trouble: str, passes: bool) -> None:
    assert trouble_of(error) == trouble
    assert is_transient(error) is passes
    assert is_unanswered(error) is (trouble is not None)
