"""Models that earlier releases ran from their own ONNX files, and that are compiled now."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from architecture_fixtures import write
from hub_server import asked, downloaded, serving
from qdrant_client import models as qdrant
from tiny_onnx import add_own_file

from qdrant_embed import (
    CollectionMismatchError,
    QdrantClient,
    TextEmbedding,
    UntrustedModelError,
)
from qdrant_embed.encoder.facts.weights import weight_files

NAMES = ["jina_bert", "gte-new"]
REPOSITORY = "owner/model"
KNOWN = "jinaai/jina-embeddings-v2-small-en"  # of the catalog


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
    for call in (lambda: client.query("demo", "the cat"), lambda: client.add("demo", ["dog"])):
        with pytest.raises(
            CollectionMismatchError, match=r"other form .* own file onnx/model.onnx .* differs by"
        ):
            call()


def test_int8_is_of_the_model_that_its_float32_file_ran(tmp_path: Path) -> None:
    folder = with_own_file(tmp_path / "model", "jina_bert")
    client = QdrantClient(":memory:")
    written_before(client, folder)
    client.set_model(folder, cache_dir=tmp_path / "cache", dimensions=8)
    with pytest.raises(CollectionMismatchError, match="dimension"):
        client.query("demo", "the cat")
    client.set_model(folder, cache_dir=tmp_path / "cache")
    assert client.query("demo", "the cat", limit=1)[0].document == "the cat"


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("QDRANT_EMBED_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@dataclass(frozen=True)
class Written:
    """A model's folder, and a collection as its own ONNX file, on the hub, has written it."""

    folder: Path
    config: qdrant.CollectionConfig
    points: list[qdrant.PointStruct]

    def store(self, client: QdrantClient) -> None:
        """Store the collection in the client's database; the client chooses no model."""
        config = self.config
        client.create_collection("demo", config.params.vectors, metadata=config.metadata)
        client.upsert("demo", self.points)


def written_from_the_hub(folder: Path, name: str) -> Written:
    """Have the model in `folder` write a collection as before, in a cache folder of its own."""
    weights, client = folder / "model.safetensors", QdrantClient(":memory:")
    weights.rename(folder.parent / "kept")
    with serving(name, folder) as hub, asked(hub):
        client.set_model(name, cache_dir=folder.parent / "before")
        client.add("demo", ["the cat", "a storm"])
    (folder.parent / "kept").rename(weights)
    found, _ = client.scroll("demo", with_vectors=True)
    points = [
        qdrant.PointStruct(id=point.id, vector=point.vector or {}, payload=point.payload)  # type: ignore[arg-type] # as it was read
        for point in found
    ]
    return Written(folder, client.get_collection("demo").config, points)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A collection that a known model's own file has written; equal vectors."""
    folder = tmp_path_factory.mktemp("written") / "model"
    return written_from_the_hub(with_own_file(folder, "jina_bert"), KNOWN)


@pytest.fixture(scope="module")
def compared(written: Written) -> Path:
    """A cache folder in which the two forms have been compared."""
    cache = written.folder.parent / "compared"
    with serving(KNOWN, written.folder) as hub, asked(hub):
        client = QdrantClient(":memory:")
        written.store(client)
        client.set_model(KNOWN, cache_dir=cache)
        client.query("demo", "the cat")
        assert hub.asked("model.onnx") == 1
    return cache


def test_a_collection_is_followed_to_the_model_that_is_compiled_now(
    unset: QdrantClient, written: Written, compared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QDRANT_EMBED_CACHE", str(compared))
    written.store(unset)
    assert unset.query("demo", "the cat", limit=1)[0].document == "the cat"
    unset.add("demo", ["a dog"])
    assert unset.count("demo").count == 3


def test_what_is_fetched_to_be_compared(written: Written, empty: Path) -> None:
    client = QdrantClient(":memory:")
    written.store(client)
    with serving(KNOWN, written.folder) as hub, asked(hub):
        assert client.query("demo", "the cat", limit=1)[0].document == "the cat"
        assert hub.asked("model.onnx") == 1
        assert hub.tokens == {None}
    assert next(empty.rglob("compiled.json"))


def test_one_of_several_files_is_fetched(written: Written, empty: Path, tmp_path: Path) -> None:
    del empty
    folder = shutil.copytree(written.folder, tmp_path / "model")
    (folder / "onnx/model_quantized.onnx").write_bytes(b"another")
    client = QdrantClient(":memory:")
    written.store(client)
    with serving(KNOWN, folder) as hub, asked(hub):
        assert client.query("demo", "the cat", limit=1)[0].document == "the cat"
        assert (hub.asked("model.onnx"), hub.asked("model_quantized.onnx")) == (1, 0)


@pytest.mark.parametrize("known", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_collection_of_another_form_is_refused(known: bool, empty: Path, tmp_path: Path) -> None:
    del empty
    name = KNOWN if known else REPOSITORY
    other = written_from_the_hub(with_own_file(tmp_path / "model", "jina_bert", scale=1.5), name)
    client = QdrantClient(":memory:", trust_stamps=not known)
    other.store(client)
    with serving(name, other.folder) as hub, asked(hub):
        with pytest.raises(CollectionMismatchError, match="was written by the other form"):
            client.query("demo", "the cat")
        client.set_model(hub.name)
        with pytest.raises(CollectionMismatchError, match="was written by the other form"):
            client.query("demo", "the cat")
        assert hub.asked("model.onnx") == 1
        client.migrate_model("demo", name, "new")
    assert client.query("new", "the cat", limit=1)[0].document == "the cat"


def test_the_file_of_a_model_that_is_not_trusted_is_not_fetched(
    empty: Path, tmp_path: Path
) -> None:
    del empty
    own = written_from_the_hub(with_own_file(tmp_path / "model", "jina_bert"), REPOSITORY)
    client = QdrantClient(":memory:")
    own.store(client)
    downloaded(REPOSITORY, own.folder)
    with serving(REPOSITORY, own.folder) as hub, asked(hub), pytest.raises(UntrustedModelError):
        client.query("demo", "the cat")
    assert hub.requests == []


def test_a_file_of_another_digest_is_not_fetched(
    written: Written, empty: Path, tmp_path: Path
) -> None:
    del empty
    folder = shutil.copytree(written.folder, tmp_path / "model")
    (folder / "onnx/model.onnx").write_bytes(b"another")
    client = QdrantClient(":memory:")
    written.store(client)
    with serving(KNOWN, folder) as hub, asked(hub):
        client.set_model(KNOWN)
        with pytest.raises(CollectionMismatchError, match="another revision of the model"):
            client.query("demo", "the cat")
        assert hub.asked("model.onnx") == 0


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
