"""Nomic BERT with experts (Nussbaum and Duderstadt 2025): some layers choose, for each token, among
several feed-forward blocks.
"""

from __future__ import annotations

import numpy as np

from qdrant_embed.encoder.compile.architectures.nomic_bert import NomicBertGraph
from qdrant_embed.encoder.compile.layers.transformer import LayerTensors
from qdrant_embed.encoder.compile.quantize import Linear, LinearGroup
from qdrant_embed.encoder.facts.architectures import Activation, NomicMoeConfig


class NomicMoeGraph(NomicBertGraph):
    """The graph of a model of architecture ``nomic_bert_moe``; see `TransformerGraph`."""

    config: NomicMoeConfig
    gated: bool = False
    tensors = LayerTensors(
        layers="encoder.layers",
        qkv=("attn.Wqkv",),
        o=("attn.out_proj",),
        attention_norm="norm1",
        f1=("mlp.fc1",),
        f2=("mlp.fc2",),
        output_norm="norm2",
    )

    @property
    def activation_name(self) -> Activation:
        """The feed-forward block's activation."""
        return self.config.activation

    def feed_forward(self, hidden: str, number: int) -> str:
        """Add a layer's feed-forward block, or that of its experts."""
        if not self.config.has_experts(number):
            return super().feed_forward(hidden, number)
        graph, node, config = self.graph, self.graph.node, self.config
        name = f"{self.tensors.layers}.{number}.mlp"
        rows = graph.integers(-1, config.hidden_size)
        router = self.tensor(f"{name}.router.layer.weight", config.num_experts, config.hidden_size)
        logits = node("MatMul", node("Reshape", hidden, rows), graph.constant(router.T))
        shares, experts = graph.largest(node("Softmax", logits, axis=-1), config.moe_top_k)
        group = LinearGroup(number, "f1")
        inputs = node("Reshape", self.group_input(hidden, group), rows)
        outputs = self._by_experts(inputs, node("Reshape", experts, graph.integers(-1)), group)
        by_token = node(
            "Reshape", outputs, graph.integers(-1, config.moe_top_k, config.hidden_size)
        )
        # shares are those of all experts' softmax: they do not add up to 1
        weighted = node("Mul", by_token, node("Unsqueeze", shares, graph.integers(-1)))
        total = node("ReduceSum", weighted, graph.integers(1), keepdims=0)
        bias = self.tensor(f"{name}.experts.bias", config.hidden_size)
        total = node("Add", total, graph.constant(bias))
        return node("Reshape", total, node("Shape", hidden))

    def linears(self, group: LinearGroup) -> list[Linear]:
        """Read weight [inputs, outputs] and bias [outputs] of each linear layer of a group."""
        config = self.config
        if group.kind not in ("f1", "f2") or not config.has_experts(group.layer):
            return super().linears(group)
        name = f"{self.tensors.layers}.{group.layer}.mlp.experts.mlp"
        width, inner, count = config.hidden_size, config.intermediate_size, config.num_experts
        if group.kind == "f1":
            weights = self.tensor(f"{name}.w1", count * inner, width)
            return [(part.T, np.zeros(inner, np.float32)) for part in np.split(weights, count)]
        weights = self.tensor(f"{name}.w2", count * inner, width)
        part = np.split(weights, count)[group.expert or 0]
        return [(part, np.zeros(width, np.float32))]

    def _by_experts(self, inputs: str, chosen: str, group: LinearGroup) -> str:
        """Add what the experts make of tokens, each expert of those that chose it alone.

        Args:
            inputs: [tokens, hidden_size], as `group_input` gave them.
            chosen: numbers of experts, [tokens * moe_top_k].
            group: the experts' first linear layers.
        """
        graph, node = self.graph, self.graph.node
        places, outputs = [], []
        for expert in range(self.config.num_experts):
            is_chosen = node("Equal", chosen, graph.integers(expert))
            place = node("Reshape", node("NonZero", is_chosen), graph.integers(-1))
            token = node("Div", place, graph.integers(self.config.moe_top_k))
            inner = self.activation(self.linear(node("Gather", inputs, token), group, expert))
            second = LinearGroup(group.layer, "f2", expert)
            outputs.append(self.linear(self.group_input(inner, second), second))
            places.append(place)
        order = node("Concat", *places, axis=0)
        counted = node(
            "Range",
            graph.scalar(0, np.int64),
            node("Squeeze", node("Shape", chosen)),
            graph.scalar(1, np.int64),
        )
        back = node("ScatterElements", counted, order, counted)
        return node("Gather", node("Concat", *outputs, axis=0), back)
