"""Single texts: the faster of two ways, found by measuring, and one core each when several run."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from qdrant_embed import TextEmbedding
from qdrant_embed.encoder.query import QueryRunner


class TimedSession:
    """A session that takes as long as it is told, and counts."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.runs = 0

    def run(self, token_ids: np.ndarray) -> np.ndarray:
        self.runs += 1
        time.sleep(self.seconds)
        return np.ones((1, 2), np.float32)


TOKENS = np.ones((1, 5), np.int64)


@pytest.mark.parametrize(("single", "spread"), [(0.004, 0.001), (0.001, 0.004)])
def test_the_faster_way_is_taken_and_the_other_tried_now_and_then(
    single: float, spread: float
) -> None:
    one, two = TimedSession(single), TimedSession(spread)
    runner = QueryRunner(one, lambda: two)
    for _ in range(64):
        runner.run(TOKENS)
    faster, slower = (two, one) if spread < single else (one, two)
    assert faster.runs >= 50
    assert slower.runs >= 3
    one.seconds, two.seconds = two.seconds, one.seconds
    before = slower.runs
    for _ in range(200):
        runner.run(TOKENS)
    assert slower.runs - before > 100  # what was slower is faster now, and found to be


def test_threads_that_have_to_be_woken_first_are_not_thought_slow() -> None:
    ran: list[str] = []

    class Woken(TimedSession):
        def run(self, token_ids: np.ndarray) -> np.ndarray:
            self.seconds = 0.001 if ran[-1:] == ["spread"] else 0.01
            ran.append("spread")
            return super().run(token_ids)

    class Single(TimedSession):
        def run(self, token_ids: np.ndarray) -> np.ndarray:
            ran.append("single")
            return super().run(token_ids)

    runner = QueryRunner(Single(0.003), lambda: Woken(0))
    for _ in range(100):
        runner.run(TOKENS)
    assert ran.count("spread") > 80


def test_few_texts_start_no_second_session() -> None:
    started: list[int] = []

    def start() -> TimedSession:
        started.append(1)
        return TimedSession(0)

    runner = QueryRunner(TimedSession(0), start)
    for _ in range(4):
        runner.run(TOKENS)
    assert not started
    runner.run(TOKENS)
    assert len(started) == 1


def test_texts_at_the_same_time_use_one_core_each() -> None:
    one, two = TimedSession(0), TimedSession(0.2)
    runner = QueryRunner(one, lambda: two)
    for _ in range(4):
        runner.run(TOKENS)
    slow = threading.Thread(target=runner.run, args=(TOKENS,))
    slow.start()
    time.sleep(0.05)
    runner.run(TOKENS)
    slow.join()
    assert (one.runs, two.runs) == (5, 1)


def test_both_ways_give_the_same_vectors(minilm: TextEmbedding) -> None:
    texts = [f"which ship sailed to port {n}?" for n in range(20)]
    single = minilm.variant(threads=1)
    for text in texts:
        np.testing.assert_allclose(next(minilm.embed(text)), next(single.embed(text)), atol=1e-6)
