"""``qdrant-embed add`` and ``query``: files of documents in, answers out."""

from __future__ import annotations

import gc
import io
import itertools
import json
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from clients import SENTENCES, stamp, stored
from rest_server import Fault, Server

from qdrant_embed import Document, IngestProgress, QdrantClient
from qdrant_embed.cli.main import main
from qdrant_embed.cli.progress import FileProgress
from qdrant_embed.cli.records import Fields, RecordFile
from qdrant_embed.ingest.documents import InputDocument

PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
from qdrant_embed.cli.main import main
sys.exit(main())
"""
ROWS = [{"text": text, "place": index} for index, text in enumerate(SENTENCES)]


def jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "db"


@pytest.fixture
def to(database: Path, tiny_name: str) -> list[str]:
    """Options that name a collection, and a model quick to start."""
    return ["--path", str(database), "--collection", "demo", "--model", tiny_name]


def points(database: Path) -> dict[Any, dict[str, Any]]:
    client = QdrantClient(path=str(database))
    try:
        return stored(client)
    finally:
        client.close()


def payloads(database: Path) -> list[dict[str, Any]]:
    return list(points(database).values())


def written(database: Path) -> int:
    """Points on disk, whoever is writing."""
    for file in database.rglob("storage.sqlite"):
        connection = sqlite3.connect(file)
        try:
            return int(connection.execute("SELECT count(*) FROM points").fetchone()[0])
        except sqlite3.OperationalError:  # there is no table yet
            return 0
        finally:
            connection.close()
    return 0


def test_json_lines_are_stored_and_found(
    to: list[str],
    database: Path,
    reranker: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = jsonl(tmp_path / "documents.jsonl", ROWS)
    assert main(["add", *to, str(file)]) == 0
    assert capsys.readouterr().out == "5 documents are stored in 'demo'\n"
    expected = [{"document": row["text"], "place": row["place"]} for row in ROWS]
    assert sorted(payloads(database), key=lambda payload: payload["place"]) == expected

    asked = ["query", "--path", str(database), "--collection", "demo"]  # no model: its own
    assert main([*asked, "--json", "--limit", "2", SENTENCES[3]]) == 0
    hits = json.loads(capsys.readouterr().out)
    assert len(hits) == 2
    assert hits[0]["document"] == SENTENCES[3]
    assert hits[0]["metadata"] == {"document": SENTENCES[3], "place": 3}
    assert hits[0]["score"] == pytest.approx(1, abs=0.01)
    assert main([*asked, "--where", '{"place": {"lt": 2}}', SENTENCES[3]]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["score", "id", "text", "metadata"]
    assert len(lines) == 2
    assert all(line.endswith(('{"place": 0}', '{"place": 1}')) for line in lines)
    assert main([*asked, "--json", "--diversity", "0.5", "--limit", "4", SENTENCES[3]]) == 0
    spread = json.loads(capsys.readouterr().out)
    assert spread[0]["id"] == hits[0]["id"]
    falling = sorted((hit["score"] for hit in spread), reverse=True)
    assert [hit["score"] for hit in spread] != falling
    assert main([*asked, "--where", '{"place": 9}', "x"]) == 0
    assert capsys.readouterr().out == "nothing was found\n"

    assert "retrieval_score" not in hits[0]
    assert main([*asked, "--json", "--reranker", str(reranker), SENTENCES[3]]) == 0
    again = json.loads(capsys.readouterr().out)
    scores = {hit["id"]: hit["score"] for hit in again}
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    before = {hit["id"]: hit["retrieval_score"] for hit in again}
    assert before[hits[0]["id"]] == pytest.approx(hits[0]["score"], abs=1e-5)


def test_csv_fields_become_text_metadata_and_ids(
    to: list[str], database: Path, tmp_path: Path
) -> None:
    file = tmp_path / "documents.csv"
    long = "word " * 40_000
    file.write_bytes(
        b"\xef\xbb\xbfnumber,body,author,year\r\n"
        b'7,"two\nlines, ""quoted""",Ann,2020\r\n'
        b"\r\n"
        b"8,caf\xc3\xa9,Bo,2021\r\n" + f"9,{long},Cy,2022\r\n".encode()
    )
    fields = ["--text-field", "body", "--id-field", "number", "--metadata-field", "year"]
    assert main(["add", *to, str(file), *fields]) == 0
    assert {payload.pop("qdrant_embed_id"): payload for payload in payloads(database)} == {
        "7": {"document": 'two\nlines, "quoted"', "year": "2020"},
        "8": {"document": "café", "year": "2021"},
        "9": {"document": long, "year": "2022"},
    }


def test_every_line_of_plain_text_is_a_document(
    to: list[str], database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "documents.TXT"
    file.write_text("one\n\n  two \nthree")
    assert main(["add", *to, str(file)]) == 0
    stdin = io.TextIOWrapper(io.BytesIO(b"four\n"))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert main(["add", *to, "-", "--format", "txt"]) == 0
    stdin = io.TextIOWrapper(io.BytesIO(b'{"text": "five"}\n'))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert main(["add", *to, "-"]) == 0
    texts = [payload["document"] for payload in payloads(database)]
    assert sorted(texts) == ["five", "four", "one", "three", "two"]


def test_a_second_run_repeats_nothing(
    to: list[str], database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = jsonl(tmp_path / "a.jsonl", [*ROWS, ROWS[0]])
    assert main(["add", *to, str(file)]) == 0
    before = points(database)
    assert main(["add", *to, "--json", str(jsonl(file, [*ROWS, {"text": "new"}]))]) == 0
    answer = capsys.readouterr().out.partition("\n")
    assert answer[0] == "5 documents are stored in 'demo'"
    assert json.loads(answer[2]) == {"collection": "demo", "stored": 6}
    after = points(database)
    assert len(after) == 6
    assert before.items() <= after.items()
    assert main(["add", *to, str(file), "--on-existing", "error"]) == 1
    assert points(database) == after


def test_a_collection_is_migrated_to_another_model(
    to: list[str],
    database: Path,
    tiny_e5_name: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["add", *to, str(jsonl(tmp_path / "a.jsonl", ROWS))]) == 0
    place = ["--path", str(database), "--collection"]
    asked = ["migrate", *place, "demo", "--to", "new", "--alias", "docs"]
    capsys.readouterr()
    assert main([*asked, "--model", tiny_e5_name]) == 0
    assert capsys.readouterr().out == "5 documents of 'demo' are in 'new'\n"
    assert main(["query", *place, "docs", "--json", "--limit", "9", "a ship"]) == 0
    hits = json.loads(capsys.readouterr().out)
    assert {hit["id"] for hit in hits} == set(points(database))
    client = QdrantClient(path=str(database))
    try:
        assert stamp(client, "new")["model"] == tiny_e5_name
    finally:
        client.close()


def test_ids_of_a_field_may_be_any_text(to: list[str], database: Path, tmp_path: Path) -> None:
    for text in ("first", "second"):
        file = jsonl(tmp_path / "a.jsonl", [{"text": text, "key": "chapter/1"}])
        assert main(["add", *to, str(file), "--id-field", "key"]) == 0
    assert [payload["document"] for payload in payloads(database)] == ["second"]


@pytest.mark.parametrize(
    ("name", "content", "line", "message"),
    [
        ("a.jsonl", b'{"text": "x"}\n\n{"text": \n', 3, "not JSON"),
        ("a.jsonl", b'{"text": "x"}\n["y"]\n', 2, "must be a JSON object"),
        ("a.jsonl", b'{"text": "x"}\n{"txt": "y"}\n', 2, "field 'text' (--text-field) is missing"),
        ("a.jsonl", b'{"text": "x"}\n{"text": 7}\n', 2, "must be a string, not 7"),
        ("a.jsonl", b'{"text": "x"}\n{"text": "y", "n": NaN}\n', 2, "NaN"),
        ("a.jsonl", b'{"text": "x"}\n{"text": "y", "document": 1}\n', 2, "the key 'document'"),
        ("a.jsonl", b'{"text": "x"}\n{"text": "caf\xe9"}\n', 2, "not UTF-8"),
        ("a.txt", b"x\ncaf\xe9\n", 2, "not UTF-8"),
        (
            "a.csv",
            b'text,n\n"two\nlines",1\nx,1,2\n',
            4,
            "the line has 3 fields, but the header has 2",
        ),
        ("a.csv", b'text,n\n"x,1\n', 2, "not CSV"),
        ("a.csv", b"text,n,text\n", 1, "has a field twice"),
        ("a.csv", b"text;n\nx;1\n", 1, "must be separated by commas"),
    ],
)
def test_a_bad_line_says_its_number(
    name: str,
    content: bytes,
    line: int,
    message: str,
    to: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    assert main(["add", *to, str(file)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"{file}, line {line}: " in captured.err
    assert message in captured.err


@pytest.mark.parametrize(
    ("second", "message"), [("7", "an earlier"), ("[]", "must be a string or a whole number")]
)
def test_a_bad_id_says_its_line(
    second: str,
    message: str,
    to: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(f'{{"text": "x", "n": 7}}\n\n{{"text": "y", "n": {second}}}\n')
    assert main(["add", *to, str(file), "--id-field", "n"]) == 1
    error = capsys.readouterr().err
    assert "line 3: " in error
    assert message in error


def test_a_text_that_is_too_long_says_its_line(
    to: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"text": "cat"}] * 2000
    rows[1500] = {"text": "cat " * 100}
    file = jsonl(tmp_path / "a.jsonl", rows)
    assert main(["add", *to, str(file), "--overflow", "error"]) == 1
    error = capsys.readouterr().err
    assert f"{file}, line 1501: " in error
    assert "has 102 tokens" in error


def test_an_error_that_is_not_of_a_line_names_none(
    to: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = jsonl(tmp_path / "a.jsonl", ROWS)
    assert main(["add", *to, str(file)]) == 0
    assert main(["add", *to, str(file), "--on-existing", "error"]) == 1
    error = capsys.readouterr().err
    assert "collection 'demo' already has the ids of 5 of the next 5 documents" in error
    assert "line" not in error


@pytest.mark.slow
def test_a_bad_line_far_down_says_what_is_stored(
    to: list[str], database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[Any] = [{"text": f"number {number}"} for number in range(2060)]
    file = jsonl(tmp_path / "a.jsonl", [*rows, []])
    assert main(["add", *to, str(file), "--batch-size", "512"]) == 1
    error = capsys.readouterr().err
    kept = len(payloads(database))
    assert 0 < kept < 2060
    assert f"line 2061: {kept} documents are stored in 'demo', then add() failed" in error


def test_a_server_is_asked_with_the_key(
    server: Server,
    tiny_name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    at = ["--url", server.url, "--collection", "demo"]
    file = jsonl(tmp_path / "a.jsonl", ROWS)
    model = ["--model", tiny_name, "--sparse-model", "Qdrant/bm25"]
    assert main(["add", *at, *model, str(file)]) == 0
    monkeypatch.setenv("QDRANT_API_KEY", "from the environment")
    assert main(["query", *at, "--limit", "1", "Paris"]) == 0
    assert server.keys[-1] == "from the environment"
    assert main(["query", *at, "--api-key", "mine", "--limit", "1", "Paris"]) == 0
    assert server.keys[-1] == "mine"
    assert SENTENCES[1] in capsys.readouterr().out
    server.fail_once("query", Fault(403))
    monkeypatch.delenv("QDRANT_API_KEY")
    assert main(["query", *at, "Paris"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"qdrant-embed: {server.url}: ")
    assert "403" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("add", "--path", "db", "nowhere.jsonl"), "nowhere.jsonl cannot be read"),
        (("add", "--path", "db", "a.pdf"), "specify the format with --format"),
        (("add", "--path", "db", "a.txt", "--batch-size", "0"), "batch_size"),
        (("add", "--path", "a.txt", "a.txt"), "a.txt"),
        (("add", "--url", "http://127.0.0.1:9", "a.txt"), "http://127.0.0.1:9: "),
        (("query", "--path", "nowhere", "x"), "folder nowhere does not exist"),
        (
            ("query", "--path", ".", "x"),
            "collection 'demo' does not exist; existing collections: none",
        ),
    ],
)
def test_a_failure_is_a_message_and_exit_code_1(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("one\n")
    Path("a.pdf").write_text("one\n")
    assert main([*arguments, "--collection", "demo"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("qdrant-embed: ")
    assert message in captured.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ("edge", "'{}' is open in another process"),
        ("local", "{}: Storage folder {} is already accessed by another instance"),
    ],
)
def test_a_database_in_use_is_a_message(
    to: list[str], database: Path, engine: str, said: str
) -> None:
    client = QdrantClient(path=str(database), engine=engine)
    try:
        command = [sys.executable, "-c", PROGRAM, "query", *to, "x"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        client.close()
    assert done.returncode == 1
    assert done.stderr.startswith(f"qdrant-embed: {said.replace('{}', str(database))}")


@pytest.mark.parametrize(
    "arguments",
    [
        ("add", "--collection", "demo", "a.txt"),
        ("add", "--path", "db", "a.txt"),
        ("add", "--path", "db", "--url", "http://127.0.0.1:9", "--collection", "demo", "a.txt"),
        ("migrate", "--path", "db", "--collection", "demo", "--to", "new"),
        ("query", "--path", "db", "--collection", "demo", "x", "--where", "{"),
        ("query", "--path", "db", "--collection", "demo", "x", "--where", "[]"),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGINT to send")
def test_an_interrupt_says_what_is_stored(to: list[str], database: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "add", *to, "--engine", "local", "-", "--format", "txt"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write(b"".join(b"number %d\n" % number for number in range(2060)))
    process.stdin.flush()  # and the pipe stays open: it waits for more
    for _ in range(6000):
        if written(database) == 1024:
            break
        time.sleep(0.01)
    assert written(database) == 1024
    process.send_signal(signal.SIGINT)
    errors = process.stderr.read().decode()
    assert process.wait(60) == 130
    process.stdin.close()
    process.stderr.close()
    assert errors.rstrip().endswith("qdrant-embed: interrupted")
    assert "1024 documents are stored in 'demo'" in errors
    assert len(payloads(database)) == 1024


def test_progress_is_for_people_who_want_it(
    to: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = jsonl(tmp_path / "documents.jsonl", ROWS)

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def shown(*options: str) -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stderr", terminal := Terminal())
            assert main(["add", *to, str(file), *options]) == 0
            return terminal.getvalue()

    assert f"adding {file}:   0%" in shown()
    assert not shown("--quiet")
    capsys.readouterr()
    assert main(["add", *to, str(file)]) == 0
    assert not capsys.readouterr().err


def test_the_bar_counts_the_bytes_whose_documents_are_stored(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = b"one\n\ntwo\nthree\n"
    records = RecordFile(io.BytesIO(lines), "txt", Fields())
    with FileProgress("adding", records, len(lines), shown=True) as progress:
        assert [record.text for record in progress] == ["one", "two", "three"]
        progress.report(IngestProgress(2, None, 0, 500, 1, 2.0))
    last = capsys.readouterr().err.splitlines()[-1]
    assert "9.00/15.0" in last
    assert "2 documents, 250 tokens/s, 1 texts truncated]" in last


def test_long_documents_are_stored_in_chunks(
    to: list[str], database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"text": "the cat sat on the ship. " * 40, "name": "long"},
        {"text": "dog", "name": "b"},
    ]
    file = jsonl(tmp_path / "documents.jsonl", rows)
    added = ["add", *to, str(file), "--id-field", "name", "--overflow", "chunk"]
    for _ in range(2):
        assert main(added) == 0
        assert capsys.readouterr().out == "2 documents are stored in 'demo'\n"
    assert len(payloads(database)) > 3
    asked = ["query", "--path", str(database), "--collection", "demo", "--json", "cat"]
    assert main(asked) == 0
    assert {hit["id"] for hit in json.loads(capsys.readouterr().out)} == {"long", "b"}
    assert main([argument for argument in asked if argument != "--json"]) == 0
    assert "qdrant_embed" not in capsys.readouterr().out
    assert main([*asked, "--chunks"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(payloads(database))


@pytest.mark.slow
def test_what_is_stored_is_not_kept_in_memory(
    to: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []

    class Lines(io.BufferedIOBase):
        def __init__(self) -> None:
            self.lines = iter([b"of this test: %d\n" % number for number in range(6000)])

        def read1(self, size: int = -1) -> bytes:
            if some := b"".join(itertools.islice(self.lines, 100)):
                return some
            gc.collect()
            alive = [
                item for item in gc.get_objects() if isinstance(item, Document | InputDocument)
            ]
            kept.append(sum(str(item.text).startswith("of this test") for item in alive))
            return b""

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=Lines()))
    assert main(["add", "-", "--format", "txt", *to]) == 0
    assert kept[0] < 3000
