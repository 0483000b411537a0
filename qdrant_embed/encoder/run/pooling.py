"""Pooling: how a model's token vectors become one, and what follows, in a graph and in numpy.

What follows are the modules that sentence-transformers calls Dense, LayerNorm and Normalize. All of
it is float32, because it is computed once a text, not once a token.

To add a pooling, add its name to `Pooling` in ``interfaces.py`` (sentence-transformers' name, with
underscores) and its two ways here; type checking then finds nothing else to do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.encoder.facts.head import HeadModule
from qdrant_embed.encoder.interfaces import Pooling, Poolings, Vector, assert_never
from qdrant_embed.encoder.run.backend import l2_normalized
from qdrant_embed.errors import ModelFileError

_EPSILON = 1e-5  # of torch's LayerNorm
_ERF = np.frompyfunc(math.erf, 1, 1)


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


@dataclass(frozen=True)
class Head:
    """Modules after the pooling, in their order, each with its tensors by name."""

    modules: Sequence[tuple[HeadModule, Mapping[str, NDArray[Any]]]] = ()

    def added_to(self, graph: GraphNodes, vectors: str) -> str:
        """Add the modules to a graph, behind `vectors`; return the name of their output."""
        for module, tensors in self.modules:
            match module.kind:
                case "normalize":
                    vectors = graph.node("LpNormalization", vectors, axis=-1, p=2)
                case "layer_norm":
                    parts = (graph.constant(tensors[f"norm.{part}"]) for part in ("weight", "bias"))
                    vectors = graph.node(
                        "LayerNormalization", vectors, *parts, axis=-1, epsilon=_EPSILON
                    )
                case "dense":
                    vectors = _dense_node(graph, vectors, module, tensors)
        return vectors

    def applied_to(self, vectors: Vector) -> Vector:
        """Return what the modules make of vectors, float32 [batch, dimension]."""
        for module, tensors in self.modules:
            match module.kind:
                case "normalize":
                    vectors = l2_normalized(vectors)
                case "layer_norm":
                    centred = vectors - vectors.mean(axis=-1, keepdims=True)
                    variance = np.square(centred).mean(axis=-1, keepdims=True)
                    scaled = centred / np.sqrt(variance + np.float32(_EPSILON))
                    vectors = scaled * tensors["norm.weight"] + tensors["norm.bias"]
                case "dense":
                    vectors = _dense(vectors, module, tensors)
        return vectors.astype(np.float32, copy=False)


NO_HEAD = Head()


def read_head(modules: Sequence[HeadModule]) -> Head:
    """Read the weights of the modules after a pooling.

    Raises:
        ModelFileError: they are damaged, or not those that the modules' configs describe.
    """
    from qdrant_embed.encoder.files.tensors import read_tensors

    found = []
    for module in modules:
        if module.weights is None and module.kind != "normalize":
            raise ModelFileError(
                f"a module of kind {module.kind!r} after the pooling has no weights"
            )
        tensors = dict(read_tensors([module.weights])) if module.weights is not None else {}
        expected = _shapes(module, tensors)
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        if shapes != expected:
            raise ModelFileError(
                f"{module.weights} has the tensors {shapes!r:.300}, but by its config.json it "
                f"should have {expected}"
            )
        found.append((module, tensors))
    return Head(tuple(found))


def _shapes(module: HeadModule, tensors: Mapping[str, NDArray[Any]]) -> dict[str, tuple[int, ...]]:
    """Return the shapes that a module's tensors should have."""
    if module.kind == "normalize":
        return {}
    if module.kind == "layer_norm":
        return {f"norm.{part}": (module.inputs or 0,) for part in ("weight", "bias")}
    outputs = module.outputs or 0
    stated = tensors["linear.weight"].shape[-1:] if "linear.weight" in tensors else ()
    inputs = module.inputs or (stated[0] if stated else 0)
    shapes: dict[str, tuple[int, ...]] = {"linear.weight": (outputs, inputs)}
    if module.bias:
        shapes["linear.bias"] = (outputs,)
    if module.residual and inputs != outputs:
        shapes["residual.weight"] = (outputs, inputs)
    return shapes


def _dense_node(
    graph: GraphNodes, vectors: str, module: HeadModule, tensors: Mapping[str, NDArray[Any]]
) -> str:
    read = vectors
    vectors = graph.node("MatMul", vectors, graph.constant(tensors["linear.weight"].T))
    if module.bias:
        vectors = graph.node("Add", vectors, graph.constant(tensors["linear.bias"]))
    match module.activation:
        case "tanh":
            vectors = graph.node("Tanh", vectors)
        case "gelu":
            vectors = graph.node("Gelu", vectors)
        case "identity":
            pass
    if not module.residual:
        return vectors
    if "residual.weight" in tensors:
        read = graph.node("MatMul", read, graph.constant(tensors["residual.weight"].T))
    return graph.node("Add", vectors, read)


def _dense(vectors: Vector, module: HeadModule, tensors: Mapping[str, NDArray[Any]]) -> Vector:
    read = vectors
    vectors = vectors @ tensors["linear.weight"].T
    if module.bias:
        vectors = vectors + tensors["linear.bias"]
    match module.activation:
        case "tanh":
            vectors = np.tanh(vectors)
        case "gelu":
            share = _ERF(vectors / np.sqrt(np.float32(2))).astype(np.float32)
            vectors = vectors * (1 + share) / 2
        case "identity":
            pass
    if not module.residual:
        return vectors
    residual = tensors.get("residual.weight")
    return vectors + (read if residual is None else read @ residual.T)
