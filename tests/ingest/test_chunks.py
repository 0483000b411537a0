"""Documents as several points: a long text's chunks, found and replaced as the one they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clients import LetterEncoder, at, cosine, opened, same, stamp, stored, vectors
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client import models
from rest_server import Fault, Server
from tiny import WORDS, TinyModel, tiny_bert

from qdrant_embed import (
    CollectionMismatchError,
    IngestError,
    InputError,
    PermissionRefusal,
    QdrantClient,
    TextEmbedding,
    point_id,
)
from qdrant_embed.encoder.long_texts.overflow import OverflowOptions
from qdrant_embed.encoder.text import variant
from qdrant_embed.ingest import adding

KEY = "qdrant_embed_chunk"


def text(sentences: int, seed: int = 0) -> str:
    """So many sentences, of which the tiny models read 21 at once."""
    return " ".join(
        f"{WORDS[(i + seed) % 31]} {WORDS[(i * 5 + seed) % 29]}." for i in range(sentences)
    )


@pytest.fixture(scope="module")
def encoder(tiny: TinyModel) -> TextEmbedding:
    return TextEmbedding(tiny.path, overflow="chunk")


@pytest.fixture
def chunked(everywhere: QdrantClient, encoder: TextEmbedding) -> QdrantClient:
    """A client of either kind, on any database, dense or hybrid, that stores chunks."""
    everywhere.set_model(encoder)
    return everywhere


@pytest.fixture
def remote(kind: str, server: Server, encoder: TextEmbedding) -> Any:
    """A client of the server, of either kind, that stores chunks."""
    with opened(kind, **at(server)) as client:
        client.set_model(encoder)
        yield client


def parts(client: QdrantClient, shown: int | str, name: str = "demo") -> list[dict[str, Any]]:
    """The payloads of a document's points, in order."""
    found = [p for p in stored(client, name).values() if p["qdrant_embed_id"] == shown]
    return sorted(found, key=lambda payload: int(payload[KEY]["position"]))


# the encoder's half


@settings(max_examples=30, deadline=None)
@given(
    texts=st.lists(
        st.text(max_size=300) | st.lists(st.sampled_from(WORDS), max_size=200).map(" ".join),
        max_size=8,
    ),
    overlap=st.sampled_from([0, 9]),
)
def test_spans_cover_the_text_and_short_texts_are_one_chunk(
    encoder: TextEmbedding, texts: list[str], overlap: int
) -> None:
    splitting = variant(encoder, overflow=OverflowOptions("chunk", overlap))
    too_long = encoder._model.load().tokenizer.tokenize(texts).truncated
    for position, (whole, chunks) in enumerate(zip(texts, splitting.chunks(texts), strict=True)):
        reached = 0
        for chunk in chunks:
            assert not whole[reached : chunk.start].strip()
            reached = max(reached, chunk.end)
        assert not whole[reached:].strip()
        if position not in too_long:
            assert [(chunk.start, chunk.end) for chunk in chunks] == [(0, len(whole))]
    short = [whole for position, whole in enumerate(texts) if position not in too_long]
    truncating = variant(encoder, overflow=OverflowOptions("truncate"))
    for (chunk,), vector in zip(encoder.chunks(short), truncating.embed(short), strict=True):
        np.testing.assert_array_equal(chunk.vector, vector)


def test_chunks_have_the_vectors_of_their_own_text(tiny_e5: TinyModel) -> None:
    encoder = TextEmbedding(tiny_e5.path, overflow="chunk")
    texts = ["cat", text(90), "", text(40, 3)]
    for batch_size, parallel in ((3, 1), (256, 2)):
        every = list(encoder.chunks(iter(texts), batch_size, parallel))
        assert [len(chunks) for chunks in every] == [1, 5, 1, 2]
        for whole, chunks in zip(texts, every, strict=True):
            expected = encoder.passage_embed([whole[c.start : c.end] for c in chunks])
            np.testing.assert_allclose([c.vector for c in chunks], list(expected), atol=1e-6)
    mean = TextEmbedding(tiny_e5.path, overflow="mean")
    for method in ("embed", "passage_embed", "query_embed"):
        np.testing.assert_array_equal(
            list(getattr(encoder, method)(texts)), list(getattr(mean, method)(texts))
        )


# points


def test_every_chunk_is_a_point_that_knows_its_document(
    chunked: QdrantClient, encoder: TextEmbedding
) -> None:
    texts = [text(90), "cat", text(40, 3)]
    ids: list[int | str] = ["a.txt", 7, "b.txt"]
    metadata = [{"n": n} for n in range(3)]
    assert chunked.add("demo", texts, metadata, ids, batch_size=2) == ids
    assert stamp(chunked)["overflow"] == "chunk"
    every = list(encoder.chunks(texts))
    points = stored(chunked)
    assert len(points) == sum(map(len, every)) == 8
    for shown, whole, entry, chunks in zip(ids, texts, metadata, every, strict=True):
        own = points[point_id(shown)]
        assert own[KEY]["position"] == 0
        found = parts(chunked, shown)
        assert [payload[KEY]["position"] for payload in found] == list(range(len(chunks)))
        for payload, chunk in zip(found, chunks, strict=True):
            span = payload[KEY]["start"], payload[KEY]["end"]
            assert span == (chunk.start, chunk.end)
            assert payload["document"] == whole[slice(*span)]
            assert payload["n"] == entry["n"]
            assert payload[KEY]["parent"] == str(point_id(shown))
            assert payload[KEY]["count"] == len(chunks)
            digest = json.dumps([whole, entry], separators=(",", ":")).encode()
            assert payload[KEY]["document_sha256"] == hashlib.sha256(digest).hexdigest()
    for point, payload in points.items():
        shown, position = payload["qdrant_embed_id"], payload[KEY]["position"]
        expected = every[ids.index(shown)][position].vector
        named = vectors(chunked, point)
        assert named["fast-tiny-bert"] == pytest.approx(expected, abs=1e-5)
        if chunked.sparse_embedding_model_name:
            words = set(payload["document"].replace(".", "").split())
            assert len(named["fast-sparse-bm25"].indices) <= len(words)
    assert chunked.add("demo", texts, metadata, ids) == ids
    assert stored(chunked) == points


def test_a_query_finds_documents_by_their_best_chunk(chunked: QdrantClient) -> None:
    texts = [text(30 + 12 * n, n) for n in range(6)] + ["cat", "a ship at sea"]
    ids = chunked.add("demo", texts, [{"n": n} for n in range(8)], ids=range(8))
    queries = ["storm at sea", "cat dog", text(50, 2)]
    every = chunked.query_batch("demo", queries, limit=100, chunks=True)
    documents = chunked.query_batch("demo", queries, limit=100)
    for query, hits, found in zip(queries, every, documents, strict=True):
        assert len(hits) == len(stored(chunked)) > len(found) == 8
        best = {hit.id: hit for hit in reversed(hits)}
        assert {hit.id for hit in found} == set(ids)
        assert [hit.score for hit in found] == sorted((h.score for h in found), reverse=True)
        for hit in found:
            assert hit.score == pytest.approx(best[hit.id].score, abs=1e-5)
            whole, chunk = texts[int(hit.id)], hit.metadata[KEY]
            assert hit.document == whole[chunk["start"] : chunk["end"]]
        assert same(chunked.query("demo", query, limit=3), found[:3])
        assert same(chunked.query("demo", query, limit=2, offset=3), found[3:5])
        odd = chunked.query("demo", query, where={"n": {"gte": 4}})
        assert {hit.id for hit in odd} == {4, 5, 6, 7}
        threshold = found[2].score - 1e-6
        above = chunked.query("demo", query, score_threshold=threshold)
        assert [hit.id for hit in above] == [h.id for h in found if h.score >= threshold]
    (hit,) = chunked.query("demo", "cat", limit=1, with_vectors=True)
    assert hit.embedding is not None
    assert len(hit.embedding) == 32
    assert chunked.query("demo", "cat", limit=3, offset=100) == []


def test_a_reranker_scores_the_best_chunks(client: QdrantClient, encoder: TextEmbedding) -> None:
    class Shortest:
        def rerank(self, query: str, documents: Sequence[str]) -> list[float]:
            return [-len(document) for document in documents]

    client.set_model(encoder)
    client.add("demo", [text(50), "cat", text(60, 1), "ship"], ids=range(4))
    hits = client.query("demo", "sea", limit=2, offset=1, reranker=Shortest())
    assert hits[0].id == 3
    assert len({hit.id for hit in hits}) == 2


def test_deleted_documents_leave_nothing(chunked: QdrantClient, tiny: TinyModel) -> None:
    ids = chunked.add("demo", [text(60), "cat", text(50, 2), "dog"], ids=["a", 2, "c", 4])
    chunked.delete_documents("demo", ["a", 2, "not there"])
    assert {payload["qdrant_embed_id"] for payload in stored(chunked).values()} == {"c", 4}
    chunked.delete_documents("demo", iter(ids))
    chunked.delete_documents("demo", [])
    assert stored(chunked) == {}
    chunked.set_model(tiny.path)
    ids = chunked.add("whole", ["cat", "dog", "ship"], ids=["a", 2, "c"])
    chunked.delete_documents("whole", ids[1:])
    assert [p["document"] for p in stored(chunked, "whole").values()] == ["cat"]
    with pytest.raises(InputError, match="list of ids"):
        chunked.delete_documents("whole", "a")
    with pytest.raises(InputError, match="an id must be"):
        chunked.delete_documents("whole", [1.5])  # type: ignore[list-item]


# documents stored anew


def test_a_document_that_became_shorter_leaves_nothing_behind(chunked: QdrantClient) -> None:
    chunked.add("fresh", [text(30, 1), "dog"], [{"n": 1}, {}], ids=["a", 2])
    chunked.add("demo", [text(70), text(40, 2)], ids=["a", 2])
    chunked.add("demo", [text(30, 1)], [{"n": 1}], ids=["a"])
    chunked.add("demo", ["dog"], ids=[2], on_existing="skip")
    assert stored(chunked) == stored(chunked, "fresh")
    with pytest.raises(InputError, match="already has"):
        chunked.add("demo", [text(50)], ids=["a"], on_existing="error")
    assert len(parts(chunked, "a")) == 2


def test_skip_encodes_what_is_not_there_as_a_whole(
    client: QdrantClient, encoder: TextEmbedding, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.set_model(encoder)
    texts = [text(60), "cat", text(50, 2)]
    ids = client.add("demo", texts, ids="content", on_existing="skip")
    before = stored(client)
    given: list[str] = []
    chunks = TextEmbedding.chunks

    def counted(self: TextEmbedding, texts: list[str]) -> Any:
        given.extend(texts)
        return chunks(self, texts)

    monkeypatch.setattr(TextEmbedding, "chunks", counted)
    assert client.add("demo", texts, ids="content", on_existing="skip") == ids
    assert given == []
    for tries, position in enumerate((0, 1, len(parts(client, ids[0])) - 1), 1):
        (missing,) = [
            point
            for point, payload in before.items()
            if payload["qdrant_embed_id"] == ids[0] and payload[KEY]["position"] == position
        ]
        client.delete("demo", [missing])
        assert client.add("demo", texts, ids="content", on_existing="skip") == ids
        assert len(given) == tries
        assert stored(client) == before


class Ended(BaseException):
    """The process is gone."""


class Mortal(QdrantClient):
    """Ends at its n-th write, before or after it is carried out."""

    writes_left = 10**6
    carried_out = False

    def _write(self, write: Any, *args: Any, **kwargs: Any) -> Any:
        self.writes_left -= 1
        if self.writes_left:
            return write(*args, **kwargs)
        if self.carried_out:
            write(*args, **kwargs)
        raise Ended

    def upsert(self, *args: Any, **kwargs: Any) -> Any:
        return self._write(super().upsert, *args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> Any:
        return self._write(super().delete, *args, **kwargs)


versions = st.lists(st.integers(1, 90), min_size=3, max_size=3)


@settings(max_examples=15, deadline=None)
@given(
    history=st.lists(
        st.tuples(
            versions,
            st.integers(1, 8),
            st.sampled_from(["skip", "overwrite"]),
            st.integers(1, 12),
            st.booleans(),
        ),
        max_size=3,
    ),
    last=versions,
    on_existing=st.sampled_from(["skip", "overwrite"]),
    seed=st.integers(0, 1),
)
def test_whenever_it_ended_the_next_add_leaves_the_last_texts_and_nothing_else(
    encoder: TextEmbedding, history: Any, last: list[int], on_existing: Any, seed: int
) -> None:
    client = Mortal(":memory:")
    client.set_model(encoder)
    ids: list[int | str] = ["a", 2, "c"]
    for sizes, batch_size, how, moment, carried_out in history:
        there = {payload["qdrant_embed_id"] for payload in _points(client)}
        client.writes_left, client.carried_out = moment, carried_out
        try:
            client.add("demo", map(text, sizes), ids=ids, batch_size=batch_size, on_existing=how)
        except Ended as error:
            told = IngestError.behind(error)
            for shown in told.stored_ids if told else []:
                found = [p for p in _points(client) if p["qdrant_embed_id"] == shown]
                whole = text(sizes[ids.index(shown)])
                assert all(whole[p[KEY]["start"] : p[KEY]["end"]] == p["document"] for p in found)
                assert len(found) == found[0][KEY]["count"]
        # nothing that was there is gone
        assert there <= {payload["qdrant_embed_id"] for payload in _points(client)}
    client.writes_left = 10**6
    texts = [text(size, seed) for size in last]
    client.add("demo", texts, ids=ids, on_existing=on_existing)
    client.add("fresh", texts, ids=ids)
    assert stored(client) == stored(client, "fresh")
    client.close()


def _points(client: QdrantClient) -> list[dict[str, Any]]:
    return list(stored(client).values()) if client.collection_exists("demo") else []


def test_another_way_to_split_leaves_no_part_of_the_first(
    client: QdrantClient, tiny: TinyModel
) -> None:
    whole = text(21)
    middle = whole.index(".", 40) + 1

    def halves(text: str) -> list[tuple[int, int]]:
        return [(0, middle), (middle, len(text))]

    long = text(25)
    client.set_model(tiny.path, overflow="chunk")
    client.add("demo", [long], ids=[1])
    first = stored(client)
    client.set_model(tiny.path, overflow="chunk", splitter=halves)
    client.add("demo", [long], ids=[1])
    second = stored(client)
    assert len(first) == len(second) == 2
    (other,) = [point for point in first if point != 1]
    client.overwrite_payload("demo", first[other], points=[other])  # as if killed between
    client.add("demo", [long], ids=[1], on_existing="skip")
    assert stored(client) == second


# what is told, and what servers are asked


def test_a_document_counts_as_stored_when_all_of_it_is(
    remote: QdrantClient, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adding, "uploads_in_flight", lambda _: 1)  # so that they come in order
    remote.add("demo", [text(90)] * 3, ids=["a", "b", "c"])
    uploads = 0

    def at_fourth(request: str) -> Fault | None:
        nonlocal uploads
        uploads += request == "PUT /collections/demo/points"
        return Fault(403) if uploads == 4 else None

    server.fault = at_fourth
    with pytest.raises(IngestError) as caught:  # the fourth request has the last of "b"
        remote.add("demo", [text(90, 1)] * 3, ids=["a", "b", "c"], batch_size=3)
    assert (caught.value.stored_ids, caught.value.failed_index) == (["a"], 1)
    server.fail_once("points/delete", Fault(403))
    with pytest.raises(PermissionRefusal):
        remote.add("demo", ["cat"], ids=["a"])
    assert len(parts(remote, "a")) == 5
    server.fail_once("points/delete", Fault(503, headers=(("Retry-After", "0"),)), times=2)
    assert remote.add("demo", ["cat"], ids=["a"], on_existing="skip") == ["a"]
    assert len(parts(remote, "a")) == 1
    server.fail_once("points/delete", Fault(503, headers=(("Retry-After", "0"),)))
    remote.delete_documents("demo", ["b"])
    assert parts(remote, "b") == []


def test_a_document_is_sent_in_parts_where_it_is_too_large(
    remote: QdrantClient, server: Server
) -> None:
    server.largest = 6_000
    assert remote.add("demo", [text(400)], ids=["a"]) == ["a"]
    found = parts(remote, "a")
    assert len(found) == found[0][KEY]["count"] > 15


def test_what_a_server_is_asked(remote: QdrantClient, server: Server) -> None:
    remote.set_sparse_model("Qdrant/bm25")
    remote.add("demo", [text(60), "cat"], ids=["a", "b"])
    (index,) = [json.loads(body) for request, body in server.bodies if "/index" in request]
    assert index == {"field_name": f"{KEY}.parent", "field_schema": "keyword"}
    remote.add("demo", ["dog"])  # nothing can be there under an id drawn at random
    assert not any("scroll" in request or "delete" in request for request in server.requests)
    remote.query("demo", "cat")
    server.requests.clear()
    server.bodies.clear()
    remote.query(
        "demo", "cat", limit=5, offset=2, timeout=5, shard_key_selector="x", where={"n": 1}
    )
    assert server.requests == ["POST /collections/demo/points/query/batch"]
    (asked,) = json.loads(server.bodies[0][1])["searches"]
    assert (asked["limit"], asked.get("offset"), asked["with_payload"]) == (31, None, True)
    assert [branch["limit"] for branch in asked["prefetch"]] == [400, 400]
    assert all(branch["filter"] for branch in asked["prefetch"])
    assert asked["shard_key"] == "x"
    assert server.parameters[-1] == "timeout=5"
    server.fail_once("query/batch", Fault(403))
    with pytest.raises(PermissionRefusal):
        remote.query_batch("demo", ["cat", "dog", "sea"])
    assert len(remote.query_batch("demo", ["cat"] * 40)) == 40


# which collections


def test_a_chunked_collection_is_followed(kind: str, tiny_name: str, tmp_path: Path) -> None:
    with opened(kind, path=str(tmp_path / "db")) as first:
        first.set_model(tiny_name, overflow="chunk", overlap=5)
        first.add("demo", [text(60), "cat"], ids=["a", "b"])
        expected = first.query("demo", "cat")
        assert len(expected) == 2
    with opened(kind, path=str(tmp_path / "db")) as second:
        second.delete_documents("demo", ["no such document"])  # needs no model
        assert same(second.query("demo", "cat"), expected)
        second.add("demo", [text(60, 1)], ids=["c"])
        assert len(parts(second, "c")) == parts(second, "c")[0][KEY]["count"] > 1
        assert len(second.query("demo", "cat")) == 3
        second.set_model(tiny_name)
        with pytest.raises(CollectionMismatchError, match="overflow 'chunk', not 'truncate'"):
            second.query("demo", "cat")


@pytest.mark.parametrize(("first", "second"), [("error", "truncate"), ("truncate", "error")])
def test_policies_with_the_same_vectors_share_a_collection(
    client: QdrantClient, tiny: TinyModel, first: Any, second: Any
) -> None:
    client.set_model(tiny.path, overflow=first)
    client.add("demo", ["cat"])
    client.set_model(tiny.path, overflow=second)
    client.add("demo", ["dog"])
    assert len(client.query("demo", "cat")) == 2
    client.set_model(tiny.path, overflow="mean")
    with pytest.raises(CollectionMismatchError, match="overflow"):
        client.add("demo", ["dog"])


def test_a_collection_without_a_stamp_has_no_chunks(
    client: QdrantClient, encoder: TextEmbedding
) -> None:
    client.set_model(encoder, vector_name="v")
    client.create_collection("demo", {"v": cosine(32)})
    client.upsert("demo", [models.PointStruct(id=1, vector={"v": [1.0] * 32})])
    assert len(client.query("demo", "cat")) == 1
    with pytest.raises(CollectionMismatchError, match="not written with overflow='chunk'"):
        client.add("demo", [text(60)])
    client.delete("demo", [1])
    client.add("demo", [text(60)])  # an empty one gets a stamp
    assert len(client.query("demo", "cat")) == 1


def test_the_key_of_chunks_is_reserved(client: QdrantClient) -> None:
    with pytest.raises(InputError, match="under which the chunk itself is stored"):
        client.add("demo", ["cat"], [{KEY: 1}])


# another model


def test_chunks_are_encoded_anew_where_they_are(
    client: QdrantClient, encoder: TextEmbedding, tiny_e5: TinyModel, tmp_path: Path
) -> None:
    client.set_model(encoder)
    client.add("old", [text(60), "cat", text(50, 2)], ids=["a", 2, "c"])
    count = len(stored(client, "old"))
    assert client.migrate_model("old", tiny_e5.path, "new", alias="docs") == count
    assert stored(client, "new") == stored(client, "old")
    assert stamp(client, "new")["overflow"] == "chunk"
    client.set_model(tiny_e5.path, overflow="chunk")
    assert len(client.query("docs", "cat")) == 3
    client.add("docs", [text(30)], ids=["a"])
    assert len(client.query("docs", "cat")) == 3
    own = LetterEncoder()
    assert client.migrate_model("old", own, "own", batch_size=3) == count
    client.set_model(own)
    assert len(client.query("own", "cat")) == 3
    client.add("own", [text(90)], ids=["a"])  # it has no way to split
    assert len(parts(client, "a", "own")) == 1
    less = tiny_bert(tmp_path / "less", max_seq_length=32)
    with pytest.raises(InputError, match=r"is a chunk .* exceeds the limit of .*less"):
        client.migrate_model("old", less.path, "less")


def test_migration_keeps_what_becomes_of_long_texts(
    client: QdrantClient, tiny: TinyModel, tiny_e5: TinyModel, encoder: TextEmbedding
) -> None:
    client.set_model(tiny.path, overflow="mean", overlap=3)
    client.add("old", [text(60)])
    client.migrate_model("old", tiny_e5.path, "new")
    assert (stamp(client, "new")["overflow"], stamp(client, "new")["overlap"]) == ("mean", 3)
    with pytest.raises(InputError, match="one point for each document"):
        client.migrate_model("old", encoder, "chunked")
    assert not client.collection_exists("chunked")
    client.set_model(encoder)
    client.add("source", [text(60)])
    client.set_model(LetterEncoder())
    client.add("whole", ["cat"])
    with pytest.raises(CollectionMismatchError, match="does not handle long documents"):
        client.migrate_model("source", LetterEncoder(), "whole")
