"""Weights to an ONNX graph; the only importer of ``onnx``.

The graph takes ``input_ids`` (int64 [batch, tokens], texts of one length, so neither padding nor
mask) and gives ``embedding`` (float32 [batch, dimension]), pooled and, where asked, normalised.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.encoder.configs import BertConfig
from qdrant_embed.encoder.spec import ModelSpec
from qdrant_embed.errors import MissingDependencyError, ModelFileError

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError as error:
    raise MissingDependencyError("onnx", "compiling a model") from error

_OPSET, _IR_VERSION, _MICROSOFT = 20, 10, "com.microsoft"
_ACTIVATIONS = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}

Weights = Mapping[str, NDArray[np.float32]]


class _Graph:
    """ONNX nodes and constants under construction; methods give the name of what they add."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: NDArray[np.generic]) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, op: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(op, inputs, [name], name=name, domain=domain, **attributes)
        )
        return name


class BertGraph:
    """The graph of a model of architecture ``bert``.

    Args:
        weights: float32 tensors by their names in transformers, without a ``bert.`` in front.
        config: the model's ``config.json``.
        spec: pooling, normalisation and the number of positions to keep.

    Raises:
        ModelFileError: a tensor is missing or has another shape than the config says.
    """

    def __init__(self, weights: Weights, config: BertConfig, spec: ModelSpec) -> None:
        self._weights, self._config, self._spec = weights, config, spec
        self._graph = _Graph()
        hidden = self._embeddings()
        for layer in range(config.num_hidden_layers):
            last = layer == config.num_hidden_layers - 1
            hidden = self._layer(hidden, layer, first_row_only=last and spec.pooling == "cls")
        self._pool(hidden)

    def save(self, path: Path) -> None:
        """Writes the model to `path`."""
        self._graph.nodes[-1].output[0] = "embedding"
        graph = helper.make_graph(
            self._graph.nodes,
            "encoder",
            [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])],
            [
                helper.make_tensor_value_info(
                    "embedding", TensorProto.FLOAT, ["batch", self._spec.dimension]
                )
            ],
            self._graph.constants,
        )
        model = helper.make_model(
            graph,
            producer_name="qdrant-embed",
            opset_imports=[helper.make_opsetid("", _OPSET), helper.make_opsetid(_MICROSOFT, 1)],
            ir_version=_IR_VERSION,
        )
        onnx.save(model, path)

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
            graph.node("Gather", graph.constant(words), "input_ids"),
            graph.node("Slice", graph.constant(table), first, length, first),
        )
        return self._layer_norm(hidden, "embeddings.LayerNorm")

    def _layer(self, hidden: str, layer: int, *, first_row_only: bool) -> str:
        """One transformer layer; with `first_row_only` it is computed for the first token alone."""
        width, graph = self._config.hidden_size, self._graph
        name = f"encoder.layer.{layer}"
        projections = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
        residual = hidden
        if first_row_only:
            residual = self._first_row(hidden)
            (query,) = self._linear(residual, projections[:1], width, width)
            key, value = self._linear(hidden, projections[1:], width, width)
        else:
            query, key, value = self._linear(hidden, projections, width, width)
        attended = graph.node(
            "MultiHeadAttention",
            query,
            key,
            value,
            domain=_MICROSOFT,
            num_heads=self._config.num_attention_heads,
        )
        (attended,) = self._linear(attended, [f"{name}.attention.output.dense"], width, width)
        residual = self._layer_norm(
            graph.node("Add", attended, residual), f"{name}.attention.output.LayerNorm"
        )
        inner = self._config.intermediate_size
        (expanded,) = self._linear(residual, [f"{name}.intermediate.dense"], width, inner)
        activated = self._activation(expanded)
        (contracted,) = self._linear(activated, [f"{name}.output.dense"], inner, width)
        return self._layer_norm(graph.node("Add", contracted, residual), f"{name}.output.LayerNorm")

    def _linear(self, hidden: str, names: list[str], inputs: int, outputs: int) -> list[str]:
        """The outputs of linear layers that read the same input, one for each name."""
        graph, results = self._graph, []
        for name in names:
            weight = self._tensor(f"{name}.weight", outputs, inputs).T
            bias = self._tensor(f"{name}.bias", outputs)
            product = graph.node("MatMul", hidden, graph.constant(weight))
            results.append(graph.node("Add", product, graph.constant(bias)))
        return results

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
