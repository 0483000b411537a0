"""Qwen2 (Yang et al. 2024): queries, keys and values have a bias, and nothing else has."""

from __future__ import annotations

from qdrant_embed.encoder.compile.layers.decoder import DecoderGraph
from qdrant_embed.encoder.compile.quantize import Kind
from qdrant_embed.encoder.facts.architectures import Qwen2Config


class Qwen2Graph(DecoderGraph[Qwen2Config]):
    """The graph of a model of architecture ``qwen2``; see `TransformerGraph`."""

    def has_bias(self, kind: Kind) -> bool:
        """Return whether the linear layers of a kind of group have a bias."""
        return kind == "qkv"
