"""MPNet (Song et al. 2020): BERT whose attention also depends on the tokens' distance."""

from __future__ import annotations

import numpy as np

from qdrant_embed.encoder.compile.architectures.bert import BertGraph
from qdrant_embed.encoder.compile.layers.distances import BUCKETS, DistanceBias, by_bucket
from qdrant_embed.encoder.compile.layers.transformer import LayerTensors
from qdrant_embed.encoder.compile.quantize import Array


class MPNetGraph(BertGraph):
    """The graph of a model of architecture ``mpnet``; see `TransformerGraph`."""

    plain_attention = False
    tensors = LayerTensors(
        layers="encoder.layer",
        qkv=("attention.attn.q", "attention.attn.k", "attention.attn.v"),
        o=("attention.attn.o",),
        attention_norm="attention.LayerNorm",
        f1=("intermediate.dense",),
        f2=("output.dense",),
        output_norm="output.LayerNorm",
    )

    def embeddings(self) -> str:
        """Add BERT's embeddings, and the attention's bias, which all layers share."""
        hidden = super().embeddings()
        table = self.tensor(
            "encoder.relative_attention_bias.weight", BUCKETS, self.config.num_attention_heads
        )
        by_distance = by_bucket(table, self.spec.max_tokens)
        self._in_blocks = self.config.attends_in_parts(self.spec.max_tokens)
        if self._in_blocks:
            self._blocks = DistanceBias(self.graph, by_distance)
            return hidden
        self._bias = self._attention_bias(by_distance)
        self._first_bias = self.graph.node(
            "Slice", self._bias, *(self.graph.integers(number) for number in (0, 1, 2))
        )
        return hidden

    def attend(self, query: str, key: str, value: str, number: int, *, first_row_only: bool) -> str:
        """Add the attention, with its bias; of a model for long texts in flat memory."""
        del number
        if self._in_blocks:
            blocks = self._blocks
            attended = blocks.first_attended if first_row_only else blocks.attended
            return attended(self.multi_head_attention, query, key, value)
        bias = self._first_bias if first_row_only else self._bias
        return self.multi_head_attention(query, key, value, bias)

    def _attention_bias(self, by_distance: Array) -> str:
        """Add the bias of each head for each pair of tokens: [1, heads, tokens, tokens]."""
        graph = self.graph
        length = graph.node("Squeeze", graph.node("Shape", "input_ids", start=1, end=2))
        zero, one = graph.scalar(0, np.int64), graph.scalar(1, np.int64)
        positions = graph.node("Range", zero, length, one)
        distances = graph.node(
            "Sub", positions, graph.node("Unsqueeze", positions, graph.integers(1))
        )
        nearest = graph.scalar(self.spec.max_tokens - 1, np.int64)
        indices = graph.node("Add", distances, nearest)
        return graph.node("Gather", graph.constant(by_distance[None]), indices, axis=2)
