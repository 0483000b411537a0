"""BM25 in collections: what the stamp says of how texts were split decides for all clients."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest
from clients import same, stamp, vectors

from qdrant_embed import CollectionMismatchError, QdrantClient, SparseTextEmbedding
from qdrant_embed.collection.selection import RecentVectors

FULL_WIDTH, PLAIN = "\uff21\uff22\uff23 ship", "abc ship"


def another(client: QdrantClient) -> QdrantClient:
    """The client as it was before a sparse model was chosen."""
    selection = client._selection
    selection._chosen = replace(
        selection._chosen,
        sparse=None,
        sparse_name=None,
        follows_sparse=True,
        recent=RecentVectors(),
    )
    return client


def terms(client: QdrantClient, point: Any) -> set[int]:
    return set(vectors(client, point)["fast-sparse-bm25"].indices)


def test_new_collections_normalise_texts(anywhere: QdrantClient) -> None:
    anywhere.set_sparse_model("Qdrant/bm25")
    typed, plain = anywhere.add("demo", [FULL_WIDTH, PLAIN])
    assert stamp(anywhere)["sparse"]["normalize_text"] is True
    assert "tokenizer" not in stamp(anywhere)["sparse"]
    assert terms(anywhere, typed) == terms(anywhere, plain)
    follower = another(anywhere)
    (late,) = follower.add("demo", [FULL_WIDTH])
    assert terms(anywhere, late) == terms(anywhere, plain)
    anywhere.set_sparse_model("Qdrant/bm25", normalize_text=False)
    with pytest.raises(CollectionMismatchError, match="normalize_text True, not False"):
        anywhere.query("demo", "abc")


def test_collections_of_before_do_not(anywhere: QdrantClient) -> None:
    anywhere.set_sparse_model("Qdrant/bm25", normalize_text=False)
    typed, plain = anywhere.add("demo", [FULL_WIDTH, PLAIN])
    assert not stamp(anywhere)["sparse"].keys() & {"normalize_text", "tokenizer"}
    assert terms(anywhere, typed) != terms(anywhere, plain)
    expected = anywhere.query("demo", FULL_WIDTH)
    follower = another(anywhere)
    assert same(follower.query("demo", FULL_WIDTH), expected)
    anywhere.set_sparse_model("Qdrant/bm25")  # which says nothing of it
    assert same(anywhere.query("demo", FULL_WIDTH), expected)
    (late,) = anywhere.add("demo", [FULL_WIDTH])
    assert terms(anywhere, late) == terms(anywhere, typed)
    expected = anywhere.query("demo", PLAIN)
    assert same(another(anywhere).query("demo", PLAIN), expected)
    anywhere.set_sparse_model("Qdrant/bm25", normalize_text=True)
    with pytest.raises(CollectionMismatchError, match="normalize_text False, not True"):
        anywhere.add("demo", ["more"])


def test_what_was_selected_is_remembered(client: QdrantClient) -> None:
    client.set_sparse_model("Qdrant/bm25", normalize_text=False)
    client.add("demo", [FULL_WIDTH])
    client.set_sparse_model("Qdrant/bm25")
    client.add("demo", [PLAIN])
    remembered = client._selection.recent.find("demo")
    assert remembered is not None
    assert remembered.sparse is not None
    assert remembered.sparse.encoder.describe().normalize_text is None


def test_pairs_of_characters_are_found_and_followed(anywhere: QdrantClient) -> None:
    anywhere.set_sparse_model("Qdrant/bm25", tokenizer="bigrams", k=1.5, average_length=20)
    park, other = anywhere.add("demo", ["今天天气很好\uff0c我们去公园", "他在家里看书"])
    assert stamp(anywhere)["sparse"]["tokenizer"] == "bigrams"
    (query,) = SparseTextEmbedding(tokenizer="bigrams").query_embed("公园")
    assert terms(anywhere, park) & set(query.indices)
    assert not terms(anywhere, other) & set(query.indices)
    expected = anywhere.query("demo", "公园")
    assert same(another(anywhere).query("demo", "公园"), expected)
    anywhere.set_sparse_model("Qdrant/bm25")
    with pytest.raises(CollectionMismatchError, match="tokenizer 'bigrams', not 'words'"):
        anywhere.query("demo", "公园")


def by_comma(text: str) -> list[str]:
    return text.split(",")


def test_a_users_own_tokenizer_is_recorded_by_name(client: QdrantClient) -> None:
    client.set_sparse_model("Qdrant/bm25", tokenizer=by_comma)
    client.add("demo", ["red,green blue"])
    assert stamp(client)["sparse"]["tokenizer"] == "custom: by_comma"
    assert client.query("demo", "green blue")
    with pytest.raises(CollectionMismatchError, match="pass the function that the collection"):
        another(client).query("demo", "red")
    client.set_sparse_model("Qdrant/bm25", tokenizer=str.split)
    wrong = r"not 'custom: str.*Pass the tokenizer that the collection was written with to set_sp"
    with pytest.raises(CollectionMismatchError, match=wrong):
        client.query("demo", "red")


def test_an_add_counts_texts_without_terms(
    client: QdrantClient, caplog: pytest.LogCaptureFixture
) -> None:
    client.set_sparse_model("Qdrant/bm25")
    with caplog.at_level(logging.WARNING):
        client.add("demo", ["the cat", "...", "the", "x" * 50, "42"], batch_size=2)
    counted = [r.getMessage() for r in caplog.records if "texts added" in r.getMessage()]
    counted = [message for message in counted if "no term" in message]
    assert len(counted) == 1
    assert "finds no term in 2 of the texts added to 'demo'" in counted[0]
    caplog.clear()
    client.add("demo", ["a ship", "..."])
    assert "no term" not in caplog.text
