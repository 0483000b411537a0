"""Jina's BERT (Günther et al. 2023): ALiBi instead of positions, and gated blocks.

Later models of the family norm queries and keys, add and norm once more after the attention, and
have the parts of the gated block in the other order, under other names: the weights show it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from qdrant_embed.encoder.compile.layers.distances import DistanceBias, alibi
from qdrant_embed.encoder.compile.layers.transformer import LayerTensors, TransformerGraph
from qdrant_embed.encoder.compile.quantize import Array, Kind
from qdrant_embed.encoder.facts.architectures import Activation, JinaBertConfig

_FIRST = LayerTensors(
    layers="encoder.layer",
    qkv=("attention.self.query", "attention.self.key", "attention.self.value"),
    o=("attention.output.dense",),
    attention_norm="attention.output.LayerNorm",
    f1=("mlp.gated_layers",),
    f2=("mlp.wo",),
    output_norm="mlp.layernorm",
)
_LATER = replace(
    _FIRST,
    f1=("mlp.up_gated_layer",),
    f2=("mlp.down_layer",),
    output_norm="layer_norm_2",
    gate_last=True,
)
_QUERY_NORM, _KEY_NORM = "attention.self.layer_norm_q", "attention.self.layer_norm_k"
_SECOND_NORM = "layer_norm_1"


class JinaBertGraph(TransformerGraph[JinaBertConfig]):
    """The graph of a model of architecture ``jina_bert``; see `TransformerGraph`."""

    tensors = _FIRST
    gated = True

    def __init__(self, weights: Mapping[str, Array], *arguments: Any) -> None:
        named = {name.partition(f"{_FIRST.layers}.0.")[2] for name in weights}
        if f"{_LATER.f1[0]}.weight" in named:
            self.tensors = _LATER
        self._norms = {norm for norm in (_QUERY_NORM, _SECOND_NORM) if f"{norm}.weight" in named}
        super().__init__(weights, *arguments)

    @property
    def epsilon(self) -> float:
        """What layer norms add to the variance."""
        return self.config.layer_norm_eps

    @property
    def activation_name(self) -> Activation:
        """The feed-forward block's activation."""
        return "relu" if self.config.feed_forward_type == "reglu" else self.config.hidden_act

    def has_bias(self, kind: Kind) -> bool:
        """Return whether the linear layers of a kind of group have a bias."""
        return kind != "f1"

    def embeddings(self) -> str:
        """Add words and the first token type, normed, and the bias that all layers share."""
        config, hidden = self.config, self.word_vectors()
        hidden = self.with_types(hidden, config.type_vocab_size)
        table = alibi(config.num_attention_heads, self.spec.max_tokens)
        self._bias = DistanceBias(self.graph, table)
        return self.layer_norm(hidden, "embeddings.LayerNorm")

    def attend(self, query: str, key: str, value: str, number: int, *, first_row_only: bool) -> str:
        """Add the attention, with its bias by distance."""
        if _QUERY_NORM in self._norms:
            name = f"{self.tensors.layers}.{number}"
            query = self.layer_norm(query, f"{name}.{_QUERY_NORM}")
            key = self.layer_norm(key, f"{name}.{_KEY_NORM}")
        bias = self._bias
        attended = bias.first_attended if first_row_only else bias.attended
        return attended(self.multi_head_attention, query, key, value)

    def after_attention(self, attended: str, residual: str, name: str) -> str:
        """Add what the attention gave to its input, normed; in later models twice."""
        hidden = super().after_attention(attended, residual, name)
        if _SECOND_NORM not in self._norms:
            return hidden
        return self.layer_norm(self.graph.node("Add", hidden, residual), f"{name}.{_SECOND_NORM}")
