"""An ONNX graph under construction; the only importer of ``onnx``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.errors import MissingDependencyError

WEIGHTS_SUFFIX = ".weights"
MICROSOFT = "com.microsoft"  # the domain of onnxruntime's own operators
FLOAT = 1  # ONNX's number for the type float32

_OPSET, _IR_VERSION = 20, 10
_ALIGNMENT = 4096  # a page, so that onnxruntime can map each tensor from the file
_INLINE_BYTES = 1024  # smaller constants stay in the graph file, where shapes can be inferred


@dataclass
class _Node:
    op: str
    inputs: tuple[str, ...]
    output: str
    domain: str
    attributes: Mapping[str, Any]


class Graph:
    """Nodes and constants; methods return the name of what they add.

    The graph reads ``input_ids``, int64 [batch, tokens]: texts of one length, so there is neither
    padding nor mask.
    """

    def __init__(self) -> None:
        self.constants: dict[str, NDArray[Any]] = {}
        self._nodes: list[_Node] = []
        self._inputs: dict[str, list[str | int]] = {}

    def input(self, name: str, shape: list[str | int]) -> str:
        """Add an input, float32."""
        self._inputs[name] = shape
        return name

    def constant(self, value: NDArray[Any]) -> str:
        """Add a constant; the same array is added once."""
        for known, array in self.constants.items():
            if array is value:
                return known
        name = f"constant_{len(self.constants)}"
        self.constants[name] = value
        return name

    def scalar(self, value: object, dtype: type[np.generic]) -> str:
        """Add a constant of one number."""
        return self.constant(np.array(value, dtype))

    def integers(self, *values: int) -> str:
        """Add a constant int64 [values]."""
        return self.constant(np.array(values, np.int64))

    def node(self, op: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add an operator; the name is that of its first output."""
        name = f"{op}_{len(self._nodes)}"
        self._nodes.append(_Node(op, inputs, name, domain, attributes))
        return name

    def rename_last(self, name: str) -> None:
        """Rename the output of the node that was added last."""
        self._nodes[-1].output = name

    def save(self, path: Path, outputs: Mapping[str, list[Any] | None]) -> None:
        """Write what `outputs` need to `path`, and large constants beside it, to be mapped.

        Raises:
            MissingDependencyError: ``onnx`` is not installed.
        """
        try:
            from onnx import TensorProto, helper
        except ImportError as error:
            raise MissingDependencyError("onnx", "compiling a model") from error
        needed = self._needed(outputs)
        nodes = [
            helper.make_node(
                node.op,
                node.inputs,
                [node.output],
                name=f"{node.op}_{number}",
                domain=node.domain,
                **node.attributes,
            )
            for number, node in enumerate(self._nodes)
            if node.output in needed
        ]
        graph = helper.make_graph(
            nodes,
            "encoder",
            [
                helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"]),
                *(
                    helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
                    for name, shape in self._inputs.items()
                ),
            ],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
                for name, shape in outputs.items()
            ],
        )
        beside = path.with_name(path.name + WEIGHTS_SUFFIX)
        with beside.open("wb") as file:
            for name, value in self.constants.items():
                if name not in needed:
                    continue
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
            opset_imports=[helper.make_opsetid("", _OPSET), helper.make_opsetid(MICROSOFT, 1)],
            ir_version=_IR_VERSION,
        )
        path.write_bytes(model.SerializeToString())

    def _needed(self, outputs: Iterable[str]) -> set[str]:
        """Collect the names of all that `outputs` are computed from, their own included."""
        needed = set(outputs)
        for node in reversed(self._nodes):
            if node.output in needed:
                needed.update(node.inputs)
        return needed
