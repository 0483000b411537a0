"""Models that earlier releases ran from their own ONNX files, and that are compiled now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from architecture_fixtures import write
from tiny_onnx import add_own_file

from qdrant_embed import CollectionMismatchError, QdrantClient, TextEmbedding
from qdrant_embed.encoder.facts.weights import weight_files

NAMES = ["jina_bert", "gte-new"]


def with_own_file(path: Path, name: str, scale: float = 1.0) -> Path:
    """Write a model to `path` with an ONNX file beside its weights, as vendors export it."""
    write(path, name)
    return add_own_file(path, scale)


def written_before(client: QdrantClient, folder: Path) -> str:
    """Have a collection be written from the ONNX file; return the digest in its stamp."""
    weights = folder / "model.safetensors"
    weights.rename(folder.parent / "kept")
    try:
        client.set_model(folder, cache_dir=folder.parent / "cache")
        client.add("demo", ["the cat", "a storm"])
    finally:
        (folder.parent / "kept").rename(weights)
    stamp = client.get_collection("demo").config.metadata
    assert stamp is not None
    return str(stamp["qdrant_embed"]["weights_sha256"])


@pytest.mark.parametrize("name", NAMES)
def test_what_its_own_file_wrote_is_of_the_same_model(name: str, tmp_path: Path) -> None:
    folder = with_own_file(tmp_path / "model", name)
    client = QdrantClient(":memory:")
    before = written_before(client, folder)
    client.set_model(folder, precision="fp32", cache_dir=tmp_path / "cache")
    assert TextEmbedding(folder, precision="fp32").describe().weights_sha256 != before
    assert client.query("demo", "the cat", limit=1)[0].document == "the cat"
    client.add("demo", ["a dog"])
    assert client.count("demo").count == 3


def test_a_file_of_other_vectors_is_another_model(tmp_path: Path) -> None:
    folder = with_own_file(tmp_path / "model", "jina_bert", scale=1.5)
    client = QdrantClient(":memory:")
    written_before(client, folder)
    client.set_model(folder, precision="fp32", cache_dir=tmp_path / "cache")
    with pytest.raises(CollectionMismatchError, match="by another form of it"):
        client.query("demo", "the cat")


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "bert", "position_embedding_type": "alibi"},
        {"model_type": "new"},
        {"model_type": "t5"},
        {"model_type": "xlm-roberta", "position_embedding_type": "rotary"},
        {"model_type": "nomic_bert", "num_experts": 8},
    ],
)
def test_what_the_first_releases_ran_of_a_repository(config: dict[str, Any]) -> None:
    names = ["model.safetensors", "pytorch_model.bin", "onnx/model.onnx"]
    assert weight_files(names, config, "fp32", as_before=True) == ["onnx/model.onnx"]
