"""What an `add` that was cancelled or interrupted tells of what is stored."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from clients import at, opened, run
from rest_server import Fault, Server
from tiny import TinyModel

from qdrant_embed import AsyncQdrantClient, AsyncQdrantEmbedMixin, IngestError, QdrantClient
from qdrant_embed.backoff import Backoff
from qdrant_embed.encoder.interfaces import Vector
from qdrant_embed.encoder.run.backend import Inputs
from qdrant_embed.encoder.run.session import Session


@pytest.mark.slow
@pytest.mark.parametrize("place", ["server", "memory"])
def test_a_cancelled_add_says_exactly_what_is_stored(
    server: Server, tiny: TinyModel, place: str
) -> None:
    """It is cancelled while the third request is under way, which is carried out to its end."""

    async def program() -> None:
        reached, go_on = threading.Event(), threading.Event()
        upserts = 0

        class Slow(AsyncQdrantEmbedMixin):
            async def upsert(self, *args: Any, **kwargs: Any) -> Any:
                nonlocal upserts
                upserts += 1
                if upserts == 3:
                    reached.set()
                    await asyncio.to_thread(go_on.wait, 30)
                return await super().upsert(*args, **kwargs)

        client = Slow(**at(server)) if place == "server" else Slow(":memory:")
        client.set_model(tiny.path)
        texts = [f"cat {n}" for n in range(3000)]
        adding = asyncio.create_task(client.add("demo", texts, ids=range(3000), batch_size=100))
        await asyncio.to_thread(reached.wait, 30)
        adding.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError) as caught:
            await adding
        account = IngestError.behind(caught.value)
        assert account is not None
        assert account.stored_ids == list(range(300))
        assert account.failed_index == 300
        points, _ = await client.scroll("demo", limit=3000)
        assert [point.id for point in points] == account.stored_ids
        # the rest completes it
        rest = range(account.failed_index, 3000)
        await client.add("demo", texts[account.failed_index :], ids=rest, batch_size=500)
        points, _ = await client.scroll("demo", limit=3000)
        assert [point.id for point in points] == list(range(3000))
        await client.close()

    run(program())


def test_an_add_cancelled_between_two_tries_says_what_is_stored(
    server: Server,
    tiny: TinyModel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("qdrant_embed.flows.requests.BACKOFF", Backoff(600, 600))

    async def program() -> None:
        client = AsyncQdrantClient(**at(server))
        client.set_model(tiny.path)
        waiting = asyncio.Event()
        upserts = 0

        def fault(request: str) -> Fault | None:
            nonlocal upserts
            upserts += request == "PUT /collections/demo/points"
            if upserts < 2 or "points" not in request:
                return None
            loop.call_soon_threadsafe(waiting.set)
            return Fault(503)

        loop = asyncio.get_running_loop()
        server.fault = fault
        adding = asyncio.create_task(client.add("demo", ["cat"] * 64, ids=range(64), batch_size=32))
        await waiting.wait()
        adding.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await adding
        account = IngestError.behind(caught.value)
        assert account is not None
        assert account.stored_ids == list(range(32))
        assert "32 documents are stored in 'demo'" in caplog.messages[-1]
        assert upserts == 2
        await client.close()

    run(program())


def test_cancelled_before_anything_is_stored_there_is_nothing_to_say(tiny: TinyModel) -> None:
    async def program() -> None:
        client = AsyncQdrantClient(":memory:")
        client.set_model(tiny.path)
        adding = asyncio.create_task(client.add("demo", ["cat"]))
        await asyncio.sleep(0)
        adding.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await adding
        assert IngestError.behind(caught.value) is None
        await client.close()

    run(program())


def test_an_interrupt_says_what_is_stored(tiny: TinyModel) -> None:
    upserts = 0

    class Interrupted(QdrantClient):
        def upsert(self, *args: Any, **kwargs: Any) -> Any:
            nonlocal upserts
            upserts += 1
            if upserts == 3:
                raise KeyboardInterrupt
            return super().upsert(*args, **kwargs)

    client = Interrupted(":memory:")
    client.set_model(tiny.path)
    with pytest.raises(KeyboardInterrupt) as caught:
        client.add("demo", ["cat"] * 200, ids=range(200))
    account = IngestError.behind(caught.value)
    assert account is not None
    assert "add() failed at documents[64]: KeyboardInterrupt." in str(account)
    assert account.stored_ids == list(range(64))


def test_what_nobody_waits_for_is_not_encoded(
    kind: str, tiny: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload fails while the next 1,024 documents, of many lengths, are being encoded."""
    started, failed, ran = threading.Event(), threading.Event(), 0
    run_graph = Session.run

    def slow(self: Session, inputs: Inputs) -> Vector:
        nonlocal ran
        if inputs.ids.shape[1] > 3:
            ran += 1
            started.set()
            failed.wait(30)
            time.sleep(0.05)
        return run_graph(self, inputs)

    def full(*_: object, **__: object) -> None:
        started.wait(30)
        failed.set()
        raise RuntimeError("the disk is full")

    async def full_async(*_: object, **__: object) -> None:
        full()

    monkeypatch.setattr(Session, "run", slow)
    texts = ["cat"] * 1024 + ["cat " * (2 + number % 50) for number in range(1024)]
    with opened(kind, ":memory:") as client:
        client.set_model(tiny.path)
        client.upsert = full if kind == "sync" else full_async  # type: ignore[method-assign, assignment] # as a full disk
        with pytest.raises(RuntimeError, match="disk is full"):
            client.add("demo", texts)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and any(
            thread.name.startswith("qdrant-embed_") for thread in threading.enumerate()
        ):
            time.sleep(0.01)
    assert ran < 20  # of more than 50
