"""Qwen3 (Yang et al. 2025): each head of queries and keys is normed before it is rotated."""

from __future__ import annotations

from qdrant_embed.encoder.compile.layers.decoder import DecoderGraph
from qdrant_embed.encoder.facts.architectures import Qwen3Config


class Qwen3Graph(DecoderGraph[Qwen3Config]):
    """The graph of a model of architecture ``qwen3``; see `TransformerGraph`."""

    def attend(self, query: str, key: str, value: str, number: int, *, first_row_only: bool) -> str:
        """Add the attention, with the heads of queries and keys normed and rotated."""
        name = f"{self.tensors.layers}.{number}.self_attn"
        query = self.head_norm(query, f"{name}.q_norm", self.config.num_attention_heads)
        key = self.head_norm(key, f"{name}.k_norm", self.config.key_heads)
        return super().attend(query, key, value, number, first_row_only=first_row_only)
