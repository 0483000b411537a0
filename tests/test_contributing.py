"""CONTRIBUTING names files and functions that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import qdrant_embed

PACKAGE = Path(qdrant_embed.__file__).parent
ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
STEPS = re.findall(r"^\d+\. `([\w/]+\.py)` `([\w.]+)`", TEXT, re.M)
# paths like `search/search.py` or `encoder/run/`; those under tests/ and examples/ stand elsewhere
PATHS = sorted(set(re.findall(r"`((?:\w+/)*\w+(?:\.py|/))`", TEXT)))


def names(path: Path) -> set[str]:
    """Return the functions, classes and methods that a file defines."""
    found = set[str]()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{part.name}" for part in node.body if hasattr(part, "name")}
    return found


def test_both_walks_are_found() -> None:
    numbers = [int(number) for number in re.findall(r"^(\d+)\. `", TEXT, re.M)]
    assert numbers == [*range(1, 17), *range(1, 9)]
    assert len(STEPS) == len(numbers)


@pytest.mark.parametrize(("file", "name"), STEPS, ids="::".join)
def test_a_step_of_a_walk_exists(file: str, name: str) -> None:
    assert name in names(PACKAGE / file)


@pytest.mark.parametrize("path", PATHS)
def test_a_path_exists(path: str) -> None:
    encoder = PACKAGE / "encoder"
    rooms = (PACKAGE, encoder, encoder / "compile/architectures", ROOT, ROOT / "tests/benchmarks")
    assert any((room / path).exists() for room in rooms)
