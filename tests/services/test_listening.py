"""What listens: either parser of HTTP, clients that hold what they do not use, TLS."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from services.test_processes import COMMAND, running
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from qdrant_embed import InputError
from qdrant_embed.serve import listening
from qdrant_embed.serve.door import Door, Rules

WHOLE = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"

Act = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(params=["httptools", "h11"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each parser: the faster one, and the other where that is not installed."""
    if request.param == "h11":
        monkeypatch.setitem(sys.modules, "uvicorn.protocols.http.httptools_impl", None)
    name: str = request.param
    return name


async def _length(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"read {len(await request.body())}")


def on_a_connection(*acts: Act) -> None:
    """Do something on a new connection to a service that tells how long bodies are."""

    async def run() -> None:
        opened = listening.bound("127.0.0.1", 0)
        app = Starlette(routes=[Route("/", _length, methods=["GET", "POST"])])
        server = listening.server_of(Door(app, Rules()))
        serving = asyncio.create_task(server.serve(sockets=[opened]))
        try:
            for act in acts:
                reader, writer = await asyncio.open_connection(*opened.getsockname())
                await asyncio.wait_for(act(reader, writer), 10)
                writer.close()
        finally:
            server.should_exit = True
            await serving

    asyncio.run(run())


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (WHOLE, b" 200 "),
        (WHOLE.replace(b"1.1", b"1.0"), b" 200 "),
        (WHOLE.replace(b"/ ", b"/?a=%00 "), b" 200 "),
        (WHOLE.replace(b"GET /", b"OPTIONS *"), b" 40"),
        (WHOLE.replace(b"GET /", b"CONNECT a:1"), b" 40"),
        (WHOLE.replace(b"GET /", b"GET http://evil.example/"), b""),
        (WHOLE.replace(b"localhost", b"evil.example"), b" 421 "),
        (WHOLE.replace(b"Host", b"Most"), b" 400 "),
        (WHOLE[:-2] + b"Host: localhost\r\n\r\n", b" 400 "),
        (WHOLE[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", b" 200 "),
        (WHOLE[:-2] + b"A\x00b: c\r\n\r\n", b" 400 "),
        (WHOLE.replace(b"/ ", b"/\xff "), b" 400 "),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b""),
        (b"\x16\x03\x01\x02\x00\x01\x00", b" 400 "),
        (POST + b"Content-Length: 2\r\n\r\n{}", b"read 2"),
        (POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", b" 400 "),
        (POST + b"Content-Length: -2\r\n\r\n{}", b" 400 "),
        (POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b" 400 "),
        (POST + b"Transfer-Encoding: gzip\r\n\r\n{}", b" "),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nA: b\r\n\r\n", b"read 2"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nx\r\n", b" 400 "),
    ],
    ids=range(21),
)
def test_what_is_not_http_is_refused(parser: str, sent: bytes, answer: bytes) -> None:
    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        writer.write_eof()
        received = b""
        with contextlib.suppress(ConnectionResetError):
            received = await reader.read()
        # a body that is framed in two ways is refused, or read in the one way that the standard has
        is_framed_twice = b"Length: 2\r\nTransfer" in sent
        assert answer in received or (is_framed_twice and parser == "h11"), received
        assert b" 500 " not in received

    async def goes_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(WHOLE)
        assert b"200" in await reader.readuntil(b"read 0")

    on_a_connection(ask, goes_on)


@pytest.mark.parametrize(
    ("before", "repeated"),
    [
        (b"GET /", b"a" * 4096),
        (WHOLE[:-2] + b"A: ", b"a" * 4096),
        (WHOLE[:-2], b"A: b\r\n" * 512),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nA: ", b"a" * 4096),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"A: b\r\n" * 512),
        (WHOLE + WHOLE[:-2] + b"A: ", b"a" * 4096),
    ],
    ids=["path", "header", "headers", "trailer", "trailers", "second request"],
)
def test_what_never_ends_is_cut(parser: str, before: bytes, repeated: bytes) -> None:
    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(before)
        sent = 0
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            while sent < 8 << 20 and not reader.at_eof():
                writer.write(repeated)
                sent += len(repeated)
                await writer.drain()
                await asyncio.sleep(0)
            await reader.read()
        assert sent < 4 << 20

    on_a_connection(ask)


def test_requests_of_one_write_are_answered_in_order(parser: str) -> None:
    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bodies = [b" " * (number * 1_000) for number in range(9)]
        for body in bodies:
            writer.write(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        for body in bodies:
            assert (await reader.readuntil(b"read %d" % len(body))).count(b"HTTP/1.1 200") == 1

    on_a_connection(ask)


@settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(parts=st.lists(st.integers(1, 200), max_size=20), size=st.integers(0, 2_000))
def test_a_request_arrives_in_any_parts(parser: str, parts: list[int], size: int) -> None:
    sent = POST + b"A: b\r\nContent-Length: %d\r\n\r\n" % size + b" " * size

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        start = 0
        for part in (*parts, len(sent)):
            writer.write(sent[start : start + part])
            start += part
            await asyncio.sleep(0)
        assert b" 200 " in await reader.readuntil(b"read %d" % size)

    on_a_connection(ask)


def test_a_service_with_a_certificate_is_reached_by_https_alone(
    tiny_e5_name: str, certificates: Path
) -> None:
    cert, key = certificates / "server.pem", certificates / "server.key"
    with running(
        "serve", "--model", tiny_e5_name, "--ssl-certfile", cert, "--ssl-keyfile", key
    ) as service:
        url = service.url.replace("https://127.0.0.1:", "https://localhost:")
        trust = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
        with httpx.Client(base_url=url, verify=trust) as client:
            assert client.get("/healthz").status_code == 200
            answer = client.post("/v1/embeddings", json={"input": ["a", "b"]})
            assert len(answer.json()["data"]) == 2
            page = client.get("/", headers={"Origin": url})
            assert page.status_code == 200
        with pytest.raises(httpx.HTTPError):
            httpx.get(url.replace("https", "http") + "/healthz")
        with pytest.raises(httpx.ConnectError, match=r"(?i)certificate"):
            httpx.get(f"{url}/healthz")


def test_certificates_that_cannot_be_used_are_refused(certificates: Path, tmp_path: Path) -> None:
    cert, key = str(certificates / "server.pem"), str(certificates / "server.key")
    locked = str(tmp_path / "locked.pem")
    subprocess.run(
        ["openssl", "pkey", "-in", key, "-aes256", "-passout", "pass:secret", "-out", locked],
        check=True,
        capture_output=True,
    )
    other = str(tmp_path / "other.pem")
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", "ed25519", "-out", other],
        check=True,
        capture_output=True,
    )
    for files in [(cert,), (cert, cert), (cert, locked), (cert, other), (key, key), ("none", key)]:
        with pytest.raises(InputError, match="PEM"):
            listening.Certificate(*files)
    both = tmp_path / "both.pem"
    both.write_text(Path(cert).read_text() + Path(key).read_text())
    listening.Certificate(str(both))


@pytest.mark.parametrize("command", ["serve", "browse", "mcp"])
def test_a_key_alone_is_refused(command: str, tmp_path: Path) -> None:
    http = ["--transport", "http"] if command == "mcp" else []
    asked = [*COMMAND, command, "--path", str(tmp_path), *http, "--ssl-keyfile", "key.pem"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert "--ssl-certfile" in done.stderr
