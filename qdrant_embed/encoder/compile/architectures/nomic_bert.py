"""Nomic BERT (Nussbaum et al. 2024): BERT with rotary positions and a SwiGLU block."""

from __future__ import annotations

from qdrant_embed.encoder.compile.layers.rotary import Rotary, RotaryGraph
from qdrant_embed.encoder.compile.layers.transformer import LayerTensors
from qdrant_embed.encoder.compile.quantize import Kind
from qdrant_embed.encoder.facts.architectures import Activation, NomicFamilyConfig


class NomicBertGraph(RotaryGraph[NomicFamilyConfig]):
    """The graph of a model of architecture ``nomic_bert``; see `TransformerGraph`."""

    gated = True
    tensors = LayerTensors(
        layers="encoder.layers",
        qkv=("attn.Wqkv",),
        o=("attn.out_proj",),
        attention_norm="norm1",
        f1=("mlp.fc12", "mlp.fc11"),
        f2=("mlp.fc2",),
        output_norm="norm2",
    )

    @property
    def epsilon(self) -> float:
        """What layer norms add to the variance."""
        return self.config.layer_norm_eps

    @property
    def activation_name(self) -> Activation:
        """The feed-forward block's activation."""
        return "silu"

    def has_bias(self, kind: Kind) -> bool:
        """Return whether the linear layers of a kind of group have a bias."""
        config = self.config
        return {"f1": config.mlp_fc1_bias, "f2": config.mlp_fc2_bias}.get(
            kind, config.qkv_proj_bias
        )

    def embeddings(self) -> str:
        """Add words and the first token type, normed."""
        config = self.config
        self.rotary = Rotary(
            self.graph,
            config.head_size,
            self.spec.max_tokens,
            config.theta,
        )
        hidden = self.word_vectors()
        hidden = self.with_types(hidden, config.type_vocab_size)
        return self.layer_norm(hidden, "emb_ln")
