"""Single texts: the faster of two ways, found by measuring, and who computes when several wait."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny import TinyModel

from qdrant_embed import ModelError, ModelFileError, TextEmbedding
from qdrant_embed.encoder.run import loaded_model, session, single_text
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


def test_one_core_is_tried_less_often_than_two(clock: Clock) -> None:
    tries = []
    for seconds in (0.001, 0.004):
        one, two = TimedBackend(clock, 0.002), TimedBackend(clock, seconds)
        backend = SingleTextBackend(one, lambda two=two: two)  # type: ignore[misc] # of this round
        for _ in range(20):
            backend.run(TOKENS)
        slower = one if seconds < 0.002 else two
        before = slower.runs
        for _ in range(960):
            backend.run(TOKENS)
        tries.append(slower.runs - before)
    assert tries == [12, 90]


def test_a_first_guess_from_a_few_slow_texts_is_soon_revised(clock: Clock) -> None:
    one, two = TimedBackend(clock, 0.009), TimedBackend(clock, 0.002)
    backend = SingleTextBackend(one, lambda: two)
    for _ in range(4):
        backend.run(TOKENS)
    one.seconds = 0.001
    for _ in range(196):
        backend.run(TOKENS)
    before = two.runs
    for _ in range(128):
        backend.run(TOKENS)
    assert two.runs - before == 12


def test_a_graph_that_is_loaded_for_a_long_text_is_not_thought_slow(clock: Clock) -> None:
    class LoadsForLong(TimedBackend):
        def run(self, inputs: Inputs) -> np.ndarray:
            is_first = inputs.ids.size >= 128 and self.seconds == 0.001
            self.seconds = 9.0 if is_first else 0.0011
            return super().run(inputs)

    two = LoadsForLong(clock, 0.001)
    backend = SingleTextBackend(TimedBackend(clock, 0.002), lambda: two)
    for _ in range(5):
        backend.run(TOKENS)
    two.seconds = 0.001
    for tokens in (128, *[5] * 20):
        backend.run(Inputs(np.ones((1, tokens), np.int64)))
    assert two.runs == 22


def test_texts_run_on_one_core_if_no_other_session_starts(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    tried: list[int] = []

    def start() -> TimedBackend:
        tried.append(1)
        raise ModelFileError("the file is gone")

    one = TimedBackend(clock)
    backend = SingleTextBackend(one, start)
    for _ in range(20):
        assert backend.run(TOKENS).shape == (1, 2)
    assert (one.runs, len(tried)) == (20, 1)
    assert caplog.text.count("a text runs on one core") == 1


def test_texts_run_on_one_core_if_the_other_session_cannot_go_on(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    class Gone(TimedBackend):
        def run(self, inputs: Inputs) -> np.ndarray:
            if inputs.ids.size >= 128:
                self.runs += 1
                raise ModelFileError("the file is gone")
            return super().run(inputs)

    one, two = TimedBackend(clock, 0.002), Gone(clock, 0.001)
    backend = SingleTextBackend(one, lambda: two)
    for _ in range(10):
        backend.run(TOKENS)
    before = two.runs
    for _ in range(10):
        assert backend.run(Inputs(np.ones((1, 200), np.int64))).shape == (1, 2)
    assert two.runs == before + 1
    assert caplog.text.count("a text runs on one core") == 1


def test_a_model_whose_compiled_files_are_gone_answers_on(
    tiny: TinyModel,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loaded_model, "usable_cores", lambda: 2)
    encoder = TextEmbedding(tiny.path, cache_dir=tmp_path)
    [before] = encoder.query_embed("cat")
    shutil.rmtree(tmp_path / "compiled")
    for _ in range(10):
        np.testing.assert_allclose(next(encoder.query_embed("cat")), before, atol=1e-6)
    assert caplog.text.count("a text runs on one core") == 1


@pytest.mark.parametrize(("limit", "dimensions"), [(None, None), (None, 128), (0, None)])
def test_queries_run_on_the_graph_of_short_texts_if_the_model_is_small(
    limit: int | None,
    dimensions: int | None,
    minilm: TextEmbedding,
    started: list[bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loaded_model, "usable_cores", lambda: 2)
    if limit is not None:
        monkeypatch.setattr(loaded_model, "_THRICE_IN_MEMORY", limit)
    encoder = TextEmbedding(minilm.model_name, dimensions=dimensions)
    texts = ["which ship sailed first?"] * 8
    expected = list(encoder.embed(texts))
    for vector in expected:
        found = next(encoder.query_embed(texts[0]))
        np.testing.assert_allclose(found, vector, atol=1e-6)
    assert started == [False, limit is None and session._FINDS_CONSTANTS]


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


@pytest.mark.parametrize(("single", "spread"), [(0.003, 0.002), (0.002, 0.003)])
def test_disturbances_now_and_then_do_not_change_the_way(
    clock: Clock, single: float, spread: float
) -> None:
    class Disturbed(TimedBackend):
        def run(self, inputs: Inputs) -> np.ndarray:
            before = clock.now
            found = super().run(inputs)
            if self.runs % 5 == 0:
                clock.now = before + 10 * self.seconds
            return found

    one, two = Disturbed(clock, single), Disturbed(clock, spread)
    backend = SingleTextBackend(one, lambda: two)
    for _ in range(320):
        backend.run(TOKENS)
    slower = one if spread < single else two
    assert slower.runs < 50  # the tries, and what came before the first of them


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
    backend = SingleTextBackend(one, lambda: two, cores=2)
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


def text(*ids: int) -> Inputs:
    return Inputs(np.array([ids], np.int64))


class Sums:
    """A backend that returns the sum of each text's ids, and notes what runs together.

    Args:
        gate: each run waits for it.
        bad: an id that no run survives.
        error: what is raised then.
    """

    def __init__(
        self,
        gate: threading.Event | None = None,
        bad: int | None = None,
        error: type[BaseException] = ModelError,
    ) -> None:
        self.gate, self.bad, self.error = gate, bad, error
        self.batches: list[list[list[int]]] = []
        self.running = self.most = 0
        self.lock = threading.Lock()

    def run(self, inputs: Inputs) -> np.ndarray:
        with self.lock:
            self.batches.append(inputs.ids.tolist())
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            assert self.gate is None or self.gate.wait(60)
            if self.bad in inputs.ids:
                raise self.error("a bad text")
            outputs: NDArray[np.float32] = inputs.ids.sum(axis=1, keepdims=True).astype(np.float32)
            return outputs
        finally:
            with self.lock:
                self.running -= 1


def waits(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def asked_in_order(
    pool: ThreadPoolExecutor, backend: SingleTextBackend, texts: list[Inputs]
) -> list[Future[np.ndarray]]:
    """Run the first text on the only core, and have the others wait in this order."""
    turns = backend._turns

    def is_known(number: int) -> bool:
        return bool(turns.threads) and len(turns._waiting) == number

    found = []
    for number, inputs in enumerate(texts):
        found.append(pool.submit(backend.run, inputs))
        waits(partial(is_known, number))
    return found


def test_texts_of_one_length_that_wait_are_one_batch() -> None:
    gate = threading.Event()
    sums = Sums(gate)
    backend = SingleTextBackend(sums, None, cores=1)
    texts = [text(1), text(2, 3), text(4), text(5, 6), text(7, 8, 9), text(10, 11)]
    with ThreadPoolExecutor(len(texts)) as pool:
        found = asked_in_order(pool, backend, texts)
        gate.set()
        assert [float(future.result(60)[0, 0]) for future in found] == [1, 5, 4, 11, 24, 21]
    assert sums.batches == [[[1]], [[2, 3], [5, 6], [10, 11]], [[4]], [[7, 8, 9]]]


def test_texts_read_in_other_ways_are_no_batch() -> None:
    gate = threading.Event()
    sums = Sums(gate)
    backend = SingleTextBackend(sums, None, cores=1)
    types = np.zeros((1, 2), np.int64)
    ids = [np.array([[n, n]], np.int64) for n in range(7)]
    texts = [
        Inputs(ids[0]),
        Inputs(ids[1]),
        Inputs(ids[2], types),
        Inputs(ids[3], None, 1),
        Inputs(ids[4]),
        Inputs(ids[5], types),
        Inputs(ids[6], None, 2),
    ]
    with ThreadPoolExecutor(len(texts)) as pool:
        found = asked_in_order(pool, backend, texts)
        gate.set()
        assert [float(future.result(60)[0, 0]) for future in found] == [0, 2, 4, 6, 8, 10, 12]
    assert [[row[0] for row in batch] for batch in sums.batches] == [[0], [1, 4], [2, 5], [3], [6]]


def test_a_batch_has_no_more_tokens_than_one_of_many_texts() -> None:
    gate = threading.Event()
    sums = Sums(gate)
    backend = SingleTextBackend(sums, None, cores=1)
    texts = [text(1), *(text(*[n] * 200) for n in range(5))]
    with ThreadPoolExecutor(len(texts)) as pool:
        found = asked_in_order(pool, backend, texts)
        gate.set()
        assert [float(future.result(60)[0, 0]) for future in found] == [1, 0, 200, 400, 600, 800]
    assert [len(batch) for batch in sums.batches] == [1, 2, 2, 1]


def test_only_the_text_that_cannot_be_run_fails() -> None:
    gate = threading.Event()
    backend = SingleTextBackend(Sums(gate, bad=13), None, cores=1)
    with ThreadPoolExecutor(4) as pool:
        found = asked_in_order(pool, backend, [text(1), text(2), text(13), text(3)])
        gate.set()
        assert [float(found[n].result(60)[0, 0]) for n in (0, 1, 3)] == [1, 2, 3]
        with pytest.raises(ModelError, match="a bad text"):
            found[2].result(60)
    assert not backend._turns.threads


@pytest.mark.parametrize("bad", [1, 2])
def test_a_thread_that_is_interrupted_leaves_its_core_and_others_to_the_rest(bad: int) -> None:
    gate = threading.Event()
    sums = Sums(gate, bad=bad, error=KeyboardInterrupt)
    backend = SingleTextBackend(sums, None, cores=1)
    with ThreadPoolExecutor(5) as pool:
        found = asked_in_order(pool, backend, [text(n) for n in (1, 2, 3, 4)])
        gate.set()
        errors = [future.exception(60) for future in found]
        assert isinstance(errors[bad - 1], KeyboardInterrupt)
        assert [float(found[n].result()[0, 0]) for n in (2, 3)] == [3, 4]
        assert not backend._turns.threads
        assert not backend._turns._waiting
        sums.bad = None
        assert float(pool.submit(backend.run, text(7)).result(60)[0, 0]) == 7


def check_first_alone_is_interrupted(gate: threading.Event, backend: SingleTextBackend) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = asked_in_order(pool, backend, [text(n) for n in (1, 2, 3, 4)])
        gate.set()
        assert isinstance(found[0].exception(60), KeyboardInterrupt)
        assert [float(future.result(60)[0, 0]) for future in found[1:]] == [2, 3, 4]
    assert not backend._turns.threads
    assert not backend._turns._waiting


@pytest.mark.parametrize("is_taken", [False, True])
def test_an_interrupt_while_texts_are_taken_leaves_none_waiting(
    is_taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    backend = SingleTextBackend(Sums(gate), None, cores=1)
    interrupts = [1]

    def interrupted(turns: Any, name: str, value: object) -> None:
        if name == "_waiting" and interrupts:
            interrupts.pop()
            if is_taken:
                object.__setattr__(turns, name, value)
            raise KeyboardInterrupt
        object.__setattr__(turns, name, value)

    monkeypatch.setattr(single_text._Turns, "__setattr__", interrupted)
    check_first_alone_is_interrupted(gate, backend)


def test_an_interrupt_after_a_thread_was_woken_leaves_none_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = threading.Event()
    backend = SingleTextBackend(Sums(gate), None, cores=1)
    wake, woken = single_text._Request.wake, []

    def interrupted(request: Any) -> None:
        wake(request)
        woken.append(request)
        if len(woken) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(single_text._Request, "wake", interrupted)
    check_first_alone_is_interrupted(gate, backend)


def test_a_thread_does_not_compute_for_others_for_ever() -> None:
    count = 3 * single_text._FOR_OTHERS
    gate = threading.Event()
    sums = Sums(gate)
    backend = SingleTextBackend(sums, None, cores=1)
    threads: list[int] = []
    run = sums.run

    def noted(inputs: Inputs) -> np.ndarray:
        outputs = run(inputs)
        threads.append(threading.get_ident())
        return outputs

    sums.run = noted  # type: ignore[method-assign]
    with ThreadPoolExecutor(count) as pool:
        texts = [text(*range(n + 1)) for n in range(count)]  # each of another length
        found = asked_in_order(pool, backend, texts)
        gate.set()
        for future in found:
            future.result(60)
    assert max(map(threads.count, threads)) == single_text._FOR_OTHERS + 1


@pytest.mark.parametrize("cores", [1, 2, 3])
def test_no_more_threads_compute_than_there_are_cores(cores: int) -> None:
    sums = Sums()
    backend = SingleTextBackend(sums, lambda: sums, cores=cores)
    with ThreadPoolExecutor(16) as pool:
        texts = [text(*[n] * (n % 7 + 1)) for n in range(400)]
        found = list(pool.map(backend.run, texts))
    assert [row[0, 0] for row in found] == [n * (n % 7 + 1) for n in range(400)]
    assert 1 <= sums.most <= cores


@settings(max_examples=30, deadline=None)
@given(
    texts=st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=4), min_size=1, max_size=40),
    cores=st.integers(1, 3),
    threads=st.integers(1, 12),
)
def test_each_thread_gets_the_outputs_of_its_own_text(
    texts: list[list[int]], cores: int, threads: int
) -> None:
    backend = SingleTextBackend(Sums(bad=13), None, cores=cores)

    def asked(ids: list[int]) -> float | None:
        try:
            return float(backend.run(text(*ids))[0, 0])
        except ModelError:
            return None

    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(asked, texts))
    assert found == [None if 13 in ids else sum(ids) for ids in texts]
    assert not backend._turns.threads
    assert not backend._turns._waiting


def test_a_text_asked_while_its_thread_computes_does_not_wait_for_itself() -> None:
    class Interrupted(Sums):
        def run(self, inputs: Inputs) -> np.ndarray:
            if inputs.ids.size > 1:  # as a signal handler does that queries, too
                backend.run(text(5))
            return super().run(inputs)

    backend = SingleTextBackend(Interrupted(), None, cores=1)
    with ThreadPoolExecutor(1) as pool:
        assert float(pool.submit(backend.run, text(1, 2)).result(60)[0, 0]) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_does_not_wait_for_threads_of_its_parent() -> None:
    system: Any = os  # whose types lack forks on Windows
    gate = threading.Event()
    backend = SingleTextBackend(Sums(gate), None, cores=1)
    with ThreadPoolExecutor(2) as pool:
        found = asked_in_order(pool, backend, [text(1), text(2)])
        child = system.fork()
        if child == 0:
            backend._single = Sums()
            is_right = float(backend.run(text(4))[0, 0]) == 4
            os._exit(0 if is_right else 1)
        gate.set()
        assert [float(future.result(60)[0, 0]) for future in found] == [1, 2]
    deadline = time.monotonic() + 60
    while not (ended := system.waitpid(child, system.WNOHANG))[0]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert ended[1] == 0


def test_vectors_are_the_same_from_many_threads(minilm: TextEmbedding) -> None:
    texts = [f"which ship{' sailed far' * (n % 7)} to port {n}" for n in range(70)]
    alone = [next(minilm.query_embed(asked)) for asked in texts]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda asked: next(minilm.query_embed(asked)), texts))
    np.testing.assert_allclose(found, alone, atol=1e-6)
