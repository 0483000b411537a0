"""Ids made of content, ids of any string, and documents that carry their own."""

from __future__ import annotations

import datetime
import uuid
from typing import Any

import pytest
from clients import stored
from hypothesis import given
from hypothesis import strategies as st

from qdrant_embed import ContentIds, Document, InputError, QdrantClient, point_id
from qdrant_embed.ingest.documents import pair

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
metadata_dicts = st.dictionaries(st.text(), json_values, max_size=4)


@given(st.text(), metadata_dicts, st.randoms())
def test_content_ids_depend_on_the_content_alone(
    text: str, metadata: dict[str, Any], order: Any
) -> None:
    keys = list(metadata)
    order.shuffle(keys)
    made = ContentIds().id_of(text, metadata)
    assert made == ContentIds().id_of(text, {key: metadata[key] for key in keys})
    assert uuid.UUID(made).version == 5
    assert made != ContentIds().id_of(text + " ", metadata)
    assert made != ContentIds().id_of(text, {**metadata, "another": 1})


def test_content_ids_never_change_from_release_to_release() -> None:
    """Collections in the world depend on them."""
    metadata = {"b": [1, 2.5, None], "a": "é", "day": datetime.date(2026, 1, 2)}
    assert ContentIds().id_of("text", metadata) == "3243d924-e628-5255-b306-a975f110699c"
    assert ContentIds(("a",)).id_of("text", metadata) == ContentIds().id_of("text", {"a": "é"})
    assert point_id("doc-1") == "97d35c9e-8073-56d6-a7da-8e90728831e5"


def test_re_running_doubles_nothing(everywhere: QdrantClient) -> None:
    texts, metadata = ["cat", "cat", "dog"], [{"source": "a"}, {"source": "b"}, {"source": "a"}]
    first = everywhere.add("demo", texts, metadata, "content")
    before = stored(everywhere)
    assert set(before) == set(first)
    assert len(before) == 3
    assert everywhere.add("demo", texts, metadata, "content") == first
    assert everywhere.add("demo", iter(texts), iter(metadata), "content", batch_size=1) == first
    assert stored(everywhere) == before


@pytest.mark.slow
def test_equal_documents_are_one_point(everywhere: QdrantClient) -> None:
    ids = everywhere.add("demo", ["cat", "dog", "cat", "cat"] * 400, ids="content")
    assert len(ids) == 1600
    assert ids[0] == ids[2] == ids[3] == ids[-1] != ids[1]
    assert len(stored(everywhere)) == 2


def test_the_named_keys_decide_what_is_the_same(client: QdrantClient) -> None:
    documents = [
        Document("cat", {"source": "a", "seen": 1}),
        Document("cat", {"source": "a", "seen": 2}),
        Document("cat", {"source": "b", "seen": 3}),
        Document("cat"),
    ]
    ids = client.add("demo", documents, ids=ContentIds(keys=("source",)))
    assert len(set(ids)) == 3
    assert stored(client)[ids[0]] == {"document": "cat", "source": "a", "seen": 1}
    assert len(set(client.add("text", documents, ids=ContentIds(keys=())))) == 1


def test_a_key_that_no_document_has_is_told_of(
    client: QdrantClient, caplog: pytest.LogCaptureFixture
) -> None:
    """It may be misspelt, and then documents are one that should be two."""
    documents = [Document("cat", {"source": "a"}), Document("cat", {"source": "b"})]
    client.add("demo", documents, ids=ContentIds(keys=("source", "page")))
    assert not caplog.records
    equal = [Document("dog", {"source": "a"})] * 2
    client.add("demo", equal, ids=ContentIds(keys=("page",)))  # of which none could be another
    assert not caplog.records
    client.add("demo", documents, ids=ContentIds(keys=("sorce",)))
    (record,) = caplog.records
    assert "became one: ids depend on 'sorce' (ContentIds), which no document" in record.message
    client.add("demo", iter(documents), ids=ContentIds(keys=("sorce",)))
    assert len(caplog.records) == 2


def test_any_string_is_an_id(everywhere: QdrantClient) -> None:
    known = uuid.uuid4()
    given: list[int | str | uuid.UUID] = ["file.txt#1", "42", known.hex, 7]
    ids = everywhere.add("demo", ["cat", "dog", "ship", "sea"], ids=given)
    assert ids == ["file.txt#1", "42", str(known), 7]
    assert {hit.id for hit in everywhere.query("demo", "cat")} == set(ids)
    payload = stored(everywhere)[point_id("file.txt#1")]
    assert payload == {"document": "cat", "qdrant_embed_id": "file.txt#1"}
    assert stored(everywhere)[7] == {"document": "sea"}
    everywhere.add("demo", ["fish"], ids=["42"])
    assert len(stored(everywhere)) == 4
    assert stored(everywhere)[point_id("42")]["document"] == "fish"


def test_documents_carry_their_own(everywhere: QdrantClient) -> None:
    documents: list[str | Document] = [
        Document("cat", {"n": 1}, "a"),
        "dog",
        Document("ship", id=5),
    ]
    ids = everywhere.add("demo", documents)
    assert (ids[0], ids[2]) == ("a", 5)
    assert stored(everywhere)[point_id("a")] == {
        "document": "cat",
        "n": 1,
        "qdrant_embed_id": "a",
    }
    assert stored(everywhere)[ids[1]] == {"document": "dog"}
    assert stored(everywhere)[5] == {"document": "ship"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"documents": [Document("a")], "metadata": [{}]}, r"documents\[0\].*omit metadata"),
        ({"documents": [Document("a", id=1)], "ids": [1]}, r"documents\[0\].*omit ids"),
        ({"documents": [Document("a", id=1)], "ids": "content"}, "omit ids"),
        ({"documents": [Document("a", id="x"), Document("b", id="x")]}, r"ids\[1\].*earlier"),
        ({"documents": [Document("a", {"qdrant_embed_id": 1})]}, "under which the id itself"),
        (
            {"documents": [Document("a", {"b": object()})], "ids": "content"},
            "not JSON-seriali",
        ),
        (
            {"documents": [Document("a", {"b": [{1: 1, "c": 2}]})], "ids": "content"},
            "not JSON-seriali",
        ),
        ({"documents": [Document(3)]}, r"documents\[0\] must be a str"),  # type: ignore[arg-type]
        ({"documents": ["a"], "ids": "contents"}, "'content' or ContentIds"),
        ({"documents": ["a"], "ids": [""]}, r"ids\[0\]"),
    ],
)
def test_contradictions_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        pair(**arguments)


def test_keys_are_names() -> None:
    for bad in ("source", (1,)):
        with pytest.raises(InputError, match="keys must be a list of str"):
            ContentIds(bad)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="an id must be"):
        point_id(1.5)  # type: ignore[arg-type]
