"""What clients ask of a server's answers, and how many connections they open."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import qdrant_client
from clients import KINDS, LetterEncoder, opened
from loopback_store import Rest, Store
from qdrant_client.context_headers import headers

from qdrant_embed import AsyncQdrantClient, QdrantClient, QdrantEmbedMixin
from qdrant_embed.engines.connection import LIMITS


def asked_with(kind: str, **options: Any) -> str | None:
    """The encodings that a client of these options asks for."""
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={"result": {"exists": True}})

    where = {"url": "http://nowhere:1", "check_compatibility": False}
    with opened(kind, **where, transport=httpx.MockTransport(answer), **options) as client:
        client.collection_exists("demo")
    found: str | None = asked[0].headers.get("accept-encoding")
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_answers_come_uncompressed_unless_the_user_says(kind: str) -> None:
    assert asked_with(kind) == "identity"
    assert asked_with(kind, headers={"x": "y"}, prefer_grpc=False) == "identity"
    assert asked_with(kind, headers={"Accept-Encoding": "gzip"}) == "gzip"
    assert asked_with(kind, headers={"accept-ENCODING": "gzip, deflate"}) == "gzip, deflate"
    assert asked_with(kind, metadata={"Accept-Encoding": "br"}) == "br"
    with headers({"Accept-Encoding": "gzip"}):
        assert asked_with(kind) == "gzip"


def test_nothing_is_asked_of_grpc() -> None:
    client = QdrantClient("http://nowhere:1", prefer_grpc=True, check_compatibility=False)
    assert client.init_options["headers"] is None
    client.close()


@contextmanager
def counting_server(*, encoder: Any) -> Iterator[tuple[str, list[Rest]]]:
    """A store on loopback, and its connections."""
    connections: list[Rest] = []
    every: list[Rest] = []
    store, ready, stop = Store(0.0, 0.0), threading.Event(), asyncio.Event()
    loop, ports = asyncio.new_event_loop(), []

    def connection() -> Rest:
        made = Rest(store)
        connections.append(made)
        every.append(made)
        return made

    async def serve() -> None:
        server = await loop.create_server(connection, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
        ready.set()
        await stop.wait()
        server.close()
        for made in every:
            made.close()
        await asyncio.sleep(0)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    ready.wait(30)
    url = f"http://127.0.0.1:{ports[0]}"
    try:
        with opened("sync", url=url, check_compatibility=False) as client:
            client.set_model(encoder)
            client.add("demo", ["cat"])
        connections.clear()
        yield url, connections
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


@pytest.mark.parametrize("kind", KINDS)
def test_connections_are_kept_on_loopback_too(kind: str) -> None:
    encoder = LetterEncoder()
    with (
        counting_server(encoder=encoder) as (url, connections),
        opened(kind, url=url, check_compatibility=False) as client,
    ):
        client.set_model(encoder)
        for _ in range(5):
            assert len(client.query("demo", "cat")) == 10
        assert len(connections) == 1


def limits_of(client: Any) -> httpx.Limits | None:
    """What its constructor was told; closes it."""
    limits: httpx.Limits | None = client.init_options.get("limits")
    if closing := client.close():
        asyncio.run(closing)
    return limits


@pytest.mark.parametrize("made", [QdrantClient, AsyncQdrantClient])
def test_limits_and_the_like_are_the_users(made: Any) -> None:
    own = httpx.Limits(max_connections=3)
    for options, limits in (
        ({}, LIMITS),
        ({"limits": own}, own),
        ({"limits": None}, None),
        ({"pool_size": 5}, None),
        ({"http2": False}, LIMITS),
        ({"host": "127.0.0.1", "url": None}, LIMITS),
    ):
        where = {"url": "http://nowhere:1", "check_compatibility": False}
        assert limits_of(made(**where | options)) == limits
    assert limits_of(made(":memory:")) is None
    with pytest.raises(TypeError):
        made(*range(40))


def test_constructors_have_the_signature_of_qdrant_client() -> None:
    for ours, theirs in (
        (QdrantClient, qdrant_client.QdrantClient),
        (AsyncQdrantClient, qdrant_client.AsyncQdrantClient),
    ):
        shown = inspect.signature(ours)
        common = [
            parameter
            for name, parameter in shown.parameters.items()
            if name not in ("engine", "optimize", "trust_stamps", "offline")
        ]
        assert shown.replace(parameters=common) == inspect.signature(theirs)


def test_a_mixin_leaves_other_constructors_alone() -> None:
    class Tenant(qdrant_client.QdrantClient):
        def __init__(self, tenant: str) -> None:
            super().__init__("http://nowhere:1", check_compatibility=False)
            self.tenant = tenant

    class Mine(QdrantEmbedMixin, Tenant):
        pass

    class Called(QdrantClient):
        def __init__(self) -> None:
            super().__init__("http://nowhere:1", check_compatibility=False)

    mine = Mine("a")
    assert mine.tenant == "a"
    mine.close()
    assert limits_of(Called()) == LIMITS
