"""Attention of int8 graphs: one operator for short texts, in blocks for longer ones.

A single short text runs on a graph that does not choose.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from architecture_fixtures import load
from hypothesis import given
from hypothesis import strategies as st

from qdrant_embed.encoder.compile.architectures import bert
from qdrant_embed.encoder.compile.architectures.registry import model_graph
from qdrant_embed.encoder.compile.quantize import (
    NOTHING_QUANTIZED,
    LinearGroup,
    QuantizationPlan,
    QuantizedGroup,
    QuantizedLinear,
)
from qdrant_embed.encoder.facts.architectures import architecture_name, config_class
from qdrant_embed.encoder.facts.spec import ModelSpec
from qdrant_embed.encoder.files.short_graph import short_graph
from qdrant_embed.encoder.interfaces import Pooling
from qdrant_embed.encoder.run import session
from qdrant_embed.encoder.run.backend import Inputs
from qdrant_embed.encoder.run.session import Session, SpreadSession

TOKENS = 200
OPERATORS = {"Attention", "QAttention", "MultiHeadAttention"}


def write(path: Path, *, int8: bool = True, pooling: Pooling = "mean") -> Path:
    """Write the graph of a small BERT; its int8 weights are rounded plainly."""
    fixture = load("bert")
    table = "embeddings.position_embeddings.weight"
    weights = dict(fixture.weights)
    weights[table] = np.resize(weights[table], (TOKENS, weights[table].shape[1]))
    stated = fixture.config | {"max_position_embeddings": TOKENS}
    kind = config_class(architecture_name(stated))
    assert kind is not None
    config = kind.model_validate(stated)
    spec = ModelSpec("tiny", config.dimension, pooling, TOKENS, False)
    plan = NOTHING_QUANTIZED
    if int8:
        plain = model_graph(weights, config, spec)
        groups = {}
        for number in range(config.num_hidden_layers):
            group = LinearGroup(number, "qkv")
            linears = []
            for weight, bias in plain.linears(group):
                scale = (np.abs(weight).max(axis=0) / 60).astype(np.float32)
                linears.append(
                    QuantizedLinear(np.rint(weight / scale).astype(np.int8), scale, bias)
                )
            groups[group] = QuantizedGroup(None, np.float32(0.04), 128, tuple(linears))
        plan = QuantizationPlan(groups)
    model_graph(weights, config, spec, plan).save(path)
    return path


def ids(texts: int, tokens: int) -> np.ndarray:
    drawn: np.ndarray = np.random.default_rng(tokens).integers(5, 60, (texts, tokens))
    return drawn


def operators(path: Path, tokens: int, folder: Path) -> set[str]:
    """Run a text; return which kinds of attention were computed."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / f"run-{tokens}")
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    session.run(None, {"input_ids": ids(1, tokens)})
    events = json.loads(Path(session.end_profiling()).read_text())
    return OPERATORS & {event.get("args", {}).get("op_name") for event in events}


def test_int8_attends_in_blocks_from_128_tokens_on(tmp_path: Path) -> None:
    path = write(tmp_path / "int8.onnx")
    found = {tokens: operators(path, tokens, tmp_path) for tokens in (2, 127, 128, TOKENS)}
    assert found == {
        2: {"QAttention"},
        127: {"QAttention"},
        128: {"MultiHeadAttention"},
        TOKENS: {"MultiHeadAttention"},
    }


def test_float32_does_not_because_its_weights_would_be_in_memory_twice(tmp_path: Path) -> None:
    path = write(tmp_path / "fp32.onnx", int8=False)
    assert operators(path, TOKENS, tmp_path) == {"Attention"}


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_vectors_are_the_same_either_way(
    pooling: Pooling, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_length = Session(write(tmp_path / "by_length.onnx", pooling=pooling))
    monkeypatch.setattr(bert, "LONG_TEXT", TOKENS + 1)
    always = Session(write(tmp_path / "always.onnx", pooling=pooling))
    for shape in ((3, 20), (1, 127), (2, 128), (1, TOKENS)):
        expected = always.run(Inputs(ids(*shape)))
        np.testing.assert_allclose(by_length.run(Inputs(ids(*shape))), expected, atol=2e-5)
        assert np.abs(expected).max() > 0.01


def test_the_file_has_the_weights_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_length = write(tmp_path / "by_length.onnx")
    monkeypatch.setattr(bert, "LONG_TEXT", TOKENS + 1)
    always = write(tmp_path / "always.onnx")
    sizes = [path.with_name(path.name + ".weights").stat().st_size for path in (by_length, always)]
    assert sizes[0] == sizes[1]


def operators_of(graph: bytes) -> set[str]:
    return {node.op_type for node in onnx.load_from_string(graph).graph.node}


def test_the_graph_of_short_texts_does_not_choose(tmp_path: Path) -> None:
    whole = write(tmp_path / "int8.onnx").read_bytes()
    assert "If" in operators_of(whole)
    short = short_graph(whole, 128)
    assert short is not None
    assert "If" not in operators_of(short)
    (tmp_path / "short.onnx").write_bytes(short)
    assert operators(tmp_path / "short.onnx", TOKENS, tmp_path) == {"QAttention"}


def test_a_graph_that_does_not_choose_has_none_for_short_texts(tmp_path: Path) -> None:
    assert short_graph(write(tmp_path / "fp32.onnx", int8=False).read_bytes(), 128) is None
    assert short_graph(b"", 128) is None


def changed_condition(graph: Any, op: str) -> None:
    [test, *_] = [node for node in graph.node if node.op_type == "GreaterOrEqual"]
    test.op_type = op


def read_elsewhere(graph: Any) -> None:
    [test, *_] = [node for node in graph.node if node.op_type == "GreaterOrEqual"]
    graph.node.append(onnx.helper.make_node("Not", [test.output[0]], ["other"], name="other"))


def read_in_a_branch(graph: Any) -> None:
    [test, *_] = [node for node in graph.node if node.op_type == "GreaterOrEqual"]
    choice = next(node for node in graph.node if node.op_type == "If")
    branch = choice.attribute[0].g
    branch.node.append(onnx.helper.make_node("Not", [test.output[0]], ["other"], name="other"))


def other_length(graph: Any) -> None:
    [test, *_] = [node for node in graph.node if node.op_type == "GreaterOrEqual"]
    [shape] = [node for node in graph.node if node.output[0] == test.input[0]]
    shape.attribute[0].i += 1


def second_output(graph: Any) -> None:
    choice = next(node for node in graph.node if node.op_type == "If")
    choice.output.append("second")


def constant_in_a_branch(graph: Any) -> None:
    choice = next(node for node in graph.node if node.op_type == "If")
    for attribute in choice.attribute:
        attribute.g.initializer.append(onnx.numpy_helper.from_array(np.ones(1), "inner"))


def no_second_branch(graph: Any) -> None:
    choice = next(node for node in graph.node if node.op_type == "If")
    for attribute in choice.attribute:
        attribute.name = "then_branch"


@pytest.mark.parametrize(
    "change",
    [
        partial(changed_condition, op="Less"),
        partial(changed_condition, op="Greater"),
        read_elsewhere,
        read_in_a_branch,
        other_length,
        second_output,
        constant_in_a_branch,
        no_second_branch,
    ],
)
def test_a_graph_that_chooses_in_another_way_is_left_as_it_is(
    change: Callable[[Any], None], written: bytes
) -> None:
    assert short_graph(written, 128) is not None
    assert short_graph(written, 129) is None
    model = onnx.load_from_string(written)
    change(model.graph)
    assert short_graph(model.SerializeToString(), 128) is None


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write(tmp_path_factory.mktemp("graphs") / "int8.onnx").read_bytes()


@given(st.data())
def test_a_damaged_graph_is_no_error(written: bytes, data: st.DataObject) -> None:
    changed = bytearray(written)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    short_graph(bytes(changed), 128)
    short_graph(bytes(changed[: data.draw(st.integers(0, len(changed)))]), 128)


@given(st.binary(max_size=60))
def test_bytes_that_are_no_graph_are_no_error(content: bytes) -> None:
    short_graph(content, 128)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_single_text_has_the_vector_that_it_has_among_others(
    pooling: Pooling, tmp_path: Path, started: list[bool]
) -> None:
    path = write(tmp_path / "int8.onnx", pooling=pooling)
    bulk, spread = Session(path), SpreadSession(path, threads=2)
    for tokens in (2, 20, 127, 128, TOKENS, 5):
        texts = ids(3, tokens)
        expected = bulk.run(Inputs(texts))
        for text, vector in zip(texts, expected, strict=True):
            np.testing.assert_allclose(spread.run(Inputs(text[None]))[0], vector, atol=1e-6)
            fed = spread.feed({"input_ids": text[None]}, ["embedding"])
            np.testing.assert_allclose(fed[0][0], vector, atol=1e-6)
        assert started == [False, *_those_of_spread(tokens >= 128 or len(started) > 2)]


def _those_of_spread(has_run_long: bool) -> list[bool]:
    """What a session for single texts has started: onnxruntime 1.20 can run the file alone."""
    if not session._FINDS_CONSTANTS:
        return [False]
    return [True, False] if has_run_long else [True]


def test_an_onnxruntime_that_cannot_run_it_runs_the_whole_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[bool]
) -> None:
    monkeypatch.setattr(session, "_FINDS_CONSTANTS", False)
    path = write(tmp_path / "int8.onnx")
    spread = SpreadSession(path, threads=2)
    for tokens in (20, TOKENS):
        text = Inputs(ids(1, tokens))
        np.testing.assert_allclose(spread.run(text), Session(path).run(text), atol=1e-6)
    assert started == [False] * 3


def test_a_forked_child_starts_the_same_graph_again(tmp_path: Path, started: list[bool]) -> None:
    spread = SpreadSession(write(tmp_path / "int8.onnx"), threads=2)
    text = Inputs(ids(1, 20))
    before = spread.run(text)
    spread._short.after_fork()
    np.testing.assert_allclose(spread.run(text), before, atol=1e-6)
    assert started == [session._FINDS_CONSTANTS] * 2
