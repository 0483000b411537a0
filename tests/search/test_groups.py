"""Groups of hits that share a value of their metadata."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from clients import at, opened
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rest_server import Server
from tiny import TinyModel

from qdrant_embed import (
    DocumentNotFoundError,
    EncoderDescription,
    GroupResponse,
    InputError,
    QdrantClient,
    SparseDescription,
    SparseVector,
)

BATCH = "POST /collections/demo/points/query/batch"
Values = list[Any]


class Numbers:
    """Encoders of a user's own: "q" is nearest to 0, less near to 1, and so on."""

    model_name = "mine/Numbers"
    dimension = 2

    def describe(self) -> EncoderDescription:
        return EncoderDescription(model=self.model_name, dimension=2)

    def passage_embed(self, texts: Iterable[str], /) -> NDArray[np.float32]:
        angles = np.array([0.0 if text == "q" else int(text) / 1000 for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    query_embed = passage_embed


class Reverse:
    """A sparse encoder that finds the last half of the numbers, the largest first."""

    model_name = "mine/Reverse"

    def __init__(self, first: int) -> None:
        self.first = first

    def describe(self) -> SparseDescription:
        return SparseDescription(model=self.model_name, idf=False)

    def passage_embed(self, texts: Iterable[str], /) -> list[SparseVector]:
        return [self._vector(max(0, int(text) - self.first)) for text in texts]

    def query_embed(self, query: Iterable[str], /) -> list[SparseVector]:
        return [self._vector(1) for _ in query]

    def _vector(self, value: float) -> SparseVector:
        indices = np.array([0] if value else [], np.int64)
        return SparseVector(indices, np.full(len(indices), value, np.float32))


def filled(client: QdrantClient, values: Values, *, hybrid: bool = False) -> None:
    """Write a document for each value of its ``url``, ``None`` for one without; numbers are ids."""
    client.set_model(Numbers())
    client.set_sparse_model(Reverse(len(values) // 2) if hybrid else None)
    metadata = [{} if value is None else {"url": value} for value in values]
    numbers = range(len(values))
    client.add("demo", [str(number) for number in numbers], metadata, list(numbers))


def grouped(order: Iterable[int], values: Values, limit: int, size: int) -> list[Any]:
    """Group numbers in their order by the definition of groups."""
    groups: dict[Any, list[int]] = {}
    for number in order:
        own = values[number] if isinstance(values[number], list) else [values[number]]
        for value in dict.fromkeys(own):
            if isinstance(value, int | str) and not isinstance(value, bool):
                groups.setdefault(value, []).append(number)
    return [(value, some[:size]) for value, some in list(groups.items())[:limit]]


def found(groups: Sequence[GroupResponse]) -> list[Any]:
    return [(group.value, [hit.id for hit in group.hits]) for group in groups]


VALUES: Values = [*"aabcabadeafg", None, ["a", "h"], 7, 7, "7", 1.5, True, "b", "z", 7, ["c", "c"]]


@pytest.mark.parametrize(("limit", "size"), [(10, 3), (3, 2), (1, 1), (20, 10)])
def test_groups_have_the_best_hits_of_each_value(
    unset: QdrantClient, limit: int, size: int
) -> None:
    filled(unset, VALUES)
    groups = unset.query_groups("demo", "q", limit=limit, group_by="url", group_size=size)
    assert found(groups) == grouped(range(len(VALUES)), VALUES, limit, size)
    assert groups[0].hits[0].document == "0"
    assert groups[0].hits[0].score == pytest.approx(1)
    assert groups[0].hits[0].metadata["url"] == "a"


@pytest.mark.parametrize("hybrid", [False, True])
def test_a_large_group_hides_no_others(unset: QdrantClient, hybrid: bool) -> None:
    values: Values = [*["a"] * 150, *"bcdcb", None, "e"]
    filled(unset, values, hybrid=hybrid)
    order = range(len(values))
    if hybrid:
        wide = unset.query("demo", "q", limit=len(values), prefetch_limit=len(values))
        order = [int(str(hit.id)) for hit in wide]  # type: ignore[assignment]
    options: Any = {"prefetch_limit": len(values)} if hybrid else {}
    groups = unset.query_groups("demo", "q", limit=4, group_by="url", group_size=2, **options)
    assert found(groups) == grouped(order, values, 4, 2)


def test_options_are_those_of_a_query(unset: QdrantClient) -> None:
    filled(unset, VALUES)
    some = [number for number in range(len(VALUES)) if VALUES[number] in ("a", "b", "c")]
    where = {"url": {"any": ["a", "b", "c"]}}
    groups = unset.query_groups("demo", "q", where=where, group_by="url", with_vectors=True)
    expected = [number for number in range(len(VALUES)) if {"a", "b", "c"} & {*_listed(number)}]
    assert [value for value, _ in found(groups)][:3] == ["a", "b", "c"]
    assert {hit.id for group in groups for hit in group.hits} <= set(expected)
    assert groups[0].hits[0].embedding is not None
    threshold = float(np.cos(some[4] / 1000 + 0.0005))
    near = unset.query_groups("demo", "q", group_by="url", group_size=9, score_threshold=threshold)
    assert found(near) == grouped(range(some[4] + 1), VALUES, 10, 9)
    alone = unset.query_groups("demo", like=[0], group_by="url", group_size=2, limit=2)
    assert found(alone) == grouped(range(1, len(VALUES)), VALUES, 2, 2)
    with pytest.raises(DocumentNotFoundError, match="4711"):
        unset.query_groups("demo", "q", like=[4711], group_by="url")


def _listed(number: int) -> Values:
    return VALUES[number] if isinstance(VALUES[number], list) else [VALUES[number]]


def test_values_inside_of_values(unset: QdrantClient) -> None:
    unset.set_model(Numbers())
    pages = ["x", "y", "x", "z"]
    metadata = [{"page": {"url": url, "tags": [{"t": url}, {"t": "all"}]}} for url in pages]
    unset.add("demo", list("0123"), metadata, [0, 1, 2, 3])
    groups = unset.query_groups("demo", "q", group_by="page.url")
    assert found(groups) == [("x", [0, 2]), ("y", [1]), ("z", [3])]
    groups = unset.query_groups("demo", "q", group_by="page.tags[].t", limit=2)
    assert found(groups) == [("x", [0, 2]), ("all", [0, 1, 2])]
    assert unset.query_groups("demo", "q", group_by="nothing") == []
    unset.add("demo", ["4"], [{"a.b": {"page number": "w"}}], [4])
    groups = unset.query_groups("demo", "q", group_by='"a.b"."page number"')
    assert found(groups) == [("w", [4])]


@settings(max_examples=25)
@given(
    st.lists(st.sampled_from([None, "a", "b", "c", 1, 2]), min_size=1, max_size=40),
    st.integers(1, 5),
    st.integers(1, 4),
)
def test_groups_of_any_documents(values: Values, limit: int, size: int) -> None:
    client = QdrantClient(":memory:")
    filled(client, values)
    groups = client.query_groups("demo", "q", limit=limit, group_by="url", group_size=size)
    assert found(groups) == grouped(range(len(values)), values, limit, size)


def test_documents_in_chunks_are_grouped_once(unset: QdrantClient, tiny: TinyModel) -> None:
    unset.set_model(tiny.path, max_length=16, overflow="chunk")
    texts = [f"{word} " * 40 for word in ("the cat", "a dog", "paris", "the market", "a ship")]
    metadata = [{"url": value} for value in "ababa"]
    unset.add("demo", texts, metadata, ids=[0, 1, 2, 3, 4])
    groups = unset.query_groups("demo", "cat", group_by="url", group_size=5)
    assert {group.value: sorted(hit.id for hit in group.hits) for group in groups} == {
        "a": [0, 2, 4],
        "b": [1, 3],
    }
    parts = unset.query_groups("demo", "cat", group_by="url", group_size=5, chunks=True)
    assert [len(group.hits) for group in parts] == [5, 5]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_as_a_rule_it_is_one_request(server: Server, kind: str) -> None:
    with opened(kind, **at(server)) as client:
        filled(client, list("abcabcabc") * 5)
        client.query("demo", "q")
        server.requests.clear()
        groups = client.query_groups("demo", "q", group_by="url", limit=3, group_size=3)
        assert len(groups) == 3
        assert server.requests == [BATCH]
        client.query_groups("demo", "q", group_by="url", limit=3, group_size=9)
        assert server.requests == [BATCH] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_by": ""}, r"group_by must be a key of the metadata, such as 'url', not ''"),
        ({"group_by": 3}, r"group_by must be a key"),
        ({"group_by": "page number"}, r"not 'page number'; use letters, .*double quotes"),
        ({"group_by": "page..url"}, r"separate nested names with dots"),
        ({"group_by": "url", "group_size": 0}, r"group_size"),
        ({"group_by": "url", "limit": 0}, r"limit"),
        ({"group_by": "url", "query_text": None}, r"query_text is missing"),
        ({"group_by": "url", "where": {"a": {"no": 1}}}, r"no"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options: Any, message: str) -> None:
    client = QdrantClient(":memory:")
    filled(client, ["a"])
    with pytest.raises(InputError, match=message):
        client.query_groups("demo", **{"query_text": "q", **options})
