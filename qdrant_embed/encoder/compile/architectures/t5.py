"""T5's encoder (Raffel et al. 2020): positions only as a bias of the attention, by distance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from qdrant_embed.encoder.compile.graph import MICROSOFT
from qdrant_embed.encoder.compile.layers.distances import BUCKETS, DistanceBias, by_bucket
from qdrant_embed.encoder.compile.layers.transformer import LayerTensors, TransformerGraph
from qdrant_embed.encoder.compile.quantize import (
    Array,
    Kind,
)
from qdrant_embed.encoder.facts.architectures import Activation, T5Config

_ATTENTION, _BLOCK = "layer.0.SelfAttention", "layer.1.DenseReluDense"


class T5Graph(TransformerGraph[T5Config]):
    """The graph of a model of architecture ``t5``, its encoder alone; see `TransformerGraph`."""

    words: ClassVar[str] = "shared.weight"
    tensors = LayerTensors(
        layers="encoder.block",
        qkv=(f"{_ATTENTION}.q", f"{_ATTENTION}.k", f"{_ATTENTION}.v"),
        o=(f"{_ATTENTION}.o",),
        attention_norm="layer.0.layer_norm",
        f1=(f"{_BLOCK}.wi",),
        f2=(f"{_BLOCK}.wo",),
        output_norm="layer.1.layer_norm",
    )

    def __init__(
        self,
        weights: Mapping[str, Array],
        config: T5Config,
        *arguments: Any,
    ) -> None:
        if config.feed_forward_proj == "gated-gelu":
            self.gated = True
            self.tensors = replace(self.tensors, f1=(f"{_BLOCK}.wi_0", f"{_BLOCK}.wi_1"))
        super().__init__(weights, config, *arguments)

    @property
    def epsilon(self) -> float:
        """What norms add to the mean square."""
        return self.config.layer_norm_epsilon

    @property
    def activation_name(self) -> Activation:
        """The feed-forward block's activation."""
        return "gelu_new" if self.gated else "relu"

    def has_bias(self, kind: Kind) -> bool:
        """Return whether the linear layers of a kind of group have a bias: none has."""
        del kind
        return False

    def embeddings(self) -> str:
        """Add words, and the bias of the first layer's attention, which all layers share."""
        hidden = self.word_vectors()
        table = self.tensor(
            f"{self.tensors.layers}.0.{_ATTENTION}.relative_attention_bias.weight",
            BUCKETS,
            self.config.num_attention_heads,
        )
        self._bias = DistanceBias(self.graph, by_bucket(table, self.spec.max_tokens))
        return hidden

    def hidden_states(self, *, first_row_only: bool = False) -> str:
        """Add the embeddings, all layers and the last norm: [batch, tokens, hidden_size]."""
        hidden = super().hidden_states(first_row_only=first_row_only)
        return self.norm(hidden, "encoder.final_layer_norm")

    def layer(self, hidden: str, number: int, *, first_row_only: bool) -> str:
        """Add one layer, whose norms come before its blocks."""
        return self.pre_norm_layer(hidden, number, first_row_only=first_row_only)

    def attend(self, query: str, key: str, value: str, number: int, *, first_row_only: bool) -> str:
        """Add the attention, with its bias by distance."""
        del number
        bias = self._bias
        attended = bias.first_attended if first_row_only else bias.attended
        return attended(self.multi_head_attention, query, key, value)

    def multi_head_attention(self, query: str, key: str, value: str, bias: str = "") -> str:
        """Add softmax(query · key + bias) · value for each head: nothing is scaled."""
        return self.graph.node(
            "MultiHeadAttention",
            *(query, key, value, "", "", bias),
            domain=MICROSOFT,
            num_heads=self.config.num_attention_heads,
            scale=1.0,
        )

    def norm(self, hidden: str, name: str) -> str:
        """Add a norm."""
        return self.rms_norm(hidden, self.tensor(f"{name}.weight", self.config.hidden_size))
