"""Documents as users know them: read back whole, one after the other, and changed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import date
from typing import Any

import numpy as np
import pytest
from clients import LetterEncoder, at, opened, stored, vectors
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client import models
from rest_server import Fault, Server
from tiny import WORDS, TinyModel

from qdrant_embed import (
    Chunk,
    Document,
    DocumentNotFoundError,
    InputError,
    QdrantClient,
    QdrantEmbedError,
    ServerRefusal,
    StoredDocument,
    TextEmbedding,
    point_id,
)
from qdrant_embed.collection.payload import CHUNK_KEY, PayloadCodec, chunk_facts
from qdrant_embed.ingest.chunks import chunk_payloads, joined_text
from qdrant_embed.ingest.documents import InputDocument

UUID = "6d1f8e0a-7f0b-5c52-a3d4-1e9b6c2d8a75"
TRANSPORTS = pytest.mark.parametrize("grpc", [False, True], ids=["rest", "grpc"])


def text(sentences: int, seed: int = 0) -> str:
    """So many sentences in paragraphs, of which the tiny models read 21 at once."""
    ends = [" ", "\n\n", "  \t", " "]
    parts = (
        f"{WORDS[(i + seed) % 31]} {WORDS[(i * 5 + seed) % 29]}.{ends[i // 7 % 4]}"
        for i in range(sentences)
    )
    return "".join(parts)


@pytest.fixture(scope="module")
def splitting(tiny: TinyModel) -> TextEmbedding:
    return TextEmbedding(tiny.path, overflow="chunk")


@pytest.fixture(params=["whole", "chunked"])
def client(
    request: pytest.FixtureRequest, anywhere: QdrantClient, splitting: TextEmbedding
) -> QdrantClient:
    """A client of either kind, on any database, with one point for a document or one per chunk."""
    if request.param == "chunked":
        anywhere.set_model(splitting)
    return anywhere


DOCUMENTS = [
    Document(text(90), {"n": 1, "tags": ["a", None]}, "a.txt"),
    Document("cat", {"n": 2}, 7),
    Document("\n" + text(40, 3) + "\n\n", {"n": None}, uuid.UUID(UUID)),
    Document("", {}, 2**64 - 1),
    Document("  ", {"n": 2.5}, "b"),
]
STORED = [
    StoredDocument(one.text, {**one.metadata}, id=UUID if isinstance(one.id, uuid.UUID) else one.id)
    for one in DOCUMENTS
    if one.id is not None
]


def test_documents_are_read_by_the_ids_they_were_given(client: QdrantClient) -> None:
    client.add("demo", DOCUMENTS)
    ids = [document.id for document in STORED]
    assert client.get_documents("demo", ids) == STORED
    given: list[int | str] = [7, "missing", UUID.upper(), 7, 8]
    assert client.get_documents("demo", iter(given)) == [
        STORED[1],
        None,
        STORED[2],
        STORED[1],
        None,
    ]
    assert client.get_documents("demo", np.array([7, 8])) == [STORED[1], None]
    assert client.get_documents("demo", []) == []
    others = stored(client).keys() - {point_id(one) for one in ids}
    assert client.get_documents("demo", others) == [None] * len(others)  # chunks are no documents


def test_all_documents_are_read_page_by_page(client: QdrantClient) -> None:
    client.add("demo", DOCUMENTS)
    expected = sorted(STORED, key=lambda document: str(document.id))
    every = list(client.scroll_documents("demo"))
    assert sorted(every, key=lambda document: str(document.id)) == expected
    for batch_size in (1, 2, 5):
        assert list(client.scroll_documents("demo", batch_size=batch_size)) == every
    for position, document in enumerate(every):
        rest = client.scroll_documents("demo", after=document.id, batch_size=1 + position)
        assert list(rest) == every[position + 1 :]
    client.delete_documents("demo", [every[1].id])
    assert list(client.scroll_documents("demo", after=every[1].id)) == every[2:]
    two = client.scroll_documents("demo", where={"n": {"gte": 2}})
    assert {document.id for document in two} == {7, "b"} - {every[1].id}
    none = models.Filter(must=[models.HasIdCondition(has_id=[8])])
    assert list(client.scroll_documents("demo", query_filter=none)) == []
    assert list(client.scroll_documents("demo", where={"n": 7}, query_filter=none)) == []


def test_documents_are_copied_to_another_collection(
    client: QdrantClient, splitting: TextEmbedding, tiny: TinyModel
) -> None:
    client.add("demo", DOCUMENTS)
    client.set_model(LetterEncoder())
    documents = list(client.scroll_documents("demo"))
    assert client.add("copy", iter(documents)) == [document.id for document in documents]
    assert list(client.scroll_documents("copy")) == documents


def test_a_scroll_is_read_by_add(tiny: TinyModel) -> None:
    client = QdrantClient(":memory:")
    client.set_model(LetterEncoder())
    client.add("demo", DOCUMENTS)
    client.add("copy", client.scroll_documents("demo", batch_size=2))
    assert list(client.scroll_documents("copy")) == list(client.scroll_documents("demo"))


@TRANSPORTS
def test_a_page_is_requested_once_it_is_read(kind: str, grpc: bool, grpc_server: Server) -> None:
    scrolls = "Points/Scroll" if grpc else "POST /collections/demo/points/scroll"
    with opened(kind, **at(grpc_server, grpc=grpc)) as client:
        client.set_model(LetterEncoder())
        client.add("demo", [f"cat {n}" for n in range(100)], ids=range(100))
        grpc_server.requests.clear()
        documents = client.scroll_documents("demo", batch_size=10)
        assert [next(documents).id for _ in range(15)] == list(range(15))
        assert grpc_server.requests.count(scrolls) == 2
        assert len(grpc_server.requests) <= 3
        assert [document.id for document in documents] == list(range(15, 100))


@TRANSPORTS
def test_few_documents_are_held_whatever_their_chunks(
    kind: str, grpc: bool, grpc_server: Server, splitting: TextEmbedding
) -> None:
    """One with more chunks than a page is read alone; strict mode is no obstacle."""
    get = "Points/Get" if grpc else "POST /collections/demo/points"
    with opened(kind, **at(grpc_server, grpc=grpc)) as client:
        client.set_model(splitting)
        texts = [text(200, n) for n in range(8)]
        client.add("demo", texts, ids=range(8))
        grpc_server.restrict("demo", max_query_limit=50, unindexed_filtering_retrieve=False)
        grpc_server.requests.clear()
        documents = client.scroll_documents("demo", batch_size=5)
        first = next(documents)
        assert first == StoredDocument(texts[0], {}, id=0)
        assert grpc_server.requests.count(get) == 2  # where it begins, and its other chunks
        assert [document.text for document in documents] == texts[1:]
        refused = client.scroll_documents("demo", where={"n": 1})
        with pytest.raises(ServerRefusal, match="index"):
            next(refused)


def test_a_document_that_lacks_a_chunk_says_so(
    anywhere: QdrantClient, splitting: TextEmbedding
) -> None:
    anywhere.set_model(splitting)
    whole = text(90)
    anywhere.add("demo", [whole, "dog"], ids=["a", "b"])
    parts = {
        payload[CHUNK_KEY]["position"]: (point, payload[CHUNK_KEY])
        for point, payload in stored(anywhere).items()
        if payload["qdrant_embed_id"] == "a"
    }
    missing, _ = parts[1]
    anywhere.delete("demo", [missing])
    first, second = anywhere.get_documents("demo", ["a", "b"])
    assert first is not None
    assert not first.complete
    end, start = parts[0][1]["end"], parts[2][1]["start"]
    assert len(first.text) == len(whole)
    assert (first.text[:end], first.text[start:]) == (whole[:end], whole[start:])
    assert not first.text[end:start].strip()
    assert second == StoredDocument("dog", {}, id="b")
    assert {one.id: one.complete for one in anywhere.scroll_documents("demo")} == {
        "a": False,
        "b": True,
    }


# texts put together again


@settings(max_examples=150, deadline=None)
@given(data=st.data(), whole=st.text(st.sampled_from("ab \n\t\u3000\U0001f408"), max_size=60))
def test_any_parts_give_the_text_again(data: st.DataObject, whole: str) -> None:
    """Whatever a splitter returns: gaps, overlaps, parts inside others, any order."""
    ends = st.integers(0, len(whole))
    spans = data.draw(st.lists(st.tuples(ends, ends).map(sorted), min_size=1, max_size=6))
    chunks = [Chunk(start, end, np.zeros(1, np.float32)) for start, end in spans]
    codec = PayloadCodec()
    payloads = chunk_payloads(InputDocument("x", "x", whole, {}, 0), chunks, codec).values()
    found = ((chunk_facts(payload), codec.document(payload)) for payload in payloads)
    parts = [(facts, part) for facts, part in found if facts is not None]
    assert len(parts) == len(chunks)
    assert joined_text(data.draw(st.permutations(parts))) == whole


@settings(max_examples=20, deadline=None)
@given(
    texts=st.lists(
        st.lists(
            st.sampled_from([*WORDS[:9], "\n\n", "\t", "   ", ".", "\u00a0"]), max_size=120
        ).map(" ".join),
        min_size=1,
        max_size=3,
    ),
    overlap=st.sampled_from([0, 9]),
    batch_size=st.integers(1, 4),
)
def test_long_texts_come_back_as_they_were(
    tiny: TinyModel, texts: list[str], overlap: int, batch_size: int
) -> None:
    client = QdrantClient(":memory:")
    client.set_model(tiny.path, overflow="chunk", overlap=overlap)
    client.add("demo", texts, ids=range(len(texts)))
    found = client.scroll_documents("demo", batch_size=batch_size)
    assert [document.text for document in found] == texts
    assert all(document.complete for document in client.scroll_documents("demo"))


# metadata


def test_metadata_is_set_in_all_of_a_document(client: QdrantClient) -> None:
    client.add("demo", DOCUMENTS)
    before = {point: vectors(client, point) for point in stored(client)}
    client.update_metadata("demo", ["a.txt", UUID], {"n": 9, "seen": date(2024, 1, 2)})
    two: list[int | str] = [7, "b"]
    client.update_metadata("demo", iter(two), ({"n": None}, {"m": {"k": [None]}}))
    client.update_metadata("demo", [7], {})
    new: list[dict[str, Any]] = [
        {"n": 9, "tags": ["a", None], "seen": "2024-01-02"},
        {"n": None},
        {"n": 9, "seen": "2024-01-02"},
        {},
        {"n": 2.5, "m": {"k": [None]}},
    ]
    ids = [document.id for document in STORED]
    assert client.get_documents("demo", ids) == [
        StoredDocument(one.text, metadata, id=one.id)
        for one, metadata in zip(STORED, new, strict=True)
    ]
    first = {str(point_id(one)): metadata for one, metadata in zip(ids, new, strict=True)}
    for point, payload in stored(client).items():
        own = first[payload.get(CHUNK_KEY, {"parent": str(point)})["parent"]]
        assert PayloadCodec().metadata(payload) == own
    after = {point: vectors(client, point) for point in stored(client)}
    assert str(after) == str(before)


def test_changed_metadata_is_what_skip_compares(client: QdrantClient) -> None:
    client.add("demo", DOCUMENTS)
    client.update_metadata("demo", ["a.txt", 7], {"n": 9})
    encoded: list[str] = []
    documents = [
        Document(one.text, {**one.metadata, "n": 9} if n < 2 else one.metadata, one.id)
        for n, one in enumerate(DOCUMENTS)
    ]
    before = stored(client)
    client.add(
        "demo",
        documents,
        on_existing="skip",
        progress=lambda told: encoded.append(str(told.tokens)),
    )
    assert stored(client) == before
    assert encoded[-1] == "0"
    client.add("demo", DOCUMENTS, on_existing="skip")
    assert client.get_documents("demo", ["a.txt", 7]) == STORED[:2]


def test_nothing_is_changed_if_a_document_is_missing(client: QdrantClient) -> None:
    client.add("demo", DOCUMENTS)
    before = stored(client)
    chunks = before.keys() - {point_id(one.id) for one in STORED}
    for missing in ([8], ["x", 8], [uuid.UUID(int=1)], [*chunks][:1]):
        if missing:
            with pytest.raises(DocumentNotFoundError, match=r"demo' has no documents") as found:
                client.update_metadata("demo", [7, *missing, "b"], {"n": 3})
            assert isinstance(found.value, LookupError)
            assert found.value.missing_ids == missing
    assert stored(client) == before


@TRANSPORTS
@pytest.mark.slow
def test_thousands_are_changed_all_or_none(kind: str, grpc: bool, grpc_server: Server) -> None:
    update = "Points/UpdateBatch" if grpc else "POST /collections/demo/points/batch"
    with opened(kind, **at(grpc_server, grpc=grpc)) as client:
        client.set_model(LetterEncoder())
        client.add("demo", ["cat"] * 2100, ids=range(2100))
        with pytest.raises(DocumentNotFoundError) as found:
            client.update_metadata("demo", range(2103), {"n": 3})
        assert found.value.missing_ids == [2100, 2101, 2102]
        assert not [payload for payload in stored(client).values() if "n" in payload]
        client.update_metadata("demo", range(2100), {"n": 3})
        assert grpc_server.requests.count(update) == 3
        assert all(payload["n"] == 3 for payload in stored(client).values())


@TRANSPORTS
@pytest.mark.parametrize(
    ("metadata", "operations"),
    [
        ([{"n": n % 2, "t": True} for n in range(8)], 2),
        ([{"t": n % 2 and True, "n": [n % 2]} for n in range(8)], 2),
        ([{"n": value} for value in (1, 1.5, True, "1", [1], {"n": 1}, {}, [])], 8),
        ({"n": 1}, 1),
        ({"n": None}, 8),
    ],
)
def test_a_change_is_one_request_with_an_operation_for_equal_metadata(
    kind: str, grpc: bool, grpc_server: Server, metadata: Any, operations: int
) -> None:
    """Also of points that have something from others."""
    update = "Points/UpdateBatch" if grpc else "POST /collections/demo/points/batch"
    with opened(kind, **at(grpc_server, grpc=grpc)) as client:
        client.set_model(LetterEncoder())
        client.add("demo", ["cat"] * 8, ids=range(8))
        client.set_payload("demo", {"theirs": 1}, points=[1, 3])
        sent: list[Any] = []
        run = grpc_server.node.run

        def noted(operation: str, *arguments: Any, **options: Any) -> Any:
            sent.extend(arguments[1] if operation == "operations" else [])
            return run(operation, *arguments, **options)

        grpc_server.node.run = noted  # type: ignore[method-assign]
        client.update_metadata("demo", range(8), metadata)
        assert grpc_server.requests.count(update) == 1
        assert len(sent) == operations
        each = [metadata] * 8 if isinstance(metadata, dict) else metadata
        expected = [{"document": "cat", **given} for given in each]
        for point in (1, 3):
            expected[point] |= {"theirs": 1}
        assert [*stored(client).values()] == expected


@TRANSPORTS
def test_a_change_is_cut_to_what_the_server_accepts(
    kind: str, grpc: bool, grpc_server: Server
) -> None:
    with opened(kind, **at(grpc_server, grpc=grpc)) as client:
        client.set_model(LetterEncoder())
        client.add("demo", ["cat"] * 8, ids=range(8))
        grpc_server.largest = 10_000
        metadata = [{"n": n, "long": "x" * 3000} for n in range(8)]
        client.update_metadata("demo", range(8), metadata)
        assert [p["n"] for p in stored(client).values()] == list(range(8))
        large = {"long": "x" * 11_000}
        with pytest.raises(ServerRefusal, match=r"the metadata of document 3 takes about 0\.0 MB"):
            client.update_metadata("demo", [3], large)


@pytest.mark.parametrize(
    ("ids", "metadata", "message"),
    [
        ([7], {"document": "x"}, "under which the text itself is stored"),
        ([7], {"n": float("nan")}, r"\['n'\] is nan"),
        ([7], {"n": 2**63}, r"\['n'\]"),
        ([7], {1: "x"}, "keys must be str"),
        ([7], [{"n": 1}, {"n": 2}], "1 ids, 2 metadata"),
        ([7], "n", "metadata must be a dict, or a list"),
        ([7], ["n"], r"metadata\[0\] must be a dict"),
        ([7, 7], [{"n": 1}, {"n": 2}], "7 twice"),
        ("7", {"n": 1}, "ids must be a list of ids, not '7'"),
        ([7.5], {"n": 1}, "an id must be"),
    ],
)
def test_what_add_refuses_is_refused(
    anywhere: QdrantClient, ids: Any, metadata: Any, message: str
) -> None:
    anywhere.add("demo", ["cat"], ids=[7])
    with pytest.raises(InputError, match=message):
        anywhere.update_metadata("demo", ids, metadata)
    assert stored(anywhere) == {7: {"document": "cat"}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"after": 1.5}, "an id must be"),
        ({"where": {"": 1}}, "where"),
        ({"query_filter": {"n": 1}}, "query_filter"),
    ],
)
def test_options_of_a_scroll_are_checked_before_it_begins(
    anywhere: QdrantClient, options: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        anywhere.scroll_documents("no such collection", **options)


@TRANSPORTS
@pytest.mark.parametrize("after_commit", [False, True])
def test_a_change_that_fails_is_completed_by_another_try(
    kind: str, grpc: bool, after_commit: bool, grpc_server: Server, splitting: TextEmbedding
) -> None:
    with opened(kind, **at(grpc_server, grpc=grpc)) as client:
        client.set_model(splitting)
        client.add("demo", DOCUMENTS)
        fault = Fault(400, after_commit=after_commit)
        grpc_server.fail_once("UpdateBatch" if grpc else "points/batch", fault)
        with pytest.raises(QdrantEmbedError):
            client.update_metadata("demo", ["a.txt"], {"n": 9})
        (document,) = client.get_documents("demo", ["a.txt"])
        assert document is not None
        assert (document.text, document.complete) == (STORED[0].text, True)
        grpc_server.fail_once("UpdateBatch" if grpc else "points/batch", Fault(503))
        client.update_metadata("demo", ["a.txt"], {"n": 9})
        metadata = {**STORED[0].metadata, "n": 9}
        expected = StoredDocument(STORED[0].text, metadata, id="a.txt")
        assert client.get_documents("demo", ["a.txt"]) == [expected]


def test_a_change_of_half_the_chunks_is_seen_by_skip(
    anywhere: QdrantClient, splitting: TextEmbedding
) -> None:
    """What is killed between its operations leaves a whole document, and `skip` mends it."""
    anywhere.set_model(splitting)
    anywhere.add("demo", DOCUMENTS[:1])
    for key in (None, CHUNK_KEY):
        changed = {"n": 9} if key is None else {"updated_sha256": "x"}
        anywhere.set_payload("demo", changed, points=[point_id("a.txt")], key=key)
        (document,) = anywhere.get_documents("demo", ["a.txt"])
        assert document is not None
        assert (document.text, document.complete) == (STORED[0].text, True)
    anywhere.add("demo", DOCUMENTS[:1], on_existing="skip")
    assert anywhere.get_documents("demo", ["a.txt"]) == STORED[:1]
    assert not [p for p in stored(anywhere).values() if "updated_sha256" in p[CHUNK_KEY]]


@TRANSPORTS
def test_documents_of_one_shard(kind: str, grpc: bool, grpc_server: Server) -> None:
    grpc_server.node.distributed = True
    with opened(kind, **at(grpc_server, grpc=grpc)) as client:
        client.set_model(LetterEncoder())
        client.create_collection(
            "demo",
            client.get_fastembed_vector_params(),
            sharding_method=models.ShardingMethod.CUSTOM,
        )
        for key, one in (("here", 1), ("there", 2)):
            client.add("demo", ["cat"], ids=[one], shard_key_selector=key)
        here = {"shard_key_selector": "here"}
        cat = StoredDocument("cat", {}, id=1)
        assert client.get_documents("demo", [1, 2], **here) == [cat, None]  # type: ignore[arg-type]
        assert list(client.scroll_documents("demo", shard_key_selector="here")) == [cat]
        with pytest.raises(DocumentNotFoundError):
            client.update_metadata("demo", [1, 2], {"n": 1}, shard_key_selector="here")
        client.update_metadata("demo", [1], {"n": 1}, shard_key_selector="here")
        assert stored(client)[1] == {"document": "cat", "n": 1}


def test_points_of_other_tools_are_documents_too(anywhere: QdrantClient) -> None:
    anywhere.create_collection("demo", anywhere.get_fastembed_vector_params())
    points = [
        models.PointStruct(id=1, vector={}, payload={"document": 5, "n": 1}),
        models.PointStruct(id=2, vector={}, payload={}),
    ]
    anywhere.upsert("demo", points)
    expected = [StoredDocument("5", {"n": 1}, id=1), StoredDocument("", {}, id=2)]
    assert anywhere.get_documents("demo", [1, 2]) == expected
    assert list(anywhere.scroll_documents("demo")) == expected


def numbered(count: int) -> Iterator[str]:
    yield from (f"cat {n}" for n in range(count))


def test_a_change_while_all_are_read(anywhere: QdrantClient) -> None:
    """Reading goes on, each document once."""
    anywhere.set_model(LetterEncoder())
    anywhere.add("demo", numbered(30), ids=range(30))
    seen = []
    for document in anywhere.scroll_documents("demo", batch_size=4):
        seen.append(document.id)
        anywhere.update_metadata("demo", [document.id], {"seen": len(seen)})
    assert seen == list(range(30))
    assert [p["seen"] for p in stored(anywhere).values()] == list(range(1, 31))


# documents as a dict would have them

numbers = st.integers(0, 5)
entries = st.dictionaries(
    st.sampled_from("abc"), st.none() | st.booleans() | st.floats(-9, 9) | st.lists(numbers)
)
operations = st.one_of(
    st.tuples(
        st.sampled_from(["overwrite", "skip"]),
        st.dictionaries(numbers, st.tuples(st.integers(0, 60), entries), min_size=1),
    ),
    st.tuples(st.just("update"), st.dictionaries(numbers, entries)),
    st.tuples(st.just("delete"), st.lists(numbers, max_size=2)),
)


@settings(max_examples=40, deadline=None)
@given(
    overflow=st.sampled_from(["truncate", "chunk"]),
    steps=st.lists(operations, max_size=5),
    batch_size=st.integers(1, 9),
)
def test_documents_are_as_in_a_dict(
    tiny: TinyModel, overflow: Any, steps: Any, batch_size: int
) -> None:
    client = QdrantClient(":memory:")
    client.set_model(tiny.path, overflow=overflow)
    client.add("demo", ["x"], ids=["x"])
    expected: dict[int, tuple[str, dict[str, Any]]] = {}
    for how, what in steps:
        if how == "delete":
            client.delete_documents("demo", what)
            expected = {one: expected[one] for one in expected if one not in what}
        elif how == "update" and what.keys() <= expected.keys():
            client.update_metadata("demo", list(what), what.values())
            for one, entry in what.items():
                expected[one][1].update(entry)
        elif how == "update":
            with pytest.raises(DocumentNotFoundError) as found:
                client.update_metadata("demo", list(what), what.values())
            assert found.value.missing_ids == [one for one in what if one not in expected]
        else:
            texts = [text(length, one) for one, (length, _) in what.items()]
            client.add(
                "demo", texts, [entry for _, entry in what.values()], list(what), on_existing=how
            )
            for whole, (one, (_, entry)) in zip(texts, what.items(), strict=True):
                _, before = expected.get(one, ("", {}))
                expected[one] = whole, {**before, **entry}
    documents = [
        StoredDocument(whole, entry, id=one) for one, (whole, entry) in sorted(expected.items())
    ]
    ids = [document.id for document in documents]
    assert client.get_documents("demo", ids) == documents
    found_all = list(client.scroll_documents("demo", batch_size=batch_size))
    assert found_all == [*documents, StoredDocument("x", {}, id="x")]
