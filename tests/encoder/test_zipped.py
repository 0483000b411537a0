"""An installation without source files: a zip, or a frozen application."""

from __future__ import annotations

import compileall
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from tiny import TinyModel

import qdrant_embed
from qdrant_embed.version import VERSION

RUN = """
import importlib.metadata, sys
sys.path.insert(0, sys.argv[1])
found = importlib.metadata.version
def version(name):
    if name == "qdrant-embed":
        raise importlib.metadata.PackageNotFoundError(name)
    return found(name)
importlib.metadata.version = version
import qdrant_embed
from qdrant_embed import SparseTextEmbedding, TextEmbedding
assert qdrant_embed.__file__.startswith(sys.argv[1]), qdrant_embed.__file__
for _ in range(2):  # compiled, then found in the cache
    (vector,) = TextEmbedding(sys.argv[2]).embed("the cat sat")
(words,) = SparseTextEmbedding().embed("a ship at sea")
print(len(vector), len(words.indices))
from qdrant_embed.cli.main import main
assert main(["cache", "list"]) == 0
"""


@pytest.fixture
def bytecode(tmp_path: Path) -> Path:
    """A folder with the package without its ``.py`` files."""
    package = tmp_path / "site" / "qdrant_embed"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(qdrant_embed.__file__).parent, package, ignore=ignored)
    assert compileall.compile_dir(package, quiet=1, legacy=True)
    for source in package.rglob("*.py"):
        source.unlink()
    return package.parent


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_models_are_compiled_loaded_and_found_again(
    kind: str, bytecode: Path, tiny: TinyModel, tmp_path: Path
) -> None:
    place = bytecode
    if kind == "zip":
        place = tmp_path / "package.zip"
        with zipfile.ZipFile(place, "w") as archive:
            for file in bytecode.rglob("*"):
                archive.write(file, file.relative_to(bytecode))
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(place), str(tiny.path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"QDRANT_EMBED_CACHE": str(tmp_path / "cache")},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "32 2"
    assert "compiled" in done.stdout
    assert len(list((tmp_path / "cache" / "plans").iterdir())) == 1


def test_the_version_in_the_code_is_that_of_the_distribution() -> None:
    assert version("qdrant-embed") == VERSION
