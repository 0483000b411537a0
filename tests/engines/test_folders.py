"""Which engine opens a folder, and what a client says of it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from clients import LetterEncoder, at, opened, same
from qdrant_client import models
from rest_server import Server

from qdrant_embed import (
    AsyncQdrantClient,
    CollectionNotFoundError,
    FolderError,
    InputError,
    MissingDependencyError,
    QdrantClient,
)
from qdrant_embed.engines import embedded, folders
from qdrant_embed.engines.edge import database

CLIENTS: dict[str, Any] = {"sync": QdrantClient, "async": AsyncQdrantClient}
TEXTS = ["the cat sat", "a dog barked", "zebras"]


def filled(kind: str, path: Path, **options: Any) -> str:
    """Stores something in a folder; returns the engine that did."""
    with opened(kind, path=str(path), **options) as client:
        client.set_model(LetterEncoder())
        client.add("demo", TEXTS, ids=[1, 2, 3])
        return client.engine


def found(kind: str, path: Path, **options: Any) -> tuple[str, list[str]]:
    with opened(kind, path=str(path), **options) as client:
        client.set_model(LetterEncoder())
        return client.engine, [hit.document for hit in client.query("demo", "zebras", limit=1)]


def test_a_new_folder_opens_with_the_embedded_engine_if_it_is_installed(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert filled(kind, tmp_path / "one") == "edge"
    monkeypatch.setattr(folders, "is_installed", lambda: False)
    assert filled(kind, tmp_path / "two") == "local"


@pytest.mark.parametrize("engine", folders.ENGINES)
def test_a_folder_opens_with_the_engine_that_made_it(
    kind: str, tmp_path: Path, engine: str
) -> None:
    filled(kind, tmp_path, engine=engine)
    for options in ({}, {"engine": None}, {"engine": engine}):
        assert found(kind, tmp_path, **options) == (engine, ["zebras"])


@pytest.mark.parametrize(("made_by", "asked"), [("edge", "local"), ("local", "edge")])
def test_a_folder_of_the_other_engine_is_refused_with_the_way_to_copy_it(
    kind: str, tmp_path: Path, made_by: str, asked: str
) -> None:
    filled(kind, tmp_path, engine=made_by)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    with pytest.raises(
        FolderError, match=f"made by engine '{made_by}'.*qdrant-embed copy"
    ) as caught:
        CLIENTS[kind](path=str(tmp_path), engine=asked)
    assert caught.value.path == str(tmp_path)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == before
    assert found(kind, tmp_path) == (made_by, ["zebras"])


def test_without_the_extra_its_folders_are_refused_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled("sync", tmp_path / "one")
    monkeypatch.setattr(folders, "is_installed", lambda: False)
    cases: list[dict[str, Any]] = [
        {"path": str(tmp_path / "one")},
        {"path": str(tmp_path / "two"), "engine": "edge"},
    ]
    for options in cases:
        with pytest.raises(MissingDependencyError, match=r"qdrant-embed\[edge\]") as caught:
            QdrantClient(**options)
        assert caught.value.package == "qdrant-edge-py"
    assert not (tmp_path / "two").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "Edge"}, "'edge', 'local' or None, not 'Edge'"),
        ({"engine": True}, "not True"),
        ({"engin": "edge"}, "unknown keyword 'engin'.*'engine'"),
        ({"colour": 1}, "unknown keyword 'colour' of a client$"),
        ({"optimize": "yes"}, "optimize must be True or False"),
    ],
)
def test_options_of_a_folder_are_checked(
    kind: str, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        CLIENTS[kind](path=str(tmp_path / "db"), **options)
    assert not (tmp_path / "db").exists()


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("", InputError, "path is empty: is the variable set"),
        (" ", InputError, "path is blank"),
        (7, InputError, "path must be a str, not 7"),
        (b"db", InputError, "path must be a str, not b'db'"),
        ("n" * 300, FolderError, "cannot be used .*too long"),
        ("a\0b", InputError, "path has a null character"),
    ],
    ids=["empty", "blank", "number", "bytes", "long", "null"],
)
def test_paths_that_are_no_folders_are_refused(
    kind: str, path: Any, error: type[Exception], message: str
) -> None:
    for engine in (None, *folders.ENGINES):
        with pytest.raises(error, match=message):
            CLIENTS[kind](path=path, engine=engine)


def test_the_way_to_copy_a_folder_can_be_pasted(tmp_path: Path) -> None:
    filled("sync", tmp_path / "my notes", engine="local")
    with pytest.raises(FolderError, match=r"--from-path '[^']*/my notes' --to-path"):
        QdrantClient(path=str(tmp_path / "my notes"), engine="edge")


def test_engines_are_of_folders(kind: str, server: Server) -> None:
    with pytest.raises(InputError, match="for a folder"):
        CLIENTS[kind](":memory:", engine="edge")
    with pytest.raises(InputError, match="a server is its own engine"):
        CLIENTS[kind](**at(server), engine="edge")
    with opened(kind, ":memory:", engine="local") as memory, opened(kind, **at(server)) as remote:
        assert (memory.engine, remote.engine) == ("local", "server")


def test_two_places_are_refused_as_qdrant_client_does(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Only one of"):
        QdrantClient(path=str(tmp_path / "db"), url="http://nowhere:1")
    assert not (tmp_path / "db").exists()


def test_a_client_that_is_not_closed_ends_in_silence(tmp_path: Path) -> None:
    program = """
import sys
from qdrant_embed import QdrantClient
clients = [QdrantClient(path=f"{sys.argv[1]}/{name}", engine=name) for name in ("edge", "local")]
for client in clients:
    client.create_collection("demo", {})
def held(): return clients
"""
    ended = subprocess.run(
        [sys.executable, "-c", program, tmp_path], check=True, capture_output=True, text=True
    )
    assert ended.stderr == ""
    for engine in folders.ENGINES:
        with opened("sync", path=str(tmp_path / engine)) as client:
            assert client.collection_exists("demo")


def test_optimize_builds_an_index_in_a_folder_and_waits_for_that_of_a_server(
    anywhere: QdrantClient,
) -> None:
    with pytest.raises(CollectionNotFoundError, match="'demo' was not found"):
        anywhere.optimize("demo")
    anywhere.add("demo", TEXTS)
    before = anywhere.query("demo", "zebras", limit=3)
    anywhere.optimize("demo", progress=False)
    assert same(anywhere.query("demo", "zebras", limit=3), before)
    assert anywhere.count("demo").count == 3
    with pytest.raises(InputError, match="progress must be"):
        anywhere.optimize("demo", progress="yes")  # type: ignore[arg-type]


def test_a_large_collection_is_indexed_in_the_background(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(database, "FLAT_AT_REST", 1000)
    monkeypatch.setattr(database, "FLUSH_EVERY", 0.05)
    caplog.set_level("INFO", "qdrant_embed")
    with opened("sync", path=str(tmp_path / "db")) as client:
        client.set_model(LetterEncoder())
        client.add("demo", [f"cat {number}" for number in range(100)])
        for _ in range(600):
            if "the index is in use" in caplog.text:
                break
            time.sleep(0.05)
        assert "building an index of 100 points in the background" in caplog.text
        assert "the index is in use" in caplog.text
        assert client.count("demo").count == 100
    caplog.clear()
    with opened("sync", path=str(tmp_path / "other"), optimize=False) as client:
        client.set_model(LetterEncoder())
        client.add("demo", [f"cat {number}" for number in range(100)])
        time.sleep(0.3)
    assert "index" not in caplog.text


def test_an_index_is_due_again_once_its_points_were_stored_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "FLAT", 300)
    client = QdrantClient(path=str(tmp_path), optimize=False)
    params = models.VectorParams(size=3, distance=models.Distance.DOT)
    client.create_collection("demo", params)
    points = [models.PointStruct(id=each, vector=[1.0, 2.0, each / 7]) for each in range(100)]
    due = []
    for _ in range(2):
        client.upsert("demo", points)
        due.append(embedded.is_index_due(client, "demo"))
        client.optimize("demo")
        due.append(embedded.is_index_due(client, "demo"))
    client.upsert("demo", points[:50])
    due.append(embedded.is_index_due(client, "demo"))
    client.close()
    assert due == [True, False, True, False, False]


def test_what_changes_after_a_rest_is_flushed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that flushes ends when nothing changes; the next change begins another."""
    monkeypatch.setattr(database, "FLUSH_EVERY", 0.01)

    def flushing() -> bool:
        return any(thread.name == "qdrant-embed-flush" for thread in threading.enumerate())

    def becomes(expected: bool) -> bool:
        deadline = time.monotonic() + 30
        while flushing() != expected and time.monotonic() < deadline:
            time.sleep(0.002)
        return flushing() == expected

    with opened("sync", path=str(tmp_path)) as client:
        client.set_model(LetterEncoder())
        for number in range(3):
            client.add("demo", [f"cat {number}"])
            assert flushing()
            assert becomes(False)
    assert not flushing()


def test_a_server_whose_optimisation_failed_says_so(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened("sync", **at(server)) as client:
        client.set_model(LetterEncoder())
        client.add("demo", TEXTS)
        get = client.get_collection
        left = [models.CollectionStatus.YELLOW, models.CollectionStatus.GREY]

        def status(name: str) -> models.CollectionInfo:
            found = get(name)
            found.status = left.pop(0) if left else models.CollectionStatus.RED
            return found

        monkeypatch.setattr(client, "get_collection", status)
        with pytest.raises(ValueError, match="an optimisation has failed"):
            client.optimize("demo")
        assert not left
