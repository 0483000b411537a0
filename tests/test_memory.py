"""The benchmarks' peak of memory is that of the process that is measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent / "benchmarks"
PEAK = "import sys; sys.path.insert(0, sys.argv[1]); from memory import peak_mb; "

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")


def peak_of_child(then: str) -> float:
    command = [sys.executable, "-c", PEAK + then, str(BENCHMARKS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def test_a_large_parent_is_no_part_of_its_childs_peak() -> None:
    ballast = bytearray(400 << 20)
    ballast[:: 1 << 12] = b"x" * len(ballast[:: 1 << 12])  # so that every page is there
    assert peak_of_child("print(peak_mb())") < 200
    del ballast


def test_memory_that_was_given_back_is_a_part_of_the_peak() -> None:
    code = "x = bytearray(300 << 20); x[::4096] = b'x' * len(x[::4096]); del x; print(peak_mb())"
    assert peak_of_child(code) > 290
