"""Columns of other libraries as documents, metadata and ids; tables and sets are refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from clients import stored
from hypothesis import given
from hypothesis import strategies as st

from qdrant_embed import Document, InputError, QdrantClient, point_id
from qdrant_embed.ingest.documents import InputDocument, pair
from qdrant_embed.ingest.ids import point_ids
from qdrant_embed.ingest.values import as_column


class Scalar:
    """A scalar of Arrow."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def as_py(self) -> Any:
        return self.value


class ArrowColumn:
    """An array of Arrow, which yields its own scalars."""

    def __init__(self, values: list[Any]) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> Scalar:
        return Scalar(self.values[index])

    def __iter__(self) -> Iterator[Scalar]:
        return map(Scalar, self.values)

    def to_pylist(self) -> list[Any]:
        return [*self.values]


class Series:
    """A Series of pandas, whose labels are not positions; it compares item by item."""

    ndim = 1

    def __init__(self, values: list[Any]) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, label: int) -> Any:
        return {position + 100: value for position, value in enumerate(self.values)}[label]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.values)

    def __eq__(self, other: object) -> Any:
        return np.array([value == other for value in self.values])

    __hash__ = None  # type: ignore[assignment]

    def tolist(self) -> list[Any]:
        return [*self.values]


class PolarsSeries(Series):
    """A Series of Polars."""

    tolist = None  # type: ignore[assignment]

    def to_list(self) -> list[Any]:
        return [*self.values]


class Frame:
    """A DataFrame, which yields the names of its columns."""

    ndim = 2
    columns = ("text", "page")

    def __len__(self) -> int:
        return 2

    def __getitem__(self, name: str) -> Series:
        return Series([name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)


class ArrowTable:
    """A table of Arrow."""

    schema = "text: string"

    def __len__(self) -> int:
        return 2

    def __getitem__(self, name: str) -> ArrowColumn:
        return ArrowColumn([name])

    def to_pylist(self) -> list[Any]:
        return [{"text": "a"}, {"text": "b"}]


def an_array(values: list[Any]) -> Any:
    """Return a numpy array of objects, or of what numpy makes of these."""
    return np.array(values) if not any(isinstance(value, dict) for value in values) else values


COLUMNS: list[Callable[[list[Any]], Any]] = [
    ArrowColumn,
    Series,
    PolarsSeries,
    an_array,
    lambda values: np.array(values, dtype=object),
    tuple,
    lambda values: [Scalar(value) for value in values],
]
TEXTS, METADATA, IDS = ["cat", "dog"], [{"n": 1}, {"n": 2}], [7, 8]


@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_does_like_a_list(everywhere: QdrantClient, column: Any) -> None:
    arguments = [column(each) for each in (TEXTS, METADATA, IDS)]
    assert everywhere.add("demo", *arguments) == IDS
    expected = {7: {"document": "cat", "n": 1}, 8: {"document": "dog", "n": 2}}
    assert stored(everywhere) == expected
    assert everywhere.add("demo", *arguments, on_existing="skip") == IDS
    assert everywhere.add("demo", TEXTS, METADATA, column(["a", "b"])) == ["a", "b"]


class Whole:
    """A column that is only read as a whole: item by item, it would take a call for each."""

    def __init__(self, values: list[Any], method: str) -> None:
        setattr(self, method, lambda: [*values])
        self.length = len(values)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        raise AssertionError(index)

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError


@pytest.mark.parametrize("method", ["to_pylist", "to_list", "tolist"])
def test_a_column_is_read_as_a_whole(client: QdrantClient, method: str) -> None:
    for values in (TEXTS, METADATA, IDS):
        assert as_column("documents", Whole(values, method)) == values
    arguments: list[Any] = [Whole(each, method) for each in (TEXTS, METADATA, IDS)]
    assert client.add("demo", *arguments) == IDS
    client.update_metadata("demo", Whole(IDS, method), Whole([{"n": 3}, {"n": 4}], method))
    found = client.get_documents("demo", Whole(IDS, method))
    assert [document and document.metadata for document in found] == [{"n": 3}, {"n": 4}]
    client.delete_documents("demo", Whole(IDS, method))
    assert stored(client) == {}


@given(st.lists(st.text() | st.integers() | st.booleans() | st.none() | st.floats(allow_nan=False)))
def test_a_column_becomes_a_list_of_plain_values(values: list[Any]) -> None:
    for column in (ArrowColumn, Series, PolarsSeries, lambda each: np.array(each, dtype=object)):
        plain = as_column("ids", column(values))
        assert type(plain) is list
        assert plain == values
        assert [*map(type, plain)] == [*map(type, values)]


@pytest.mark.parametrize(
    "unusable",
    [
        Frame(),
        ArrowTable(),
        {"a", "b"},
        frozenset({"a", "b"}),
        np.array("a"),
        np.array([["a"], ["b"]]),
        np.float64(1),
        5,
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("name", ["documents", "metadata", "ids"])
def test_tables_and_sets_are_refused_with_the_way_out(
    client: QdrantClient, name: str, unusable: Any
) -> None:
    arguments = {"documents": ["a", "b"], name: unusable}
    with pytest.raises(InputError, match=f"^{name} must be a list"):
        client.add("demo", **arguments)
    assert not client.collection_exists("demo")


def test_a_table_in_metadata_is_refused() -> None:
    for table in (Frame(), ArrowTable()):
        with pytest.raises(InputError, match=r"metadata\[0\]\['k'\]\[0\] is .* is a table"):
            pair(["a"], [{"k": [table]}])
    (document,) = pair(["a"], [{"k": Series([1, np.int64(2)]), "a": ArrowColumn([Scalar(3)])}])
    assert document.metadata == {"k": [1, 2], "a": [3]}


def test_what_has_an_order_is_read() -> None:
    keys = {"b": 1, "a": 2}
    assert [document.text for document in pair(keys.keys())] == ["b", "a"]
    assert point_ids(np.array([1, 2])) == [1, 2]
    assert point_ids(Series(["a", "a"])) == [point_id("a")]


def test_wrong_items_of_a_column_have_their_place() -> None:
    with pytest.raises(InputError, match=r"documents\[1\] must be a str, not nan"):
        pair(Series(["a", float("nan")]))
    with pytest.raises(InputError, match=r"ids\[1\]: an id must be"):
        pair(["a", "b"], None, Series([1, 2.5]))
    with pytest.raises(InputError, match=r"ids\[0\]"):
        pair(["a"], None, np.array([True]))


whole = st.integers(0, 2**63 - 1)
kinds_of_ids: list[tuple[st.SearchStrategy[Any], Callable[[Any], Any]]] = [
    (whole, int),
    (whole, np.int64),
    (whole, np.uint64),
    (whole, Scalar),
    (whole, np.array),
    (st.uuids().map(str), np.str_),
    (st.uuids(), Scalar),
    (st.text(min_size=1, max_size=5), np.str_),
]


@given(
    st.lists(
        st.sampled_from(kinds_of_ids).flatmap(
            lambda kind: kind[0].map(lambda value: (value, kind[1](value)))
        ),
        unique_by=lambda both: point_id(both[0]),
    )
)
def test_ids_of_any_kind_are_the_ids_in_them(ids: list[tuple[Any, Any]]) -> None:
    texts = ["cat"] * len(ids)
    plain = [*pair(texts, None, [value for value, _ in ids])]
    wrapped = [*pair(texts, None, [wrapper for _, wrapper in ids])]
    assert plain == wrapped
    assert [types(document) for document in plain] == [types(document) for document in wrapped]
    assert [*pair(map(Document, texts), None, iter([wrapper for _, wrapper in ids]))] == plain


def types(document: InputDocument) -> tuple[type, type]:
    """Return the types of a document's ids."""
    return type(document.point_id), type(document.user_id)
