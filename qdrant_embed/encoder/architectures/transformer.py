"""The layers that the transformer encoders have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.encoder.architectures.config import (
    Activation,
    LayerTensors,
    TransformerConfig,
    Weights,
)
from qdrant_embed.encoder.graph import FLOAT, MICROSOFT, Graph
from qdrant_embed.encoder.quantize import (
    NOTHING_QUANTIZED,
    Array,
    Linear,
    QuantizationPlan,
    quantize_rows,
)
from qdrant_embed.encoder.spec import ModelSpec
from qdrant_embed.errors import ModelFileError

_GELU = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}

C = TypeVar("C", bound=TransformerConfig)


class Parameters(NamedTuple):
    """Of a linear layer: weight [inputs, outputs], bias [outputs], and if int8 scale [outputs]."""

    weight: Array | NDArray[np.int8]
    bias: Array
    scale: Array | None


class TransformerGraph(ABC, Generic[C]):
    """The graph of a model: ``input_ids`` to ``embedding``, float32 [batch, dimension].

    The linear layers that read one input form a group, named ``0.qkv``, ``0.o``, ``0.f1`` and
    ``0.f2`` for layer 0: query, key and value; attention output; the feed-forward block's first
    (one, or two if it is gated) and second.

    A subclass says what its tensors are called and adds `embeddings`; its layers are those of
    BERT (the norm after each block) unless it has a `layer` of its own. For another head than
    pooling override `vectors`, and build it on `hidden_states`.

    Args:
        weights: float32 tensors by their names in transformers, with any one prefix.
        config: the model's ``config.json``.
        spec: pooling, normalisation and the number of positions to keep.
        plan: which groups are int8, and with what numbers; none by default.

    Raises:
        ModelFileError: a tensor is missing or has another shape than the config says.
    """

    words: ClassVar[str] = "embeddings.word_embeddings.weight"
    tensors: ClassVar[LayerTensors]
    gated: ClassVar[bool] = False

    def __init__(
        self,
        weights: Weights,
        config: C,
        spec: ModelSpec,
        plan: QuantizationPlan = NOTHING_QUANTIZED,
    ) -> None:
        self.config, self.spec, self.plan = config, spec, plan
        self.graph = Graph()
        self.group_inputs: dict[str, str] = {}
        self.weights = weights
        named = sorted((name for name in weights if name.endswith(self.words)), key=len)
        self._prefix = named[0].removesuffix(self.words) if named else ""
        self.vectors()
        self.graph.rename_last("embedding")

    @property
    @abstractmethod
    def epsilon(self) -> float:
        """What layer norms add to the variance."""

    @property
    @abstractmethod
    def activation_name(self) -> Activation:
        """The feed-forward block's activation."""

    @abstractmethod
    def embeddings(self) -> str:
        """Adds what the first layer reads, [batch, tokens, hidden_size]."""

    def has_bias(self, kind: str) -> bool:
        """Whether the linear layers of a kind of group have a bias."""
        del kind
        return True

    def save(self, path: Path, *, taps: bool = False) -> None:
        """Writes the model to `path`; with `taps` the inputs of all groups are outputs too."""
        outputs: dict[str, list[Any] | None] = {"embedding": ["batch", self.spec.dimension]}
        if taps:
            outputs |= dict.fromkeys(self.group_inputs.values())
        self.graph.save(path, outputs)

    def group(self, key: str) -> list[Linear]:
        """Weight [inputs, outputs] and bias [outputs] of each linear layer of a group."""
        number, _, kind = key.partition(".")
        width, inner = self.config.hidden_size, self.config.intermediate_size
        inputs = inner if kind == "f2" else width
        outputs = inner if kind == "f1" else width
        modules = self.tensors.linears(kind)
        fused = {"qkv": 3, "f1": 1 + self.gated}.get(kind, 1) // len(modules)
        linears: list[Linear] = []
        for module in modules:
            name = f"{self.tensors.layers}.{number}.{module}"
            weight = self.tensor(f"{name}.weight", fused * outputs, inputs).T
            if self.has_bias(kind):
                bias = self.tensor(f"{name}.bias", fused * outputs)
            else:
                bias = np.zeros(fused * outputs, np.float32)
            linears += zip(np.split(weight, fused, axis=1), np.split(bias, fused), strict=True)
        return linears

    def vectors(self) -> str:
        """Adds all of the graph; its last node gives the vectors."""
        return self.pool(self.hidden_states(first_row_only=self.spec.pooling == "cls"))

    def hidden_states(self, *, first_row_only: bool = False) -> str:
        """Adds the embeddings and all layers: [batch, tokens, hidden_size].

        With `first_row_only` the last layer is computed for the first token alone.
        """
        hidden = self.embeddings()
        for number in range(self.config.num_hidden_layers):
            last = number == self.config.num_hidden_layers - 1
            hidden = self.layer(hidden, number, first_row_only=last and first_row_only)
        return hidden

    def layer(self, hidden: str, number: int, *, first_row_only: bool) -> str:
        """Adds one layer; with `first_row_only` for the first token alone."""
        name = f"{self.tensors.layers}.{number}"
        shared = self.group_input(hidden, f"{number}.qkv")
        rows = self.first_row(shared) if first_row_only else shared
        residual = self.first_row(hidden) if first_row_only else hidden
        attended = self.attention(rows, shared, number, first_row_only=first_row_only)
        hidden = self.layer_norm(
            self.graph.node("Add", attended, residual), f"{name}.{self.tensors.attention_norm}"
        )
        expanded = self.feed_forward(hidden, number)
        return self.layer_norm(
            self.graph.node("Add", expanded, hidden), f"{name}.{self.tensors.output_norm}"
        )

    def attention(self, rows: str, shared: str, number: int, *, first_row_only: bool) -> str:
        """Adds a layer's attention of `rows` to `shared`, and its output projection."""
        key = f"{number}.qkv"
        attended = self.attend(
            self.linear(rows, key, 0),
            self.linear(shared, key, 1),
            self.linear(shared, key, 2),
            number,
            first_row_only=first_row_only,
        )
        return self.linear(self.group_input(attended, f"{number}.o"), f"{number}.o")

    def attend(self, query: str, key: str, value: str, number: int, *, first_row_only: bool) -> str:
        """Adds the attention itself; with `first_row_only` the query is that of one token."""
        del number, first_row_only
        return self.multi_head_attention(query, key, value)

    def multi_head_attention(self, query: str, key: str, value: str, bias: str = "") -> str:
        """Adds softmax(query · key / √size + bias) · value for each head."""
        inputs = [query, key, value, "", "", bias] if bias else [query, key, value]
        return self.graph.node(
            "MultiHeadAttention",
            *inputs,
            domain=MICROSOFT,
            num_heads=self.config.num_attention_heads,
        )

    def feed_forward(self, hidden: str, number: int) -> str:
        """Adds a layer's feed-forward block."""
        shared = self.group_input(hidden, f"{number}.f1")
        inner = self.activation(self.linear(shared, f"{number}.f1"))
        if self.gated:
            inner = self.graph.node("Mul", inner, self.linear(shared, f"{number}.f1", 1))
        return self.linear(self.group_input(inner, f"{number}.f2"), f"{number}.f2")

    def group_input(self, hidden: str, key: str) -> str:
        """What the linear layers of a group read: the same float32, or its int8 form."""
        self.group_inputs[key] = hidden
        quantized = self.plan.groups.get(key)
        if quantized is None:
            return hidden
        graph = self.graph
        if not key.endswith(".o"):  # there the values came divided already
            hidden = graph.node("Mul", hidden, graph.constant(1 / quantized.smoothing))
        return graph.node(
            "QuantizeLinear",
            hidden,
            graph.scalar(quantized.input_scale, np.float32),
            graph.scalar(quantized.input_zero_point, np.uint8),
        )

    def linear(self, shared: str, key: str, position: int = 0) -> str:
        """Adds one linear layer of a group, reading what `group_input` gave."""
        graph, quantized = self.graph, self.plan.groups.get(key)
        weight, bias, scale = self.parameters(key, position)
        if quantized is None or scale is None:
            product = graph.node("MatMul", shared, graph.constant(weight))
            if not self.has_bias(key.partition(".")[2]):
                return product
            return graph.node("Add", product, graph.constant(bias))
        product = graph.node(
            "MatMulIntegerToFloat",
            shared,
            graph.constant(weight),
            graph.scalar(quantized.input_scale, np.float32),
            graph.constant(scale),
            graph.scalar(quantized.input_zero_point, np.uint8),
            "",
            graph.constant(bias),
            domain=MICROSOFT,
        )
        if not len(quantized.outliers):
            return product
        outliers = graph.node(
            "Gather", self.group_inputs[key], graph.constant(quantized.outliers), axis=2
        )
        exact_weight = quantized.linears[position].outlier_weight
        exact = graph.node("MatMul", outliers, graph.constant(exact_weight))
        return graph.node("Add", product, exact)

    def parameters(self, key: str, position: int) -> Parameters:
        """What one linear layer of a group multiplies with and adds."""
        number, _, kind = key.partition(".")
        # attention output is smoothed by dividing the values it is made of
        reader = self.plan.groups.get(f"{number}.o") if (kind, position) == ("qkv", 2) else None
        divisor = reader.smoothing if reader else None
        quantized = self.plan.groups.get(key)
        if quantized is None:
            weight, bias = self.group(key)[position]
            return Parameters(_divided(weight, divisor), _divided(bias, divisor), None)
        linear = quantized.linears[position]
        return Parameters(
            linear.weight, _divided(linear.bias, divisor), _divided(linear.scale, divisor)
        )

    def word_vectors(self) -> str:
        """Adds the words' vectors, [batch, tokens, hidden_size]."""
        graph = self.graph
        words = self.tensor(self.words, self.config.vocab_size, self.config.hidden_size)
        if not self.plan.words:
            return graph.node("Gather", graph.constant(words), "input_ids")
        rows, scales = quantize_rows(words)
        integers = graph.node("Gather", graph.constant(rows), "input_ids")
        return graph.node(
            "Mul",
            graph.node("Cast", integers, to=FLOAT),
            graph.node("Gather", graph.constant(scales), "input_ids"),
        )

    def layer_norm(self, hidden: str, name: str, *, has_bias: bool = True) -> str:
        """Adds a layer norm."""
        width = self.config.hidden_size
        parts = ["weight", "bias"] if has_bias else ["weight"]
        return self.graph.node(
            "LayerNormalization",
            hidden,
            *(self.graph.constant(self.tensor(f"{name}.{part}", width)) for part in parts),
            axis=-1,
            epsilon=self.epsilon,
        )

    def activation(self, hidden: str) -> str:
        """Adds the feed-forward block's activation."""
        name = self.activation_name
        if name == "relu":
            return self.graph.node("Relu", hidden)
        if name == "silu":
            return self.graph.node("Mul", hidden, self.graph.node("Sigmoid", hidden))
        return self.graph.node("Gelu", hidden, approximate=_GELU[name])

    def first_row(self, hidden: str) -> str:
        """Adds the part that belongs to the first token, [batch, 1, ...]."""
        constants = [self.graph.integers(number) for number in (0, 1, 1)]
        return self.graph.node("Slice", hidden, *constants)

    def pool(self, hidden: str) -> str:
        """Adds pooling and normalisation; for ``cls`` of the first token alone."""
        axis = self.graph.integers(1)
        if self.spec.pooling == "cls":
            pooled = self.graph.node("Squeeze", hidden, axis)
        elif self.spec.pooling == "last_token":
            last = self.graph.scalar(-1, np.int64)
            pooled = self.graph.node("Gather", hidden, last, axis=1)
        else:
            pooled = self.graph.node("ReduceMean", hidden, axis, keepdims=0)
        if not self.spec.normalize:
            return pooled
        return self.graph.node("LpNormalization", pooled, axis=-1, p=2)

    def tensor(self, name: str, *shape: int) -> Array:
        """A tensor of the weights, with or without their prefix.

        Raises:
            ModelFileError: it is missing or has another shape.
        """
        tensor = self.weights.get(self._prefix + name, self.weights.get(name))
        if tensor is None:
            raise ModelFileError(f"{self.spec.name}: the weights have no tensor {name!r}")
        if tensor.shape != shape:
            raise ModelFileError(
                f"{self.spec.name}: tensor {name!r} should have shape {shape} by config.json, "
                f"but has {tensor.shape}"
            )
        return tensor


def _divided(value: NDArray[np.float32], divisor: Array | None) -> Array:
    return value if divisor is None else value / divisor  # no copy of weights left as they are
