"""Input that cannot be used is refused, by both clients, before anything is stored."""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest
from clients import stored

from qdrant_embed import Document, IngestError, InputError, QdrantClient

BAD_INPUT: list[tuple[dict[str, Any], str]] = [
    ({"documents": "hello"}, "list of str"),
    ({"documents": ["a", None]}, r"documents\[1\]"),
    ({"documents": ["a", 3]}, r"documents\[1\]"),
    ({"documents": ["a", "b"], "metadata": [{}]}, "2 documents, 1 metadata"),
    ({"documents": ["a"], "metadata": [{}, {}]}, "1 documents, 2 metadata"),
    ({"documents": ["a", "b"], "ids": [1]}, "2 documents, 1 ids"),
    ({"documents": ["a"], "ids": [1, 2]}, "1 documents, 2 ids"),
    ({"documents": ["a"], "ids": []}, "1 documents, 0 ids"),
    ({"documents": ["a"], "metadata": ["x"]}, r"metadata\[0\] must be a dict"),
    ({"documents": ["a"], "metadata": [{"document": "x"}]}, "'document'"),
    ({"documents": ["a", "b"], "metadata": [{}, {"k": {1, object()}}]}, r"metadata\[1\]\['k'\]"),
    ({"documents": [Document("a", {"price": math.nan})]}, r"metadata\[0\]\['price'\] is nan"),
    ({"documents": ["a"], "metadata": [{"k": iter("xy")}]}, r"metadata\[0\]\['k'\] is <str_"),
    ({"documents": ["a"], "ids": [1.5]}, r"ids\[0\]"),
    ({"documents": ["a", "b"], "ids": [1, 1]}, r"ids\[1\]"),
    ({"documents": ["a"], "batch_size": 0}, "batch_size"),
    ({"documents": ["a"], "max_retries": -1}, "max_retries"),
    ({"documents": ["a"], "parallel": -1}, "parallel"),
    ({"documents": ["a", "\ud800"]}, r"documents\[1\] is not valid Unicode"),
    ({"documents": ["a"], "ids": ["\ud800"]}, r"ids\[0\]: id '\\ud800' is not valid Unicode"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_INPUT)
def test_bad_input_is_refused_before_anything_is_stored(
    client: QdrantClient, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        client.add("demo", **arguments)
    assert not client.collection_exists("demo")


@pytest.mark.parametrize(
    ("arguments", "index"),
    [
        ({"documents": ["a"] * 1500 + [None]}, 1500),
        ({"documents": ["a", Document("b", {"document": 1})]}, 1),
        ({"documents": ["a"] * 3, "ids": [1, 2, 1]}, 2),
        ({"documents": ["a"] * 3, "ids": [1, 2, 1.5]}, 2),
        ({"documents": ["a"], "on_existing": "skip"}, 0),
        ({"documents": ["a"], "batch_size": 0}, None),
        ({"documents": ["a", "b"], "ids": [1]}, None),
    ],
)
def test_the_error_has_the_place_of_a_bad_document(
    client: QdrantClient, arguments: dict[str, Any], index: int | None
) -> None:
    with pytest.raises(InputError) as caught:
        client.add("demo", **arguments)
    assert caught.value.index == index
    assert pickle.loads(pickle.dumps(caught.value)).index == index


def test_iterators_of_different_lengths_are_refused(client: QdrantClient) -> None:
    with pytest.raises(InputError, match="metadata ended after 1"):
        client.add("demo", iter(["a", "b"]), iter([{}]))
    assert not client.collection_exists("demo")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"query_text": ""}, "empty"),
        ({"query_text": "  \n"}, "empty"),
        ({"query_text": None}, "query_text is missing"),
        ({"query_text": 5}, "must be a str"),
        ({"query_text": "cat", "limit": 0}, "limit"),
        ({"query_text": "cat", "limit": 2.5}, "limit"),
        ({"query_text": "cat", "timeout": -1}, "timeout"),
        ({"query_text": "cat", "consistency": "some"}, "'quorum' or 'all', not 'some'"),
        ({"query_text": "cat", "with_vectors": "yes"}, "with_vectors must be True or False"),
        ({"query_text": "cat", "chunks": 1}, "chunks must be True or False"),
        ({"query_text": "cat", "offset": -1}, "offset"),
        ({"query_text": "cat", "fusion": "sum"}, "'rrf' or 'dbsf'"),
        ({"query_text": "cat", "limit": 20, "offset": 5, "prefetch_limit": 24}, "of at least 25"),
        ({"query_text": "cat", "where": {"a": {"near": 1}}}, "near"),
        ({"query_text": "cat", "reranker": object()}, "rerank"),
        ({"query_text": "cat", "rerank_limit": 20}, "without a reranker"),
    ],
)
def test_bad_queries_are_refused(
    client: QdrantClient, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        client.query("demo", **arguments)  # which does not exist: nothing is asked of Qdrant


def test_query_texts_are_a_list(client: QdrantClient) -> None:
    with pytest.raises(InputError, match="list of str"):
        client.query_batch("demo", "cat")


def test_input_that_turns_bad_midway_says_what_is_stored(client: QdrantClient) -> None:
    texts = [*["cat"] * 3000, None, *["dog"] * 10]
    with pytest.raises(IngestError, match=r"documents\[3000\]") as caught:
        client.add("demo", (text for text in texts))  # type: ignore[misc]
    assert isinstance(caught.value.__cause__, InputError)
    assert caught.value.failed_index == len(caught.value.stored_ids) > 0
    assert set(stored(client)) == set(caught.value.stored_ids)
