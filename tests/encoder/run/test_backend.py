"""Vectors of length 1, in either precision."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from qdrant_embed.encoder.run.backend import Inputs, ShortenedVectors, l2_normalized


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_last_axis_has_length_1_and_zeros_stay(kind: type[np.float32]) -> None:
    vectors = np.random.default_rng(0).normal(0, 9, (2, 3, 5)).astype(kind)
    vectors[0, 0] = 0
    normalized = l2_normalized(vectors)
    assert normalized.dtype == kind
    assert not normalized[0, 0].any()
    lengths = np.linalg.norm(normalized, axis=-1).ravel()[1:]
    np.testing.assert_allclose(lengths, 1, atol=1e-6)
    scaled = normalized[1] * np.linalg.norm(vectors[1], axis=-1)[:, None]
    np.testing.assert_allclose(scaled, vectors[1], rtol=1e-5)


def test_vectors_are_shortened_before_they_are_scaled() -> None:
    class Fixed:
        def run(self, inputs: Inputs) -> NDArray[np.float32]:
            return np.array([[3, 4, 12]], np.float32)

    shortened = ShortenedVectors(Fixed(), 2).run(Inputs(np.ones((1, 1), np.int64)))
    np.testing.assert_allclose(shortened, [[0.6, 0.8]], rtol=1e-6)
