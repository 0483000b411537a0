"""Small ONNX files with the inputs and outputs that exporters give them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

WIDTH = 12


@dataclass(frozen=True)
class TinyOnnx:
    """Token vectors are the words' plus the positions', times the mask, plus the types'."""

    words: NDArray[np.float32]
    positions: NDArray[np.float32]
    types: NDArray[np.float32]

    def hidden(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """What `save` computes for one text, float32 [tokens, WIDTH]."""
        words: NDArray[np.float32] = self.words[list(ids)]
        sums: NDArray[np.float32] = words + self.positions[: len(ids)] + self.types[0]
        return sums

    def save(
        self,
        path: Path,
        *,
        inputs: Sequence[str] = ("input_ids", "attention_mask", "token_type_ids", "position_ids"),
        output: str = "last_hidden_state",
        kind: int = TensorProto.INT64,
        shape: Sequence[int | str] = ("batch", "sequence"),
        scale: float = 1.0,
    ) -> None:
        """Writes the file; an output named ``sentence_embedding`` is the largest of all tokens."""
        constants = {
            "words": self.words * np.float32(scale),
            "positions": self.positions * np.float32(scale),
            "types": self.types * np.float32(scale),
            "last_axis": np.array([2], np.int64),
            "token_axis": np.array([1], np.int64),
        }
        node = helper.make_node
        nodes = [node("Gather", ["words", "input_ids"], ["found"])]
        last = "found"
        for name, table in (("position_ids", "positions"), ("token_type_ids", "types")):
            if name in inputs:
                nodes += [
                    node("Gather", [table, name], [f"{table}_found"]),
                    node("Add", [last, f"{table}_found"], [f"{table}_added"]),
                ]
                last = f"{table}_added"
        if "attention_mask" in inputs:
            nodes += [
                node("Unsqueeze", ["attention_mask", "last_axis"], ["wide"]),
                node("Cast", ["wide"], ["mask"], to=TensorProto.FLOAT),
                node("Mul", [last, "mask"], ["masked"]),
            ]
            last = "masked"
        if output == "sentence_embedding":
            nodes.append(node("ReduceMax", [last, "token_axis"], [output], keepdims=0))
        else:
            nodes.append(node("Identity", [last], [output]))
        graph = helper.make_graph(
            nodes,
            "tiny",
            [helper.make_tensor_value_info(name, kind, list(shape)) for name in inputs],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        opsets = [helper.make_opsetid("", 18)]
        path.write_bytes(
            helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
        )


def tiny_onnx(vocabulary: int, positions: int = 64) -> TinyOnnx:
    """Random tables."""
    random = np.random.default_rng(0)
    tables = (random.normal(0, 1, (rows, WIDTH)) for rows in (vocabulary, positions, 2))
    return TinyOnnx(*(table.astype(np.float32) for table in tables))


def add_own_file(folder: Path, scale: float = 1.0) -> Path:
    """Give a model an ONNX file beside its weights, as vendors export it; return its folder.

    With another `scale` than 1, biases and what norms multiply with are others in it.
    """
    from qdrant_embed import TextEmbedding

    exported = folder.parent / "exported"
    TextEmbedding(folder, precision="fp32").export(exported)
    model = onnx.load(exported / "model.onnx")
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype == np.float32 and value.ndim == 1:
            tensor.CopyFrom(numpy_helper.from_array(value * np.float32(scale), tensor.name))
    (folder / "onnx").mkdir()
    onnx.save(model, folder / "onnx/model.onnx")
    return folder
