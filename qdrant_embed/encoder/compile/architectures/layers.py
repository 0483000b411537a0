"""The parts that all layers are made of: linear layers, norms, the table of words."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.encoder.compile.architectures.config import (
    LayerTensors,
    TransformerConfig,
    Weights,
)
from qdrant_embed.encoder.compile.graph import FLOAT, MICROSOFT, Graph
from qdrant_embed.encoder.compile.quantize import Array, Linear, QuantizationPlan, quantize_rows
from qdrant_embed.encoder.facts.spec import ModelSpec
from qdrant_embed.errors import ModelFileError

C = TypeVar("C", bound=TransformerConfig)


class Parameters(NamedTuple):
    """Of a linear layer: weight [inputs, outputs], bias [outputs], and if int8 scale [outputs]."""

    weight: Array | NDArray[np.int8]
    bias: Array
    scale: Array | None


class LayerParts(ABC, Generic[C]):
    """Adds parts of layers to a graph, float32 or int8 by a plan.

    The linear layers that read one input form a group, named ``0.qkv``, ``0.o``, ``0.f1`` and
    ``0.f2`` for layer 0: query, key and value; attention output; the feed-forward block's first
    (one, or two if it is gated) and second.

    Args:
        weights: float32 tensors by their names in transformers, with any one prefix.
        config: the model's ``config.json``.
        spec: pooling, normalisation and the number of positions to keep.
        plan: which groups are int8, and with what numbers.
    """

    words: ClassVar[str] = "embeddings.word_embeddings.weight"
    tensors: ClassVar[LayerTensors]
    gated: ClassVar[bool] = False

    def __init__(
        self, weights: Weights, config: C, spec: ModelSpec, plan: QuantizationPlan
    ) -> None:
        self.weights, self.config, self.spec, self.plan = weights, config, spec, plan
        self.graph = Graph()
        self.group_inputs: dict[str, str] = {}
        named = sorted((name for name in weights if name.endswith(self.words)), key=len)
        self._prefix = named[0].removesuffix(self.words) if named else ""

    @property
    @abstractmethod
    def epsilon(self) -> float:
        """What layer norms add to the variance."""

    def has_bias(self, kind: str) -> bool:
        """Whether the linear layers of a kind of group have a bias."""
        del kind
        return True

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

    def group_input(self, hidden: str, key: str) -> str:
        """What the linear layers of a group read: the same float32, or its int8 form."""
        self.group_inputs[key] = hidden
        quantized = self.plan.groups.get(key)
        if quantized is None:
            return hidden
        graph = self.graph
        # attention's output comes divided already
        if quantized.smoothing is not None and not key.endswith(".o"):
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
        return graph.node(
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

    def first_row(self, hidden: str) -> str:
        """Adds the part that belongs to the first token, [batch, 1, ...]."""
        constants = [self.graph.integers(number) for number in (0, 1, 1)]
        return self.graph.node("Slice", hidden, *constants)

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
