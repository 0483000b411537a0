"""Gemma 3's language model (Gemma Team 2025): most layers attend within a window.

Blocks have a norm before and one after them, which multiply with one more than their weights, and
heads of queries and keys are normed before they are rotated.
"""

from __future__ import annotations

import numpy as np

from qdrant_embed.encoder.compile.layers.decoder import DecoderGraph
from qdrant_embed.encoder.compile.quantize import Array, LinearGroup
from qdrant_embed.encoder.facts.architectures import Gemma3Config


class Gemma3Graph(DecoderGraph[Gemma3Config]):
    """The graph of a model of architecture ``gemma3_text``; see `TransformerGraph`."""

    @property
    def score_scale(self) -> float:
        """What the attention's scores are multiplied with."""
        return float(self.config.query_pre_attn_scalar**-0.5)

    def embeddings(self) -> str:
        """Add words, scaled, and what all layers of a kind share."""
        scale = self.graph.scalar(self.config.hidden_size**0.5, np.float32)
        return self.graph.node("Mul", super().embeddings(), scale)

    def attend(self, query: str, key: str, value: str, number: int, *, first_row_only: bool) -> str:
        """Add the attention, with the heads of queries and keys normed and rotated."""
        name = f"{self.tensors.layers}.{number}.self_attn"
        query = self.head_norm(query, f"{name}.q_norm", self.config.num_attention_heads)
        key = self.head_norm(key, f"{name}.k_norm", self.config.key_heads)
        return super().attend(query, key, value, number, first_row_only=first_row_only)

    def after_attention(self, attended: str, residual: str, name: str) -> str:
        """Add what the attention of the layer called `name` gave, normed, to its input."""
        normed = self.norm(attended, f"{name}.post_attention_layernorm")
        return self.graph.node("Add", normed, residual)

    def after_feed_forward(self, hidden: str, number: int, name: str) -> str:
        """Add the feed-forward block of the layer called `name`, normed, to `hidden`, its input."""
        group = LinearGroup(number, "f1")
        normed = self.norm(hidden, f"{name}.pre_feedforward_layernorm", group)
        expanded = self.norm(
            self.feed_forward(normed, number), f"{name}.post_feedforward_layernorm"
        )
        return self.graph.node("Add", expanded, hidden)

    def norm_weight(self, name: str, width: int) -> Array:
        """Read what a norm multiplies with: its weights and one."""
        return 1 + super().norm_weight(name, width)
