"""Tells users of waits that nothing else shows."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import AbstractContextManager, suppress

from qdrant_embed import forks

logger = logging.getLogger(__name__)

NOTICE = 2.0  # seconds after which a wait is announced
_IDLE = 30.0  # seconds without a block after which the thread ends


class announced(AbstractContextManager["announced"]):  # noqa: N801 - used like a function
    """Run the block, and log a warning if it takes more than two seconds, then one at its end.

    A warning, because that is what people see who configured no logging, and only they wonder.
    What ends sooner says nothing, and costs little: one thread watches all blocks. Blocks that do
    the same at the same time, in threads or tasks, are announced once, and end with the last one.

    Args:
        doing: what the block does, to precede "takes more than 2 s".
        unless: whether something else shows it, such as a progress bar.
    """

    __slots__ = ("_unless", "doing", "started", "was_said")

    def __init__(self, doing: str, *, unless: bool = False) -> None:
        self.doing, self._unless, self.was_said = doing, unless, False

    def __enter__(self) -> announced:
        if not self._unless:
            self.started = time.monotonic()
            _WATCH.add(self)
        return self

    def __exit__(self, *raised: object) -> None:
        if self._unless:
            return
        if _WATCH.end(self):
            seconds = time.monotonic() - self.started
            logger.warning("%s has ended after %.1f s", self.doing, seconds)


class _Watch:
    """A thread that looks at all blocks, while there are any and for a while after."""

    def __init__(self) -> None:
        self._lock = forks.ForkLock()
        self.after_fork()
        forks.on_fork(self)

    def after_fork(self) -> None:
        """Forget the parent's blocks and its thread."""
        self._blocks: set[announced] = set()
        self._thread: threading.Thread | None = None

    def add(self, block: announced) -> None:
        """Watch the block from now on."""
        self._blocks.add(block)
        if self._thread is None:
            with self._lock, suppress(RuntimeError):  # the interpreter ends, or has no more threads
                if self._thread is None:
                    thread = threading.Thread(target=self._run, name="stalls", daemon=True)
                    thread.start()
                    self._thread = thread

    def end(self, block: announced) -> bool:
        """Forget the block, and return whether its end is to be said."""
        with self._lock:
            self._blocks.discard(block)
            if block.was_said:
                for other in tuple(self._blocks):
                    if other.doing == block.doing:
                        other.was_said = True  # the wait that was announced goes on there
                        return False
            return block.was_said

    def _due(self, now: float) -> list[announced]:
        """Return the blocks to announce, marked as announced."""
        due = []
        with self._lock:
            blocks = tuple(self._blocks)
            said = {block.doing for block in blocks if block.was_said}
            for block in blocks:
                if block.doing not in said and now - block.started >= NOTICE:
                    block.was_said = True
                    said.add(block.doing)
                    due.append(block)
        return due

    def _run(self) -> None:
        busy = time.monotonic()
        while True:
            time.sleep(NOTICE / 8)
            now = time.monotonic()
            if self._blocks:
                busy = now
                for block in self._due(now):
                    logger.warning("%s takes more than %.0f s", block.doing, NOTICE)
            elif now - busy > _IDLE:
                with self._lock:
                    if not self._blocks:
                        self._thread = None
                        # a block that was added before the last line started no thread
                        if not self._blocks:
                            return
                        self._thread = threading.current_thread()


_WATCH = _Watch()
