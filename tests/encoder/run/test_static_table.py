"""Static models against model2vec's own vectors; see `fixtures/make_static.py`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tiny import tiny_tokenizer, write_modules

from qdrant_embed import ModelFileError, TextEmbedding

FIXTURES = Path(__file__).parents[2] / "fixtures" / "static"
CONFIG = {"model_type": "model2vec", "normalize": True, "hidden_dim": 256, "seq_length": 1000000}


def write(path: Path, tensors: dict[str, NDArray[Any]], config: dict[str, Any] | None) -> Path:
    path.mkdir(parents=True)
    save_file(tensors, path / "model.safetensors")
    tiny_tokenizer().save(str(path / "tokenizer.json"))
    if config is not None:
        (path / "config.json").write_text(json.dumps(config))
    return path


def load(name: str) -> tuple[dict[str, NDArray[Any]], list[str], NDArray[np.float32]]:
    with np.load(FIXTURES / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    texts = [str(text) for text in arrays.pop("texts")]
    return arrays, texts, arrays.pop("expected")


@pytest.mark.parametrize("name", ["plain", "weighted", "clustered"])
def test_vectors_are_those_of_model2vec(name: str, tmp_path: Path) -> None:
    tensors, texts, expected = load(name)
    folder = write(tmp_path / "model", tensors, CONFIG)
    write_modules(folder, ["StaticEmbedding", "Normalize"])
    encoder = TextEmbedding(folder)
    assert (encoder.dimension, encoder.spec.max_tokens) == (expected.shape[1], 512)
    np.testing.assert_allclose(np.stack(list(encoder.embed(texts))), expected, atol=2e-6)
    for text, vector in zip(texts, expected, strict=True):
        np.testing.assert_allclose(next(encoder.embed(text)), vector, atol=2e-6)
    assert (encoder.report.precision, encoder.report.file) == ("fp32", "model.safetensors")
    assert encoder.describe().pooling == "mean"


def test_large_numbers_are_numbers(tmp_path: Path) -> None:
    tensors, texts, _ = load("plain")
    found = []
    for factor in (1, 1e25):  # whose squares float32 cannot hold
        scaled = {name: tensor * np.float32(factor) for name, tensor in tensors.items()}
        folder = write(tmp_path / f"{factor}", scaled, {**CONFIG, "normalize": False})
        found.append(next(TextEmbedding(folder).embed(texts[0])))
    np.testing.assert_allclose(found[1], found[0] * np.float32(1e25), rtol=1e-5)


def test_the_config_alone_says_enough(tmp_path: Path) -> None:
    tensors, texts, expected = load("plain")
    folder = write(tmp_path / "model", tensors, CONFIG)
    np.testing.assert_allclose(list(TextEmbedding(folder).embed(texts)), expected, atol=2e-6)
    (folder / "config.json").write_text(json.dumps({**CONFIG, "normalize": False, "max_length": 3}))
    encoder = TextEmbedding(folder)
    assert encoder.spec.max_tokens == 3
    (short, long) = encoder.embed(["cat sat mat", "cat sat mat the ship"])
    assert abs(np.linalg.norm(short) - 1) > 0.01
    np.testing.assert_array_equal(short, long)


def test_those_of_sentence_transformers_count_unknown_tokens_and_read_on(tmp_path: Path) -> None:
    tensors, _, _ = load("plain")
    table = tensors["embeddings"]
    inner = write(tmp_path / "model/0_StaticEmbedding", {"embedding.weight": table}, None)
    modules = [{"type": "sentence_transformers.models.StaticEmbedding", "path": inner.name}]
    (tmp_path / "model/modules.json").write_text(json.dumps(modules))
    encoder = TextEmbedding(tmp_path / "model")
    for text in ("cat Ω", "cat " * 2000):
        ids = tiny_tokenizer().encode(text, add_special_tokens=False).ids
        np.testing.assert_allclose(next(encoder.embed(text)), table[ids].mean(axis=0), atol=1e-5)


def test_tables_of_whole_numbers_and_halves_are_read(tmp_path: Path) -> None:
    tensors, texts, expected = load("plain")
    steps = np.rint(tensors["embeddings"] / np.abs(tensors["embeddings"]).max() * 127)
    folder = write(tmp_path / "int8", {"embeddings": steps.astype(np.int8)}, CONFIG)
    found = np.stack(list(TextEmbedding(folder).embed(texts)))
    assert np.abs(found - expected).max() < 0.02
    folder = write(tmp_path / "half", {"embeddings": tensors["embeddings"].astype("f2")}, CONFIG)
    np.testing.assert_allclose(list(TextEmbedding(folder).embed(texts)), expected, atol=2e-6)


def test_neither_onnx_nor_onnxruntime_is_loaded(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", load("plain")[0], CONFIG)
    code = (
        "import sys; sys.modules['onnx'] = sys.modules['onnxruntime'] = None; "
        "from qdrant_embed import TextEmbedding; "
        "print(next(TextEmbedding(sys.argv[1]).embed('cat')).shape)"
    )
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "(16,)"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embeddings": np.zeros((5, 4), np.float32)}, r"has token id \d+, but the model has"),
        ({"embeddings": np.zeros(5, np.float32)}, r"table of vectors named embeddings or"),
        ({"embeddings": np.zeros((500, 0), np.float32)}, r"table of vectors named"),
        ({"mapping": np.full(500, 100_000)}, r"does not fit the weights"),
        ({"mapping": np.full(500, -1)}, r"does not fit the weights"),
        ({"mapping": np.zeros((500, 1), np.int64)}, r"does not fit the weights"),
        ({"mapping": np.zeros(500, np.float32)}, r"does not fit the weights"),
        ({"weights": np.zeros(3, np.float32)}, r"does not fit the weights"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    tmp_path: Path, changes: dict[str, NDArray[Any]], message: str
) -> None:
    folder = write(tmp_path / "model", {**load("plain")[0], **changes}, CONFIG)
    with pytest.raises(ModelFileError, match=message):
        TextEmbedding(folder)
