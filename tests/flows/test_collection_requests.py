"""Requests about one collection: how often they are repeated, and how they are halved."""

from __future__ import annotations

from typing import Any, cast

import httpx
import numpy as np
import pytest
import qdrant_client
from qdrant_client import models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import UnexpectedResponse

from qdrant_embed.engines.engine import Engine, run_blocking
from qdrant_embed.engines.points import Points
from qdrant_embed.errors import ServerRefusal, ServerUnavailableError
from qdrant_embed.flows.io import BlockingIo
from qdrant_embed.flows.requests import CollectionRequests

POINTS = Points(range(5), [{}] * 5, np.zeros((5, 1), np.float32), "")


def response(status: int, **headers: str) -> UnexpectedResponse:
    return UnexpectedResponse(status, "", b"", httpx.Headers(headers))


class Waits(BlockingIo):
    """Notes how long it is told to wait instead of waiting."""

    def __init__(self) -> None:
        engine = Engine(
            "test", off_loop=False, payload_index=False, refusals=(), explain=lambda *_: None
        )
        super().__init__(engine)
        self.seconds: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.seconds.append(seconds)


class Recorder:
    """A client that notes its upserts, and fails as often as there are errors left."""

    def __init__(self, *errors: Exception, largest: int = 100) -> None:
        self.errors, self.largest = [*errors], largest
        self.calls: list[tuple[list[Any], dict[str, Any]]] = []

    @property
    def http(self) -> Any:
        raise NotImplementedError  # as a local database

    def upsert(self, name: str, points: list[models.PointStruct], **options: Any) -> None:
        self.calls.append(([point.id for point in points], {"name": name, **options}))
        if self.errors:
            raise self.errors.pop(0)
        if len(points) > self.largest:
            raise response(413)


def store(client: Recorder, io: Waits, max_retries: int = 3, **options: Any) -> list[list[Any]]:
    """Store all points, and return what was reported as stored."""
    requests = CollectionRequests(
        io, cast("qdrant_client.QdrantClient", client), "demo", max_retries
    )
    stored: list[list[Any]] = []
    run_blocking(
        requests.upsert(
            POINTS, lambda points: stored.append([point.id for point in points]), **options
        )
    )
    return stored


@pytest.mark.parametrize("wait", [True, False])
def test_halves_are_sent_as_the_whole_would_have_been(wait: bool) -> None:
    client = Recorder(largest=2)
    assert store(client, Waits(), wait=wait, shard_key_selector="a") == [[0, 1], [2], [3, 4]]
    assert [ids for ids, _ in client.calls] == [[0, 1, 2, 3, 4], [0, 1], [2, 3, 4], [2], [3, 4]]
    assert all(
        options == {"name": "demo", "wait": wait, "shard_key_selector": "a"}
        for _, options in client.calls
    )


def test_a_single_point_that_is_too_large_fails() -> None:
    client = Recorder(largest=0)
    with pytest.raises(ServerRefusal, match="point 0"):
        store(client, Waits())
    assert client.calls[-1][0] == [0]


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_a_request_is_repeated_as_often_as_allowed(retries: int) -> None:
    io = Waits()
    enough = Recorder(*[response(503)] * retries)
    assert store(enough, io, retries) == [[0, 1, 2, 3, 4]]
    assert len(io.seconds) == retries
    one_more = Recorder(*[response(503)] * (retries + 1))
    with pytest.raises(ServerUnavailableError):
        store(one_more, Waits(), retries)
    assert len(one_more.calls) == retries + 1


def test_the_wait_is_that_which_the_server_asks_for() -> None:
    io = Waits()
    exhausted = ResourceExhaustedResponse("slow down", 17)
    store(Recorder(response(429, **{"Retry-After": "30"}), exhausted), io)
    assert io.seconds == [30, 17]


def test_a_server_that_asks_to_wait_for_more_than_five_minutes_is_not_waited_for() -> None:
    io = Waits()
    client = Recorder(response(503, **{"Retry-After": "301"}))
    with pytest.raises(ServerUnavailableError):
        store(client, io)
    assert (len(client.calls), io.seconds) == (1, [])
