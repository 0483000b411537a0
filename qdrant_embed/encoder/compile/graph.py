"""An ONNX graph under construction."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.encoder.compile.halves import BFLOAT16
from qdrant_embed.errors import MissingDependencyError

WEIGHTS_SUFFIX = ".weights"
MICROSOFT = "com.microsoft"  # the domain of onnxruntime's own operators
FLOAT, INTEGER = 1, 7  # ONNX's numbers for the types float32 and int64

_OPSET, _IR_VERSION = 20, 10
_ALIGNMENT = 4096  # a page, so that onnxruntime can map each tensor from the file
_INLINE_BYTES = 1024  # smaller constants stay in the graph file, where shapes can be inferred


@dataclass
class _Node:
    op: str
    inputs: tuple[str, ...]
    outputs: list[str]
    domain: str
    attributes: Mapping[str, Any]


@dataclass
class _Body:
    """What a loop repeats, or one of two branches: `nodes`, which give `result`.

    `number` is that of the round, which the nodes of a loop read; a branch has none.
    """

    result: str
    nodes: list[_Node]
    number: str = ""

    @property
    def reads(self) -> Iterator[str]:
        """The names that its nodes read, also those from outside of it."""
        for node in self.nodes:
            yield from node.inputs


@dataclass(frozen=True)
class _Table:
    """A constant whose rows are computed in blocks, one after the other."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    blocks: Callable[[], Iterable[NDArray[Any]]]


_Constant: TypeAlias = "NDArray[Any] | Callable[[], NDArray[Any]] | _Table"


class Graph:
    """Nodes and constants; methods return the name of what they add.

    The graph reads ``input_ids``, int64 [batch, tokens]: texts of one length, so there is neither
    padding nor mask.
    """

    def __init__(self) -> None:
        self._constants: dict[str, _Constant] = {}
        self._nodes: list[_Node] = []
        self._added = 0  # nodes, also those of loops
        self._inputs: dict[str, tuple[int, list[str | int] | None]] = {}
        self._optional: dict[str, NDArray[Any]] = {}

    def input(self, name: str, shape: list[str | int] | None, kind: int = FLOAT) -> str:
        """Add an input, float32 or of another `kind`."""
        self._inputs[name] = kind, shape
        return name

    def optional_input(self, name: str, value: NDArray[Any]) -> str:
        """Add an input, of the shape and type of its default `value`."""
        self._optional[name] = self._constants[name] = value
        return name

    def constant(self, value: NDArray[Any]) -> str:
        """Add a constant; the same array is added once."""
        for known, array in self._constants.items():
            if array is value:
                return known
        return self._added_constant(value)

    def deferred(self, compute: Callable[[], NDArray[Any]]) -> str:
        """Add a constant that is computed when it is written, and not kept: it may be large."""
        return self._added_constant(compute)

    def table(
        self,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        blocks: Callable[[], Iterable[NDArray[Any]]],
    ) -> str:
        """Add a constant whose rows are computed in blocks when it is written: it is very large."""
        return self._added_constant(_Table(shape, dtype, blocks))

    def _added_constant(self, value: _Constant) -> str:
        name = f"constant_{len(self._constants)}"
        self._constants[name] = value
        return name

    def check(self) -> None:
        """Compute each constant, and keep none; raises what is wrong with one."""
        for value in self._constants.values():
            if isinstance(value, _Table):
                for _ in value.blocks():
                    pass
            elif callable(value):
                value()

    def scalar(self, value: object, dtype: type[np.generic]) -> str:
        """Add a constant of one number."""
        return self.constant(np.array(value, dtype))

    def integers(self, *values: int) -> str:
        """Add a constant int64 [values]."""
        return self.constant(np.array(values, np.int64))

    def node(self, op: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add an operator; the name is that of its first output."""
        name = f"{op}_{self._added}"
        self._added += 1
        self._nodes.append(_Node(op, inputs, [name], domain, attributes))
        return name

    def largest(self, values: str, count: int) -> tuple[str, str]:
        """Add the `count` largest of each row, and where in their rows they are."""
        name = self.node("TopK", values, self.integers(count), axis=-1)
        self._nodes[-1].outputs.append(f"{name}_places")
        return name, f"{name}_places"

    def repeated(self, times: str, add_body: Callable[[str], str]) -> str:
        """Add float32 results of a loop, one after the other: [times, ...].

        Args:
            times: how often the body is run, int64 [1].
            add_body: adds what is repeated, for the number of the round, int64 []; it may read
                all that is added already, and returns its result, whose shape stays the same.
        """
        number = f"round_{self._added}"
        body = self._body(lambda: add_body(number), number)
        return self.node("Loop", times, "", body=body)

    def either(self, condition: str, add_if: Callable[[], str], add_else: Callable[[], str]) -> str:
        """Add one of two float32 results, of which only that one is computed.

        Args:
            condition: bool [1].
            add_if: adds what is computed where it is true, and returns its result; it may read all
                that is added already.
            add_else: the same for false.
        """
        branches: dict[str, Any] = {
            "then_branch": self._body(add_if),
            "else_branch": self._body(add_else),
        }
        return self.node("If", condition, **branches)

    def _body(self, add: Callable[[], str], number: str = "") -> _Body:
        """Collect what `add` adds, instead of adding it to this graph."""
        outer, self._nodes = self._nodes, []
        result = add()
        body, self._nodes = _Body(result, self._nodes, number), outer
        return body

    def widened(self, halves: str, after: str) -> str:
        """Add the matrix `halves`, of 16 bits, in float32, made for each run when `after` is there.

        onnxruntime would otherwise widen it when the graph is loaded, and keep it. A size of 0
        takes the matrix' own.
        """
        sizes = self.node("Shape", after, start=0, end=2)
        own = self.node("Sub", sizes, sizes)
        return self.node("Cast", self.node("Reshape", halves, own), to=FLOAT)

    def rename_last(self, name: str) -> None:
        """Rename the output of the node that was added last."""
        self._nodes[-1].outputs[0] = name

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
        nodes = [_node_proto(helper, node) for node in self._nodes if needed & set(node.outputs)]
        graph = helper.make_graph(
            nodes,
            "encoder",
            [
                helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"]),
                *(
                    helper.make_tensor_value_info(name, kind, shape)
                    for name, (kind, shape) in self._inputs.items()
                ),
                *(
                    helper.make_tensor_value_info(
                        name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
                    )
                    for name, value in self._optional.items()
                ),
            ],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
                for name, shape in outputs.items()
            ],
        )
        beside = path.with_name(path.name + WEIGHTS_SUFFIX)
        with beside.open("wb") as file:
            for name, constant in self._constants.items():
                if name not in needed:
                    continue
                value = _computed(constant)
                tensor = graph.initializer.add()
                tensor.name = name
                tensor.data_type = (
                    TensorProto.BFLOAT16
                    if value.dtype == BFLOAT16
                    else helper.np_dtype_to_tensor_dtype(value.dtype)
                )
                tensor.dims.extend(value.shape)
                size = math.prod(value.shape) * value.dtype.itemsize
                if size < _INLINE_BYTES:
                    tensor.raw_data = b"".join(block.tobytes() for block in value.blocks())
                    continue
                file.write(bytes(-file.tell() % _ALIGNMENT))
                tensor.data_location = TensorProto.EXTERNAL
                for key, entry in (
                    ("location", beside.name),
                    ("offset", str(file.tell())),
                    ("length", str(size)),
                ):
                    tensor.external_data.add(key=key, value=entry)
                for block in value.blocks():
                    file.write(np.ascontiguousarray(block).data)
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
            if needed & set(node.outputs):
                needed.update(node.inputs)
                for value in node.attributes.values():
                    if isinstance(value, _Body):
                        needed.update(value.reads)
        return needed


def _computed(constant: _Constant) -> _Table:
    """Compute a constant, unless it is computed in blocks."""
    if isinstance(constant, _Table):
        return constant
    value = constant() if callable(constant) else constant
    return _Table(value.shape, value.dtype, lambda: [value])


def _node_proto(helper: Any, node: _Node) -> Any:
    """Convert a node, with the body that it repeats if it is a loop, or with its branches."""
    attributes = {
        name: _body_proto(helper, value) if isinstance(value, _Body) else value
        for name, value in node.attributes.items()
    }
    return helper.make_node(
        node.op,
        node.inputs,
        node.outputs,
        name=node.outputs[0],
        domain=node.domain,
        **attributes,
    )


def _body_proto(helper: Any, body: _Body) -> Any:
    """Convert a branch, or the body of a loop, which by ONNX's rules also says if it continues."""
    nodes = [_node_proto(helper, node) for node in body.nodes]
    result = helper.make_tensor_value_info(body.result, FLOAT, None)
    if not body.number:
        return helper.make_graph(nodes, body.result, [], [result])
    integer, boolean = (
        helper.np_dtype_to_tensor_dtype(np.dtype(kind)) for kind in (np.int64, bool)
    )
    continues, goes_on = f"{body.number}_continues", f"{body.number}_goes_on"
    return helper.make_graph(
        [*nodes, helper.make_node("Identity", [continues], [goes_on], name=goes_on)],
        body.number,
        [
            helper.make_tensor_value_info(body.number, integer, []),
            helper.make_tensor_value_info(continues, boolean, []),
        ],
        [
            helper.make_tensor_value_info(goes_on, boolean, []),
            result,
        ],
    )
