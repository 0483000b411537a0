"""The head that guesses masked words, pooled to one weight for each term as SPLADE does.

The weight of a term is log(1 + relu(x)), where x is the largest logit of the term over all tokens,
special ones included (Formal et al. 2021, SPLADE v2); models of OpenSearch take the logarithm
twice. Bias, relu and logarithms keep the order, so they are applied once a text, not once a token.

The logits of a text, tokens times vocabulary, would be the largest thing in memory: 62 MB for 512
tokens of BERT. So the vocabulary is cut into blocks, and of each block only the largest logits are
kept before the next one is computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from qdrant_embed.encoder.compile.graph import Graph
from qdrant_embed.encoder.compile.quantize import Array, Linear, LinearGroup
from qdrant_embed.encoder.facts.spec import ModelSpec
from qdrant_embed.encoder.interfaces import TermWeighting, assert_never
from qdrant_embed.errors import ModelFileError

_BLOCK = 4096  # terms whose logits are held together


@dataclass(frozen=True)
class TermHead:
    """Names of a head's tensors.

    Attributes:
        dense: the linear layer before the activation.
        norm: the layer norm after it.
        decoder: names of the table of terms, the first that the weights have; tied ones may be
            saved as the table of words alone.
        bias: names of what is added to the logits, the first that the weights have; of untied ones,
            the decoder's own counts.
        dense_bias: whether the linear layer has a bias.
        norm_bias: whether the layer norm has one.
        activation: the activation, if it is not that of the layers.
    """

    dense: str
    norm: str
    decoder: tuple[str, ...]
    bias: tuple[str, ...]
    dense_bias: bool = True
    norm_bias: bool = True
    activation: str | None = None


class TermModel(Protocol):
    """What a head needs of the transformer that it follows."""

    words: ClassVar[str]
    graph: Graph
    spec: ModelSpec
    config: Any

    @property
    def term_head(self) -> TermHead | None:
        """Names of the head's tensors; ``None`` for architectures without one."""

    @property
    def last(self) -> int:
        """Number of the last layer."""

    def tensor(self, name: str, *shape: int) -> Array:
        """Read a tensor."""

    def has_tensor(self, name: str) -> bool:
        """Return whether the weights have a tensor of this name."""

    def activation(self, hidden: str) -> str:
        """Add the activation of the layers."""

    def layer_norm(self, hidden: str, name: str, *, has_bias: bool = True) -> str:
        """Add a layer norm."""

    def group_input(self, hidden: str, group: LinearGroup) -> str:
        """Add what the linear layers of a group read."""

    def linear(self, shared: str, group: LinearGroup, position: int = 0) -> str:
        """Add one linear layer of a group."""


def add_term_weights(model: TermModel, hidden: str) -> str:
    """Add a model's head behind the states of all tokens; return its output, [batch, terms]."""
    graph, width, head = model.graph, model.config.hidden_size, _head(model)
    dense = model.tensor(f"{head.dense}.weight", width, width)
    hidden = graph.node("MatMul", hidden, graph.constant(dense.T))
    if head.dense_bias:
        bias = model.tensor(f"{head.dense}.bias", width)
        hidden = graph.node("Add", hidden, graph.constant(bias))
    if head.activation is None:
        hidden = model.activation(hidden)
    else:
        hidden = graph.node("Gelu", hidden, approximate=head.activation)
    hidden = model.layer_norm(hidden, head.norm, has_bias=head.norm_bias)
    group = LinearGroup(model.last, "terms")
    shared = model.group_input(hidden, group)
    largest = [
        graph.node(
            "ReduceMax", model.linear(shared, group, position), graph.integers(1), keepdims=0
        )
        for position in range(-(-model.config.vocab_size // _BLOCK))
    ]
    logits = largest[0] if len(largest) == 1 else graph.node("Concat", *largest, axis=-1)
    return _weighted(graph, graph.node("Relu", logits), model.spec.term_weighting)


def term_linears(model: TermModel) -> list[Linear]:
    """Read the table of terms as linear layers, one for each block of the vocabulary."""
    head, terms, width = _head(model), model.config.vocab_size, model.config.hidden_size
    decoder = model.tensor(_present(model, (*head.decoder, model.words)), terms, width)
    bias = model.tensor(_present(model, head.bias), terms)
    starts = range(0, terms, _BLOCK)
    return [(decoder[start : start + _BLOCK].T, bias[start : start + _BLOCK]) for start in starts]


def _weighted(graph: Graph, positive: str, weighting: TermWeighting) -> str:
    one = graph.scalar(1, np.float32)

    def logarithm(values: str) -> str:
        return graph.node("Log", graph.node("Add", values, one))

    match weighting:
        case "log":
            return logarithm(positive)
        case "log_log":
            return logarithm(logarithm(positive))
        case _:
            assert_never(weighting)


def _head(model: TermModel) -> TermHead:
    if (head := model.term_head) is None:
        raise ModelFileError(
            f"{model.spec.name}: models of architecture {model.config.architecture!r} cannot be "
            "run for the task 'terms'"
        )
    return head


def _present(model: TermModel, names: tuple[str, ...]) -> str:
    """Choose the first of `names` that the weights have, else the first."""
    return next((name for name in names if model.has_tensor(name)), names[0])
