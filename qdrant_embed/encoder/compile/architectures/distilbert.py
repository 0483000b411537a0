"""DistilBERT (Sanh et al. 2019): BERT without token types, and with other names."""

from __future__ import annotations

from qdrant_embed.encoder.compile.architectures.bert import BertGraph
from qdrant_embed.encoder.compile.layers.term_head import TermHead
from qdrant_embed.encoder.compile.layers.transformer import LayerTensors


class DistilBertGraph(BertGraph):
    """The graph of a model of architecture ``distilbert``; see `TransformerGraph`."""

    tensors = LayerTensors(
        layers="transformer.layer",
        qkv=("attention.q_lin", "attention.k_lin", "attention.v_lin"),
        o=("attention.out_lin",),
        attention_norm="sa_layer_norm",
        f1=("ffn.lin1",),
        f2=("ffn.lin2",),
        output_norm="output_layer_norm",
    )

    @property
    def term_head(self) -> TermHead:
        """Names of the tensors of the head that guesses masked words."""
        return TermHead(
            dense="vocab_transform",
            norm="vocab_layer_norm",
            decoder=("vocab_projector.weight",),
            bias=("vocab_projector.bias",),
        )
