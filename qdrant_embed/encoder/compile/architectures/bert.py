"""BERT (Devlin et al. 2018), RoBERTa (Liu et al. 2019) and XLM-RoBERTa.

RoBERTa is BERT whose positions begin after the padding's.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from qdrant_embed.encoder.compile.graph import MICROSOFT
from qdrant_embed.encoder.compile.layers.term_head import TermHead
from qdrant_embed.encoder.compile.layers.transformer import LayerTensors, TransformerGraph
from qdrant_embed.encoder.compile.quantize import Array, LinearGroup
from qdrant_embed.encoder.facts.architectures import Activation, BertFamilyConfig
from qdrant_embed.encoder.run.batching import LONG_TEXT

_BERT_HEAD = TermHead(
    dense="cls.predictions.transform.dense",
    norm="cls.predictions.transform.LayerNorm",
    decoder=("cls.predictions.decoder.weight",),
    bias=("cls.predictions.decoder.bias", "cls.predictions.bias"),
)
ROBERTA_HEAD = TermHead(
    dense="lm_head.dense",
    norm="lm_head.layer_norm",
    decoder=("lm_head.decoder.weight",),
    bias=("lm_head.decoder.bias", "lm_head.bias"),
    activation="none",  # GELU, whatever the layers have
)


class BertGraph(TransformerGraph[BertFamilyConfig]):
    """The graph of a model of architecture ``bert`` or ``roberta``; see `TransformerGraph`."""

    plain_attention: ClassVar[bool] = True  # `attend` is that of all transformers
    tensors = LayerTensors(
        layers="encoder.layer",
        qkv=("attention.self.query", "attention.self.key", "attention.self.value"),
        o=("attention.output.dense",),
        attention_norm="attention.output.LayerNorm",
        f1=("intermediate.dense",),
        f2=("output.dense",),
        output_norm="output.LayerNorm",
    )

    @property
    def term_head(self) -> TermHead:
        """Names of the tensors of the head that guesses masked words."""
        return _BERT_HEAD if self.config.architecture == "bert" else ROBERTA_HEAD

    @property
    def epsilon(self) -> float:
        """What layer norms add to the variance."""
        return self.config.layer_norm_eps

    @property
    def activation_name(self) -> Activation:
        """The feed-forward block's activation."""
        return self.config.hidden_act

    def embeddings(self) -> str:
        """Add words, positions and token types, normed."""
        graph, table = self.graph, self._position_table()
        length = graph.node("Shape", "input_ids", start=1, end=2)
        first = graph.integers(0)
        hidden = graph.node(
            "Add",
            self.word_vectors(),
            graph.node("Slice", graph.constant(table), first, length, first),
        )
        if self.spec.task == "score":  # of others, the table of positions has the first type
            hidden = self.with_types(hidden, self.config.type_vocab_size)
        return self.layer_norm(hidden, "embeddings.LayerNorm")

    def attention(self, rows: str, shared: str, number: int, *, first_row_only: bool) -> str:
        """Add a layer's attention and its output projection.

        One operator projects and attends, which is the fastest for short texts; but it holds the
        scores of all pairs of tokens at once. Longer texts are projected first, and attend in
        blocks, where the graph is int8: in float32 the weights would be in memory twice.
        """
        group = LinearGroup(number, "qkv")
        is_int8 = group in self.plan.groups
        in_parts = self.config.attends_in_parts(self.spec.max_tokens)
        in_halves = not is_int8 and self.plan.storage != "fp32"
        separate = in_parts or in_halves or self.seen is not None or not self.plain_attention
        if first_row_only or separate:
            return super().attention(rows, shared, number, first_row_only=first_row_only)
        graph, quantized = self.graph, self.plan.groups.get(group)

        def joined(part: str) -> str:
            def compute() -> Array:
                parts = [getattr(self.parameters(group, position), part) for position in range(3)]
                together: Array = np.concatenate(parts, axis=-1)
                return together

            return graph.deferred(compute)

        weight, bias = joined("weight"), joined("bias")
        if quantized is None:
            return self.attention_output(self._attended("Attention", shared, weight, bias), number)
        scale = joined("scale")

        def in_one() -> str:
            input_scale = graph.scalar(quantized.input_scale, np.float32)
            zero_point = graph.scalar(quantized.input_zero_point, np.uint8)
            inputs = shared, weight, bias, input_scale, scale, "", zero_point
            return self._attended("QAttention", *inputs)

        def in_blocks() -> str:
            # cut when the graph is loaded, so that the file has the weights once
            thirds = [
                [self._third(whole, position) for whole in (weight, scale, bias)]
                for position in range(3)
            ]
            return self.multi_head_attention(
                *(self.int8_product(shared, quantized, *third) for third in thirds)
            )

        if self.spec.max_tokens < LONG_TEXT:
            return self.attention_output(in_one(), number)
        tokens = graph.node("Shape", "input_ids", start=1, end=2)
        is_long = graph.node("GreaterOrEqual", tokens, graph.integers(LONG_TEXT))
        return self.attention_output(graph.either(is_long, in_blocks, in_one), number)

    def _attended(self, operator: str, *inputs: str) -> str:
        """Add an attention that also projects, before its output projection."""
        heads = self.config.num_attention_heads
        return self.graph.node(operator, *inputs, domain=MICROSOFT, num_heads=heads)

    def _third(self, whole: str, position: int) -> str:
        """Add the columns of query, key or value."""
        graph, width = self.graph, self.config.hidden_size
        start, end = graph.integers(position * width), graph.integers((position + 1) * width)
        return graph.node("Slice", whole, start, end, graph.integers(-1))

    def _position_table(self) -> Array:
        """Read what is added to the words, by position: [max_tokens, hidden_size]."""
        config, width = self.config, self.config.hidden_size
        table = self.tensor(
            "embeddings.position_embeddings.weight", config.max_position_embeddings, width
        )[config.first_position :]
        if config.type_vocab_size and self.spec.task != "score":
            types = self.tensor(
                "embeddings.token_type_embeddings.weight", config.type_vocab_size, width
            )
            table = table + types[:1]
        return table[: self.spec.max_tokens]
