"""Memory of this process, as Unix tells it."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def peak_mb() -> float:
    """Return the most that the process has had in memory so far, on Linux."""
    if sys.platform != "win32":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    raise NotImplementedError


def resident_mb() -> float:
    """Return what the process has in memory now, by /proc."""
    if sys.platform != "win32":
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    raise NotImplementedError
