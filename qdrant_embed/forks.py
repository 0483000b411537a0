"""What a forked child must not take over from its parent: locks that are held, threads that work.

Only the thread that forks lives on in the child. A lock that another one held is never released
there, and whatever waits for another one's work waits for ever.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import time
from typing import Protocol
from weakref import WeakSet

logger = logging.getLogger(__name__)

_LONGEST_WAIT = 60.0  # seconds that a fork waits for what may be under way in another thread
_NOTICE = 2.0  # seconds after which such a wait is logged


class Inherited(Protocol):
    """An object that a forked child cannot use as it is."""

    def after_fork(self) -> None:
        """Make the object fit for use in the child, which has the calling thread alone."""


class ForkLock:
    """A reentrant lock that is free in a forked child, whichever thread of the parent held it.

    Args:
        awaited: have a fork wait, a minute at most, until no other thread holds the lock. For
            work that must not be cut in two, because libraries hold locks of their own meanwhile.
    """

    def __init__(self, *, awaited: bool = False) -> None:
        self.awaited = awaited
        self._lock = threading.RLock()
        _locks.add(self)

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock, and return whether that succeeded; like `threading.RLock.acquire`."""
        return self._lock.acquire(blocking, timeout)

    def release(self) -> None:
        """Release the lock."""
        self._lock.release()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *raised: object) -> None:
        self._lock.release()

    def after_fork(self) -> None:
        """Replace the lock, unless it is free or belongs to the thread that forked."""
        if self._lock.acquire(blocking=False):
            self._lock.release()
        else:
            self._lock = threading.RLock()


def on_fork(inherited: Inherited) -> None:
    """Call ``inherited.after_fork()`` in every forked child, for as long as the object lives."""
    _inherited.add(inherited)


def keep_forever(thing: object) -> None:
    """Have the interpreter never destroy `thing`, not even at its own end.

    A child must not end what waits for threads when it ends.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


class _Held(threading.local):
    """The awaited locks that this thread holds while it forks."""

    def __init__(self) -> None:
        self.locks: list[ForkLock] = []


_locks: WeakSet[ForkLock] = WeakSet()
_inherited: WeakSet[Inherited] = WeakSet()
_held = _Held()

# held while modules are imported that are left until they are needed: a child whose parent was
# importing one in another thread would wait for it for ever
IMPORTING = ForkLock(awaited=True)

# held while pydantic validates or dumps hits, stamps and descriptions: it has a lock of its own
# then, and lets other threads run meanwhile; a child that one of these forks would wait for that
# lock for ever
VALIDATING = ForkLock(awaited=True)


def _before() -> None:
    deadline, is_logged = time.monotonic() + _LONGEST_WAIT, False
    for lock in [lock for lock in _locks if lock.awaited]:
        found = lock.acquire(timeout=_NOTICE if not is_logged else 0)
        if not found and not is_logged:
            is_logged = True
            logger.warning(
                "a fork waits for another thread, which loads a model or uses a local database"
            )
        left = deadline - time.monotonic()
        if found or (left > 0 and lock.acquire(timeout=left)):
            _held.locks.append(lock)


def _release() -> None:
    while _held.locks:
        _held.locks.pop().release()


def _in_child() -> None:
    _release()
    for lock in list(_locks):
        lock.after_fork()
    for inherited in list(_inherited):
        inherited.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_before, after_in_parent=_release, after_in_child=_in_child)
