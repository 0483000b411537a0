"""The process that builds an index.

The engine lets no other thread of its process run meanwhile. So the index is built elsewhere, on a
copy, and that process must not outlive the one that wants it. It cannot look itself whether that
one is still there, for the same reason. So a first process watches: it ends, and the second one,
which builds, with it, when its standard input ends or its parent is another one. Linux ends the
second one also when the first was killed.

Both run this file, which imports nothing of this package, isolated from the working directory and
the environment: a file that happens to be called ``json.py`` there is not imported.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

_LOOK = 0.2  # seconds between two looks at the parent
_PATIENCE = 5.0  # seconds that a process has to end what it started
_KILL = 9
_PR_SET_PDEATHSIG = 1


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Start building the index of a shard that nobody has open; return the process.

    It ends with 0 when the index is built. It ends, too, when something is written to its standard
    input, or that is closed, or this process ends.
    """
    return subprocess.Popen(  # noqa: S603 - this file, in this interpreter
        _command("--watch", folder, os.getpid()),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process of `start`, and what it started."""
    with contextlib.suppress(OSError):  # it ends already
        os.write(process.stdin.fileno(), b".")  # type: ignore[union-attr] # it is a pipe
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _command(role: str, folder: str | Path, parent: int) -> list[str]:
    paths = json.dumps([os.path.abspath(entry) for entry in sys.path if entry])
    return [sys.executable, "-I", __file__, role, str(folder), str(parent), paths]


def _watch(folder: str, parent: int) -> int:
    """Have another process build; end both when nobody wants the index any more."""
    with subprocess.Popen(  # noqa: S603 - likewise
        _command("--build", folder, os.getpid()), stdin=subprocess.DEVNULL
    ) as building:

        def stop() -> None:
            os.read(0, 1)
            building.kill()

        threading.Thread(target=stop, daemon=True).start()
        while True:
            try:
                return building.wait(_LOOK)
            except subprocess.TimeoutExpired:
                # a forked child of the parent holds our standard input open
                if hasattr(os, "getppid") and os.getppid() != parent:
                    building.kill()


def _build(folder: str, parent: int) -> None:
    _end_with(parent)
    import qdrant_edge

    if hasattr(os, "nice"):
        os.nice(10)  # whoever asks or encodes meanwhile goes first
    shard = qdrant_edge.EdgeShard.load(folder)
    shard.optimize()
    shard.flush()
    shard.close()


def _end_with(parent: int) -> None:
    """Have this process end when its parent does, where the system can."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _KILL)
        if os.getppid() != parent:  # it has ended before
            sys.exit(1)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: it is for the parent
    role, wanted, starter, paths = sys.argv[1:]
    sys.path += [path for path in json.loads(paths) if path not in sys.path]
    if role == "--build":
        _build(wanted, int(starter))
    else:
        sys.exit(_watch(wanted, int(starter)))
