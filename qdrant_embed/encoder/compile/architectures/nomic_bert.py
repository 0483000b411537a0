"""Nomic BERT (Nussbaum et al. 2024): BERT with rotary positions and a SwiGLU block."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import AliasChoices, Field, NonNegativeInt, PositiveInt

from qdrant_embed.encoder.compile.architectures.config import (
    Activation,
    Epsilon,
    LayerTensors,
    Weights,
)
from qdrant_embed.encoder.compile.architectures.rotary import (
    Positions,
    RopeParameters,
    Rotary,
    RotaryConfig,
    Theta,
)
from qdrant_embed.encoder.compile.architectures.transformer import TransformerGraph
from qdrant_embed.encoder.compile.quantize import NOTHING_QUANTIZED, QuantizationPlan
from qdrant_embed.encoder.facts.spec import ModelSpec


class NomicBertConfig(RotaryConfig):
    """``config.json`` of architecture ``nomic_bert``, in the vendor's words or transformers'.

    The vendor's come first: repositories have both, and state the length in theirs alone.
    """

    model_type: Literal["nomic_bert"]
    hidden_size: PositiveInt = Field(validation_alias=AliasChoices("n_embd", "hidden_size"))
    num_hidden_layers: PositiveInt = Field(
        validation_alias=AliasChoices("n_layer", "num_hidden_layers")
    )
    num_attention_heads: PositiveInt = Field(
        validation_alias=AliasChoices("n_head", "num_attention_heads")
    )
    intermediate_size: PositiveInt = Field(
        validation_alias=AliasChoices("n_inner", "intermediate_size")
    )
    max_position_embeddings: Positions = Field(
        validation_alias=AliasChoices("n_positions", "max_position_embeddings")
    )
    layer_norm_eps: Epsilon = Field(
        1e-12, validation_alias=AliasChoices("layer_norm_epsilon", "layer_norm_eps")
    )
    activation: Literal["swiglu", "silu"] = Field(
        "swiglu", validation_alias=AliasChoices("activation_function", "hidden_act")
    )
    type_vocab_size: NonNegativeInt = 2
    qkv_proj_bias: bool = False
    mlp_fc1_bias: bool = False
    mlp_fc2_bias: bool = False
    rotary_emb_base: Theta = 1000.0
    rope_parameters: RopeParameters | None = None
    # beyond the trained length the angles would depend on each text's own length
    rotary_scaling_factor: float | None = None
    max_trained_positions: PositiveInt = 2048
    rotary_emb_fraction: Literal[1] = 1
    rotary_emb_interleaved: Literal[False] = False
    rotary_emb_scale_base: None = None
    prenorm: Literal[False] = False
    causal: Literal[False] = False
    use_rms_norm: Literal[False] = False
    num_experts: Literal[0] | None = None

    @property
    def positions(self) -> int:
        """Tokens that one text can have, special tokens included."""
        if self.rotary_scaling_factor:
            return min(self.max_position_embeddings, self.max_trained_positions)
        return self.max_position_embeddings

    @property
    def theta(self) -> float:
        """Base of the angles' wave lengths."""
        if self.rope_parameters is not None:
            return self.rope_parameters.rope_theta
        return self.rotary_emb_base

    def graph(
        self, weights: Weights, spec: ModelSpec, plan: QuantizationPlan = NOTHING_QUANTIZED
    ) -> NomicBertGraph:
        """The model's graph."""
        return NomicBertGraph(weights, self, spec, plan)


class NomicBertGraph(TransformerGraph[NomicBertConfig]):
    """The graph of a model of architecture ``nomic_bert``; see `TransformerGraph`."""

    gated = True
    tensors: ClassVar[LayerTensors] = LayerTensors(
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

    def has_bias(self, kind: str) -> bool:
        """Whether the linear layers of a kind of group have a bias."""
        config = self.config
        return {"f1": config.mlp_fc1_bias, "f2": config.mlp_fc2_bias}.get(
            kind, config.qkv_proj_bias
        )

    def embeddings(self) -> str:
        """Adds words and the first token type, normed."""
        config = self.config
        self._rotary = Rotary(
            self.graph,
            config.head_size,
            self.spec.max_tokens,
            config.theta,
        )
        hidden = self.word_vectors()
        if config.type_vocab_size:
            types = self.tensor(
                "embeddings.token_type_embeddings.weight",
                config.type_vocab_size,
                config.hidden_size,
            )
            hidden = self.graph.node("Add", hidden, self.graph.constant(types[0]))
        return self.layer_norm(hidden, "emb_ln")

    def attend(self, query: str, key: str, value: str, number: int, *, first_row_only: bool) -> str:
        """Adds the attention of turned queries to turned keys."""
        del number
        if not first_row_only:  # at position 0 nothing is turned
            query = self._rotary.turned(query)
        return self.multi_head_attention(query, self._rotary.turned(key), value)
