"""Every architecture against transformers' own vectors; see `fixtures/make_architectures.py`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from qdrant_embed.encoder.architectures import config_class
from qdrant_embed.encoder.interfaces import Pooling
from qdrant_embed.encoder.session import Session
from qdrant_embed.encoder.spec import ModelSpec

FIXTURES = Path(__file__).parent / "fixtures" / "architectures"
NAMES = sorted(path.stem for path in FIXTURES.glob("*.npz"))


@dataclass(frozen=True)
class Fixture:
    config: dict[str, Any]
    weights: dict[str, NDArray[np.float32]]
    ids: NDArray[np.int64]
    expected: dict[str, NDArray[np.float32]]


def load(name: str) -> Fixture:
    with np.load(FIXTURES / f"{name}.npz") as file:
        parts: dict[str, dict[str, NDArray[np.float32]]] = {"weights": {}, "expected": {}}
        for key in file.files:
            kind, _, tensor = key.partition("/")
            if tensor:
                parts[kind][tensor] = file[key].astype(np.float32)
        return Fixture(
            json.loads(str(file["config"])), parts["weights"], file["ids"], parts["expected"]
        )


def spec_for(fixture: Fixture, pooling: Pooling) -> ModelSpec:
    return ModelSpec("tiny", fixture.expected["cls"].shape[1], pooling, len(fixture.ids), False)


def vectors(fixture: Fixture, pooling: Pooling, path: Path) -> NDArray[np.float32]:
    kind = config_class(fixture.config["model_type"])
    assert kind is not None
    config = kind.model_validate(fixture.config)
    config.graph(fixture.weights, spec_for(fixture, pooling)).save(path / "model.onnx")
    session = Session(path / "model.onnx")
    # twice the same text: a batch must not mix its texts
    runs = [session.run(np.tile(fixture.ids[:n], (2, 1))) for n in range(1, len(fixture.ids) + 1)]
    assert all(np.array_equal(*run) for run in runs)
    return np.stack([run[0] for run in runs])


def assert_near(found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    assert ((found * expected).sum(axis=1) / lengths).min() >= 0.999999
    assert np.abs(found - expected).max() <= 5e-5 * np.abs(expected).max()


def test_there_is_a_fixture_for_every_architecture() -> None:
    types = {load(name).config["model_type"] for name in NAMES}
    assert types >= {
        "bert",
        "distilbert",
        "modernbert",
        "mpnet",
        "nomic_bert",
        "roberta",
        "xlm-roberta",
    }


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("name", NAMES)
def test_vectors_are_those_of_transformers_at_every_length(
    name: str, pooling: Pooling, tmp_path: Path
) -> None:
    fixture = load(name)
    assert_near(vectors(fixture, pooling, tmp_path), fixture.expected[pooling])
