"""What an installation takes: wheels, megabytes fetched, megabytes on the disk.

    python tests/benchmarks/footprint.py [NAME ...]

Each is installed by pip into a new environment of this Python, this project from its checkout;
pip itself does not count. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).parents[2]
SPECS = {  # what users are told to install
    "qdrant-embed[fastembed]": f"{ROOT}[fastembed]",
    "qdrant-embed[all]": f"{ROOT}[all]",
    "qdrant-embed": str(ROOT),
    "qdrant-client": "qdrant-client",
    "qdrant-client[fastembed]": "qdrant-client[fastembed]",
    "langchain-qdrant[fastembed]": "langchain-qdrant[fastembed]",
    "chromadb": "chromadb",
}


@dataclass(frozen=True)
class Footprint:
    """What one installation takes; megabytes of a million bytes."""

    wheels: int
    fetched: float
    installed: float


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SPECS)}")
    names = parser.parse_args().names or list(SPECS)
    if unknown := set(names) - set(SPECS):
        parser.error(f"{', '.join(unknown)}: not one of {', '.join(SPECS)}")
    today = datetime.now(timezone.utc).date()
    print(
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {today}\n"
    )
    print("| pip install | wheels | download, MB | installed, MB |\n|---|--:|--:|--:|")
    for name in names:
        found = measure(SPECS[name])
        print(
            f"| `{name}` | {found.wheels} | {found.fetched:.0f} | {found.installed:.0f} |",
            flush=True,
        )


def measure(spec: str) -> Footprint:
    """The footprint of `spec` in an environment of their own."""
    with tempfile.TemporaryDirectory() as temporary:
        wheels, environment = Path(temporary) / "wheels", Path(temporary) / "venv"
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        fetch = [*pip, "wheel", "--wheel-dir", str(wheels), spec]
        subprocess.run(fetch, check=True, stderr=subprocess.DEVNULL)
        venv.create(environment, symlinks=True)
        before = size(environment)
        files = [str(path) for path in wheels.iterdir()]
        place = [*pip, "--python", str(environment), "install", "--no-deps", *files]
        subprocess.run(place, check=True, stderr=subprocess.DEVNULL)
        return Footprint(len(files), size(wheels) / 1e6, (size(environment) - before) / 1e6)


def size(folder: Path) -> int:
    """Bytes of the files below it."""
    return sum(path.stat().st_size for path in folder.rglob("*") if not path.is_symlink())


if __name__ == "__main__":
    main()
