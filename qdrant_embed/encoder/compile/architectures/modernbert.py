"""ModernBERT (Warner et al. 2024): rotary positions, gated blocks, and sliding-window layers."""

from __future__ import annotations

from typing import ClassVar

from qdrant_embed.encoder.compile.layers.rotary import Rotary
from qdrant_embed.encoder.compile.layers.term_head import TermHead
from qdrant_embed.encoder.compile.layers.transformer import LayerTensors, TransformerGraph
from qdrant_embed.encoder.compile.layers.window import SlidingWindow
from qdrant_embed.encoder.compile.quantize import Kind
from qdrant_embed.encoder.facts.architectures import Activation, ModernBertConfig
from qdrant_embed.errors import ModelFileError


class ModernBertGraph(TransformerGraph[ModernBertConfig]):
    """The graph of a model of architecture ``modernbert``; see `TransformerGraph`."""

    words: ClassVar[str] = "embeddings.tok_embeddings.weight"
    gated = True
    tensors = LayerTensors(
        layers="layers",
        qkv=("attn.Wqkv",),
        o=("attn.Wo",),
        attention_norm="attn_norm",
        f1=("mlp.Wi",),
        f2=("mlp.Wo",),
        output_norm="mlp_norm",
    )

    @property
    def term_head(self) -> TermHead:
        """Names of the tensors of the head that guesses masked words."""
        config = self.config
        if config.classifier_activation != "gelu":
            raise ModelFileError(
                f"{self.spec.name}: a head with the activation {config.classifier_activation!r:.80}"
                " cannot be run"
            )
        return TermHead(
            dense="head.dense",
            norm="head.norm",
            decoder=("decoder.weight",),
            bias=("decoder.bias",),
            dense_bias=bool(config.classifier_bias),
            norm_bias=config.norm_bias,
            activation="none",
        )

    @property
    def epsilon(self) -> float:
        """What layer norms add to the variance."""
        return self.config.norm_eps

    @property
    def activation_name(self) -> Activation:
        """The feed-forward block's activation."""
        return self.config.hidden_activation

    def has_bias(self, kind: Kind) -> bool:
        """Return whether the linear layers of a kind of group have a bias."""
        if kind == "terms":
            return True
        return self.config.mlp_bias if kind in ("f1", "f2") else self.config.attention_bias

    def embeddings(self) -> str:
        """Add words, normed, and what all layers of a kind share."""
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
            self.graph,
            self._reach,
            config.hidden_size,
            config.num_attention_heads,
            self.seen.count if self.seen is not None else "",
        )
        return self.norm(self.word_vectors(), "embeddings.norm")

    def hidden_states(self, *, first_row_only: bool = False) -> str:
        """Add the embeddings, all layers and the last norm: [batch, tokens, hidden_size]."""
        return self.norm(super().hidden_states(first_row_only=first_row_only), "final_norm")

    def layer(self, hidden: str, number: int, *, first_row_only: bool) -> str:
        """Add one layer, whose norms come before its blocks."""
        # the first layer's input is the embeddings, which are normed
        return self.pre_norm_layer(
            hidden, number, first_row_only=first_row_only, is_normed=number == 0
        )

    def seen_rows(self, shared: str) -> str:
        """Return all rows: windows need them, and `attend` cuts those of other layers."""
        return shared

    def attend(self, query: str, key: str, value: str, number: int, *, first_row_only: bool) -> str:
        """Add the attention: to the whole text or, in local layers, to a token's neighbours."""
        is_global = self.config.is_global(number)
        rotary, window = self._rotary[is_global], self._window
        if first_row_only:  # position 0 is not rotated
            if not is_global:
                key, value = self._first_neighbours(key), self._first_neighbours(value)
            return self.multi_head_attention(query, rotary.rotated(key), value)
        query, key = rotary.rotated(query), rotary.rotated(key)
        if is_global:
            key, value = super().seen_rows(key), super().seen_rows(value)
            return self.multi_head_attention(query, key, value)
        key, value = window.neighbourhoods(key), window.neighbourhoods(value)
        attended = self.multi_head_attention(window.split(query), key, value, window.bias)
        return window.joined(attended)

    @property
    def _reach(self) -> int:
        """Tokens that a local layer attends to on each side."""
        return self.config.local_attention // 2

    def _first_neighbours(self, hidden: str) -> str:
        """Add the rows that the first token attends to."""
        constants = [self.graph.integers(number) for number in (0, self._reach + 1, 1)]
        return self.graph.node("Slice", hidden, *constants)

    def norm(self, hidden: str, name: str) -> str:
        """Add a layer norm, with a bias or without."""
        return self.layer_norm(hidden, name, has_bias=self.config.norm_bias)
