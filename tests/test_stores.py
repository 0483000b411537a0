"""The benchmark of stores measures what it says: recall, turns, and what another process opens."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import stores
from stores import Found, Vectors, Worker

SIZE = 120


@pytest.fixture
def vectors(tmp_path: Path) -> Vectors:
    rows = np.random.default_rng(0).standard_normal((SIZE + 20, stores.DIMENSION), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    file = tmp_path / "some.f32"
    rows[:SIZE].tofile(file)
    np.save(file.with_suffix(".npy"), rows[SIZE:])
    return Vectors.read(file)


def nearest(vectors: Vectors, group: int | None = None) -> list[list[int]]:
    scores = vectors.questions @ vectors.rows(0, vectors.size).T
    if group is not None:
        scores[:, np.arange(vectors.size) % stores.GROUPS != group] = -2
    found: list[list[int]] = np.argsort(-scores, axis=1)[:, : stores.NEAREST].tolist()
    return found


@pytest.mark.parametrize("block", [SIZE, 7])
def test_recall_is_the_share_of_the_nearest(
    vectors: Vectors, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(stores, "BLOCK", block)
    exact = nearest(vectors)
    others = [[each for each in range(SIZE) if each not in found][:3] for found in exact]
    assert vectors.recall(exact) == 1
    assert vectors.recall(exact[:5]) == 1
    assert vectors.recall([[*a[:7], *b] for a, b in zip(exact, others, strict=True)]) == 0.7
    assert vectors.recall([[a[0]] * 10 for a in exact]) == 0.1  # one found often is found once
    assert vectors.recall([[] for _ in exact]) == 0


def test_recall_in_a_group_counts_no_others(vectors: Vectors) -> None:
    in_group = nearest(vectors, stores.GROUP)
    members = len(
        range(stores.GROUP, SIZE, stores.GROUPS)
    )  # fewer than the nearest that are asked for
    assert vectors.recall([found[:members] for found in in_group], stores.GROUP) == 1
    assert vectors.recall(nearest(vectors), stores.GROUP) < 0.5


@pytest.mark.skipif(sys.platform == "win32", reason="memory is read from /proc")
@pytest.mark.filterwarnings("ignore:Payload indexes have no effect")
@pytest.mark.parametrize("store", ["edge", "int8", "local", "memory"])
def test_a_store_is_filled_in_turns_and_opened_by_another_worker(
    vectors: Vectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    monkeypatch.setattr(stores, "TURN", 80)
    worker = Worker(store, str(vectors.file), str(tmp_path))
    worker.open()
    worker.create()
    assert [worker.fill(60)[0] for _ in range(3)] == [80, 40, 0]
    worker.index()
    if store != "memory":
        worker.close()
        worker = Worker(store, str(vectors.file), str(tmp_path))
        worker.open()
        assert worker.first() > 0
    seconds, found = worker.ask(None)
    assert len(seconds) == len(found) == len(vectors.questions)
    assert vectors.recall(found) > 0.9
    assert vectors.recall(worker.ask(stores.GROUP)[1], stores.GROUP) == 1
    worker.close()


@pytest.mark.skipif(sys.platform == "win32", reason="memory is read from /proc")
@pytest.mark.filterwarnings("ignore:Payload indexes have no effect")
def test_a_store_without_time_left_stops(vectors: Vectors, tmp_path: Path) -> None:
    worker = Worker("memory", str(vectors.file), str(tmp_path))
    worker.open()
    worker.create()
    assert worker.fill(0)[0] == 0
    worker.close()


def test_limits_are_those_of_stores_that_were_measured() -> None:
    edge = Found(rates=[900, 1000], asked=[[0.001]], filtered=[[0.001]], recall=1.0)
    chroma = Found(rates=[100, 50], asked=[[0.004]], filtered=[[0.003]], recall=1.0)
    gave_up = Found(rates=[10])
    twenty = list(stores.limits(stores.MANY, {"edge": edge, "chroma": chroma, "local": gave_up}))
    assert [(figure.value, figure.is_kept) for figure in twenty] == [(14.5, True), (90, True)]
    hundred = stores.limits(stores.INDEXED, {"edge": edge, "chroma": chroma, "memory": gave_up})
    assert [(figure.value, figure.is_kept) for figure in hundred] == [
        (1, True),
        (4, True),
        (3, False),
    ]
    assert list(stores.limits(stores.INDEXED, {"chroma": chroma})) == []
    assert list(gave_up.cells().values())[2:] == [None] * 10
