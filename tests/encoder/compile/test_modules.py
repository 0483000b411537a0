"""Poolings, and what follows them, against sentence-transformers; see `fixtures/make_modules.py`."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tiny import write_model, write_modules
from tiny_onnx import WIDTH, tiny_onnx

from qdrant_embed import (
    CollectionMismatchError,
    InputError,
    ModelFileError,
    ModelSpec,
    QdrantClient,
    TextEmbedding,
)
from qdrant_embed.encoder.run.backend import Inputs
from qdrant_embed.encoder.run.pooling import pool_tokens

FIXTURES = Path(__file__).parents[2] / "fixtures" / "modules"
CHAINS = sorted(path.parent.name for path in FIXTURES.glob("*/modules.json"))
LENGTHS = (1, 2, 7, 63, 128, 160)


def base() -> tuple[dict[str, Any], dict[str, NDArray[np.float32]], NDArray[np.int64]]:
    with np.load(FIXTURES / "transformer.npz") as file:
        weights = {
            key.removeprefix("weights/"): file[key].astype(np.float32)
            for key in file.files
            if key.startswith("weights/")
        }
        return json.loads(str(file["config"])), weights, file["ids"]


def write(path: Path, chain: str) -> Path:
    """A model's folder with that chain of modules."""
    config, weights, _ = base()
    write_model(path, config, weights)
    shutil.copytree(FIXTURES / chain, path, dirs_exist_ok=True)
    return path


def vectors(encoder: TextEmbedding) -> NDArray[np.float32]:
    ids = base()[2]
    model = encoder._model.load()
    return np.concatenate([model.run(Inputs(ids[None, :length])) for length in LENGTHS])


def expected(chain: str) -> NDArray[np.float32]:
    found: NDArray[np.float32] = np.load(FIXTURES / chain / "expected.npy")
    return found


def unit(found: NDArray[np.float32]) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = found / np.linalg.norm(found, axis=1, keepdims=True)
    return scaled


@pytest.mark.parametrize("chain", CHAINS)
def test_vectors_are_those_of_sentence_transformers(chain: str, tmp_path: Path) -> None:
    encoder = TextEmbedding(write(tmp_path / "model", chain), precision="fp32")
    found, theirs = vectors(encoder), expected(chain)
    assert encoder.dimension == encoder.describe().dimension == theirs.shape[1]
    assert np.abs(found - theirs).max() <= 1e-5


@pytest.mark.parametrize("chain", ["all", "joined"])
def test_poolings_in_older_words_are_joined_in_the_same_order(chain: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "model", chain)
    modes = json.loads((folder / "1_Pooling/config.json").read_text())["pooling_mode"]
    names = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    old = {f"pooling_mode_{n}": n.removesuffix("_token") for n in names[:1]}
    old |= {f"pooling_mode_{n}": n.removesuffix("_tokens") for n in names[1:3]}
    old |= {"pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens"}
    old |= {
        "pooling_mode_weightedmean_tokens": "weightedmean",
        "pooling_mode_lasttoken": "lasttoken",
    }
    content = {key: mode in modes for key, mode in old.items()}
    (folder / "1_Pooling/config.json").write_text(
        json.dumps({"word_embedding_dimension": 24, **content})
    )
    theirs = expected(chain)
    if chain == "joined":  # older releases join the largest before the mean
        weights = load_file(folder / "2_Dense/model.safetensors")
        halves = np.split(weights["linear.weight"], 2, axis=1)
        weights["linear.weight"] = np.concatenate(halves[::-1], axis=1)
        save_file(weights, folder / "2_Dense/model.safetensors")
    found = vectors(TextEmbedding(folder, precision="fp32"))
    assert np.abs(found - theirs).max() <= 1e-5


@pytest.mark.parametrize("pooling", ["max", "mean_sqrt_len_tokens", "weightedmean", ("cls", "max")])
def test_poolings_in_numpy_are_those_of_the_graph(pooling: Any, tmp_path: Path) -> None:
    folder = write(tmp_path / "model", "mean")
    width = 24 * (len(pooling) if isinstance(pooling, tuple) else 1)
    spec = ModelSpec("m", width, pooling, 160, normalize=False)
    found = vectors(TextEmbedding(folder, precision="fp32", spec=spec))
    for row, length in zip(found, LENGTHS, strict=True):
        tokens = np.random.default_rng(length).normal(size=(2, length, 24)).astype(np.float32)
        assert pool_tokens(tokens, pooling).shape == (2, width)
        assert row.shape == (width,)
    with pytest.raises(InputError, match="pooling must be one of"):
        ModelSpec("m", 4, ("cls", "cls"), 8)


@pytest.mark.slow
@pytest.mark.parametrize("chain", ["gemma", "ettin"])
def test_a_model_with_modules_after_pooling_is_int8_through_the_gate(
    chain: str, tmp_path: Path
) -> None:
    encoder = TextEmbedding(write(tmp_path / "model", chain))
    assert encoder.report.precision == "int8"
    exact = unit(vectors(TextEmbedding(tmp_path / "model", precision="fp32")))
    assert (unit(vectors(encoder)) * exact).sum(axis=1).min() >= 0.9  # of random weights


def test_vectors_are_cut_behind_the_last_module(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", "gemma")
    found = vectors(TextEmbedding(folder, precision="fp32", dimensions=8))
    np.testing.assert_allclose(found, unit(expected("gemma")[:, :8]), atol=1e-5)


def test_the_digest_of_the_weights_covers_the_modules(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", "gemma")
    before = TextEmbedding(folder, precision="fp32").describe()
    weights = load_file(folder / "3_Dense/model.safetensors")
    save_file({k: v * 2 for k, v in weights.items()}, folder / "3_Dense/model.safetensors")
    after = TextEmbedding(folder, precision="fp32").describe()
    assert after.weights_sha256 != before.weights_sha256
    assert after.tokenizer_sha256 == before.tokenizer_sha256
    shutil.copytree(FIXTURES / "normalized", folder, dirs_exist_ok=True)
    moved = TextEmbedding(folder, precision="fp32").describe()
    assert moved.tokenizer_sha256 != before.tokenizer_sha256
    # without such modules, the digest is that of the one file, as it was before
    plain = write(tmp_path / "plain", "max")
    digest = hashlib.sha256((plain / "model.safetensors").read_bytes()).hexdigest()
    assert TextEmbedding(plain, precision="fp32").describe().weights_sha256 == digest


def test_an_exported_model_with_modules_is_the_same(tmp_path: Path) -> None:
    encoder = TextEmbedding(write(tmp_path / "model", "labse"), precision="fp32")
    encoder.export(tmp_path / "out")
    shutil.rmtree(tmp_path / "model")
    other = TextEmbedding(tmp_path / "out")
    np.testing.assert_array_equal(vectors(other), vectors(encoder))
    assert other.describe() == encoder.describe()


def test_joined_poolings_are_stamped_and_recognised(anywhere: QdrantClient, tmp_path: Path) -> None:
    anywhere.set_model(write(tmp_path / "all", "all"), precision="fp32")
    anywhere.add("demo", ["cat", "dog"])
    anywhere.set_model(tmp_path / "all", precision="fp32")  # reads the stamp again
    assert anywhere.query("demo", "cat", limit=1)[0].document == "cat"
    anywhere.set_model(write(tmp_path / "max", "max"), precision="fp32")
    with pytest.raises(CollectionMismatchError, match=r"pooling \('cls', 'max', .* not 'max'"):
        anywhere.query("demo", "cat")


def change(file: str, **values: Any) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        content = json.loads((folder / file).read_text()) | values
        (folder / file).write_text(json.dumps(content))

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            change("2_Dense/config.json", activation_function="torch.nn.modules.activation.Mish"),
            r"activation 'torch\.nn\.modules\.activation\.Mish', which cannot be run",
        ),
        (
            change("2_Dense/config.json", module_input_name="token_embeddings"),
            r"reads 'token_embeddings' and writes 'sentence_embedding'",
        ),
        (change("2_Dense/config.json", module_output_name="scores"), r"writes 'scores'"),
        (
            change("4_Normalize/config.json", module_input_name="token_embeddings"),
            r"4_Normalize/config\.json reads 'token_embeddings'",
        ),
        (
            change("2_Dense/config.json", bias=True),
            r"has the tensors .* should have .*linear\.bias",
        ),
        (change("2_Dense/config.json", in_features=7), r"reads vectors of 7 numbers.*return 24"),
        (change("3_Dense/config.json", out_features=7), r"should have .*\(7, 48\)"),
        (change("2_Dense/config.json", out_features=0), r"2_Dense/config\.json cannot be used"),
        (lambda at: (at / "2_Dense/config.json").unlink(), r"2_Dense/config\.json is missing"),
        (
            lambda at: (at / "3_Dense/model.safetensors").unlink(),
            r"no model\.safetensors or pytorch_model\.bin for a module after the pooling",
        ),
        (
            lambda at: (at / "3_Dense/model.safetensors").write_bytes(b"garbage"),
            r"3_Dense/model\.safetensors cannot be read as safetensors",
        ),
        (change("1_Pooling/config.json", include_prompt=False), r"pooling that cannot be run"),
        (change("1_Pooling/config.json", pooling_mode=["mean", "mean"]), r"cannot be run"),
        (change("1_Pooling/config.json", pooling_mode=[]), r"cannot be run: none"),
    ],
)
def test_what_cannot_be_run_after_a_pooling_is_refused_by_name(
    damage: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    folder = write(tmp_path / "model", "gemma")
    damage(folder)
    with pytest.raises(ModelFileError, match=message):
        TextEmbedding(folder, precision="fp32")


def test_a_modules_weights_are_not_taken_for_the_models(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", "gemma")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelFileError, match=r"has no model\.safetensors or pytorch_model\.bin"):
        TextEmbedding(folder)


def test_modules_are_run_behind_a_file_that_returns_tokens(tmp_path: Path) -> None:
    """With vectors for tokens from the model's own ONNX file, in numpy and exported."""
    folder, onnx = tmp_path / "model", tiny_onnx(100)
    config = {"model_type": "other", "hidden_size": WIDTH, "max_position_embeddings": 64}
    write_model(folder, config, None)
    write_modules(folder, ["Transformer", "Pooling", "Dense", "LayerNorm", "Normalize"])
    random = np.random.default_rng(0)
    dense = {
        "linear.weight": random.normal(size=(5, WIDTH)).astype(np.float32),
        "linear.bias": random.normal(size=5).astype(np.float32),
        "residual.weight": random.normal(size=(5, WIDTH)).astype(np.float32),
    }
    norm = {f"norm.{part}": random.normal(size=5).astype(np.float32) for part in ("weight", "bias")}
    gelu = "torch.nn.modules.activation.GELU"
    settings: dict[str, Any] = {"in_features": WIDTH, "out_features": 5, "use_residual": True}
    for path, content, tensors in (
        ("2_Dense", settings | {"activation_function": gelu}, dense),
        ("3_LayerNorm", {"dimension": 5}, norm),
    ):
        (folder / path).mkdir()
        (folder / path / "config.json").write_text(json.dumps(content))
        save_file(tensors, folder / path / "model.safetensors")
    onnx.save(folder / "model.onnx")
    encoder = TextEmbedding(folder)
    [ids] = encoder._model.load().tokenizer.tokenize(["the cat sat"]).ids
    pooled = onnx.hidden(ids).mean(axis=0).astype(np.float64)
    x = dense["linear.weight"] @ pooled + dense["linear.bias"]
    share = _erf(x / np.sqrt(2))
    x = x * (1 + share) / 2 + dense["residual.weight"] @ pooled
    x = (x - x.mean()) / np.sqrt(x.var() + 1e-5) * norm["norm.weight"] + norm["norm.bias"]
    [found] = encoder.embed("the cat sat")
    np.testing.assert_allclose(found, x / np.linalg.norm(x), atol=1e-5)
    assert encoder.dimension == 5
    encoder.export(tmp_path / "out")
    shutil.rmtree(folder)
    other = TextEmbedding(tmp_path / "out")
    np.testing.assert_array_equal(next(iter(other.embed("the cat sat"))), found)
    (tmp_path / "out" / "head-0.safetensors").write_bytes(b"")
    with pytest.raises(ModelFileError, match=r"head-0\.safetensors missing or not as written"):
        TextEmbedding(tmp_path / "out")


def _erf(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The integral itself, by Simpson's rule."""
    at = values[:, None] * np.linspace(0, 1, 2001)
    weights = np.r_[1, np.tile([4, 2], 1000)[:-1], 1] / 6000
    found: NDArray[np.float64] = 2 / np.sqrt(np.pi) * values * (np.exp(-(at**2)) @ weights)
    return found
