"""The readers of `readers.py` under atheris: ``tox -e atheris -- --seconds 600 stamp csv``.

Each runs in a process of its own, because atheris ends the process it runs in. An input that a
reader fails on is printed by it and kept in the folder that the last line names.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

NAMES = (
    "config",
    "modules",
    "pooling",
    "tokenizer",
    "safetensors",
    "manifest",
    "stamp",
    "hub",
    "payload",
    "jsonl",
    "csv",
)


def main() -> int:
    """Run the readers that are named, all without names; return 1 if one fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--seconds", type=int, default=60, help="of each reader; 60 by default")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        print("skipped: atheris does not install on this system and Python")  # noqa: T201
        return 0
    if unknown := set(options.names) - {*NAMES}:
        parser.error(f"no reader is named {', '.join(sorted(unknown))}: choose {', '.join(NAMES)}")
    if options.child is not None:
        fuzz(options.names[0], Path(options.child), options.seconds)
    kept = Path(tempfile.mkdtemp(prefix="qdrant-embed-atheris-"))
    failed = []
    for name in options.names or NAMES:
        folder = kept / name
        folder.mkdir()
        command = [sys.executable, __file__, "--seconds", str(options.seconds)]
        print(f"{name}: {options.seconds} s", flush=True)  # noqa: T201
        child = subprocess.run([*command, "--child", str(folder), name], cwd=folder, check=False)
        if child.returncode:
            failed.append(name)
    print(f"failed: {', '.join(failed)}; see {kept}" if failed else "no reader failed")  # noqa: T201
    return bool(failed)


def fuzz(name: str, folder: Path, seconds: int) -> None:
    """Run one reader in this process, which ends with it."""
    import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]

    with atheris.instrument_imports(include=["qdrant_embed"], enable_loader_override=False):
        from hostile.readers import readers

    work = folder / "work"
    work.mkdir()
    reader = readers(work)[name]
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(reader.seeds):
        (corpus / str(number)).write_bytes(seed)
    longest = max(map(len, reader.seeds)) + 1000
    limits = [
        f"-max_total_time={seconds}",
        f"-max_len={longest}",
        "-timeout=20",
        "-rss_limit_mb=4096",
        "-print_final_stats=1",
        f"-artifact_prefix={folder}/",
    ]
    atheris.Setup([name, *limits, str(corpus)], reader)
    atheris.Fuzz()


if __name__ == "__main__":
    os.environ.setdefault("HF_ENDPOINT", "http://127.0.0.1:9")
    sys.path[:0] = [str(Path(__file__).parents[1])]
    sys.exit(main())
