"""Fixtures of architectures, as `fixtures/make_architectures.py` makes them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FIXTURES = Path(__file__).parent / "fixtures" / "architectures"
NAMES = sorted(path.stem for path in FIXTURES.glob("*.npz"))


@dataclass(frozen=True)
class Fixture:
    """A tiny model, a text, and vectors of its beginnings by pooling: of 1 token, of 2, ..."""

    config: dict[str, Any]
    weights: dict[str, NDArray[np.float32]]
    ids: NDArray[np.int64]
    expected: dict[str, NDArray[np.float32]]


def load(name: str) -> Fixture:
    """Read a fixture."""
    with np.load(FIXTURES / f"{name}.npz") as file:
        parts: dict[str, dict[str, NDArray[np.float32]]] = {"weights": {}, "expected": {}}
        for key in file.files:
            kind, _, tensor = key.partition("/")
            if tensor:
                parts[kind][tensor] = file[key].astype(np.float32)
        return Fixture(
            json.loads(str(file["config"])), parts["weights"], file["ids"], parts["expected"]
        )
