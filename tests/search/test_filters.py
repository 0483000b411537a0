"""Filters as dicts: what Qdrant lets through, and what cannot be said."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterator
from datetime import date, datetime, timezone
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import qdrant_client
from clients import LetterEncoder
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from qdrant_client import models

from qdrant_embed import InputError, QdrantClient, ServerRefusal
from qdrant_embed.search.filters import combined, fields_of, to_filter

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
        ({"tags": {"any": ["a", "b"]}}, [0, 1]),
        ({"tags": {"all": ["a", "b"]}}, [0]),
        ({"price": np.array([10.0])}, [0, 1]),
        ({"at": {"gte": "2022-01-01"}}, [3]),
        ({"at": {"gte": "2021-05-01T14:00:00+02:00", "lt": date(2022, 1, 1)}}, [2]),
        ({"at": {"lte": "2021-05-01 12:00"}}, [2]),
        ({"at": [date(2021, 5, 1), datetime(2022, 5, 1, 12)]}, [3]),
        ({"at": {"gte": np.datetime64("2022-01-01")}}, [3]),
        ({"at": np.datetime64("2021-05-01T12:00:00.000000000")}, [2]),
        ({"at": np.array(["2021-05-01T12", "2022-05-01T12"], "M8[h]")}, [2, 3]),
        ({"author.name": {"text": "Ann"}}, [2]),
        ({"or": [{"year": 2019}, {"ok": False}]}, [0, 1]),
        ({"and": [{"source": "docs"}, {"year": 2021}]}, [2]),
        ({"not": {"source": "docs", "year": 2021}}, [0, 1, 3]),
        ({"year": {"not": {"gte": 2020, "not": 2021}}}, [0, 2]),
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
        ({"a": {"near": 3}}, "unknown operator 'near'; use one of gt, gte, lt, lte, any"),
        ({"a": {"b": 3}}, r"'a\.b'"),
        ({"a": {"$gte": 3}}, "write it 'gte'"),
        ({"a[": 1}, r"key 'a\[', which is not a valid name in Qdrant"),
        ({"page number": 1}, "put the name in double quotes"),
        ({"a.": {"not": 1}}, "not a valid name in Qdrant"),
        ({"a": {}}, "is empty"),
        ({"a": []}, "empty list"),
        ({"a": ["x", 1]}, "list of str, of numbers or of dates"),
        ({"a": [True]}, "list of str, of numbers or of dates"),
        ({"a": [1.5, float("nan")]}, "list of str, of numbers or of dates"),
        ({"a": 10**400}, "a finite number"),
        ({"a": {"gt": 10**400}}, "a finite number"),
        ({"a": {"gte": "2020"}}, "text '2020', which is not a date.*write 2020 without quotes"),
        ({"a": {"gte": "2020-13-01"}}, "not a date"),
        ({"a": {"gte": "soon"}}, "not a date"),
        ({"a": {"gte": 1, "lt": "2020-01-01"}}, "all numbers or all dates"),
        ({"a": {"gte": "0001-01-01T00:00:00+02:00"}}, "not in the years 1 to 9999"),
        ({"a": {"$in": ["x"]}}, "write {'any'"),
        ({"a": {"contains": "x"}}, "write the value itself"),
        ({"a": {"$nin": ["x"]}}, "write {'not'"),
        ({"a": {">=": 1}}, "write it 'gte'"),
        ({"$or": [{"a": 1}]}, "write {'or'"),
        ({"OR": [{"a": 1}]}, "write {'or'"),
        ({"must": [{"a": 1}]}, "write {'and'"),
        ({"or": []}, "list of dicts"),
        ({"or": {"a": 1}}, "list of dicts"),
        ({"and": "x"}, "for metadata called 'and'"),
        ({"not": "x"}, "for metadata called 'not'"),
        ({"not": {}}, "dict with a filter"),
        ({"or": [3]}, r"where\['or'\]\[0\] must be a dict"),
        ({"a": {"any": "x"}}, "any must be a list"),
        ({"a": {"all": []}}, "empty list"),
        ({"a": {"text": ""}}, "text must be a str"),
        ({"a": {"text": 3}}, "text must be a str"),
        ({"a": "\ud800"}, "not valid Unicode"),
        ({"a": ["x", "\ud800"]}, "not valid Unicode"),
        ({"a": {"text": "x\ud800"}}, "not valid Unicode"),
        ({"a": {"gte": "\ud800"}}, "not valid Unicode"),
        ({'"\ud800"': "x"}, "not valid Unicode"),
        ({"or": [{"a": "\udfff"}]}, "not valid Unicode"),
        ({"a": np.datetime64("NaT", "s")}, "which is not supported"),
        ({"a": {"gte": np.datetime64("20000-01-01")}}, "which is not supported"),
        ({"a": {"gte": np.datetime64("2022-01-01T00:00:00.000000001")}}, "which is not supported"),
        ({"a": [np.datetime64("NaT", "s")]}, "list of str, of numbers or of dates"),
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
@example(2**53 + 1)
@example(-(2**53) - 1)
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
    assert len(list(conditions(to_filter({"a": numbers})))) == len(numbers)


def test_equal_numbers_are_equal_in_lists_too(anywhere: QdrantClient) -> None:
    anywhere.add("demo", ["cat"] * 4, [{"x": x} for x in (10, 10.0, 11.0, "10")], range(4))
    for where, ids in (
        ([10], {0, 1}),
        ([10.0], {0, 1}),
        ([10, 11], {0, 1, 2}),
        ({"any": [11]}, {2}),
        ({"not": [10]}, {2, 3}),
    ):
        assert {hit.id for hit in anywhere.query("demo", "cat", where={"x": where})} == ids


def test_a_float_is_found_on_every_store(anywhere: QdrantClient) -> None:
    values = [1.5777777777770001, 0.1 + 0.2, 1e-7 / 3, -2.0000000000000004, 1e300 / 7, 0.1]
    anywhere.add("demo", ["cat"] * len(values), [{"x": value} for value in values])
    for value in values:
        (hit,) = anywhere.query("demo", "cat", where={"x": value})
        assert hit.metadata["x"] == pytest.approx(value, rel=1e-15)
        assert len(anywhere.query("demo", "cat", where={"x": {"not": value}})) == len(values) - 1


def test_a_filter_at_which_local_mode_stumbles_is_refused(client: QdrantClient) -> None:
    client.add("demo", ["cat"], [{"geo": {"lat": 1.0, "lon": 2.0}}])
    nowhere = models.GeoPolygon(exterior=models.GeoLineString(points=[]))
    within = models.Filter(must=[models.FieldCondition(key="geo", geo_polygon=nowhere)])
    with pytest.raises(ServerRefusal, match=r"'demo' \(IndexError: .*\); check what it asks"):
        client.query("demo", "cat", within)
    with pytest.raises(ServerRefusal, match="such as its filter"):
        client.query_batch("demo", ["cat"], within)


class Overridden(QdrantClient):
    """A client whose user overrode a method, with a bug in it."""

    def query_batch_points(self, *args: Any, **kwargs: Any) -> Any:
        raise KeyError("the bug")


def test_a_bug_in_an_overridden_method_is_raised_as_it_is() -> None:
    client = Overridden(":memory:")
    client.set_model(LetterEncoder())
    client.add("demo", ["cat"])
    with pytest.raises(KeyError, match="the bug"):
        client.query("demo", "cat")


def test_a_filter_that_refers_to_itself_is_refused() -> None:
    where: dict[str, Any] = {}
    where["not"] = where
    with pytest.raises(InputError, match="nested in more than 12 levels"):
        to_filter(where)


def test_the_deepest_filter_passes_on_every_store(anywhere: QdrantClient) -> None:
    anywhere.add("demo", ["cat", "dog"], [{"x": 1}, {"x": 2}])
    where: dict[str, Any] = {"x": 1}
    for _ in range(10):
        where = {"not": where}
    assert len(anywhere.query("demo", "cat", where=where)) == 1
    where = {"x": 1}
    for _ in range(5):
        where = {"or": [where]}
    assert len(anywhere.query("demo", "cat", where=where)) == 1


DAYS = ["2024-01-31", "2024-02-01T10:00:00Z", "2024-02-01T10:00:00+02:00", "2024-03-01 00:00:00"]
SCALARS = st.sampled_from([0, 1, 1.0, 2.5, -3, True, False, "cat", "dog", "2", *DAYS])
VALUES = (
    SCALARS | st.none() | st.lists(SCALARS, max_size=3)
)  # a null in a list depends on the store
NESTED = st.fixed_dictionaries({"c": VALUES})
METADATA = st.dictionaries(
    st.sampled_from(["a", "b"]),
    VALUES | NESTED | st.lists(NESTED, min_size=1, max_size=2),
    max_size=2,
)
KEYS = st.sampled_from(["a", "b", "a.c", "b.c", "a[].c", '"a"."c"'])
ORDER = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}
LISTS = st.lists(st.sampled_from(["cat", "dog", "2"]), min_size=1, max_size=2) | st.lists(
    st.sampled_from([1.0, 2.5, -3.0]), min_size=1, max_size=2
)
LEAVES = (
    SCALARS
    | st.none()
    | LISTS
    | st.fixed_dictionaries({"any": LISTS})
    | st.fixed_dictionaries({"all": LISTS})
    | st.fixed_dictionaries({"text": st.sampled_from(["cat", "dog"])})
    | st.fixed_dictionaries({"exists": st.booleans()})
    | st.dictionaries(st.sampled_from(list(ORDER)), st.sampled_from([0, 1, 2.5]), min_size=1)
    | st.dictionaries(st.sampled_from(list(ORDER)), st.sampled_from(DAYS), min_size=1)
)
FIELDS = st.dictionaries(KEYS, LEAVES | st.fixed_dictionaries({"not": LEAVES}), max_size=2)
FILTERS = st.recursive(
    FIELDS,
    lambda inner: (
        st.fixed_dictionaries({"or": st.lists(inner, min_size=1, max_size=2)})
        | st.fixed_dictionaries({"and": st.lists(inner, min_size=1, max_size=2)})
        | st.fixed_dictionaries({"not": inner.filter(bool)})
    ),
    max_leaves=3,
)


def moment(text: Any) -> datetime | None:
    """The moment of a date in text, without help from the code under test."""
    if text not in DAYS:
        return None
    found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


def equal(stored: Any, value: Any) -> bool:
    return isinstance(stored, bool) == isinstance(value, bool) and bool(stored == value)


def within(stored: Any, bounds: dict[str, Any]) -> bool:
    for name, bound in bounds.items():
        if isinstance(bound, str):
            one, other = moment(stored), moment(bound)
            if one is None or other is None or not ORDER[name](one, other):
                return False
        elif type(stored) not in (int, float) or not ORDER[name](stored, bound):
            return False
    return True


def values_at(metadata: dict[str, Any], key: str) -> list[Any]:
    """What there is under a key with dots, without help from the code under test."""
    name, _, inner = key.replace('"', "").partition(".")
    found = metadata.get(name.removesuffix("[]"), [])
    if not inner:
        return [found]
    of_list = name.endswith("[]")
    parts = found if of_list and isinstance(found, list) else [] if of_list else [found]
    return [part[inner] for part in parts if isinstance(part, dict)]


def holds(metadata: dict[str, Any], key: str, condition: Any) -> bool:
    """Whether a condition holds, evaluated in plain Python."""
    values = values_at(metadata, key)
    items = [item for value in values for item in (value if isinstance(value, list) else [value])]
    if condition is None:
        return None in values
    if isinstance(condition, list):
        return any(equal(item, one) for item in items for one in condition)
    if not isinstance(condition, dict):
        return any(equal(item, condition) for item in items)
    if "not" in condition:
        return not holds(metadata, key, condition["not"])
    if "exists" in condition:
        return any(value not in (None, []) for value in values) is condition["exists"]
    if "any" in condition:
        return holds(metadata, key, condition["any"])
    if "all" in condition:
        return all(holds(metadata, key, one) for one in condition["all"])
    if "text" in condition:
        return condition["text"] in [item for item in items if isinstance(item, str)]
    return any(within(item, condition) for item in items)


def matches(metadata: dict[str, Any], where: dict[str, Any]) -> bool:
    """Whether a filter matches, evaluated in plain Python."""
    return all(
        any(matches(metadata, part) for part in inner)
        if key == "or"
        else all(matches(metadata, part) for part in inner)
        if key == "and"
        else not matches(metadata, inner)
        if key == "not"
        else holds(metadata, key, inner)
        for key, inner in where.items()
    )


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(METADATA, min_size=1, max_size=6), st.lists(FILTERS, min_size=1, max_size=4))
def test_a_filter_finds_what_python_finds(
    anywhere: QdrantClient, rows: list[dict[str, Any]], filters: list[dict[str, Any]]
) -> None:
    name = f"demo-{uuid4().hex}"
    anywhere.add(name, ["cat"] * len(rows), rows, ids=range(len(rows)))
    for where in filters:
        found = {hit.id for hit in anywhere.query(name, "cat", where=where)}
        assert found == {i for i, row in enumerate(rows) if matches(row, where)}, where
    anywhere.delete_collection(name)


@pytest.mark.parametrize(
    ("where", "fields"),
    [
        ({"a": 1}, {"a": "integer"}),
        ({"a": 1.5}, {"a": "float"}),
        ({"a": {"gte": 1, "lt": 2.5}}, {"a": "float"}),
        ({"a": [1, 2]}, {"a": "integer"}),
        ({"a": 2**60}, {"a": "integer"}),
        ({"a": True}, {"a": "bool"}),
        ({"a": "x", "b.c[].d": ["x", "y"]}, {"a": "keyword", "b.c[].d": "keyword"}),
        ({"a": {"text": "x"}}, {"a": "text"}),
        ({"a": date(2024, 2, 1)}, {"a": "datetime"}),
        ({"or": [{"a": {"not": 1}}, {"not": {"b": "x"}}]}, {"a": "integer", "b": "keyword"}),
        ({"a": None, "b": {"exists": True}}, {}),
        ({}, {}),
    ],
)
def test_the_fields_of_a_filter_and_their_kinds(
    where: dict[str, Any], fields: dict[str, str]
) -> None:
    assert fields_of(to_filter(where)) == fields


def test_the_fields_of_any_filter_of_qdrants() -> None:
    def match(key: str) -> models.FieldCondition:
        return models.FieldCondition(key=key, match=models.MatchExcept(**{"except": ["x"]}))

    centre = models.GeoPoint(lon=0, lat=0)
    nested = models.Nested(key="parts", filter=models.Filter(must=match("name")))
    condition = models.Filter(
        must=models.NestedCondition(nested=nested),
        should=[models.HasIdCondition(has_id=[1])],
        must_not=[
            models.FieldCondition(key="b", geo_radius=models.GeoRadius(center=centre, radius=1))
        ],
        min_should=models.MinShould(conditions=[match("c")], min_count=1),
    )
    assert fields_of(condition) == {"parts[].name": "keyword", "b": "geo", "c": "keyword"}
    assert fields_of(None) == {}
