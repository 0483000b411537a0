"""Who is let in: hosts, origins, keys, and bodies that are too large or too slow."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from services.conftest import Opened
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import Message, Scope

from qdrant_embed import InputError
from qdrant_embed.serve import door, listening
from qdrant_embed.serve.admission import Admission
from qdrant_embed.serve.door import Door, Key, Rules, rules_for
from qdrant_embed.serve.failures import Refusal

SECRET = "0123456789abcdef"
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:6336", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:6336", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("localhost:80@evil.example", 421),
        ("evil.example:localhost", 421),
    ],
)
def test_only_our_own_names_are_answered(open_service: Opened, host: str, status: int) -> None:
    assert open_service().get("/healthz", headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost", 200),
        ("http://evil.example", 403),
        ("null", 403),
        ("http://localhost:81", 403),
        ("http://[", 403),
    ],
)
def test_pages_of_others_are_not_answered(open_service: Opened, origin: str, status: int) -> None:
    http = open_service()
    headers = {"Origin": origin}
    assert http.post("/v1/embeddings", json={"input": "a"}, headers=headers).status_code == status


def test_a_form_of_another_page_is_no_request(open_service: Opened) -> None:
    body = '{"input": "a"}'
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""):
        response = open_service().post(
            "/v1/embeddings", content=body, headers={"Content-Type": kind}
        )
        assert response.status_code == 415, kind


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": f"Bearer {SECRET}"}, 200),
        ({"Authorization": f"bearer  {SECRET}"}, 200),
        ({"api-key": SECRET}, 200),
        ({"api-key": SECRET[:-1]}, 401),
        ({"api-key": ""}, 401),
        ({"Authorization": SECRET}, 401),
        ({"Authorization": f"Basic {SECRET}"}, 401),
        ({"Authorization": "Bearer wrong", "api-key": SECRET}, 200),
    ],
)
def test_a_key_opens(open_service: Opened, headers: dict[str, str], status: int) -> None:
    http = open_service(Rules(key=Key(SECRET)))
    for path in ("/v1/models", "/collections", "/metrics", "/openapi.json"):
        response = http.get(path, headers=headers)
        assert response.status_code == status, path
        if status == 401:
            assert response.headers["WWW-Authenticate"] == "Bearer"
            assert response.json()["error"]["code"] == "invalid_api_key"
    assert http.get("/healthz").status_code == 200
    assert SECRET not in repr(Rules(key=Key(SECRET)))


def test_another_address_needs_a_key() -> None:
    for host in ("0.0.0.0", "::", "192.168.1.4", "example.org"):
        with pytest.raises(InputError, match="no key"):
            rules_for(host, None)
        assert rules_for(host, SECRET).hosts is None
        assert rules_for(host, SECRET, ["Proxy.example"]).hosts is not None
    for host in ("127.0.0.1", "::1", "localhost", "127.9.9.9"):
        assert rules_for(host, None).hosts
    for key in ("short", "", "with a space in it", "schlüsselschlüssel"):
        with pytest.raises(InputError, match="16 characters"):
            rules_for("127.0.0.1", key)


def test_large_bodies_are_refused_before_they_are_read(open_service: Opened) -> None:
    http = open_service(Rules(most_body=1_000))
    response = http.post("/v1/embeddings", json={"input": "a" * 2_000})
    assert response.status_code == 413
    assert "1,000 bytes" in response.json()["error"]["message"]

    def parts() -> Iterator[bytes]:  # without a length
        for _ in range(100):
            yield b" " * 100

    assert http.post("/v1/embeddings", content=parts(), headers=JSON).status_code == 413


def answers(rules: Rules, headers: list[tuple[bytes, bytes]], received: Any) -> list[Message]:
    sent: list[Message] = []

    async def run() -> None:
        async def send(message: Message) -> None:
            sent.append(message)

        scope: Scope = {
            "type": "http",
            "method": "POST",
            "path": "/",
            "headers": headers,
            "query_string": b"",
        }
        await Door(PlainTextResponse("in"), rules)(scope, received, send)

    asyncio.run(run())
    return sent


def test_a_slow_body_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "SERVICE_UPLOAD", 0.05)

    async def received() -> Message:
        await asyncio.sleep(0.03)
        return {"type": "http.request", "body": b" ", "more_body": True}

    sent = answers(Rules(), [(b"host", b"localhost")], received)
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]


def test_a_request_has_one_host() -> None:
    async def received() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    for hosts in ([], [b"localhost", b"localhost"]):
        sent = answers(Rules(), [(b"host", host) for host in hosts], received)
        assert sent[0]["status"] == 400


def test_an_answer_that_nobody_reads_is_given_up(
    open_service: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "SERVICE_READING", 0.2)

    async def run() -> None:
        opened = listening.bound("127.0.0.1", 0)
        app = Starlette(routes=[Route("/", lambda _: PlainTextResponse("x" * (64 << 20)))])
        server = listening.server_of(app)
        running = asyncio.create_task(server.serve(sockets=[opened]))
        reader, writer = await asyncio.open_connection(*opened.getsockname())
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.sleep(0.6)
        read = 0
        with contextlib.suppress(ConnectionResetError):
            while part := await reader.read(1 << 20):
                read += len(part)
        assert read < 32 << 20
        writer.close()
        server.should_exit = True
        await running

    asyncio.run(run())


def test_bodies_of_all_requests_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "SERVICE_BODIES", 1_000)
    statuses: list[int] = []

    async def run() -> None:
        here = asyncio.Event()

        async def app(scope: Scope, receive: Any, send: Any) -> None:
            await here.wait()
            await PlainTextResponse("in")(scope, receive, send)

        guarded = Door(app, Rules())

        async def ask() -> None:
            async def send(message: Message) -> None:
                if message["type"] == "http.response.start":
                    statuses.append(message["status"])
                    here.set()  # whatever was refused, the others are answered

            async def received() -> Message:
                return {"type": "http.request", "body": b" " * 600, "more_body": False}

            headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
            scope: Scope = {"type": "http", "method": "POST", "path": "/", "headers": headers}
            await guarded(scope, received, send)

        await asyncio.gather(ask(), ask())
        assert guarded._bytes == 0

    asyncio.run(run())
    assert sorted(statuses) == [200, 429]


def test_work_has_a_bound_and_says_when_to_come_back() -> None:
    admission = Admission(most_texts=10, most_characters=100)
    with pytest.raises(Refusal) as refused, admission.hold(1, 101):
        raise AssertionError
    assert refused.value.status == 413
    with admission.hold(50, 100):  # alone, any number
        with pytest.raises(Refusal) as refused, admission.hold(1, 1):
            raise AssertionError
        assert refused.value.status == 429
        assert 1 <= int(refused.value.headers["Retry-After"]) <= 60
    assert (admission.texts, admission.characters) == (0, 0)
    with admission.hold(9, 1), admission.hold(1, 1):
        pass


def test_a_full_service_answers_429(open_service: Opened) -> None:
    admission = Admission(most_texts=10)
    http = open_service(admission=admission)
    with admission.hold(10, 10):
        response = http.post("/v1/embeddings", json={"input": "a"})
    assert response.status_code == 429
    assert response.json()["error"]["type"] == "rate_limit_error"
    assert int(response.headers["Retry-After"]) >= 1
    assert http.post("/v1/embeddings", json={"input": "a"}).status_code == 200


def test_a_connection_is_not_held_by_half_a_request(
    open_service: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "SERVICE_HEADERS", 0.2)

    async def run() -> None:
        opened = listening.bound("127.0.0.1", 0)
        app = Starlette(routes=[Route("/", lambda _: PlainTextResponse("in"))])
        server = listening.server_of(app)
        running = asyncio.create_task(server.serve(sockets=[opened]))
        address = opened.getsockname()
        whole = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for before in (b"", whole):
            reader, writer = await asyncio.open_connection(*address)
            if before:
                writer.write(before)
                await reader.readuntil(b"\r\n\r\nin")
            await asyncio.sleep(0.3)  # between requests, a connection is kept for longer
            writer.write(whole[:-3] if before else b"")
            assert await asyncio.wait_for(reader.read(), 2) == b""
            writer.close()
        server.should_exit = True
        await running

    asyncio.run(run())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_answers_in_two_writes_do_not_wait_for_each_other(host: str) -> None:
    with listening.bound(host, 0) as opened:  # asyncio turns that off for sockets of TCP alone
        assert opened.proto == socket.IPPROTO_TCP
        with pytest.raises(InputError, match="cannot be listened on"):
            listening.bound(host, opened.getsockname()[1])
