"""EuroBERT (Boizard et al. 2025): built like Llama, but tokens attend in both directions."""

from __future__ import annotations

from qdrant_embed.encoder.compile.layers.decoder import DecoderGraph
from qdrant_embed.encoder.facts.architectures import EuroBertConfig


class EuroBertGraph(DecoderGraph[EuroBertConfig]):
    """The graph of a model of architecture ``eurobert``; see `TransformerGraph`."""
