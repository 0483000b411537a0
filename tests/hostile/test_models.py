"""Hostile model folders: each loads and answers rightly, or is refused by an error of ours."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from hostile import models, room
from qdrant_embed import (
    IngestError,
    InputError,
    ModelError,
    ModelFileError,
    QdrantClient,
    TextEmbedding,
)
from qdrant_embed.encoder.files.plan import RunPlan
from qdrant_embed.encoder.interfaces import Overflow
from qdrant_embed.encoder.run import loaded_model

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="limits and pipes of Unix")

_TOKENIZERS = {
    "added token is empty",
    "padding without end",
    "prefix that cuts characters",
    "regular expression that backtracks",
    "regular expression that looks back",
    "truncation without room",
    "unigram with infinite scores",
    "words of no characters",
}
_NOT_READ = ("deep", "deep objects", "digits", "not UTF-8", "a surrogate", "empty", "a number")

# these are odd, but their vectors are right: what is odd is not used, or says nothing
ANSWERS: dict[str, set[str]] = {
    "configs": {
        "config layer_norm_eps is huge",
        "config_sentence_transformers.json: a folder",
        "length infinite",
        "length not a number",
        "length without end",
        "max_seq_length 2**70",
        "max_seq_length absent, no tokenizer_config",
        "modules.json: a folder",
        "prompt with NUL",
        "sentence_bert_config.json: a folder",
        "sentence_bert_config.json: a surrogate",
        # another file states the length, so this one is not read
        *(f"tokenizer_config.json: {what}" for what in _NOT_READ),
        *(f"tokenizer_config.json: {what}" for what in ("null", "NUL", "17 MB", "a folder")),
    },
    "modules": set(),
    "weights": {"weights: zeros"},
    "tokenizers": _TOKENIZERS,
    "tables": {"max_length 10**30", "table: of one column", "table: weights of integers"},
    "static weights": {"weights: one row huge", "weights: zeros"},
    "static tokenizers": _TOKENIZERS,
    "torch files": {"torch: sound"},
    "graphs": {"graph: reads a file beside it"},
    "graph tokenizers": {*_TOKENIZERS, "added tokens out of range"},
    "exported graphs": set(),
}


@pytest.mark.parametrize(
    "group",
    [
        "configs",
        "modules",
        "weights",
        "tokenizers",
        "tables",
        "static weights",
        "static tokenizers",
        "torch files",
        pytest.param("graphs", marks=pytest.mark.slow),
        pytest.param("graph tokenizers", marks=pytest.mark.slow),
        pytest.param("exported graphs", marks=pytest.mark.slow),
    ],
)
def test_a_folder_answers_or_is_refused(group: str, tmp_path: Path) -> None:
    folders = models.made(group, tmp_path)
    cases = [
        room.Case(name, "load", {"folder": str(folder), "cache": str(tmp_path / "cache")})
        for name, folder in folders.items()
    ]
    found = room.checked(cases, tmp_path)
    answers = {name for name, outcome in found.items() if outcome.kind == "answer"}
    assert answers == ANSWERS[group]


def without_unknown(folder: Path) -> Path:
    """Have a model's tokenizer know nothing but "cat", and the sign that it is tried with."""
    content = json.loads((folder / "tokenizer.json").read_bytes())
    content["normalizer"] = {
        "type": "Replace",
        "pattern": {"String": "\U00012000"},
        "content": "cat",
    }
    content["model"] = {"type": "WordLevel", "vocab": {"cat": 0}, "unk_token": "[GONE]"}
    content["added_tokens"] = []
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("overflow", ["truncate", "mean", "chunk", "error"])
def test_a_text_that_a_tokenizer_fails_on_is_named(overflow: Overflow, tmp_path: Path) -> None:
    folder = without_unknown(models.sound("static", tmp_path / "model"))
    encoder = TextEmbedding(folder, overflow=overflow)
    texts = ["cat"] * 300 + ["zebra"]
    for batch_size in (7, 1024):
        with pytest.raises(InputError, match="text number 300 cannot be tokenised") as raised:
            list(encoder.embed(texts, batch_size=batch_size))
        assert raised.value.index == 300
    with pytest.raises(InputError, match="text number 0") as raised:
        list(encoder.query_embed("zebra"))
    assert raised.value.index == 0


def test_a_document_that_a_tokenizer_fails_on_is_named(tmp_path: Path) -> None:
    client = QdrantClient(":memory:")
    client.set_model(without_unknown(models.sound("static", tmp_path / "model")))
    with pytest.raises(InputError, match=r"documents\[2\]") as raised:
        client.add("c", ["cat", "cat", "zebra"])
    assert raised.value.index == 2
    with pytest.raises(IngestError) as partly:
        client.add("c", ["cat"] * 3000 + ["zebra"])
    cause = partly.value.__cause__
    assert isinstance(cause, InputError)
    assert cause.index == 3000 > partly.value.failed_index > 0


def test_nothing_but_numbers_is_returned(tmp_path: Path) -> None:
    """NaN from an encoder by name is an error before a collection sees it."""
    folder = models.sound("static", tmp_path / "model")
    models.of_weights()["weights: huge"](folder)
    encoder = TextEmbedding(folder)
    with pytest.raises(ModelError, match="not finite"):  # and no warning, which would be an error
        list(encoder.embed(["cat sat"]))


def test_a_graph_of_an_exported_folder_is_tried_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever exported it: a graph that never ends is noticed before it runs here."""
    folder, cache = models.sound("exported", tmp_path / "out"), tmp_path / "cache"
    tried: list[Path] = []

    def try_plan(plan: RunPlan, seconds: float | None = None) -> None:
        tried.append(plan.run[0])
        original(plan, seconds)

    original = loaded_model.try_plan
    monkeypatch.setattr(loaded_model, "try_plan", try_plan)
    for _ in range(2):
        assert len(list(TextEmbedding(folder, cache_dir=cache).embed(["cat"]))) == 1
    assert tried == [folder / "model.onnx"]
    models.of_exported_graphs()["graph: never ends"](folder)
    monkeypatch.setattr(loaded_model, "TRIAL_SECONDS", 1.0)
    with pytest.raises(ModelFileError, match=r"took more than 1 s in a first trial"):
        TextEmbedding(folder, cache_dir=cache)
    models.of_exported_graphs()["graph: returns a number"](folder)
    with pytest.raises(ModelFileError, match=r"model\.onnx"):
        TextEmbedding(folder, cache_dir=cache)
    assert len(tried) == 3
