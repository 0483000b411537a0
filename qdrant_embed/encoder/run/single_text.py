"""One text at a time, as fast as the machine currently allows."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.encoder.run.backend import Backend, Inputs
from qdrant_embed.forks import ForkLock

_ALONE_FIRST = 4  # texts before a second session is worth its start
_TRY_OTHER_EVERY = 32
_TRIED_TEXTS = 3  # in a row
_MEMORY = 0.3  # weight of the newest measurement in the running mean


class SingleTextBackend:
    """Runs single texts on one core, or spread over two, whichever was faster recently.

    On idle cores two threads that wait by spinning are faster; beside a busy process they are
    slower than one, because they wait for each other. Only measuring tells, so now and then a few
    texts try the other way; the first after a change is not counted, because the threads are
    asleep then. While one text is running, others use one core each.

    Args:
        single: runs on the calling thread alone.
        start_spread: makes a backend that uses two threads; called once, when it is worth it.
    """

    def __init__(self, single: Backend, start_spread: Callable[[], Backend]) -> None:
        self._single = single
        self._start_spread = start_spread
        self._spread: Backend | None = None
        self._running = ForkLock()
        self._count = 0
        self._last: bool | None = None  # whether the previous text was spread
        self._seconds: dict[bool, float] = {}  # per token, by whether it was spread

    def run(self, inputs: Inputs) -> NDArray[np.float32]:
        """Return the output of one text, float32 [1, ...]."""
        if not self._running.acquire(blocking=False):
            return self._single.run(inputs)
        try:
            self._count += 1
            spread = self._choose()
            backend = self._spread if spread and self._spread is not None else self._single
            started = time.perf_counter()
            outputs = backend.run(inputs)
            self._note(spread, (time.perf_counter() - started) / inputs.ids.size)
            return outputs
        finally:
            self._running.release()

    def _choose(self) -> bool:
        if self._count <= _ALONE_FIRST or False not in self._seconds:
            return False
        if self._spread is None:
            self._spread = self._start_spread()
        if True not in self._seconds:
            return True
        faster = self._seconds[True] < self._seconds[False]
        return faster if self._count % _TRY_OTHER_EVERY >= _TRIED_TEXTS else not faster

    def _note(self, spread: bool, seconds: float) -> None:
        changed, self._last = spread != self._last, spread
        if changed:
            return
        before = self._seconds.get(spread, seconds)
        self._seconds[spread] = before + _MEMORY * (seconds - before)
