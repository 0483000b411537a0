"""README.md's Python blocks and every example, run as a reader would: ``tox -e docs``."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from image_build import ImageBuild
from notebook_picture import PICTURE, run_cell

pytestmark = pytest.mark.usefixtures("compiled_minilm")

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
PRINTED = re.findall(
    r"^```python\n(.*?)^```\s+^```text\n(.*?)^```$", README, re.DOTALL | re.MULTILINE
)
NOTEBOOK = ROOT / "examples/notebook.ipynb"
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
OF_FRAMEWORKS = {
    ROOT / f"examples/rag_{name}.py" for name in ("langchain", "llama_index", "haystack")
}
SERVES = ROOT / "examples/rag_app.py"  # until it is stopped
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
SCALE = {ROOT / f"examples/ingest_{name}.py" for name in ("ray", "spark")}  # tests/scale


CLOSED = """
import runpy, sys

def refuse(event, _):
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise RuntimeError(f"there is no network: {event}")

sys.addaudithook(refuse)
sys.modules["huggingface_hub"] = None  # tokenizers brings it along
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


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


def same(found: str, written: str) -> bool:
    """Whether two outputs are alike but for a rounding: int8 differs by that between CPUs."""
    numbers = re.compile(r"\d+\.\d+")
    pairs = zip(numbers.findall(found), numbers.findall(written), strict=False)
    return numbers.sub("N", found) == numbers.sub("N", written) and all(
        abs(float(one) - float(other)) <= 0.02 for one, other in pairs
    )


def test_ci_runs_the_readmes_own_test_command() -> None:
    *_, command = (ROOT / ".ci/run").read_text().splitlines()
    assert command in README


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_readme_block(number: int, tmp_path: Path) -> None:
    printed = run("-W", "error", "-c", BLOCKS[number], folder=tmp_path)
    assert same(printed, dict(PRINTED).get(BLOCKS[number], printed))


def test_the_lines_in_the_table_for_newcomers_run(monkeypatch: pytest.MonkeyPatch) -> None:
    section = README.partition("## Coming from another library")[2].partition("\n### ")[0]
    rows = re.findall(r"^\|.*\| (.*) \|$", section, re.MULTILINE)[1:]
    lines = [re.findall(r"`([^`]+)`", row) for row in rows]
    (imported,), *used = lines
    assert len(used) == 4
    for row in used:
        names: dict[str, Any] = {
            "texts": ["Bees dance.", "A roux thickens."],
            "metadata": [{"year": 2019}, {"year": 2024}],
            "ids": [1, 2],
            "question": "what do insects do?",
        }
        setting = 'client = QdrantClient(":memory:"); client.set_model(MODEL)'
        exec(f"MODEL = {MODEL!r}; {imported}; {setting}", names)
        answers = [eval(line, names) for line in row]
        assert answers[0] == [1, 2]
        assert {hit.document for hit in answers[1]} <= set(names["texts"])
        assert answers[1]


def without_bars(shown: str) -> str:
    """Return hits as they are shown, without their bars, which are scores in another form."""
    return re.sub(r"^[#.]{10} |width:\d+%", "", shown, flags=re.M)


def test_the_notebook_shows_what_its_cells_print(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    names: dict[str, Any] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            value = run_cell("".join(cell["source"]), names)
            (output,) = cell["outputs"]
            printed = capsys.readouterr().out
            if output["output_type"] == "stream":
                assert same(printed, "".join(output["text"]))
                continue
            assert not printed
            shown = {form: "".join(lines) for form, lines in output["data"].items()}
            assert same(without_bars(str(value)), without_bars(shown["text/plain"]))
            assert same(without_bars(value._repr_html_()), without_bars(shown["text/html"]))


def test_the_notebooks_picture_is_small() -> None:
    """``python tests/docs/notebook_picture.py`` draws it anew."""
    assert PICTURE.read_bytes()[:4] == b"\x89PNG"
    assert PICTURE.stat().st_size < 60_000


def test_the_container_answers_without_network_from_a_model_inside(tmp_path: Path) -> None:
    image = ImageBuild(ROOT / "examples/container/Dockerfile", ROOT, tmp_path)
    nowhere = tmp_path / "file"
    nowhere.write_text("")  # no folder can be made below it
    before = sorted(image.root.rglob("*"))
    python, program = image.entry
    answer = subprocess.run(
        [python, "-c", CLOSED, program, "How do insects communicate?"],
        check=False,
        capture_output=True,
        text=True,
        env={
            "HOME": str(nowhere / "home"),
            "QDRANT_EMBED_CACHE": str(nowhere / "cache"),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        timeout=600,
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.endswith("flowers by dancing.\n")
    assert answer.stderr == ""
    assert sorted(image.root.rglob("*")) == before


@pytest.mark.parametrize(
    "example",
    [path for path in EXAMPLES if path not in {SERVES, *SCALE, *OF_FRAMEWORKS}],
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


def test_what_the_predecessor_left_and_collections_made_by_hand_are_used() -> None:
    printed = run(str(ROOT / "examples/migrate_from_qdrant_client.py"), folder=ROOT)
    backups = "Backups are written every night at two o'clock"
    snapshots = "Snapshots copy a whole collection"
    assert printed.splitlines() == [
        "the same calls",
        "stored [1, 2, 3, 4] in fast-all-minilm-l6-v2",
        "  E4711: Error E4711 means that the disk is full",
        "  saving memory: Scalar quantization stores a vector in a quarter of the memory",
        "a collection written by qdrant-client[fastembed]",
        f"  chapter 9: {backups}",
        f"  chapter 9: {snapshots}",
        "a collection made by hand",
        f"  {backups}",
        f"  {snapshots}",
    ]


def test_files_are_ingested_again_without_anything_twice(tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "empty.md").touch()  # the first that is read
    (folder / "sea.md").write_text("# Storms\n\nShips ride out a storm at anchor.\n")
    (folder / "land.txt").write_text("Bread rises in a warm place.\n" * 40)
    (folder / "image.png").write_bytes(b"\x89")
    ingest = (str(ROOT / "examples/ingest_files.py"), str(folder), "where do ships stay?")
    first = run(*ingest, folder=tmp_path).splitlines()
    assert first[:3] == [
        "empty.md: 0 passages added, 0 removed",
        "land.txt: 2 passages added, 0 removed",
        "sea.md: 1 passages added, 0 removed",
    ]
    assert first[5].endswith("[sea.md] # Storms Ships ride out a storm at anchor.")
    again = run(*ingest, folder=tmp_path).splitlines()
    assert again[:3] == [
        "empty.md: 0 passages added, 0 removed",
        "land.txt: 0 passages added, 0 removed",
        "sea.md: 0 passages added, 0 removed",
    ]
    assert again[3:] == first[3:]
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


def test_there_are_blocks_and_examples() -> None:
    assert len(BLOCKS) >= 5
    assert PRINTED
    assert EXAMPLES
