"""The examples of frameworks, run as a reader would."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.usefixtures("compiled_minilm")
@pytest.mark.parametrize("name", ["langchain", "llama_index", "haystack"])
def test_an_example_finds_what_was_asked(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / f"examples/rag_{name}.py")],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "Goods can be sent back within thirty days" in done.stdout.splitlines()[0]
    assert "chapter" in done.stdout


@pytest.mark.parametrize("name", ["langchain", "llama_index", "haystack"])
def test_a_module_imports_no_other_framework_and_no_encoder(name: str, tmp_path: Path) -> None:
    others = {"langchain": "langchain_core", "llama_index": "llama_index", "haystack": "haystack"}
    del others[name]
    code = (
        f"import sys, qdrant_embed.{name}; "
        f"print([m for m in {['onnxruntime', 'tokenizers', *others.values()]} if m in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"
