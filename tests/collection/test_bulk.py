"""A collection is loaded without an index, which is built when it is complete."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clients import LetterEncoder, at, opened
from qdrant_client import models
from rest_server import Fault, Server

from qdrant_embed import (
    CollectionNotFoundError,
    CollectionOptions,
    IngestError,
    InputError,
    QdrantClient,
)
from qdrant_embed.collection.stamp import BULK_KEY, BulkMark, read_bulk
from qdrant_embed.engines.edge import database
from qdrant_embed.search import search

BULK = CollectionOptions.bulk()
WAIT = CollectionOptions.bulk(wait=True, shard_number=1)
TEXTS = [f"text {number}" for number in range(60)]
UPDATE = "PATCH /collections/demo"


@pytest.fixture(params=["server", "grpc_server"])
def remote(request: pytest.FixtureRequest, kind: str) -> Iterator[QdrantClient]:
    """A client of a server."""
    server: Server = request.getfixturevalue(request.param)
    with opened(kind, **at(server)) as client:
        client.set_model(LetterEncoder())
        yield client


@pytest.fixture
def embedded(kind: str, tmp_path: Path) -> Iterator[QdrantClient]:
    """A client of a folder with the embedded engine."""
    with opened(kind, path=str(tmp_path / "db"), engine="edge") as client:
        client.set_model(LetterEncoder())
        yield client


def state(client: QdrantClient) -> tuple[int | None, Any]:
    """The threshold of the index, and the mark."""
    config = client.get_collection("demo").config
    return config.optimizer_config.indexing_threshold, (config.metadata or {}).get(BULK_KEY)


def failing() -> Iterator[str]:
    for number in range(4000):
        yield f"text {number}"
    raise KeyError("the source has failed")


def threshold(server: Server) -> Any:
    return server.node.settings["demo"].created["optimizers_config"]["indexing_threshold"]


def test_the_index_is_off_while_an_add_runs(
    remote: QdrantClient, request: pytest.FixtureRequest
) -> None:
    seen: list[Any] = []
    server = request.getfixturevalue(request.node.callspec.params["remote"])
    remote.add("other", ["a"])
    usual = remote.get_collection("other").config.optimizer_config.indexing_threshold
    assert usual
    documents = [f"text {number}" for number in range(300)]
    remote.add(
        "demo",
        documents,
        collection_options=BULK,
        progress=lambda progress: seen.append(progress.documents and threshold(server)),
    )
    assert set(seen[1:]) == {0}
    assert state(remote) == (usual, None)


def test_an_add_that_failed_leaves_it_to_the_next_one(remote: QdrantClient) -> None:
    with pytest.raises(IngestError):
        remote.add("demo", failing(), collection_options=BULK)
    threshold, mark = state(remote)
    assert (threshold, mark["indexing_threshold"] > 0) == (0, True)
    remote.add("demo", ["a"], ids=[1])
    assert state(remote) == (mark["indexing_threshold"], None)


def test_or_to_whoever_waits(remote: QdrantClient) -> None:
    with pytest.raises(IngestError):
        remote.add("demo", failing(), collection_options=BULK)
    _, mark = state(remote)
    remote.wait_until_indexed("demo", progress=False)
    assert state(remote) == (mark["indexing_threshold"], None)


def test_several_adds_can_leave_it_off(remote: QdrantClient) -> None:
    for number in range(3):
        remote.add("demo", [f"text {number}"], collection_options=WAIT)
        threshold, mark = state(remote)
        assert threshold == 0
        assert mark["indexing_threshold"] > 0
    for _ in range(2):
        remote.wait_until_indexed("demo")
        assert state(remote) == (mark["indexing_threshold"], None)


def test_a_collection_with_documents_keeps_its_index(remote: QdrantClient) -> None:
    remote.add("demo", ["a"])
    before = state(remote)
    remote.add("demo", ["b"], collection_options=WAIT)
    assert state(remote) == before


def test_an_index_that_somebody_else_has_turned_off_stays_off(remote: QdrantClient) -> None:
    params = remote.get_fastembed_vector_params()
    off = models.OptimizersConfigDiff(indexing_threshold=0)
    remote.create_collection("demo", vectors_config=params, optimizers_config=off)
    remote.add("demo", ["a"], collection_options=BULK)
    assert state(remote) == (0, None)


def test_a_key_that_cannot_turn_it_on_has_added(
    kind: str, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(kind, **at(server)) as client:
        client.set_model(LetterEncoder())
        client.add("demo", ["a"], collection_options=WAIT)
        server.fail_once(UPDATE, Fault(403, message="Global manage access is required"))
        assert client.add("demo", ["b"], ids=[1]) == [1]
        assert "call wait_until_indexed() with one that can" in caplog.text
        client.wait_until_indexed("demo")
        assert state(client)[1] is None


def test_options_and_waiting_do_no_harm_on_any_store(anywhere: QdrantClient) -> None:
    with pytest.raises(CollectionNotFoundError, match="'demo' was not found"):
        anywhere.wait_until_indexed("demo")
    anywhere.add("demo", ["one"], ids=[1], collection_options=BULK)
    anywhere.add("demo", ["two"], ids=[2], collection_options=WAIT)
    anywhere.wait_until_indexed("demo", progress=False)
    assert anywhere.query("demo", "two", limit=1)[0].id == 2
    with pytest.raises(InputError, match="progress must be"):
        anywhere.wait_until_indexed("demo", progress="yes")  # type: ignore[arg-type]


def test_a_mark_that_cannot_be_read_is_a_mark() -> None:
    for strange in (1, "x", {}, {"indexing_threshold": "7"}, {"indexing_threshold": 0}):
        assert read_bulk({BULK_KEY: strange}) == BulkMark(10_000)
    assert read_bulk({BULK_KEY: {"indexing_threshold": 7}}) == BulkMark(7)
    assert read_bulk({BULK_KEY: None}) is read_bulk({}) is read_bulk(None) is None


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(InputError, match="indexing must be 'on', 'after add' or 'after wait'"):
        CollectionOptions(indexing="later")  # type: ignore[arg-type]


def test_bulk_takes_all_other_options() -> None:
    options = CollectionOptions.bulk(on_disk=True, indexed={"year": "integer"})
    assert options == CollectionOptions(
        on_disk=True, indexed={"year": "integer"}, indexing="after add"
    )
    for wrong, message in (
        ({"on_disc": True}, "no option 'on_disc'"),
        ({"shard_number": 0}, "shard_number"),
        ({"wait": "no"}, "wait must be True or False, not 'no'"),
    ):
        options_of: dict[str, Any] = dict(wrong)
        with pytest.raises(InputError, match=message):
            CollectionOptions.bulk(**options_of)


@pytest.mark.parametrize("way", ["wait", "optimize", "add"])
def test_the_embedded_engine_begins_no_index_meanwhile(
    embedded: QdrantClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    way: str,
) -> None:
    monkeypatch.setattr(database, "FLAT_AT_REST", 100)
    monkeypatch.setattr(database, "FLAT", 100)
    monkeypatch.setattr(database, "FLUSH_EVERY", 0.05)
    caplog.set_level(logging.INFO, "qdrant_embed")
    embedded.add("demo", TEXTS, collection_options=WAIT)
    threshold, mark = state(embedded)
    assert (threshold, mark) == (0, {"indexing_threshold": 1_000})
    time.sleep(0.2)
    assert "building an index" not in caplog.text
    if way == "wait":
        embedded.wait_until_indexed("demo")
    elif way == "optimize":
        embedded.optimize("demo")
    else:
        embedded.add("demo", ["the last one"])
    assert state(embedded) == (1_000, None)
    assert len(embedded.query("demo", "text 7", limit=60)) == 60


def test_a_search_says_once_that_the_index_is_missing(
    anywhere: QdrantClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(search, "_WITHOUT_INDEX", len(TEXTS) - 1)
    anywhere.add("demo", TEXTS, collection_options=WAIT)
    anywhere.set_model(anywhere.embedding_model_name)  # what it knew of collections is forgotten
    for _ in range(2):
        anywhere.query("demo", "text")
        anywhere.query_batch("demo", ["text", "texts"])
    told = [record.getMessage() for record in caplog.records if "no index" in record.getMessage()]
    assert len(told) == (anywhere.engine != "local")
    assert all("60 points" in one and 'wait_until_indexed("demo")' in one for one in told)
    caplog.clear()
    anywhere.wait_until_indexed("demo")
    anywhere.set_model(anywhere.embedding_model_name)
    anywhere.query("demo", "text")
    assert "no index" not in caplog.text
