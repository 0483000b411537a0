"""The heads of cross-encoders whose tensors are among the model's own weights.

They follow the pooling as the modules of a sentence-transformers chain do, and are float32, because
they are computed once a pair, not once a token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qdrant_embed.encoder.compile.large_tensors import row_blocks, shape_of
from qdrant_embed.encoder.compile.quantize import Array
from qdrant_embed.encoder.facts.head import LayerActivation, ScoreLayer
from qdrant_embed.encoder.interfaces import assert_never
from qdrant_embed.encoder.run.pooling import GraphNodes, Head
from qdrant_embed.errors import ModelFileError

# of a language model without a table of its own for the next token
_WORDS = "embed_tokens"
_ROWS = 4096  # of its table that are in memory at once


@dataclass(frozen=True)
class ScoreHead(Head):
    """Layers from a pooled vector to a score, each with its tensors: the weight, then the bias."""

    layers: Sequence[tuple[ScoreLayer, Sequence[Array]]] = ()

    def added_to(self, graph: GraphNodes, vectors: str) -> str:
        """Add the layers to a graph, behind `vectors`; return the name of their output."""
        for layer, tensors in self.layers:
            parts = [graph.constant(tensor) for tensor in tensors]
            if layer.kind == "layer_norm":
                vectors = graph.node(
                    "LayerNormalization", vectors, *parts, axis=-1, epsilon=layer.epsilon
                )
                continue
            vectors = graph.node("MatMul", vectors, parts[0])
            if layer.bias:
                vectors = graph.node("Add", vectors, parts[1])
            vectors = _activated(graph, vectors, layer.activation)
        return vectors


def _activated(graph: GraphNodes, hidden: str, activation: LayerActivation) -> str:
    match activation:
        case "identity":
            return hidden
        case "tanh":
            return graph.node("Tanh", hidden)
        case "relu":
            return graph.node("Relu", hidden)
        case "gelu":
            return graph.node("Gelu", hidden)
        case "gelu_new":
            return graph.node("Gelu", hidden, approximate="tanh")
        case "silu":
            return graph.node("Mul", hidden, graph.node("Sigmoid", hidden))
        case _:
            assert_never(activation)


def score_head(
    weights: Mapping[str, Array], layers: Sequence[ScoreLayer], width: int, model: str
) -> ScoreHead:
    """Read the layers of a model's head.

    Args:
        weights: the model's tensors by name, with or without a prefix.
        layers: the layers, in order; the last one has one output, all others as many as inputs.
        width: dimension of the pooled vector.
        model: the model's name, for errors.

    Raises:
        ModelFileError: a tensor is missing, or has another shape.
    """
    found: list[tuple[ScoreLayer, list[Array]]] = []
    for number, layer in enumerate(layers):
        outputs = 1 if number == len(layers) - 1 else width
        match layer.kind:
            case "difference":
                found.append((layer, [_difference(weights, layer, width, model)]))
            case "layer_norm":
                parts = ["weight", "bias"] if layer.bias else ["weight"]
                found.append(
                    (layer, [_tensor(weights, f"{layer.name}.{p}", (width,), model) for p in parts])
                )
            case "dense":
                weight = _tensor(weights, f"{layer.name}.weight", (outputs, width), model)
                tensors = [np.ascontiguousarray(weight.T)]
                if layer.bias:
                    tensors.append(_tensor(weights, f"{layer.name}.bias", (outputs,), model))
                found.append((layer, tensors))
            case _:
                assert_never(layer.kind)
    return ScoreHead(layers=tuple(found))


def _difference(weights: Mapping[str, Array], layer: ScoreLayer, width: int, model: str) -> Array:
    """Return what the last token's vector is multiplied with, [width, 1]."""
    own = _name(weights, f"{layer.name}.weight")
    name = own or _name(weights, f"{_WORDS}.weight")
    if name is None:
        raise ModelFileError(f"{model}: the weights have neither {layer.name!r} nor {_WORDS!r}")
    shape, rows = shape_of(weights, name), layer.rows or (0, 0)
    if len(shape) != 2 or shape[1] != width or max(rows) >= shape[0]:
        raise ModelFileError(
            f"{model}: a table of shape {shape} has no rows of {width} numbers for tokens "
            f"{rows[0]} and {rows[1]}"
        )
    difference = np.zeros(width, np.float32)
    for number, block in enumerate(row_blocks(weights, name, _ROWS)):
        for row, sign in zip(rows, (1, -1), strict=True):
            if number == row // _ROWS:
                difference += sign * block[row % _ROWS]
    return difference[:, None]


def _tensor(weights: Mapping[str, Array], name: str, shape: tuple[int, ...], model: str) -> Array:
    found = _name(weights, name)
    if found is None:
        raise ModelFileError(
            f"{model}: the weights have no tensor {name!r}, which the head of a cross-encoder has"
        )
    tensor = weights[found]
    if tensor.shape != shape:
        raise ModelFileError(
            f"{model}: tensor {name!r} of the head should have shape {shape}, but has "
            f"{tensor.shape}"
        )
    return tensor


def _name(weights: Mapping[str, Array], name: str) -> str | None:
    """Return the whole name of a tensor, whatever prefix it has; the shortest if several fit."""
    names = [known for known in weights if known == name or known.endswith(f".{name}")]
    return min(names, key=len, default=None)
