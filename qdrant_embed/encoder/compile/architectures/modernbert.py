"""ModernBERT (Warner et al. 2024): rotary positions, gated blocks, and layers that see a window."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt

from qdrant_embed.encoder.compile.architectures.config import (
    Activation,
    Epsilon,
    LayerTensors,
    Weights,
)
from qdrant_embed.encoder.compile.architectures.rotary import (
    RopeParameters,
    Rotary,
    RotaryConfig,
    Theta,
)
from qdrant_embed.encoder.compile.architectures.transformer import TransformerGraph
from qdrant_embed.encoder.compile.architectures.window import SlidingWindow
from qdrant_embed.encoder.compile.quantize import NOTHING_QUANTIZED, QuantizationPlan
from qdrant_embed.encoder.facts.jsonfile import JsonFile
from qdrant_embed.encoder.facts.spec import ModelSpec


class _RopeByLayer(JsonFile):
    full_attention: RopeParameters
    sliding_attention: RopeParameters


class ModernBertConfig(RotaryConfig):
    """``config.json`` of architecture ``modernbert``, as transformers 4 or 5 writes it."""

    model_type: Literal["modernbert"]
    hidden_activation: Activation = "gelu"
    norm_eps: Epsilon = 1e-5
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    local_attention: Annotated[int, Field(gt=0, le=1 << 17)] = 128
    global_attn_every_n_layers: PositiveInt = 3
    layer_types: tuple[Literal["full_attention", "sliding_attention"], ...] | None = None
    global_rope_theta: Theta = 160_000.0
    local_rope_theta: Theta | None = 10_000.0
    rope_parameters: _RopeByLayer | None = None

    def is_global(self, layer: int) -> bool:
        """Whether a layer sees the whole text."""
        if self.layer_types is not None and layer < len(self.layer_types):
            return self.layer_types[layer] == "full_attention"
        return layer % self.global_attn_every_n_layers == 0

    def theta(self, *, is_global: bool) -> float:
        """Base of the wave lengths in layers of a kind."""
        if (parameters := self.rope_parameters) is not None:
            kind = parameters.full_attention if is_global else parameters.sliding_attention
            return kind.rope_theta
        if is_global or self.local_rope_theta is None:
            return self.global_rope_theta
        return self.local_rope_theta

    def graph(
        self, weights: Weights, spec: ModelSpec, plan: QuantizationPlan = NOTHING_QUANTIZED
    ) -> ModernBertGraph:
        """The model's graph."""
        return ModernBertGraph(weights, self, spec, plan)


class ModernBertGraph(TransformerGraph[ModernBertConfig]):
    """The graph of a model of architecture ``modernbert``; see `TransformerGraph`."""

    words: ClassVar[str] = "embeddings.tok_embeddings.weight"
    gated = True
    tensors: ClassVar[LayerTensors] = LayerTensors(
        layers="layers",
        qkv=("attn.Wqkv",),
        o=("attn.Wo",),
        attention_norm="attn_norm",
        f1=("mlp.Wi",),
        f2=("mlp.Wo",),
        output_norm="mlp_norm",
    )

    @property
    def epsilon(self) -> float:
        """What layer norms add to the variance."""
        return self.config.norm_eps

    @property
    def activation_name(self) -> Activation:
        """The feed-forward block's activation."""
        return self.config.hidden_activation

    def has_bias(self, kind: str) -> bool:
        """Whether the linear layers of a kind of group have a bias."""
        return self.config.mlp_bias if kind in ("f1", "f2") else self.config.attention_bias

    def embeddings(self) -> str:
        """Adds words, normed, and what layers of each kind share."""
        config = self.config
        self._rotary = {
            is_global: Rotary(
                self.graph,
                config.head_size,
                self.spec.max_tokens,
                config.theta(is_global=is_global),
            )
            for is_global in (True, False)
        }
        self._window = SlidingWindow(
            self.graph, self._reach, config.hidden_size, config.num_attention_heads
        )
        return self._norm(self.word_vectors(), "embeddings.norm")

    def hidden_states(self, *, first_row_only: bool = False) -> str:
        """Adds the embeddings, all layers and the last norm: [batch, tokens, hidden_size]."""
        return self._norm(super().hidden_states(first_row_only=first_row_only), "final_norm")

    def layer(self, hidden: str, number: int, *, first_row_only: bool) -> str:
        """Adds one layer, whose norms come before its blocks."""
        name, graph = f"{self.tensors.layers}.{number}", self.graph
        # the first layer's input is normed already
        normed = self._norm(hidden, f"{name}.{self.tensors.attention_norm}") if number else hidden
        shared = self.group_input(normed, f"{number}.qkv")
        rows = self.first_row(shared) if first_row_only else shared
        residual = self.first_row(hidden) if first_row_only else hidden
        attended = self.attention(rows, shared, number, first_row_only=first_row_only)
        hidden = graph.node("Add", attended, residual)
        normed = self._norm(hidden, f"{name}.{self.tensors.output_norm}")
        return graph.node("Add", self.feed_forward(normed, number), hidden)

    def attend(self, query: str, key: str, value: str, number: int, *, first_row_only: bool) -> str:
        """Adds the attention to the whole text or, in most layers, to a token's neighbours."""
        is_global = self.config.is_global(number)
        rotary, window = self._rotary[is_global], self._window
        if first_row_only:  # at position 0 nothing is turned
            if not is_global:
                key, value = self._first_neighbours(key), self._first_neighbours(value)
            return self.multi_head_attention(query, rotary.turned(key), value)
        query, key = rotary.turned(query), rotary.turned(key)
        if is_global:
            return self.multi_head_attention(query, key, value)
        key, value = window.neighbourhoods(key), window.neighbourhoods(value)
        attended = self.multi_head_attention(window.split(query), key, value, window.bias)
        return window.joined(attended)

    @property
    def _reach(self) -> int:
        """Tokens that a local layer sees on each side."""
        return self.config.local_attention // 2

    def _first_neighbours(self, hidden: str) -> str:
        """Adds the rows that the first token sees."""
        constants = [self.graph.integers(number) for number in (0, self._reach + 1, 1)]
        return self.graph.node("Slice", hidden, *constants)

    def _norm(self, hidden: str, name: str) -> str:
        return self.layer_norm(hidden, name, has_bias=self.config.norm_bias)
