"""``qdrant-embed add`` of Parquet and Arrow files, folders of them, and packed files."""

from __future__ import annotations

import datetime
import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from clients import SENTENCES, stored

from qdrant_embed import QdrantClient
from qdrant_embed.cli.main import main

ROWS: dict[str, list[Any]] = {
    "body": SENTENCES[:3],
    "day": [datetime.date(2024, 1, 2), None, datetime.date(2024, 1, 3)],
    "tags": [["a"], [], None],
}
PAYLOADS = [
    {"document": SENTENCES[0], "day": "2024-01-02", "tags": ["a"]},
    {"document": SENTENCES[1], "day": None, "tags": []},
    {"document": SENTENCES[2], "day": "2024-01-03", "tags": None},
]


@pytest.fixture
def to(tmp_path: Path, tiny_name: str) -> list[str]:
    """Options that name a collection, and a model quick to start."""
    return ["--path", str(tmp_path / "db"), "--collection", "demo", "--model", tiny_name, "--quiet"]


def payloads(tmp_path: Path) -> list[dict[str, Any]]:
    client = QdrantClient(path=str(tmp_path / "db"))
    try:
        return sorted(stored(client).values(), key=lambda one: SENTENCES.index(one["document"]))
    finally:
        client.close()


def write(path: Path, rows: dict[str, list[Any]]) -> Path:
    """Write a table in the format of the file's name."""
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table(rows)
    if path.suffix == ".parquet":
        from pyarrow import parquet

        parquet.write_table(table, path)
        return path
    new = arrow.ipc.new_stream if path.stem == "stream" else arrow.ipc.new_file
    with new(str(path), table.schema) as writer:
        writer.write_table(table)
    return path


@pytest.mark.parametrize("name", ["rows.parquet", "rows.arrow", "stream.arrow", "rows.feather"])
def test_a_table_is_stored_with_its_types(
    name: str, to: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / name, ROWS)
    for _ in range(2):  # ids are derived from the content
        assert main(["add", *to, "--text-field", "body", str(file)]) == 0
        assert capsys.readouterr().out == "3 documents are stored in 'demo'\n"
        assert payloads(tmp_path) == PAYLOADS


def test_fields_are_chosen(to: list[str], tmp_path: Path) -> None:
    file = write(tmp_path / "rows.parquet", ROWS | {"url": ["a", "b", "c"]})
    fields = ["--text-field", "body", "--id-field", "url", "--metadata-field", "day"]
    assert main(["add", *to, *fields, str(file)]) == 0
    assert payloads(tmp_path)[0] == {
        "document": SENTENCES[0],
        "day": "2024-01-02",
        "qdrant_embed_id": "a",
    }


def test_a_folder_is_read_file_by_file(to: list[str], tmp_path: Path) -> None:
    for place, year in enumerate(["2023", "2024", "__HIVE_DEFAULT_PARTITION__"]):
        folder = tmp_path / "rows" / f"year={year}" / "a%20b=x"
        folder.mkdir(parents=True)
        write(folder / "part.parquet", {"text": [SENTENCES[place]]})
    (tmp_path / "rows" / "_SUCCESS").touch()
    assert main(["add", *to, str(tmp_path / "rows")]) == 0
    assert payloads(tmp_path) == [
        {"document": SENTENCES[0], "year": 2023, "a b": "x"},
        {"document": SENTENCES[1], "year": 2024, "a b": "x"},
        {"document": SENTENCES[2], "year": None, "a b": "x"},
    ]


@pytest.mark.parametrize("name", ["rows.parquet", "rows.csv", "rows.csv.gz", "rows.jsonl"])
def test_of_an_empty_file_nothing_is_stored(
    name: str, to: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / name
    if name == "rows.parquet":
        write(file, {"text": []})
    else:
        file.write_bytes(gzip.compress(b"") if name.endswith("gz") else b"")
    assert main(["add", *to, str(file)]) == 0
    assert capsys.readouterr().out == "0 documents are stored in 'demo'\n"


def test_equal_rows_are_one_document(
    to: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "rows.parquet", {"text": [SENTENCES[0]] * 3})
    assert main(["add", *to, str(file)]) == 0
    assert capsys.readouterr().out == "1 document is stored in 'demo'\n"


def test_the_file_of_a_folder_is_named(
    to: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "rows" / "y=1"
    folder.mkdir(parents=True)
    write(folder / "a.parquet", {"text": SENTENCES[:3]})
    write(folder / "b.parquet", {"text": [SENTENCES[3], None]})
    error = fails(to, tmp_path / "rows", capsys)
    assert f"{folder / 'b.parquet'}: row 1, column 'text'" in error
    write(folder / "b.parquet", {"text": SENTENCES[3:5], "id": [1, -5]})
    write(folder / "a.parquet", {"text": SENTENCES[:3], "id": [2, 3, 4]})
    error = fails(to, tmp_path / "rows", capsys, "--id-field", "id")
    assert f"{folder / 'b.parquet'}, row 1: ids[4]: an id must be" in error
    write(folder / "b.parquet", {"body": SENTENCES[:3]})
    assert f"{folder / 'b.parquet'}: the frame has no column" in fails(to, folder.parent, capsys)
    write(folder / "b.parquet", {"text": SENTENCES[:3], "y": [1, 2, 3]})
    error = fails(to, folder.parent, capsys)
    assert (
        f"{folder / 'b.parquet'}: the file has a column 'y', and so has the name of its folder"
        in error
    )


def test_packed_files_are_unpacked(to: list[str], tmp_path: Path) -> None:
    file = tmp_path / "rows.csv.gz"
    file.write_bytes(gzip.compress(f"text,n\n{SENTENCES[0]},1\n".encode()))
    assert main(["add", *to, "--metadata-field", "n:int", str(file)]) == 0
    file = tmp_path / "rows.JSONL.gz"
    file.write_bytes(gzip.compress(json.dumps({"text": SENTENCES[1]}).encode()))
    assert main(["add", *to, str(file)]) == 0
    assert payloads(tmp_path) == [
        {"document": SENTENCES[0], "n": 1},
        {"document": SENTENCES[1]},
    ]


def fails(to: list[str], file: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    assert main(["add", *to, *more, str(file)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_damaged_files_are_named(
    to: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = gzip.compress(b"text\n" + b"a line\n" * 9)
    for content in (whole[:-9], b"text\nnot packed\n", whole[:20] + b"\0" * 9 + whole[29:]):
        file = tmp_path / "rows.csv.gz"
        file.write_bytes(content)
        assert "rows.csv.gz cannot be unpacked: " in fails(to, file, capsys)
    for name in ("rows.parquet", "rows.arrow"):
        file = write(tmp_path / name, {"text": SENTENCES})
        content = file.read_bytes()
        for damaged in (b"", b"no table", content[:-20]):
            file.write_bytes(damaged)
            assert f"{name} cannot be read: " in fails(to, file, capsys)
    assert "none.parquet cannot be read" in fails(to, tmp_path / "none.parquet", capsys)


def test_what_is_wrong_in_a_table_is_named(
    to: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "rows.parquet", {"text": ["a", "b"], "x": [b"1", b"2"]})
    assert "rows.parquet: row 0, column 'x' is b'1' (bytes)" in fails(to, file, capsys)
    assert "no column 'body'" in fails(to, file, capsys, "--text-field", "body")
    typed = fails(to, file, capsys, "--metadata-field", "x:int")
    assert "says which type field 'x' has; omit :int" in typed
    folder = tmp_path / "rows"
    folder.mkdir()
    assert "rows has no .parquet, .arrow or .feather files" in fails(to, folder, capsys)
    (folder / "a.csv").touch()
    assert "rows has a.csv: only" in fails(to, folder, capsys)


def test_without_pyarrow_the_command_names_the_extra(
    to: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "rows.parquet").touch()
    error = fails(to, tmp_path / "rows.parquet", capsys)
    assert "needs pyarrow, which is not installed; run pip install 'qdrant-embed[arrow]'" in error


def test_points_are_exported_and_added_again(
    to: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["add", *to, "--text-field", "body", str(write(tmp_path / "a.parquet", ROWS))]) == 0
    file = tmp_path / "points.parquet"
    place = ["--path", str(tmp_path / "db")]
    capsys.readouterr()
    assert main(["export-points", "demo", *place, "--to", str(file), "--quiet"]) == 0
    assert capsys.readouterr().out == f"3 points are in {file}\n"
    assert main(["export-points", "demo", *place, "--to", str(file)]) == 1
    assert "exists; remove it" in capsys.readouterr().err
    assert main(["export-points", "none", *place, "--to", str(file)]) == 1
    assert "'none' does not exist" in capsys.readouterr().err
    place = ["--path", str(tmp_path / "new"), *to[2:]]
    fields = ["--text-field", "document", "--id-field", "id"]
    assert main(["add", *place, *fields, str(file)]) == 0
    (tmp_path / "db").rename(tmp_path / "old")
    (tmp_path / "new").rename(tmp_path / "db")
    assert payloads(tmp_path) == PAYLOADS
