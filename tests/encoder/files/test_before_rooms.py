"""Caches and exported folders written before the package had rooms still load.

See `fixtures/make_before_rooms.py`.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from qdrant_embed import SparseTextEmbedding, TextEmbedding

BEFORE = Path(__file__).parents[2] / "fixtures" / "before_rooms"
PREFIXES = {"tiny-bert": ("query: ", "passage: ")}


@pytest.fixture(scope="module")
def vectors() -> dict[str, NDArray[Any]]:
    with np.load(BEFORE / "vectors.npz") as file:
        return dict(file)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A copy of the old cache, with an old note that names files which are elsewhere."""
    shutil.copytree(BEFORE / "cache", tmp_path / "cache")
    (tmp_path / "cache" / "recall").mkdir()
    (tmp_path / "cache" / "recall" / f"{'0' * 64}.json").write_text('{"runnable": {}}')
    return tmp_path / "cache"


def graphs(cache: Path) -> dict[str, tuple[int, int]]:
    """The compiled files, and what changes when one is made again."""
    files = (cache / "compiled").rglob("*")
    return {str(file): (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


def matches(encoder: TextEmbedding, vectors: dict[str, NDArray[Any]], name: str) -> bool:
    found = np.stack(list(encoder.passage_embed(vectors["texts"].tolist())))
    tolerance = 1e-3 if name.endswith("int8") else 1e-5  # int8 kernels differ between CPUs
    return bool(np.allclose(found, vectors[name], atol=tolerance))


@pytest.mark.parametrize(
    "name", ["tiny-bert-int8", "tiny-bert-fp32", "tiny-static-int8", "tiny-onnx-int8"]
)
def test_an_exported_folder_loads(
    name: str, vectors: dict[str, NDArray[Any]], tmp_path: Path
) -> None:
    encoder = TextEmbedding(BEFORE / "exported" / name, cache_dir=tmp_path, local_files_only=True)
    assert matches(encoder, vectors, name)
    model = name.rpartition("-")[0]
    prefixes = (encoder.spec.query_prefix, encoder.spec.document_prefix)
    assert encoder.model_name == f"acme/{model}"
    assert prefixes == PREFIXES.get(model, ("", ""))
    assert encoder.spec.task == "embed"
    assert not (tmp_path / "compiled").exists()
    encoder.export(tmp_path / "again")
    again = TextEmbedding(tmp_path / "again", cache_dir=tmp_path)
    assert again.describe() == encoder.describe()
    assert matches(again, vectors, name)


def test_a_compiled_graph_is_used_and_not_compiled_again(
    cache: Path, vectors: dict[str, NDArray[Any]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    before = graphs(cache)
    model = BEFORE / "models" / "tiny-bert"
    encoder = TextEmbedding(model, precision="fp32", cache_dir=cache)
    assert matches(encoder, vectors, "tiny-bert-fp32")
    assert encoder.report.precision == "fp32"
    assert graphs(cache) == before
    assert "compiled" not in caplog.text


def test_an_int8_graph_is_compiled_again_because_it_is_calibrated_with_other_texts(
    cache: Path, vectors: dict[str, NDArray[Any]]
) -> None:
    before = graphs(cache)
    encoder = TextEmbedding(BEFORE / "models" / "tiny-bert", cache_dir=cache)
    found = np.stack(list(encoder.passage_embed(vectors["texts"].tolist())))
    np.testing.assert_allclose(found, vectors["tiny-bert-int8"], atol=0.05)
    assert before.items() < graphs(cache).items()


def test_so_is_the_graph_of_a_splade_model(cache: Path, vectors: dict[str, NDArray[Any]]) -> None:
    before = graphs(cache)
    encoder = SparseTextEmbedding(
        BEFORE / "models" / "tiny-splade", cache_dir=cache, precision="fp32"
    )
    expected = vectors["tiny-splade"]
    for vector, row in zip(encoder.embed(vectors["texts"].tolist()), expected, strict=True):
        np.testing.assert_array_equal(vector.indices, np.flatnonzero(row))
        np.testing.assert_allclose(vector.values, row[vector.indices], atol=1e-5)
    assert graphs(cache) == before


@pytest.mark.parametrize("model", ["tiny-static", "tiny-onnx"])
def test_models_that_are_not_compiled_have_the_same_vectors(
    model: str, cache: Path, vectors: dict[str, NDArray[Any]]
) -> None:
    encoder = TextEmbedding(BEFORE / "models" / model, cache_dir=cache)
    assert matches(encoder, vectors, f"{model}-int8")


def test_the_manifests_are_of_the_old_format() -> None:
    """Else nothing here would be tested."""
    for manifest in (BEFORE / "exported").glob("*/qdrant-embed.json"):
        content = json.loads(manifest.read_text())
        assert "task" not in content["spec"]
        assert "tokenizer" not in content
