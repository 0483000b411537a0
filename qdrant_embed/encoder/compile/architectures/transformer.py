"""The layers that the transformer encoders have in common, one after the other."""

from __future__ import annotations

import copy
from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from qdrant_embed.encoder.compile.architectures.config import Activation, Weights
from qdrant_embed.encoder.compile.architectures.layers import C, LayerParts
from qdrant_embed.encoder.compile.graph import MICROSOFT, Graph
from qdrant_embed.encoder.compile.quantize import NOTHING_QUANTIZED, QuantizationPlan
from qdrant_embed.encoder.facts.spec import ModelSpec

HIDDEN = "hidden"  # an input of the graph of a stage
_GELU = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}


class TransformerGraph(LayerParts[C]):
    """The graph of a model: ``input_ids`` to ``embedding``, float32 [batch, dimension].

    A subclass says what its tensors are called and adds `embeddings`; its layers are those of
    BERT (the norm after each block) unless it has a `layer` of its own. For another head than
    pooling override `vectors`, and build it on `hidden_states`.

    Args:
        weights: float32 tensors by their names in transformers, with any one prefix.
        config: the model's ``config.json``.
        spec: pooling, normalisation and the number of positions to keep.
        plan: which groups are int8, and with what numbers; none by default.

    Raises:
        ModelFileError: a tensor is missing or has another shape than the config says.
    """

    def __init__(
        self,
        weights: Weights,
        config: C,
        spec: ModelSpec,
        plan: QuantizationPlan = NOTHING_QUANTIZED,
    ) -> None:
        super().__init__(weights, config, spec, plan)
        self.output = "embedding"
        self._numbers = range(config.num_hidden_layers)
        self.vectors()
        self.graph.rename_last(self.output)

    def stage(self, number: int) -> TransformerGraph[C]:
        """Layer `number` as a graph of its own, so that a model can be run in little memory.

        It reads `HIDDEN` states and gives `output`, both float32 [batch, tokens, hidden_size]; but
        the first embeds, and the last gives the vectors.
        """
        part = copy.copy(self)
        part.graph, part.group_inputs, part._numbers = Graph(), {}, range(number, number + 1)
        if number == self.config.num_hidden_layers - 1:
            part.vectors()
        else:
            part.output = "next_hidden"
            part._layers(first_row_only=False)
        part.graph.rename_last(part.output)
        return part

    @property
    @abstractmethod
    def activation_name(self) -> Activation:
        """The feed-forward block's activation."""

    @abstractmethod
    def embeddings(self) -> str:
        """Adds what the first layer reads, [batch, tokens, hidden_size]."""

    def save(self, path: Path, *, taps: bool = False) -> None:
        """Writes the model to `path`; with `taps` the inputs of all groups are outputs too."""
        outputs: dict[str, list[Any] | None] = {self.output: None}
        if self.output == "embedding":
            outputs = {self.output: ["batch", self.spec.dimension]}
        if taps:
            outputs |= dict.fromkeys(set(self.group_inputs.values()) - {HIDDEN})
        self.graph.save(path, outputs)

    def vectors(self) -> str:
        """Adds all of the graph; its last node gives the vectors."""
        return self.pool(self.hidden_states(first_row_only=self.spec.pooling == "cls"))

    def hidden_states(self, *, first_row_only: bool = False) -> str:
        """Adds the embeddings and all layers: [batch, tokens, hidden_size].

        With `first_row_only` the last layer is computed for the first token alone.
        """
        return self._layers(first_row_only=first_row_only)

    def _layers(self, *, first_row_only: bool) -> str:
        hidden = self.embeddings()  # adds what later layers share, too
        if self._numbers.start:
            hidden = self.graph.input(HIDDEN, ["batch", "tokens", self.config.hidden_size])
        for number in self._numbers:
            last = number == self.config.num_hidden_layers - 1
            hidden = self.layer(hidden, number, first_row_only=last and first_row_only)
        return hidden

    def word_vectors(self) -> str:
        """Adds the words' vectors; a stage that does not embed has none, and reads no table."""
        return "" if self._numbers.start else super().word_vectors()

    def layer(self, hidden: str, number: int, *, first_row_only: bool) -> str:
        """Adds one layer; with `first_row_only` for the first token alone."""
        name = f"{self.tensors.layers}.{number}"
        shared = self.group_input(hidden, f"{number}.qkv")
        rows = self.first_row(shared) if first_row_only else shared
        residual = self.first_row(hidden) if first_row_only else hidden
        attended = self.attention(rows, shared, number, first_row_only=first_row_only)
        hidden = self.layer_norm(
            self.graph.node("Add", attended, residual), f"{name}.{self.tensors.attention_norm}"
        )
        expanded = self.feed_forward(hidden, number)
        return self.layer_norm(
            self.graph.node("Add", expanded, hidden), f"{name}.{self.tensors.output_norm}"
        )

    def attention(self, rows: str, shared: str, number: int, *, first_row_only: bool) -> str:
        """Adds a layer's attention of `rows` to `shared`, and its output projection."""
        key = f"{number}.qkv"
        attended = self.attend(
            self.linear(rows, key, 0),
            self.linear(shared, key, 1),
            self.linear(shared, key, 2),
            number,
            first_row_only=first_row_only,
        )
        return self.linear(self.group_input(attended, f"{number}.o"), f"{number}.o")

    def attend(self, query: str, key: str, value: str, number: int, *, first_row_only: bool) -> str:
        """Adds the attention itself; with `first_row_only` the query is that of one token."""
        del number, first_row_only
        return self.multi_head_attention(query, key, value)

    def multi_head_attention(self, query: str, key: str, value: str, bias: str = "") -> str:
        """Adds softmax(query · key / √size + bias) · value for each head."""
        inputs = [query, key, value, "", "", bias] if bias else [query, key, value]
        return self.graph.node(
            "MultiHeadAttention",
            *inputs,
            domain=MICROSOFT,
            num_heads=self.config.num_attention_heads,
        )

    def feed_forward(self, hidden: str, number: int) -> str:
        """Adds a layer's feed-forward block."""
        shared = self.group_input(hidden, f"{number}.f1")
        inner = self.activation(self.linear(shared, f"{number}.f1"))
        if self.gated:
            inner = self.graph.node("Mul", inner, self.linear(shared, f"{number}.f1", 1))
        return self.linear(self.group_input(inner, f"{number}.f2"), f"{number}.f2")

    def activation(self, hidden: str) -> str:
        """Adds the feed-forward block's activation."""
        name = self.activation_name
        if name == "relu":
            return self.graph.node("Relu", hidden)
        if name == "silu":
            return self.graph.node("Mul", hidden, self.graph.node("Sigmoid", hidden))
        return self.graph.node("Gelu", hidden, approximate=_GELU[name])

    def pool(self, hidden: str) -> str:
        """Adds pooling and normalisation; for ``cls`` of the first token alone."""
        axis = self.graph.integers(1)
        if self.spec.pooling == "cls":
            pooled = self.graph.node("Squeeze", hidden, axis)
        elif self.spec.pooling == "last_token":
            last = self.graph.scalar(-1, np.int64)
            pooled = self.graph.node("Gather", hidden, last, axis=1)
        else:
            pooled = self.graph.node("ReduceMean", hidden, axis, keepdims=0)
        if not self.spec.normalize:
            return pooled
        return self.graph.node("LpNormalization", pooled, axis=-1, p=2)
