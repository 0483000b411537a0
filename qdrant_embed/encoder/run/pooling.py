"""Pooling: how a model's token vectors become one, in a graph and in numpy.

To add a pooling, add its name to `Pooling` in ``interfaces.py`` (sentence-transformers' name, with
underscores) and its two ways here; type checking then finds nothing else to do.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.encoder.interfaces import Pooling, Vector, assert_never


class GraphNodes(Protocol):
    """What pooling needs of the graph that it is added to."""

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator and return the name of its output."""

    def integers(self, *values: int) -> str:
        """Add a constant int64 [values] and return its name."""

    def scalar(self, value: object, dtype: type[np.generic]) -> str:
        """Add a constant of one number and return its name."""


def needs_first_token_only(pooling: Pooling | None) -> bool:
    """Return whether the last layer has to be computed for the first token alone."""
    return pooling == "cls"


def add_pooling(graph: GraphNodes, hidden: str, pooling: Pooling) -> str:
    """Add the pooling of `hidden` to a graph and return the name of its output, [batch, width].

    `hidden` is [batch, tokens, width]; [batch, 1, width] where the first token is enough.
    """
    axis = graph.integers(1)
    match pooling:
        case "cls":
            return graph.node("Squeeze", hidden, axis)
        case "last_token":
            return graph.node("Gather", hidden, graph.scalar(-1, np.int64), axis=1)
        case "mean":
            return graph.node("ReduceMean", hidden, axis, keepdims=0)
        case _:
            assert_never(pooling)


def pool_tokens(tokens: NDArray[np.float32], pooling: Pooling) -> Vector:
    """Pool token vectors, float32 [batch, tokens, width], none of which are padding.

    Returns:
        float32 [batch, width].
    """
    match pooling:
        case "cls":
            return tokens[:, 0].copy()
        case "last_token":
            return tokens[:, -1].copy()
        case "mean":
            mean: Vector = tokens.mean(axis=1, dtype=np.float32)
            return mean
        case _:
            assert_never(pooling)
