"""What follows a model's pooling, in a graph and in numpy: Dense, LayerNorm and Normalize modules.

All of it is float32: it is computed once a text, not once a token.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.encoder.facts.head import HeadModule
from qdrant_embed.encoder.interfaces import Vector
from qdrant_embed.encoder.run.backend import l2_normalized
from qdrant_embed.encoder.run.pooling import GraphNodes
from qdrant_embed.errors import ModelFileError

_EPSILON = 1e-5  # of torch's LayerNorm
_ERF = np.frompyfunc(math.erf, 1, 1)


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
