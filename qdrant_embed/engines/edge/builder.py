"""The process that builds an index: ``python -m qdrant_embed.engines.edge.builder FOLDER``.

The engine lets no other thread of its process run meanwhile. So the index is built elsewhere, on a
copy, and that process must not outlive the one that wants it. It cannot look itself whether that
one is still there, for the same reason; so a first process watches its standard input, which ends
with whoever holds the other end, and a second one builds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

_BUILDS = "--build"


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Start building the index of a shard that nobody has open; return the process.

    It ends with 0 when the index is built, and when its standard input is closed.
    """
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return subprocess.Popen(  # noqa: S603 - this module, in this interpreter
        [sys.executable, "-m", __name__, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )


def _watch(folder: str) -> int:
    """Have another process build; end both when standard input ends."""
    command = [sys.executable, "-m", __spec__.name, folder, _BUILDS]
    builder = subprocess.Popen(command)  # noqa: S603 - likewise

    def stop() -> None:
        os.read(0, 1)
        builder.kill()

    threading.Thread(target=stop, daemon=True).start()
    return builder.wait()


def _build(folder: str) -> None:
    import qdrant_edge

    if hasattr(os, "nice"):
        os.nice(10)  # whoever asks or encodes meanwhile goes first
    shard = qdrant_edge.EdgeShard.load(folder)
    shard.optimize()
    shard.flush()
    shard.close()


if __name__ == "__main__":
    if sys.argv[2:] == [_BUILDS]:
        _build(sys.argv[1])
    else:
        sys.exit(_watch(sys.argv[1]))
