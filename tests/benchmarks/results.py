"""What a run of ``encoder.py`` found, with all that is needed to judge it, as JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from corpora import Corpus

from qdrant_embed.encoder.run.cores import usable_cores

Table = dict[str, dict[str, dict[str, Any]]]  # encoder -> figure -> what is told of it -> value

_PACKAGES = """
qdrant-embed fastembed sentence-transformers torch transformers optimum-intel openvino nncf
ctranslate2 libembedding-ng onnxruntime tokenizers numpy
"""

# extensions of the instruction set that encoders are faster with, as Linux names them
_FEATURES = "avx2 avx_vnni avx512f avx512_vnni avx512_bf16 amx_int8 amx_bf16 asimddp i8mm bf16"


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
        features: the processor's extensions that encoders are faster with.
        left_out: the packages that are missing, by the name of the peer that needs them.
    """

    command: str
    date: str
    cpu: str
    cores: int
    versions: dict[str, str]
    corpora: dict[str, dict[str, float]]
    table: Table
    features: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        command: str,
        texts: Sequence[Corpus],
        table: Table,
        left_out: dict[str, list[str]] | None = None,
    ) -> Results:
        """The results of the running process."""
        return cls(
            command=command,
            date=datetime.now(timezone.utc).date().isoformat(),
            cpu=_cpu(),
            cores=usable_cores(),
            versions={"python": platform.python_version(), **_versions()},
            corpora={corpus.name: _facts(corpus) for corpus in texts},
            table=table,
            features=_features(),
            left_out=left_out or {},
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
        missing = (
            f"left out: {name} ({', '.join(packages)} not installed)"
            for name, packages in self.left_out.items()
        )
        return [self.command, peers, f"{self.machine}, {self.date}", *missing, *texts]

    @property
    def machine(self) -> str:
        """The processor, its extensions and its cores."""
        extensions = f" ({' '.join(self.features)})" if self.features else ""
        return f"{self.cpu}{extensions}, {self.cores} cores"


def processor_lines() -> list[str]:
    """What Linux says of the processors; nothing elsewhere."""
    info = Path("/proc/cpuinfo")
    return info.read_text().splitlines() if info.exists() else []


def _cpu() -> str:
    names = [line for line in processor_lines() if "model name" in line]
    return names[0].split(":")[1].strip() if names else platform.processor() or platform.machine()


def _features() -> list[str]:
    lines = [line for line in processor_lines() if line.startswith(("flags", "Features"))]
    found = {word for line in lines for word in line.split()}
    return [feature for feature in _FEATURES.split() if feature in found]


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
