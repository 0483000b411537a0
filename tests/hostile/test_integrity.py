"""What is kept is what was checked: another file, record or graph is noticed before it is used."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hub_server import corrupted, serving
from huggingface_hub import constants
from tiny import TinyModel

from hostile import models
from qdrant_embed import (
    CollectionMismatchError,
    ModelFileError,
    QdrantClient,
    SparseTextEmbedding,
    TextEmbedding,
)
from qdrant_embed.cli.main import main
from qdrant_embed.encoder.compile import compiler
from qdrant_embed.encoder.files import inventory
from qdrant_embed.encoder.files.cache import sealed, unsealed
from qdrant_embed.encoder.files.plan import MANIFEST
from qdrant_embed.encoder.files.tensors import read_tensors


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return models.sound("bert", tmp_path / "model")


def vector(folder: Path, cache: Path) -> object:
    return next(TextEmbedding(folder, cache_dir=cache, precision="fp32").embed("the cat sat"))


def graph_files(cache: Path) -> list[Path]:
    (folder,) = (cache / "compiled").iterdir()
    return [folder / "model.onnx", folder / "model.onnx.weights"]


@pytest.mark.parametrize("file", [0, 1])
def test_a_compiled_file_that_changed_is_hashed_again(
    file: int, model: Path, tmp_path: Path
) -> None:
    """Same size, other bytes: its time gives it away, and it is compiled again."""
    expected = vector(model, tmp_path / "cache")
    path = graph_files(tmp_path / "cache")[file]
    content = path.read_bytes()
    path.write_bytes(corrupted(content))
    np.testing.assert_array_equal(vector(model, tmp_path / "cache"), expected)
    assert path.read_bytes() == content


def test_a_graph_is_served_for_the_bytes_it_was_made_from_alone(
    model: Path, tmp_path: Path
) -> None:
    other = models.sound("bert", tmp_path / "other")
    models.tensors(
        lambda found: found.update({name: 2 * tensor for name, tensor in found.items()})
    )(other)
    cache = tmp_path / "cache"
    expected = vector(model, cache)
    (folder,) = (cache / "compiled").iterdir()
    wrong = vector(other, tmp_path / "others cache")
    (foreign,) = (tmp_path / "others cache/compiled").iterdir()
    # whole in itself, but made from other weights
    shutil.rmtree(folder)
    shutil.copytree(foreign, folder)
    shutil.rmtree(cache / "plans")
    found = vector(model, cache)
    np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(np.asarray(found), np.asarray(wrong))


def test_weights_that_change_while_they_are_compiled_are_not_kept(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = model / "model.safetensors"

    def read_then_changed(files: list[Path]) -> object:
        tensors = read_tensors(files)
        status = weights.stat()
        weights.write_bytes(corrupted(weights.read_bytes()))
        os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
        return tensors

    with monkeypatch.context() as patch:
        patch.setattr(compiler, "read_tensors", read_then_changed)
        with pytest.raises(ModelFileError, match="changed before or while"):
            vector(model, tmp_path / "cache")
    assert not list((tmp_path / "cache/compiled").iterdir())
    vector(model, tmp_path / "cache")  # the next try reads what is there now


EDITS: dict[str, Callable[[Path], object]] = {
    "no JSON": lambda record: record.write_text("{"),
    "deep": lambda record: record.write_text("[" * 100_000),
    "digits": lambda record: record.write_text('{"size": ' + "9" * 5000 + "}"),
    "not UTF-8": lambda record: record.write_bytes(b"\xff\xfe\x00"),
    "empty": lambda record: record.write_bytes(b""),
    "another digest": lambda record: record.write_text(
        record.read_text().replace("a", "b").replace("0", "1")
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_verify_reports_a_record_that_was_edited(
    edit: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "cache"
    vector(model, cache)
    record = next(cache.glob("compiled/*/compiled.json"))
    assert main(["verify", "--cache-dir", str(cache)]) == 0
    EDITS[edit](record)
    assert main(["verify", "--cache-dir", str(cache)]) == 1
    assert "compiled.json" in capsys.readouterr().err
    assert main(["cache", "clear", "--cache-dir", str(cache)]) == 0  # as the message advises
    vector(model, cache)
    assert main(["verify", "--cache-dir", str(cache)]) == 0


@pytest.mark.parametrize("edit", EDITS)
def test_verify_reports_a_downloads_record_that_was_edited(
    edit: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    with serving("owner/tiny", model) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        TextEmbedding("owner/tiny", cache_dir=cache, precision="fp32")
        (record,) = cache.glob("hub/*/*.json")
        assert not any(found.damaged for found in inventory.check_cache(cache))
        EDITS[edit](record)
        (damaged,) = (found for found in inventory.check_cache(cache) if found.damaged)
        assert (damaged.name, damaged.damaged) == ("owner/tiny", [record.name])
        assert inventory.check_cache(cache, "owner/tiny")
        TextEmbedding("owner/tiny", cache_dir=cache, precision="fp32")
        assert not any(found.damaged for found in inventory.check_cache(cache))


@pytest.mark.parametrize("change", ["gone", "cut", "longer"])
def test_verify_reports_a_graph_of_another_size(
    change: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "cache"
    vector(model, cache)
    path = graph_files(cache)[1]
    content = path.read_bytes()
    path.unlink()
    if change != "gone":
        path.write_bytes(content[:-1] if change == "cut" else content + b"x")
    assert main(["verify", "--cache-dir", str(cache)]) == 1
    assert "model.onnx.weights" in capsys.readouterr().err


def edited(folder: Path, change: Callable[[dict[str, object]], object], *, seal: bool) -> None:
    """Edit a manifest, by hand or with its digest made anew."""
    path = folder / MANIFEST
    content = unsealed(path.read_bytes()) if seal else json.loads(path.read_bytes())
    change(content)
    path.write_text(sealed(content) if seal else json.dumps(content))


def test_an_edited_manifest_is_noticed(model: Path, tmp_path: Path) -> None:
    TextEmbedding(model, precision="fp32", cache_dir=tmp_path / "cache").export(tmp_path / "out")
    assert main(["verify", str(tmp_path / "out")]) == 0
    edited(tmp_path / "out", lambda content: content.update(lower_case=True), seal=False)
    assert main(["verify", str(tmp_path / "out")]) == 1
    with pytest.raises(ModelFileError, match="damaged"):
        TextEmbedding(tmp_path / "out", cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("file", ["model.onnx", "model.onnx.weights", "tokenizer.json"])
def test_a_manifest_covers_everything_that_runs(file: str, model: Path, tmp_path: Path) -> None:
    TextEmbedding(model, precision="fp32", cache_dir=tmp_path / "cache").export(tmp_path / "out")

    def forgotten(content: dict[str, object]) -> None:
        files, run = content["files"], content["run"]
        assert isinstance(files, dict)
        assert isinstance(run, list)
        del files[file]
        if file.endswith(".weights"):  # the graph reads it, whatever the manifest says
            run.remove(file)

    edited(tmp_path / "out", forgotten, seal=True)
    assert main(["verify", str(tmp_path / "out")]) == 1
    with pytest.raises(ModelFileError, match=file.replace(".", r"\.")):
        TextEmbedding(tmp_path / "out", cache_dir=tmp_path / "cache")
    (tmp_path / "out/README.md").write_text("a file that nothing reads")


@pytest.mark.parametrize("name", ["..", ".", "a\0b", "/etc/passwd", "C:\\x", "a/b", "\x1b[31m"])
def test_a_manifest_names_files_of_its_folder_alone(name: str, model: Path, tmp_path: Path) -> None:
    TextEmbedding(model, precision="fp32", cache_dir=tmp_path / "cache").export(tmp_path / "out")
    edited(tmp_path / "out", lambda content: content.update(tokenizer=name), seal=True)
    with pytest.raises(ModelFileError):
        TextEmbedding(tmp_path / "out", cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("folder", ["plans", "sha256"])
def test_a_note_that_was_edited_is_made_again(
    edit: str, folder: str, model: Path, tmp_path: Path
) -> None:
    expected = vector(model, tmp_path / "cache")
    for note in (tmp_path / "cache" / folder).iterdir():
        EDITS[edit](note)
    if edit == "another digest" and folder == "sha256":
        return  # one digest looks like another
    np.testing.assert_array_equal(vector(model, tmp_path / "cache"), expected)


def permuted(folder: Path) -> None:
    """Exchange two words of a tokenizer."""
    content = json.loads((folder / "tokenizer.json").read_bytes())
    words = content["model"]["vocab"]
    words["cat"], words["dog"] = words["dog"], words["cat"]
    (folder / "tokenizer.json").write_text(json.dumps(content))


def rewritten(folder: Path) -> None:
    """Write a tokenizer in another way, with other settings of training."""
    content = json.loads((folder / "tokenizer.json").read_bytes())
    content["truncation"] = content["padding"] = None
    (folder / "tokenizer.json").write_text(json.dumps(content, indent=4, sort_keys=True))


def test_a_permuted_tokenizer_is_another_model(anywhere: QdrantClient, tmp_path: Path) -> None:
    models.sound("static", tmp_path / "model")
    for name in ("permuted", "rewritten"):
        shutil.copytree(tmp_path / "model", tmp_path / name)
    permuted(tmp_path / "permuted")
    rewritten(tmp_path / "rewritten")
    anywhere.set_model(tmp_path / "model")
    anywhere.add("c", ["the cat sat"])
    anywhere.set_model(tmp_path / "rewritten")
    anywhere.add("c", ["the dog sat"])
    anywhere.set_model(tmp_path / "permuted")
    with pytest.raises(CollectionMismatchError, match="tokenizer_sha256"):
        anywhere.add("c", ["the mat"])
    with pytest.raises(CollectionMismatchError):
        anywhere.query("c", "the mat")


def test_settings_of_the_model_are_part_of_its_digest(tiny: TinyModel, tmp_path: Path) -> None:
    digests = {TextEmbedding(tiny.path).describe().tokenizer_sha256}
    for number, change in enumerate(
        (
            models.merged("sentence_bert_config.json", do_lower_case=True),
            models.merged("config.json", layer_norm_eps=1e-3),
            models.merged("config.json", hidden_act="relu"),
            permuted,
        )
    ):
        shutil.copytree(tiny.path, tmp_path / str(number))
        change(tmp_path / str(number))
        encoder = TextEmbedding(tmp_path / str(number), precision="fp32")
        digests.add(encoder.describe().tokenizer_sha256)
        encoder.export(tmp_path / f"out{number}")
        again = TextEmbedding(tmp_path / f"out{number}")
        assert again.describe() == encoder.describe()
    assert len(digests) == 5
    shutil.copytree(tiny.path, tmp_path / "same")
    rewritten(tmp_path / "same")
    models.merged("config.json", transformers_version="9")(tmp_path / "same")
    assert TextEmbedding(tmp_path / "same").describe().tokenizer_sha256 in digests


def test_old_stamps_and_manifests_state_no_digest_and_fit(tiny: TinyModel, tmp_path: Path) -> None:
    client = QdrantClient(":memory:")
    client.set_model(tiny.path)
    client.add("c", ["the cat sat"])
    stored = client.get_collection("c").config.metadata
    assert stored is not None
    stamp = stored["qdrant_embed"]
    assert stamp.pop("tokenizer_sha256")
    client.update_collection("c", metadata={"qdrant_embed": stamp})
    again = QdrantClient(":memory:")
    again._client = client._client
    again.set_model(tiny.path)
    again.add("c", ["the dog sat"])
    assert again.count("c").count == 2


def test_a_sparse_model_has_a_digest_too() -> None:
    assert SparseTextEmbedding("Qdrant/bm25").describe().tokenizer_sha256 is None
