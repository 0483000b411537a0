"""Texts longer than the model reads: cut with a warning, read whole, or refused."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clients import LetterEncoder, opened, same, stamp, vectors
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import WORDS, TinyModel, tiny_bert

from qdrant_embed import (
    CollectionMismatchError,
    IngestError,
    InputError,
    QdrantClient,
    TextEmbedding,
)

LONG = " ".join(f"{WORDS[i % 31]} {WORDS[i % 29]}." for i in range(120))  # the tiny models read 64


@pytest.fixture(scope="module")
def mean(tiny: TinyModel) -> TextEmbedding:
    return TextEmbedding(tiny.path, overflow="mean")


@pytest.fixture(scope="module")
def cut(tiny: TinyModel) -> TextEmbedding:
    return TextEmbedding(tiny.path)


@settings(max_examples=20, deadline=None)
@given(
    texts=st.lists(st.lists(st.sampled_from(WORDS), max_size=50).map(" ".join), max_size=20),
    batch_size=st.integers(1, 30),
)
def test_a_text_that_is_read_whole_has_the_same_bits(
    mean: TextEmbedding, cut: TextEmbedding, texts: list[str], batch_size: int
) -> None:
    for got, expected in zip(
        mean.embed(texts, batch_size), cut.embed(texts, batch_size), strict=True
    ):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("normalize", [True, False])
def test_a_longer_text_has_the_mean_of_its_windows(tmp_path: Path, normalize: bool) -> None:
    model = tiny_bert(tmp_path / "model", normalize=normalize)
    bare = TextEmbedding(model.path, precision="fp32", document_prefix="a sea of ")
    halves = len("one two " * 20), len("one two " * 25)
    encoder = TextEmbedding(
        model.path,
        precision="fp32",
        document_prefix="a sea of ",
        overflow="mean",
        splitter=lambda text: [(0, halves[0]), (halves[1], len(text))],
    )
    text = "one two " * 40
    first, second = bare.passage_embed([text[: halves[0]], text[halves[1] :]])
    expected = first * 40 / 70 + second * 30 / 70
    if normalize:
        expected /= np.linalg.norm(expected)
    (vector,) = encoder.passage_embed(text)
    assert vector.dtype == np.float32
    np.testing.assert_allclose(vector, expected, atol=1e-6)
    assert not np.allclose(vector, next(bare.passage_embed(text)), atol=1e-3)


def test_mean_changes_where_the_end_of_the_text_does(
    mean: TextEmbedding, cut: TextEmbedding
) -> None:
    texts = [LONG + " storm storm storm", LONG + " rose rose rose"]
    one, other = mean.embed(texts)
    assert not np.allclose(one, other, atol=1e-5)
    one, other = cut.embed(texts)
    np.testing.assert_array_equal(one, other)


def test_a_vector_depends_on_its_text_alone(tiny_e5: TinyModel) -> None:
    encoder = TextEmbedding(tiny_e5.path, overflow="mean", overlap=8)
    texts = ["cat", LONG, "", "x" * 500, " " * 900, "日本。" * 80, LONG * 3, "dog"]
    for batch_size, parallel in ((1, 1), (3, 2), (256, 2)):
        together = encoder.passage_embed(iter(texts), batch_size, parallel)
        for text, vector in zip(texts, together, strict=True):
            np.testing.assert_allclose(vector, next(encoder.passage_embed(text)), atol=1e-6)


def test_nothing_is_warned_of_where_nothing_is_lost(
    mean: TextEmbedding, caplog: pytest.LogCaptureFixture
) -> None:
    list(mean.embed([LONG, "cat"]))
    assert not caplog.records


def test_texts_are_read_and_windows_computed_only_as_they_are_needed(mean: TextEmbedding) -> None:
    read = itertools.count()

    def endless() -> Iterator[str]:
        while True:
            next(read)
            yield LONG

    found = mean.embed(endless(), batch_size=8)
    assert len(list(itertools.islice(found, 20))) == 20
    assert next(read) <= 20 + 2 * 8
    found.close()  # type: ignore[attr-defined] # an Iterator to users, a generator in truth


def test_parts_of_a_splitter_that_are_too_long_are_split_further(tiny: TinyModel) -> None:
    own = TextEmbedding(tiny.path, overflow="mean", splitter=lambda text: [(0, len(text))])
    (vector,) = own.embed(LONG)
    (expected,) = TextEmbedding(tiny.path, overflow="mean").embed(LONG)
    np.testing.assert_array_equal(vector, expected)


@pytest.mark.parametrize(
    ("splitter", "message"),
    [
        (lambda text: [(0, len(text) + 1)], "for a text of"),
        (lambda text: [(5, 5)], "for a text of"),
        (lambda text: text.split(), "pairs of a start and an end"),
        (lambda text: [], "no part"),
    ],
)
def test_what_a_splitter_gives_is_checked(
    tiny: TinyModel, splitter: Callable[[str], Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        next(TextEmbedding(tiny.path, overflow="mean", splitter=splitter).embed(LONG))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overflow": "chop"}, "must be one of 'truncate', 'mean', 'chunk', 'error', not 'chop'"),
        ({"overlap": 8}, "for overflow='mean'"),
        ({"overflow": "error", "splitter": str.split}, "for overflow='mean'"),
        ({"overflow": "mean", "overlap": -1}, "overlap"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    tiny: TinyModel, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        TextEmbedding(tiny.path, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overlap": 40}, "more than half of the 62 tokens"),
        ({"document_prefix": "cat " * 70}, "no room for a text"),
    ],
)
def test_windows_without_room_are_refused(
    tiny: TinyModel, options: dict[str, Any], message: str
) -> None:
    encoder = TextEmbedding(tiny.path, overflow="mean", **options)
    with pytest.raises(InputError, match=message):
        list(encoder.passage_embed(["cat"]))


def test_error_names_the_text_and_its_tokens(tiny_e5: TinyModel) -> None:
    encoder = TextEmbedding(tiny_e5.path, overflow="error")
    fits = "cat " * 60  # with passage, :, [CLS], [SEP]
    assert len(list(encoder.passage_embed([fits] * 300))) == 300
    with pytest.raises(InputError, match="text number 299 has 65 tokens") as caught:
        list(encoder.passage_embed([fits] * 299 + [fits + "cat"]))
    assert caught.value.index == 299


@pytest.mark.parametrize("many", [3, 1500])
def test_error_refuses_a_list_before_anything_is_stored(
    anywhere: QdrantClient, tiny: TinyModel, many: int
) -> None:
    anywhere.set_model(tiny.path, overflow="error")
    with pytest.raises(InputError, match=f"text number {many} has 362 tokens"):
        anywhere.add("demo", ["cat"] * many + [LONG])
    assert not anywhere.collection_exists("demo")


def test_error_refuses_a_text_of_a_stream_when_its_turn_comes(
    client: QdrantClient, tiny: TinyModel
) -> None:
    client.set_model(tiny.path, overflow="error")
    with pytest.raises(InputError, match="text number 1 has"):
        client.add("demo", iter(["cat", LONG]))
    assert not client.collection_exists("demo")
    with pytest.raises(IngestError, match="text number 1030 has") as caught:
        client.add("demo", iter(["cat"] * 1030 + [LONG]))
    assert caught.value.failed_index == len(caught.value.stored_ids) == 1024
    assert isinstance(caught.value.__cause__, InputError)
    assert caught.value.__cause__.index == 1030


def test_a_collection_written_with_mean_is_followed(
    kind: str, tiny_name: str, tmp_path: Path
) -> None:
    with opened(kind, path=str(tmp_path / "db")) as first:
        first.set_model(tiny_name, overflow="mean", overlap=10)
        (written,) = first.add("demo", [LONG])
        assert (stamp(first)["overflow"], stamp(first)["overlap"]) == ("mean", 10)
        (wrote,) = vectors(first, written).values()
        expected = first.query("demo", LONG)
    encoder = TextEmbedding(tiny_name, overflow="mean", overlap=10)
    assert wrote == pytest.approx(next(encoder.embed(LONG)), abs=1e-6)
    with opened(kind, path=str(tmp_path / "db")) as second:
        assert same(second.query("demo", LONG), expected)
        (added,) = second.add("demo", [LONG])
        (again,) = vectors(second, added).values()
        assert again == pytest.approx(wrote, abs=1e-6)
        second.set_model(tiny_name)
        with pytest.raises(CollectionMismatchError, match="overflow 'mean', not 'truncate'"):
            second.query("demo", "cat")


def test_add_says_that_a_text_is_cut(
    client: QdrantClient, caplog: pytest.LogCaptureFixture
) -> None:
    client.add("demo", ["cat", "dog"])
    assert not caplog.records
    client.add("demo", ["cat", LONG])
    (record,) = caplog.records
    assert "longer than 64 tokens, the limit of" in record.message


def test_an_encoder_object_has_its_own_way_with_long_texts(client: QdrantClient) -> None:
    with pytest.raises(InputError, match=r"overflow: .*set them on the encoder object"):
        client.set_model(LetterEncoder(), overflow="mean")
