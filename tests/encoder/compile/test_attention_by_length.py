"""Attention of int8 graphs: one operator for short texts, in blocks for longer ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from architecture_fixtures import load

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
from qdrant_embed.encoder.interfaces import Pooling
from qdrant_embed.encoder.run.backend import Inputs
from qdrant_embed.encoder.run.session import Session

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
    monkeypatch.setattr(bert, "_IN_BLOCKS", TOKENS + 1)
    always = Session(write(tmp_path / "always.onnx", pooling=pooling))
    for shape in ((3, 20), (1, 127), (2, 128), (1, TOKENS)):
        expected = always.run(Inputs(ids(*shape)))
        np.testing.assert_allclose(by_length.run(Inputs(ids(*shape))), expected, atol=2e-5)
        assert np.abs(expected).max() > 0.01


def test_the_file_has_the_weights_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_length = write(tmp_path / "by_length.onnx")
    monkeypatch.setattr(bert, "_IN_BLOCKS", TOKENS + 1)
    always = write(tmp_path / "always.onnx")
    sizes = [path.with_name(path.name + ".weights").stat().st_size for path in (by_length, always)]
    assert sizes[0] == sizes[1]
