"""Scripts that run in a process of their own, which must end in time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

SECONDS = 120  # a hang is for ever

# The beginning of a script in which `child(work)` forks, and `ended(children)` fails unless each
# ends by itself, and with success.
FORKS = """
import faulthandler, os, signal, sys, threading, time

faulthandler.register(signal.SIGUSR1)

def child(work):
    if pid := os.fork():
        return pid
    work()
    sys.exit(7)

def ended(*children):
    deadline = time.monotonic() + 40
    for pid in children:
        while True:
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                assert os.waitstatus_to_exitcode(status) == 7, status
                break
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGUSR1)  # it says where it hangs
                time.sleep(1)
                os.kill(pid, signal.SIGKILL)
                raise AssertionError("a child hangs")
            time.sleep(0.01)
"""


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
