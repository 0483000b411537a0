"""What a model's own files say, and what they may not say."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import TinyModel, tiny_bert

from qdrant_embed import ModelFileError, ModelSpec, TextEmbedding
from qdrant_embed.encoder.facts.directory import ModelDirectory
from qdrant_embed.encoder.files.tensors import tensor_shapes

KNOWN = ModelSpec(
    name="known",
    dimension=999,
    pooling="cls",
    max_tokens=33,
    normalize=False,
    query_prefix="catalog query: ",
    document_prefix="catalog document: ",
)


def directory(path: Path, known: ModelSpec | None = None) -> ModelDirectory:
    return ModelDirectory(path, known, tensor_shapes=tensor_shapes)


@pytest.fixture
def model(tmp_path: Path) -> TinyModel:
    return tiny_bert(tmp_path / "model")


def edit(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def test_the_files_win_over_the_catalog(model: TinyModel) -> None:
    spec = directory(model.path, KNOWN).spec("name")
    assert (spec.name, spec.dimension, spec.pooling) == ("name", 32, "mean")
    assert (spec.max_tokens, spec.normalize) == (64, True)


def test_the_catalog_supplies_prefixes_the_files_do_not_state(model: TinyModel) -> None:
    # tiny_bert writes {"prompts": {}}; sentence-transformers writes empty texts where none are set
    for prompts in ({}, {"query": "", "document": ""}):
        edit(model.path / "config_sentence_transformers.json", prompts=prompts)
        spec = directory(model.path, KNOWN).spec("name")
        assert (spec.query_prefix, spec.document_prefix) == (
            "catalog query: ",
            "catalog document: ",
        )


def test_prompts_of_the_files_come_before_the_catalogs(model: TinyModel) -> None:
    edit(model.path / "config_sentence_transformers.json", prompts={"query": "q ", "passage": "p "})
    spec = directory(model.path, KNOWN).spec("name")
    assert (spec.query_prefix, spec.document_prefix) == ("q ", "p ")
    spec = directory(model.path, KNOWN).spec("name", query_prefix="own ", document_prefix="")
    assert (spec.query_prefix, spec.document_prefix) == ("own ", "")


def test_a_plain_transformers_folder_takes_the_catalogs_word(model: TinyModel) -> None:
    for name in ("modules.json", "sentence_bert_config.json"):
        (model.path / name).unlink()
    spec = directory(model.path, KNOWN).spec("name")
    assert (spec.pooling, spec.max_tokens, spec.normalize) == ("cls", 33, False)


def test_an_unknown_plain_folder_is_pooled_by_mean_and_it_is_said(
    model: TinyModel, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("modules.json", "sentence_bert_config.json"):
        (model.path / name).unlink()
    spec = directory(model.path).spec("name")
    assert (spec.pooling, spec.max_tokens, spec.normalize) == ("mean", 96, True)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_the_tokenizers_limit_counts_where_nothing_else_states_one(model: TinyModel) -> None:
    (model.path / "sentence_bert_config.json").unlink()
    limits = model.path / "tokenizer_config.json"
    limits.write_text('{"model_max_length": 48}')
    assert directory(model.path).spec("name").max_tokens == 48
    limits.write_text('{"model_max_length": 1e30}')
    assert directory(model.path).spec("name").max_tokens == 96


def test_no_more_tokens_than_positions(model: TinyModel) -> None:
    edit(model.path / "sentence_bert_config.json", max_seq_length=5000)
    assert directory(model.path).spec("name").max_tokens == 96


def unlink(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def change(name: str, **changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / name, **changes)


def write(name: str, content: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / name).write_text(content)

    return apply


def module(kind: str, path: str = "") -> dict[str, str]:
    return {"type": f"sentence_transformers.models.{kind}", "path": path}


def chained(*kinds: str) -> str:
    return json.dumps([module(kind) for kind in kinds])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (unlink("config.json"), r"config.json is missing"),
        (write("config.json", "{"), r"config.json is not valid JSON"),
        (write("config.json", "[]"), r"config.json cannot be used"),
        (change("config.json", model_type="albert"), r"architecture 'albert'"),
        (change("config.json", hidden_size=None), r"hidden_size: Field required"),
        (change("config.json", hidden_size=-1), r"hidden_size"),
        (change("config.json", hidden_act="swish"), r"hidden_act"),
        (change("config.json", num_attention_heads=5), r"32 cannot be shared by 5"),
        (change("config.json", hidden_size=64), r"pools 32 numbers.*hidden_size is 64"),
        (change("config.json", num_hidden_layers=3), r"no tensor 'encoder.layer.2"),
        (change("config.json", intermediate_size=32), r"should have shape \(32, 32\).*\(64, 32\)"),
        (
            change("1_Pooling/config.json", pooling_mode_mean_tokens=False),
            r"cannot be run: none; cls, mean, lasttoken, max, mean_sqrt_len_tokens, weightedmean",
        ),
        (change("1_Pooling/config.json", pooling_mode="splade"), r"cannot be run: splade"),
        (change("1_Pooling/config.json", include_prompt=False), r"cannot be run"),
        (unlink("1_Pooling/config.json"), r"1_Pooling/config.json is missing"),
        (write("modules.json", json.dumps([module("Dense")])), r"only Transformer"),
        (write("modules.json", json.dumps([module("MLMTransformer")])), r"only Transformer"),
        (
            write("modules.json", chained("Router", "Normalize")),
            r"config.json cannot be used: types: Field required",
        ),
        (write("modules.json", "[]"), r"chains nothing: only Transformer"),
        (
            write("modules.json", chained("Transformer", "Normalize", "Pooling")),
            r"chains Transformer, Normalize, Pooling: only Transformer",
        ),
        (
            write("modules.json", chained("Transformer", "Pooling", "Pooling")),
            r"chains Transformer, Pooling, Pooling: only Transformer",
        ),
        (
            write("modules.json", json.dumps([module("Transformer", "../../..")])),
            r"points out of its folder",
        ),
        (
            write("modules.json", json.dumps([module("Transformer")] * 101)),
            r"chains 101 modules: it can 100 at most",
        ),
        (unlink("model.safetensors"), r"no model.safetensors or pytorch_model.bin"),
        (unlink("tokenizer.json"), r"no tokenizer.json"),
        (write("tokenizer.json", "{}"), r"tokenizer.json cannot be read as a tokenizer"),
        (write("model.safetensors", "garbage"), r"cannot be read as safetensors"),
    ],
)
def test_what_cannot_be_run_is_refused_by_name(
    model: TinyModel, damage: Callable[[Path], None], message: str
) -> None:
    damage(model.path)
    with pytest.raises(ModelFileError, match=message):
        TextEmbedding(model.path)


def test_truncated_weights_are_refused(model: TinyModel) -> None:
    weights = model.path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelFileError, match=r"model\.safetensors cannot be read"):
        TextEmbedding(model.path)


def test_prompts_are_found_as_sentence_transformers_finds_them(model: TinyModel) -> None:
    def prefixes(**content: Any) -> tuple[str, str]:
        edit(model.path / "config_sentence_transformers.json", **content)
        spec = directory(model.path).spec("name")
        return spec.query_prefix, spec.document_prefix

    assert prefixes(prompts={"query": "q", "corpus": "c", "passage": "p"}) == ("q", "p")
    assert prefixes(prompts={"query": "q", "corpus": "c"}) == ("q", "c")
    assert prefixes(prompts={"sts": "s", "query": "q"}) == ("q", "")
    assert prefixes(prompts={"sts": "s"}, default_prompt_name="sts") == ("s", "s")
    assert prefixes(prompts={"sts": "s", "query": ""}, default_prompt_name="sts") == ("", "s")
