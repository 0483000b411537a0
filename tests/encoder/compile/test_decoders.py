"""Language models, causal and in both directions; see also `test_architectures`."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from architecture_fixtures import NAMES, Fixture, load
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors.numpy import save_file
from tiny import write_model, write_modules

from qdrant_embed import CompileReport, TextEmbedding
from qdrant_embed.encoder.compile.architectures.registry import model_graph
from qdrant_embed.encoder.compile.calibration import (
    Calibration,
    CalibrationTokens,
    Stage,
    encode,
)
from qdrant_embed.encoder.compile.graph import Graph
from qdrant_embed.encoder.compile.layers.rotary import Rotary
from qdrant_embed.encoder.compile.layers.transformer import HIDDEN, TransformerGraph
from qdrant_embed.encoder.compile.quantize import (
    Activations,
    Kind,
    QuantizationPlan,
    quantize_group,
)
from qdrant_embed.encoder.facts.architectures import ARCHITECTURES, DecoderConfig, RopeScaling
from qdrant_embed.encoder.facts.spec import ModelSpec
from qdrant_embed.encoder.interfaces import Pooling
from qdrant_embed.encoder.run.backend import Inputs
from qdrant_embed.encoder.run.session import Session

DECODERS = [name for name in NAMES if "num_key_value_heads" in load(name).config]
CAUSAL = ["qwen2", "qwen3", "gemma3_text-causal"]
LONGEST, WINDOW = 160, 16  # of the fixtures; queries are taken in blocks of 128
NEAR = 20  # tokens at either end of a text


def run(
    fixture: Fixture, ids: NDArray[np.int64], pooling: Pooling, path: Path
) -> NDArray[np.float32]:
    """The vectors of a batch."""
    graph(fixture, pooling).save(path / "model.onnx")
    return Session(path / "model.onnx").run(Inputs(ids))


def graph(
    fixture: Fixture, pooling: Pooling, plan: QuantizationPlan | None = None
) -> TransformerGraph[Any]:
    config = ARCHITECTURES[fixture.config["model_type"]].model_validate(fixture.config)
    spec = ModelSpec("tiny", config.dimension, pooling, LONGEST, False)
    return model_graph(fixture.weights, config, spec, plan or QuantizationPlan())


def test_there_are_fixtures_of_all_kinds() -> None:
    assert len(DECODERS) == 7
    assert set(CAUSAL) < set(DECODERS)


@pytest.mark.parametrize("pooling", ["cls", "mean", "last_token"])
@pytest.mark.parametrize("name", DECODERS)
def test_vectors_are_those_of_transformers_to_1e_5(
    name: str, pooling: Pooling, tmp_path: Path
) -> None:
    fixture = load(name)
    graph(fixture, pooling).save(tmp_path / "model.onnx")
    session = Session(tmp_path / "model.onnx")
    for length in (1, 2, 7, 15, 16, 17, 18, 63, 64, 127, 128, 129, LONGEST):
        (found,) = session.run(Inputs(fixture.ids[None, :length]))
        assert np.abs(found - fixture.expected[pooling][length - 1]).max() <= 1e-5, length


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("length", [1, WINDOW, 129])
def test_texts_of_a_batch_do_not_see_each_other(name: str, length: int, tmp_path: Path) -> None:
    fixture = load(name)
    ids = np.random.default_rng(0).integers(4, 96, (3, length))
    together = run(fixture, ids, "last_token", tmp_path)
    for row, vector in zip(ids, together, strict=True):
        (alone,) = run(fixture, row[None], "last_token", tmp_path)
        np.testing.assert_allclose(vector, alone, atol=2e-6)


def one_layer(name: str, kind: str) -> Fixture:
    """A model of one layer, of which only some tokens reach the pooled one."""
    fixture = load(name)
    changes = {"num_hidden_layers": 1, "layer_types": [kind], "max_window_layers": 0}
    return replace(fixture, config=fixture.config | changes)


def reached(fixture: Fixture, length: int, pooling: Pooling, path: Path) -> list[int]:
    """The positions of tokens that the pooled one attends to, of those near either end."""
    near = [position for position in range(length) if not NEAR <= position < length - NEAR]
    ids = np.tile(fixture.ids[:length], (len(near) + 1, 1))
    for row, position in enumerate(near, 1):
        ids[row, position] = 5 if ids[row, position] != 5 else 6
    found = run(fixture, ids, pooling, path)
    return [near[row] for row in np.flatnonzero((found[1:] != found[0]).any(axis=1))]


@pytest.mark.parametrize("length", [1, 15, 16, 17, 129, 150])
@pytest.mark.parametrize("name", ["qwen2", "gemma3_text-causal"])
def test_a_causal_window_is_the_token_and_those_before_it(
    name: str, length: int, tmp_path: Path
) -> None:
    fixture = one_layer(name, "sliding_attention")
    last = list(range(max(0, length - WINDOW), length))
    assert reached(fixture, length, "last_token", tmp_path) == last
    assert reached(fixture, length, "cls", tmp_path) == [0]


@pytest.mark.parametrize("length", [1, 8, 9, 10, 17, 129, 150])
def test_a_symmetric_window_has_half_of_it_on_each_side(length: int, tmp_path: Path) -> None:
    fixture = one_layer("gemma3_text", "sliding_attention")
    last = list(range(max(0, length - 1 - WINDOW // 2), length))
    assert reached(fixture, length, "last_token", tmp_path) == last
    first = list(range(min(length, WINDOW // 2 + 1)))
    assert reached(fixture, length, "cls", tmp_path) == first


@pytest.mark.parametrize("name", ["qwen3", "gemma3_text-causal", "gemma3_text", "eurobert"])
def test_whole_attention_is_causal_or_not_as_the_config_says(name: str, tmp_path: Path) -> None:
    fixture = one_layer(name, "full_attention")
    both = name in ("gemma3_text", "eurobert")
    ends = [*range(NEAR), *range(130 - NEAR, 130)]
    assert reached(fixture, 130, "last_token", tmp_path) == ends
    assert reached(fixture, 130, "cls", tmp_path) == (ends if both else [0])


@pytest.mark.parametrize("prefix", ["", "model.", "0.auto_model.", "language_model.model."])
def test_tensors_may_have_a_prefix_and_an_output_layer_is_ignored(
    prefix: str, tmp_path: Path
) -> None:
    fixture = load("qwen3")
    weights = {prefix + name: tensor for name, tensor in fixture.weights.items()}
    weights["lm_head.weight"] = np.ones((96, 24), np.float32)
    named = replace(fixture, weights=weights)
    found = run(named, fixture.ids[None, :20], "last_token", tmp_path)
    np.testing.assert_allclose(found[0], fixture.expected["last_token"][19], atol=1e-5)


def test_a_projection_follows_the_last_norm(tmp_path: Path) -> None:
    fixture = load("qwen3-bidirectional")
    projection = np.random.default_rng(0).normal(size=(7, 24)).astype(np.float32)
    projected = replace(
        fixture,
        config=fixture.config | {"num_labels": 7},
        weights=fixture.weights | {"linear.weight": projection},
    )
    found = run(projected, fixture.ids[None, :20], "mean", tmp_path)
    expected = projection @ fixture.expected["mean"][19]
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


# by transformers 5.24, for heads of 16 numbers and a base of 1e6
SCALED = [
    (
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
        1.138629436111989,
        [1.0, 0.1778279, 0.03162278, 0.00421756, 0.0005, 4.445699e-05, 7.905694e-06, 1.405853e-06],
    ),
    (
        {
            "type": "yarn",
            "factor": 8.0,
            "original_max_position_embeddings": 4096,
            "beta_fast": 16,
            "beta_slow": 2,
            "attention_factor": 0.9,
        },
        0.9,
        [1.0, 0.1778279, 0.03162278, 0.00316317, 0.000125, 2.222849e-05, 3.952847e-06, 7.029267e-7],
    ),
    (
        {
            "rope_type": "yarn",
            "factor": 8.0,
            "original_max_position_embeddings": 4096,
            "truncate": False,
            "mscale": 1.0,
            "mscale_all_dim": 0.5,
        },
        1.094179988101349,
        [1.0, 0.1778279, 0.02811208, 0.002547288, 0.000125, 2.222849e-5, 3.952847e-6, 7.029267e-07],
    ),
    (
        {"rope_type": "linear", "factor": 4.0},
        1.0,
        [0.25, 0.04445698, 0.007905695, 0.001405853, 0.00025, 4.445699e-5, 7.905694e-6, 1.4058e-6],
    ),
    (
        {"rope_type": "dynamic", "factor": 4.0},
        1.0,
        [1.0, 0.1778279, 0.03162278, 0.005623413, 0.001, 0.0001778279, 3.162277e-05, 5.623413e-06],
    ),
    (
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "original_max_position_embeddings": 8192,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
        },
        1.0,
        [1, 0.1778279, 0.03162278, 0.005623413, 0.0002136076, 2.222849e-5, 3.952847e-06, 7.0293e-7],
    ),
]


@pytest.mark.parametrize(("stated", "factor", "frequencies"), SCALED)
def test_positions_are_scaled_as_transformers_does(
    stated: dict[str, Any], factor: float, frequencies: list[float]
) -> None:
    graph = Graph()
    Rotary(graph, 16, 3, 1e6, scaling=RopeScaling.model_validate(stated))
    known = [np.array(value) for value in graph._constants.values() if not callable(value)]
    cosines, sines = (value for value in known if value.shape == (3, 8))
    angles = np.arange(3)[:, None] * np.array(frequencies)
    np.testing.assert_allclose(cosines, np.cos(angles) * factor, rtol=2e-5)
    np.testing.assert_allclose(sines, np.sin(angles) * factor, rtol=1e-4)


def test_a_config_of_transformers_4_means_the_same() -> None:
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 40}
    new = load("qwen3-bidirectional").config
    old = {key: new[key] for key in new if key not in ("rope_parameters", "layer_types")}
    old |= {"rope_theta": 10_000.0, "rope_scaling": scaling}
    kind = ARCHITECTURES["qwen3"]
    first, second = kind.model_validate(old), kind.model_validate(new)
    assert isinstance(first, DecoderConfig)
    assert isinstance(second, DecoderConfig)
    assert first.rope()[0] == second.rope()[0] == 10_000
    assert first.rope_scaling is not None
    assert second.rope_parameters is not None
    assert first.rope()[1] == second.rope_parameters.model_copy(update={"rope_theta": None})


def test_gemma_s_config_of_transformers_4_means_the_same() -> None:
    new = load("gemma3_text").config
    old = {key: new[key] for key in new if key not in ("rope_parameters", "layer_types")}
    old |= {"num_hidden_layers": 12, "rope_theta": 5e5, "rope_local_base_freq": 2e4}
    config = ARCHITECTURES["gemma3_text"].model_validate(old | {"sliding_window_pattern": 6})
    assert isinstance(config, DecoderConfig)
    kinds = [config.layer_type(number) for number in range(12)]
    assert kinds == (["sliding_attention"] * 5 + ["full_attention"]) * 2
    assert config.rope("full_attention")[0] == 5e5
    assert config.rope("sliding_attention")[0] == 2e4
    assert config.window == 9


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("qwen2", {"auto_map": {"AutoModel": "modeling.Qwen2Model"}}, "set is_causal"),
        ("qwen2", {"num_key_value_heads": 3}, "cannot share 3"),
        ("qwen2", {"is_causal": False}, "windows in both directions"),
        ("qwen2", {"sliding_window": 0}, "sliding_window"),
        ("qwen3", {"rope_parameters": {"rope_type": "longrope"}}, "rope_parameters"),
        ("qwen3", {"rope_parameters": {"rope_type": "yarn"}}, "needs a factor"),
        ("qwen3", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ("qwen3", {"head_dim": 7}, "cannot be turned in pairs"),
        ("qwen3", {"head_dim": 0}, "head_dim"),
        ("qwen3", {"max_position_embeddings": 10**9}, "max_position_embeddings"),
        ("qwen3", {"layer_types": ["linear_attention"]}, "layer_types"),
        ("gemma3_text", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ("gemma3_text", {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar"),
        ("eurobert", {"mlp_bias": True}, "mlp_bias"),
    ],
)
def test_a_config_that_cannot_be_run_is_refused(
    name: str, changes: dict[str, Any], said: str
) -> None:
    config = load(name).config
    with pytest.raises(ValidationError, match=said):
        ARCHITECTURES[config["model_type"]].model_validate(config | changes)


def test_code_of_a_vendor_is_no_obstacle_where_the_config_says_enough() -> None:
    code = {"auto_map": {"AutoModel": "modeling.Model"}}
    for name, stated, both in (
        ("qwen3", {"is_causal": True}, False),
        ("qwen3", {"is_causal": False}, True),
        ("qwen3", {"use_bidirectional_attention": True}, True),
        ("eurobert", {}, True),
    ):
        config = ARCHITECTURES[name].model_validate(load(name).config | code | stated)
        assert isinstance(config, DecoderConfig)
        assert config.is_bidirectional == both


def written(path: Path, name: str, **options: Any) -> Path:
    fixture = load(name)
    write_model(path, fixture.config, fixture.weights, **{"special": "$A [SEP]", **options})
    return path


def test_the_last_token_of_a_text_that_is_cut_is_the_tokenizer_s(tmp_path: Path) -> None:
    model = written(tmp_path / "model", "qwen3", pooling="last_token", max_seq_length=16)
    encoder = TextEmbedding(model, precision="fp32")
    assert encoder.describe().pooling == "last_token"
    whole, cut, other = encoder.embed(["cat " * 15, "cat " * 40, "cat " * 14])
    np.testing.assert_array_equal(whole, cut)
    assert not np.array_equal(whole, other)
    (empty,) = encoder.embed([""])
    assert np.linalg.norm(empty) == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "pooling"), [("qwen3", "last_token"), ("qwen3-bidirectional", "mean")]
)
def test_a_causal_model_that_does_not_say_it_pools_its_last_token(
    name: str, pooling: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    model = written(tmp_path / "model", name)
    (model / "modules.json").unlink()
    assert TextEmbedding(model, precision="fp32").describe().pooling == pooling
    assert "does not say how to pool its tokens" in caplog.text


def test_dense_modules_and_prompts_of_embeddinggemma_are_applied(tmp_path: Path) -> None:
    prompts = {"query": "query : ", "document": "passage : "}
    model = written(tmp_path / "model", "gemma3_text", prompts=prompts, special="[CLS] $A [SEP]")
    (plain,) = TextEmbedding(model, precision="fp32", cache_dir=tmp_path).query_embed("cat")
    write_modules(model, ["Transformer", "Pooling", "Dense", "Dense", "Normalize"])
    random, found = np.random.default_rng(0), plain
    for folder, inputs, outputs in (("2_Dense", 24, 48), ("3_Dense", 48, 24)):
        weight = random.normal(size=(outputs, inputs)).astype(np.float32)
        config: dict[str, Any] = {"in_features": inputs, "out_features": outputs, "bias": False}
        config["activation_function"] = "torch.nn.modules.linear.Identity"
        (model / folder).mkdir()
        (model / folder / "config.json").write_text(json.dumps(config))
        save_file({"linear.weight": weight}, model / folder / "model.safetensors")
        found = weight @ found
    encoder = TextEmbedding(model, precision="fp32", cache_dir=tmp_path)
    (vector,) = encoder.query_embed("cat")
    np.testing.assert_allclose(vector, found / np.linalg.norm(found), atol=1e-5)
    (same,) = encoder.embed("query : cat")
    np.testing.assert_allclose(vector, same, atol=1e-6)


def test_heads_that_share_values_share_a_divisor() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(200, 24)).astype(np.float32) * np.arange(1, 25)
    weight = random.normal(size=(24, 8)).astype(np.float32)
    seen = Activations(rows.min(axis=0), rows.max(axis=0), rows.astype(np.float16))
    group = quantize_group("o", [(weight, np.zeros(8, np.float32))], seen, (2, 3, 4))
    assert group.smoothing is not None
    divisors = group.smoothing.reshape(2, 3, 4)
    assert (divisors == divisors[:, :1]).all()
    assert len(np.unique(divisors)) == 8


@pytest.mark.parametrize("kind", ["qkv", "o", "f1", "f2"])
@pytest.mark.parametrize("name", ["qwen3-bidirectional", "gemma3_text-causal"])
def test_what_int8_reads_is_divided_by_what_comes_before_it(
    name: str, kind: Kind, tmp_path: Path
) -> None:
    """Norms, values and the plain part of a gated block divide; nothing else may change."""
    fixture = load(name)
    for tensor, value in fixture.weights.items():  # so that divisors differ by much
        if tensor.endswith(("v_proj.weight", "up_proj.weight")):
            value[::5] *= 30
        if tensor.endswith("layernorm.weight"):
            value[::5] += 8
    whole = graph(fixture, "mean")
    random = np.random.default_rng(0)
    ids = [random.integers(4, 96, length).tolist() for length in range(5, 65)]
    tokens = CalibrationTokens(ids[::2], [], ids[1::2], ["english"] * len(ids[1::2]))
    calibration = Calibration(tokens, threads=1)
    groups = {}
    for number in range(whole.config.num_hidden_layers):
        part = whole.stage(number)
        part.save(tmp_path / "part.onnx", taps=True)
        reads = HIDDEN if number else None
        session = Session(tmp_path / "part.onnx")
        stage = Stage(session.feed, reads, part.output, part.group_inputs)
        for group, seen in calibration.step(stage).items():
            if group.kind == kind:
                groups[group] = quantize_group(
                    kind, whole.linears(group), seen, whole.sharing(kind)
                )
    exact = calibration.vectors()
    assert len(groups) == whole.config.num_hidden_layers
    divisors = [group.smoothing for group in groups.values() if group.smoothing is not None]
    assert divisors
    assert all(np.ptp(divisor) > 0.5 for divisor in divisors)
    graph(fixture, "mean", QuantizationPlan(groups)).save(tmp_path / "int8.onnx")
    found = encode(Session(tmp_path / "int8.onnx").feed, ids[1::2], 1)
    cosines = (found * exact).sum(axis=1)
    cosines /= np.linalg.norm(found, axis=1) * np.linalg.norm(exact, axis=1)
    assert cosines.mean() >= 0.995
    assert cosines.min() >= 0.9


def with_outliers(path: Path, channels: list[int], factor: float, sharpness: float) -> Path:
    """A causal model whose norms have a few large channels, and whose attention is sharp."""
    fixture = load("qwen3")
    for tensor, value in fixture.weights.items():
        if tensor.endswith("layernorm.weight"):
            value[channels] *= factor
        if tensor.endswith(("q_norm.weight", "k_norm.weight")):
            value[:] *= sharpness
    write_model(path, fixture.config, fixture.weights, pooling="last_token")
    return path


@pytest.mark.slow
def test_activations_that_float16_cannot_hold_are_quantised(tmp_path: Path) -> None:
    report = TextEmbedding(with_outliers(tmp_path / "model", [3], 1000, 1)).report
    assert isinstance(report, CompileReport)
    assert report.precision == "int8"
    assert report.fidelity is not None
    assert report.fidelity.mean >= 0.9998


@pytest.mark.slow
def test_outliers_that_harm_every_layer_fall_back_to_float32_loudly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = with_outliers(tmp_path / "model", [3, 17], 100, 3)
    encoder = TextEmbedding(model)
    assert (encoder.report.precision, encoder.report.fidelity) == ("fp32", None)
    assert "keeps its float32 weights" in caplog.text
    (found,), (exact,) = (e.embed("cat") for e in (encoder, TextEmbedding(model, precision="fp32")))
    np.testing.assert_array_equal(found, exact)
