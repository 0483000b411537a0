"""Payloads that somebody else stored: documents and hits all the same, or errors of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from clients import LetterEncoder, at, opened, vectors
from qdrant_client import models
from rest_server import Server
from tiny import TinyModel

from hostile import payloads
from qdrant_embed import QdrantClient, ServerRefusal, StoredDocument, TextEmbedding


@pytest.fixture(scope="module")
def splitting(tiny: TinyModel) -> TextEmbedding:
    return TextEmbedding(tiny.path, overflow="chunk")


LONG = "the cat sat on the mat. " * 20


def fill(client: QdrantClient) -> dict[int, str]:
    """Store every hostile payload, under ids from 100 on; return the names of these."""
    client.add("demo", [LONG, "dog"], ids=[1, 2])
    stored = vectors(client, 2)
    names: dict[int, str] = {}
    points = []
    for point, (name, payload) in enumerate(payloads.payloads(), 100):
        names[point] = name
        vector: Any = stored.get("", stored)
        points.append(models.PointStruct(id=point, vector=vector, payload=payload))
    client.upsert("demo", points)
    return names


@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "chunked"])
def test_every_payload_is_read(
    anywhere: QdrantClient, splitting: TextEmbedding, chunked: bool
) -> None:
    if chunked:
        anywhere.set_model(splitting)
    names = fill(anywhere)
    found = anywhere.get_documents("demo", [*names, 1, 2])
    *hostile, long, dog = found
    assert long == StoredDocument(LONG, {}, id=1)
    assert dog == StoredDocument("dog", {}, id=2)
    for name, document in zip(names.values(), hostile, strict=True):
        if document is None:
            assert "position" in name  # another chunk than a document's first is none itself
            continue
        assert isinstance(document.text, str), name
        assert type(document.id) in (int, str), name
        assert len(document.text) < 20_000_000
        if "chunk" in name and not name.startswith("chunk's updated"):
            assert not document.complete, name
    there = [*anywhere.scroll_documents("demo", batch_size=100)]
    assert len(there) == sum(document is not None for document in found)
    assert there[:2] == [long, dog]


@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "chunked"])
def test_every_payload_is_found_and_changed(
    anywhere: QdrantClient, splitting: TextEmbedding, chunked: bool
) -> None:
    if chunked:
        anywhere.set_model(splitting)
    names = fill(anywhere)
    for options in ({}, {"chunks": True}, {"limit": 1000}, {"offset": 20}):
        for hit in anywhere.query("demo", "dog", **options):
            assert isinstance(hit.document, str)
            assert type(hit.id) in (int, str)
    documents = anywhere.get_documents("demo", [*names])
    ids = [point for point, found in zip(names, documents, strict=True) if found is not None]
    anywhere.update_metadata("demo", ids, {"seen": "yes"})
    anywhere.update_metadata("demo", ids, {"deep": None})
    for found in anywhere.get_documents("demo", ids):
        assert found is not None
        assert found.metadata["seen"] == "yes"
    for how in ("skip", "overwrite"):
        stored = anywhere.add(
            "demo",
            ["a cat"] * len(ids),
            metadata=[{"seen": "yes"}] * len(ids),
            ids=ids,
            on_existing=how,
        )
        assert stored == ids
    for point, found in zip(ids, anywhere.get_documents("demo", ids), strict=True):
        assert found is not None
        assert (found.text, found.id, found.complete) == ("a cat", point, True), names[point]
    anywhere.delete_documents("demo", [*names])
    assert anywhere.get_documents("demo", [*names]) == [None] * len(names)
    assert anywhere.get_documents("demo", [1, 2]) == [
        StoredDocument(LONG, {}, id=1),
        StoredDocument("dog", {}, id=2),
    ]


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ({"document": "a cat", "deep": payloads.nested(300)}, "point 9 .* more than 200 levels"),
        ({"document": "a cat", "\ud800": 1}, "cannot be written: .* surrogates"),
        ({"document": "a \ud800"}, "Qdrant refused a request"),
    ],
    ids=["deep", "a key", "a text"],
)
def test_what_cannot_be_copied_is_named(
    payload: dict[str, Any], said: str, tmp_path: Path, tiny: TinyModel
) -> None:
    """Local mode stores anything; the embedded engine does not."""
    with opened("sync", ":memory:") as client, opened("sync", path=tmp_path / "db") as other:
        client.set_model(tiny.path)
        client.add("demo", ["dog"], ids=[1])
        vector: Any = vectors(client, 1)
        client.upsert("demo", [models.PointStruct(id=9, vector=vector, payload=payload)])
        with pytest.raises(ServerRefusal, match=said):
            client.copy_to(other)


@pytest.mark.parametrize("grpc", [False, True], ids=["rest", "grpc"])
def test_metadata_that_no_message_can_carry(grpc_server: Server, grpc: bool) -> None:
    """What `add` accepts can be read again; over gRPC not every depth can be sent."""
    with opened("sync", **at(grpc_server, grpc=grpc)) as client:
        client.set_model(LetterEncoder())
        for depth in (10, 199):
            metadata = {"deep": payloads.nested(depth)}
            if grpc and depth == 199:
                with pytest.raises(ServerRefusal, match="over gRPC, about 30 levels"):
                    client.add("demo", ["cat"], [metadata], [depth])
                continue
            client.add("demo", ["cat"], [metadata], [depth])
            [found] = client.get_documents("demo", [depth])
            assert found is not None
            assert found.metadata == metadata
            assert len(client.query("demo", "cat", limit=100)) >= 1
