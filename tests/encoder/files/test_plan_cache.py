"""What was found out about a model holds until a file changes, and no longer."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import TinyModel, tiny_bert

from qdrant_embed import ModelFileError, SparseTextEmbedding, TextEmbedding
from qdrant_embed.encoder.interfaces import Pooling

WARM = """
import sys
from qdrant_embed import TextEmbedding
(vector,) = TextEmbedding(sys.argv[1], cache_dir=sys.argv[2]).embed("hello world")
unneeded = {"pydantic", "onnx", "safetensors", "huggingface_hub"}
print(len(vector), *sorted(unneeded & set(sys.modules)))
"""


def notes(cache: Path) -> list[Path]:
    """The notes in a cache folder."""
    return list((cache / "plans").glob("*.json"))


def test_a_known_model_starts_without_what_only_finding_out_needs(
    tiny: TinyModel, tmp_path: Path
) -> None:
    encoder = TextEmbedding(tiny.path, cache_dir=tmp_path)
    expected = np.array(list(encoder.embed(["hello world"])))
    command = [sys.executable, "-c", WARM, str(tiny.path), str(tmp_path)]
    # elsewhere, for a checkout in the working folder would be another package
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split() == [str(expected.shape[1])]
    again = TextEmbedding(tiny.path, cache_dir=tmp_path)
    assert again.describe() == encoder.describe()
    assert again.report == encoder.report
    assert (np.array(list(again.embed(["hello world"]))) == expected).all()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny model's folder, to be changed."""
    return tiny_bert(tmp_path / "model").path


def test_a_changed_file_is_read_again(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    before = TextEmbedding(folder, cache_dir=cache)
    config = folder / "1_Pooling" / "config.json"
    content = json.loads(config.read_text())
    mean, cls = "pooling_mode_mean_tokens", "pooling_mode_cls_token"
    content[mean], content[cls] = content[cls], content[mean]
    config.write_text(json.dumps(content))
    after = TextEmbedding(folder, cache_dir=cache)
    assert {before.spec.pooling, after.spec.pooling} == {"cls", "mean"}


def test_a_new_file_is_read(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert TextEmbedding(folder, cache_dir=cache).spec.query_prefix == ""
    prompts = {"prompts": {"query": "ask: ", "document": ""}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    assert TextEmbedding(folder, cache_dir=cache).spec.query_prefix == "ask: "


def test_options_have_notes_of_their_own(tiny: TinyModel, tmp_path: Path) -> None:
    TextEmbedding(tiny.path, cache_dir=tmp_path)
    assert TextEmbedding(tiny.path, cache_dir=tmp_path, max_tokens=7).spec.max_tokens == 7
    assert TextEmbedding(tiny.path, cache_dir=tmp_path, precision="fp32").report.precision == (
        "fp32"
    )
    assert len(notes(tmp_path)) == 3


@pytest.mark.slow
@pytest.mark.parametrize("content", ["", "{}", "[]", '{"runnable": 3}', "not json"])
def test_a_note_that_says_nothing_is_no_error(
    tiny: TinyModel, tmp_path: Path, content: str
) -> None:
    encoder = TextEmbedding(tiny.path, cache_dir=tmp_path)
    (note,) = notes(tmp_path)
    note.write_text(content)
    assert TextEmbedding(tiny.path, cache_dir=tmp_path).describe() == encoder.describe()
    assert notes(tmp_path) == [note]
    assert json.loads(note.read_text())["weights_sha256"] == encoder.describe().weights_sha256


def test_a_graph_that_is_gone_is_made_again(tiny: TinyModel, tmp_path: Path) -> None:
    encoder = TextEmbedding(tiny.path, cache_dir=tmp_path)
    expected = np.array(list(encoder.embed(["hello world"])))
    shutil.rmtree(tmp_path / "compiled")
    again = TextEmbedding(tiny.path, cache_dir=tmp_path)
    assert (np.array(list(again.embed(["hello world"]))) == expected).all()


def test_weights_that_were_replaced_are_noticed(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    TextEmbedding(folder, cache_dir=cache)
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelFileError):
        TextEmbedding(folder, cache_dir=cache)


def test_a_folder_with_much_else_in_it_is_read_each_time(folder: Path, tmp_path: Path) -> None:
    for number in range(100):
        (folder / f"{number}.txt").touch()
    TextEmbedding(folder, cache_dir=tmp_path / "cache")
    assert notes(tmp_path / "cache") == []


def test_a_plan_is_that_of_its_spec_and_task(tiny: TinyModel, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    encoder = TextEmbedding(tiny.path, cache_dir=cache, precision="fp32")
    other: Pooling = "cls" if encoder.spec.pooling == "mean" else "mean"
    asked = replace(encoder.spec, pooling=other)
    assert (
        TextEmbedding(tiny.path, cache_dir=cache, precision="fp32", spec=asked).spec.pooling
        == other
    )
    assert (
        TextEmbedding(tiny.path, cache_dir=cache, precision="fp32").spec.pooling
        == encoder.spec.pooling
    )
    with pytest.raises(ModelFileError, match="dense model"):
        SparseTextEmbedding(tiny.path, cache_dir=cache)


@pytest.mark.parametrize("version", ["VERSION", "GRAPH_VERSION"])
def test_another_version_makes_its_own_plan(
    version: str, tiny: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    TextEmbedding(tiny.path, cache_dir=cache, precision="fp32")
    monkeypatch.setattr(f"qdrant_embed.encoder.files.plan.{version}", "another")
    TextEmbedding(tiny.path, cache_dir=cache, precision="fp32")
    assert len([*(cache / "plans").iterdir()]) == 2
