"""Weights to an ONNX graph; the only importer of ``onnx``.

The graph takes ``input_ids`` (int64 [batch, tokens], texts of one length, so neither padding nor
mask) and gives ``embedding`` (float32 [batch, dimension]), pooled and, where asked, normalised.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.encoder.configs import BertConfig
from qdrant_embed.encoder.quantize import NOTHING_QUANTIZED, QuantizationPlan, quantize_rows
from qdrant_embed.encoder.spec import ModelSpec
from qdrant_embed.errors import MissingDependencyError, ModelFileError

try:
    import onnx
    from onnx import TensorProto, helper
except ImportError as error:
    raise MissingDependencyError("onnx", "compiling a model") from error

WEIGHTS_SUFFIX = ".weights"

_OPSET, _IR_VERSION, _MICROSOFT = 20, 10, "com.microsoft"
_ACTIVATIONS = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}
_ALIGNMENT = 4096  # a page, so that onnxruntime can map each tensor from the file
_INLINE_BYTES = 1024  # smaller constants stay in the graph file, where shapes can be inferred

Weights: TypeAlias = Mapping[str, NDArray[np.float32]]


class _Graph:
    """ONNX nodes and constants under construction; methods give the name of what they add."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {}

    def constant(self, value: NDArray[Any]) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants[name] = value
        return name

    def scalar(self, value: object, dtype: type[np.generic]) -> str:
        return self.constant(np.array(value, dtype))

    def node(self, op: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(op, inputs, [name], name=name, domain=domain, **attributes)
        )
        return name

    def save(self, path: Path, outputs: Mapping[str, list[Any] | None]) -> None:
        """Writes the graph to `path`, and large constants beside it, to be mapped, not read."""
        graph = helper.make_graph(
            self.nodes,
            "encoder",
            [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
                for name, shape in outputs.items()
            ],
        )
        beside = path.with_name(path.name + WEIGHTS_SUFFIX)
        with beside.open("wb") as file:
            for name, value in self.constants.items():
                tensor = graph.initializer.add()
                tensor.name = name
                tensor.data_type = helper.np_dtype_to_tensor_dtype(value.dtype)
                tensor.dims.extend(value.shape)
                if value.nbytes < _INLINE_BYTES:
                    tensor.raw_data = value.tobytes()
                    continue
                file.write(bytes(-file.tell() % _ALIGNMENT))
                tensor.data_location = TensorProto.EXTERNAL
                for key, entry in (
                    ("location", beside.name),
                    ("offset", str(file.tell())),
                    ("length", str(value.nbytes)),
                ):
                    tensor.external_data.add(key=key, value=entry)
                file.write(np.ascontiguousarray(value).data)
        model = helper.make_model(
            graph,
            producer_name="qdrant-embed",
            opset_imports=[helper.make_opsetid("", _OPSET), helper.make_opsetid(_MICROSOFT, 1)],
            ir_version=_IR_VERSION,
        )
        path.write_bytes(model.SerializeToString())


class BertGraph:
    """The graph of a model of architecture ``bert``.

    The linear layers that read one input form a group, named ``0.qkv``, ``0.o``, ``0.f1`` and
    ``0.f2`` for layer 0: query, key and value; attention output; the feed-forward block's two.

    Args:
        weights: float32 tensors by their names in transformers, without a ``bert.`` in front.
        config: the model's ``config.json``.
        spec: pooling, normalisation and the number of positions to keep.
        plan: which groups are int8, and with what numbers; none by default.

    Raises:
        ModelFileError: a tensor is missing or has another shape than the config says.
    """

    def __init__(
        self,
        weights: Weights,
        config: BertConfig,
        spec: ModelSpec,
        plan: QuantizationPlan = NOTHING_QUANTIZED,
    ) -> None:
        self._weights, self._config, self._spec, self._plan = weights, config, spec, plan
        self._graph = _Graph()
        self.group_inputs: dict[str, str] = {}
        hidden = self._embeddings()
        for layer in range(config.num_hidden_layers):
            last = layer == config.num_hidden_layers - 1
            hidden = self._layer(hidden, layer, first_row_only=last and spec.pooling == "cls")
        self._pool(hidden)
        self._graph.nodes[-1].output[0] = "embedding"

    def save(self, path: Path, *, taps: bool = False) -> None:
        """Writes the model to `path`; with `taps` the inputs of all groups are outputs too."""
        outputs: dict[str, list[Any] | None] = {"embedding": ["batch", self._spec.dimension]}
        if taps:
            outputs |= dict.fromkeys(self.group_inputs.values())
        self._graph.save(path, outputs)

    def group(self, key: str) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Weight [inputs, outputs] and bias [outputs] of each linear layer of a group."""
        return [self._linear_weights(name) for name in _group_names(key)]

    def _embeddings(self) -> str:
        config, graph, width = self._config, self._graph, self._config.hidden_size
        words = self._tensor("embeddings.word_embeddings.weight", config.vocab_size, width)
        positions = self._tensor(
            "embeddings.position_embeddings.weight", config.max_position_embeddings, width
        )
        types = self._tensor(
            "embeddings.token_type_embeddings.weight", config.type_vocab_size, width
        )
        table = (positions + types[:1])[: self._spec.max_tokens]
        length = graph.node("Shape", "input_ids", start=1, end=2)
        first = graph.constant(np.array([0], np.int64))
        hidden = graph.node(
            "Add",
            self._word_vectors(words),
            graph.node("Slice", graph.constant(table), first, length, first),
        )
        return self._layer_norm(hidden, "embeddings.LayerNorm")

    def _word_vectors(self, words: NDArray[np.float32]) -> str:
        graph = self._graph
        if not self._plan.words:
            return graph.node("Gather", graph.constant(words), "input_ids")
        rows, scales = quantize_rows(words)
        integers = graph.node("Gather", graph.constant(rows), "input_ids")
        return graph.node(
            "Mul",
            graph.node("Cast", integers, to=TensorProto.FLOAT),
            graph.node("Gather", graph.constant(scales), "input_ids"),
        )

    def _layer(self, hidden: str, layer: int, *, first_row_only: bool) -> str:
        """One transformer layer; with `first_row_only` it is computed for the first token alone."""
        graph = self._graph
        name = f"encoder.layer.{layer}"
        shared = self._group_input(hidden, f"{layer}.qkv")
        rows = self._first_row(shared) if first_row_only else shared
        residual = self._first_row(hidden) if first_row_only else hidden
        attended = graph.node(
            "MultiHeadAttention",
            self._linear(rows, f"{layer}.qkv", 0),
            self._linear(shared, f"{layer}.qkv", 1),
            self._linear(shared, f"{layer}.qkv", 2),
            domain=_MICROSOFT,
            num_heads=self._config.num_attention_heads,
        )
        projected = self._linear(self._group_input(attended, f"{layer}.o"), f"{layer}.o")
        residual = self._layer_norm(
            graph.node("Add", projected, residual), f"{name}.attention.output.LayerNorm"
        )
        expanded = self._linear(self._group_input(residual, f"{layer}.f1"), f"{layer}.f1")
        activated = self._activation(expanded)
        contracted = self._linear(self._group_input(activated, f"{layer}.f2"), f"{layer}.f2")
        return self._layer_norm(graph.node("Add", contracted, residual), f"{name}.output.LayerNorm")

    def _group_input(self, hidden: str, key: str) -> str:
        """What the linear layers of a group read: the same float32, or its int8 form."""
        self.group_inputs[key] = hidden
        quantized = self._plan.groups.get(key)
        if quantized is None:
            return hidden
        graph = self._graph
        if not key.endswith(".o"):  # there the values came divided already
            hidden = graph.node("Mul", hidden, graph.constant(1 / quantized.smoothing))
        return graph.node(
            "QuantizeLinear",
            hidden,
            graph.scalar(quantized.input_scale, np.float32),
            graph.scalar(quantized.input_zero_point, np.uint8),
        )

    def _linear(self, shared: str, key: str, position: int = 0) -> str:
        """One linear layer of a group, reading what `_group_input` gave."""
        graph = self._graph
        layer, _, kind = key.partition(".")
        quantized = self._plan.groups.get(key)
        # attention output is smoothed by dividing the values it is made of
        reader = self._plan.groups.get(f"{layer}.o") if (kind, position) == ("qkv", 2) else None
        divisor = reader.smoothing if reader else None
        if quantized is None:
            weight, bias = self._linear_weights(_group_names(key)[position])
            product = graph.node("MatMul", shared, graph.constant(_divided(weight, divisor)))
            return graph.node("Add", product, graph.constant(_divided(bias, divisor)))
        linear = quantized.linears[position]
        product = graph.node(
            "MatMulIntegerToFloat",
            shared,
            graph.constant(linear.weight),
            graph.scalar(quantized.input_scale, np.float32),
            graph.constant(_divided(linear.scale, divisor)),
            graph.scalar(quantized.input_zero_point, np.uint8),
            "",
            graph.constant(_divided(linear.bias, divisor)),
            domain=_MICROSOFT,
        )
        if not len(quantized.outliers):
            return product
        outliers = graph.node(
            "Gather", self.group_inputs[key], graph.constant(quantized.outliers), axis=2
        )
        exact = graph.node("MatMul", outliers, graph.constant(linear.outlier_weight))
        return graph.node("Add", product, exact)

    def _linear_weights(self, name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        width, inner = self._config.hidden_size, self._config.intermediate_size
        inputs = inner if name.endswith(".output.dense") and "attention" not in name else width
        outputs = inner if name.endswith(".intermediate.dense") else width
        weight = self._tensor(f"{name}.weight", outputs, inputs).T
        return weight, self._tensor(f"{name}.bias", outputs)

    def _layer_norm(self, hidden: str, name: str) -> str:
        width = self._config.hidden_size
        return self._graph.node(
            "LayerNormalization",
            hidden,
            self._graph.constant(self._tensor(f"{name}.weight", width)),
            self._graph.constant(self._tensor(f"{name}.bias", width)),
            axis=-1,
            epsilon=self._config.layer_norm_eps,
        )

    def _activation(self, hidden: str) -> str:
        if self._config.hidden_act == "relu":
            return self._graph.node("Relu", hidden)
        return self._graph.node("Gelu", hidden, approximate=_ACTIVATIONS[self._config.hidden_act])

    def _first_row(self, hidden: str) -> str:
        constants = [self._graph.constant(np.array([n], np.int64)) for n in (0, 1, 1)]
        return self._graph.node("Slice", hidden, *constants)

    def _pool(self, hidden: str) -> str:
        axis = self._graph.constant(np.array([1], np.int64))
        if self._spec.pooling == "cls":
            pooled = self._graph.node("Squeeze", hidden, axis)
        else:
            pooled = self._graph.node("ReduceMean", hidden, axis, keepdims=0)
        if not self._spec.normalize:
            return pooled
        return self._graph.node("LpNormalization", pooled, axis=-1, p=2)

    def _tensor(self, name: str, *shape: int) -> NDArray[np.float32]:
        tensor = self._weights.get(name)
        if tensor is None:
            raise ModelFileError(f"{self._spec.name}: the weights have no tensor {name!r}")
        if tensor.shape != shape:
            raise ModelFileError(
                f"{self._spec.name}: tensor {name!r} should have shape {shape} by config.json, "
                f"but has {tensor.shape}"
            )
        return tensor


def _divided(
    value: NDArray[np.float32], divisor: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    return value if divisor is None else value / divisor  # no copy of weights left as they are


def _group_names(key: str) -> list[str]:
    """Names in transformers of the linear layers of a group."""
    layer, _, kind = key.partition(".")
    parts = {
        "qkv": ["attention.self.query", "attention.self.key", "attention.self.value"],
        "o": ["attention.output.dense"],
        "f1": ["intermediate.dense"],
        "f2": ["output.dense"],
    }
    return [f"encoder.layer.{layer}.{part}" for part in parts[kind]]
