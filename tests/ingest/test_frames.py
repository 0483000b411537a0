"""Frames of every library become documents with the values that went in."""

from __future__ import annotations

import datetime
import decimal
import math
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
import pytest
from clients import stored
from hypothesis import given
from hypothesis import strategies as st

from qdrant_embed import ContentIds, Document, IngestError, InputError, QdrantClient
from qdrant_embed.ingest import frames
from qdrant_embed.ingest.frames import Columns, FrameRows
from qdrant_embed.ingest.tables import open_tables

UTC = datetime.timezone.utc
ROWS: dict[str, list[Any]] = {
    "url": ["a", "b"],
    "body": ["the cat sat", "the dog ran"],
    "count": [2**60, None],
    "share": [0.5, math.nan],
    "day": [datetime.date(2024, 2, 29), None],
    "at": [datetime.datetime(2024, 2, 29, 1, 2, 3, 400000, tzinfo=UTC), None],
    "price": [decimal.Decimal("12.50"), None],
    "kind": ["pet", None],
    "tags": [["x", "y"], []],
    "author": [{"name": "Ann", "age": 7}, None],
}
STORED = {
    "count": 2**60,
    "share": 0.5,
    "day": "2024-02-29",
    "at": "2024-02-29T01:02:03.400000Z",
    "price": 12.5,
    "kind": "pet",
    "tags": ["x", "y"],
    "author": {"name": "Ann", "age": 7},
}
MISSING = dict.fromkeys(STORED) | {"tags": []}
COLUMNS = Columns("body", "url")


def _pandas(rows: Mapping[str, Any]) -> Any:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(rows)
    return frame.astype({"count": "Int64", "kind": "category"} if "kind" in rows else {})


def _polars(rows: Mapping[str, Any]) -> Any:
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame(rows, strict=False)
    return frame.cast({"kind": polars.Categorical} if "kind" in rows else {})


def _table(rows: Mapping[str, Any]) -> Any:
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table(rows)
    if "kind" in rows:
        place = table.schema.get_field_index("kind")
        table = table.set_column(place, "kind", table["kind"].dictionary_encode())
    return table


def _dataset(rows: Mapping[str, Any]) -> Any:
    return pytest.importorskip("datasets").Dataset.from_dict(rows)


FRAMES: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "columns": lambda rows: rows,
    "arrays": lambda rows: {
        name: np.array([*column, None], dtype=object)[:-1] for name, column in rows.items()
    },
    "several": lambda rows: ({name: [c[i]] for name, c in rows.items()} for i in (0, 1)),
    "pandas": _pandas,
    "polars": _polars,
    "table": _table,
    "batch": lambda rows: _table(rows).to_batches()[0],
    "reader": lambda rows: _table(rows).to_reader(max_chunksize=1),
    "datasets": _dataset,
    "stream": lambda rows: _dataset(rows).to_iterable_dataset(),
}


@pytest.fixture(params=FRAMES)
def make(request: pytest.FixtureRequest) -> Callable[[Mapping[str, Any]], Any]:
    """A maker of frames of each kind."""
    return FRAMES[request.param]


def test_values_are_those_that_went_in(make: Callable[[Mapping[str, Any]], Any]) -> None:
    assert [*FrameRows(make(ROWS), COLUMNS)] == [
        Document("the cat sat", STORED, "a"),
        Document("the dog ran", MISSING, "b"),
    ]


def test_only_the_chosen_columns_are_stored(make: Callable[[Mapping[str, Any]], Any]) -> None:
    chosen = Columns("body", metadata=["day", "url"])
    assert [document.metadata for document in FrameRows(make(ROWS), chosen)] == [
        {"day": "2024-02-29", "url": "a"},
        {"day": None, "url": "b"},
    ]


def test_a_missing_column_is_named(make: Callable[[Mapping[str, Any]], Any]) -> None:
    for wrong in (Columns("Body"), Columns("body", "id"), Columns("body", metadata=["d"])):
        with pytest.raises(InputError, match=r"no column '(Body|id|d)'; its columns are .*'day'"):
            [*FrameRows(make(ROWS), wrong)]


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "int": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(allow_nan=False, allow_infinity=False),
    "str": st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    "date": st.dates(),
    "datetime": st.datetimes(
        datetime.datetime(1700, 1, 1), datetime.datetime(2200, 1, 1), timezones=st.just(UTC)
    ),
    "decimal": st.integers(-(10**9), 10**9).map(lambda cents: decimal.Decimal(cents).scaleb(-2)),
    "list": st.lists(st.integers(-9, 9), max_size=3),
    "dict": st.fixed_dictionaries({"a": st.integers(0, 9), "b": st.text("xyz", max_size=2)}),
}


def _expected(value: Any) -> Any:
    if isinstance(value, datetime.datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, datetime.date):
        return value.isoformat()
    return float(value) if isinstance(value, decimal.Decimal) else value


@given(data=st.data(), kind=st.sampled_from(sorted(VALUES)))
@pytest.mark.parametrize("library", ["columns", "table", "polars"])
def test_a_column_of_any_type_comes_back(library: str, data: st.DataObject, kind: str) -> None:
    values = data.draw(st.lists(VALUES[kind] | st.none(), min_size=1, max_size=4))
    values = [value for value in values if value is not None][:1] + values  # else it has no type
    frame = FRAMES[library]({"text": ["t"] * len(values), "x": values})
    found = [document.metadata["x"] for document in FrameRows(frame, Columns())]
    assert found == [None if value is None else _expected(value) for value in values]
    assert [type(one) for one in found] == [type(_expected(value)) for value in values]


def test_arrays_are_read_as_numbers_and_times() -> None:
    frame = {
        "text": np.array(["a", "b"]),
        "n": np.array([1, 2], np.int8),
        "f": np.array([0.5, np.nan], np.float32),
        "at": np.array(["2024-01-02T03:04", "NaT"], "M8[ns]"),
        "v": np.ones((2, 2), np.float32),
    }
    assert [document.metadata for document in FrameRows(frame, Columns())] == [
        {"n": 1, "f": 0.5, "at": "2024-01-02T03:04:00", "v": [1.0, 1.0]},
        {"n": 2, "f": None, "at": None, "v": [1.0, 1.0]},
    ]


class Wild:
    """A user's own class, which cannot be compared."""

    def __ne__(self, other: object) -> bool:
        raise ArithmeticError


MOMENTS = [1_700_000_000_000_000_000 + step for step in (0, 1, 1000)]  # nanoseconds
DURATIONS = [0, 1, 1000, -1500]
TIMES: dict[str, tuple[str, list[int]]] = {
    "moment": ("timestamp[ns]", MOMENTS),
    "moment of a zone": ("timestamp[ns, UTC]", MOMENTS),
    "duration": ("duration[ns]", DURATIONS),
    "time": ("time64[ns]", DURATIONS[:3]),
}


@pytest.mark.parametrize("nested", ["", "list", "struct", "list of structs"])
@pytest.mark.parametrize("library", ["pandas", "arrow's in pandas", "polars", "table", "columns"])
@pytest.mark.parametrize("kind", TIMES)
def test_no_time_loses_its_nanoseconds(library: str, kind: str, nested: str) -> None:
    """Rows that differ in them alone would be one document."""
    arrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pandas")  # without it, Arrow refuses them
    name, numbers = TIMES[kind]
    zone = "UTC" if kind.endswith("zone") else None
    types = {"timestamp": arrow.timestamp("ns", zone), "duration": arrow.duration("ns")}
    column = arrow.array(numbers).cast(types.get(name.partition("[")[0], arrow.time64("ns")))
    if "struct" in nested:
        column = arrow.StructArray.from_arrays([column], ["at"])
    if "list" in nested:
        column = arrow.ListArray.from_arrays(range(len(column) + 1), column)
    table = arrow.table({"text": ["a"] * len(column), "x": column})
    makers: dict[str, Callable[[], Any]] = {
        "table": lambda: table,
        "columns": lambda: {"text": ["a"] * len(column), "x": table["x"]},
        "pandas": table.to_pandas,
        "arrow's in pandas": lambda: table.to_pandas(types_mapper=sys.modules["pandas"].ArrowDtype),
        "polars": lambda: pytest.importorskip("polars").from_arrow(table),
    }
    if (library, kind) == ("pandas", "time"):
        pytest.skip("pyarrow makes Python's times of them")
    frame = makers[library]()
    for is_exact in (True, False):  # what has no nanoseconds is read
        some = frame
        if not is_exact:
            some = {"text": ["a"], "x": frame["x"][:1]} if library == "columns" else frame[:1]
        said, found = "", []
        try:
            found = [str(document.metadata["x"]) for document in FrameRows(some, Columns())]
        except InputError as error:
            said = str(error)
        assert ("'x'" in said) if said else len({*found}) == len(found)
        assert is_exact or not said
        assert "None" not in str(found)


def _in_arrow(arrow: Any) -> Iterator[Any]:
    """Arrays of types that have others inside, with a time that has nanoseconds and without."""
    for number in (1, 1000):
        times = arrow.array([number]).cast(arrow.time64("ns"))
        yield arrow.MapArray.from_arrays([0, 1], ["k"], times)
        yield arrow.DictionaryArray.from_arrays(arrow.array([0]), times)
        yield arrow.FixedSizeListArray.from_arrays(times, 1)
        yield arrow.LargeListArray.from_arrays([0, 1], times)
        if hasattr(arrow, "ListViewArray"):
            yield arrow.ListViewArray.from_arrays([0], [1], times)
        yield arrow.RunEndEncodedArray.from_arrays([1], times)
        yield arrow.StructArray.from_arrays([arrow.array(["s"]), times], ["s", "at"])
        yield times


def test_no_type_of_arrow_loses_nanoseconds() -> None:
    arrow = pytest.importorskip("pyarrow")
    arrays = [*_in_arrow(arrow)]
    for place, array in enumerate(arrays):
        frames_of_it = [arrow.table({"text": ["a"], "x": array}), {"text": ["a"], "x": [array]}]
        for frame in frames_of_it:
            if place < len(arrays) // 2:
                with pytest.raises(InputError, match="column 'x'"):
                    [*FrameRows(frame, Columns())]
            else:
                (document,) = FrameRows(frame, Columns())
                assert "00:00:00.000001" in str(document.metadata["x"])


def test_what_is_under_a_null_or_beside_a_time_does_not_matter() -> None:
    arrow = pytest.importorskip("pyarrow")
    times = arrow.array([1000, 1]).cast(arrow.time64("ns"))
    mask = arrow.array([False, True])
    masked = arrow.StructArray.from_arrays([times], ["at"], mask=mask)
    rows = [*FrameRows(arrow.table({"text": ["a", "b"], "x": masked}), Columns())]
    assert [row.metadata["x"] for row in rows] == [{"at": "00:00:00.000001"}, None]
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"text": ["a"], "x": [{"t": datetime.time(1), "s": "abc"}]})
    for one in (frame, frame.to_arrow()):
        (document,) = FrameRows(one, Columns())
        assert document.metadata["x"] == {"t": "01:00:00", "s": "abc"}


def test_a_cell_loses_no_nanoseconds_either() -> None:
    arrow, polars = pytest.importorskip("pyarrow"), pytest.importorskip("polars")
    cells = [
        polars.Series([1]).cast(polars.Datetime("ns")),
        polars.Series([1]).cast(polars.Duration("ns")),
        polars.Series([1]).cast(polars.Time),
        arrow.array([1]).cast(arrow.time64("ns")),
        arrow.array([1]).cast(arrow.time64("ns"))[0],
        np.array([2**62]).view("M8"),
    ]
    for cell in cells:
        with pytest.raises(InputError, match="column 'x'"):
            [*FrameRows({"text": ["a"], "x": [cell]}, Columns())]
        with pytest.raises(InputError, match=r"metadata\[0\]"):
            QdrantClient(":memory:").add("demo", ["a"], [{"x": cell}])


def test_moments_with_nanoseconds_are_alike_in_all_libraries() -> None:
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    arrow = pytest.importorskip("pyarrow")
    for zone, end in ((None, ""), ("UTC", "Z"), ("Asia/Kolkata", "+05:30")):
        column = arrow.array(MOMENTS).cast(arrow.timestamp("ns", zone))
        table = arrow.table({"text": ["a"] * 3, "x": column})
        found = {
            tuple(document.metadata["x"] for document in FrameRows(frame, Columns()))
            for frame in (table, table.to_pandas(), polars.from_arrow(table))
        }
        (moments,) = found
        assert moments[1].endswith(f":20.000000001{end}")
    (document,) = FrameRows({"text": ["a"], "x": [pandas.Timedelta(-1500, "ns")]}, Columns())
    assert document.metadata == {"x": "-PT0.0000015S"}


def _far(library: str) -> Iterator[Any]:
    if library == "numpy":
        for unit in ("M8[ms]", "m8[ms]"):
            yield np.array([2**62], unit)
        yield np.array(["12024-01-01"], "M8[ms]")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield np.array([3], "m8")
        yield np.array([3], "m8[M]")
    elif library == "polars":
        polars = pytest.importorskip("polars")
        yield polars.Series([10**7]).cast(polars.Date)
        yield polars.Series([2**62]).cast(polars.Datetime("ms"))
        yield polars.Series([2**62]).cast(polars.Duration("ms"))
    else:
        arrow, pandas = pytest.importorskip("pyarrow"), pytest.importorskip("pandas")
        far = arrow.array([10**7], arrow.int32()).cast(arrow.date32())
        yield pandas.Series(far, dtype=pandas.ArrowDtype(arrow.date32()))
        yield far


@pytest.mark.parametrize("library", ["numpy", "polars", "arrow"])
def test_times_beyond_pythons_are_refused(library: str) -> None:
    for column in _far(library):
        with pytest.raises(InputError, match="column 'x'"):
            [*FrameRows({"text": ["a"], "x": column}, Columns())]
        if library == "polars":
            frame = sys.modules["polars"].DataFrame({"text": ["a"], "x": column})
            with pytest.raises(InputError, match="column 'x'"):
                [*FrameRows(frame, Columns())]


def _deep() -> Any:
    value: Any = 1
    for _ in range(3000):
        value = [value]
    return value


def _endless() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize("make", [_deep, _endless, Wild, lambda: {"a": [Wild()]}])
def test_values_that_resist_are_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(InputError, match=r"^row 0, column 'x'"):
        [*FrameRows({"text": ["a"], "x": [make()]}, Columns())]
    with pytest.raises(InputError, match=r"^row 0, column 'x' \(text=\): a text must be a str"):
        [*FrameRows({"x": [make()]}, Columns("x"))]


@pytest.mark.parametrize("nan", ["NaN", "sNaN"])
def test_a_decimal_that_is_no_number_is_missing(nan: str) -> None:
    (document,) = FrameRows({"text": ["a"], "x": [decimal.Decimal(nan)]}, Columns())
    assert document.metadata == {"x": None}


class Broken:
    """A frame of another library, whose stream fails."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        raise RuntimeError("no stream")


def test_a_column_is_no_frame() -> None:
    arrow, pandas = pytest.importorskip("pyarrow"), pytest.importorskip("pandas")
    polars = pytest.importorskip("polars")
    columns = [
        arrow.chunked_array([["a"]]),
        pandas.Series(["a"]),
        polars.Series(["a"]),
        Broken(),
    ]
    for column in columns:
        with pytest.raises(InputError, match=r"^frame must be a dict of columns"):
            [*FrameRows(column, Columns())]
    with pytest.raises(InputError, match=r"pass frame\.collect\(\)"):
        [*FrameRows([polars.LazyFrame({"text": ["a"]})], Columns())]


def documents(frame: object) -> list[tuple[str, dict[str, object]]]:
    return [(each.text, dict(each.metadata)) for each in FrameRows(frame, Columns())]


def test_a_file_is_a_frame_and_so_is_a_folder_of_some(tmp_path: Path, client: QdrantClient) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    folder = tmp_path / "all"
    (folder / "year=2024").mkdir(parents=True)
    parquet.write_table(arrow.table({"text": ["a", "b"]}), folder / "year=2024" / "one.parquet")
    table = arrow.table({"text": ["c"], "year": [2025]})
    with arrow.ipc.new_file(str(folder / "two.arrow"), table.schema) as writer:
        writer.write_table(table)
    one, two = folder / "year=2024" / "one.parquet", folder / "two.arrow"
    assert documents(str(one)) == documents(one) == [("a", {}), ("b", {})]
    assert documents(two) == [("c", {"year": 2025})]
    both = [("a", {}), ("b", {}), ("c", {"year": 2025})]
    assert documents([one, str(two)]) == documents(iter([str(one), two])) == both
    years = [{"year": 2025}, *[{"year": 2024}] * 2]
    assert sorted(documents(folder)) == [*zip("abc", reversed(years), strict=True)]
    assert FrameRows(one, Columns()).total == 2
    before = arrow.default_memory_pool().backend_name
    assert client.add_frame("demo", folder) == 3
    assert arrow.default_memory_pool().backend_name == before


class NamedPath(NamedTuple):
    name: str

    def __fspath__(self) -> str:
        return self.name


class NamedTable(NamedTuple):
    name: str
    table: Any

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)


def test_a_tuple_with_names_may_be_one_frame(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = arrow.table({"text": ["a"]})
    parquet.write_table(table, tmp_path / "one.parquet")
    assert documents(NamedPath(str(tmp_path / "one.parquet"))) == [("a", {})]
    assert documents(NamedTable("x", table)) == documents([NamedTable("x", table)]) == [("a", {})]


class BytesPath(os.PathLike[bytes]):
    def __fspath__(self) -> bytes:
        return b"pages.parquet"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("pages.csv", r"'pages\.csv' is no \.parquet, \.arrow or \.feather file"),
        ("a text, and no path at all " * 400, r"^'a text, and no path"),
        ("a\0b.parquet", "cannot be read: "),
        ("", "frame must be a dict of columns.* not ''"),
        (BytesPath(), "frame must be a dict of columns"),
        ("s3://bucket/pages.parquet", r"is a URL; pass pyarrow\.dataset\.dataset"),
        ("See https://example.com for more", r"'See https.* texts go to add"),
        ("C://data/pages.parquet", "cannot be read: .*No such file"),
        ("missing.parquet", r"missing\.parquet cannot be read: .*No such file"),
        ("empty", r"folder empty has no \.parquet, \.arrow or \.feather files"),
        ("mixed", r"folder mixed has notes\.md: only \.parquet"),
        ("damaged.parquet", r"damaged\.parquet cannot be read: "),
        ("damaged.arrow", r"damaged\.arrow cannot be read: "),
    ],
)
def test_a_file_that_is_no_frame_is_told(
    path: object, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "mixed"):
        (tmp_path / name).mkdir()
    for name in ("mixed/notes.md", "damaged.parquet", "damaged.arrow", "pages.csv"):
        (tmp_path / name).write_bytes(b"text\n" * 9)
    for frame in (path, [path], iter([path])):
        with pytest.raises(InputError, match=message):
            documents(frame)


def test_no_file_is_read_before_all_are_found(tmp_path: Path, client: QdrantClient) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    one = tmp_path / "one.parquet"
    parquet.write_table(arrow.table({"text": ["a"]}), one)
    assert FrameRows([one], Columns()).total == 1
    for wrong in (b"x", 1, [one]):
        with pytest.raises(InputError, match="frame must be"):
            FrameRows([one, wrong], Columns())
    with pytest.raises(InputError, match="No such file"):
        client.add_frame("demo", [one, tmp_path / "missing.parquet"])
    assert not client.collection_exists("demo")


def test_a_row_of_a_file_is_named_in_the_file_and_counted_in_all(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    for name, texts in (("a", ["a", "b", "c"]), ("b", ["d", None])):
        parquet.write_table(arrow.table({"text": texts}), tmp_path / f"{name}.parquet")
    with pytest.raises(InputError, match=r"b\.parquet: row 1, column 'text'") as error:
        [*FrameRows(open_tables(tmp_path), Columns())]
    assert error.value.index == 4


def test_keys_of_content_ids_are_columns(client: QdrantClient) -> None:
    frame = {"text": ["same"] * 3, "url": ["a", "b", "a"], "n": [1, 2, 3]}
    assert client.add_frame("demo", frame, id=ContentIds(keys=("url",))) == 2
    with pytest.raises(InputError, match="no column 'ulr'"):
        client.add_frame("demo", frame, id=ContentIds(keys=("ulr",)))
    with pytest.raises(InputError, match="'url', which is not in metadata; add it"):
        client.add_frame("demo", frame, id=ContentIds(keys=("url",)), metadata=["n"])
    with pytest.raises(InputError, match="depend anyway; omit it"):
        client.add_frame("demo", frame, id=ContentIds(keys=("text",)))


def test_missing_values_in_nested_ones_are_none() -> None:
    frame = {"text": ["a"], "x": [{"l": [1.0, math.nan, np.float32("nan")], "d": {"k": None}}]}
    (document,) = FrameRows(frame, Columns())
    assert document.metadata == {"x": {"l": [1.0, None, None], "d": {"k": None}}}


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"text": ["a", "b"], "x": [1, b"1"]}, r"^row 1, column 'x' is b'1' \(bytes\)"),
        ({"text": ["a"], "x": [[math.inf]]}, r"^row 0, column 'x'\[0\] is inf"),
        ({"text": ["a"], "x": [2**64]}, "^row 0, column 'x' is 18446744073709551616"),
        ({"text": ["a"], "x": [{1}]}, "^row 0, column 'x' .*has no order"),
        ({"text": ["a", None]}, r"^row 1, column 'text' \(text=\).* not None; drop the rows"),
        ({"text": ["a"], "x": [1, 2]}, "columns differ in length"),
        ({"text": "a"}, "must be a list or an array, not 'a'"),
        ({"text": ["a"], 1: [2]}, r"has the column 1 \(int\)"),
        ([1], "not 1 "),
        ("text", "^'text' is no .*; texts go to add"),
        (b"text.parquet", "frame must be a dict of columns"),
        (None, "frame must be a dict of columns"),
    ],
)
def test_what_cannot_be_stored_is_named(frame: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        [*FrameRows(frame, Columns())]


def test_ids_of_other_kinds_are_refused() -> None:
    for wrong in (1.0, None, True, b"a"):
        with pytest.raises(InputError, match=r"row 0, column 'id' \(id=\): an id must be"):
            [*FrameRows({"text": ["a"], "id": [wrong]}, Columns(id="id"))]
    some = [np.int64(5), UUID(int=7), "x"]
    rows = FrameRows({"text": ["a"] * 3, "id": some}, Columns(id="id"))
    assert [document.id for document in rows] == [5, UUID(int=7), "x"]


def test_names_of_columns_are_checked() -> None:
    wrong_ones: list[dict[str, Any]] = [
        {"text": 1},
        {"id": 1},
        {"metadata": "day"},
        {"metadata": ["a", "a"]},
    ]
    for wrong in wrong_ones:
        with pytest.raises(InputError):
            Columns(**wrong)


def test_a_frame_is_read_no_further_than_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "ROWS", 2)
    read: list[int] = []

    def batches() -> Iterator[dict[str, list[str]]]:
        for number in range(10):
            read.append(number)
            yield {"text": [f"text {number}"] * 2}

    rows = iter(FrameRows(batches(), Columns()))
    next(rows)
    assert read == [0]
    assert len([*rows]) == 19


def test_no_library_is_imported_for_others() -> None:
    program = (
        "import sys; from qdrant_embed.ingest.frames import Columns, FrameRows\n"
        "assert len([*FrameRows({'text': ['a']}, Columns())]) == 1\n"
        "assert not {'pandas', 'polars', 'pyarrow', 'datasets'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_frame_is_stored_on_every_store(anywhere: QdrantClient) -> None:
    assert anywhere.add_frame("demo", ROWS, text="body", id="url", progress=False) == 2
    assert {point["qdrant_embed_id"]: point for point in stored(anywhere).values()} == {
        "a": {"document": "the cat sat", "qdrant_embed_id": "a", **STORED},
        "b": {"document": "the dog ran", "qdrant_embed_id": "b", **MISSING},
    }
    (hit,) = anywhere.query("demo", "the cat sat", limit=1)
    assert hit.id == "a"


def test_without_ids_a_frame_can_be_added_twice(client: QdrantClient) -> None:
    frame = {"text": ["one", "two", "one"], "n": [1, 2, 1]}
    for _ in range(2):
        assert client.add_frame("demo", frame) == 2  # as equal rows are one document
        assert client.count("demo").count == 2
    client.add_frame("keyed", frame, id=ContentIds(keys=["n"]))
    assert client.count("keyed").count == 2


def test_the_total_of_a_frame_is_reported(client: QdrantClient) -> None:
    totals: set[int | None] = set()
    client.add_frame("demo", {"text": ["a"] * 3}, progress=lambda it: totals.add(it.total))
    assert totals == {3}


def test_an_error_in_a_later_row_tells_what_is_stored(client: QdrantClient) -> None:
    frame = {"text": [f"text {n}" for n in range(2500)], "x": [0] * 2499 + [b""]}
    with pytest.raises(IngestError, match="row 2499, column 'x' is b''") as caught:
        client.add_frame("demo", frame, text="text", progress=False)
    assert caught.value.stored_ids
