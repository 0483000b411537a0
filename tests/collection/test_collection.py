"""What a collection says of itself, and whether an encoder fits it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from qdrant_client import models

from qdrant_embed import CollectionMismatchError, EncoderDescription
from qdrant_embed.client import QdrantClient
from qdrant_embed.collection.options import CollectionOptions
from qdrant_embed.collection.stamp import STAMP_KEY, stamp_of
from qdrant_embed.collection.stored import (
    StoredCollection,
    check_collection,
    check_is_stamped,
    read_collection,
    sparse_field_name,
    vector_field_name,
)

ENCODER = EncoderDescription(
    model="owner/Model",
    dimension=4,
    weights_sha256="a" * 64,
    pooling="mean",
    query_prefix="query: ",
    document_prefix="passage: ",
    max_tokens=256,
    overflow="truncate",
)


def stored(
    encoder: EncoderDescription = ENCODER, vector_name: str = "fast-model", **metadata: Any
) -> StoredCollection:
    """The collection as a real local Qdrant describes it."""
    client = QdrantClient(":memory:")
    stamp = stamp_of(encoder, vector_name).metadata()
    client.create_collection(
        "demo",
        **CollectionOptions().creation(encoder, vector_name),
        metadata=stamp | metadata,
    )
    return read_collection("demo", client.get_collection("demo"))


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("BAAI/bge-small-en-v1.5", "fast-bge-small-en-v1.5"),
        ("sentence-transformers/all-MiniLM-L6-v2", "fast-all-minilm-l6-v2"),
        ("/models/Mine", "fast-mine"),
    ],
)
def test_vector_names_are_the_predecessors(model: str, name: str) -> None:
    assert vector_field_name(model) == name
    assert sparse_field_name(model) == name.replace("fast-", "fast-sparse-")


def test_a_stamp_comes_back_as_it_was_written() -> None:
    collection = stored()
    assert collection.stamp == stamp_of(ENCODER, "fast-model")
    assert collection.is_empty
    assert check_collection(collection, ENCODER) == "fast-model"


def test_equal_weights_are_one_model_by_any_name() -> None:
    assert check_collection(stored(), replace(ENCODER, model="/copied/elsewhere")) == "fast-model"


def test_names_without_weights_are_compared_without_case() -> None:
    bare = EncoderDescription(model="owner/model", dimension=4)
    assert check_collection(stored(), bare) == "fast-model"
    with pytest.raises(CollectionMismatchError, match="model 'owner/Model', not 'other'"):
        check_collection(stored(), replace(bare, model="other"))


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("weights_sha256", "b" * 64),
        ("dimension", 5),
        ("distance", "Dot"),
        ("pooling", "cls"),
        ("query_prefix", ""),
        ("document_prefix", ""),
        ("max_tokens", 512),
    ],
)
def test_every_fact_that_changes_vectors_is_compared(change: str, value: Any) -> None:
    with pytest.raises(CollectionMismatchError, match=change) as caught:
        check_collection(stored(), replace(ENCODER, **{change: value}))
    assert caught.value.expected == {change: value}
    assert caught.value.found == {change: getattr(ENCODER, change)}
    assert "set_model" in str(caught.value)


def test_facts_not_stated_fit_anything() -> None:
    silent = replace(ENCODER, pooling=None, query_prefix=None, max_tokens=None)
    assert check_collection(stored(), silent) == "fast-model"
    assert check_collection(stored(silent), ENCODER) == "fast-model"


@pytest.mark.parametrize("stamp", ["text", {"version": 1}, {"vector_name": 3}])
def test_a_stamp_that_cannot_be_read_is_an_error(stamp: Any) -> None:
    with pytest.raises(CollectionMismatchError, match="cannot be read"):
        stored(**{STAMP_KEY: stamp})


def test_a_stamp_of_a_later_version_asks_for_an_upgrade() -> None:
    later = stamp_of(ENCODER, "fast-model").metadata()[STAMP_KEY] | {"version": 2, "new": "fact"}
    with pytest.raises(CollectionMismatchError, match="upgrade"):
        stored(**{STAMP_KEY: later})


def hand_made(config: Any) -> StoredCollection:
    client = QdrantClient(":memory:")
    client.create_collection("demo", vectors_config=config)
    return read_collection("demo", client.get_collection("demo"))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "no dense vector"),
        ({"mine": models.VectorParams(size=4, distance=models.Distance.COSINE)}, "'mine'"),
        (
            {"fast-model": models.VectorParams(size=5, distance=models.Distance.COSINE)},
            "has 5 dimensions .* needs 4",
        ),
        (
            {"fast-model": models.VectorParams(size=4, distance=models.Distance.DOT)},
            "distance Dot",
        ),
    ],
)
def test_a_collection_made_by_hand_must_have_the_vector(config: Any, message: str) -> None:
    with pytest.raises(CollectionMismatchError, match=message):
        check_collection(hand_made(config), ENCODER)


def test_an_unnamed_vector_is_taken_where_there_is_no_other() -> None:
    unnamed = models.VectorParams(size=4, distance=models.Distance.COSINE)
    assert check_collection(hand_made(unnamed), ENCODER) == ""
    assert check_collection(hand_made(unnamed), ENCODER, "") == ""
    with pytest.raises(CollectionMismatchError, match=r"no vector 'text'.*one unnamed vector"):
        check_collection(hand_made(unnamed), ENCODER, "text")
    both = {"": unnamed, "fast-model": unnamed}
    assert check_collection(hand_made(both), ENCODER) == "fast-model"
    assert check_collection(stored(), ENCODER, "text") == "fast-model"  # as the stamp says


def test_a_server_that_keeps_no_metadata_is_called_too_old() -> None:
    check_is_stamped(stored())
    with pytest.raises(CollectionMismatchError, match=r"Qdrant 1\.16"):
        check_is_stamped(hand_made({}))
