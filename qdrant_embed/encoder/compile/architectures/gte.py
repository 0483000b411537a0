"""GTE from version 1.5 on (Zhang et al. 2024): BERT with rotary positions and gated blocks."""

from __future__ import annotations

from qdrant_embed.encoder.compile.layers.rotary import Rotary, RotaryGraph
from qdrant_embed.encoder.compile.layers.term_head import TermHead
from qdrant_embed.encoder.compile.layers.transformer import LayerTensors
from qdrant_embed.encoder.compile.quantize import Kind
from qdrant_embed.encoder.facts.architectures import Activation, GteConfig


class GteGraph(RotaryGraph[GteConfig]):
    """The graph of a model of architecture ``gte`` (or ``new``); see `TransformerGraph`."""

    gated = True
    tensors = LayerTensors(
        layers="encoder.layer",
        qkv=("attention.qkv_proj",),
        o=("attention.o_proj",),
        attention_norm="attn_ln",
        f1=("mlp.up_gate_proj",),
        f2=("mlp.down_proj",),
        output_norm="mlp_ln",
        gate_last=True,
    )

    @property
    def term_head(self) -> TermHead:
        """Names of the tensors of the head that guesses masked words.

        The vendor calls the norm otherwise than transformers does.
        """
        norm = "lm_head.norm" if self.has_tensor("lm_head.norm.weight") else "lm_head.layer_norm"
        return TermHead(
            dense="lm_head.dense",
            norm=norm,
            decoder=("lm_head.decoder.weight",),
            bias=("lm_head.decoder.bias", "lm_head.bias"),
        )

    @property
    def epsilon(self) -> float:
        """What layer norms add to the variance."""
        return self.config.layer_norm_eps

    @property
    def activation_name(self) -> Activation:
        """The feed-forward block's activation."""
        return self.config.hidden_act

    def has_bias(self, kind: Kind) -> bool:
        """Return whether the linear layers of a kind of group have a bias."""
        return kind != "f1"

    def embeddings(self) -> str:
        """Add words and, if there are any, the first token type, normed."""
        config, hidden = self.config, self.word_vectors()
        self.rotary = Rotary(
            self.graph,
            config.head_size,
            self.spec.max_tokens,
            config.theta,
            config.stretch,
            config.rope_parameters,
        )
        hidden = self.with_types(hidden, config.type_vocab_size)
        return self.layer_norm(hidden, "embeddings.LayerNorm")
