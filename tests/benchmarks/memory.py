"""Memory of this process, as Unix tells it."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def peak_mb() -> float:
    """Return the most that the process has had in memory so far, by /proc.

    That of its own program: ``ru_maxrss`` starts with what its parent had when it forked.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise NotImplementedError


def resident_mb(pid: int | None = None) -> float:
    """Return what this process, or the one with this id, has in memory now, by /proc."""
    if sys.platform != "win32":
        pages = int(Path(f"/proc/{pid or 'self'}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    raise NotImplementedError
