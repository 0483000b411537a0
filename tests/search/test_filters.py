"""Filters as dicts: what Qdrant lets through, and what cannot be said."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
import qdrant_client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import models

from qdrant_embed import InputError, QdrantClient
from qdrant_embed.search.filters import combined, to_filter

POINTS: list[dict[str, Any]] = [
    {"source": "docs", "year": 2019, "ok": True, "score": 0.5, "tags": ["a", "b"], "price": 10},
    {"source": "wiki", "year": 2020, "ok": False, "score": 1.5, "tags": ["b"], "price": 10.0},
    {
        "source": "docs",
        "year": 2021,
        "at": "2021-05-01T12:00:00Z",
        "author": {"name": "Ann"},
        "large": 2**53 + 1,
    },
    {
        "source": None,
        "year": 2022,
        "at": "2022-05-01T12:00:00Z",
        "tags": [],
        "large": -(2**63) + 1,
    },
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
        ({"year": 2020.0}, [1]),
        ({"year": np.int64(2020)}, [1]),
        ({"year": np.float32(2020)}, [1]),
        ({"year": {"not": 2020.0}}, [0, 2, 3]),
        ({"ok": np.bool_(True)}, [0]),
        ({"year": [2019.0, 2022]}, [0, 3]),
        ({"year": [np.int32(2019), 2022]}, [0, 3]),
        ({"score": [0.5, 7]}, [0]),
        ({"price": 10}, [0, 1]),
        ({"price": 10.0}, [0, 1]),
        ({"price": [10.0]}, [0, 1]),
        ({"price": [10, 11]}, [0, 1]),
        ({"price": {"not": [10]}}, [2, 3]),
        ({"price": [np.float32(10)]}, [0, 1]),
        ({"price": {"any": [10]}}, [0, 1]),
        ({"at": {"gte": "2022-01-01"}}, [3]),
        ({"at": {"gt": "2021-05-01T14:00+02:00"}}, [3]),
        ({"at": {"gte": "2021-05-01T14:00:00.000+02"}}, [2, 3]),
        ({"at": {"lte": "2021-05-01 12:00:00z"}}, [2]),
        ({"at": {"gte": date(2021, 1, 1), "lt": "2022-01-01T00:00:00Z"}}, [2]),
        ({"tags": {"any": ["a", "x"]}}, [0]),
        ({"tags": {"all": ["a", "b"]}}, [0]),
        ({"tags": {"all": ["b"], "not": "a"}}, [1]),
        ({"tags": {"not": {"all": ["a", "b"]}}}, [1, 2, 3]),
        ({"year": {"not": {"gte": 2020, "not": 2021}}}, [0, 2]),
        ({"author.name": {"text": "ANN"}}, [2]),
        ({"or": [{"year": 2019}, {"source": "wiki"}]}, [0, 1]),
        ({"and": [{"tags": "a"}, {"tags": "b"}]}, [0]),
        ({"not": {"or": [{"year": 2019}, {"year": 2020}]}}, [2, 3]),
        ({"or": [{"year": 2019}, {"year": 2021}], "source": "docs", "ok": True}, [0]),
        ({'"or"': "x"}, []),
        ({"price": {"not": 10}}, [2, 3]),
        ({"price": {"gte": 10}}, [0, 1]),
        ({"large": 2**53 + 1}, [2]),
        ({"large": -(2**63) + 1}, [3]),
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
        ({"a": ["x", 1]}, "list of str, or of numbers"),
        ({"a": [True]}, "list of str, or of numbers"),
        ({"a": [1.5, float("nan")]}, "list of str, or of numbers"),
        ({"a": 10**400}, "a finite number"),
        ({"a": {"gt": 10**400}}, "a finite number"),
        ({"a": {"gte": "2020"}}, "a finite number, a datetime"),
        ({"a": {"gte": "2024-02-30"}}, "ISO 8601"),
        ({"a": {"gte": "2024-02-01T12"}}, "ISO 8601"),
        ({"a": {"gte": "0001-01-01T00:00:00+05:00"}}, "ISO 8601"),
        ({"a": {"gte": "2024-02-01", "lt": 3}}, "all numbers, or all dates"),
        ({"a": {"$in": [1]}}, "pass a list"),
        ({"a": {"in": [1]}}, "pass a list"),
        ({"a": {"contains": "x"}}, "an item of a list"),
        ({"$or": [{"a": 1}]}, "write it 'or'"),
        ({"a": {"or": [1, 2]}}, "in place of a key"),
        ({"or": []}, "a list of dicts"),
        ({"or": {"a": 1}}, "a list of dicts"),
        ({"and": [{}]}, "a list of dicts"),
        ({"not": {}}, "a dict with conditions"),
        ({"not": "x"}, "put metadata of this name in double quotes"),
        ({"a": {"any": "x"}}, "any must be a list"),
        ({"a": {"all": []}}, "empty list"),
        ({"a": {"all": [[1]]}}, "list of str, or of numbers"),
        ({"a": {"text": " ?"}}, "text must be a str with words"),
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


NAMES = st.from_regex(re.compile(r'\A(\w+|"[^"]+")(\[\d*\])?(\.[\w-]+)*\Z', re.ASCII)).filter(
    lambda name: name not in ("or", "and", "not")
)


@given(st.dictionaries(NAMES, st.text() | st.booleans()))
def test_any_equalities_are_one_condition_each(where: dict[str, Any]) -> None:
    must = to_filter(where).must
    assert isinstance(must, list)
    assert [(c.key, c.match.value) for c in must] == list(where.items())  # type: ignore[union-attr]


NUMBERS = st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)


def conditions(found: Any) -> Iterator[models.FieldCondition]:
    """The conditions of fields in a filter."""
    if isinstance(found, models.FieldCondition):
        yield found
    elif found is not None:
        for part in (found.must, found.should, found.must_not):
            for condition in part or []:
                yield from conditions(condition)


def fits(found: models.Filter, stored: float) -> bool:
    """Whether Qdrant lets a number through, by its own rule for each condition."""
    (condition,) = conditions(found)
    if condition.match is not None:
        return condition.match.value == stored  # type: ignore[union-attr]
    bounds = condition.range
    assert isinstance(bounds, models.Range)
    return (
        (bounds.gte is None or stored >= bounds.gte)
        and (bounds.gt is None or stored > bounds.gt)
        and (bounds.lte is None or stored <= bounds.lte)
        and (bounds.lt is None or stored < bounds.lt)
    )


@given(NUMBERS)
def test_a_number_is_found_where_a_server_has_rounded_it(number: int | float) -> None:
    stored = [number]
    if isinstance(number, float) and not (number.is_integer() and abs(number) <= 2**53):
        stored += [math.nextafter(number, math.inf), math.nextafter(number, -math.inf)]
    for value in stored:
        if math.isfinite(value):
            assert fits(to_filter({"a": number}), value)
            assert fits(to_filter({"a": {"gte": number}}), value)
            assert fits(to_filter({"a": {"lte": number}}), value)
            if abs(number) <= 2**53 or (isinstance(number, float) and abs(number) < 1e308):
                assert not fits(to_filter({"a": {"gt": number}}), value)
                assert not fits(to_filter({"a": {"lt": number}}), value)
    if abs(number) <= 2**52:
        assert not fits(to_filter({"a": number}), number + 1)


@given(st.lists(NUMBERS, min_size=1))
def test_numbers_need_the_index_that_is_named(numbers: list[int | float]) -> None:
    for number in numbers:
        (condition,) = conditions(to_filter({"a": number}))
        assert (condition.range is None) == (isinstance(number, int) and abs(number) > 2**53)
    found = list(conditions(to_filter({"a": numbers})))
    assert len(found) == len(numbers)


def test_a_float_is_found_on_every_store(anywhere: QdrantClient) -> None:
    values = [1.5777777777770001, 0.1 + 0.2, 1e-7 / 3, -2.0000000000000004, 1e300 / 7, 0.1]
    anywhere.add("demo", ["cat"] * len(values), [{"x": value} for value in values])
    for value in values:
        (hit,) = anywhere.query("demo", "cat", where={"x": value})
        assert hit.metadata["x"] == pytest.approx(value, rel=1e-15)
        assert len(anywhere.query("demo", "cat", where={"x": {"not": value}})) == len(values) - 1


SCALARS = (
    st.sampled_from(["a", "b c", "2024-02-01", "2024-02-01T12:00:00Z"])
    | st.integers(-2, 2)
    | st.sampled_from([-1.0, 0.5, 1.0, 2.0])
    | st.booleans()
)
METADATA = st.fixed_dictionaries(
    {}, optional={key: SCALARS | st.lists(SCALARS, max_size=3) for key in "xy"}
)
NUMBER = st.integers(-2, 2) | st.sampled_from([-1.0, 0.5, 1.0, np.float32(2), np.int64(1)])
WORDS = st.sampled_from(["a", "b", "b c", "C b"])
TEXTS = st.sampled_from(["a", "b c", "2024-02-01"])
DAYS = st.sampled_from(["2024-02-01", "2024-02-01T13:00+01:00", "2024-02-02", date(2024, 2, 1)])
SETS = st.lists(NUMBER, min_size=1, max_size=3) | st.lists(TEXTS, min_size=1, max_size=3)
BOUND = st.sampled_from(["gt", "gte", "lt", "lte"])
INNER = st.recursive(
    NUMBER
    | TEXTS
    | st.booleans()
    | SETS
    | st.dictionaries(BOUND, NUMBER, min_size=1)
    | st.dictionaries(BOUND, DAYS, min_size=1)
    | st.fixed_dictionaries({"any": SETS})
    | st.fixed_dictionaries({"all": SETS})
    | st.fixed_dictionaries({"text": WORDS})
    | st.fixed_dictionaries({"exists": st.booleans()}),
    lambda inner: st.fixed_dictionaries({"not": inner}),
    max_leaves=2,
)
WHERE = st.recursive(
    st.dictionaries(st.sampled_from("xy"), INNER, min_size=1),
    lambda inner: (
        st.fixed_dictionaries({"not": inner})
        | st.fixed_dictionaries({"or": st.lists(inner, min_size=1, max_size=3)})
        | st.fixed_dictionaries({"and": st.lists(inner, min_size=1, max_size=3)})
    ),
    max_leaves=4,
)
COMPARED = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}


def moment(text: Any) -> datetime | None:
    """The moment of the dates above."""
    known = {"2024-02-01": 0, "2024-02-01T12:00:00Z": 12, "2024-02-01T13:00+01:00": 12}
    hours = {**known, "2024-02-02": 24}.get(str(text))
    return None if hours is None else datetime(2024, 2, 1) + timedelta(hours=hours)


def same(one: Any, other: Any) -> bool:
    kinds = [isinstance(value, bool | np.bool_) for value in (one, other)]
    return kinds[0] == kinds[1] and bool(one == other)


def holds(metadata: dict[str, Any], where: dict[str, Any]) -> bool:
    """Whether the filter matches, by plain Python."""
    return all(
        any(holds(metadata, part) for part in inner)
        if key == "or"
        else all(holds(metadata, part) for part in inner)
        if key == "and"
        else not holds(metadata, inner)
        if key == "not"
        else holds_of(metadata.get(key, []), inner)
        for key, inner in where.items()
    )


def holds_of(stored: Any, inner: Any) -> bool:
    items = stored if isinstance(stored, list) else [stored]
    if not isinstance(inner, dict):
        wanted = inner if isinstance(inner, list) else [inner]
        return any(same(item, value) for item in items for value in wanted)
    bounds = {name: inner[name] for name in COMPARED if name in inner}
    if bounds:
        return any(all(compares(item, n, bound) for n, bound in bounds.items()) for item in items)
    ((name, operand),) = inner.items()
    if name == "not":
        return not holds_of(stored, operand)
    if name == "exists":
        return operand is bool(items)
    if name == "text":
        words = set(operand.lower().split())
        texts = [item for item in items if isinstance(item, str)]
        return any(words <= set(re.findall("[a-z0-9]+", text.lower())) for text in texts)
    matches = [any(same(item, value) for item in items) for value in operand]
    return any(matches) if name == "any" else all(matches)


def compares(item: Any, name: str, bound: Any) -> bool:
    if isinstance(bound, str | date):
        stored, limit = moment(item), moment(bound)
        return stored is not None and limit is not None and bool(COMPARED[name](stored, limit))
    number = isinstance(item, int | float) and not isinstance(item, bool)
    return number and bool(COMPARED[name](item, bound))


@settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(METADATA, min_size=1, max_size=8), st.lists(WHERE, min_size=8, max_size=8))
def test_every_store_answers_as_plain_python_does(
    anywhere: QdrantClient, metadata: list[dict[str, Any]], filters: list[dict[str, Any]]
) -> None:
    if anywhere.collection_exists("demo"):
        anywhere.delete_collection("demo")
    ids = anywhere.add("demo", ["cat"] * len(metadata), metadata)
    for where in filters:
        found = {hit.id for hit in anywhere.query("demo", "cat", where=where, limit=10)}
        expected = {i for i, one in zip(ids, metadata, strict=True) if holds(one, where)}
        assert found == expected, (where, metadata)
