"""What may be stored, though nobody says so: changes that are late, and disks that are full."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from clients import KINDS, LetterEncoder, at, opened, stored
from qdrant_client import grpc as messages
from qdrant_client import models
from rest_server import Fault, Server

from qdrant_embed import (
    FolderError,
    IngestError,
    QdrantClient,
    ServerUnavailableError,
)
from qdrant_embed.engines.server import NotAppliedError, check_applied

TEXTS = [f"{'abcdefgh'[n % 8] * (n + 1)} {n}" for n in range(40)]
LATE = Fault(200, unfinished=True)
TRANSPORTS = ["rest", "grpc"]
CHANGES = {
    "rest": ("PUT /collections/demo/points", "points/batch", "points/delete"),
    "grpc": ("Points/Upsert", "Points/UpdateBatch", "Points/Delete"),
}


@pytest.mark.parametrize(
    "answer",
    [
        {"result": {"operation_id": 1, "status": "wait_timeout"}},
        models.UpdateResult(operation_id=1, status=models.UpdateStatus.WAIT_TIMEOUT),
        [
            models.UpdateResult(operation_id=1, status=models.UpdateStatus.COMPLETED),
            models.UpdateResult(operation_id=2, status=models.UpdateStatus.WAIT_TIMEOUT),
        ],
        messages.PointsOperationResponse(
            result=messages.UpdateResult(status=messages.UpdateStatus.WaitTimeout)
        ),
    ],
)
def test_a_late_change_is_recognised(answer: object) -> None:
    with pytest.raises(NotAppliedError, match="wait_timeout"):
        check_applied(answer)


@pytest.mark.parametrize(
    "answer",
    [
        None,  # of a user's own upsert
        True,
        {"result": {"operation_id": 1, "status": "acknowledged"}},
        {"result": None},
        models.UpdateResult(operation_id=1, status=models.UpdateStatus.COMPLETED),
        messages.PointsOperationResponse(
            result=messages.UpdateResult(status=messages.UpdateStatus.Completed)
        ),
    ],
)
def test_other_answers_are_not(answer: object) -> None:
    check_applied(answer)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_change_that_was_not_carried_out_in_time_is_asked_for_again(
    grpc_server: Server, kind: str, transport: str
) -> None:
    upsert, update, delete = CHANGES[transport]
    with opened(kind, **at(grpc_server, grpc=transport == "grpc")) as client:
        client.set_model(LetterEncoder())
        grpc_server.fail_once(upsert, LATE, times=2)
        assert client.add("demo", TEXTS, ids=range(40), batch_size=16) == list(range(40))
        assert {n: payload["document"] for n, payload in stored(client).items()} == dict(
            enumerate(TEXTS)
        )
        assert sum(upsert in one for one in grpc_server.requests) == 3 + 2
        grpc_server.fail_once(update, LATE)
        client.update_metadata("demo", [1], {"n": 1})
        assert stored(client)[1]["n"] == 1
        grpc_server.fail_once(delete, LATE)
        client.delete_documents("demo", [1])
        assert 1 not in stored(client)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_never_confirmed_is_named(grpc_server: Server, kind: str, transport: str) -> None:
    upsert, *_ = CHANGES[transport]
    with opened(kind, **at(grpc_server, grpc=transport == "grpc")) as client:
        client.set_model(LetterEncoder())
        grpc_server.fail_once(upsert, LATE, times=99)
        with pytest.raises(
            IngestError,
            match=r"no document is known to be stored.*"
            r"documents\[0\] to documents\[15\] were sent, and may be",
        ) as raised:
            client.add("demo", TEXTS, ids=range(40), batch_size=16, max_retries=2)
        error = raised.value
        assert isinstance(error.__cause__, ServerUnavailableError)
        assert "wait_timeout" in str(error)
        assert (error.stored_ids, error.failed_index) == ([], 0)
        assert error.unconfirmed_ids == list(range(16))

        late = iter([None, None, *[LATE] * 9])
        grpc_server.fault = lambda asked: next(late, None) if upsert in asked else None
        with pytest.raises(IngestError) as raised:
            client.add("demo", TEXTS, ids=range(40), batch_size=8, max_retries=0)
        error = raised.value
        known = [*error.stored_ids, *error.unconfirmed_ids]
        assert error.stored_ids
        assert error.unconfirmed_ids
        assert known == list(range(len(known)))
        # each was stored or sent
        assert {*stored(client)} <= {*known}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", [500, 507])
def test_a_servers_full_disk(grpc_server: Server, kind: str, transport: str, status: int) -> None:
    if transport == "grpc" and status == 507:
        pytest.skip("a status of HTTP")
    upsert, *_ = CHANGES[transport]
    message = "Service internal error: No space left on device: WAL buffer size exceeds"
    with opened(kind, **at(grpc_server, grpc=transport == "grpc")) as client:
        client.set_model(LetterEncoder())
        grpc_server.fail_once(upsert, Fault(status, message=message), times=99)
        with pytest.raises(IngestError, match="make space on the server's disk") as raised:
            client.add("demo", TEXTS[:1], ids=["x"], max_retries=1)
        assert "documents[0] was sent, and may be stored" in str(raised.value)
        assert raised.value.unconfirmed_ids == ["x"]


def test_what_a_server_refuses_is_not_unconfirmed(grpc_server: Server) -> None:
    with opened("sync", **at(grpc_server)) as client:
        client.set_model(LetterEncoder())
        client.add("demo", TEXTS[:1], ids=[0])
        late = iter([None, Fault(400, message="no")])
        grpc_server.fault = lambda asked: next(late, None) if "PUT" in asked else None
        with pytest.raises(IngestError) as raised:
            client.add("demo", TEXTS, ids=range(40), batch_size=20)
        assert raised.value.stored_ids == list(range(20))
        assert raised.value.unconfirmed_ids == []


@pytest.mark.parametrize("overflow", ["truncate", "chunk"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_of_local_mode(tmp_path: Path, kind: str, overflow: Any, tiny: Any) -> None:
    texts = ["the cat sat on the ship. " * 20 + str(n) for n in range(20)]
    with opened(kind, path=str(tmp_path), engine="local") as client:
        client.set_model(tiny.path, overflow=overflow)
        client.add("demo", ["a"], ids=[99])
        database: Any = client._client
        connection = database.collections["demo"].storage.storage
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count={pages + 2}")
        with pytest.raises(IngestError, match="no document is known to be stored") as raised:
            client.add("demo", texts, ids=range(20), batch_size=1000)
        error = raised.value
        assert isinstance(error.__cause__, FolderError)
        assert "has no space left (database or disk is full)" in str(error)
        assert error.unconfirmed_ids == list(range(len(error.unconfirmed_ids)))
        assert error.unconfirmed_ids
        there = {payload.get("qdrant_embed_id", point) for point, payload in stored(client).items()}
        assert there - {99} <= {*error.unconfirmed_ids}  # all that was stored of it is named


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_of_the_embedded_engine(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(kind, path=str(tmp_path), engine="edge") as client:
        client.set_model(LetterEncoder())
        client.add("demo", ["a"], ids=[99])
        monkeypatch.setattr("qdrant_embed.engines.edge.database.PART", 8)
        free = iter([10**12, 10**12])
        monkeypatch.setattr(
            shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 0, next(free, 0))
        )
        with pytest.raises(IngestError, match=r"\[0\] to documents\[39\] were sent") as raised:
            client.add("demo", TEXTS, ids=range(40))
        assert isinstance(raised.value.__cause__, FolderError)
        assert {*stored(client)} == {99, *range(16)}
        with pytest.raises(FolderError, match="make space"):  # nothing was begun
            client.add("demo", TEXTS, ids=range(40))


def test_the_embedded_engines_own_word_of_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = QdrantClient(path=str(tmp_path), engine="edge")
    client.set_model(LetterEncoder())
    client.add("demo", ["a"], ids=[99])
    shard: Any = client._client._shard("demo")  # type: ignore[attr-defined] # of the embedded engine

    class Full:
        def __getattr__(self, name: str) -> Any:
            return getattr(whole, name)

        def update(self, operation: Any) -> None:
            raise Exception("Service runtime error: No space left on device (os error 28)")

    whole = shard._open
    shard._open = Full()
    with pytest.raises(IngestError, match="has no space left") as raised:
        client.add("demo", TEXTS[:2], ids=[0, 1])
    assert raised.value.unconfirmed_ids == [0, 1]
    shard._open = whole
    client.close()
