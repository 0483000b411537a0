"""Models that are run from their own ONNX file."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto
from tiny import tiny_tokenizer, write_model, write_modules
from tiny_onnx import WIDTH, TinyOnnx, tiny_onnx

from qdrant_embed import ModelFileError, TextEmbedding
from qdrant_embed.encoder.facts.weights import weight_files

TEXTS = ["cat", "the cat sat on the mat", "paris", "the ship sailed to sea in a storm", "mat"]
CONFIG = {"model_type": "deberta", "hidden_size": WIDTH, "max_position_embeddings": 64}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of an architecture that is not compiled, still without weights."""
    write_model(tmp_path / "model", CONFIG, None)
    return tmp_path / "model"


@pytest.fixture(scope="module")
def onnx() -> TinyOnnx:
    return tiny_onnx(tiny_tokenizer().get_vocab_size())


def embedded(folder: Path, **options: Any) -> NDArray[np.float32]:
    return np.stack(list(TextEmbedding(folder, **options).embed(TEXTS)))


def hidden(onnx: TinyOnnx) -> list[NDArray[np.float32]]:
    tokenizer = tiny_tokenizer()
    return [onnx.hidden(tokenizer.encode(text).ids) for text in TEXTS]


def unit(vectors: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    stacked: NDArray[np.float32] = np.stack(vectors)
    stacked /= np.linalg.norm(stacked, axis=1, keepdims=True)
    return stacked


@pytest.mark.parametrize("output", ["last_hidden_state", "token_embeddings", "whatever"])
@pytest.mark.parametrize("pooling", ["cls", "mean", "last_token"])
def test_token_vectors_are_pooled_and_normalised(
    tmp_path: Path, onnx: TinyOnnx, pooling: str, output: str
) -> None:
    write_model(tmp_path / "model", CONFIG, None, pooling=pooling)
    onnx.save(tmp_path / "model/onnx/model.onnx", output=output)
    pool = {"cls": lambda h: h[0], "mean": lambda h: h.mean(axis=0), "last_token": lambda h: h[-1]}
    expected = unit([pool[pooling](states) for states in hidden(onnx)])
    np.testing.assert_allclose(embedded(tmp_path / "model"), expected, atol=1e-6)
    encoder = TextEmbedding(tmp_path / "model")
    assert encoder.describe().pooling == pooling
    assert (encoder.report.precision, encoder.report.file) == ("fp32", "onnx/model.onnx")
    (alone,) = encoder.embed(TEXTS[1])
    np.testing.assert_allclose(alone, expected[1], atol=1e-6)


def test_a_sentence_embedding_is_taken_as_it_is(folder: Path, onnx: TinyOnnx) -> None:
    onnx.save(folder / "model.onnx", output="sentence_embedding", kind=TensorProto.INT32)
    expected = unit([states.max(axis=0) for states in hidden(onnx)])
    np.testing.assert_allclose(embedded(folder), expected, atol=1e-6)


def test_only_declared_inputs_are_given(folder: Path, onnx: TinyOnnx) -> None:
    onnx.save(folder / "model.onnx", inputs=["input_ids", "attention_mask"])
    zero = np.zeros_like
    bare = TinyOnnx(onnx.words, zero(onnx.positions), zero(onnx.types))
    expected = unit([states.mean(axis=0) for states in hidden(bare)])
    np.testing.assert_allclose(embedded(folder), expected, atol=1e-6)


def test_the_quantised_file_runs_one_text_at_a_time_and_it_is_said(
    folder: Path, onnx: TinyOnnx, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    onnx.save(folder / "onnx/model.onnx")
    # a batch of two would be refused
    onnx.save(folder / "onnx/model_quantized.onnx", shape=(1, "sequence"), scale=2.0)
    exact, quantised = TextEmbedding(folder, precision="fp32"), TextEmbedding(folder)
    assert (exact.report.file, exact.report.precision) == ("onnx/model.onnx", "fp32")
    assert quantised.report.file == "onnx/model_quantized.onnx"
    assert quantised.report.precision == "int8"
    assert "onnx/model_quantized.onnx (int8)" in caplog.text
    assert exact.describe().weights_sha256 != quantised.describe().weights_sha256
    np.testing.assert_allclose(embedded(folder), embedded(folder, precision="fp32"), atol=1e-6)


def test_quantised_weights_alone_are_not_exact_ones(folder: Path, onnx: TinyOnnx) -> None:
    onnx.save(folder / "onnx/model_quantized.onnx")
    assert TextEmbedding(folder).report.precision == "int8"
    with pytest.raises(ModelFileError, match=r"quantised weights only.*precision='int8'"):
        TextEmbedding(folder, precision="fp32")


def test_a_known_architecture_without_safetensors_is_run_too(
    tmp_path: Path, onnx: TinyOnnx
) -> None:
    write_model(tmp_path / "model", {**CONFIG, "model_type": "bert"}, None)
    onnx.save(tmp_path / "model/model.onnx")
    assert embedded(tmp_path / "model").shape == (len(TEXTS), WIDTH)


def test_dense_layers_are_left_to_the_file(folder: Path, onnx: TinyOnnx) -> None:
    write_modules(folder, ["Transformer", "Pooling", "Dense", "Normalize"])
    (folder / "2_Dense").mkdir()
    (folder / "2_Dense/config.json").write_text(json.dumps({"out_features": WIDTH}))
    (folder / "config.json").write_text(json.dumps({**CONFIG, "hidden_size": 99}))
    (folder / "1_Pooling/config.json").write_text('{"pooling_mode": "mean"}')
    onnx.save(folder / "model.onnx", output="sentence_embedding")
    assert TextEmbedding(folder).dimension == WIDTH
    onnx.save(folder / "model.onnx")
    with pytest.raises(ModelFileError, match=r"returns no sentence_embedding.*Dense"):
        TextEmbedding(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": ("batch", 128)}, r"texts of one length.*dynamic axis"),
        ({"inputs": ["input_ids", "past_key_values"]}, r"reads past_key_values"),
    ],
)
def test_a_file_that_cannot_be_fed_is_refused_by_name(
    folder: Path, onnx: TinyOnnx, options: dict[str, Any], message: str
) -> None:
    onnx.save(folder / "model.onnx", **options)
    with pytest.raises(ModelFileError, match=message):
        TextEmbedding(folder)


def test_a_damaged_file_and_one_of_another_width_are_refused(folder: Path, onnx: TinyOnnx) -> None:
    (folder / "model.onnx").write_bytes(b"garbage")
    with pytest.raises(ModelFileError, match=r"model\.onnx cannot be run"):
        TextEmbedding(folder)
    onnx.save(folder / "model.onnx")
    (folder / "config.json").write_text(json.dumps({**CONFIG, "hidden_size": 99}))
    (folder / "1_Pooling/config.json").write_text('{"pooling_mode": "mean"}')
    with pytest.raises(ModelFileError, match=r"vectors of 12 numbers.*has 99"):
        TextEmbedding(folder)


BERT = {
    "model_type": "bert",
    "vocab_size": 10,
    "hidden_size": 4,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 4,
    "max_position_embeddings": 8,
}
ALIBI = {**BERT, "position_embedding_type": "alibi"}
ONNX = [
    "onnx/model.onnx",
    "onnx/model.onnx_data",
    "onnx/model_quantized.onnx",
    "onnx/model_O4.onnx",
]


@pytest.mark.parametrize(
    ("config", "names", "precision", "expected"),
    [
        (BERT, ["model.safetensors", *ONNX], "int8", ["model.safetensors"]),
        (BERT, ["2_Dense/model.safetensors", "model.safetensors"], "fp32", ["model.safetensors"]),
        (BERT, ["0_Transformer/model.safetensors"], "fp32", ["0_Transformer/model.safetensors"]),
        (
            BERT,
            [
                "model-00002-of-00002.safetensors",
                "model.safetensors.index.json",
                "model-00001-of-00002.safetensors",
            ],
            "int8",
            [
                "model.safetensors.index.json",
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
            ],
        ),
        (BERT, ["pytorch_model.bin", *ONNX], "fp32", ["pytorch_model.bin"]),
        (BERT, ["pytorch_model.bin", "model.safetensors"], "int8", ["model.safetensors"]),
        (
            BERT,
            [
                "pytorch_model-00002-of-00002.bin",
                "pytorch_model.bin.index.json",
                "pytorch_model-00001-of-00002.bin",
                "training_args.bin",
                *ONNX,
            ],
            "int8",
            [
                "pytorch_model.bin.index.json",
                "pytorch_model-00001-of-00002.bin",
                "pytorch_model-00002-of-00002.bin",
            ],
        ),
        (BERT, ["2_x/a.bin", *ONNX], "fp32", ["onnx/model.onnx", "onnx/model.onnx_data"]),
        (ALIBI, ["model.safetensors", *ONNX], "int8", ["onnx/model_quantized.onnx"]),
        (CONFIG, ["model.safetensors", "model.onnx"], "int8", ["model.onnx"]),
        (
            CONFIG,
            ["onnx/model_qint8_avx512.onnx", "onnx/model_quint8_avx2.onnx"],
            "int8",
            ["onnx/model_quint8_avx2.onnx"],
        ),
        (CONFIG, ["onnx/model_quantized.onnx"], "fp32", []),
        (CONFIG, ["pytorch_model.bin", "model.safetensors"], "int8", []),
        ({"model_type": "model2vec"}, ["model.safetensors", *ONNX], "int8", ["model.safetensors"]),
        (
            {},
            ["0_StaticEmbedding/model.safetensors"],
            "int8",
            ["0_StaticEmbedding/model.safetensors"],
        ),
        ({"model_type": ["bert"]}, ["model.safetensors"], "int8", []),
    ],
)
def test_the_files_that_hold_the_weights(
    config: dict[str, Any], names: list[str], precision: Any, expected: list[str]
) -> None:
    assert weight_files(names, config, precision) == expected
