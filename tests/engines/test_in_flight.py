"""Several requests in flight: what is stored, in which order it is accounted for, how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from clients import KINDS, LetterEncoder, at, opened, run
from qdrant_client.context_headers import headers
from rest_server import Fault, Server

from qdrant_embed import (
    AsyncQdrantClient,
    IngestError,
    IngestProgress,
    QdrantClient,
    ServerRefusal,
)
from qdrant_embed.backoff import Backoff
from qdrant_embed.engines.wire import LOCAL_BATCH, SERVER_BATCH, UPLOADS
from qdrant_embed.flows import requests

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
UPSERT = "PUT /collections/demo/points"
TEXTS = [f"cat {'abcdefgh'[n % 8]} {n}" for n in range(100)]


@pytest.fixture
def remote(kind: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[QdrantClient]:
    monkeypatch.setattr(requests, "BACKOFF", Backoff(0.001, 0.01))
    with opened(kind, **at(server)) as client:
        client.set_model(LetterEncoder())
        yield client


def ids_in(server: Server) -> list[Any]:
    """Ids of what is stored."""
    points, _ = server.database.scroll("demo", limit=10_000)
    return sorted(point.id for point in points)


def bodies(server: Server) -> list[list[int]]:
    """Ids in each request that stored points."""
    return [
        [point["id"] for point in json.loads(body)["points"]]
        for request, body in server.bodies
        if request == UPSERT
    ]


def test_three_requests_are_in_flight_after_the_first(remote: QdrantClient, server: Server) -> None:
    together = threading.Barrier(3)
    seen: list[int] = []

    def fault(request: str) -> Fault | None:
        if request == UPSERT:
            seen.append(1)
            if len(seen) > 1:
                together.wait(30)  # breaks unless so many are waiting
        return None

    server.fault = fault
    assert remote.add("demo", TEXTS, ids=range(100), batch_size=10, max_retries=0) == [*range(100)]
    assert ids_in(server) == [*range(100)]
    assert bodies(server)[0] == [*range(10)]
    assert sorted(bodies(server)) == [[*range(start, start + 10)] for start in range(0, 100, 10)]


def test_requests_have_256_points_on_a_server_and_32_locally(
    kind: str, remote: QdrantClient, server: Server
) -> None:
    texts = ["cat"] * 300
    remote.add("demo", texts)
    assert sorted(map(len, bodies(server))) == [300 - SERVER_BATCH, SERVER_BATCH]
    stored: list[int] = []
    with opened(kind, ":memory:") as client:
        client.set_model(LetterEncoder())
        client.add("demo", texts, progress=lambda progress: stored.append(progress.documents))
    assert stored[:3] == [0, LOCAL_BATCH, 2 * LOCAL_BATCH]


def test_the_account_has_no_gap_when_a_request_between_others_fails(
    remote: QdrantClient, server: Server
) -> None:
    lock = threading.Lock()

    def fault(request: str) -> Fault | None:
        if request != UPSERT:
            return None
        with lock:  # the very body that this request has is not told, so all that are there count
            return Fault(400) if any(40 in ids for ids in bodies(server)[-UPLOADS:]) else None

    server.fault = fault
    with pytest.raises(IngestError) as caught:
        remote.add("demo", TEXTS, ids=range(100), batch_size=10)
    account = caught.value
    assert isinstance(account.__cause__, ServerRefusal)
    assert account.stored_ids == [*range(account.failed_index)]
    assert account.failed_index <= 40
    stored = ids_in(server)
    assert stored[: account.failed_index] == account.stored_ids
    assert 40 not in stored
    server.fault = lambda _: None
    rest = range(account.failed_index, 100)
    remote.add("demo", TEXTS[account.failed_index :], ids=rest, batch_size=10)
    assert ids_in(server) == [*range(100)]


def test_an_interrupt_waits_for_what_is_in_flight(server: Server) -> None:
    held, seen = threading.Event(), 0

    def fault(request: str) -> Fault | None:
        nonlocal seen
        if request == UPSERT:
            seen += 1
            if seen > 1:
                threading.Timer(0.3, held.set).start()
                held.wait(30)
        return None

    def interrupt(progress: IngestProgress) -> None:
        if progress.documents >= 10:
            raise KeyboardInterrupt

    server.fault = fault
    client = QdrantClient(**at(server))
    client.set_model(LetterEncoder())
    with pytest.raises(KeyboardInterrupt) as caught:
        client.add("demo", TEXTS, ids=range(100), batch_size=10, progress=interrupt)
    account = IngestError.behind(caught.value)
    assert account is not None
    assert account.stored_ids == ids_in(server)
    sent = seen
    time.sleep(0.1)
    assert seen == sent
    client.close()


def test_an_interrupt_waits_for_no_further_try(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "BACKOFF", Backoff(100, 100))
    failed = threading.Semaphore(0)
    seen = 0

    def fault(request: str) -> Fault | None:
        nonlocal seen
        if request != UPSERT:
            return None
        seen += 1
        return None if seen == 1 else Fault(503)

    monkeypatch.setattr(requests.logger, "log", lambda *_: failed.release())
    client = QdrantClient(**at(server))
    client.set_model(LetterEncoder())
    server.fault = fault
    interrupted = threading.Thread(target=_interrupt_when, args=(failed,))
    interrupted.start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt) as caught:
        client.add("demo", TEXTS[:40], ids=range(40), batch_size=10)
    interrupted.join()
    assert time.monotonic() - started < 60
    account = IngestError.behind(caught.value)
    assert account is not None
    assert account.stored_ids == ids_in(server) == [*range(10)]
    client.close()


def _interrupt_when(failed: threading.Semaphore) -> None:
    for _ in range(UPLOADS):
        failed.acquire(timeout=60)
    time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGINT)


def test_a_cancellation_waits_for_what_is_in_flight(server: Server) -> None:
    held, reached = threading.Event(), threading.Barrier(UPLOADS + 1)
    seen = 0
    lock = threading.Lock()

    def fault(request: str) -> Fault | None:
        nonlocal seen
        if request == UPSERT:
            with lock:
                seen += 1
                first = seen == 1
            if not first:
                reached.wait(30)
                held.wait(30)
        return None

    async def program() -> None:
        client = AsyncQdrantClient(**at(server))
        client.set_model(LetterEncoder())
        server.fault = fault
        adding = asyncio.create_task(client.add("demo", TEXTS, ids=range(100), batch_size=10))
        await asyncio.to_thread(reached.wait, 30)
        adding.cancel()
        await asyncio.sleep(0.1)
        assert not adding.done()
        held.set()
        with pytest.raises(asyncio.CancelledError) as caught:
            await adding
        account = IngestError.behind(caught.value)
        assert account is not None
        assert account.stored_ids == ids_in(server) == [*range(10 * (1 + UPLOADS))]
        assert seen == 1 + UPLOADS
        await client.close()

    run(program())


@pytest.mark.parametrize("kind", KINDS)
def test_headers_of_a_block_go_with_every_request(kind: str, server: Server) -> None:
    with opened(kind, **at(server)) as client:
        client.set_model(LetterEncoder())
        client.add("demo", ["cat"])
        server.keys.clear()
        with headers({"api-key": "secret"}):
            client.add("demo", TEXTS, batch_size=10)
    assert set(server.keys) == {"secret"}
