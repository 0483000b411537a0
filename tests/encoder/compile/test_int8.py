"""Models in int8: as near to float32 as promised, or float32 and a warning."""

from __future__ import annotations

import inspect
import json
import logging
import unicodedata
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from pydantic import TypeAdapter
from safetensors.numpy import load_file, save_file
from tiny import TinyModel, tiny_bert

from qdrant_embed import CompileReport, InputError, TextEmbedding
from qdrant_embed.encoder.compile import mixed_precision
from qdrant_embed.encoder.compile.calibration import calibration_passages
from qdrant_embed.encoder.compile.mixed_precision import fidelity
from qdrant_embed.encoder.facts import precision


def docstrings(*modules: ModuleType) -> list[str]:
    """Texts of many lengths that were not calibrated with."""
    found = {
        text
        for module in modules
        for _, member in inspect.getmembers(module, callable)
        if (text := inspect.getdoc(member)) and len(text) > 20
    }
    return sorted(found)


def cosines(a: TextEmbedding, b: TextEmbedding, texts: Sequence[str]) -> np.ndarray:
    first, second = np.array(list(a.embed(texts))), np.array(list(b.embed(texts)))
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    result: np.ndarray = (first * second).sum(axis=1) / lengths
    return result


@pytest.mark.slow
def test_minilm_keeps_its_vectors(minilm: TextEmbedding, minilm_fp32: TextEmbedding) -> None:
    whole = docstrings(inspect, json, logging, unicodedata, np)[:300]
    texts = [text[: 2 ** (5 + number % 6)] for number, text in enumerate(whole)]
    found = cosines(minilm, minilm_fp32, texts)
    assert len(texts) == 300
    assert found.mean() >= 0.998
    assert found.min() >= 0.99


def test_the_report_tells_how_near_and_lies_beside_the_model(
    minilm: TextEmbedding, minilm_fp32: TextEmbedding, cache: Path
) -> None:
    report = minilm.report
    assert isinstance(report, CompileReport)
    assert (report.precision, report.float32_groups) == ("int8", ())
    assert report.fidelity is not None
    assert report.fidelity.mean >= 0.9975
    assert report.fidelity.texts > 50
    assert report.fidelity.overlap is not None
    assert report.fidelity.overlap >= 0.93
    assert set(report.fidelity.overlaps) == {"asian", "code", "english", "european", "long"}
    assert min(report.fidelity.overlaps.values()) >= 0.9
    assert report.weights_bytes < 24_000_000
    assert minilm_fp32.report.precision == "fp32"
    assert minilm_fp32.report.fidelity is None
    kept = [
        TypeAdapter(CompileReport).validate_json(path.read_bytes())
        for path in cache.glob("compiled/all-minilm*/compiled.json")
    ]
    assert report in kept


def test_a_model_is_compiled_once_for_each_precision(
    tiny: TinyModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(2):
        TextEmbedding(tiny.path, cache_dir=tmp_path, precision="int8")
        TextEmbedding(tiny.path, cache_dir=tmp_path, precision="fp32")
    assert sum("compiled" in record.message for record in caplog.records) == 2
    with pytest.raises(InputError, match="precision"):
        TextEmbedding(tiny.path, precision="int4")  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_every_pooling_is_near_in_int8(tmp_path: Path, pooling: str) -> None:
    model = tiny_bert(tmp_path / "model", pooling=pooling, normalize=False, layers=3)
    encoder = TextEmbedding(model.path)
    assert encoder.report.precision == "int8"
    exact = TextEmbedding(model.path, precision="fp32")
    found = cosines(encoder, exact, ["cat", "the ship sailed", *docstrings(json)])
    assert found.mean() >= 0.997


def with_outliers(model: TinyModel, factor: float) -> TinyModel:
    """The model with a few channels of every layer norm made `factor` times as large."""
    weights = load_file(model.path / "model.safetensors")
    for name in weights:
        if name.endswith("LayerNorm.weight"):
            weights[name][[3, 17]] *= factor
    save_file(weights, model.path / "model.safetensors")
    return model


# mean error 0.0001, least cosine 0.9987, overlap 0.92: well within the limits
@pytest.mark.slow
def test_outliers_that_smoothing_copes_with_pass_the_gate(tmp_path: Path) -> None:
    model = with_outliers(tiny_bert(tmp_path / "model"), 4)
    encoder = TextEmbedding(model.path)
    assert encoder.report.precision == "int8"
    assert encoder.report.fidelity is not None
    assert 1 - encoder.report.fidelity.mean <= precision.LARGEST_ERROR
    assert encoder.report.fidelity.least >= precision.LEAST_COSINE
    exact = TextEmbedding(model.path, precision="fp32")
    assert cosines(encoder, exact, docstrings(json, inspect)).mean() >= 0.99


# all vectors lie close together: mean error 0.0014 and least cosine 0.991, yet overlap 0.18
@pytest.mark.slow
def test_cosines_that_hide_that_neighbours_change_do_not_pass_the_gate(tmp_path: Path) -> None:
    model = with_outliers(tiny_bert(tmp_path / "model", layers=8), 16)
    assert TextEmbedding(model.path).report.precision == "fp32"


def test_fidelity_counts_neighbours_by_group() -> None:
    random = np.random.default_rng(0)
    exact = random.normal(size=(30, 8)).astype(np.float32)
    groups = ["code"] * 10 + ["long"] * 20
    same = fidelity(exact, exact, groups)
    assert (same.overlap, same.overlaps) == (1.0, {"code": 1.0, "long": 1.0})
    assert same.mean == pytest.approx(1)
    changed = exact.copy()
    changed[:10] = random.normal(size=(10, 8))
    other = fidelity(changed, exact, groups)
    assert other.overlaps["code"] < other.overlaps["long"] < 1
    assert other.overlap == pytest.approx(
        (10 * other.overlaps["code"] + 20 * other.overlaps["long"]) / 30, abs=1e-3
    )
    few = fidelity(exact[:3], exact[:3], groups[:3])
    assert (few.texts, few.overlap) == (3, 1.0)


# whichever half of the groups is float32: mean error 0.0057 or more, least cosine at most 0.943
@pytest.mark.slow
def test_outliers_that_harm_every_layer_fall_back_to_float32_loudly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = with_outliers(tiny_bert(tmp_path / "model", layers=8), 8)
    encoder = TextEmbedding(model.path)
    assert encoder.report.precision == "fp32"
    assert encoder.report.fidelity is None
    assert "keeps its float32 weights" in caplog.text
    exact = TextEmbedding(model.path, precision="fp32")
    assert cosines(encoder, exact, docstrings(json, inspect)).min() >= 0.99999


# with half of the error, the graph that is tried last is not the one that is found
@pytest.mark.slow
@pytest.mark.parametrize("share", [0.7, 0.5])
def test_the_most_harmful_layers_go_back_to_float32_one_by_one(
    share: float, tiny: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = TextEmbedding(tiny.path, cache_dir=tmp_path / "whole").report
    assert whole.fidelity is not None
    most = share * (1 - whole.fidelity.mean)
    monkeypatch.setattr(mixed_precision, "LARGEST_ERROR", most)
    partly = TextEmbedding(tiny.path, cache_dir=tmp_path / "partly").report
    assert isinstance(partly, CompileReport)
    assert partly.precision == "int8"
    assert partly.fidelity is not None
    assert 1 - partly.fidelity.mean <= most
    assert 1 <= len(partly.float32_groups) <= 4
    (path,) = (tmp_path / "partly").rglob("model.onnx")
    nodes = onnx.load(path, load_external_data=False).graph.node
    rounded = sum(node.op_type == "QuantizeLinear" for node in nodes)
    assert rounded == 8 - len(partly.float32_groups)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limit", "value"),
    [
        ("LARGEST_ERROR", -1.0),
        ("LEAST_COSINE", 1.1),
        ("LEAST_OVERLAP", 1.1),
        ("LEAST_GROUP_OVERLAP", 1.1),
    ],
)
def test_a_model_that_cannot_be_int8_is_float32_and_it_is_said(
    limit: str,
    value: float,
    tiny: TinyModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(mixed_precision, limit, value)
    encoder = TextEmbedding(tiny.path, cache_dir=tmp_path)
    assert encoder.report.precision == "fp32"
    said = [record for record in caplog.records if "keeps its float32" in record.message]
    assert [record.levelno for record in said] == [logging.WARNING]
    found = cosines(encoder, TextEmbedding(tiny.path, precision="fp32"), ["cat", "ship"])
    assert found.min() >= 0.999999


def test_calibration_passages_are_many_kinds_in_many_languages() -> None:
    content = files("qdrant_embed.encoder.compile").joinpath("calibration.jsonl").read_text("utf-8")
    passages = [json.loads(line) for line in content.splitlines()]
    assert len({passage["language"] for passage in passages}) >= 12
    assert len({passage["kind"] for passage in passages}) >= 12
    texts = [passage.text for passage in calibration_passages()]
    letters = {letter for text in texts for letter in text if letter.isalpha()}
    scripts = {unicodedata.name(letter).split()[0] for letter in letters}
    wanted = {"LATIN", "CYRILLIC", "CJK", "HANGUL", "ARABIC", "DEVANAGARI", "HEBREW", "THAI"}
    assert wanted <= scripts
    assert len(set(texts)) == len(passages)
