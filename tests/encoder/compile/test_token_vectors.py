"""Vectors of tokens of every architecture that gives them, and tokens that are not attended to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from architecture_fixtures import Fixture, load
from numpy.typing import NDArray

from qdrant_embed.encoder.compile.architectures.registry import model_graph
from qdrant_embed.encoder.facts.architectures import ARCHITECTURES, architecture_name, config_class
from qdrant_embed.encoder.facts.spec import LateFacts, ModelSpec, QueryExpansion
from qdrant_embed.encoder.run.backend import Inputs
from qdrant_embed.encoder.run.session import Session

NAMES = sorted(name for name, kind in ARCHITECTURES.items() if "token_vectors" in kind.tasks)
DIMENSION = 6


def session_of(fixture: Fixture, path: Path, projection: NDArray[np.float32]) -> Session:
    """Run a model whose queries have mask tokens that nothing attends to."""
    kind = config_class(architecture_name(fixture.config))
    assert kind is not None
    spec = ModelSpec(
        "tiny",
        DIMENSION,
        None,
        len(fixture.ids),
        task="token_vectors",
        late=LateFacts(expansion=QueryExpansion(length=16)),
    )
    weights = fixture.weights | {"linear.weight": projection}
    model_graph(weights, kind.model_validate(fixture.config), spec).save(path / "model.onnx")
    return Session(path / "model.onnx")


@pytest.mark.parametrize("name", NAMES)
def test_vectors_are_projected_token_by_token(name: str, tmp_path: Path) -> None:
    fixture = load(name)
    width = fixture.expected["cls"].shape[1]
    projection = np.random.default_rng(0).normal(size=(DIMENSION, width)).astype(np.float32)
    session = session_of(fixture, tmp_path, projection)
    expected = fixture.expected["cls"] @ projection.T  # of the first token, at every length
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    for length in (1, 2, 7, 30, len(fixture.ids)):
        rows = session.run(Inputs(np.tile(fixture.ids[:length], (2, 1))))
        assert rows.shape == (2, length, DIMENSION)
        np.testing.assert_allclose(rows[:, 0], [expected[length - 1]] * 2, atol=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_seen_changes_nothing(name: str, tmp_path: Path) -> None:
    fixture = load(name)
    width = fixture.expected["cls"].shape[1]
    projection = np.random.default_rng(0).normal(size=(DIMENSION, width)).astype(np.float32)
    session = session_of(fixture, tmp_path, projection)
    for seen, length in ((1, 9), (5, 16), (12, 13), (20, 38)):
        ids = fixture.ids[None, :length]
        alone, both = (session.run(Inputs(ids[:, :n], seen_tokens=seen)) for n in (seen, length))
        np.testing.assert_allclose(both[:, :seen], alone, atol=2e-5)
        np.testing.assert_allclose(alone, session.run(Inputs(ids[:, :seen])), atol=2e-5)
        # another token that is not seen: its own vector is another, and no other one is
        other = ids.copy()
        other[0, -1] = fixture.ids[0] + 1
        changed = session.run(Inputs(other, seen_tokens=seen))
        np.testing.assert_allclose(changed[:, :-1], both[:, :-1], atol=2e-5)
        assert np.abs(changed[:, -1] - both[:, -1]).max() > 1e-3
        assert np.abs(session.run(Inputs(ids)) - both).max() > 1e-3
