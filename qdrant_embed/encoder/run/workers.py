"""Threads that compute, also while the interpreter ends."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

P = ParamSpec("P")
T = TypeVar("T")


class Workers(AbstractContextManager["Workers"]):
    """A pool of threads; what no thread can be had for, the calling thread computes.

    No thread starts once the main thread has ended, nor in functions of `atexit`, nor beyond a
    limit of the system's.

    Args:
        count: number of threads.
    """

    def __init__(self, count: int) -> None:
        self._pool: ThreadPoolExecutor | None = None
        try:
            from concurrent.futures import ThreadPoolExecutor  # a single text need not wait for it

            self._pool = ThreadPoolExecutor(count, thread_name_prefix="qdrant-embed")
        except RuntimeError:
            pass

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Start to compute something, and return its future."""
        if self._pool is not None:
            try:
                return self._pool.submit(function, *args, **kwargs)
            except RuntimeError:
                pass
        future: Future[T] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - raised again where the result is asked for
            future.set_exception(error)
        return future

    def __exit__(self, *raised: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
