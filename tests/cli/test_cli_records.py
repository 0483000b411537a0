"""Files of documents: encodings, line ends, types of fields."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
import sys
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from clients import stored
from hypothesis import given
from hypothesis import strategies as st
from tiny import TinyModel

from qdrant_embed import Document, InputError, QdrantClient
from qdrant_embed.cli import records
from qdrant_embed.cli.comparisons import mismatches
from qdrant_embed.cli.main import main
from qdrant_embed.cli.records import Field, Fields, RecordFile, to_field

ENCODINGS = ["utf-8", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "shift_jis", "gb18030"]
# of one line: no line ends, none of the characters that `strip` takes from its ends, no NUL
LINES = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"], exclude_characters="\ufeff"),
    min_size=1,
)
CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"))


def read(
    content: bytes, kind: Any = "txt", fields: Fields | None = None, encoding: str = "utf-8"
) -> list[Document]:
    return list(RecordFile(io.BytesIO(content), kind, fields or Fields(), encoding))


def texts(content: bytes, encoding: str = "utf-8") -> list[str]:
    return [str(record.text) for record in read(content, encoding=encoding)]


@given(
    st.lists(st.tuples(LINES, st.sampled_from(["\n", "\r", "\r\n"]))),
    st.sampled_from(ENCODINGS),
    st.integers(1, 40),
)
def test_lines_are_those_of_the_file(
    lines: list[tuple[str, str]], encoding: str, chunk: int
) -> None:
    known = [(line, end) for line, end in lines if can_be(line, encoding)]
    content = "".join(line + end for line, end in known).encode(encoding)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "_CHUNK", chunk)
        file = RecordFile(io.BytesIO(content), "txt", Fields(), encoding)
        assert [record.text for record in file] == [line for line, _ in known]
    assert file.line == len(known)
    assert file.bytes_read <= len(content)
    if encoding == "utf-8":
        assert file.bytes_read == len(content)


def can_be(line: str, encoding: str) -> bool:
    try:
        return line.encode(encoding).decode(encoding) == line
    except UnicodeError:
        return False


@given(st.lists(LINES, max_size=20), LINES, st.integers(1, 40))
def test_a_byte_that_is_not_utf_8_is_found(lines: list[str], last: str, chunk: int) -> None:
    good = "".join(line + "\n" for line in lines).encode() + last.encode()
    for end in (b"", b"\r", b"\r\n"):
        content = good + end + b"\xff" + b"ab\nc\n"
        file = RecordFile(io.BytesIO(content), "txt", Fields())
        found: list[str] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(records, "_CHUNK", chunk)
            with pytest.raises(InputError) as caught:
                found.extend(str(record.text) for record in file)
        complete = [*lines, *[last] * bool(end)]
        assert found == complete
        assert file.line == len(complete) + 1
        assert caught.value.index == len(complete)
        place = f"byte 0xff, which is byte {len(good + end) + 1} of the file"
        assert f"not UTF-8: {place}" in str(caught.value)
        assert "--encoding" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "encoding", "message"),
    [
        (b"\xe9", "utf-8", "byte 0xe9, which is byte 1 of the file"),
        (b"ab\n\xc3", "utf-8", "byte 0xc3, which is byte 4 of the file (unexpected end of data)"),
        ("a".encode("utf-16"), "utf-8", "like utf-16, which this file seems to be"),
        ("a".encode("utf-16-le"), "utf-8", "NUL characters"),
        (b"ab", "utf-16", "does not start with BOM"),
        (b"\xff\0\0\0\0\xd8\xfe{", "utf-16", "which is byte 5 of the file"),
        ("a".encode("utf-16") + b"b", "utf-16", "byte 0x62, which is byte 5 of the file"),
        (b"a\x81", "cp1252", "byte 0x81, which is byte 2 of the file"),
        (b"\xed\xa0\x80", "utf-8", "byte 0xed, which is byte 1 of the file"),
    ],
)
def test_what_cannot_be_decoded_says_where(content: bytes, encoding: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        texts(content, encoding)


@pytest.mark.parametrize("ends", ["\n", "\r", "\r\n"])
def test_old_line_ends_end_lines(ends: str) -> None:
    text = ends.join(["one", "", "two three", "four"])
    assert texts(text.encode()) == ["one", "two three", "four"]
    rows = ends.join(['{"text": "a"}', '{"text": "b"}', ""])
    assert [record.text for record in read(rows.encode(), "jsonl")] == ["a", "b"]
    table = ends.join(["text,n", '"a\r\nb\rc",1', "d,2"])
    assert [record.text for record in read(table.encode(), "csv")] == ["a\r\nb\rc", "d"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_a_mark_of_the_byte_order_is_no_text(encoding: str) -> None:
    content = codecs.BOM_UTF16_LE if encoding == "utf-16-le" else b""
    assert texts(content + "\na\nb".encode(encoding), encoding.removesuffix("-sig")) == ["a", "b"]


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1))
def test_text_of_csv_stays_text(rows: list[tuple[str, str, str]]) -> None:
    file = io.StringIO(newline="")
    csv.writer(file).writerows([("id", "text", "m"), *rows])
    found = read(file.getvalue().encode(), "csv", Fields(id=Field("id")))
    assert [(record.id, record.text, (record.metadata or {})["m"]) for record in found] == rows


def test_csv_ids_stay_apart(tiny: TinyModel, tmp_path: Path) -> None:
    ids = ["7", "007", "7.0", "1" * 30, "1e3", "-1", "²", " 7"]
    file = tmp_path / "a.csv"
    file.write_text("id,text\n" + "".join(f"{one},cat\n" for one in ids), encoding="utf-8")
    to = [f"--path={tmp_path / 'db'}", "--collection=demo", f"--model={tiny.path}"]
    assert main(["add", *to, "--id-field", "id", str(file)]) == 0
    client = QdrantClient(path=str(tmp_path / "db"))
    try:
        client.set_model(tiny.path)
        assert {hit.id for hit in client.query("demo", "cat", limit=99)} == set(ids)
        client.delete_collection("demo")
    finally:
        client.close()
    file.write_text("id,text\n7,cat\n008,dog\n")
    assert main(["add", *to, "--id-field", "id:int", str(file)]) == 0
    client = QdrantClient(path=str(tmp_path / "db"))
    try:
        assert set(stored(client)) == {7, 8}
    finally:
        client.close()


VALUES: list[tuple[str | None, Any, Any]] = [
    ("int", "2020", 2020),
    ("int", " -7 ", -7),
    ("int", "+007", 7),
    ("int", 3, 3),
    ("int", 3.0, 3),
    ("int", "", None),
    ("int", None, None),
    ("float", "2.50", 2.5),
    ("float", "1e-3", 0.001),
    ("float", ".5", 0.5),
    ("float", "7", 7.0),
    ("float", 7, 7.0),
    ("float", " ", None),
    ("bool", "True", True),
    ("bool", "no", False),
    ("bool", "0", False),
    ("bool", 1, True),
    ("bool", False, False),
    ("date", "2024-02-29", date(2024, 2, 29)),
    ("date", "2024-02-29T10:00:00", datetime(2024, 2, 29, 10)),
    ("date", "2024-02-29T10:00:00.5", datetime(2024, 2, 29, 10, microsecond=500_000)),
    ("date", "2024-02-29 10:00:00Z", datetime(2024, 2, 29, 10, tzinfo=timezone.utc)),
    (
        "date",
        "2024-02-29T10:00:00+02:00",
        datetime(2024, 2, 29, 10, tzinfo=timezone(timedelta(hours=2))),
    ),
    ("str", "007", "007"),
    ("str", "", ""),
    ("str", 7, "7"),
    (None, "007", "007"),
    (None, 7.5, 7.5),
]
NOT: dict[str, list[Any]] = {
    "int": ["x", "1.5", "1_000", "٣", "0x1", "1e3", 1.5, float("inf"), True, [1], {}],
    "float": ["x", "1,5", "nan", "inf", "1_0", "1e999", True, []],
    "bool": ["x", "2", 2, 1.5],
    "date": ["x", "2024", "2024-02-30", "20240229", "2024-02-29T99", 2024],
    "str": [1.5, True, []],
}


@pytest.mark.parametrize(("kind", "value", "expected"), VALUES)
def test_fields_have_types(kind: str | None, value: Any, expected: Any) -> None:
    row = {"text": "x", "m": value}
    suffix = f":{kind}" if kind else ""
    fields = Fields(metadata=[to_field(f"m{suffix}")])
    (found,) = read(json.dumps(row).encode(), "jsonl", fields)
    assert found.metadata == {"m": expected}
    assert type((found.metadata or {})["m"]) is type(expected)
    if isinstance(value, str):
        file = io.StringIO(newline="")
        csv.writer(file).writerows([("text", "m"), ("x", value)])
        (found,) = read(file.getvalue().encode(), "csv", fields)
        assert found.metadata == {"m": expected}


@pytest.mark.parametrize(
    ("kind", "value"), [(kind, value) for kind, values in NOT.items() for value in values]
)
def test_a_value_of_another_type_says_its_field(kind: str, value: Any) -> None:
    row = {"text": "x", "m": "INF" if value == float("inf") else value}
    content = json.dumps(row).replace('"INF"', "1e999").encode()
    with pytest.raises(InputError, match=rf"'m' must be .*--metadata-field m:{kind}.*, not ") as at:
        read(content, "jsonl", Fields(metadata=[to_field(f"m:{kind}")]))
    assert at.value.index == 0


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("year", Field("year")),
        ("year:int", Field("year", "int")),
        ("dc:title", Field("dc:title")),
        ("dc:date:date", Field("dc:date", "date")),
        ("x:int:str", Field("x:int", "str")),
        (":int", Field("", "int")),
        ("int", Field("int")),
    ],
)
def test_a_colon_can_be_in_a_name(text: str, field: Field) -> None:
    assert to_field(text) == field


@pytest.mark.parametrize(
    "line", [b'{"text": ' + b"[" * 100_000, b'{"text": "x", "n": ' + b"1" * 5000 + b"}"]
)
def test_json_that_python_cannot_read_is_a_bad_line(line: bytes) -> None:
    if not hasattr(sys, "get_int_max_str_digits") and b"111" in line:
        pytest.skip("reads numbers of any length")
    with pytest.raises(InputError, match="the line cannot be read as JSON"):
        read(line, "jsonl")


@pytest.fixture
def typed(tiny_name: str, tmp_path: Path) -> list[str]:
    """A collection of two documents, a and b, with metadata of every type."""
    file = tmp_path / "a.csv"
    file.write_text(
        "text,year,price,open,day\na,2020,9.5,yes,2024-01-31\nb,2021,10,no,2024-02-01\n"
    )
    to = [f"--path={tmp_path / 'db'}", "--collection=demo"]
    types = ["year:int", "price:float", "open:bool", "day:date"]
    fields = [f"--metadata-field={one}" for one in types]
    assert main(["add", *to, f"--model={tiny_name}", *fields, str(file)]) == 0
    return to


@pytest.mark.parametrize(
    "where",
    [
        {"year": {"gte": 2021}},
        {"price": 10},
        {"open": False},
        {"day": "2024-02-01"},
        {"day": {"gte": "2024-02-01"}},
        {"day": {"gt": "2024-01-31T12:00:00Z"}},
    ],
)
def test_types_are_filtered_by(
    where: dict[str, Any], typed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["query", *typed, "--json", f"--where={json.dumps(where)}", "x"]) == 0
    assert [hit["document"] for hit in json.loads(capsys.readouterr().out)] == ["b"]


@pytest.mark.parametrize("value", ["base64", "nowhere", "", "a\0b"])
def test_an_unknown_encoding_is_wrong_usage(value: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["add", "--path=db", "--collection=demo", f"--encoding={value}", "a.txt"])
    assert caught.value.code == 2


def test_an_id_is_text_or_a_whole_number(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["add", "--path=db", "--collection=demo", "--id-field=n:float", "a.csv"])
    assert "an id is str or int, not float" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({"year": 2020}, "year"),
        ({"year": {"gte": 2020, "lt": 2021.5}}, "year"),
        ({"year": {"not": 2020}}, "year"),
        ({"year": [2019, 2020]}, "year"),
        ({"or": [{"lang": "en"}, {"year": 2020}]}, "year"),
        ({"author.born": 1970}, "author.born"),
        ({'"page number"': 7}, '"page number"'),
        ({"parts[].n": 1}, "parts[].n"),
        ({"tags": 1}, "tags"),
        ({"size": "7"}, "size"),
        ({"year": "2020"}, None),
        ({"size": 8}, None),
        ({"lang": 7}, None),
        ({"size": "large"}, None),
        ({"nothing": 7}, None),
        ({"year": True}, None),
        ({"year": None}, None),
        ({"year": {"exists": True}}, None),
    ],
)
def test_a_comparison_of_numbers_with_text_is_seen(where: dict[str, Any], said: str | None) -> None:
    payload = {
        "year": "2020",
        "lang": "en",
        "author": {"born": "1970"},
        "page number": "7",
        "parts": [{"n": "x"}, {"n": "1"}],
        "tags": ["1"],
        "size": 7,
    }
    notes = mismatches(where, [{}, {"year": None}, payload])
    assert [f"compares {said!r}" in note for note in notes] == ([] if said is None else [True])


def test_a_filter_that_compares_numbers_with_text_says_so(
    tiny_name: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "a.csv"
    file.write_text("text,year\na,2020\n")
    to = [f"--path={tmp_path / 'db'}", "--collection=demo"]
    assert main(["add", *to, f"--model={tiny_name}", str(file)]) == 0
    assert main(["query", *to, '--where={"year": 2020}', "x"]) == 0
    assert capsys.readouterr().out.endswith("nothing was found\n")
    (note,) = caplog.messages
    assert "compares 'year' with the number 2020, but '2020' is stored as text" in note
    assert "--metadata-field year:int" in note
    caplog.clear()
    assert main(["query", *to, '--where={"year": "2020"}', "x"]) == 0
    assert not caplog.messages
