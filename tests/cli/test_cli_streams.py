"""What the command reads and prints where the locale is not UTF-8, and where nobody reads."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from hub_server import downloaded
from tiny import TinyModel

from qdrant_embed.cli.main import main

PROGRAM = "import sys; from qdrant_embed.cli.main import main; sys.exit(main())"
TEXT = "naïve 猫 🐈 \x1b[2J \u202e end"
NAME = "köttbullar-猫"


class Streams:
    """Standard output and error in an encoding."""

    def __init__(self, patch: pytest.MonkeyPatch, encoding: str) -> None:
        self._bytes = io.BytesIO(), io.BytesIO()
        for name, buffer in zip(("stdout", "stderr"), self._bytes, strict=True):
            patch.setattr(sys, name, io.TextIOWrapper(buffer, encoding, "strict"))
        self._encoding = encoding

    def read(self) -> list[str]:
        """What was printed; fails unless all is in the encoding."""
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        return [buffer.getvalue().decode(self._encoding) for buffer in self._bytes]


@pytest.fixture
def to(tmp_path: Path, tiny_name: str) -> list[str]:
    """A collection with one document, in all of whose parts are other scripts."""
    return with_document(tmp_path, tiny_name, NAME)


@pytest.fixture
def to_ascii(tmp_path: Path, tiny_name: str) -> list[str]:
    """The same document in a collection that every file system has a name for."""
    return with_document(tmp_path, tiny_name, "demo")


def with_document(tmp_path: Path, model: str, collection: str) -> list[str]:
    file = tmp_path / f"{NAME}.jsonl"
    row = {"text": TEXT, "id": f"{NAME}\x1b[0m", "ключ": [TEXT]}
    file.write_text(json.dumps(row), encoding="utf-8")
    to = [f"--path={tmp_path / NAME}", f"--collection={collection}"]
    assert main(["add", *to, f"--model={model}", "--id-field=id", str(file)]) == 0
    return to


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437", "utf-8", "utf-16"])
def test_every_command_prints_in_any_encoding(
    encoding: str,
    to: list[str],
    tmp_path: Path,
    tiny: TinyModel,
    tiny_e5: TinyModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    more = tmp_path / f"more-{NAME}.txt"
    more.write_text(TEXT, encoding="utf-8")
    monkeypatch.setenv("QDRANT_EMBED_CACHE", str(tmp_path / f"cache-{NAME}"))
    downloaded("someone/tiny-bert", tiny.path)
    nowhere = tmp_path / f"{NAME}-is-missing"
    commands: list[tuple[int, list[str]]] = [
        (0, ["query", *to, TEXT]),
        (0, ["query", *to, "--json", TEXT]),
        (0, ["query", *to, f"--where={json.dumps({'ключ': TEXT})}", TEXT]),
        (0, ["add", *to, str(more)]),
        (0, ["migrate", *to, f"--model={tiny_e5.path}", f"--to={NAME}-2", f"--alias={NAME}-3"]),
        (0, ["models"]),
        (0, ["cache", "list"]),
        (0, ["cache", "clear"]),
        (0, ["verify"]),
        (1, ["query", *to, f"--where={json.dumps({NAME + '!': 1})}", "x"]),
        (1, ["query", to[0], f"--collection={NAME}-4", "x"]),
        (1, ["query", f"--path={nowhere}", "--collection=x", "x"]),
        (1, ["add", *to, str(nowhere)]),
        (1, ["pull", f"{NAME} {TEXT}"]),
        (1, ["verify", f"{NAME} {TEXT}"]),
        (1, ["compile", str(nowhere), "--out=x"]),
    ]
    for code, command in commands:
        with monkeypatch.context() as patch:
            streams = Streams(patch, encoding)
            assert main(command) == code, command
            out, err = streams.read()
        assert (out if code == 0 else err).strip(), command
        assert "\x1b" not in out, command
        assert "Traceback" not in err, command
        if command[:3] == ["query", *to] and code == 0 and "--json" not in command:
            assert "\\x1b" in out
            assert "\\u202e" in out
            cat = "猫" if encoding.startswith("utf") else "\\u732b"
            assert cat in out


def test_wrong_usage_is_printed_in_any_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = Streams(monkeypatch, "ascii")
    with pytest.raises(SystemExit):
        main(["query", "--path=x", "--collection=x", f"--where={NAME}", "x", f"--{NAME}"])
    assert "not valid JSON" in streams.read()[1]


def shell(*arguments: str | bytes, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=os.environ | environment,
        capture_output=True,
        check=False,
    )


C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="has arguments of UTF-16, and no LC_ALL")
@pytest.mark.parametrize(
    "environment", [{"PYTHONIOENCODING": "cp1252"}, {"LC_ALL": "C"}, C_LOCALE], ids=str
)
def test_a_shell_of_any_locale_is_answered(
    environment: dict[str, str], to_ascii: list[str], tiny: TinyModel, tmp_path: Path
) -> None:
    arguments = [
        *to_ascii,
        "--limit=1",
        f"--where={json.dumps({'ключ': TEXT}, ensure_ascii=False)}",
    ]
    done = shell("query", *(one.encode() for one in arguments), "猫".encode(), **environment)
    assert done.returncode == 0, done.stderr
    assert any(shown in done.stdout for shown in (b"na\\xefve", "naïve".encode(), b"na\xefve"))
    for command in (["query", "x"], ["query", "猫"], ["migrate", "--to=猫", "--model=x"]):
        asked = [command[0], to_ascii[0], f"--collection={NAME}-4", *command[1:]]
        failed = shell(*(one.encode() for one in asked), **environment)
        assert failed.returncode == 1
        assert b"Traceback" not in failed.stderr
    (tmp_path / "a.txt").write_text("one\n")
    added = shell(
        "add",
        to_ascii[0].encode(),
        f"--collection={NAME}".encode(),
        f"--model={tiny.path}",
        str(tmp_path / "a.txt"),
        **environment,
    )
    assert b"Traceback" not in added.stderr
    assert (added.returncode == 0) or b"set PYTHONUTF8=1" in added.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="has arguments of UTF-16")
@pytest.mark.parametrize("environment", [{}, C_LOCALE], ids=["utf-8", "C"])
def test_an_argument_that_is_no_text_is_wrong_usage(
    environment: dict[str, str], to: list[str]
) -> None:
    done = shell("query", *(one.encode() for one in to), b"caf\xe9", **environment)
    assert done.returncode == 2
    assert b"argument text: not UTF-8" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="has no /dev/full")
def test_a_full_disk_is_a_message() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, "models"],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 1
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("qdrant-embed: ")


def test_stdin_has_an_encoding_of_its_own(
    to: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for encoding, code in (("cp1252", 0), ("utf-8", 1)):
        stdin: Any = io.TextIOWrapper(io.BytesIO("café\n".encode("cp1252")), "ascii")
        monkeypatch.setattr(sys, "stdin", stdin)
        assert main(["add", *to, "-", "--format=txt", f"--encoding={encoding}"]) == code
    error = capsys.readouterr().err
    assert "-, line 1: the line is not UTF-8: byte 0xe9, which is byte 4 of the file" in error


def test_streams_may_be_closed(to: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert main(["query", *to, "x"]) == 0
    assert main(["add", *to, "-"]) == 1


def test_a_failure_is_not_on_stdout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["add", "--path=db", "--collection=demo", "nowhere.txt"]) == 1
    assert not capsys.readouterr().out


def test_warnings_show_no_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    assert main(["models"]) == 0
    shown = warnings.formatwarning("slow,\nsays a library", UserWarning, "library.py", 7)
    assert shown == "qdrant-embed: slow, says a library\n"
