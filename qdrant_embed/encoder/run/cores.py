"""Finds how many cores this process may use, and computes on them in threads."""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, ParamSpec, TypeVar

import numpy as np

from qdrant_embed.errors import check_whole
from qdrant_embed.forks import ForkLock, on_fork

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

P = ParamSpec("P")
T = TypeVar("T")

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def usable_cores(cgroups: Path = _CGROUPS, own_cgroup: Path = _OWN_CGROUP) -> int:
    """Count the cores this process may use: the least of affinity and CPU quota, at least 1.

    A container limited to half a core counts as 1. The quota is the smallest one set on the
    process' cgroup or any above it (v2 ``cpu.max``, v1 ``cpu.cfs_quota_us``).
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:  # macOS and Windows
        cores = os.cpu_count() or 1
    quotas = [_quota(folder) for folder in _folders(cgroups, own_cgroup)]
    return max(1, min([cores, *(math.ceil(quota) for quota in quotas if quota is not None)]))


def worker_count(option: str, count: int | None) -> int:
    """Return `count`, or for ``None`` the number of usable cores.

    Raises:
        InputError: it is not a whole number from 1 up; `option` is the caller's name for it.
    """
    if count is None:
        return usable_cores()
    check_whole(option, count, 1)
    return count


def workers_of_call(own: int, parallel: int | None) -> int:
    """Return the threads of one call: the encoder's `own`, or `parallel`; 0 for every usable core.

    Raises:
        InputError: `parallel` is negative, or no whole number.
    """
    return own if parallel is None else worker_count("parallel", parallel or None)


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


class _OneThread:
    """Counts who needs numpy's OpenBLAS to have one thread; restores its threads after the last."""

    def __init__(self) -> None:
        self._lock, self._needed_by = ForkLock(), 0
        self._before: tuple[_OpenBlas, int] | None = None
        on_fork(self)

    def begin(self, library: _OpenBlas) -> None:
        with self._lock:
            if not self._needed_by:
                self._before = library, library.threads()
                library.set_threads(1)
            self._needed_by += 1

    def end(self) -> None:
        with self._lock:
            self._needed_by = max(0, self._needed_by - 1)
            if not self._needed_by:
                self._restore()

    def after_fork(self) -> None:
        """Restore the threads in a forked child, where what needed one thread does not go on."""
        self._needed_by = 0
        self._restore()

    def _restore(self) -> None:
        if self._before is not None:
            library, threads = self._before
            self._before = None
            library.set_threads(threads)


_ONE_THREAD = _OneThread()


@contextmanager
def one_thread_of_blas() -> Iterator[None]:
    """Have numpy multiply matrices without threads of its own, while the block runs.

    That is so in all threads of the process. OpenBLAS otherwise shares the work among threads that
    wait for each other in busy loops, and take cores from others. Nothing changes where numpy came
    with another library.
    """
    library = _openblas()
    if library is None:
        yield
        return
    _ONE_THREAD.begin(library)
    try:
        yield
    finally:
        _ONE_THREAD.end()


class _OpenBlas(NamedTuple):
    threads: Callable[[], int]
    set_threads: Callable[[int], None]


def _openblas() -> _OpenBlas | None:
    """Return what tells, and what sets, the number of threads of the OpenBLAS in numpy's wheel."""
    root = Path(np.__file__).parent
    for folder in (root.parent / "numpy.libs", root / ".dylibs"):
        for file in folder.glob("*openblas*"):
            for prefix, suffix in (("scipy_", "64_"), ("", "64_"), ("", "")):
                try:
                    library = ctypes.CDLL(str(file))  # numpy has loaded it; this finds it again
                    return _OpenBlas(
                        library[f"{prefix}openblas_get_num_threads{suffix}"],
                        library[f"{prefix}openblas_set_num_threads{suffix}"],
                    )
                except (OSError, AttributeError):
                    continue
    return None


def _folders(cgroups: Path, own_cgroup: Path) -> set[Path]:
    folders = {cgroups, cgroups / "cpu"}
    try:
        lines = own_cgroup.read_text().splitlines()
    except OSError:
        return folders
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = cgroups / "cpu" if controllers else cgroups
        own = root / path.lstrip("/")
        folders.update(parent for parent in (own, *own.parents) if parent.is_relative_to(root))
    return folders


def _quota(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        if quota != "max":
            return int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        microseconds = int((folder / "cpu.cfs_quota_us").read_text())
        if microseconds > 0:
            return microseconds / int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        pass
    return None
