"""Single texts: the faster of two ways, found by measuring, and one core each when several run."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from qdrant_embed import TextEmbedding
from qdrant_embed.encoder.run import single_text
from qdrant_embed.encoder.run.backend import Inputs
from qdrant_embed.encoder.run.single_text import SingleTextBackend
from qdrant_embed.encoder.text import variant


class Clock:
    """What the backend measures with: goes on only when told."""

    now = 0.0


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(single_text, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


class TimedBackend:
    """A backend that takes as long as it is told, and counts."""

    def __init__(self, clock: Clock, seconds: float = 0) -> None:
        self.clock = clock
        self.seconds = seconds
        self.runs = 0

    def run(self, inputs: Inputs) -> np.ndarray:
        self.runs += 1
        self.clock.now += self.seconds
        return np.ones((1, 2), np.float32)


class HeldBackend(TimedBackend):
    """A backend whose run ends when it is let go."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.running, self.let_go = threading.Event(), threading.Event()

    def run(self, inputs: Inputs) -> np.ndarray:
        self.running.set()
        assert self.let_go.wait(60)
        return super().run(inputs)


TOKENS = Inputs(np.ones((1, 5), np.int64))


@pytest.mark.parametrize(("single", "spread"), [(0.004, 0.001), (0.001, 0.004)])
def test_the_faster_way_is_taken_and_the_other_tried_now_and_then(
    clock: Clock, single: float, spread: float
) -> None:
    one, two = TimedBackend(clock, single), TimedBackend(clock, spread)
    backend = SingleTextBackend(one, lambda: two)
    for _ in range(64):
        backend.run(TOKENS)
    faster, slower = (two, one) if spread < single else (one, two)
    assert faster.runs >= 50
    assert slower.runs >= 3
    one.seconds, two.seconds = two.seconds, one.seconds
    before = slower.runs
    for _ in range(200):
        backend.run(TOKENS)
    assert slower.runs - before > 100  # what was slower is faster now, and found to be


def test_threads_that_have_to_be_woken_first_are_not_thought_slow(clock: Clock) -> None:
    ran: list[str] = []

    class Woken(TimedBackend):
        def run(self, inputs: Inputs) -> np.ndarray:
            self.seconds = 0.001 if ran[-1:] == ["spread"] else 0.01
            ran.append("spread")
            return super().run(inputs)

    class Single(TimedBackend):
        def run(self, inputs: Inputs) -> np.ndarray:
            ran.append("single")
            return super().run(inputs)

    backend = SingleTextBackend(Single(clock, 0.003), lambda: Woken(clock))
    for _ in range(100):
        backend.run(TOKENS)
    assert ran.count("spread") > 80


def test_runs_that_fail_are_not_measured(clock: Clock) -> None:
    class Failing(TimedBackend):
        def run(self, inputs: Inputs) -> np.ndarray:
            self.runs += 1
            if self.runs < 10:
                raise ZeroDivisionError
            return super().run(inputs)

    backend = SingleTextBackend(Failing(clock, 0.001), lambda: TimedBackend(clock, 0.002))
    for _ in range(9):
        with pytest.raises(ZeroDivisionError):
            backend.run(TOKENS)
    for _ in range(40):
        assert backend.run(TOKENS).shape == (1, 2)


def test_few_texts_start_no_second_session(clock: Clock) -> None:
    started: list[int] = []

    def start() -> TimedBackend:
        started.append(1)
        return TimedBackend(clock)

    backend = SingleTextBackend(TimedBackend(clock), start)
    for _ in range(4):
        backend.run(TOKENS)
    assert not started
    backend.run(TOKENS)
    assert len(started) == 1


def test_texts_at_the_same_time_use_one_core_each(clock: Clock) -> None:
    one, two = TimedBackend(clock), HeldBackend(clock)
    backend = SingleTextBackend(one, lambda: two)
    for _ in range(4):
        backend.run(TOKENS)
    slow = threading.Thread(target=backend.run, args=(TOKENS,))
    slow.start()
    assert two.running.wait(60)
    backend.run(TOKENS)
    two.let_go.set()
    slow.join()
    assert (one.runs, two.runs) == (5, 1)


def test_both_ways_give_the_same_vectors(minilm: TextEmbedding) -> None:
    texts = [f"which ship sailed to port {n}?" for n in range(20)]
    single = variant(minilm, threads=1)
    for text in texts:
        np.testing.assert_allclose(next(minilm.embed(text)), next(single.embed(text)), atol=1e-6)
