"""Rotary position embeddings (Su et al. 2021)."""

from __future__ import annotations

import numpy as np

from qdrant_embed.encoder.compile.graph import MICROSOFT, Graph


class Rotary:
    """Rotates the vectors of each head by angles that grow with the position.

    Args:
        graph: nodes are added to it.
        head_size: dimension of one head, an even number.
        positions: the most tokens that a text can have.
        theta: base of the wavelengths.
        stretch: factor of all wavelengths.
    """

    def __init__(
        self, graph: Graph, head_size: int, positions: int, theta: float, stretch: float = 1.0
    ) -> None:
        # in float32, as transformers does: at thousands of positions the rounding shows
        exponents = np.arange(0, head_size, 2, dtype=np.float32) / np.float32(head_size)
        frequencies = np.float32(1) / np.float32(theta) ** exponents / np.float32(stretch)
        angles = np.arange(positions, dtype=np.float32)[:, None] * frequencies
        self._graph = graph
        self._first = graph.integers(0)
        self._cosines = graph.constant(np.cos(angles))
        self._sines = graph.constant(np.sin(angles))

    def rotated(self, hidden: str) -> str:
        """Add `hidden` [batch, tokens, hidden_size], rotated."""
        inputs = (hidden, self._first, self._cosines, self._sines)
        return self._graph.node("RotaryEmbedding", *inputs, domain=MICROSOFT)
