"""README.md's Python blocks and every example, run as a reader would: ``tox -e docs``."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from rest_server import serving

pytestmark = pytest.mark.usefixtures("compiled_minilm")

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SERVES = ROOT / "examples/rag_app.py"  # until it is stopped
DISTRIBUTED = ROOT / "examples/ingest_distributed.py"  # needs a server


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


@pytest.mark.parametrize(
    "example",
    [path for path in EXAMPLES if path not in (SERVES, DISTRIBUTED)],
    ids=lambda path: path.name,
)
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


def test_files_are_ingested_again_without_anything_twice(tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "sea.md").write_text("# Storms\n\nShips ride out a storm at anchor.\n")
    (folder / "land.txt").write_text("Bread rises in a warm place.\n" * 40)
    (folder / "image.png").write_bytes(b"\x89")
    ingest = (str(ROOT / "examples/ingest_files.py"), str(folder), "where do ships stay?")
    first = run(*ingest, folder=tmp_path).splitlines()
    assert first[:2] == [
        "land.txt: 2 passages added, 0 removed",
        "sea.md: 1 passages added, 0 removed",
    ]
    assert first[4].endswith("[sea.md] # Storms Ships ride out a storm at anchor.")
    again = run(*ingest, folder=tmp_path).splitlines()
    assert again[:2] == [
        "land.txt: 0 passages added, 0 removed",
        "sea.md: 0 passages added, 0 removed",
    ]
    assert again[2:] == first[2:]
    (folder / "sea.md").write_text("Ships stay in the harbour.\n")
    changed = run(*ingest, folder=tmp_path)
    assert "land.txt: 0 passages added, 0 removed\nsea.md: 1 passages added, 1 removed" in changed
    assert "at anchor" not in changed


def test_hybrid_search_finds_a_code_that_dense_vectors_miss() -> None:
    printed = run(str(ROOT / "examples/hybrid_search.py"), folder=ROOT)
    answers = re.findall(r"^  (\w+|hybrid, \w+)  +(\w+)", printed, re.MULTILINE)
    assert answers == [
        ("dense", "ENOSPC"),
        ("hybrid, rrf", "ENOSPC"),
        ("hybrid, dbsf", "ENOSPC"),
        ("dense", "How"),
        ("hybrid, rrf", "How"),
        ("hybrid, dbsf", "EACCES"),
        ("hybrid, rrf", "EACCES"),
    ]


def test_the_web_endpoint_answers_on_loopback(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, str(SERVES), "0"], stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    try:
        assert process.stderr is not None
        told = iter(process.stderr.readline, "")
        url = next(found[0] for line in told if (found := re.search(r"http://127\S+", line)))
        with urlopen(f"{url}/context?question=how+long+can+I+return+things", timeout=60) as answer:
            found = json.load(answer)
        assert found["passages"][0]["chapter"] == "returns"
        assert "thirty days" in found["prompt"]
        with pytest.raises(HTTPError) as refused:
            urlopen(f"{url}/context", timeout=60)
        assert refused.value.code == 400
        refused.value.close()
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_processes_store_every_line_once(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    sentences = [f"Ship number {number} stays in the harbour" for number in range(600)]
    (folder / "a.txt").write_text("\n".join(sentences))
    (folder / "b.txt").write_text("\n".join(["Bread rises in a warm place", *sentences[:300]]))
    with serving() as server:
        printed = run(str(DISTRIBUTED), str(folder), server.url, folder=tmp_path)
        points, _ = server.database.scroll("lines", limit=1000)
    assert "601 are stored" in printed
    assert "stays in the harbour" in printed
    texts = sorted((point.payload or {})["document"] for point in points)
    assert texts == sorted(["Bread rises in a warm place", *sentences])


def test_there_are_blocks_and_examples() -> None:
    assert len(BLOCKS) >= 5
    assert EXAMPLES
