"""Fixtures of architectures, as `fixtures/make_architectures.py` makes them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tiny import write_model

from qdrant_embed.encoder.compile.architectures.registry import model_graph
from qdrant_embed.encoder.facts.architectures import architecture_name, config_class
from qdrant_embed.encoder.facts.spec import ModelSpec
from qdrant_embed.encoder.interfaces import Pooling
from qdrant_embed.encoder.run.backend import Inputs
from qdrant_embed.encoder.run.session import Session

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


def spec_for(fixture: Fixture, pooling: Pooling) -> ModelSpec:
    """Describe the model of a fixture."""
    return ModelSpec("tiny", fixture.expected["cls"].shape[1], pooling, len(fixture.ids), False)


def vectors(fixture: Fixture, pooling: Pooling, path: Path) -> NDArray[np.float32]:
    """Compile the model of a fixture to `path`; return its vectors of the text's beginnings."""
    kind = config_class(architecture_name(fixture.config))
    assert kind is not None
    config = kind.model_validate(fixture.config)
    model_graph(fixture.weights, config, spec_for(fixture, pooling)).save(path / "model.onnx")
    session = Session(path / "model.onnx")
    # twice the same text: a batch must not mix its texts
    lengths = range(1, len(fixture.ids) + 1)
    runs = [session.run(Inputs(np.tile(fixture.ids[:n], (2, 1)))) for n in lengths]
    assert all(np.array_equal(*run) for run in runs)
    return np.stack([run[0] for run in runs])


def assert_near(found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    """Assert that vectors are equal up to rounding in float32."""
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    assert ((found * expected).sum(axis=1) / lengths).min() >= 0.999999
    assert np.abs(found - expected).max() <= 1e-5 * max(1, np.abs(expected).max())


def write(
    path: Path,
    name: str,
    pooling: str = "mean",
    weights: dict[str, NDArray[np.float32]] | None = None,
) -> Fixture:
    """A model's folder from a fixture, with other weights if there are any."""
    fixture = load(name)
    config = {**fixture.config, "hidden_size": fixture.expected["cls"].shape[1]}
    write_model(path, config, weights or fixture.weights, pooling=pooling)
    return fixture
