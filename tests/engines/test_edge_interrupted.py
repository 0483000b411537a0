"""An embedded database that is interrupted, or whose disk fails: it goes on, and all is there."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from qdrant_client import models

from qdrant_embed import FolderError, QdrantClient

pytest.importorskip("qdrant_edge")

from qdrant_embed.engines.edge import database, folder, shard

FILES = (folder.__file__, shard.__file__, shutil.__file__)
FUNCTIONS = ("_exchange", "_told", "_write", "change", "create", "discard", "rmtree", "sync_folder")
PARAMS = models.VectorParams(size=2, distance=models.Distance.DOT)


@contextmanager
def interrupted(at: int) -> Iterator[list[int]]:
    """Raise a ``KeyboardInterrupt`` where a function begins or ends; yield the places passed.

    Args:
        at: the number of the place.
    """
    places = [0]

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in FILES or frame.f_code.co_name not in FUNCTIONS:
            return None
        frame.f_trace_lines = False
        if event in ("call", "return"):
            places[0] += 1
            if places[0] == at:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with suppress(KeyboardInterrupt):
            yield places
    finally:
        sys.settrace(before)


def store(client: QdrantClient, *ids: int) -> None:
    client.upsert("demo", [models.PointStruct(id=each, vector=[1.0, each]) for each in ids])


def ids(client: QdrantClient, name: str = "demo") -> set[Any]:
    return {point.id for point in client.scroll(name, limit=100)[0]}


def interrupted_everywhere(path: Path, work: Callable[[QdrantClient], object]) -> None:
    """Interrupt some work at each of its places, and check that nothing is lost then."""
    at, places, stored = 0, [0], {0}
    with closing(QdrantClient(path=str(path), optimize=False)) as client:
        client.create_collection("demo", PARAMS)
        store(client, 0)
    while places[0] == at:  # it was interrupted
        at += 1
        client = QdrantClient(path=str(path), optimize=False)
        assert ids(client) == stored
        with interrupted(at) as places:
            work(client)
        gc.collect(1)  # what the traceback held
        assert ids(client) == stored, at
        store(client, at % 90)
        stored |= {at % 90}
        client.close()
        with closing(QdrantClient(path=str(path), optimize=False)) as client:
            assert ids(client) == stored, at
            for name in client.get_collections().collections:
                ids(client, name.name)
    assert at > 10


@pytest.mark.slow
def test_interrupted_while_an_index_is_put_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard.Shard, "_built", lambda *_: None)
    interrupted_everywhere(tmp_path, lambda client: client.optimize("demo"))


@pytest.mark.slow
def test_interrupted_while_a_collection_is_created(tmp_path: Path) -> None:
    def create(client: QdrantClient) -> None:
        client.delete_collection("new")
        client.create_collection("new", PARAMS)

    interrupted_everywhere(tmp_path, create)


def test_a_disk_that_fails_once_the_manifest_is_written_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(path: Path) -> None:
        raise OSError(5, "Input/output error")

    with closing(QdrantClient(path=str(tmp_path), optimize=False)) as client:
        client.create_collection("demo", PARAMS)
        store(client, 1, 2)
        with monkeypatch.context() as patch:
            patch.setattr(folder, "sync_folder", failing)
            with pytest.raises(FolderError, match="Input/output error"):
                client.optimize("demo")
            with pytest.raises(FolderError, match="Input/output error"):
                client.create_collection("other", PARAMS)
    with closing(QdrantClient(path=str(tmp_path))) as client:
        assert ids(client) == {1, 2}
        assert not client.collection_exists("other")


def test_a_log_whose_files_are_renamed_is_kept_by_the_disk_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(QdrantClient(path=str(tmp_path), optimize=False)) as client:
        client.create_collection("demo", PARAMS)
        store(client, 1, 2)
        (log,) = tmp_path.glob("collections/*/wal")
        inner, was_renamed, kept = os.fsync, [False], set()

        def renaming(handle: int) -> None:
            inner(handle)
            kept.add(os.fstat(handle).st_ino)
            if not was_renamed[0]:
                was_renamed[0] = True
                for file in log.iterdir():
                    file.rename(file.with_name(file.name + ".renamed"))

        wanted = {file.stat().st_ino for file in log.iterdir()}
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", renaming)
            client._client.flush("demo")  # type: ignore[attr-defined] # of the embedded engine
        assert wanted <= kept
        for file in log.iterdir():
            file.rename(file.with_suffix(""))


def test_what_fails_in_a_thread_is_not_done_again_on_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def failing(*_: Any) -> None:
        threads.append(threading.current_thread())
        raise RecursionError

    async def asked() -> None:
        opened = database.AsyncEdgeDatabase(database.EdgeDatabase(tmp_path))
        with pytest.raises(RecursionError):
            await opened.upsert("demo", [])
        await opened.close()

    monkeypatch.setattr(database.EdgeDatabase, "upsert", failing)
    asyncio.run(asked())
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()
