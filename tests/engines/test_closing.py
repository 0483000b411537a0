"""Clients that are closed while others use them, and local databases whose calls take turns."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import queue
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import qdrant_client
from clients import KINDS, LetterEncoder, at, cosine, opened, run
from fake_server.faults import Fault
from processes import run as run_script
from qdrant_client import models
from qdrant_client.async_client_base import AsyncQdrantBase
from qdrant_client.async_qdrant_remote import AsyncQdrantRemote
from qdrant_client.client_base import QdrantBase
from qdrant_client.local.async_qdrant_local import AsyncQdrantLocal
from qdrant_client.local.qdrant_local import QdrantLocal
from qdrant_client.qdrant_remote import QdrantRemote
from rest_server import Server

from qdrant_embed import AsyncQdrantClient, ClientStateError, IngestError, QdrantClient
from qdrant_embed.engines import guard
from qdrant_embed.engines.guard import calls_of, guarded, unguarded

BASES: list[type] = [QdrantBase, AsyncQdrantBase]
DATABASES: list[type] = [QdrantLocal, AsyncQdrantLocal, QdrantRemote, AsyncQdrantRemote]

# of local databases: what changes them, or is refused by all of them
CHANGES = {
    "batch_update_points",
    "clear_payload",
    "create_collection",
    "create_full_snapshot",
    "create_payload_index",
    "create_shard_key",
    "create_shard_snapshot",
    "create_snapshot",
    "create_vector_name",
    "delete",
    "delete_collection",
    "delete_full_snapshot",
    "delete_payload",
    "delete_payload_index",
    "delete_shard_key",
    "delete_shard_snapshot",
    "delete_snapshot",
    "delete_vector_name",
    "delete_vectors",
    "migrate",
    "overwrite_payload",
    "recover_shard_snapshot",
    "recover_snapshot",
    "recreate_collection",
    "set_payload",
    "update_collection",
    "update_collection_aliases",
    "update_vectors",
    "upload_collection",
    "upload_points",
    "upsert",
}
OF_CLUSTERS = {
    "cluster_collection_update",
    "cluster_status",
    "cluster_telemetry",
    "collection_cluster_info",
    "get_optimizations",
    "list_shard_keys",
    "recover_current_peer",
    "remove_peer",
}


def methods(kind: type) -> set[str]:
    """The names of a class's public methods."""
    return {
        name
        for name in dir(kind)
        if not name.startswith("_") and inspect.isfunction(inspect.getattr_static(kind, name))
    }


def database_of(kind: Any) -> Any:
    """A guarded database of a kind, which nobody asks anything."""
    if issubclass(kind, QdrantLocal | AsyncQdrantLocal):
        return guarded(kind(":memory:"))
    return guarded(kind(url="http://127.0.0.1:9", check_compatibility=False))


def called(method: Callable[..., Any]) -> Any:
    """Call a method with something for each argument it needs, awaited if it is to be."""
    needed = [
        parameter
        for parameter in inspect.signature(method).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    result: Any = method(*([[]] if parameter.name == "points" else "demo" for parameter in needed))
    return asyncio.run(waited(result)) if inspect.isawaitable(result) else result


async def waited(result: Awaitable[Any]) -> Any:
    return await result


# by construction


@pytest.mark.parametrize("kind", DATABASES)
def test_every_public_method_is_guarded_and_looks_as_before(kind: type) -> None:
    database = database_of(kind)
    guards = type(database)
    assert isinstance(database, kind)
    assert unguarded(guards) is kind
    assert guarded(database) is database
    assert methods(guards) - {"after_fork"} == methods(kind)
    for name in methods(kind):
        before, after = getattr(kind, name), inspect.getattr_static(guards, name)
        assert name in vars(guards), name
        assert inspect.signature(after) == inspect.signature(before)
        assert inspect.iscoroutinefunction(after) == inspect.iscoroutinefunction(before)
        assert not inspect.isgeneratorfunction(before), name  # it would run when it is read
        assert not inspect.isasyncgenfunction(before), name
    assert calls_of(database) is not None
    closing: Any = database
    called(closing.close)


@pytest.mark.parametrize("base", BASES)
def test_each_method_of_a_database_is_known_to_read_or_not(base: type) -> None:
    """What a new qdrant-client adds is refused in forked processes until it is listed here."""
    known = guard.READS | CHANGES | OF_CLUSTERS | {"close"}
    assert methods(base) <= known
    assert methods(base) >= guard.READS


@pytest.mark.parametrize("kind", DATABASES)
def test_every_call_after_a_close_says_so(kind: type) -> None:
    database = database_of(kind)
    called(database.close)
    called(database.close)
    for name in methods(kind) - {"close"}:
        with pytest.raises(ClientStateError, match="closed: create a new one"):
            called(getattr(database, name))


def test_every_call_of_a_closed_embedded_database_says_so(tmp_path: Path) -> None:
    client = QdrantClient(path=str(tmp_path), engine="edge")
    client.close()
    wrong = {}
    for name in (methods(QdrantBase) - OF_CLUSTERS) - {"close", "migrate"}:
        try:
            wrong[name] = called(getattr(client._client, name))
        except (ClientStateError, NotImplementedError):
            pass
        except Exception as error:
            wrong[name] = error
    # none of these asks the folder
    assert set(wrong) <= {
        "info",
        "collection_exists",
        "list_full_snapshots",
        "list_snapshots",
        "list_shard_snapshots",
        "upload_points",
    }, wrong


def test_a_users_own_client_class_is_guarded_too(tmp_path: Path) -> None:
    class Own(qdrant_client.QdrantClient):
        def __init__(self, folder: Path) -> None:
            super().__init__(path=str(folder))

    from qdrant_embed import QdrantEmbedMixin

    class Mine(QdrantEmbedMixin, Own):
        pass

    client = Mine(tmp_path)
    assert calls_of(client._client) is not None
    client.close()
    with pytest.raises(ClientStateError, match="is closed"):
        client.get_collections()


@pytest.mark.parametrize("kind", KINDS)
def test_no_request_follows_a_close(kind: str, request: pytest.FixtureRequest) -> None:
    for options in places(request):
        with opened(kind, **options()) as client:
            client.set_model(LetterEncoder())
            client.add("demo", ["a"], ids=[1])
            client.close()
            for call in (
                lambda: client.add("demo", ["b"]),
                lambda: client.query("demo", "a"),
                lambda: client.get_documents("demo", [1]),
                lambda: client.count("demo"),
                lambda: client.get_collection("demo"),
            ):
                with pytest.raises(ClientStateError, match="is closed"):
                    call()


def places(request: pytest.FixtureRequest) -> list[Callable[[], dict[str, Any]]]:
    """Arguments of clients of every store."""
    folder = request.getfixturevalue("tmp_path")
    server = request.getfixturevalue("grpc_server")
    return [
        lambda: {"location": ":memory:"},
        lambda: {"path": str(folder / "local"), "engine": "local"},
        lambda: {"path": str(folder / "edge"), "engine": "edge"},
        lambda: at(server),
        lambda: at(server, grpc=True),
    ]


# turns


@contextmanager
def busy(client: QdrantClient, seconds: float = 0.3) -> Iterator[None]:
    """Have another thread be in the middle of a request when the block begins."""
    database: Any = client._client
    inside = threading.Event()
    write = database.collections["demo"].upsert

    def slow(*args: Any, **kwargs: Any) -> Any:
        inside.set()
        time.sleep(seconds)
        return write(*args, **kwargs)

    database.collections["demo"].upsert = slow
    thread = threading.Thread(target=lambda: client.add("demo", ["b"], ids=[2]))
    thread.start()
    assert inside.wait(30)
    yield
    thread.join()


@pytest.fixture(params=["memory", "path"])
def local(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[QdrantClient]:
    """A local database with a collection."""
    where: dict[str, Any] = {"location": ":memory:"}
    if request.param == "path":
        where = {"path": str(tmp_path / "db"), "engine": "local"}
    client = QdrantClient(**where)
    client.set_model(LetterEncoder())
    client.add("demo", ["a"], ids=[1])
    yield client
    client.close()


def test_inherited_calls_and_close_wait_for_the_request_that_runs(local: QdrantClient) -> None:
    with busy(local):
        began = time.monotonic()
        assert local.count("demo").count == 2
        assert time.monotonic() - began > 0.2
    with busy(local):
        local.close()
        with pytest.raises(ClientStateError):
            local.count("demo")


def test_a_long_wait_is_announced(
    local: QdrantClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qdrant_embed.stalls.NOTICE", 0.1)
    with caplog.at_level(logging.WARNING), busy(local, 0.5):
        local.close()
    assert any("a wait for another call of" in record.message for record in caplog.records)


def test_threads_share_a_folder_by_inherited_methods(tmp_path: Path) -> None:
    """Without turns, sqlite says that it cannot start a transaction within a transaction."""
    client = QdrantClient(path=str(tmp_path), engine="local")
    client.create_collection("demo", cosine(2))
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for n in range(12):
                point = models.PointStruct(id=100 * number + n, vector=[1.0, n], payload={"n": n})
                client.upsert("demo", [point])
                client.set_payload("demo", {"m": n}, [100 * number + n])
                client.scroll("demo", limit=5)
                client.delete("demo", [100 * number + n - 8])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.close()
    assert not failures
    again = QdrantClient(path=str(tmp_path))
    found, _ = again.scroll("demo", limit=1000)
    again.close()
    expected = {100 * number + n for number in range(4) for n in range(4, 12)}
    assert {point.id for point in found} == expected


def test_points_are_read_before_an_upload_has_its_turn(local: QdrantClient) -> None:
    """A producer in another thread may use the client, too."""
    for upload in ("upload_points", "upload_collection"):
        produced: queue.Queue[Any] = queue.Queue(1)

        def produce(produced: queue.Queue[Any] = produced) -> None:
            for n in range(3, 6):
                produced.put(n + local.count("demo").count * 0)
            produced.put(None)

        producer = threading.Thread(target=produce, daemon=True)
        producer.start()
        numbers = iter(produced.get, None)
        if upload == "upload_points":
            vector: Any = {"fast-letters": [0.1] * 26}
            local.upload_points("demo", (models.PointStruct(id=n, vector=vector) for n in numbers))
        else:
            vectors: Any = [{"fast-letters": [0.2] * 26}] * 3
            local.upload_collection("demo", vectors, ids=numbers, payload=iter([{"m": 1}] * 9))
        producer.join(30)
        assert local.count("demo").count == 4
    assert local.retrieve("demo", [4])[0].payload == {"m": 1}


def test_the_event_loop_goes_on_while_a_task_waits_for_its_turn() -> None:
    async def program() -> None:
        client = AsyncQdrantClient(":memory:")
        client.set_model(LetterEncoder())
        await client.add("demo", ["a"], ids=[1])
        calls: Any = calls_of(client._client)
        free = threading.Event()

        def hold() -> None:
            with calls.running():
                free.wait(30)

        holder = threading.Thread(target=hold)
        holder.start()
        asking = asyncio.create_task(client.count("demo"))
        for _ in range(10):
            await asyncio.sleep(0.005)
        assert not asking.done()
        closing = asyncio.create_task(client.close())
        await asyncio.sleep(0.01)
        free.set()
        await closing
        holder.join()
        with contextlib.suppress(ClientStateError):  # the close may have its turn first
            assert (await asking).count == 1
        with pytest.raises(ClientStateError, match="is closed"):
            await client.count("demo")

    run(program())


# servers


@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_close_waits_for_requests_that_a_server_is_to_answer(
    grpc_server: Server,
    transport: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("qdrant_embed.stalls.NOTICE", 0.1)
    client = QdrantClient(**at(grpc_server, grpc=transport == "grpc"))
    client.set_model(LetterEncoder())
    client.add("demo", ["a"], ids=[1])
    grpc_server.requests.clear()
    grpc_server.fail_once("PUT" if transport == "rest" else "Upsert", Fault(200, late=0.5))
    ended: list[Any] = []

    def add() -> None:
        try:
            client.add("demo", ["b", "c"], ids=[2, 3], batch_size=1)
        except IngestError as error:
            ended.append(error)

    thread = threading.Thread(target=add)
    thread.start()
    deadline = time.monotonic() + 30
    while not any("Upsert" in one or "PUT" in one for one in grpc_server.requests):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with caplog.at_level(logging.WARNING):
        client.close()
    thread.join()
    (error,) = ended
    assert error.stored_ids == [2]
    assert isinstance(error.__cause__, ClientStateError)
    assert grpc_server.database.count("demo").count == 2
    assert any("closing the client of http" in record.message for record in caplog.records)


@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_close_waits_for_other_tasks(grpc_server: Server, transport: str) -> None:
    async def program() -> None:
        client = AsyncQdrantClient(**at(grpc_server, grpc=transport == "grpc"))
        client.set_model(LetterEncoder())
        await client.add("demo", ["a"], ids=[1])
        name = "PUT /collections/demo/points" if transport == "rest" else "Points/Upsert"
        before = grpc_server.requests.count(name)
        grpc_server.fail_once(name, Fault(200, late=0.5))
        adding = asyncio.create_task(client.add("demo", ["b", "c"], ids=[2, 3], batch_size=1))
        while grpc_server.requests.count(name) == before:
            await asyncio.sleep(0.01)
        await client.close()
        with pytest.raises(IngestError) as raised:
            await adding
        assert raised.value.stored_ids == [2]
        assert isinstance(raised.value.__cause__, ClientStateError)

    run(program())


# forks


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_process_reads_a_folder_and_changes_nothing() -> None:
    script = """
        import os, sys, tempfile, threading
        from qdrant_client import models
        from clients import LetterEncoder, cosine
        from qdrant_embed import ClientStateError, QdrantClient

        folder = tempfile.mkdtemp()
        client = QdrantClient(path=folder, engine="local")
        client.set_model(LetterEncoder())
        client.add("demo", ["a", "b"], ids=[1, 2])
        stop = threading.Event()

        def work():
            n = 10
            while not stop.is_set():
                point = models.PointStruct(id=n, vector={"fast-letters": [0.1] * 26})
                client.upsert("demo", [point])
                n += 1

        worker = threading.Thread(target=work)
        worker.start()
        for _ in range(3):
            child = os.fork()
            if not child:
                code = 1
                try:
                    count = client.count("demo").count
                    assert count >= 2 and len(client.scroll("demo", limit=10**6)[0]) == count
                    assert client.query("demo", "a", limit=1)[0].id == 1
                    for change in (
                        lambda: client.upsert("demo", []),
                        lambda: client.delete_collection("demo"),
                        lambda: client.create_collection("new", cosine(2)),
                        lambda: client.delete("demo", [1]),
                        lambda: client.add("demo", ["c"]),
                    ):
                        try:
                            change()
                        except ClientStateError as error:
                            assert "only the parent may write" in str(error)
                        else:
                            raise AssertionError("it was changed")
                    client.close()
                    code = 0
                finally:
                    os._exit(code)
            assert os.waitpid(child, 0)[1] == 0
        stop.set()
        worker.join()
        try:  # a child's close is not the parent's
            QdrantClient(path=folder)
        except RuntimeError as error:
            assert "already accessed" in str(error), error
        else:
            raise AssertionError("the folder is unlocked")
        count = client.count("demo").count
        client.close()
        again = QdrantClient(path=folder)
        assert again.count("demo").count == count
        again.close()
        print("all")
    """
    assert run_script(script) == "all\n"


@pytest.mark.parametrize("path", [None, "folder"])
@pytest.mark.parametrize("fails", [False, True])
def test_the_end_of_a_block_closes_its_client(
    tmp_path: Path, path: str | None, fails: bool
) -> None:
    where: dict[str, Any] = {"location": ":memory:"} if path is None else {"path": tmp_path / path}
    with contextlib.suppress(ZeroDivisionError), QdrantClient(**where) as client:
        client.set_model(LetterEncoder())
        assert client.add("demo", ["a"], ids=[1]) == [1]
        _ = 1 / (not fails)
    with pytest.raises(ClientStateError, match="closed"):
        client.query("demo", "a")
    if path is not None:  # which can be opened at once
        with QdrantClient(**where) as client:
            assert client.count("demo").count == 1


def test_the_end_of_an_asynchronous_block_closes_its_client() -> None:
    async def work() -> AsyncQdrantClient:
        async with AsyncQdrantClient(":memory:") as client:
            client.set_model(LetterEncoder())
            await client.add("demo", ["a"], ids=[1])
        return client

    client = asyncio.run(work())
    with pytest.raises(ClientStateError, match="closed"):
        asyncio.run(client.query("demo", "a"))
