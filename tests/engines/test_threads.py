"""Threads that share one client."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clients import same
from tiny import TinyModel

from qdrant_embed import QdrantClient

WORDS = ["cat", "dog", "ship", "storm", "paris", "market", "player", "goal"]


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Runs `work` so many times at once; what one of them raises is raised here."""
    failures: list[BaseException] = []
    start = threading.Barrier(count)

    def worker(number: int) -> None:
        start.wait()
        try:
            work(number)
        except BaseException as error:  # whatever a thread raises must fail the test
            failures.append(error)

    workers = [threading.Thread(target=worker, args=(number,)) for number in range(count)]
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join()
    if failures:
        raise failures[0]


@pytest.mark.slow
@pytest.mark.parametrize("place", ["memory", "local", "edge"])
def test_threads_may_add_and_query_at_once(tiny: TinyModel, tmp_path: Path, place: str) -> None:
    """A local database without a lock loses points, or breaks off, under this."""
    if place == "memory":
        client = QdrantClient(":memory:")
    else:
        client = QdrantClient(path=str(tmp_path), engine=place)
    client.set_model(tiny.path)
    client.set_sparse_model("Qdrant/bm25")
    ids: dict[int, list[str | int]] = {}

    def work(number: int) -> None:
        for _ in range(4):
            texts = [f"{WORDS[number]} {n}" for n in range(20)]
            ids[number] = ids.get(number, []) + client.add("demo", texts, batch_size=7)
            (best, *_) = client.query("demo", texts[3], limit=3)
            assert best.document.split()[0] in WORDS

    in_threads(8, work)
    every = [i for own in ids.values() for i in own]
    assert len(set(every)) == client.count("demo").count == 8 * 4 * 20
    for number, word in enumerate(WORDS):
        documents = {(r.payload or {})["document"] for r in client.retrieve("demo", ids[number])}
        assert documents == {f"{word} {n}" for n in range(20)}
    client.close()


def test_parallel_is_threads_over_one_model_and_one_upload(tiny: TinyModel) -> None:
    uploading: set[str] = set()

    class Watched(QdrantClient):
        def upsert(self, *args: Any, **kwargs: Any) -> Any:
            assert not multiprocessing.active_children()
            uploading.add(threading.current_thread().name)
            return super().upsert(*args, **kwargs)

    client = Watched(":memory:")
    client.set_model(tiny.path)
    texts = [f"{word} {n}" for n in range(30) for word in WORDS]
    for name, parallel in (("default", None), ("two", 2), ("all", 0)):
        client.add(name, texts, ids=range(len(texts)), parallel=parallel)
    assert uploading == {threading.current_thread().name}
    expected = client.query("default", "cat", limit=240, with_vectors=True)
    for name in ("two", "all"):
        found = client.query(name, "cat", limit=240, with_vectors=True)
        assert [hit.embedding for hit in found] == [hit.embedding for hit in expected]


@pytest.mark.slow
def test_answers_to_threads_equal_the_serial_ones(tiny: TinyModel) -> None:
    client = QdrantClient(":memory:")
    client.set_model(tiny.path)
    client.set_sparse_model("Qdrant/bm25")
    texts = [f"{word} {n}" for n in range(10) for word in WORDS]
    client.add("demo", texts)
    serial = {text: client.query("demo", text, limit=3) for text in texts}

    def work(number: int) -> None:
        for text in texts[number:] + texts[:number]:
            assert same(client.query("demo", text, limit=3), serial[text])

    in_threads(8, work)
