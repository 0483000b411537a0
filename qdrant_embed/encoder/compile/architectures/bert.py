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

        One operator projects and attends, which is faster for a single text spread over cores,
        and no slower for many texts; but it holds the scores of all pairs of tokens at once.
        """
        graph, group = self.graph, LinearGroup(number, "qkv")
        in_parts = self.config.attends_in_parts(self.spec.max_tokens)
        in_halves = group not in self.plan.groups and self.plan.storage != "fp32"
        separate = in_parts or in_halves or self.seen is not None or not self.plain_attention
        if first_row_only or separate:
            return super().attention(rows, shared, number, first_row_only=first_row_only)

        def joined(part: str) -> str:
            def compute() -> Array:
                parts = [getattr(self.parameters(group, position), part) for position in range(3)]
                together: Array = np.concatenate(parts, axis=-1)
                return together

            return graph.deferred(compute)

        quantized = self.plan.groups.get(group)
        inputs = [shared, joined("weight"), joined("bias")]
        if quantized is not None:
            inputs += [
                graph.scalar(quantized.input_scale, np.float32),
                joined("scale"),
                "",
                graph.scalar(quantized.input_zero_point, np.uint8),
            ]
        attended = graph.node(
            "Attention" if quantized is None else "QAttention",
            *inputs,
            domain=MICROSOFT,
            num_heads=self.config.num_attention_heads,
        )
        return self.attention_output(attended, number)

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
