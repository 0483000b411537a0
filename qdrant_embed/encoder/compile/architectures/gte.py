"""GTE from version 1.5 on (Zhang et al. 2024): BERT with rotary positions and gated blocks."""

from __future__ import annotations

from qdrant_embed.encoder.compile.layers.rotary import Rotary
from qdrant_embed.encoder.compile.layers.transformer import LayerTensors, TransformerGraph
from qdrant_embed.encoder.compile.quantize import Kind
from qdrant_embed.encoder.facts.architectures import Activation, GteConfig


class GteGraph(TransformerGraph[GteConfig]):
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
        self._rotary = Rotary(
            self.graph,
            config.head_size,
            self.spec.max_tokens,
            config.theta,
            config.stretch,
            config.rope_parameters,
        )
        if config.type_vocab_size:
            types = self.tensor(
                "embeddings.token_type_embeddings.weight",
                config.type_vocab_size,
                config.hidden_size,
            )
            hidden = self.graph.node("Add", hidden, self.graph.constant(types[0]))
        return self.layer_norm(hidden, "embeddings.LayerNorm")

    def attend(self, query: str, key: str, value: str, number: int, *, first_row_only: bool) -> str:
        """Add the attention, with queries and keys rotated."""
        del number
        if not first_row_only:  # position 0 is not rotated
            query = self._rotary.rotated(query)
        return self.multi_head_attention(query, self._rotary.rotated(key), value)
