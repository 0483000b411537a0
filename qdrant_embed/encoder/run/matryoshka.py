"""Vectors cut to their first numbers, for models trained so that these say most."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.encoder.interfaces import Vector
from qdrant_embed.encoder.run.runner import Runner


class Shortened:
    """A runner whose vectors are cut to `dimension` numbers and scaled to length 1 again."""

    def __init__(self, runner: Runner, dimension: int) -> None:
        self._runner, self._dimension = runner, dimension

    def run(self, token_ids: NDArray[np.int64]) -> Vector:
        """Vectors, float32 [batch, dimension], for int64 [batch, tokens] of one length."""
        vectors = self._runner.run(token_ids)[:, : self._dimension]
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        shortened: Vector = vectors / np.maximum(lengths, np.float32(1e-12))
        return shortened
