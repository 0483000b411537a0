"""Filters as dicts: what Qdrant lets through, and what cannot be said."""

from __future__ import annotations

import re
from datetime import date, datetime, timezone
from typing import Any

import pytest
import qdrant_client
from hypothesis import given
from hypothesis import strategies as st
from qdrant_client import models

from qdrant_embed import InputError
from qdrant_embed.search.filters import combined, to_filter

POINTS: list[dict[str, Any]] = [
    {"source": "docs", "year": 2019, "ok": True, "score": 0.5, "tags": ["a", "b"]},
    {"source": "wiki", "year": 2020, "ok": False, "score": 1.5, "tags": ["b"]},
    {"source": "docs", "year": 2021, "at": "2021-05-01T12:00:00Z", "author": {"name": "Ann"}},
    {"source": None, "year": 2022, "at": "2022-05-01T12:00:00Z", "tags": []},
]


@pytest.fixture(scope="module")
def database() -> qdrant_client.QdrantClient:
    client = qdrant_client.QdrantClient(":memory:")
    client.create_collection("demo", vectors_config={})
    client.upsert(
        "demo",
        [models.PointStruct(id=i, vector={}, payload=payload) for i, payload in enumerate(POINTS)],
    )
    return client


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, [0, 1, 2, 3]),
        ({"source": "docs"}, [0, 2]),
        ({"year": 2020}, [1]),
        ({"ok": True}, [0]),
        ({"ok": False}, [1]),
        ({"score": 1.5}, [1]),
        ({"source": "docs", "year": {"gte": 2020}}, [2]),
        ({"source": ["docs", "wiki"]}, [0, 1, 2]),
        ({"year": (2019, 2022)}, [0, 3]),
        ({"tags": "b"}, [0, 1]),
        ({"tags": {"a"}}, [0]),
        ({"year": {"gt": 2019, "lt": 2022}}, [1, 2]),
        ({"year": {"gte": 2019, "lte": 2020}}, [0, 1]),
        ({"score": {"gt": 0.5}}, [1]),
        ({"at": {"gte": datetime(2022, 1, 1, tzinfo=timezone.utc)}}, [3]),
        ({"at": {"gt": date(2021, 1, 1), "lt": date(2022, 1, 1)}}, [2]),
        ({"at": datetime(2021, 5, 1, 12, tzinfo=timezone.utc)}, [2]),
        ({"source": {"not": "docs"}}, [1, 3]),
        ({"source": {"not": ["docs", "wiki"]}}, [3]),
        ({"year": {"not": {"gte": 2020}}}, [0]),
        ({"year": {"gte": 2020, "not": 2021}}, [1, 3]),
        ({"source": {"not": {"not": "docs"}}}, [0, 2]),
        ({"year": {"not": {"gte": 2020, "lt": 2022}}}, [0, 3]),
        ({"author.name": "Ann"}, [2]),
        ({'author."name"': "Ann"}, [2]),
        ({"tags[]": "a"}, [0]),
        ({"tags": {"exists": True}}, [0, 1]),
        ({"tags": {"exists": False}}, [2, 3]),
        ({"source": None}, [3]),
        ({"source": {"not": None}}, [0, 1, 2]),
    ],
)
def test_what_gets_through(
    database: qdrant_client.QdrantClient, where: dict[str, Any], expected: list[int]
) -> None:
    points, _ = database.scroll("demo", scroll_filter=to_filter(where))
    assert [point.id for point in points] == expected


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("source", "where must be a dict"),
        ({1: "x"}, "names of metadata"),
        ({"": "x"}, "names of metadata"),
        ({"a": {"near": 3}}, "unknown operator 'near'; use one of gt, gte, lt, lte, not, exists"),
        ({"a": {"b": 3}}, r"'a\.b'"),
        ({"a": {"$gte": 3}}, "write it 'gte'"),
        ({"a[": 1}, r"key 'a\[', which is not a valid name in Qdrant"),
        ({"page number": 1}, "put the name in double quotes"),
        ({"a.": {"not": 1}}, "not a valid name in Qdrant"),
        ({"a": {}}, "is empty"),
        ({"a": []}, "empty list"),
        ({"a": ["x", 1]}, "list of str, or of whole numbers"),
        ({"a": [True]}, "list of str, or of whole numbers"),
        ({"a": [1.5]}, "list of str, or of whole numbers"),
        ({"a": {"gte": "2020"}}, "a finite number, a datetime"),
        ({"a": {"gte": True}}, "a finite number"),
        ({"a": {"gte": 1, "lt": date(2020, 1, 1)}}, "a finite number"),
        ({"a": float("nan")}, "a finite number"),
        ({"a": {"gt": float("inf")}}, "a finite number"),
        ({"a": b"x"}, "use a str"),
        ({"a": {"exists": 1}}, "True or False"),
        ({"a": {"not": {"near": 3}}}, "near"),
    ],
)
def test_what_cannot_be_said_is_refused(where: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        to_filter(where)


def test_both_filters_must_fit(database: qdrant_client.QdrantClient) -> None:
    own = models.Filter(should=[models.HasIdCondition(has_id=[0, 1])])
    points, _ = database.scroll("demo", scroll_filter=combined(own, {"source": "docs"}))
    assert [point.id for point in points] == [0]
    assert combined(own, None) is own
    assert combined(None, None) is None


NAMES = st.from_regex(re.compile(r'\A(\w+|"[^"]+")(\[\d*\])?(\.[\w-]+)*\Z', re.ASCII))


@given(st.dictionaries(NAMES, st.text() | st.integers() | st.booleans()))
def test_any_equalities_are_one_condition_each(where: dict[str, Any]) -> None:
    must = to_filter(where).must
    assert isinstance(must, list)
    assert [(c.key, c.match.value) for c in must] == list(where.items())  # type: ignore[union-attr]
