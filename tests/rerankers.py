"""Small cross-encoders, as `fixtures/make_rerankers.py` makes them."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

FIXTURES = Path(__file__).parent / "fixtures" / "rerankers"
NAMES = sorted(path.stem for path in FIXTURES.glob("*.zip"))


@dataclass(frozen=True)
class Reference:
    """A model's folder, and pairs of texts with their raw scores by transformers."""

    folder: Path
    pairs: list[tuple[str, str]]
    scores: list[float]


def unpacked(name: str, folder: Path) -> Reference:
    """Write the folder of a model to `folder`."""
    with zipfile.ZipFile(FIXTURES / f"{name}.zip") as archive:
        archive.extractall(folder)
    content = json.loads((folder / "pairs.json").read_text())
    return Reference(folder, [(q, d) for q, d in content["pairs"]], content["scores"])
