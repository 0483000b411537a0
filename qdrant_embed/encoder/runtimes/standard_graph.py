"""A compiled graph in ONNX's standard operators, for runtimes that lack those of onnxruntime.

The weights and their int8 plan stay the same: what onnxruntime multiplies in one operator of its
own is written as ``QuantizeLinear``, ``DequantizeLinear`` and ``MatMul``, which OpenVINO fuses
again. Attention is written as ``MatMul``, ``Softmax``, ``MatMul``. Texts of different lengths can
be run together: the inputs `MASK` and `SHARES` say which tokens are padding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.encoder.compile.graph import FLOAT, MICROSOFT
from qdrant_embed.errors import MissingDependencyError, ModelError

# float32 [batch, tokens]: what is added to the scores of a token, 0 or very little for padding
MASK = "mask"
# float32 [batch, tokens]: the share of a token in the mean of its text, 0 for padding
SHARES = "shares"

# that compute each token alone, or read no tokens
_PLAIN = frozenset(
    [
        "Add",
        "Cast",
        "Concat",
        "Gather",
        "Gelu",
        "GreaterOrEqual",
        "LayerNormalization",
        "LpNormalization",
        "Mul",
        "QuantizeLinear",
        "Relu",
        "Shape",
        "Sigmoid",
        "Slice",
        "Squeeze",
        "Tanh",
    ]
)


def standard_graph(path: Path) -> bytes:
    """Read a compiled graph and return it in standard operators, as an ONNX file.

    Raises:
        MissingDependencyError: ``onnx`` is not installed.
        ModelError: the graph has an operator that has no other form here.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingDependencyError("onnx", "OpenVINO", extra="openvino") from error
    return _Standard(onnx, onnx.load(path)).written()


class _Standard:
    """One graph while it is rewritten.

    Args:
        onnx: the package.
        model: the compiled graph, with its constants.
    """

    def __init__(self, onnx: Any, model: Any) -> None:
        self._onnx, self._model = onnx, model
        self._known: dict[str, NDArray[Any]] = {
            tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer
        }
        self._constants: dict[str, NDArray[Any]] = {}
        self._nodes: list[Any] = []
        self._names: dict[str, str] = {}  # of what is called otherwise here
        self._widths: dict[str, int] = {}  # of what linear layers return
        self._count = 0
        one = self._integers(1)
        rows = self._node("Unsqueeze", MASK, one)
        self._mask = self._node("Unsqueeze", rows, one)  # [batch, 1, 1, tokens]
        self._shares = self._node("Unsqueeze", SHARES, self._integers(2))
        for node in model.graph.node:
            self._rewrite(node)

    def written(self) -> bytes:
        """Return the graph as an ONNX file."""
        onnx, helper = self._onnx, self._onnx.helper
        old = self._model.graph
        shape = ["batch", "tokens"]
        needed = {output.name for output in old.output}
        nodes = []
        for node in reversed(self._nodes):
            if needed & set(node.output):
                needed.update(node.input)
                nodes.append(node)
        graph = helper.make_graph(
            nodes[::-1],
            "encoder",
            [
                *old.input,
                helper.make_tensor_value_info(MASK, FLOAT, shape),
                helper.make_tensor_value_info(SHARES, FLOAT, shape),
            ],
            list(old.output),
            [
                onnx.numpy_helper.from_array(np.ascontiguousarray(value), name)
                for name, value in self._constants.items()
                if name in needed
            ],
        )
        opset = [entry for entry in self._model.opset_import if not entry.domain]
        model = helper.make_model(graph, opset_imports=opset, ir_version=self._model.ir_version)
        return bytes(model.SerializeToString())

    def _rewrite(self, node: Any) -> None:
        attributes = {
            entry.name: self._onnx.helper.get_attribute_value(entry) for entry in node.attribute
        }
        inputs, name = list(node.input), node.output[0]
        if node.op_type == "If":  # attends otherwise from a length on; the results are the same
            branch = attributes["else_branch"]
            for inner in branch.node:
                self._rewrite(inner)
            self._names[name] = self._names[branch.output[0].name]
            return
        if node.op_type == "MatMulIntegerToFloat":
            values, weight, scale, weight_scale, zero, _, *bias = inputs
            found = self._product(
                self._dequantized(values, scale, zero),
                self._known[weight],
                self._known[weight_scale],
                self._known[bias[0]] if bias else None,
            )
        elif node.op_type == "QAttention" and len(inputs) == 7 and not inputs[5]:
            found = self._joined_attention(inputs, attributes["num_heads"])
        elif (
            node.op_type == "MultiHeadAttention"
            and not any(inputs[3:])
            and self._names.get(inputs[0]) in self._widths
        ):
            found = self._attention(*map(self._of, inputs[:3]), heads=attributes["num_heads"])
        elif node.op_type == "MatMul" and inputs[1] in self._known:
            found = self._node("MatMul", self._of(inputs[0]), self._of(inputs[1]))
            self._widths[found] = self._known[inputs[1]].shape[1]
        elif node.op_type == "ReduceMean" and self._known[inputs[1]].tolist() == [1]:
            shared = self._node("Mul", self._of(inputs[0]), self._shares)
            found = self._node("ReduceSum", shared, self._integers(1), keepdims=0)
        elif node.op_type in _PLAIN and node.domain != MICROSOFT:
            known = [self._of(value) if value else "" for value in inputs]
            found = self._node(node.op_type, *known, **attributes)
            if node.op_type == "Add" and known[0] in self._widths:  # the bias of a linear layer
                self._widths[found] = self._widths[known[0]]
        else:
            raise ModelError(
                f"the operator {node.op_type} of this model's graph has no form for OpenVINO: pass "
                "runtime='onnxruntime'"
            )
        if name in {output.name for output in self._model.graph.output}:
            self._nodes[-1].output[0] = name
        self._names[name] = found

    def _joined_attention(self, inputs: list[str], heads: int) -> str:
        """Add the attention of an operator that also computes queries, keys and values."""
        values, weight, bias, scale, weight_scale, _, zero = inputs
        shared = self._dequantized(values, scale, zero)
        parts = [
            self._product(shared, *part)
            for part in zip(
                np.split(self._known[weight], 3, axis=1),
                np.split(self._known[weight_scale], 3),
                np.split(self._known[bias], 3),
                strict=True,
            )
        ]
        return self._attention(*parts, heads=heads)

    def _attention(self, query: str, key: str, value: str, *, heads: int) -> str:
        """Add softmax(query · key / √size + mask) · value for each head."""
        apart = self._constant(np.array([0, 0, heads, -1], np.int64))

        def by_head(hidden: str, order: list[int]) -> str:
            return self._node("Transpose", self._node("Reshape", hidden, apart), perm=order)

        queries = by_head(query, [0, 2, 1, 3])
        width = self._widths[query]
        scores = self._node("MatMul", queries, by_head(key, [0, 2, 3, 1]))
        scaled = self._node(
            "Mul", scores, self._constant(np.array((width // heads) ** -0.5, np.float32))
        )
        shares = self._node("Softmax", self._node("Add", scaled, self._mask), axis=-1)
        found = self._node("MatMul", shares, by_head(value, [0, 2, 1, 3]))
        together = self._constant(np.array([0, 0, width], np.int64))
        return self._node("Reshape", self._node("Transpose", found, perm=[0, 2, 1, 3]), together)

    def _product(
        self,
        values: str,
        weight: NDArray[Any],
        scale: NDArray[Any],
        bias: NDArray[Any] | None,
    ) -> str:
        """Add an int8 linear layer of dequantised values."""
        scales = np.broadcast_to(scale.reshape(-1), (weight.shape[1],))
        zeros = self._constant(np.zeros(weight.shape[1], np.int8))
        exact = self._node(
            "DequantizeLinear", self._constant(weight), self._constant(scales), zeros, axis=1
        )
        product = self._node("MatMul", values, exact)
        if bias is not None:
            product = self._node("Add", product, self._constant(bias.reshape(-1)))
        self._widths[product] = weight.shape[1]
        return product

    def _dequantized(self, values: str, scale: str, zero: str) -> str:
        return self._node("DequantizeLinear", *map(self._of, (values, scale, zero)))

    def _of(self, name: str) -> str:
        """Return what a value of the compiled graph is called here."""
        if name in self._known:
            self._constants[name] = self._known[name]
        return self._names.get(name, name)

    def _integers(self, *values: int) -> str:
        return self._constant(np.array(values, np.int64))

    def _constant(self, value: NDArray[Any]) -> str:
        name = f"standard_{len(self._constants)}"
        self._constants[name] = value
        return name

    def _node(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"{op}_standard_{self._count}"
        self._count += 1
        self._nodes.append(
            self._onnx.helper.make_node(op, list(inputs), [name], name=name, **attributes)
        )
        return name
