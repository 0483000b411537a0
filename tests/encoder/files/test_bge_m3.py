"""A model in the layout of BAAI/bge-m3: weights of torch alone; see `fixtures/make_bge_m3.py`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub_server import COMMIT, Fault, corrupted, serving
from numpy.typing import NDArray
from tiny_onnx import add_own_file

from qdrant_embed import CollectionMismatchError, QdrantClient, TextEmbedding
from qdrant_embed.encoder.files.cache import file_sha256, sealed
from qdrant_embed.encoder.files.model_files import find_model
from qdrant_embed.encoder.files.snapshots import KeptFile, KeptModel

FIXTURE = Path(__file__).parents[2] / "fixtures" / "bge_m3"
NAME = "BAAI/bge-m3"

PROGRAM = """
import json, sys
from qdrant_embed import TextEmbedding, QdrantEmbedError
job = json.load(sys.stdin)
try:
    encoder = TextEmbedding(job["name"], precision="fp32")
    vectors = [vector.tolist() for vector in encoder.embed(job["texts"])]
    result = {"vectors": vectors, "file": encoder.report.file, "name": encoder.model_name,
              "revision": encoder.describe().revision, "weights": encoder.describe().weights_sha256}
    if job.get("out"):
        encoder.export(job["out"])
except QdrantEmbedError as error:
    result = {"error": type(error).__name__, "message": str(error)}
print(json.dumps(result))
"""


def expected() -> tuple[list[str], NDArray[np.float32]]:
    with np.load(FIXTURE / "expected.npz") as file:
        return list(map(str, file["texts"])), file["vectors"]


def loaded(endpoint: str, home: Path, name: str, **job: Any) -> dict[str, Any]:
    """What a new process makes of model `name`."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps({"name": name, "texts": expected()[0], **job}),
        check=False,
        capture_output=True,
        text=True,
        env=os.environ
        | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "QDRANT_EMBED_CACHE": str(home)},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_its_vectors_are_those_of_sentence_transformers() -> None:
    texts, theirs = expected()
    encoder = TextEmbedding(FIXTURE, precision="fp32")
    assert np.abs(np.stack(list(encoder.embed(texts))) - theirs).max() <= 1e-5
    assert encoder.report.file == "pytorch_model.bin"
    weights = file_sha256(FIXTURE / "pytorch_model.bin")
    assert encoder.describe().weights_sha256 == weights
    assert TextEmbedding(FIXTURE).report.precision == "int8"


@pytest.mark.slow
def test_it_is_pulled_compiled_exported_and_loaded_without_network(tmp_path: Path) -> None:
    _, theirs = expected()
    with serving(NAME, FIXTURE) as hub:
        first = loaded(hub.url, tmp_path, NAME, out=str(tmp_path / "out"))
        assert (first["name"], first["revision"]) == (NAME, COMMIT)
        assert first["file"] == "pytorch_model.bin"
        assert np.abs(np.array(first["vectors"]) - theirs).max() <= 1e-5
        assert hub.asked("/pytorch_model.bin") == 1
        assert not hub.asked("_linear.pt")
        endpoint = hub.url
    assert loaded(endpoint, tmp_path, NAME) == first
    exported = loaded(endpoint, tmp_path / "other", str(tmp_path / "out"))
    assert exported["vectors"] == first["vectors"]
    assert exported["weights"] == first["weights"]


@pytest.mark.slow
def test_weights_that_are_not_those_of_the_hub_are_never_read(tmp_path: Path) -> None:
    with serving(NAME, FIXTURE) as hub:
        hub.faults.append(Fault("pytorch_model.bin", body=corrupted))
        result = loaded(hub.url, tmp_path, NAME)
    assert result["error"] in ("ModelFileError", "ModelDownloadError")
    assert "cannot be read as a PyTorch file" not in result["message"]
    assert not list(tmp_path.rglob("pytorch_model.bin"))


def with_own_file(folder: Path, scale: float = 1.0) -> Path:
    """A copy of the model with an ONNX file beside its weights, which other programs made."""
    shutil.copytree(FIXTURE, folder)
    return add_own_file(folder, scale)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of both forms, and a cache: the ONNX file is tried once."""
    return with_own_file(tmp_path_factory.mktemp("both") / "model")


def written_before(client: QdrantClient, folder: Path) -> None:
    """Have a collection be written as by releases that do not see PyTorch files."""
    weights = folder / "pytorch_model.bin"
    weights.rename(folder.parent / "kept")
    try:
        client.set_model(folder, cache_dir=folder.parent / "cache")
        client.add("demo", ["the cat", "a storm"])
    finally:
        (folder.parent / "kept").rename(weights)


def test_what_its_own_file_wrote_before_is_of_the_same_model_if_vectors_are_equal(
    anywhere: QdrantClient, both: Path
) -> None:
    written_before(anywhere, both)
    anywhere.set_model(both, precision="fp32", cache_dir=both.parent / "cache")
    assert anywhere.query("demo", "cat", limit=1)[0].document == "the cat"
    anywhere.add("demo", ["a dog"])
    assert anywhere.count("demo").count == 3


def test_int8_is_of_the_model_that_its_own_float32_file_ran(both: Path) -> None:
    client = QdrantClient(":memory:")
    written_before(client, both)
    client.set_model(both, cache_dir=both.parent / "cache")
    assert client.query("demo", "cat", limit=1)[0].document == "the cat"


def test_a_file_of_other_vectors_is_another_model(tmp_path: Path) -> None:
    folder = with_own_file(tmp_path / "model", 1.5)
    client = QdrantClient(":memory:")
    written_before(client, folder)
    client.set_model(folder, cache_dir=tmp_path / "cache", precision="fp32")
    with pytest.raises(CollectionMismatchError, match="by the other form of its model") as raised:
        client.query("demo", "cat")
    assert "weights_sha256" in raised.value.found


def test_what_an_earlier_release_downloaded_still_runs_without_network(tmp_path: Path) -> None:
    """It took the ONNX file, and knew of the weights by name only."""
    source = with_own_file(tmp_path / "model")
    base = tmp_path / "cache/hub/baai--bge-m3"
    shutil.copytree(source, base / COMMIT)
    (base / COMMIT / "pytorch_model.bin").unlink()
    files = {
        path.relative_to(source).as_posix(): KeptFile(
            size=path.stat().st_size, sha256=file_sha256(path)
        )
        for path in source.rglob("*")
        if path.is_file()
    }
    kept = {name: file for name, file in files.items() if name != "pytorch_model.bin"}
    record = KeptModel(name=NAME, commit=COMMIT, paths=frozenset(files), files=kept)
    (base / f"{COMMIT}.json").write_text(sealed(record.model_dump(mode="json")))
    (base / "refs").mkdir()
    (base / "refs/main").write_text(COMMIT)
    found = find_model(NAME, cache=tmp_path / "cache", local_files_only=True)
    assert found.folder == base / COMMIT
    encoder = TextEmbedding(NAME, cache_dir=tmp_path / "cache", local_files_only=True)
    assert encoder.report.file == "onnx/model.onnx"
