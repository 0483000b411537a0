"""Hostile cases in child processes with limits of time and memory, and what became of each.

A case is a function of this room's files (`models.py`, ...) by name, with arguments that JSON has.
Several cases share a child: one that crashes or hangs is named, and the next child goes on behind
it.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

MARKER = "open('executed', 'w').close()"
MEMORY = 4 << 30  # bytes of address space; onnxruntime alone reserves one of them
SECONDS = 20.0  # of one case, on a busy machine


@dataclass(frozen=True)
class Case:
    """A function of `attempts.py`, and what it is called with."""

    name: str
    attempt: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Attributes:
        name: of the case.
        kind: ``answer``, a ``typed`` error of ours, one that ``escaped``; ``crashed`` or ``hung``.
        error: type of the error.
        message: its text.
        seconds: what it took.
    """

    name: str
    kind: str
    error: str = ""
    message: str = ""
    seconds: float = 0.0
    found: Any = None


def outcomes(
    cases: Sequence[Case], folder: Path, *, memory: float = MEMORY, seconds: float = SECONDS
) -> Iterator[Outcome]:
    """Yield what became of each case; `folder` is where the children work, and their home."""
    left = list(cases)
    while left:
        found = list(_child(left, folder, memory, seconds))
        yield from found
        left = left[len(found) :]


def checked(cases: Sequence[Case], folder: Path, **limits: float) -> dict[str, Outcome]:
    """Run cases that may write to ``cache`` below `folder` alone; return what became of each.

    Fails unless each ends in an answer or an error of ours, in a message that can be read.
    """
    before = _files(folder)
    found = {outcome.name: outcome for outcome in outcomes(cases, folder / "room", **limits)}
    wrong = [one for one in found.values() if one.kind not in ("answer", "typed")]
    assert not wrong, "\n".join(
        f"{one.name}: {one.kind} {one.error} {one.message}" for one in wrong
    )
    assert all(len(one.message) <= 4000 for one in found.values())
    assert len(found) == len(cases)
    assert _files(folder) == before
    assert not list(folder.rglob("executed"))
    return found


def _files(folder: Path) -> dict[str, int]:
    """Return every file below `folder` and its size, but for those of the cache and the room."""
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] not in ("cache", "room")
    }


def environment(home: Path) -> dict[str, str]:
    """Return the environment of a process that has nothing of this one's settings."""
    kept = {key: os.environ[key] for key in ("PATH", "SYSTEMROOT", "TMPDIR") if key in os.environ}
    return kept | {
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "HF_HOME": str(home / "hf"),
        "HF_ENDPOINT": os.environ.get("HF_ENDPOINT", "http://127.0.0.1:9"),
        "HF_HUB_DOWNLOAD_TIMEOUT": "1",  # seconds of each read
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *map(str, sys.path)]),
    }


def _child(cases: list[Case], folder: Path, memory: float, seconds: float) -> Iterator[Outcome]:
    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    for program in ("numpy.py", "onnxruntime.py", "tokenizers.py", "sitecustomize.py"):
        (home / program).write_text(MARKER)
    job = {"cases": [asdict(case) for case in cases], "memory": int(memory)}
    process = subprocess.Popen(
        [sys.executable, "-X", "faulthandler", str(Path(__file__).with_name("attempts.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=(said := (folder / "stderr").open("wb")),
        cwd=home,
        env=environment(home),
    )
    with said, process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(job).encode())
        process.stdin.close()
        pending = b""
        for number, case in enumerate(cases):
            deadline = time.monotonic() + seconds + (20 if not number else 0)
            while b"\n" not in pending:
                left = deadline - time.monotonic()
                ready, _, _ = select.select([process.stdout], [], [], max(0.0, left))
                if not ready:
                    process.kill()
                    yield Outcome(case.name, "hung", seconds=seconds)
                    return
                block = os.read(process.stdout.fileno(), 1 << 16)
                if not block:
                    code = process.wait()
                    last = (folder / "stderr").read_text("utf-8", "replace")[-500:]
                    yield Outcome(case.name, "crashed", str(code), last)
                    return
                pending += block
            line, _, pending = pending.partition(b"\n")
            yield Outcome(**json.loads(line))
