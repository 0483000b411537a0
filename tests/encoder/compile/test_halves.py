"""Weights stored in 16 bits: as exact as promised, in half the memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from architecture_fixtures import load, spec_for
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from tiny import TinyModel, tiny_bert

from qdrant_embed import CompileReport, InputError, ModelFileError, TextEmbedding
from qdrant_embed.cli.main import main
from qdrant_embed.encoder.compile import mixed_precision
from qdrant_embed.encoder.compile.architectures.registry import model_graph
from qdrant_embed.encoder.compile.calibration import CalibrationTokens, calibration_tokens
from qdrant_embed.encoder.compile.halves import BFLOAT16, stored
from qdrant_embed.encoder.compile.quantize import QuantizationPlan
from qdrant_embed.encoder.facts.architectures import architecture_name, config_class
from qdrant_embed.encoder.facts.precision import Fidelity, Precision, Storage
from qdrant_embed.encoder.facts.weights import weight_files
from qdrant_embed.encoder.files.tensors import Tensors, read_tensors
from qdrant_embed.encoder.run.backend import Inputs
from qdrant_embed.encoder.run.session import Session

KINDS: list[Storage] = ["bf16", "fp16"]
_NAMES = {"bf16": "BF16", "fp16": "F16", "fp32": "F32"}  # of safetensors
# a norm before and after, gated blocks, shared heads, a window, experts, layers that read a bias
ARCHITECTURES = ["bert", "qwen3", "gemma3_text", "modernbert", "nomic_bert_moe", "t5", "mpnet"]
TEXTS = ["the cat sat", "a ship sailed to sea in a storm", "stock market " * 12]


def widened(halves: NDArray[Any]) -> NDArray[np.float32]:
    if halves.dtype == BFLOAT16:
        return (halves.view("<u2").astype(np.uint32) << 16).view(np.float32)
    return halves.astype(np.float32)


def rounded(weights: Mapping[str, NDArray[Any]], kind: Storage) -> dict[str, NDArray[np.float32]]:
    return {name: widened(stored(tensor, kind)) for name, tensor in weights.items()}


def save(path: Path, weights: Mapping[str, NDArray[np.float32]], kind: Storage) -> None:
    """Write weights as a vendor writes them in 16 bits."""
    header: dict[str, Any] = {}
    data = b""
    for name, values in weights.items():
        part = stored(values, kind).tobytes()
        offsets = [len(data), len(data) + len(part)]
        header[name] = {"dtype": _NAMES[kind], "shape": values.shape, "data_offsets": offsets}
        data += part
    written = json.dumps(header).encode()
    path.write_bytes(len(written).to_bytes(8, "little") + written + data)


def in_halves(path: Path, kind: Storage, **options: Any) -> TinyModel:
    """A model whose file has 16 bits for each number."""
    model = tiny_bert(path, **options)
    save(path / "model.safetensors", model.weights, kind)
    return model


def graph(name: str, path: Path, storage: Storage, given: Storage) -> Session:
    """The graph of a fixture, whose weights are those that `given` can hold."""
    fixture = load(name)
    kind = config_class(architecture_name(fixture.config))
    assert kind is not None
    config = kind.model_validate(fixture.config)
    weights = rounded(fixture.weights, given)
    plan = QuantizationPlan(storage=storage)
    file = path / f"{storage}-{given}.onnx"
    model_graph(weights, config, spec_for(fixture, "mean"), plan).save(file)
    return Session(file)


@pytest.fixture(autouse=True)
def few_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compilation takes little time."""

    def tokens(*arguments: Any) -> CalibrationTokens:
        found = calibration_tokens(*arguments)
        return CalibrationTokens(
            found.texts[::8], found.random[:10], found.held_out[::2], found.groups[::2]
        )

    monkeypatch.setattr(mixed_precision, "calibration_tokens", tokens)


@given(
    arrays(
        np.float32,
        st.integers(1, 9),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False, max_value=6e4)
        | st.floats(-1, 1, width=32),
    ).filter(lambda values: bool((np.abs(values) < 6e4).all())),
    st.sampled_from(KINDS),
)
def test_a_number_is_stored_as_the_nearest(values: NDArray[np.float32], kind: Storage) -> None:
    found = widened(stored(values, kind))
    np.testing.assert_array_equal(widened(stored(found, kind)), found)  # those stay as they are
    step = np.maximum(np.abs(values) * 2.0 ** (-8 if kind == "bf16" else -11), 2.0**-25)
    assert (np.abs(found - values) <= step).all()


def test_ties_go_to_even_and_zeros_keep_their_sign() -> None:
    values = np.array([1 + 2**-8, 1 + 3 * 2**-8, -0.0, 2**-140], np.float32)
    found = widened(stored(values, "bf16"))
    np.testing.assert_array_equal(found, np.array([1, 1 + 4 * 2**-8, -0.0, 0], np.float32))
    assert np.signbit(found[2])


@pytest.mark.parametrize(("kind", "value"), [("fp16", 65_520.0), ("bf16", 3.4e38)])
def test_a_number_that_is_too_large_is_an_error(kind: Storage, value: float) -> None:
    with pytest.raises(ModelFileError, match=f"{kind} cannot hold: use precision='fp32'"):
        stored(np.array([1, -value], np.float32), kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_weights_that_16_bits_hold_give_the_vectors_of_float32(
    name: str, kind: Storage, tmp_path: Path
) -> None:
    ids = load(name).ids
    halves = graph(name, tmp_path, kind, kind)
    exact = graph(name, tmp_path, "fp32", kind)
    for length in (1, 2, 63, len(ids)):
        inputs = Inputs(np.tile(ids[:length], (2, 1)))
        expected = exact.run(inputs)
        assert np.abs(halves.run(inputs) - expected).max() <= 1e-5 * max(1, np.abs(expected).max())


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_graph_keeps_16_bits(kind: Storage, tmp_path: Path) -> None:
    """onnxruntime folds a cast of a constant, and would then hold float32."""
    graph("qwen3", tmp_path, kind, "fp32")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    file = str(tmp_path / f"{kind}-fp32.onnx")
    onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])
    tensors = onnx.load(tmp_path / "optimised.onnx").graph.initializer
    matrices = [tensor for tensor in tensors if len(tensor.dims) == 2 and min(tensor.dims) > 1]
    number = {"bf16": onnx.TensorProto.BFLOAT16, "fp16": onnx.TensorProto.FLOAT16}[kind]
    linears = [tensor for tensor in matrices if tensor.data_type == number]
    assert len(linears) == 7 * load("qwen3").config["num_hidden_layers"] + 1
    rotary = 2  # of cosines and sines
    assert len(matrices) - len(linears) <= rotary


@pytest.fixture
def no_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    """No graph passes whose linear layers are int8."""
    measured = mixed_precision.MixedPrecisionSearch._measured

    def failing(
        self: mixed_precision.MixedPrecisionSearch, plan: QuantizationPlan, reference: Any
    ) -> Any:
        found = measured(self, plan, reference)
        assert isinstance(found, Fidelity)
        return replace(found, mean=0.5) if plan.groups else found

    monkeypatch.setattr(mixed_precision.MixedPrecisionSearch, "_measured", failing)


def reported(encoder: TextEmbedding) -> CompileReport:
    assert isinstance(encoder.report, CompileReport)
    return encoder.report


@pytest.mark.usefixtures("no_int8")
@pytest.mark.parametrize("kind", ["fp32", *KINDS])
def test_a_model_that_cannot_be_int8_keeps_the_bits_of_its_file(
    kind: Storage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = in_halves(tmp_path / "model", kind)
    encoder = TextEmbedding(model.path, cache_dir=tmp_path / "cache")
    exact = TextEmbedding(model.path, cache_dir=tmp_path / "cache", precision="fp32")
    report = reported(encoder)
    assert report.precision == kind
    said = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}[kind]
    assert f"keeps its {said} weights" in caplog.text
    if kind == "fp32":
        assert report.fidelity is None
    else:
        assert report.fidelity is not None
        assert (report.fidelity.overlap, report.float32_groups) == (1.0, ())
        assert report.fidelity.least > 0.999999
        assert report.weights_bytes < 0.8 * reported(exact).weights_bytes
    found, expected = (np.array(list(one.embed(TEXTS))) for one in (encoder, exact))
    assert np.abs(found - expected).max() <= 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_layers_left_out_of_int8_keep_the_bits_of_their_file(
    kind: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = in_halves(tmp_path / "model", kind, layers=1)
    whole = TextEmbedding(model.path, cache_dir=tmp_path / "whole").report
    assert whole.fidelity is not None
    monkeypatch.setattr(mixed_precision, "LARGEST_ERROR", 0.7 * (1 - whole.fidelity.mean))
    report = reported(TextEmbedding(model.path, cache_dir=tmp_path / "partly"))
    assert (report.precision, len(report.float32_groups) > 0) == ("int8", True)
    (file,) = (tmp_path / "partly").glob("compiled/*/model.onnx")
    number = {"bf16": onnx.TensorProto.BFLOAT16, "fp16": onnx.TensorProto.FLOAT16}[kind]
    tensors = onnx.load(file, load_external_data=False).graph.initializer
    assert any(tensor.data_type == number for tensor in tensors)


def test_16_bits_are_measured_where_they_round_and_only_there(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    model = tiny_bert(tmp_path / "model", layers=1)
    exact = np.array(
        list(TextEmbedding(model.path, cache_dir=cache, precision="fp32").embed(TEXTS))
    )
    errors = {}
    for kind in KINDS:
        encoder = TextEmbedding(model.path, cache_dir=cache, precision=kind)
        report = reported(encoder)
        assert report.precision == kind
        assert report.fidelity is not None
        assert 0.999 < report.fidelity.least < 1
        assert report.fidelity.overlap is not None
        assert report.fidelity.overlap > 0.95
        errors[kind] = np.abs(np.array(list(encoder.embed(TEXTS))) - exact).max()
    assert 0 < errors["fp16"] < errors["bf16"] < 0.05
    halves = in_halves(tmp_path / "halves", "bf16", layers=1)
    assert TextEmbedding(halves.path, cache_dir=cache, precision="bf16").report.fidelity is None


def test_an_exported_model_of_16_bits_is_run_without_compiling(tmp_path: Path) -> None:
    model = in_halves(tmp_path / "model", "bf16", layers=1)
    encoder = TextEmbedding(model.path, cache_dir=tmp_path / "a", precision="bf16")
    encoder.export(tmp_path / "exported")
    precisions: list[Precision] = ["int8", "bf16"]
    for precision in precisions:
        other = TextEmbedding(tmp_path / "exported", cache_dir=tmp_path / "b", precision=precision)
        assert other.report == encoder.report
        np.testing.assert_array_equal(list(other.embed(TEXTS)), list(encoder.embed(TEXTS)))


def test_an_int8_export_is_not_run_in_16_bits(tmp_path: Path) -> None:
    model = tiny_bert(tmp_path / "model", layers=1)
    TextEmbedding(model.path, cache_dir=tmp_path / "a").export(tmp_path / "exported")
    with pytest.raises(InputError, match="was exported in int8: for fp16"):
        TextEmbedding(tmp_path / "exported", cache_dir=tmp_path / "b", precision="fp16")


def test_a_table_of_words_is_never_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = "embeddings.word_embeddings.weight"

    def read(self: Tensors, name: str) -> NDArray[Any]:
        assert name != words
        return whole(self, name)

    whole = Tensors.__getitem__
    model = in_halves(tmp_path / "model", "bf16", layers=1)
    encoder = TextEmbedding(model.path, cache_dir=tmp_path / "cache")
    monkeypatch.setattr(Tensors, "__getitem__", read)
    monkeypatch.setattr("qdrant_embed.encoder.compile.layers.transformer._ROWS", 7)
    other = TextEmbedding(model.path, cache_dir=tmp_path / "other")
    assert encoder.report.precision == "int8"
    assert reported(encoder).constants_sha256 == reported(other).constants_sha256


def test_the_command_compiles_to_16_bits_and_clears_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = in_halves(tmp_path / "model", "bf16", layers=1)
    cache, out = str(tmp_path / "cache"), str(tmp_path / "out")
    options = ["--precision", "bf16", "--cache-dir", cache]
    assert main(["compile", str(model.path), "--out", out, *options]) == 0
    assert "bf16" in capsys.readouterr().out
    assert main(["cache", "list", "--json", "--cache-dir", cache]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["kind"], entry["version"]) == ("compiled", "bf16")


def test_a_models_own_file_is_its_float32_one() -> None:
    names = ["onnx/model.onnx", "onnx/model_quantized.onnx", "config.json"]
    for kind in KINDS:
        assert weight_files(names, {"model_type": "unheard of"}, kind) == ["onnx/model.onnx"]


@pytest.mark.parametrize("kind", ["fp32", *KINDS])
@pytest.mark.parametrize("rows", [1, 3, 5, 100])
def test_blocks_of_rows_are_the_tensor(kind: Storage, rows: int, tmp_path: Path) -> None:
    table = widened(stored(np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32), kind))
    save(tmp_path / "model.safetensors", {"table": table}, kind)
    tensors = read_tensors([tmp_path / "model.safetensors"])
    assert isinstance(tensors, Tensors)
    blocks = list(tensors.blocks("table", rows))
    assert [len(block) for block in blocks[:-1]] == [rows] * (len(blocks) - 1)
    np.testing.assert_array_equal(np.concatenate(blocks), table)
    np.testing.assert_array_equal(tensors["table"], table)
    assert (tensors.shape("table"), tensors.storage("table")) == ((5, 4), kind)
    assert "table" in tensors
    assert "tables" not in tensors
