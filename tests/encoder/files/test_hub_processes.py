"""Downloads in processes of their own: two at once, interrupted, without disk, without rights."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import Fault, Hub, serving
from tiny import TinyModel

NAME = "someone/tiny"
WEIGHTS = "model.safetensors"
PROGRAM = """
import json, resource, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
from qdrant_embed import QdrantEmbedError
from qdrant_embed.encoder.files.cache import cache_folder
from qdrant_embed.encoder.files.model_files import find_model
if sys.argv[2:]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    source = find_model(sys.argv[1], cache=cache_folder())
    print(json.dumps({"folder": str(source.folder)}))
except QdrantEmbedError as error:
    print(json.dumps({"error": type(error).__name__, "message": str(error)}))
"""


@pytest.fixture
def hub(tiny: TinyModel, tmp_path: Path) -> Iterator[Hub]:
    shutil.copytree(tiny.path, tmp_path / "repository")
    with serving(NAME, tmp_path / "repository") as hub:
        yield hub


def start(hub: Hub, home: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, NAME, *arguments],
        env=os.environ
        | {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(home / "hf"),
            "QDRANT_EMBED_CACHE": str(home / "ours"),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result(process: subprocess.Popen[str]) -> dict[str, str]:
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    found: dict[str, str] = json.loads(output)
    return found


def check_recovery(hub: Hub, home: Path) -> None:
    hub.faults.clear()
    folder = Path(result(start(hub, home))["folder"])
    assert (folder / WEIGHTS).read_bytes() == (hub.folder / WEIGHTS).read_bytes()
    asked = len(hub.requests)
    result(start(hub, home))
    assert len(hub.requests) == asked


@pytest.mark.slow
def test_two_processes_at_once_share_one_download(hub: Hub, tmp_path: Path) -> None:
    def slowly(body: bytes) -> bytes:
        time.sleep(2)  # long enough for the other to come too
        return body

    hub.faults.append(Fault(WEIGHTS, 1, body=slowly))
    processes = [start(hub, tmp_path) for _ in range(2)]
    assert result(processes[0]) == result(processes[1])
    assert hub.asked(WEIGHTS) == 1
    check_recovery(hub, tmp_path)


@pytest.mark.slow
def test_an_interrupted_download_is_gone_on_with(hub: Hub, tmp_path: Path) -> None:
    hub.faults.append(Fault(WEIGHTS, pause=0.01))
    process = start(hub, tmp_path)
    partial = tmp_path / "ours" / "hub" / "someone--tiny" / "partial"
    for _ in range(6000):
        if any(file.stat().st_size for file in partial.glob("*")) and hub.asked(WEIGHTS):
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "KeyboardInterrupt" in errors
    check_recovery(hub, tmp_path)
    assert hub.ranges  # what was there was not fetched again


@pytest.mark.slow
def test_a_full_disk_is_called_so(hub: Hub, tmp_path: Path) -> None:
    """As the system says it of a file that may not grow: nothing else fills up the same way."""
    failed = result(start(hub, tmp_path, "20000"))
    assert failed["error"] == "ModelFileError"
    assert str(tmp_path / "ours") in failed["message"]
    assert "QDRANT_EMBED_CACHE" in failed["message"]
    check_recovery(hub, tmp_path)
    shutil.rmtree(tmp_path / "ours" / "sha256")
    assert "folder" in result(start(hub, tmp_path, "0"))  # what is whole needs nothing written


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0,
    reason="Windows knows no such right, and root may write everywhere",
)
def test_a_cache_without_the_right_to_write_is_named(hub: Hub, tmp_path: Path) -> None:
    ours = tmp_path / "ours"
    ours.mkdir(mode=0o555)
    failed = result(start(hub, tmp_path))
    assert failed["error"] == "ModelFileError"
    assert str(ours) in failed["message"]
    ours.chmod(0o755)
    check_recovery(hub, tmp_path)
