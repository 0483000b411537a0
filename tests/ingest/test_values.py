"""Metadata of any type: copied when read, by one rule at every depth, alike in every process."""

from __future__ import annotations

import datetime
import ipaddress
import json
import math
import os
import pathlib
import subprocess
import sys
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum, IntEnum
from fractions import Fraction
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest
from clients import stored
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic_core import to_jsonable_python
from qdrant_client import models

from qdrant_embed import ContentIds, Document, InputError, QdrantClient
from qdrant_embed.ingest.documents import pair
from qdrant_embed.ingest.values import json_value


class Colour(Enum):
    RED = "red"


class Size(IntEnum):
    BIG = 3


class Place(NamedTuple):
    x: int
    y: int


@dataclass
class Owner:
    name: str
    share: Decimal


class Model(BaseModel):
    day: datetime.date
    share: Decimal


class Text(str):
    __slots__ = ()


DAY = datetime.date(2026, 1, 2)
MOMENT = datetime.datetime(2026, 1, 2, 3, 4, 5, 60, tzinfo=datetime.timezone.utc)
MEANT: list[tuple[Any, Any]] = [
    (np.int64(3), 3),
    (np.uint8(3), 3),
    (np.float32(0.5), 0.5),
    (np.float64(0.1), 0.1),
    (np.bool_(True), True),
    (np.str_("a"), "a"),
    (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
    (np.array(["a"]), ["a"]),
    (np.array(7), 7),
    (np.datetime64("2026-01-02"), "2026-01-02T00:00:00"),
    (np.datetime64("2026-01-02T00:00:00.000001000"), "2026-01-02T00:00:00.000001"),
    (np.array(["2026-01-02"], "M8[ns]"), ["2026-01-02T00:00:00"]),
    (np.timedelta64(90, "m"), "PT1H30M"),
    (Decimal("19.99"), 19.99),
    (Decimal("10"), 10),
    (Decimal("10.00"), 10.0),
    (Decimal("9007199254740993"), 9007199254740993),
    (Decimal("1E+30"), 1e30),
    (DAY, "2026-01-02"),
    (MOMENT, "2026-01-02T03:04:05.000060Z"),
    (datetime.time(1, 2), "01:02:00"),
    (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (pathlib.PurePosixPath("a/b"), "a/b"),
    (ipaddress.ip_address("::1"), "::1"),
    (Colour.RED, "red"),
    (Size.BIG, 3),
    (Place(1, 2), [1, 2]),
    (Owner("a", Decimal("0.5")), {"name": "a", "share": 0.5}),
    (Model(day=DAY, share=Decimal("0.5")), {"day": "2026-01-02", "share": 0.5}),
    (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
    (MappingProxyType({"a": 1}), {"a": 1}),
    (deque([1, 2]), [1, 2]),
    (range(3), [0, 1, 2]),
    (Text("a"), "a"),
    ({Text("a"): 1}, {"a": 1}),
]
REFUSED: list[tuple[Callable[[], Any], str]] = [
    (lambda: {"a", "b"}, "no order"),
    (lambda: frozenset({1}), "no order"),
    (lambda: map(str, [1]), "only once"),
    (lambda: (item for item in "ab"), "only once"),
    (lambda: iter([1]), "only once"),
    (lambda: b"a", "decode it to a str"),
    (lambda: bytearray(b"a"), "decode it to a str"),
    (lambda: np.bytes_(b"a"), "decode it to a str"),
    (lambda: memoryview(b"a"), "decode it to a str"),
    (lambda: 1j, "not JSON-serialisable"),
    (lambda: np.complex64(1j), "not JSON-serialisable"),
    (lambda: Fraction(1, 3), "not JSON-serialisable"),
    (lambda: math.nan, "not JSON-serialisable"),
    (lambda: np.float32("inf"), "not JSON-serialisable"),
    (lambda: np.array([1.0, math.nan]), "not JSON-serialisable"),
    (lambda: np.datetime64("NaT", "s"), "not JSON-serialisable"),
    (lambda: np.datetime64("2026-01-02T00:00:00.000000001"), "not JSON-serialisable"),
    (object, "not JSON-serialisable"),
    (lambda: int, "not JSON-serialisable"),
    (lambda: Decimal("NaN"), "no number that Qdrant can hold"),
    (lambda: Decimal("sNaN"), "no number that Qdrant can hold"),
    (lambda: Decimal("0.12345678901234567890123"), "no number that Qdrant can hold"),
    (lambda: Decimal("1E+999999999"), "no number that Qdrant can hold"),
    (lambda: Decimal("1E-999999999"), "no number that Qdrant can hold"),
    (lambda: 2**63, "whole numbers from"),
    (lambda: np.uint64(2**63), "whole numbers from"),
    (lambda: "\ud800", "not valid Unicode"),
    (lambda: {"\ud800": 1}, "not valid Unicode"),
    (lambda: {1: 2}, "keys must be str"),
]
PLACES: list[tuple[Callable[[Any], dict[str, Any]], str]] = [
    (lambda value: {"k": value}, "['k']"),
    (lambda value: {"k": {"a": [0, value]}}, "['k']['a'][1]"),
    (lambda value: {"k": ({"a": value},)}, "['k'][0]['a']"),
    (lambda value: {"k": np.array([value, None], dtype=object)}, "['k'][0]"),
]


@pytest.mark.parametrize(("value", "expected"), MEANT, ids=repr)
def test_a_value_is_what_it_means_at_every_depth(value: Any, expected: Any) -> None:
    for place, _ in PLACES[:3]:
        (document,) = pair(["cat"], [place(value)])
        meant = json.dumps(place(expected))  # which tells 1, 1.0 and True apart
        assert json.dumps(document.metadata) == meant
        types = str(document.metadata)  # and no type is a subclass of one of JSON's
        assert types == str(json.loads(meant))
        made = ContentIds().id_of("cat", place(value))
        assert made == ContentIds().id_of("cat", place(expected))


@pytest.mark.parametrize(("make", "reason"), REFUSED)
def test_what_json_cannot_say_is_refused_at_every_depth(
    make: Callable[[], Any], reason: str
) -> None:
    for place, path in PLACES:
        with pytest.raises(InputError, match=reason) as error:
            pair(["cat", "cat"], [{}, place(make())])
        assert f"metadata[1]{path}" in str(error.value)
        assert error.value.index == 1
        with pytest.raises(ValueError, match=reason):
            ContentIds().id_of("cat", place(make()))


def test_a_dict_that_contains_itself_is_refused() -> None:
    endless: dict[str, Any] = {}
    endless["a"] = [endless]
    with pytest.raises(InputError, match="nested more than 200 deep"):
        pair(["cat"], [endless])


leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.dates()
    | st.datetimes(timezones=st.none() | st.just(datetime.timezone.utc))
    | st.times()
    | st.timedeltas()
    | st.uuids()
)
numbers = (
    st.integers(-(2**31), 2**31 - 1).flatmap(
        lambda number: st.sampled_from([np.int32(number), np.int64(number), Decimal(number)])
    )
    | st.integers(0, 255).map(np.uint8)
    | st.floats(width=32, allow_nan=False, allow_infinity=False).map(np.float32)
    | st.floats(width=16, allow_nan=False, allow_infinity=False).map(np.float16)
    | st.decimals(-(10**6), 10**6, places=3)
)


def trees(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return a strategy of metadata with these values at any depth."""
    inner = st.recursive(
        values,
        lambda each: (
            st.lists(each, max_size=3)
            | st.lists(each, max_size=3).map(tuple)
            | st.lists(each, max_size=3).map(deque)
            | st.dictionaries(st.text(max_size=3), each, max_size=3)
        ),
        max_leaves=8,
    )
    keys = st.text(max_size=3).map(lambda key: f"k{key}")
    return st.dictionaries(keys, inner, max_size=4)


@given(trees(leaves))
def test_a_tree_is_stored_as_qdrant_client_sends_it(metadata: dict[str, Any]) -> None:
    # a deque is unknown to pydantic before 2.9
    assert json_value(metadata) == to_jsonable_python(metadata, fallback=list)


@given(trees(leaves | numbers))
def test_a_tree_is_copied_and_stays_what_it_is(metadata: dict[str, Any]) -> None:
    copy = json_value(metadata)
    text = json.dumps(copy, allow_nan=False)
    assert json.loads(text) == copy
    assert json_value(copy) == copy
    spoil(metadata)
    assert json.dumps(copy) == text


def spoil(value: Any) -> None:
    """Change every dict and list in `value`."""
    if isinstance(value, dict | list | tuple | deque):
        for item in value.values() if isinstance(value, dict) else value:
            spoil(item)
    if isinstance(value, dict):
        value["spoilt"] = 1
    elif isinstance(value, list | deque):
        value.append("spoilt")


@given(numbers)
def test_a_number_stays_the_number(number: Any) -> None:
    copy = json_value(number)
    assert type(copy) in (int, float)
    assert Decimal(str(copy)) == number if isinstance(number, Decimal) else copy == number


@given(st.decimals())
def test_a_decimal_is_exact_or_refused(number: Decimal) -> None:
    try:
        copy = json_value(number)
    except ValueError:
        assert not number.is_finite() or Decimal(repr(float(number))) != number
    else:
        assert Decimal(repr(copy)) == number


def reusing(count: int) -> Iterator[Document]:
    metadata: dict[str, Any] = {"deep": {"list": [0]}}
    for page in range(count):
        metadata["page"] = metadata["deep"]["page"] = metadata["deep"]["list"][0] = page
        yield Document("cat", metadata, page)


def test_one_dict_reused_is_a_dict_for_each_document(anywhere: QdrantClient) -> None:
    anywhere.add("demo", reusing(5))
    expected = {
        page: {"document": "cat", "page": page, "deep": {"page": page, "list": [page]}}
        for page in range(5)
    }
    assert stored(anywhere) == expected
    anywhere.add("columns", iter(["cat"] * 5), (each.metadata for each in reusing(5)), range(5))
    assert stored(anywhere, "columns") == expected


def test_a_range_finds_decimals_and_numpy_numbers(anywhere: QdrantClient) -> None:
    values = [Decimal("9.99"), Decimal("10"), np.float32(10.5), np.int16(11), Decimal("12.00")]
    anywhere.add("demo", ["cat"] * 5, [{"price": value} for value in values], range(5))
    price = models.FieldCondition(key="price", range=models.Range(gte=10, lt=12))
    found, _ = anywhere.scroll("demo", models.Filter(must=[price]))
    assert {point.id for point in found} == {1, 2, 3}


def test_content_ids_are_alike_in_every_process() -> None:
    script = (
        "import datetime, decimal, uuid\n"
        "from qdrant_embed import ContentIds\n"
        "day = datetime.datetime(2026, 1, 2, 3, tzinfo=datetime.timezone.utc)\n"
        "price = decimal.Decimal('1.10')\n"
        "values = [day, day.replace(tzinfo=None), price, 1e22, uuid.UUID(int=1)]\n"
        "deep = {'z': 1, 'y': datetime.timedelta(5)}\n"
        "print(ContentIds().id_of('cat', {'b': values, 'a': deep}))\n"
        "try: print(ContentIds().id_of('cat', {'tags': {'a', 'b', 'c'}}))\n"
        "except ValueError: print('refused')\n"
    )
    settings = [
        {"PYTHONHASHSEED": "1", "TZ": "UTC", "LC_ALL": "C"},
        {"PYTHONHASHSEED": "2", "TZ": "Pacific/Apia", "LC_ALL": "de_DE.UTF-8"},
    ]
    printed = {
        subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | each,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for each in settings
    }
    assert len(printed) == 1
    assert printed.pop().endswith("refused\n")
