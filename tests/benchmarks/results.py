"""What a run of ``encoder.py`` found, with all that is needed to judge it, as JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from corpora import Corpus

from qdrant_embed.encoder.run.cores import usable_cores

Table = dict[str, dict[str, dict[str, Any]]]  # encoder -> figure -> what is told of it -> value

_PACKAGES = """
qdrant-embed fastembed sentence-transformers torch transformers onnxruntime tokenizers numpy
"""


@dataclass(frozen=True)
class Results:
    """The figures, and where they come from.

    Attributes:
        command: what was run, from the top of a checkout.
        date: its day, by UTC.
        cpu: the processor's name.
        cores: how many the process could use.
        versions: of Python and of each package that is measured or computes, where installed.
        corpora: by name: how many texts, their shortest, median and longest in tokens, and the
            padding factor of batches of 256.
        table: the figures.
    """

    command: str
    date: str
    cpu: str
    cores: int
    versions: dict[str, str]
    corpora: dict[str, dict[str, float]]
    table: Table

    @classmethod
    def of(cls, command: str, texts: Sequence[Corpus], table: Table) -> Results:
        """The results of the running process."""
        return cls(
            command=command,
            date=datetime.now(timezone.utc).date().isoformat(),
            cpu=_cpu(),
            cores=usable_cores(),
            versions={"python": platform.python_version(), **_versions()},
            corpora={corpus.name: _facts(corpus) for corpus in texts},
            table=table,
        )

    @classmethod
    def read(cls, path: Path) -> Results:
        """Results that were written."""
        return cls(**json.loads(path.read_text()))

    def write(self, path: Path) -> None:
        """Writes them."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")

    def lines(self) -> list[str]:
        """Where the figures come from, in words."""
        peers = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        texts = (
            f"{name}: {facts['texts']} texts of {facts['shortest']} to {facts['longest']} tokens, "
            f"median {facts['median']}, padding factor {facts['padding_factor']}"
            for name, facts in self.corpora.items()
        )
        return [self.command, peers, f"{self.cpu}, {self.cores} cores, {self.date}", *texts]


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    names = [line for line in info.open() if "model name" in line] if info.exists() else []
    return names[0].split(":")[1].strip() if names else platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES.split():
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _facts(corpus: Corpus) -> dict[str, float]:
    tokens = sorted(corpus.tokens)
    return {
        "texts": len(tokens),
        "shortest": tokens[0],
        "median": tokens[len(tokens) // 2],
        "longest": tokens[-1],
        "padding_factor": round(corpus.padding_factor, 2),
    }
