"""Clients that were used before a fork, and asynchronous ones in several event loops."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import qdrant_client
from clients import LetterEncoder, at
from rest_server import Server

from qdrant_embed import AsyncQdrantClient, ClientStateError, QdrantClient, QdrantEmbedMixin

TESTS = Path(__file__).parents[1]
TEXTS = ["a" * (n + 1) + "b" * (20 - n) for n in range(20)]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
fork: Callable[[], int] = getattr(os, "fork", lambda: 0)


@pytest.fixture(params=["rest", "grpc"])
def options(request: pytest.FixtureRequest, grpc_server: Server) -> dict[str, Any]:
    """Arguments of a client that keeps its connections."""
    kept = {"limits": httpx.Limits(max_connections=1)} if request.param == "rest" else {}
    return at(grpc_server, grpc=request.param == "grpc") | kept


def ask(client: QdrantClient, rounds: int) -> bool:
    """Return whether every query finds its own text."""
    return all(
        client.query("demo", text, limit=1)[0].document == text
        for _ in range(rounds)
        for text in TEXTS
    )


def in_children(url: str, grpc_port: str) -> None:
    """Query in this process and in four children of it at the same time."""
    where: dict[str, Any] = {"url": url, "check_compatibility": False, "timeout": 60}
    if grpc_port:
        where |= {"prefer_grpc": True, "grpc_port": int(grpc_port)}
    else:
        where |= {"limits": httpx.Limits(max_connections=1)}
    client = QdrantClient(**where)
    client.set_model(LetterEncoder())
    assert ask(client, 1)
    before: Any = client._client
    children = []
    for _ in range(4):
        child = fork()
        if not child:
            right = ask(client, 10) and client._client is not before
            client.add("demo", [TEXTS[0]], ids=[0])
            os._exit(0 if right else 1)
        children.append(child)
    right = ask(client, 10)
    assert client._client is before
    statuses = [os.waitpid(child, 0)[1] for child in children]
    assert right
    assert statuses == [0] * 4, statuses


@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_children_open_connections_of_their_own(grpc_server: Server, transport: str) -> None:
    client = QdrantClient(**at(grpc_server))
    client.set_model(LetterEncoder())
    client.add("demo", TEXTS, ids=range(20))
    client.close()
    call = "import test_forks_and_loops as t; t.in_children(*sys.argv[1:])"
    port = str(grpc_server.grpc_port) if transport == "grpc" else ""
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            f"import sys; sys.path.append('engines'); {call}",
            grpc_server.url,
            port,
        ],
        cwd=TESTS,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def in_a_folder(path: str, engine: str) -> None:
    """Read, and try to write, in a child of the process that opened the folder."""
    client = QdrantClient(path=path, engine=engine)
    client.set_model(LetterEncoder())
    client.add("demo", TEXTS, ids=range(20))
    child = fork()
    if not child:
        if engine == "local":
            assert ask(client, 1)
        else:  # whose threads are the parent's
            for call in (
                client.get_collections,
                partial(client.count, "demo"),
                partial(ask, client, 1),
            ):
                with pytest.raises(ClientStateError, match="fork"):
                    call()
        try:
            client.add("demo", ["cat"])
        except ClientStateError as error:
            client.close()
            os._exit(0 if "fork" in str(error) else 2)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    client.add("demo", ["cat"])
    assert client.count("demo").count == 21
    client.close()


@pytest.mark.parametrize("engine", ["local", "edge"])
def test_a_folder_is_written_by_the_process_that_opened_it(tmp_path: Path, engine: str) -> None:
    call = "import test_forks_and_loops as t; t.in_a_folder(*sys.argv[1:])"
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            f"import sys; sys.path.append('engines'); {call}",
            str(tmp_path / "db"),
            engine,
        ],
        cwd=TESTS,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def loops() -> Iterator[list[asyncio.AbstractEventLoop]]:
    """Two event loops."""
    both = [asyncio.new_event_loop(), asyncio.new_event_loop()]
    yield both
    for loop in both:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of connections in a loop that was closed
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_asynchronous_client_works_in_one_loop_after_the_other(options: dict[str, Any]) -> None:
    client = AsyncQdrantClient(**options)
    client.set_model(LetterEncoder())

    async def program(word: str, *, last: bool = False) -> list[str]:
        await client.add("demo", [word], ids=[word])
        found = await client.query("demo", word)
        if last:
            await client.close()
        return sorted(hit.document for hit in found)

    assert asyncio.run(program("one")) == ["one"]
    assert asyncio.run(program("two", last=True)) == ["one", "two"]
    gc.collect()


def test_two_running_loops_are_refused(
    options: dict[str, Any], loops: list[asyncio.AbstractEventLoop]
) -> None:
    client = AsyncQdrantClient(**options)
    client.set_model(LetterEncoder())
    first, second = loops
    first.run_until_complete(client.add("demo", TEXTS))
    thread = threading.Thread(target=first.run_forever)
    thread.start()
    try:
        with pytest.raises(ClientStateError, match="another event loop, which is running"):
            second.run_until_complete(client.query("demo", "cat"))
        asked = asyncio.run_coroutine_threadsafe(client.query("demo", "cat"), first)
        assert len(asked.result(60)) == 10
    finally:
        first.call_soon_threadsafe(first.stop)
        thread.join()
    first.run_until_complete(client.close())


def test_a_local_database_is_used_in_any_loop() -> None:
    client = AsyncQdrantClient(":memory:")
    client.set_model(LetterEncoder())
    asyncio.run(client.add("demo", TEXTS))
    assert len(asyncio.run(client.query("demo", "cat"))) == 10


class Own(QdrantEmbedMixin, qdrant_client.QdrantClient):
    """A user's own client class, whose constructor is that of ``qdrant_client``."""


def test_a_channel_connects_again_at_once_unless_the_user_says_otherwise() -> None:
    where: dict[str, Any] = {"url": "http://127.0.0.1:9", "check_compatibility": False}
    client = QdrantClient(**where)
    assert client.init_options["grpc_options"]["grpc.initial_reconnect_backoff_ms"] == 100
    own = {"grpc.initial_reconnect_backoff_ms": 7, "grpc.keepalive_time_ms": 1000}
    client = QdrantClient(**where, grpc_options=own)
    assert len(own) == 2
    assert client.init_options["grpc_options"] | own == client.init_options["grpc_options"]
    assert QdrantClient(":memory:").init_options["grpc_options"] is None
    assert Own(**where).init_options["grpc_options"]["grpc.initial_reconnect_backoff_ms"] == 100
    assert AsyncQdrantClient(**client.init_options).init_options["url"] == where["url"]
