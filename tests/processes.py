"""Scripts that run in a process of their own, which must end in time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

SECONDS = 120  # a hang is for ever


def run(script: str, *arguments: object, env: dict[str, str] | None = None) -> str:
    """Runs a script and returns what it prints; fails where it fails, or does not end."""
    command = [sys.executable, "-c", dedent(script), *map(str, arguments)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        cwd=Path(__file__).parent,
        env=env,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
