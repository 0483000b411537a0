"""README.md's Python blocks and every example, run as a reader would: ``tox -e docs``."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def run(*command: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_readme_block(number: int, tmp_path: Path) -> None:
    run("-W", "error", "-c", BLOCKS[number], folder=tmp_path)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_example(example: Path, tmp_path: Path) -> None:
    assert run(str(example), folder=tmp_path).strip()


def test_the_quickstart_finds_what_was_asked() -> None:
    printed = run(str(ROOT / "examples/quickstart.py"), folder=ROOT)
    answers = re.findall(r"^\S.*\n  \d\.\d\d  (.*)$", printed, re.MULTILINE)
    assert [answer.partition("]")[0][1:] for answer in answers] == [
        "nature",
        "cooking",
        "medicine",
        "computing",
    ]


def test_a_script_of_the_predecessor_finds_the_same() -> None:
    printed = run(str(ROOT / "examples/migrate_from_qdrant_client.py"), folder=ROOT)
    lines = [line.strip() for line in printed.splitlines()]
    assert lines[0] == "stored [1, 2, 3, 4] in fast-all-minilm-l6-v2"
    assert lines[1].endswith("Scalar quantization stores a vector in a quarter of the memory")
    assert lines[3] == "chapter 9: Backups are written every night at two o'clock"
    assert lines[4] == "chapter 9: Error E4711 means that the disk is full"
    assert lines[6] == "'E4711': Error E4711 means that the disk is full"
    assert lines[7].endswith("Qdrant stores vectors together with a payload")
    assert lines[8] == "'night': Backups are written every night at two o'clock"


def test_there_are_blocks_and_examples() -> None:
    assert len(BLOCKS) >= 5
    assert EXAMPLES
