"""The base install, without the encoder's libraries: run by ``tox -e no-extras`` alone."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import models

import qdrant_embed
from qdrant_embed import (
    AsyncQdrantClient,
    IngestProgress,
    MissingDependencyError,
    QdrantClient,
    SparseDescription,
    SparseTextEmbedding,
    SparseVector,
    TextEmbedding,
)
from qdrant_embed.cli.main import main


class LetterEncoder:
    """An encoder of the user's own, without any library."""

    model_name = "mine/letters"
    dimension = 3

    def passage_embed(self, texts: Iterable[str], /) -> list[list[float]]:
        return [[text.count("a") + 0.1, text.count("b") + 0.1, 1] for text in texts]

    query_embed = passage_embed


@pytest.mark.parametrize(
    "library",
    [
        "onnxruntime",
        "tokenizers",
        "onnx",
        "safetensors",
        "huggingface_hub",
        "mmh3",
        "py_rust_stemmers",
        "qdrant_edge",
        "pyarrow",
        "starlette",
        "mcp",
    ],
)
def test_the_extra_is_really_absent(library: str) -> None:
    assert importlib.util.find_spec(library) is None


def test_a_folder_opens_with_local_mode(tmp_path: Path) -> None:
    client = QdrantClient(path=str(tmp_path / "db"))
    client.set_model(LetterEncoder())
    client.add("demo", ["banana", "kiwi"])
    assert client.engine == "local"
    client.close()
    with pytest.raises(MissingDependencyError, match=r"pip install 'qdrant-embed\[edge\]'"):
        QdrantClient(path=str(tmp_path / "new"), engine="edge")


def test_every_public_name_is_there() -> None:
    assert all(hasattr(qdrant_embed, name) for name in qdrant_embed.__all__)


def test_the_users_own_encoder_needs_no_extra() -> None:
    client = QdrantClient(":memory:")
    client.set_model(LetterEncoder())
    told: list[IngestProgress] = []
    client.add("demo", ["aaa", "bbb"], progress=told.append)
    assert told[-1].documents == 2
    assert [hit.document for hit in client.query("demo", "b")] == ["bbb", "aaa"]
    if importlib.util.find_spec("tqdm") is None:
        with pytest.raises(MissingDependencyError, match="a progress bar needs tqdm"):
            client.add("demo", ["ccc"], progress=True)


class LetterWords:
    """A sparse encoder of the user's own."""

    model_name = "mine/words"

    def describe(self) -> SparseDescription:
        return SparseDescription(self.model_name)

    def passage_embed(self, texts: Iterable[str], /) -> list[SparseVector]:
        return [SparseVector(np.array([len(text)]), np.ones(1, np.float32)) for text in texts]

    query_embed = passage_embed


def test_hybrid_search_with_encoders_of_ones_own_needs_no_extra() -> None:
    async def program() -> None:
        client = AsyncQdrantClient(":memory:")
        client.set_model(LetterEncoder())
        client.set_sparse_model(LetterWords())
        await client.add("demo", ["aaa", "bbbb"])
        (best, *_) = await client.query("demo", "bbbb")
        assert best.document == "bbbb"
        await client.close()

    asyncio.run(program())


def test_collections_are_copied_without_the_model_that_wrote_them(tmp_path: Path) -> None:
    source, target = QdrantClient(":memory:"), QdrantClient(path=str(tmp_path))
    source.create_collection("demo", source.get_fastembed_vector_params())
    vector: Any = {source.get_vector_field_name(): [1.0] * 384}
    source.upsert("demo", [models.PointStruct(id=1, vector=vector, payload={"document": "a"})])
    assert source.copy_to(target) == {"demo": 1}
    assert [one.text for one in target.get_documents("demo", [1]) if one] == ["a"]
    target.close()


def test_what_needs_no_encoder_works() -> None:
    client = QdrantClient(":memory:")
    assert client.get_embedding_size() == 384
    assert client.get_vector_field_name() == "fast-bge-small-en-v1.5"
    assert len(TextEmbedding.list_supported_models()) > 10


@pytest.mark.parametrize("frame", ["pages.parquet", Path("pages.feather"), ["pages.parquet"]])
def test_a_file_as_a_frame_names_its_extra(frame: object) -> None:
    client = QdrantClient(":memory:")
    client.set_model(LetterEncoder())
    with pytest.raises(MissingDependencyError, match=r"pip install 'qdrant-embed\[arrow\]'"):
        client.add_frame("demo", frame)
    with pytest.raises(qdrant_embed.InputError, match="pass the DataFrame"):
        client.add_frame("demo", "pages.csv")


def test_what_is_missing_is_named_with_the_command_that_installs_it(tmp_path: Path) -> None:
    client = QdrantClient(":memory:")
    with pytest.raises(MissingDependencyError) as caught:
        client.add("demo", ["text"])
    assert caught.value.command == "pip install 'qdrant-embed[fastembed]'"
    assert caught.value.command in str(caught.value)
    assert isinstance(caught.value, ImportError)
    assert not client.collection_exists("demo")
    with pytest.raises(MissingDependencyError):
        TextEmbedding(cache_dir=tmp_path)
    with pytest.raises(MissingDependencyError, match="BM25 needs mmh3"):
        SparseTextEmbedding()
    assert len(SparseTextEmbedding.list_supported_models()) >= 1
    with pytest.raises(MissingDependencyError):
        client.set_sparse_model("Qdrant/bm25")


@pytest.mark.parametrize("command", ["serve", "mcp"])
def test_a_service_names_its_extra(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command]) == 1
    assert f"pip install 'qdrant-embed[{command}]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("langchain", "langchain-core", "langchain"),
        ("llama_index", "llama-index-core", "llama-index"),
        ("haystack", "haystack-ai", "haystack"),
    ],
)
def test_a_module_of_a_framework_names_the_command(module: str, package: str, extra: str) -> None:
    with pytest.raises(MissingDependencyError) as caught:
        importlib.import_module(f"qdrant_embed.{module}")
    assert caught.value.package == package
    assert caught.value.command == f"pip install 'qdrant-embed[{extra}]'"
