"""Cores by affinity and by container limit."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qdrant_embed import InputError
from qdrant_embed.encoder.run.cores import one_thread_of_blas, usable_cores, workers_of_call


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


def cores(tmp_path: Path, files: dict[str, str], own: str = "0::/\n") -> int:
    for name, content in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (tmp_path / "own").write_text(own)
    return usable_cores(tmp_path / "cgroup", tmp_path / "own")


@pytest.mark.parametrize(
    ("files", "own", "expected"),
    [
        ({}, "0::/\n", 8),
        ({"cpu.max": "max 100000"}, "0::/\n", 8),
        ({"cpu.max": "200000 100000"}, "0::/\n", 2),
        ({"cpu.max": "50000 100000"}, "0::/\n", 1),
        ({"cpu.max": "250000 100000"}, "0::/\n", 3),
        ({"cpu.max": "9900000 100000"}, "0::/\n", 8),
        ({"cpu.max": "garbage"}, "0::/\n", 8),
        ({"a/b/cpu.max": "max 100000", "a/cpu.max": "400000 100000"}, "0::/a/b\n", 4),
        ({"other/cpu.max": "100000 100000"}, "0::/a/b\n", 8),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, "", 3),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "", 8),
        (
            {"cpu/x/cpu.cfs_quota_us": "200000", "cpu/x/cpu.cfs_period_us": "100000"},
            "7:memory:/y\n4:cpu,cpuacct:/x\n",
            2,
        ),
    ],
)
def test_the_smallest_limit_counts(
    tmp_path: Path, files: dict[str, str], own: str, expected: int
) -> None:
    assert cores(tmp_path, files, own) == expected


def test_affinity_counts_where_it_is_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    assert cores(tmp_path, {"cpu.max": "400000 100000"}) == 1


def test_without_cgroups_the_cores_are_all_there_is(tmp_path: Path) -> None:
    assert usable_cores(tmp_path / "none", tmp_path / "none either") == 8


@pytest.mark.parametrize(("parallel", "expected"), [(None, 3), (1, 1), (5, 5)])
def test_a_call_has_the_threads_of_its_encoder_or_its_own(
    parallel: int | None, expected: int
) -> None:
    assert workers_of_call(3, parallel) == expected


def test_a_call_with_parallel_0_has_every_usable_core() -> None:
    assert workers_of_call(1, 0) == usable_cores() > 1
    with pytest.raises(InputError, match="parallel"):
        workers_of_call(1, -1)


@pytest.fixture
def openblas() -> str:
    """The file of the OpenBLAS that numpy came with."""
    root = Path(np.__file__).parent
    for file in [*root.parent.glob("numpy.libs/*openblas*"), *root.glob(".dylibs/*openblas*")]:
        return str(file)
    pytest.skip("numpy came with another library")


@pytest.fixture
def blas(openblas: str) -> Iterator[Any]:
    """What tells the number of its threads, which is two."""
    library = ctypes.CDLL(openblas)
    prefix = "scipy_" if hasattr(library, "scipy_openblas_get_num_threads64_") else ""
    get = library[f"{prefix}openblas_get_num_threads64_"]
    set_threads = library[f"{prefix}openblas_set_num_threads64_"]
    before = get()
    set_threads(2)
    yield get
    set_threads(before)


def fail_with_one_thread(blas: Any) -> None:
    with one_thread_of_blas():
        assert blas() == 1
        raise KeyError


def test_blas_has_one_thread_for_a_while(blas: Any) -> None:
    with pytest.raises(KeyError):
        fail_with_one_thread(blas)
    assert blas() == 2


def test_blas_has_its_threads_again_when_the_last_is_done(blas: Any) -> None:
    with ExitStack() as last:
        with one_thread_of_blas():
            last.enter_context(one_thread_of_blas())
        assert blas() == 1
    assert blas() == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_blas_has_its_threads_in_a_child_that_is_forked_meanwhile(openblas: str, blas: Any) -> None:
    program = """
import ctypes, os, sys
import numpy as np
from qdrant_embed.encoder.run.cores import one_thread_of_blas
library = ctypes.CDLL(sys.argv[1])
threads, set_threads = library[sys.argv[2]], library[sys.argv[2].replace("get", "set")]
set_threads(2)
with one_thread_of_blas():
    child = os.fork()
    if not child:
        found = threads()
        with one_thread_of_blas():
            during = threads()
        product = np.ones((300, 300), np.float32) @ np.ones((300, 300), np.float32)
        print(found, during, threads(), int(product[0, 0]), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    print(threads())
print(threads())
"""
    command = [sys.executable, "-W", "ignore", "-c", program, openblas, blas.__name__]
    ended = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert ended.stdout.split() == ["2", "1", "2", "300", "1", "2"]


def test_where_numpy_came_with_another_library_nothing_changes(
    blas: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(np, "__file__", str(tmp_path / "numpy" / "__init__.py"))
    with one_thread_of_blas():
        assert blas() == 2
