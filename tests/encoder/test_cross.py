"""Cross-encoders against transformers' own scores; see `fixtures/make_rerankers.py`."""

from __future__ import annotations

import copy
import itertools
import json
import logging
import math
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rerankers import NAMES, Reference, unpacked
from safetensors.numpy import load_file, save_file
from tiny import TinyModel, write_modules

from qdrant_embed import (
    InputError,
    ModelFileError,
    Reranker,
    TextCrossEncoder,
    TextEmbedding,
    UnknownModelError,
)
from qdrant_embed.encoder.compile.pairs import PairGate, calibration_pairs, kendall_tau
from qdrant_embed.encoder.facts.architectures import ARCHITECTURES
from qdrant_embed.encoder.facts.precision import LEAST_TAU, RankingFidelity


@pytest.fixture(scope="session")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reference]:
    folder = tmp_path_factory.mktemp("rerankers")
    return {name: unpacked(name, folder / name) for name in NAMES}


def raw(folder: Path, **options: Any) -> TextCrossEncoder:
    """Load a model that is exact, without an activation."""
    return TextCrossEncoder(folder, **{"precision": "fp32", "activation": None, **options})


@pytest.fixture(scope="session")
def bert(references: dict[str, Reference]) -> TextCrossEncoder:
    return raw(references["bert"].folder)


def test_there_is_a_fixture_for_every_architecture() -> None:
    able = {name for name, kind in ARCHITECTURES.items() if "score" in kind.tasks}
    assert able <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_those_of_transformers(name: str, references: dict[str, Reference]) -> None:
    reference = references[name]
    encoder = raw(reference.folder)
    assert encoder.report.precision == "fp32"
    for parallel in (1, 2):
        found = list(encoder.rerank_pairs(reference.pairs, parallel=parallel))
        np.testing.assert_allclose(found, reference.scores, atol=1e-4)
    singly = [score for pair in reference.pairs for score in encoder.rerank_pairs([pair])]
    np.testing.assert_allclose(singly, reference.scores, atol=1e-4)


def test_the_text_of_each_token_counts(references: dict[str, Reference]) -> None:
    """A model that took all tokens for those of the query would give other scores."""
    reference = references["bert"]
    encoder = raw(reference.folder)
    loaded = encoder._model.load()
    tokens = loaded.tokenizer.tokenize_pairs(reference.pairs).pairs
    assert all(0 < pair.first < len(pair) for pair in tokens)
    assert raw(references["roberta"].folder)._model.load().scoring is not None
    (one,) = encoder.rerank("the cat", ["sat on the mat"])
    (other,) = encoder.rerank("the cat sat", ["on the mat"])
    assert abs(one - other) > 1e-3


@settings(max_examples=15, deadline=None)
@given(
    query=st.text(max_size=40),
    documents=st.lists(st.text(max_size=40), max_size=8),
    batch_size=st.integers(1, 9),
    parallel=st.integers(0, 3) | st.none(),
)
def test_a_score_depends_on_its_pair_alone(
    bert: TextCrossEncoder,
    query: str,
    documents: list[str],
    batch_size: int,
    parallel: int | None,
) -> None:
    both = [*documents, *documents[::-1]]
    together = list(bert.rerank(query, iter(both), batch_size, parallel))
    pairs = list(bert.rerank_pairs([(query, document) for document in both]))
    assert len(together) == len(pairs) == len(both)
    np.testing.assert_allclose(together, together[::-1], atol=1e-5)
    np.testing.assert_allclose(together, pairs, atol=1e-5)
    for document, score in zip(documents, together, strict=False):
        (alone,) = bert.rerank(query, [document], parallel=1)
        assert score == pytest.approx(alone, abs=1e-5)


def test_documents_are_ranked(bert: TextCrossEncoder, references: dict[str, Reference]) -> None:
    documents = ["the cat", "a ship", "the cat", "stock market"]
    scores = list(bert.rerank("the cat sat", documents))
    ranked = bert.rank("the cat sat", iter(documents))
    assert sorted(scores, reverse=True) == pytest.approx([found.score for found in ranked])
    assert [found.document for found in ranked] == [documents[found.index] for found in ranked]
    places = [found.index for found in ranked]
    assert places.index(0) == places.index(2) - 1  # equal scores, in the given order
    assert bert.rank("the cat sat", documents, top_k=2) == ranked[:2]
    assert bert.rank("the cat sat", []) == []
    assert list(bert.rerank("the cat sat", [])) == []
    assert isinstance(bert, Reranker)


@pytest.mark.parametrize(
    ("name", "has_sigmoid"), [("bert", False), ("ettin", False), ("roberta", True)]
)
def test_the_activation_is_the_models_unless_another_is_asked_for(
    name: str, has_sigmoid: bool, references: dict[str, Reference]
) -> None:
    folder, pairs = references[name].folder, references[name].pairs[:3]
    scores = np.array(references[name].scores[:3])
    between = 1 / (1 + np.exp(-scores))
    for activation, expected in (
        ("model", between if has_sigmoid else scores),
        ("sigmoid", between),
        (None, scores),
    ):
        encoder = raw(folder, activation=activation)
        np.testing.assert_allclose(list(encoder.rerank_pairs(pairs)), expected, atol=1e-4)


def change(file: str, **changes: Any) -> Callable[[Path], None]:
    """Change a JSON file of a model; ``None`` removes a key."""

    def changed(folder: Path) -> None:
        content = json.loads((folder / file).read_text())
        content = {k: v for k, v in {**content, **changes}.items() if v is not None}
        (folder / file).write_text(json.dumps(content))

    return changed


def tensors(**changes: Any) -> Callable[[Path], None]:
    """Change the model's tensors; ``None`` removes one."""

    def changed(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors") | changes
        kept = {name: value for name, value in weights.items() if value is not None}
        save_file(kept, folder / "model.safetensors")

    return changed


def compared(first: int, second: int) -> Callable[[Path], None]:
    """Chain the module by which sentence-transformers compares two tokens' logits."""

    def changed(folder: Path) -> None:
        write_modules(folder, ["Transformer", "LogitScore"])
        (folder / "1_LogitScore").mkdir()
        content = {"true_token_id": first, "false_token_id": second}
        (folder / "1_LogitScore/config.json").write_text(json.dumps(content))

    return changed


def test_the_compared_tokens_are_those_that_the_models_files_name(tmp_path: Path) -> None:
    reference = unpacked("qwen3", tmp_path / "model")
    vocabulary = json.loads((reference.folder / "tokenizer.json").read_text())["model"]["vocab"]
    compared(vocabulary["no"], vocabulary["yes"])(reference.folder)
    found = list(raw(reference.folder).rerank_pairs(reference.pairs))
    np.testing.assert_allclose(found, -np.array(reference.scores), atol=1e-4)
    with pytest.raises(ModelFileError, match="is that of a cross-encoder: TextCrossEncoder runs"):
        TextEmbedding(reference.folder)


def test_activations_are_read_wherever_they_are_stated(tmp_path: Path) -> None:
    key = "sbert_ce_default_activation_function"
    identity = {"activation_fn": "torch.nn.modules.linear.Identity", "version": "4.1.0"}
    sigmoid = {"activation_fn": "torch.nn.modules.activation.Sigmoid"}
    cases: list[tuple[str, dict[str, Any]]] = [
        ("config.json", {key: None}),
        ("config.json", {key: None, "sentence_transformers": identity}),
        ("config_sentence_transformers.json", sigmoid),
    ]
    for number, (file, stated) in enumerate(cases):
        folder = unpacked("bert", tmp_path / str(number)).folder
        if not (folder / file).exists():
            (folder / file).write_text("{}")
        change(file, **stated)(folder)
        scoring = TextCrossEncoder(folder, precision="fp32")._model.load().scoring
        assert scoring is not None
        assert scoring.activation == (None if number == 1 else "sigmoid")


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("roberta", change("config.json", id2label={"0": "no", "1": "yes"}), "states 2 labels"),
        ("roberta", change("config.json", id2label=None), "states 2 labels"),
        (
            "bert",
            change("config.json", sbert_ce_default_activation_function="torch.nn.Tanh"),
            r"activation 'torch\.nn\.Tanh', which cannot be run",
        ),
        ("bert", tensors(**{"classifier.weight": None}), "no tensor 'classifier.weight'"),
        (
            "bert",
            tensors(**{"classifier.bias": np.zeros(2, np.float32)}),
            r"'classifier.bias' of the head should have shape \(1,\), but has \(2,\)",
        ),
        ("modernbert", change("config.json", classifier_pooling="max"), "classifier_pooling"),
        (
            "ettin",
            change("4_Dense/config.json", module_output_name="sentence_embedding"),
            "is that of a dense model: TextEmbedding runs it",
        ),
        ("ettin", change("4_Dense/config.json", out_features=2), "has several scores"),
        ("ettin", change("2_Dense/config.json", module_output_name="scores"), "writes 'scores'"),
        ("roberta", compared(1, 2), "'roberta', which cannot be run as a cross-encoder"),
        ("qwen3", compared(1, 10**6), "has no rows of 24 numbers for tokens 1 and 1000000"),
        ("qwen3", compared(1, -1), "false_token_id: Input should be greater than or equal to 0"),
        (
            "qwen3",
            change("config.json", architectures=["Qwen3Model"]),
            "Qwen3ForCausalLM can be run as a cross-encoder",
        ),
        (
            "qwen3",
            change("tokenizer.json", model={"vocab": {"yes": 1}}),
            "no tokens 'yes' and 'no'",
        ),
    ],
)
def test_what_is_no_cross_encoder_is_refused_by_name(
    name: str, damage: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    folder = unpacked(name, tmp_path / "model").folder
    damage(folder)
    with pytest.raises(ModelFileError, match=message):
        raw(folder)


def test_a_model_is_refused_where_it_cannot_be_run(
    tiny: TinyModel, references: dict[str, Reference], tmp_path: Path
) -> None:
    with pytest.raises(ModelFileError, match="is that of a dense model: TextEmbedding runs it"):
        TextCrossEncoder(tiny.path)
    with pytest.raises(ModelFileError, match="is that of a cross-encoder: TextCrossEncoder runs"):
        TextEmbedding(references["ettin"].folder)
    folder = unpacked("bert", tmp_path / "model").folder
    change("config.json", model_type="jina_bert", position_embedding_type="alibi")(folder)
    with pytest.raises(ModelFileError, match=r"cannot be run as a cross-encoder: .*'modernbert'"):
        TextCrossEncoder(folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("BAAI/bge-small-en-v1.5", r"is a dense model: TextEmbedding.*set_model\(\)"),
        ("Qdrant/bm25", r"is a sparse model: .*set_sparse_model\(\) sets it"),
        ("colbert-ir/colbertv2.0", r"a late-interaction model: .*set_late_model\(\) sets it"),
        ("ms-marco-MiniLM-L7-v2", "did you mean 'cross-encoder/ms-marco-MiniLM-L"),
        ("nothing", "no cross-encoder named 'nothing': TextCrossEncoder.list"),
        ("", "no cross-encoder named ''"),
    ],
)
def test_names_of_other_models_are_refused(name: str, message: str) -> None:
    with pytest.raises(UnknownModelError, match=message):
        TextCrossEncoder(name)


def test_known_names_need_no_files() -> None:
    for name, whole in (
        ("MS-MARCO-minilm-l6-v2", "cross-encoder/ms-marco-MiniLM-L6-v2"),
        ("Xenova/ms-marco-MiniLM-L-6-v2", "cross-encoder/ms-marco-MiniLM-L6-v2"),
        ("BAAI/bge-reranker-base", "BAAI/bge-reranker-base"),
    ):
        assert TextCrossEncoder(name, lazy_load=True).model_name == whole
    with pytest.raises(UnknownModelError, match=r"a cross-encoder.*set_reranker\(\) sets it"):
        TextEmbedding("cross-encoder/ms-marco-MiniLM-L6-v2")
    listed = TextCrossEncoder.list_supported_models()
    assert {"model": "BAAI/bge-reranker-v2-m3", "max_tokens": 8192}.items() <= listed[11].items()
    assert len({known["model"] for known in listed}) == len(listed)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "softmax"}, "activation must be 'model', 'sigmoid' or None"),
        ({"threads": 0}, "threads must be a whole number of at least 1"),
        ({"max_tokens": 2}, "max_tokens must be a whole number of at least 3"),
        ({"precision": "int4"}, "precision must be"),
    ],
)
def test_options_that_cannot_be_met_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TextCrossEncoder(lazy_load=True, **options)


def test_what_is_no_pair_of_texts_is_refused(bert: TextCrossEncoder) -> None:
    wrong: Any
    for wrong in (["ab"], [("a", "b", "c")], [("a", 1)], [("a", None)], [("a", "\ud800")]):
        with pytest.raises(InputError, match="pair number 0"):
            list(bert.rerank_pairs(wrong))
    for wrong in (None, 3):
        with pytest.raises(InputError, match="pairs must be a list"):
            bert.rerank_pairs(wrong)
        with pytest.raises(InputError):
            bert.rerank("query", wrong)
        with pytest.raises(InputError):
            bert.rank("query", wrong)
    with pytest.raises(InputError, match="text number 1 is int, not str"):
        list(bert.rerank("query", ["a", 1]))  # type: ignore[list-item]
    for query in (None, b"a", "\ud800"):
        with pytest.raises(InputError, match="query"):
            bert.rerank(query, ["a"])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="documents must be a list of str, not a str"):
        bert.rerank("query", "document")
    with pytest.raises(InputError, match="top_k must be"):
        bert.rank("query", ["a"], top_k=0)
    with pytest.raises(InputError, match="batch_size must be"):
        bert.rerank("query", ["a"], batch_size=0)


def test_a_generator_is_read_once_and_not_far_ahead(bert: TextCrossEncoder) -> None:
    read = itertools.count()

    def endless() -> Iterator[str]:
        while True:
            yield f"text {next(read)}"

    scores = bert.rerank("text", endless(), batch_size=4)
    assert len(list(itertools.islice(scores, 6))) == 6
    assert next(read) <= 6 + 2 * 4
    scores.close()  # type: ignore[attr-defined]


def test_many_threads_share_one_encoder(bert: TextCrossEncoder) -> None:
    documents = ["the cat", "a ship at sea", "the market fell"]
    alone = list(bert.rerank("the cat sat", documents))

    def close(number: int) -> bool:
        (score,) = bert.rerank("the cat sat", [documents[number % 3]])
        return math.isclose(score, alone[number % 3], abs_tol=1e-5)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(close, range(24)))


def test_copies_score_alike(bert: TextCrossEncoder) -> None:
    expected = list(bert.rerank("the cat", ["sat", "on the mat"]))
    for other in (pickle.loads(pickle.dumps(bert)), copy.deepcopy(bert), copy.copy(bert)):
        assert list(other.rerank("the cat", ["sat", "on the mat"])) == expected


def test_what_is_cut_is_told_once(
    references: dict[str, Reference], caplog: pytest.LogCaptureFixture
) -> None:
    encoder = raw(references["bert"].folder, max_tokens=9)
    with caplog.at_level(logging.WARNING):
        (cut, same) = encoder.rerank("the cat", ["sat on the mat in the sea", "sat on the mat"])
        list(encoder.rerank("the cat", ["sat on the mat in the sea"]))
    assert cut == pytest.approx(same, abs=1e-5)
    assert len([r for r in caplog.records if "longer than 9 tokens" in r.message]) == 1


@pytest.mark.parametrize("name", ["bert", "ettin", "qwen3"])
def test_an_exported_model_scores_alike(
    name: str, references: dict[str, Reference], tmp_path: Path
) -> None:
    reference = references[name]
    raw(reference.folder).export(tmp_path / "out")
    content = json.loads((tmp_path / "out/qdrant-embed.json").read_text())
    assert content["spec"]["task"] == "score"
    for _ in range(2):  # the second is from the cached plan
        encoder = TextCrossEncoder(tmp_path / "out", activation=None)
        found = list(encoder.rerank_pairs(reference.pairs))
        np.testing.assert_allclose(found, reference.scores, atol=1e-4)
    with pytest.raises(ModelFileError, match="exported cross-encoder, not a dense model"):
        TextEmbedding(tmp_path / "out")
    with pytest.raises(InputError, match="already exists"):
        encoder.export(tmp_path / "out")


# how an int8 model is checked


def test_kendalls_tau() -> None:
    ranks = np.arange(20, dtype=np.float32)
    assert kendall_tau(ranks, ranks * 3 + 1) == 1
    assert kendall_tau(ranks, -ranks) == -1
    swapped = ranks.copy()
    swapped[[3, 4]] = swapped[[4, 3]]
    assert kendall_tau(swapped, ranks) == pytest.approx(1 - 2 * 2 / (20 * 19))
    ties = np.minimum(ranks, 10)  # of 190 pairs, 45 are tied
    assert kendall_tau(ties, ranks) == pytest.approx(145 / math.sqrt(145 * 190))
    constant = np.zeros(20, np.float32)
    assert (kendall_tau(constant, ranks), kendall_tau(constant, constant)) == (0, 1)


def test_pairs_to_calibrate_with_are_others_than_those_to_check_with(
    references: dict[str, Reference],
) -> None:
    model = raw(references["bert"].folder)._model.load()
    assert model.scoring is not None
    gate = PairGate(model.tokenizer, model.spec, model.scoring)
    tokens = gate.tokens
    assert len(tokens.held_out) == 24 * 8
    seen, checked = calibration_pairs()
    assert (len(tokens.texts), len(tokens.held_out)) == (len(seen), len(checked))
    assert not {text for pair in seen for text in pair} & {
        text for pair in checked for text in pair
    }
    assert tokens.firsts is not None
    for sequences, firsts in zip(
        (tokens.texts, tokens.random, tokens.held_out), tokens.firsts, strict=True
    ):
        for ids, first in zip(sequences, firsts, strict=True):
            # [CLS] query [SEP] document [SEP]
            assert (ids[0], ids[first - 1]) == (2, 3)
            assert ids[-1] == 3 or first == len(ids)
    assert [len(ids) for ids in tokens.random] == [len(ids) for ids in tokens.texts[:100]]
    assert all(one != other for one, other in zip(tokens.random[:9], tokens.texts, strict=False))
    scores = np.linspace(-1, 1, len(tokens.held_out), dtype=np.float32)[:, None]
    assert gate.measure(scores, scores) == RankingFidelity(1.0, 1.0, 192)
    changed = scores.copy()
    changed[[6, 7]] = changed[[7, 6]]  # another best document of the first query
    found = gate.measure(changed, scores)
    assert LEAST_TAU < found.tau < 1
    assert found.same_best == round(23 / 24, 4)
    assert not gate.is_enough(found)
    assert gate.is_enough(RankingFidelity(LEAST_TAU, 1.0, 192))
    assert not gate.is_enough(RankingFidelity(LEAST_TAU - 0.001, 1.0, 192))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bert", "ettin", "qwen3"])
def test_a_model_is_int8_if_it_ranks_alike(
    name: str,
    references: dict[str, Reference],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # random weights spread scores too little for the true limit
    monkeypatch.setattr(PairGate, "is_enough", lambda _, measured: measured.tau > 0.5)
    reference = references[name]
    encoder = TextCrossEncoder(reference.folder, activation=None, cache_dir=tmp_path / "cache")
    ranking = encoder.report.ranking
    assert (encoder.report.precision, encoder.report.fidelity) == ("int8", None)
    assert ranking is not None
    assert ranking.tau > 0.9
    found = list(encoder.rerank_pairs(reference.pairs))
    assert found != pytest.approx(reference.scores, abs=1e-5)
    np.testing.assert_allclose(found, reference.scores, atol=np.ptp(reference.scores) / 4)
    again = TextCrossEncoder(reference.folder, activation=None, cache_dir=tmp_path / "cache")
    assert again.report == encoder.report
    assert list(again.rerank_pairs(reference.pairs)) == found


@pytest.mark.slow
def test_a_model_that_would_rank_otherwise_keeps_its_weights(
    references: dict[str, Reference],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(PairGate, "is_enough", lambda *_: False)
    reference = references["bert"]
    with caplog.at_level(logging.WARNING):
        encoder = TextCrossEncoder(reference.folder, activation=None, cache_dir=tmp_path / "cache")
    assert "keeps its float32 weights: in int8 it would rank pairs of texts" in caplog.text
    assert (encoder.report.precision, encoder.report.ranking) == ("fp32", None)
    found = list(encoder.rerank_pairs(reference.pairs))
    np.testing.assert_allclose(found, reference.scores, atol=1e-4)
