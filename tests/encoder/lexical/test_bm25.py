"""BM25: the vectors of fastembed 0.9.1, and what a user may ask for."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdrant_embed import (
    InputError,
    SparseDescription,
    SparseEncoder,
    SparseTextEmbedding,
    SparseVector,
    UnknownModelError,
)
from qdrant_embed.encoder.lexical.bm25 import LANGUAGES
from qdrant_embed.encoder.lexical.words import bigrams, words

FIXTURE = Path(__file__).parents[2] / "fixtures/bm25.jsonl"  # written by make_bm25.py beside it
CASES = [json.loads(line) for line in FIXTURE.read_text().splitlines()]
OPTIONS = ("language", "k", "b", "average_length")


def encoder(case: dict[str, Any]) -> SparseTextEmbedding:
    options = {name: case[name] for name in OPTIONS if name in case}
    return SparseTextEmbedding(**options, normalize_text=False)  # as fastembed does


def as_dict(vector: SparseVector) -> dict[int, float]:
    pairs = zip(vector.indices.tolist(), vector.values.tolist(), strict=True)
    found = dict(pairs)
    assert len(found) == len(vector.indices)
    return found


def test_documents_are_those_of_fastembed_bit_for_bit() -> None:
    assert len(CASES) == 500
    assert {case["language"] for case in CASES} == set(LANGUAGES)
    for case in CASES:
        (vector,) = encoder(case).embed(case["text"])
        assert vector.indices.dtype == np.int64
        assert vector.values.dtype == np.float32
        assert vector.indices.tolist() == case["indices"], case
        np.testing.assert_array_equal(vector.values, np.float32(case["values"]))


def test_queries_have_the_same_stems_with_a_value_of_1() -> None:
    for case in CASES:
        (vector,) = encoder(case).query_embed(case["text"])
        assert as_dict(vector) == dict.fromkeys(case["indices"], 1.0)
        assert vector.values.dtype == np.float32


def test_the_fixture_has_what_is_hard() -> None:
    empty = [case["text"] for case in CASES if not case["indices"]]
    assert "" in empty
    assert any(len(text.split()) > 5 for text in empty)  # stop words only
    assert any(len(case["text"].split()) > 20 for case in CASES)


@given(
    texts=st.lists(st.text(max_size=60) | st.sampled_from([case["text"] for case in CASES])),
    batch_size=st.integers(1, 9),
    parallel=st.integers(0, 3) | st.none(),
    k=st.floats(0, 5),
    b=st.floats(0, 1),
)
def test_a_vector_depends_on_its_text_alone(
    texts: list[str], batch_size: int, parallel: int | None, k: float, b: float
) -> None:
    bm25 = SparseTextEmbedding(k=k, b=b)
    together = list(bm25.passage_embed(iter(texts + texts), batch_size, parallel))
    assert len(together) == 2 * len(texts)
    for text, vector, again in zip(
        texts, together[: len(texts)], together[len(texts) :], strict=True
    ):
        (alone,) = bm25.embed([text])
        (query,) = bm25.query_embed(text)
        assert as_dict(vector) == as_dict(alone) == as_dict(again)
        assert as_dict(query).keys() == as_dict(vector).keys()
        assert all(0 < value <= k + 1 for value in vector.values)


def test_a_generator_is_read_as_vectors_are_taken() -> None:
    read: list[str] = []

    def endless() -> Iterator[str]:
        while True:
            read.append(f"text {len(read)}")
            yield read[-1]

    vectors = SparseTextEmbedding().embed(endless(), batch_size=4)
    taken = [next(vectors) for _ in range(6)]
    assert len(read) <= 6 + 2 * 4
    assert len({tuple(vector.indices) for vector in taken}) == 6


def test_many_threads_share_one_encoder() -> None:
    english = [case for case in CASES if case.keys() == {"language", "text", "indices", "values"}]
    encoders = {
        language: SparseTextEmbedding(language=language, normalize_text=False)
        for language in LANGUAGES
    }

    def run(case: dict[str, Any]) -> bool:
        (vector,) = encoders[case["language"]].embed(case["text"])
        return bool(vector.indices.tolist() == case["indices"])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(run, english * 4))


def test_more_distinct_words_than_are_remembered_change_nothing() -> None:
    words = [f"word{number}" for number in range(100_000)]
    texts = [" ".join(words[start : start + 10_000]) for start in range(0, 100_000, 10_000)]
    apart = [next(iter(SparseTextEmbedding().embed(text))) for text in texts]
    together = list(SparseTextEmbedding().embed([*texts, *texts]))
    for found, expected in zip(together, [*apart, *apart], strict=True):
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_array_equal(found.values, expected.values)


def test_it_is_a_sparse_encoder_that_says_what_its_vectors_depend_on() -> None:
    bm25 = SparseTextEmbedding("qdrant/BM25", language="german", k=1.5, b=0.5, average_length=80)
    assert isinstance(bm25, SparseEncoder)
    assert bm25.model_name == "Qdrant/bm25"
    assert bm25.describe() == SparseDescription(
        model="Qdrant/bm25",
        idf=True,
        language="german",
        k=1.5,
        b=0.5,
        average_length=80,
        normalize_text=True,
    )
    assert bm25.model_name in {model["model"] for model in bm25.list_supported_models()}


def test_what_costs_nothing_to_grant_is_taken(tmp_path: Path) -> None:
    SparseTextEmbedding(cache_dir=tmp_path, threads=2, lazy_load=True, local_files_only=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"language": "klingon"}, "language must be one of arabic, .*; not 'klingon'"),
        ({"language": 3}, "language must be one of"),
        ({"k": -1}, "k must be a number from 0 up, not -1"),
        ({"k": True}, "k must be a number from 0 up, not True"),
        ({"k": float("nan")}, "k must be a number from 0 up, not nan"),
        ({"k": float("inf")}, "k must be a number from 0 up, not inf"),
        ({"b": 1.5}, "b must be a number from 0 to 1, not 1.5"),
        ({"b": "high"}, "b must be a number from 0 to 1, not 'high'"),
        ({"average_length": 0}, "average_length must be a number from 1 up, not 0"),
        ({"normalize_text": "yes"}, "normalize_text must be True or False, not 'yes'"),
        ({"tokenizer": "pairs"}, "tokenizer must be 'bigrams', or a function .*, not 'pairs'"),
        ({"tokenizer": "custom: f"}, "pass the function that the collection was written with"),
        ({"threads": 0}, "threads must be a whole number of at least 1, not 0"),
        ({"cuda": True}, "Qdrant/bm25 takes no cuda"),
        ({"providers": ["CPUExecutionProvider"]}, "Qdrant/bm25 takes no providers"),
        ({"max_tokens": 9, "revision": "main"}, "Qdrant/bm25 takes no max_tokens, revision"),
    ],
)
def test_options_that_cannot_be_met_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SparseTextEmbedding(**options)


def test_texts_that_are_none_are_named() -> None:
    bm25 = SparseTextEmbedding()
    vectors = bm25.embed(["fine", None])  # type: ignore[list-item]
    next(vectors)
    with pytest.raises(InputError, match="text number 1 is NoneType, not str"):
        next(vectors)
    with pytest.raises(InputError, match="texts must be strings, not int"):
        bm25.query_embed(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="batch_size"):
        bm25.embed([], 0)
    with pytest.raises(InputError, match="parallel"):
        bm25.embed([], 1, -1)


def test_an_unknown_name_leads_to_the_known_one() -> None:
    with pytest.raises(UnknownModelError) as caught:
        SparseTextEmbedding("bm-25")
    assert caught.value.close_matches == ["Qdrant/bm25"]


SAME = [
    ("coöperate", "coo\u0308perate"),
    ("donau\u00addampf", "donaudampf"),
    ("ﬁne ﬂour", "fine flour"),
    ("\uff21\uff22\uff23\uff11\uff12\uff13", "abc123"),
    ("ｶﾞｲﾄﾞ", "ガイド"),
    ("①", "1"),
]


@pytest.mark.parametrize(("typed", "plain"), SAME)
def test_a_word_is_the_same_however_it_is_typed(typed: str, plain: str) -> None:
    on, off = SparseTextEmbedding(), SparseTextEmbedding(normalize_text=False)
    for method in ("passage_embed", "query_embed"):
        one, other = getattr(on, method)([typed, plain])
        assert as_dict(one) == as_dict(other) != {}
    one, other = off.embed([typed, plain])
    assert as_dict(one) != as_dict(other)


@given(st.text(alphabet=st.characters(max_codepoint=127)))
def test_normalising_changes_nothing_in_ascii(text: str) -> None:
    vectors = [SparseTextEmbedding(normalize_text=on).embed(text) for on in (True, False)]
    (one,), (other,) = vectors
    assert as_dict(one) == as_dict(other)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("今天天气很好", ["今天", "天天", "天气", "气很", "很好"]),
        ("iPhone手机, 5G!", ["iphone", "手机", "5g"]),
        ("東京タワーへ", ["東京", "京タ", "タワ", "ワー", "ーへ"]),
        ("한국어를 배운다", ["한국", "국어", "어를", "배운", "운다"]),
        ("ที่ดี", ["ที", "ี่", "่ด", "ดี"]),
        ("木", ["木"]),
        ("Straße ΣΟΦΟΣ", ["straße", "σοφος"]),
        ("Plain words", ["plain", "words"]),
        ("", []),
    ],
)
def test_scripts_without_spaces_are_split_into_pairs(text: str, found: list[str]) -> None:
    assert sorted(bigrams(text)) == sorted(found)


def test_a_part_of_a_sentence_without_spaces_is_found_by_pairs() -> None:
    text, part = "今天天气很好\uff0c我们去公园", "公园"
    for tokenizer, shared in ((None, False), ("bigrams", True)):
        encoder = SparseTextEmbedding(tokenizer=tokenizer)
        (vector,), (query,) = encoder.embed(text), encoder.query_embed(part)
        assert bool(as_dict(vector).keys() & as_dict(query).keys()) is shared


@given(st.text(alphabet=st.characters(max_codepoint=0x0DFF)))  # the last before Thai
def test_pairs_are_the_usual_words_where_there_is_no_such_script(text: str) -> None:
    assert bigrams(text) == words(text)


def halves(text: str) -> list[str]:
    return [text[: len(text) // 2], "", " ", text[len(text) // 2 :]]


def test_a_users_own_tokenizer_splits_texts() -> None:
    encoder = SparseTextEmbedding(tokenizer=halves)
    (vector,), (expected,) = encoder.embed("CATDOG"), SparseTextEmbedding().embed("cat dog")
    assert as_dict(vector) == as_dict(expected)
    assert encoder.describe().tokenizer == "custom: halves"
    again = pickle.loads(pickle.dumps(encoder))
    assert as_dict(next(again.embed("CATDOG"))) == as_dict(expected)


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [(str.upper, "must return a list of str, not str"), (lambda text: [1], "returned 1, which")],
)
def test_a_tokenizer_that_returns_something_else_is_named(tokenizer: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(SparseTextEmbedding(tokenizer=tokenizer).embed("a cat"))
