"""Documents in, paired with what belongs to them, or an error that says which do not."""

from __future__ import annotations

import datetime
import decimal
import itertools
import math
import uuid
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from clients import LetterEncoder, WordEncoder
from hypothesis import given
from hypothesis import strategies as st
from qdrant_client import models

from qdrant_embed import InputError, point_id
from qdrant_embed.collection.encoders import adapt
from qdrant_embed.collection.payload import PayloadCodec
from qdrant_embed.collection.vectors import CollectionVectors, DenseVectors, SparseVectors
from qdrant_embed.ingest.documents import pair
from qdrant_embed.ingest.points import encode_points

metadata_dicts = st.dictionaries(
    st.text(max_size=5).filter(lambda key: key != "document"), st.none()
)


@pytest.mark.slow
@given(st.data(), st.lists(st.text()))
def test_everything_keeps_its_place(data: st.DataObject, texts: list[str]) -> None:
    size = len(texts)
    metadata = data.draw(st.lists(metadata_dicts, min_size=size, max_size=size))
    ids = data.draw(
        st.lists(st.integers(0, 2**64 - 1) | st.uuids(), min_size=size, max_size=size, unique=True)
    )
    kinds: list[Callable[[Any], Any]] = [list, iter, tuple]
    wrap = data.draw(st.sampled_from(kinds))
    paired = list(pair(wrap(texts), wrap(metadata), wrap(ids)))
    assert [document.text for document in paired] == texts
    assert [document.metadata for document in paired] == metadata
    assert [document.point_id for document in paired] == [
        str(i) if isinstance(i, uuid.UUID) else i for i in ids
    ]


@given(st.integers(0, 5), st.integers(0, 5), st.sampled_from(["metadata", "ids"]), st.booleans())
def test_lengths_that_differ_are_never_cut_to_the_shortest(
    documents: int, others: int, which: str, lazy: bool
) -> None:
    values: list[Any] = [{}] * others if which == "metadata" else list(range(others))
    texts = ["text"] * documents

    def consume() -> int:
        columns: dict[str, Any] = {which: iter(values) if lazy else values}
        return len(list(pair(iter(texts) if lazy else texts, **columns)))

    if documents == others:
        assert consume() == documents
    else:
        with pytest.raises(InputError, match=which):
            consume()


def test_missing_ids_are_random_uuids_as_qdrant_writes_them() -> None:
    ids = [document.point_id for document in pair(["a"] * 50)]
    assert len(set(ids)) == 50
    assert all(str(uuid.UUID(str(i))) == i for i in ids)


@pytest.mark.parametrize(
    ("given_id", "stored"),
    [
        (0, 0),
        (2**64 - 1, 2**64 - 1),
        (np.int64(7), 7),
        ("550E8400E29B41D4A716446655440000", "550e8400-e29b-41d4-a716-446655440000"),
        (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    ],
)
def test_ids_take_the_form_that_qdrant_gives_back(given_id: Any, stored: str | int) -> None:
    (document,) = pair(["a"], ids=[given_id])
    assert document.point_id == stored
    assert type(document.point_id) in (int, str)


@pytest.mark.parametrize("bad", [-1, 2**64, 1.5, True, None, b"x", ""])
def test_an_id_qdrant_would_refuse_is_refused_first(bad: Any) -> None:
    with pytest.raises(InputError, match=r"ids\[1\]"):
        pair(["a", "b"], ids=[1, bad])


def test_duplicate_ids_are_refused_in_whatever_form() -> None:
    one = uuid.uuid4()
    with pytest.raises(InputError, match=r"ids\[2\].*earlier"):
        pair(["a", "b", "c"], ids=[one, 5, one.hex])


@pytest.mark.parametrize("bad", ["hello", b"hello", None, 3, {"a": "b"}])
def test_documents_that_are_no_list_are_refused(bad: Any) -> None:
    with pytest.raises(InputError, match="documents must be a list of str"):
        pair(bad)


@pytest.mark.parametrize("bad", [None, 3, b"bytes", ["nested"]])
def test_a_document_that_is_no_text_is_refused_by_place(bad: Any) -> None:
    with pytest.raises(InputError, match=r"documents\[1\] must be a str"):
        pair(["fine", bad])


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ([{}, 3], r"metadata\[1\] must be a dict, not 3"),
        ([{}, None], r"metadata\[1\] must be a dict, not None"),
        ([{}, {"document": "mine"}], r"metadata\[1\] has the key 'document'"),
        ([{}, {1: "one"}], r"metadata\[1\] has the key 1"),
        ({"source": "all"}, "metadata must be a list"),
        ("ab", "metadata must be a list"),
        (3, "metadata must be a list"),
    ],
)
def test_metadata_that_cannot_be_stored_is_refused(metadata: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pair(["a", "b"], metadata)


@pytest.mark.parametrize(
    "value",
    [b"\xff", math.nan, object(), np.float32("nan"), "\ud800", {1: 2}, 1j],
)
def test_what_json_cannot_say_is_named(value: Any) -> None:
    metadata = [{}, {"ok": 1, "wrong": value}]
    with pytest.raises(InputError, match=r"metadata\[1\]\['wrong'\] is .* not JSON-serialisable"):
        pair(["a", "b"], metadata)
    coming = pair(iter(["a", "b"]), iter(metadata))
    assert next(coming).text == "a"
    with pytest.raises(InputError, match="not JSON-serialisable"):
        next(coming)


def test_what_qdrant_client_can_send_is_metadata() -> None:
    """Checked with the serializer that sends it; local databases use it, too."""
    plain = {"text": "NaN, Infinity", "list": [1, None, {"a": True}], "float": 1e300}
    sent = {
        "date": datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc),
        "uuid": uuid.UUID(int=7),
        "decimal": decimal.Decimal("1.5"),
        "tuple": (1, 2),
        "large": 2**63 - 1,
    }
    for metadata in (plain | sent, MappingProxyType(plain | sent)):
        (document,) = pair(["a"], [metadata])
        point = models.PointStruct(id=1, vector={}, payload=document.payload(PayloadCodec()))
        payload = models.PointStruct.model_validate_json(point.model_dump_json()).payload
        assert payload is not None
        assert payload.items() >= plain.items()


def test_lists_are_checked_whole_before_the_first_document_is_taken() -> None:
    with pytest.raises(InputError):
        pair(["fine"] * 1000 + [None])  # type: ignore[list-item]


def test_generators_are_read_once_as_they_are_needed() -> None:
    read = itertools.count()

    def texts() -> Iterator[str]:
        for _ in range(1000):
            yield f"text {next(read)}"

    paired = pair(texts(), ({"n": n} for n in itertools.count()))
    assert next(read) == 0
    assert [document.metadata["n"] for document in itertools.islice(paired, 5)] == [0, 1, 2, 3, 4]
    assert next(read) <= 8


def vectors(name: str, sparse: str | None = None) -> CollectionVectors:
    dense = DenseVectors(adapt(LetterEncoder()), name)
    return CollectionVectors(
        dense, None if sparse is None else SparseVectors(WordEncoder(), sparse)
    )


def test_points_hold_text_metadata_and_vector() -> None:
    documents = list(pair(["one", "two"], [{"n": 1}, {"n": 2}], [1, "second"]))
    one, two = encode_points(vectors("fast-x"), documents, PayloadCodec())
    expected = LetterEncoder().passage_embed(["two"])
    assert one.payload == {"document": "one", "n": 1}
    assert two.id == point_id("second")
    assert two.vector == {"fast-x": np.asarray(expected, np.float32)[0].tolist()}
    assert two.payload == {"document": "two", "n": 2, "qdrant_embed_id": "second"}


def test_a_lone_unnamed_vector_goes_without_a_name() -> None:
    documents = list(pair(["one"], ids=[1]))
    codec = PayloadCodec("text")
    (lone,) = encode_points(vectors(""), documents, codec)
    (both,) = encode_points(vectors("", "s"), documents, codec)
    assert isinstance(lone.vector, list)
    assert lone.payload == {"text": "one"}
    assert both.vector == {
        "": lone.vector,
        "s": models.SparseVector(indices=[3], values=[2.0]),
    }


def test_the_documents_own_key_may_be_another() -> None:
    (document,) = pair(["a"], [{"document": "b"}], codec=PayloadCodec("text"))
    assert document.metadata == {"document": "b"}
    with pytest.raises(InputError, match="'text'"):
        pair(["a"], [{"text": "b"}], codec=PayloadCodec("text"))
