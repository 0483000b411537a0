"""Tells users of waits that nothing else shows."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

logger = logging.getLogger(__name__)

NOTICE = 2.0  # seconds after which a wait is announced


@contextmanager
def announced(doing: str, *, unless: bool = False) -> Iterator[None]:
    """Run the block, and log a warning if it takes more than two seconds, then one at its end.

    A warning, because that is what people see who configured no logging, and only they wonder.
    What ends sooner says nothing.

    Args:
        doing: what the block does, to follow "still".
        unless: whether something else shows it, such as a progress bar.
    """
    if unless:
        yield
        return
    started, said = time.monotonic(), threading.Event()

    def say() -> None:
        said.set()
        logger.warning("%s takes more than %.0f s", doing, NOTICE)

    timer = threading.Timer(NOTICE, say)
    timer.daemon = True
    with suppress(RuntimeError):  # the interpreter ends, or there can be no more threads
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if said.is_set():
            logger.warning("%s has ended after %.1f s", doing, time.monotonic() - started)
