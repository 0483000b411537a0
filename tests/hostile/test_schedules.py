"""`add` next to a close, inherited calls, kills and forks: no crash, no loss that is not told."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rest_server import serving

from hostile.room import environment

SECONDS = 60  # of a schedule

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork"),
]


@pytest.mark.parametrize("store", ["memory", "local", "edge", "rest"])
def test_random_schedules(store: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    count, seed = request.config.getoption("--schedules"), request.config.getoption("--seed")
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(serving()).url if store == "rest" else str(tmp_path)
        program = [sys.executable, str(Path(__file__).with_name("schedules.py"))]
        done = subprocess.run(
            [*program, store, place, str(seed), str(count), str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=60 + count * SECONDS,
            check=False,
            env=environment(tmp_path),
        )
    assert done.returncode == 0, done.stderr[-3000:]
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(outcomes) == count
    wrong = [outcome for outcome in outcomes if outcome["wrong"]]
    assert not wrong, json.dumps(wrong[:3], indent=1) + done.stderr[-3000:]
    assert sum(outcome["stored"] for outcome in outcomes)
