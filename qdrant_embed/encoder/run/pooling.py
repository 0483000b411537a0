"""Pooling: how a model's token vectors become one, in a graph and in numpy.

To add a pooling, add its name to `Pooling` in ``interfaces.py`` (sentence-transformers' name, with
underscores) and its two ways here; type checking then finds nothing else to do.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.encoder.interfaces import Pooling, Poolings, Vector, assert_never


class GraphNodes(Protocol):
    """What pooling needs of the graph that it is added to."""

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator and return the name of its output."""

    def integers(self, *values: int) -> str:
        """Add a constant int64 [values] and return its name."""

    def constant(self, value: NDArray[Any]) -> str:
        """Add a constant and return its name."""

    def scalar(self, value: object, dtype: type[np.generic]) -> str:
        """Add a constant of one number and return its name."""


_FLOAT = 1  # ONNX's number for the type float32


def needs_first_token_only(pooling: Poolings | None) -> bool:
    """Return whether the last layer has to be computed for the first token alone."""
    return pooling == "cls"


def add_pooling(graph: GraphNodes, hidden: str, pooling: Poolings) -> str:
    """Add the pooling of `hidden` to a graph and return the name of its output, [batch, width].

    `hidden` is [batch, tokens, width]; [batch, 1, width] where the first token is enough. Several
    poolings are one behind the other.
    """
    if isinstance(pooling, tuple):
        pooled = [_add_one(graph, hidden, one) for one in pooling]
        return graph.node("Concat", *pooled, axis=-1)
    if needs_first_token_only(pooling):
        return graph.node("Squeeze", hidden, graph.integers(1))
    return _add_one(graph, hidden, pooling)


def _add_one(graph: GraphNodes, hidden: str, pooling: Pooling) -> str:
    axis = graph.integers(1)
    match pooling:
        case "cls":
            return graph.node("Gather", hidden, graph.scalar(0, np.int64), axis=1)
        case "last_token":
            return graph.node("Gather", hidden, graph.scalar(-1, np.int64), axis=1)
        case "mean":
            return graph.node("ReduceMean", hidden, axis, keepdims=0)
        case "max":
            return graph.node("ReduceMax", hidden, axis, keepdims=0)
        case "mean_sqrt_len_tokens":
            root = graph.node("Sqrt", graph.node("Cast", _length(graph, hidden), to=_FLOAT))
            return graph.node("Div", graph.node("ReduceSum", hidden, axis, keepdims=0), root)
        case "weightedmean":
            one = graph.scalar(1, np.int64)
            end = graph.node("Add", graph.node("Squeeze", _length(graph, hidden)), one)
            weights = graph.node("Cast", graph.node("Range", one, end, one), to=_FLOAT)
            return graph.node(
                "Div",
                graph.node("MatMul", weights, hidden),
                graph.node("ReduceSum", weights, keepdims=1),
            )
        case _:
            assert_never(pooling)


def _length(graph: GraphNodes, hidden: str) -> str:
    """Add the number of tokens, int64 [1]."""
    return graph.node("Shape", hidden, start=1, end=2)


def pool_tokens(tokens: NDArray[np.float32], pooling: Poolings) -> Vector:
    """Pool token vectors, float32 [batch, tokens, width], none of which are padding.

    Returns:
        float32 [batch, width], or as many times the width as there are poolings.
    """
    if isinstance(pooling, tuple):
        return np.concatenate([pool_tokens(tokens, one) for one in pooling], axis=-1)
    length = tokens.shape[1]
    pooled: Vector
    match pooling:
        case "cls":
            return tokens[:, 0].copy()
        case "last_token":
            return tokens[:, -1].copy()
        case "mean":
            pooled = tokens.mean(axis=1, dtype=np.float32)
        case "max":
            pooled = tokens.max(axis=1)
        case "mean_sqrt_len_tokens":
            pooled = tokens.sum(axis=1, dtype=np.float32) / np.sqrt(np.float32(length))
        case "weightedmean":
            weights = np.arange(1, length + 1, dtype=np.float32)
            pooled = weights @ tokens / weights.sum()
        case _:
            assert_never(pooling)
    return pooled
