"""One text at a time, as fast as the machine currently allows, for any number of threads."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.encoder.run.backend import Backend, Inputs
from qdrant_embed.encoder.run.batching import LONG_TEXT, texts_per_batch
from qdrant_embed.encoder.run.cores import usable_cores
from qdrant_embed.errors import ModelError, ModelFileError
from qdrant_embed.forks import on_fork

logger = logging.getLogger(__name__)

_ALONE_FIRST = 4  # texts before a second session is worth its start
_TRY_OTHER_EVERY = 32
_TRY_ONE_CORE_EVERY = 512  # once it is known; where two become slower, that is seen without it
_TRIED_TEXTS = 3  # in a row
_REMEMBERED = 9  # measurements, of which the middle one counts: a few disturbances do not
_COMPARE_EVERY = 4  # texts
_FOR_OTHERS = 4  # batches that a thread computes before it hands its core on, which idles then


def _asleep() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


@dataclass(eq=False, slots=True)
class _Request:
    """A text that its thread waits for.

    Attributes:
        inputs: the text.
        thread: waits for it.
        woken: held until the text is computed, or its thread has a core; ``None`` for a thread
            that has had one from the start.
        batch: what its thread has to compute next; ``None`` unless that thread has a core.
        alone: no other thread has a core.
        outputs: float32 [1, ...], once they are computed.
    """

    inputs: Inputs
    thread: int
    woken: threading.Lock | None = None
    batch: list[_Request] | None = None
    alone: bool = False
    outputs: NDArray[np.float32] | None = None

    def wake(self) -> None:
        """Have its thread go on; once more does no harm."""
        if self.woken is not None and self.woken.locked():
            self.woken.release()


class _Turns:
    """Decides which threads compute, at most one for each core, and which texts run together.

    Texts of one length that wait at the same time are one batch. The text that has waited longest
    is in the next one.
    """

    def __init__(self, cores: int) -> None:
        self.threads: set[int] = set()  # that have a core
        self._cores = cores
        self._waiting: list[_Request] = []
        self._lock = threading.RLock()

    def enter(self, request: _Request) -> None:
        """Give the request's thread a core, with its own text to compute; or tell it to wait."""
        with self._lock:
            if len(self.threads) < self._cores:
                request.batch, request.alone = [request], not self.threads
                self.threads.add(request.thread)
            else:
                request.woken = _asleep()
                self._waiting.append(request)

    def take(self, request: _Request) -> bool:
        """Give the request's thread the next texts that wait; return whether there are some."""
        if not self._waiting:
            return False
        with self._lock:
            if not self._waiting:
                return False
            first = self._waiting[0].inputs
            most = texts_per_batch(first.ids.shape[1])
            batch = [other for other in self._waiting if _run_together(first, other.inputs)][:most]
            request.batch = batch  # so that an interrupt after this leaves none behind
            self._waiting = [other for other in self._waiting if other not in batch]
            return True

    def leave(self, request: _Request) -> None:
        """Have the request's thread go, and hand its core to the one that has waited longest.

        Texts that it was to compute for others, and has not, are left to their threads.
        """
        with self._lock:
            if request.batch is None:
                if request in self._waiting:
                    self._waiting.remove(request)
                return
            left = request.batch
            self._waiting = [other for other in self._waiting if other not in left]
            for other in left:
                if other is not request:
                    other.wake()
            self.threads.discard(request.thread)
            if self._waiting:
                following = self._waiting[0]
                self.take(following)
                self.threads.add(following.thread)
                following.wake()
            request.batch = None


def _run_together(one: Inputs, other: Inputs) -> bool:
    return (
        one.ids.shape == other.ids.shape
        and (one.token_types is None) == (other.token_types is None)
        and one.seen_tokens == other.seen_tokens
    )


def _joined(batch: list[_Request]) -> Inputs:
    first = batch[0].inputs
    if len(batch) == 1:
        return first
    ids = np.concatenate([request.inputs.ids for request in batch])
    types = [request.inputs.token_types for request in batch]
    known = [part for part in types if part is not None]
    return Inputs(ids, np.concatenate(known) if known else None, first.seen_tokens)


class SingleTextBackend:
    """Runs single texts that threads wait for.

    A text that comes alone runs on one core, or is spread over two, whichever was faster recently.
    On idle cores two threads that wait by spinning are faster; beside a busy process they are
    slower than one, because they wait for each other. Only measuring tells, so now and then a few
    texts try the other way; the first after a change is not counted, because the threads are
    asleep then.

    Texts that come at the same time use one core each. Once every core has a text, threads wait.
    One that has a core goes on with the texts of others for some batches, those of equal length
    together, and then hands its core on.

    Args:
        single: runs on the calling thread alone.
        start_spread: makes a backend that uses two threads; called once, when it is worth it.
            ``None`` if texts are never spread.
        cores: threads that compute at the same time; by default the cores this process may use.
    """

    def __init__(
        self,
        single: Backend,
        start_spread: Callable[[], Backend] | None,
        cores: int | None = None,
    ) -> None:
        self._single = single
        self._start_spread = start_spread
        self._spread: Backend | None = None
        self._cores = usable_cores() if cores is None else cores
        self._turns = _Turns(self._cores)
        self._count = 0
        self._last: bool | None = None  # whether the previous text was spread
        self._is_spread_faster = True  # as of the last comparison
        self._has_spread_long = False
        # seconds per token of the newest texts, by whether they were spread
        self._seconds: dict[bool, deque[float]] = {
            spread: deque(maxlen=_REMEMBERED) for spread in (False, True)
        }
        on_fork(self)

    def after_fork(self) -> None:
        """Forget the threads that compute and wait, which a forked child does not have."""
        self._turns = _Turns(self._cores)

    def run(self, inputs: Inputs) -> NDArray[np.float32]:
        """Return the output of one text, float32 [1, ...]."""
        turns, thread = self._turns, threading.get_ident()
        if thread in turns.threads:  # a signal came while it computes
            return self._single.run(inputs)
        request = _Request(inputs, thread)
        try:
            turns.enter(request)
            if request.woken is not None:
                request.woken.acquire()
            if request.batch is not None:
                self._compute_in_turn(turns, request)
        finally:
            turns.leave(request)
        # what failed in a batch fails again for the text that it is about
        return self._single.run(inputs) if request.outputs is None else request.outputs

    def _compute_in_turn(self, turns: _Turns, request: _Request) -> None:
        if request.alone:
            request.outputs = self._run_alone(request.inputs, turns)
        else:
            self._compute(request)
        for _ in range(_FOR_OTHERS):
            if not turns.take(request):
                break
            self._compute(request)

    def _compute(self, request: _Request) -> None:
        batch = request.batch or []
        outputs: NDArray[np.float32] | None = None
        with suppress(ModelError):  # each text runs again alone then, in its own thread
            outputs = self._single.run(_joined(batch))
        is_shared = len(batch) > 1  # a row that is kept must not keep the others
        while batch:
            other = batch[-1]
            if outputs is not None:
                own = outputs[len(batch) - 1 : len(batch)]
                other.outputs = own.copy() if is_shared else own
            if other is not request:
                other.wake()
            batch.pop()  # now that its thread needs no other to wake it

    def _run_alone(self, inputs: Inputs, turns: _Turns) -> NDArray[np.float32]:
        self._count += 1
        spread = self._choose()
        backend = self._spread if spread and self._spread is not None else self._single
        started = time.perf_counter()
        try:
            outputs = backend.run(inputs)
        except ModelFileError:
            if backend is self._single:
                raise
            self._give_up_spreading()
            return self._single.run(inputs)
        seconds = time.perf_counter() - started
        changed, self._last = spread != self._last, spread
        if spread and not self._has_spread_long and inputs.ids.shape[1] >= LONG_TEXT:
            changed = self._has_spread_long = True  # their graph was loaded for it
        if not changed and len(turns.threads) == 1:
            self._seconds[spread].append(seconds / inputs.ids.size)
        return outputs

    def _choose(self) -> bool:
        alone, spread = self._seconds[False], self._seconds[True]
        if self._count <= _ALONE_FIRST or not alone:
            return False
        if self._spread is None:
            if self._start_spread is None:
                return False
            try:
                self._spread = self._start_spread()
            except ModelError:
                self._give_up_spreading()
                return False
        if not spread:
            return True
        if self._count % _COMPARE_EVERY == 0:
            self._is_spread_faster = _middle(spread) < _middle(alone)
        is_known = self._is_spread_faster and len(alone) == _REMEMBERED
        every = _TRY_ONE_CORE_EVERY if is_known else _TRY_OTHER_EVERY
        is_trial = self._count % every < _TRIED_TEXTS
        return self._is_spread_faster is not is_trial

    def _give_up_spreading(self) -> None:
        """Run texts on one core from now on, after an error."""
        self._spread = self._start_spread = None
        logger.warning("a text runs on one core, as no other session starts", exc_info=True)


def _middle(values: Iterable[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2]
