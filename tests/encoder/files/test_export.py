"""A model in one folder: loads with nothing but onnxruntime and tokenizers, as it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hub_server import corrupted
from tiny import TinyModel, tiny_bert

from qdrant_embed import InputError, ModelFileError, QdrantClient, TextEmbedding
from qdrant_embed.encoder.files.plan import MANIFEST

ALONE = """
import socket, sys
for name in ("onnx", "huggingface_hub", "safetensors", "transformers"):
    sys.modules[name] = None
def refuse(*arguments):
    raise AssertionError("a socket was opened")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import json, time
from dataclasses import asdict
from qdrant_embed import QdrantClient, TextEmbedding
started = time.perf_counter()
client = QdrantClient(":memory:")
client.set_model(sys.argv[1])
encoder = TextEmbedding(sys.argv[1])
vector = next(encoder.query_embed("cat"))
seconds = time.perf_counter() - started
client.add("demo", ["a cat sat"])
found = client.query("demo", "cat")[0].document
print(json.dumps({"vector": vector.tolist(), "stamp": asdict(encoder.describe()),
                  "found": found, "seconds": seconds}))
"""


@pytest.fixture(scope="module")
def exported(minilm: TextEmbedding, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports") / "minilm"
    minilm.export(folder)
    return folder


@pytest.mark.slow
def test_it_loads_alone_and_is_the_same_model(
    exported: Path, minilm: TextEmbedding, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(exported)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"QDRANT_EMBED_CACHE": str(tmp_path / "cache")},
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["stamp"] == vars(minilm.describe())
    assert result["found"] == "a cat sat"
    (expected,) = minilm.query_embed("cat")
    np.testing.assert_allclose(result["vector"], expected, atol=1e-6)
    assert not (tmp_path / "cache" / "compiled").exists()


def test_a_client_takes_it_for_the_model_it_was(exported: Path, minilm: TextEmbedding) -> None:
    client = QdrantClient(":memory:")
    client.set_model(minilm)
    client.add("demo", ["a cat sat on the mat", "the stock market fell"])
    client.set_model(exported)
    assert client.get_vector_field_name() == "fast-all-minilm-l6-v2"
    assert client.query("demo", "shares")[0].document == "the stock market fell"
    client.close()


@pytest.mark.parametrize("file", ["model.onnx", "model.onnx.weights", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["corrupted", "cut", "missing"])
def test_a_damaged_folder_says_so(file: str, damage: str, tiny: TinyModel, tmp_path: Path) -> None:
    TextEmbedding(tiny.path, precision="fp32").export(tmp_path / "model")
    path = tmp_path / "model" / file
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(corrupted(content) if damage == "corrupted" else content[:-10])
    with pytest.raises(ModelFileError, match=rf"damaged: {file}"):
        TextEmbedding(tmp_path / "model")


@pytest.mark.parametrize(
    "change",
    [{"version": 2}, {"run": ["../../etc/passwd"]}, {"kind": "pickle"}, {"weights_sha256": None}],
)
def test_a_manifest_that_cannot_be_used_says_so(
    change: dict[str, object], tiny: TinyModel, tmp_path: Path
) -> None:
    TextEmbedding(tiny.path, precision="fp32").export(tmp_path / "model")
    manifest = tmp_path / "model" / MANIFEST
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | change))
    with pytest.raises(ModelFileError, match=MANIFEST):
        TextEmbedding(tmp_path / "model")


def test_what_was_decided_at_export_stays_decided(tiny_e5: TinyModel, tmp_path: Path) -> None:
    encoder = TextEmbedding(tiny_e5.path, max_tokens=20, query_prefix="q: ")
    encoder.export(tmp_path / "model")
    again = TextEmbedding(tmp_path / "model")
    assert again.spec == encoder.spec
    assert again.describe() == encoder.describe()
    assert again.report == encoder.report
    assert TextEmbedding(tmp_path / "model", max_tokens=10).spec.max_tokens == 10
    with pytest.raises(InputError, match="for 20 tokens at most"):
        TextEmbedding(tmp_path / "model", max_tokens=21)
    with pytest.raises(InputError, match="exported in int8"):
        TextEmbedding(tmp_path / "model", precision="fp32")
    with pytest.raises(InputError, match="spec="):
        TextEmbedding(tmp_path / "model", spec=encoder.spec)
    again.export(tmp_path / "copy")
    assert TextEmbedding(tmp_path / "copy").describe() == encoder.describe()


def test_it_never_overwrites(tiny: TinyModel, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    encoder = TextEmbedding(tiny.path, precision="fp32")
    with pytest.raises(InputError, match="already exists"):
        encoder.export(tmp_path)
    (tmp_path / "empty").mkdir()
    encoder.export(tmp_path / "empty")
    assert (tmp_path / "empty" / MANIFEST).is_file()


def test_vectors_can_be_cut_when_it_is_loaded(tmp_path: Path) -> None:
    model = tiny_bert(tmp_path / "tiny")
    TextEmbedding(model.path, precision="fp32", dimensions=8).export(tmp_path / "model")
    assert TextEmbedding(tmp_path / "model").dimension == 32
    (cut,) = TextEmbedding(tmp_path / "model", dimensions=8).embed("cat")
    (expected,) = TextEmbedding(model.path, precision="fp32", dimensions=8).embed("cat")
    np.testing.assert_allclose(cut, expected, atol=1e-6)
