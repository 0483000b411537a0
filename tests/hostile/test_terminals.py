"""Nothing that comes from outside steers a terminal, and no password is printed."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_server import serving
from huggingface_hub import constants
from hypothesis import given
from hypothesis import strategies as st
from tiny import TinyModel

from hostile import models
from qdrant_embed import InputError, ModelDownloadError, QdrantClient, TextEmbedding
from qdrant_embed.cli.main import main
from qdrant_embed.progress_bar import Progress
from qdrant_embed.terminals import escaped, message, without_credentials

# a title, a colour, a bell, a line over another, C1, right to left, a separator, a deletion, a tag
EVIL = "\x1b]0;title\x07\x1b[31m\r\x08\x9b2J\u202etxt.exe\u2066\u2028\x7f\x85\U000e0041"
STEERS = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]"
)

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """The command: its exit code, output and messages, of which none steers a terminal."""

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            code = main(arguments)
        except SystemExit as error:
            code = int(str(error.code))
        out, err = capsys.readouterr()
        if "--json" not in arguments:
            assert not STEERS.search(out), repr(out)
        assert not STEERS.search(err), repr(err)
        return code, out, err

    return run


@given(st.text(st.characters() | st.sampled_from(EVIL)))
def test_what_is_escaped_steers_nothing_and_nothing_else_changes(text: str) -> None:
    found = escaped(text)
    assert not STEERS.search(found)
    assert "\n" not in found
    if all(unicodedata.category(char)[0] in "LNPSM" for char in text):
        assert found == text
    assert escaped(found) == found
    assert message(text).count("\n") == text.count("\n")


def test_letters_that_need_joiners_stay() -> None:
    for text in (
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "naïve — ok",
    ):
        assert escaped(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see http://me:secret@host:80/x.", "see http://host:80/x."),
        ("https://me@host", "https://host"),
        ("http://me:p@ss@host", "http://host"),
        ("http://host/a@b", "http://host/a@b"),
        ("me@host", "me@host"),
        ("socks5h://a:b@h and http://c:d@i", "socks5h://h and http://i"),
    ],
)
def test_urls_lose_user_and_password(text: str, shown: str) -> None:
    assert without_credentials(text) == message(text) == shown
    assert str(InputError(text)) == str(ModelDownloadError(text)) == shown


def test_documents_ids_and_metadata(run: Run, tiny_name: str, tmp_path: Path) -> None:
    where = ["--path", str(tmp_path / "db"), "--collection", "c"]
    documents = tmp_path / "documents.jsonl"
    records = [{"text": f"cat {EVIL}", "id": f"id {EVIL}", f"key {EVIL}": {EVIL: [EVIL]}}]
    documents.write_text("\n".join(map(json.dumps, records)))
    added = run("add", str(documents), *where, "--model", tiny_name, "--id-field", "id")
    assert added[0] == 0
    code, out, _ = run("query", "cat", *where)
    assert code == 0
    assert "\\x1b" in out
    code, out, _ = run("query", "cat", *where, "--json")
    assert json.loads(out)[0]["document"] == records[0]["text"]
    assert json.loads(out)[0]["id"] == records[0]["id"]
    run("query", "cat", *where, "--where", json.dumps({f"key {EVIL}": 1}))
    run("query", "cat", *where, "--where", json.dumps({EVIL: {EVIL: 1}}))


def test_names_of_collections_files_fields_and_models(
    run: Run, tiny: TinyModel, tmp_path: Path
) -> None:
    name = f"c {EVIL}".replace("/", "")
    client = QdrantClient(path=str(tmp_path / "db"))
    client.set_model(tiny.path)
    client.add("\u202e\u2066", ["cat"])
    client.close()
    where = ["--path", str(tmp_path / "db")]
    evil_file = tmp_path / f"{name}.jsonl"
    evil_file.write_text(f'{{"text": "cat", {json.dumps(EVIL)}: 1}}\n')
    for arguments in (
        ["query", "cat", *where, "--collection", "missing"],
        ["query", "cat", *where, "--collection", name],
        ["add", str(evil_file), *where, "--collection", name],
        ["add", str(evil_file), *where, "--collection", "c", "--text-field", EVIL],
        ["add", str(evil_file), *where, "--collection", "c", "--id-field", f"{EVIL}:date"],
        ["add", str(evil_file), *where, "--collection", "c", "--encoding", EVIL],
        ["add", str(tmp_path / f"{EVIL}gone.jsonl"), *where, "--collection", "c"],
        ["add", str(tmp_path / EVIL), *where, "--collection", "c"],
        ["query", "cat", *where, "--collection", "c", "--model", EVIL],
        ["query", "cat", *where, "--collection", "c", f"--{EVIL}"],
        ["query", "cat", "--path", str(tmp_path / EVIL), "--collection", "c"],
        ["query", "cat", "--url", f"http://{EVIL}/", "--collection", "c"],
        ["query", "cat", "--url", "http://me:secret@localhost:1/", "--collection", "c"],
        ["migrate", *where, "--collection", "\u202e\u2066", "--to", name, "--model", EVIL],
        ["pull", EVIL],
        ["pull", f"a/{EVIL}"],
        ["pull", "a/b", "--revision", EVIL],
        ["verify", str(tmp_path / EVIL)],
        ["verify", EVIL],
        ["compile", EVIL, "--out", EVIL],
        ["export", EVIL, EVIL],
        [EVIL],
    ):
        code, out, err = run(*arguments)
        assert code in (1, 2), arguments
        assert not out
        assert "secret" not in err


def test_folders_of_the_cache(run: Run, tmp_path: Path) -> None:
    cache = tmp_path / f"cache {EVIL}"
    model = tmp_path / f"model {EVIL}"
    models.sound("bert", model)
    TextEmbedding(model, cache_dir=cache, precision="fp32")
    assert run("cache", "list", "--cache-dir", str(cache))[0] == 0
    assert run("verify", "--cache-dir", str(cache))[0] == 0
    assert run("compile", str(model), "--out", str(tmp_path / f"out {EVIL}"))[0] == 0
    assert run("cache", "clear", "--cache-dir", str(cache))[0] == 0


def test_a_hub_with_a_password(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = models.sound("bert", tmp_path / "model")
    with serving("owner/tiny", folder) as hub:
        address = hub.url.replace("http://", "http://me:secret@")
        monkeypatch.setattr(constants, "ENDPOINT", address)
        for name in ("owner/tiny", "owner/other"):
            _, out, err = run("pull", name, "--cache-dir", str(tmp_path / "cache"))
            assert "secret" not in out + err
    code, _, err = run("pull", "owner/third", "--cache-dir", str(tmp_path / "cache"))
    assert code == 1
    assert "secret" not in err + caplog.text
    assert "127.0.0.1" in err


class Terminal(io.StringIO):
    """What a progress bar takes for a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress(f"adding {EVIL}", 10, shown=True) as bar:
        bar.step(EVIL)
        bar.advance(3, EVIL)
        bar.show_note(EVIL)
    shown = terminal.getvalue()
    assert "adding" in shown
    for evil in ("\x1b]0;", "\x1b[31m", "\x07", "\x9b", "\u202e", "\u2066"):
        assert evil not in shown


def test_log_messages_and_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    from qdrant_embed.cli import main as command

    record = logging.LogRecord("x", logging.WARNING, "", 1, "%s", (f"{EVIL} http://a:b@c",), None)
    shown = command._Formatter().format(record)
    assert not STEERS.search(shown)
    assert shown.endswith("http://c")
    assert not STEERS.search(command._warning(UserWarning(EVIL)))
    assert warnings.formatwarning is not None
