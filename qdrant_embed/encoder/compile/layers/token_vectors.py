"""The head of late-interaction models: a vector for each token, and mask tokens not attended to."""

from __future__ import annotations

import numpy as np

from qdrant_embed.encoder.compile.graph import Graph
from qdrant_embed.encoder.compile.quantize import Array
from qdrant_embed.encoder.run.backend import SEEN_TOKENS
from qdrant_embed.encoder.run.pooling import Head

_ALL = 1 << 31  # more tokens than a text has


def add_token_vectors(graph: Graph, hidden: str, head: Head, projection: Array | None) -> str:
    """Add a vector for each token, scaled to length 1.

    Args:
        graph: nodes are added to it.
        hidden: what follows the last layer, [batch, tokens, width].
        head: modules that change the vectors, in the layouts that have any.
        projection: what the vectors are multiplied with, [dimension, width], in Stanford's layout.
    """
    hidden = head.added_to(graph, hidden)
    if projection is not None:
        hidden = graph.node("MatMul", hidden, graph.constant(projection.T))
    return graph.node("LpNormalization", hidden, axis=-1, p=2)


class SeenTokens:
    """The first tokens of a text, which alone are attended to; all of them unless the caller says.

    Args:
        graph: gets an input that can be left out, `SEEN_TOKENS`.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.count = graph.optional_input(SEEN_TOKENS, np.array([_ALL], np.int64))

    def of(self, hidden: str) -> str:
        """Add the rows of `hidden`, [batch, tokens, ...], that are attended to."""
        graph = self._graph
        return graph.node("Slice", hidden, graph.integers(0), self.count, graph.integers(1))
