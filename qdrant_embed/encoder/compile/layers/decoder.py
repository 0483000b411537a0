"""What language models have in common, whether their tokens attend to earlier ones only or to all.

Norms come before the blocks, positions are rotary, blocks are gated, and several heads of queries
share one head of keys and values.
"""

from __future__ import annotations

from typing import ClassVar, TypeVar

from qdrant_embed.encoder.compile.layers.attention import GroupedAttention, Reach
from qdrant_embed.encoder.compile.layers.rotary import Rotary
from qdrant_embed.encoder.compile.layers.transformer import LayerTensors, TransformerGraph
from qdrant_embed.encoder.compile.quantize import Array, Kind, LinearGroup
from qdrant_embed.encoder.facts.architectures import Activation, DecoderConfig, LayerType

D = TypeVar("D", bound=DecoderConfig)


class DecoderGraph(TransformerGraph[D]):
    """The graph of a model that is built like Llama (Touvron et al. 2023).

    What an int8 group reads is divided where it is computed, in weights: by the norm before it,
    by the linear layer that gives the attention's values, and by the plain one of a gated block.
    """

    words: ClassVar[str] = "embed_tokens.weight"
    gated = True
    tensors = LayerTensors(
        layers="layers",
        qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        o=("self_attn.o_proj",),
        attention_norm="input_layernorm",
        f1=("mlp.gate_proj", "mlp.up_proj"),
        f2=("mlp.down_proj",),
        output_norm="post_attention_layernorm",
    )
    folded: ClassVar[frozenset[Kind]] = frozenset({"qkv", "o", "f1", "f2"})

    @property
    def epsilon(self) -> float:
        """What norms add to the mean square."""
        return self.config.rms_norm_eps

    @property
    def activation_name(self) -> Activation:
        """The feed-forward block's activation."""
        return self.config.hidden_act

    @property
    def score_scale(self) -> float:
        """What the attention's scores are multiplied with."""
        return float(self.config.head_size**-0.5)

    def has_bias(self, kind: Kind) -> bool:
        """Return whether the linear layers of a kind of group have a bias."""
        return kind in ("qkv", "o") and self.config.attention_bias

    def widths(self, kind: Kind) -> tuple[int, tuple[int, ...]]:
        """Return the inputs of a kind of group, and the outputs of each of its linear layers."""
        config = self.config
        queries = config.num_attention_heads * config.head_size
        keys = config.key_heads * config.head_size
        if kind == "qkv":
            return config.hidden_size, (queries, keys, keys)
        return (queries, (config.hidden_size,)) if kind == "o" else super().widths(kind)

    # the whole

    def embeddings(self) -> str:
        """Add words, and what all layers of a kind share."""
        config = self.config
        self._attention = GroupedAttention(
            self.graph,
            config.num_attention_heads,
            config.key_heads,
            config.head_size,
            self.score_scale,
        )
        kinds = {config.layer_type(number) for number in self._numbers}
        self._rotary = {kind: self._rotary_of(kind) for kind in sorted(kinds)}
        return self.word_vectors()

    def _rotary_of(self, kind: LayerType) -> Rotary:
        theta, scaling = self.config.rope(kind)
        return Rotary(
            self.graph, self.config.head_size, self.spec.max_tokens, theta, scaling=scaling
        )

    def hidden_states(self, *, first_row_only: bool = False) -> str:
        """Add the embeddings, all layers, the last norm, and a projection if there is one."""
        hidden = super().hidden_states(first_row_only=first_row_only)
        hidden = self.norm(hidden, "norm")
        if self.config.num_labels is None:
            return hidden
        weight = self.tensor("linear.weight", self.config.num_labels, self.config.hidden_size)
        return self.graph.node("MatMul", hidden, self.graph.constant(weight.T))

    # layers

    def layer(self, hidden: str, number: int, *, first_row_only: bool) -> str:
        """Add one layer; of the last one, only what the pooling reads."""
        del first_row_only
        name, group = f"{self.tensors.layers}.{number}", LinearGroup(number, "qkv")
        normed = self.norm(hidden, f"{name}.{self.tensors.attention_norm}", group)
        shared = self.group_input(normed, group)
        query, key, value = (self.linear(shared, group, position) for position in range(3))
        attended = self.attend(query, key, value, number, first_row_only=False)
        if number == self.config.num_hidden_layers - 1:
            attended, hidden = self._pooled_rows(attended), self._pooled_rows(hidden)
        hidden = self.after_attention(self.attention_output(attended, number), hidden, name)
        return self.after_feed_forward(hidden, number, name)

    def after_attention(self, attended: str, residual: str, name: str) -> str:
        """Add what the attention of the layer called `name` gave to its input."""
        del name
        return self.graph.node("Add", attended, residual)

    def after_feed_forward(self, hidden: str, number: int, name: str) -> str:
        """Add the feed-forward block of the layer called `name` to `hidden`, its input."""
        normed = self.norm(hidden, f"{name}.{self.tensors.output_norm}", LinearGroup(number, "f1"))
        return self.graph.node("Add", self.feed_forward(normed, number), hidden)

    def attend(self, query: str, key: str, value: str, number: int, *, first_row_only: bool) -> str:
        """Add the attention, with queries and keys rotated."""
        del first_row_only
        kind = self.config.layer_type(number)
        rotary = self._rotary[kind]
        query, key = rotary.rotated(query), rotary.rotated(key)
        return self._attention.attended(query, key, value, self.reach(kind))

    def reach(self, kind: LayerType) -> Reach:
        """Return how far tokens attend in layers of a kind."""
        others = self.config.window - 1 if kind == "sliding_attention" else None
        return Reach(others, others if self.config.is_bidirectional else 0)

    def _pooled_rows(self, hidden: str) -> str:
        """Add the part of `hidden` that the pooling reads, [batch, 1 or tokens, width]."""
        match self.spec.pooling:
            case "cls":
                return self.first_row(hidden)
            case "last_token":
                last = [self.graph.integers(number) for number in (-1, 1 << 31, 1)]
                return self.graph.node("Slice", hidden, *last)
            case _:
                return hidden

    # parts of layers

    def norm(self, hidden: str, name: str, group: LinearGroup | None = None) -> str:
        """Add a norm, whose output an int8 `group` may read divided."""
        weight = self.norm_weight(name, self.config.hidden_size)
        divisor = self._smoothing(group) if group is not None else None
        return self.rms_norm(hidden, weight if divisor is None else weight / divisor)

    def head_norm(self, hidden: str, name: str, heads: int) -> str:
        """Add a norm of each head of `hidden`, [batch, tokens, heads * size]."""
        graph, size = self.graph, self.config.head_size
        apart = graph.node("Reshape", hidden, graph.integers(0, 0, heads, size))
        normed = self.rms_norm(apart, self.norm_weight(name, size))
        return graph.node("Reshape", normed, graph.integers(0, 0, heads * size))

    def norm_weight(self, name: str, width: int) -> Array:
        """Read what a norm multiplies with."""
        return self.tensor(f"{name}.weight", width)

    def folded_divisor(self, group: LinearGroup, position: int) -> Array | None:
        """Return what the outputs of a linear layer are divided by, for the group that reads them.

        Heads of queries that share a head of values also share its divisor.
        """
        divisor = None
        if (group.kind, position) == ("f1", 1):
            divisor = self._smoothing(LinearGroup(group.layer, "f2"))
        elif (group.kind, position) == ("qkv", 2):
            divisor = self._smoothing(LinearGroup(group.layer, "o"))
            if divisor is not None:
                divisor = divisor.reshape(self._o_inputs)[:, 0].reshape(-1)
        return divisor

    def sharing(self, kind: Kind) -> tuple[int, int, int] | None:
        """Return the shape of a group's inputs whose middle axis must have one divisor."""
        return self._o_inputs if kind == "o" else None

    @property
    def _o_inputs(self) -> tuple[int, int, int]:
        """Heads of values, heads of queries that share each of them, and their size."""
        config = self.config
        shared = config.num_attention_heads // config.key_heads
        return config.key_heads, shared, config.head_size

    def _smoothing(self, group: LinearGroup) -> Array | None:
        """Return what the input of a group is divided by, if anything."""
        quantized = self.plan.groups.get(group)
        return quantized.smoothing if quantized is not None else None
