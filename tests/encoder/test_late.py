"""Late interaction: the vectors of tokens are those of sentence-transformers, in every layout."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tiny import tiny_bert

from qdrant_embed import (
    InputError,
    LateInteractionTextEmbedding,
    ModelFileError,
    TextEmbedding,
    UnknownModelError,
)
from qdrant_embed.encoder.compile.mixed_precision import fidelity
from qdrant_embed.encoder.facts.spec import LateFacts, QueryExpansion, late_of_json

FIXTURES = Path(__file__).parents[1] / "fixtures" / "late"
NAMES = sorted(path.name for path in FIXTURES.iterdir())
# as in make_late.py
TEXTS = [
    "the cat sat on the mat.",
    "paris, the capital of france: a city!",
    "a",
    "...",
    "stock; market (fell) - the ship sailed in a storm, and the player won the match. " * 4,
    "zebra \u00e9tude",
]

_encoders: dict[str, LateInteractionTextEmbedding] = {}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield tmp_path_factory.mktemp("late")
    _encoders.clear()


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def encoder_of(name: str, cache: Path) -> LateInteractionTextEmbedding:
    if name not in _encoders:
        _encoders[name] = LateInteractionTextEmbedding(
            FIXTURES / name, precision="fp32", cache_dir=cache
        )
    return _encoders[name]


def expected(name: str, kind: str) -> list[NDArray[np.float32]]:
    with np.load(FIXTURES / name / "expected.npz") as file:
        return [file[f"{kind}/{number}"] for number in range(len(TEXTS))]


def assert_equal(found: list[Any], wanted: list[Any]) -> None:
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype == np.float32
        assert ours.shape == theirs.shape  # markers, masks, lengths and punctuation
        assert np.abs(ours - theirs).max() <= 1e-4


def copied(name: str, path: Path, changes: dict[str, dict[str, Any]]) -> Path:
    """A copy of a fixture with other values in some of its JSON files; ``None`` removes one."""
    shutil.copytree(FIXTURES / name, path)
    for file, values in changes.items():
        target = path / file
        content = json.loads(target.read_text()) if target.exists() else {}
        content = {key: value for key, value in (content | values).items() if value is not None}
        target.write_text(json.dumps(content))
    return path


def test_vectors_are_those_of_sentence_transformers(name: str, cache: Path) -> None:
    encoder = encoder_of(name, cache)
    assert_equal(list(encoder.query_embed(TEXTS)), expected(name, "query"))
    assert_equal(list(encoder.passage_embed(TEXTS)), expected(name, "document"))
    assert_equal(list(encoder.embed(iter(TEXTS), batch_size=2)), expected(name, "document"))
    # one text alone, which other code runs
    assert_equal([next(encoder.query_embed(t)) for t in TEXTS], expected(name, "query"))
    assert_equal([next(encoder.embed([t])) for t in TEXTS], expected(name, "document"))
    lengths = [np.linalg.norm(rows, axis=1) for rows in encoder.embed(TEXTS)]
    np.testing.assert_allclose(np.concatenate(lengths), 1, rtol=1e-5)
    assert encoder.dimension == next(encoder.embed("a")).shape[1]


@settings(max_examples=25)
@given(st.lists(st.integers(0, len(TEXTS) - 1), max_size=20), st.integers(1, 9))
def test_vectors_depend_on_neither_order_nor_batch(
    cache: Path, chosen: list[int], size: int
) -> None:
    encoder = encoder_of("stanford", cache)
    for embed, kind in ((encoder.query_embed, "query"), (encoder.embed, "document")):
        found = list(embed([TEXTS[number] for number in chosen], batch_size=size))
        assert_equal(found, [expected("stanford", kind)[number] for number in chosen])


def test_a_text_that_is_cut_is_said_once(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoder = LateInteractionTextEmbedding(FIXTURES / "stanford", precision="fp32", cache_dir=cache)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            list(encoder.embed(TEXTS))
            list(encoder.query_embed(TEXTS))
    cut = [record.message for record in caplog.records if "cut" in record.message]
    assert [message.split(" (")[0] for message in cut] == [
        "documents longer than 48 tokens are cut there",
        "queries longer than 16 tokens are cut there",
    ]


def test_documents_can_be_longer_or_shorter(cache: Path) -> None:
    folder = FIXTURES / "stanford"
    longer = LateInteractionTextEmbedding(folder, precision="fp32", max_tokens=60, cache_dir=cache)
    whole = encoder_of("stanford", cache)
    assert len(next(longer.embed(TEXTS[4]))) > len(next(whole.embed(TEXTS[4])))
    assert_equal([next(longer.query_embed(TEXTS[4]))], [next(whole.query_embed(TEXTS[4]))])
    assert (longer.describe().max_tokens, whole.describe().max_tokens) == (60, 48)
    with pytest.raises(InputError, match=r"queries .* have up to 16 tokens: pass at least 16"):
        LateInteractionTextEmbedding(folder, max_tokens=8, cache_dir=cache)
    with pytest.raises(InputError, match="positions for 66 tokens"):
        LateInteractionTextEmbedding(folder, max_tokens=67, cache_dir=cache)


@pytest.mark.parametrize("name", ["native", "pylate", "stanford"])
def test_an_export_needs_nothing_else(name: str, cache: Path, tmp_path: Path) -> None:
    encoder = encoder_of(name, cache)
    encoder.export(tmp_path / "out")
    again = LateInteractionTextEmbedding(tmp_path / "out", cache_dir=tmp_path / "cache")
    assert_equal(list(again.query_embed(TEXTS)), expected(name, "query"))
    assert_equal(list(again.embed(TEXTS)), expected(name, "document"))
    assert again.describe().weights_sha256 == encoder.describe().weights_sha256
    assert again.describe().tokenizer_sha256 == encoder.describe().tokenizer_sha256
    manifest = json.loads((tmp_path / "out" / "qdrant-embed.json").read_text())
    assert manifest["spec"]["late"]["query_marker"] is not None
    with pytest.raises(ModelFileError, match="exported late-interaction model, not a dense"):
        TextEmbedding(tmp_path / "out", cache_dir=tmp_path / "cache")


def test_what_earlier_releases_export_and_read_has_no_word_of_it(tmp_path: Path) -> None:
    dense = TextEmbedding(tiny_bert(tmp_path / "dense").path, precision="fp32")
    dense.export(tmp_path / "out")
    assert "late" not in (tmp_path / "out" / "qdrant-embed.json").read_text()


def test_copies_share_the_model_and_pickles_load_it_again(cache: Path) -> None:
    encoder = encoder_of("pylate", cache)
    assert copy.deepcopy(encoder) is encoder
    again = pickle.loads(pickle.dumps(encoder))
    assert_equal(list(again.query_embed(TEXTS)), expected("pylate", "query"))
    assert again.describe() == encoder.describe()


def test_the_digest_of_settings_depends_on_each_of_them(cache: Path, tmp_path: Path) -> None:
    config = "config_sentence_transformers.json"
    changes: list[dict[str, Any]] = [
        {},
        {"skiplist_words": ["a"]},
        {"query_prefix": "[D] "},
        {"document_prefix": "[Q] "},
        {"query_length": 12},
        {"attend_to_expansion_tokens": True},
        {"do_query_expansion": False},
    ]
    digests = [
        LateInteractionTextEmbedding(
            copied("pylate", tmp_path / str(number), {config: change}),
            precision="fp32",
            cache_dir=cache,
            lazy_load=True,
        )
        .describe()
        .tokenizer_sha256
        for number, change in enumerate(changes)
    ]
    assert digests[0] == encoder_of("pylate", cache).describe().tokenizer_sha256
    assert len(set(digests)) == len(changes)


def test_without_settings_those_of_the_programs_count(cache: Path, tmp_path: Path) -> None:
    stanford = copied("stanford", tmp_path / "stanford", {})
    (stanford / "artifact.metadata").unlink()
    encoder = LateInteractionTextEmbedding(stanford, precision="fp32", cache_dir=cache)
    assert len(next(encoder.query_embed("a"))) == 32
    assert len(next(encoder.embed(TEXTS[0]))) == len(expected("stanford", "document")[0])
    config = "config_sentence_transformers.json"
    names = json.loads((FIXTURES / "pylate" / config).read_text())
    bare = dict.fromkeys(names) | {"model_type": "ColBERT"}
    folder = copied("pylate", tmp_path / "pylate", {config: bare})
    encoder = LateInteractionTextEmbedding(folder, precision="fp32", cache_dir=cache)
    assert len(next(encoder.query_embed("a"))) == 32
    assert encoder.describe().max_tokens == 66  # 180, as far as there are positions
    assert_equal(list(encoder.embed(TEXTS[:4])), expected("pylate", "document")[:4])


def test_a_marker_that_is_no_token_is_read_as_text(cache: Path, tmp_path: Path) -> None:
    config = "config_sentence_transformers.json"
    folder = copied("pylate", tmp_path / "other", {config: {"document_prefix": "mat cat "}})
    encoder = LateInteractionTextEmbedding(folder, precision="fp32", cache_dir=cache)
    assert len(next(encoder.embed("dog"))) == 5


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("stanford", {"artifact.metadata": {"query_maxlen": 70}}, "70 tokens, .* positions for 66"),
        ("stanford", {"artifact.metadata": {"query_maxlen": -1}}, "query_maxlen"),
        (
            "native",
            {"2_MultiVectorMask/config.json": {"skiplist_tasks": ["query"]}},
            "queries alone",
        ),
        ("native", {"2_MultiVectorMask/config.json": {"keep_only_token_ids": [1]}}, "keep_only"),
        (
            "native",
            {"1_Dense/config.json": {"module_output_name": "sentence_embedding"}},
            "only modules that change token_embeddings can be run after the transformer",
        ),
        (
            "native",
            {"sentence_bert_config.json": {"query_expansion": {"strategy": "other", "length": 3}}},
            "strategy",
        ),
        ("pylate", {"tokenizer_config.json": {"mask_token": "[NONE]"}}, "filled up with '.NONE.'"),
    ],
)
def test_what_cannot_be_run_is_refused(
    name: str, changes: dict[str, Any], message: str, tmp_path: Path, cache: Path
) -> None:
    folder = copied(name, tmp_path / "model", changes)
    with pytest.raises(ModelFileError, match=message):
        LateInteractionTextEmbedding(folder, precision="fp32", cache_dir=cache)


def test_other_models_are_refused(tmp_path: Path, cache: Path) -> None:
    dense = tiny_bert(tmp_path / "dense").path
    with pytest.raises(ModelFileError, match="is not a late-interaction model"):
        LateInteractionTextEmbedding(dense, cache_dir=cache)
    for name in ("native", "pylate", "stanford"):
        with pytest.raises(ModelFileError, match="LateInteractionTextEmbedding runs it"):
            TextEmbedding(FIXTURES / name, cache_dir=cache)
    folder = copied("stanford", tmp_path / "bare", {})
    weights = load_file(folder / "model.safetensors")
    del weights["linear.weight"]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ModelFileError, match=r"no projection 'linear.weight'"):
        LateInteractionTextEmbedding(folder, cache_dir=cache)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("BAAI/bge-small-en-v1.5", "is a dense model.*set_model"),
        ("Qdrant/bm25", "is a sparse model.*set_sparse_model"),
        ("cross-encoder/ms-marco-MiniLM-L6-v2", r"is a cross-encoder: .*set_reranker\(\)"),
        ("colbertv3.0", r"did you mean 'colbert-ir/colbertv2.0'\? Late.*\(\) lists the known"),
        ("", "no late-interaction model named ''"),
    ],
)
def test_names_of_other_models_are_refused(name: str, message: str) -> None:
    with pytest.raises(UnknownModelError, match=message) as caught:
        LateInteractionTextEmbedding(name)
    assert caught.value.close_matches[:1] == (["colbert-ir/colbertv2.0"] if "v3" in name else [])
    with pytest.raises(UnknownModelError, match=r"late-interaction model.*set_late_model"):
        TextEmbedding("ColBERTv2.0")


def test_known_models_need_no_files_to_be_named() -> None:
    known = LateInteractionTextEmbedding.list_supported_models()
    assert {"model", "dim", "max_tokens", "license", "parameters"} == known[0].keys()
    encoder = LateInteractionTextEmbedding("COLBERTV2.0", lazy_load=True, local_files_only=True)
    assert encoder.model_name == "colbert-ir/colbertv2.0"


def test_facts_are_read_back_from_json() -> None:
    for facts in (
        LateFacts(),
        LateFacts(query_marker="[Q] ", skipped=(".", ","), expansion=QueryExpansion(length=7)),
    ):
        content = json.loads(json.dumps(facts, default=vars))
        assert late_of_json(content) == facts


def test_neighbours_are_those_by_late_interaction() -> None:
    random = np.random.default_rng(0)
    exact = np.zeros((12, 5, 8), np.float32)
    for number, rows in enumerate(exact):  # zeros fill up
        made = random.normal(size=(1 + number % 5, 8))
        rows[: len(made)] = made / np.linalg.norm(made, axis=1, keepdims=True)
    groups = ["a", "b"] * 6
    same = fidelity(exact, exact, groups)
    assert (round(same.mean, 6), round(same.least, 6), same.overlap, same.texts) == (1, 1, 1, 12)
    turned = exact.copy()
    turned[3, 0] *= -1
    other = fidelity(turned, exact, groups)
    assert other.least == pytest.approx(0.5)  # one of four tokens is turned round
    assert other.mean < 1


@pytest.mark.slow
def test_int8_is_as_near_as_the_gate_demands(cache: Path) -> None:
    encoder = LateInteractionTextEmbedding(FIXTURES / "stanford", cache_dir=cache)
    report = encoder.report
    assert report.precision == "int8"
    assert report.fidelity is not None
    assert report.fidelity.texts > 50
    assert report.fidelity.mean > 0.999
    for kind, embed in (("query", encoder.query_embed), ("document", encoder.embed)):
        for ours, theirs in zip(embed(TEXTS), expected("stanford", kind), strict=True):
            assert (ours * theirs).sum(axis=1).min() > 0.99
