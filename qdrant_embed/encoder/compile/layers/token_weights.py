"""A head that weighs each token of a text, beside the vector of the whole text.

The weight of a token is relu(w · h + b), where h is its state after the last layer (Chen et al.
2024, M3-Embedding).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qdrant_embed.encoder.compile.graph import Graph
from qdrant_embed.encoder.compile.quantize import Array
from qdrant_embed.encoder.files.tensors import read_tensors
from qdrant_embed.encoder.run.backend import WEIGHED
from qdrant_embed.errors import ModelFileError


@dataclass(frozen=True)
class TokenHead:
    """The linear layer of the head: weight [1, hidden_size], bias [1]."""

    weight: Array
    bias: Array


def read_token_head(path: Path, width: int) -> TokenHead:
    """Read the head of a model whose states have this width.

    Raises:
        ModelFileError: the file is damaged, or not that of such a head.
    """
    tensors = dict(read_tensors([path]))
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    if shapes != {"weight": (1, width), "bias": (1,)}:
        raise ModelFileError(
            f"{path} has the tensors {shapes!r:.200}, but the head that weighs tokens has a weight "
            f"of shape (1, {width}) and a bias of shape (1,)"
        )
    return TokenHead(tensors["weight"], tensors["bias"])


def add_token_weights(graph: Graph, hidden: str, head: TokenHead) -> None:
    """Add the output `WEIGHED`, float32 [batch, tokens]."""
    weights = graph.node("MatMul", hidden, graph.constant(head.weight.T))
    weights = graph.node("Add", weights, graph.constant(head.bias))
    weights = graph.node("Squeeze", weights, graph.integers(2))
    graph.node("Relu", weights)
    graph.rename_last(WEIGHED)
