"""Vectors of length 1, in either precision; and numbers that no vector can have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_onnx import WIDTH, tiny_onnx

from qdrant_embed import ModelSpec
from qdrant_embed.encoder.run.backend import Backend, Inputs, ShortenedVectors, l2_normalized
from qdrant_embed.encoder.run.onnx_file import OnnxFile
from qdrant_embed.encoder.run.session import Session
from qdrant_embed.encoder.run.static_table import StaticModel


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


def shortened(folder: Path) -> Backend:
    class Fixed:
        def run(self, inputs: Inputs) -> NDArray[np.float32]:
            return np.array([[np.inf, np.nan, 3e38, -3e38]], np.float32)

    return ShortenedVectors(Fixed(), 3)


def static(folder: Path) -> Backend:
    return StaticModel({"embeddings": np.full((5, 8), 3e38, np.float32)}, 5, None, normalize=True)


def test_numpy_warns_afterwards_as_before(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    tiny_onnx(5).save(path)
    spec = ModelSpec("tiny", WIDTH, "mean", 64, True)
    one_by_one = OnnxFile(Session(path), path, spec, one_by_one=True, pooled=False, trial=[1, 2])
    two = Inputs(np.ones((2, 3), np.int64))
    with np.errstate(all="raise"):
        for backend in (one_by_one, ShortenedVectors(one_by_one, 3), static(tmp_path)):
            assert len(backend.run(two)) == 2
            assert set(np.geterr().values()) == {"raise"}


def own_file(folder: Path) -> Backend:
    path = folder / "model.onnx"
    tiny_onnx(5).save(path, scale=5e37)
    spec = ModelSpec("tiny", WIDTH, "mean", 64, True)
    return OnnxFile(Session(path), path, spec, one_by_one=False, pooled=False, trial=[1, 2])


@pytest.mark.parametrize("make", [shortened, static, own_file])
def test_numbers_that_are_too_large_are_left_to_the_error_that_says_so(
    make: Callable[[Path], Backend], tmp_path: Path
) -> None:
    backend = make(tmp_path)
    assert len(backend.run(Inputs(np.ones((1, 3), np.int64)))) == 1  # a warning is an error here
