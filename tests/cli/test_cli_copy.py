"""``qdrant-embed copy``: from one database to another, each with options of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients import SENTENCES, LetterEncoder, at
from rest_server import Fault, Server, serving

from qdrant_embed import QdrantClient
from qdrant_embed.cli.main import main

SECRETS = {"QDRANT_API_KEY": "first-key", "QDRANT_TO_API_KEY": "second-key"}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECRETS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A folder with two collections."""
    path = str(tmp_path / "old")
    client = QdrantClient(path=path)
    client.set_model(LetterEncoder())
    for name in ("one", "two"):
        client.add(name, SENTENCES, ids=range(5))
    client.close()
    return path


@pytest.fixture
def other() -> Iterator[Server]:
    with serving() as running:
        yield running


def counts(path: str) -> dict[str, int]:
    client = QdrantClient(path=path)
    names = [found.name for found in client.get_collections().collections]
    found = {name: client.count(name).count for name in sorted(names)}
    client.close()
    return found


def error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return what a command that fails says in one line."""
    capsys.readouterr()
    assert main(["copy", *arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert not any(key in line for key in SECRETS.values())
    return line.removeprefix("qdrant-embed: ")


def test_a_folder_is_copied_to_another_and_to_a_server_and_back(
    folder: str, tmp_path: Path, grpc_server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    new, back = str(tmp_path / "new"), str(tmp_path / "back")
    assert main(["copy", "--from-path", folder, "--to-path", new]) == 0
    assert capsys.readouterr().out == (
        f"5 points of 'one' are in {new}\n5 points of 'two' are in {new}\n"
    )
    assert counts(new) == {"one": 5, "two": 5}
    to = ["--to-url", grpc_server.url, "--to-grpc", "--to-grpc-port", str(grpc_server.grpc_port)]
    assert main(["copy", "--path", new, *to, "--collection", "two", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"copied": {"two": 5}}
    assert grpc_server.database.count("two").count == 5
    assert not any("/collections/" in name for name in grpc_server.requests)
    assert main(["copy", "--url", grpc_server.url, "--to-path", back, "--batch-size", "2"]) == 0
    assert counts(back) == {"two": 5}


@pytest.mark.parametrize("engine", ["local", "edge"])
def test_the_engine_of_a_new_folder_can_be_chosen(
    folder: str, tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[str] = []
    monkeypatch.setattr("qdrant_embed.engines.embedded.is_index_due", lambda *_: engine == "edge")
    monkeypatch.setattr(QdrantClient, "optimize", lambda _, name, **__: built.append(name))
    new = str(tmp_path / "new")
    assert main(["copy", "--path", folder, "--to-path", new, "--to-engine", engine]) == 0
    client = QdrantClient(path=new)
    assert (client.engine, client.count("two").count) == (engine, 5)
    client.close()
    assert built == ["one", "two"] * (engine == "edge")


def test_an_interrupted_copy_goes_on(
    folder: str, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    to = ["--path", folder, "--to-url", server.url]
    server.fail_once("PUT /collections/two/points", Fault(403, message="no"))
    line = error(capsys, *to)
    assert line.startswith(f"{folder} to {server.url}: the key has no right")
    assert main(["copy", *to]) == 0
    assert server.database.count("two").count == 5
    assert error(capsys, *to).startswith(f"collection 'one' already exists in {server.url}")


def test_a_key_goes_to_the_server_that_it_is_meant_for(
    folder: str,
    server: Server,
    other: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("QDRANT_API_KEY", "first-key")
    assert main(["copy", "--path", folder, "--to-url", server.url]) == 0
    assert set(server.keys) == {"first-key"}
    server.keys.clear()
    assert main(["copy", "--url", server.url, "--to-url", other.url]) == 0
    assert (set(server.keys), set(other.keys)) == ({"first-key"}, {None})
    other.tokens = {"second-key": "manage"}
    line = error(capsys, "--url", server.url, "--to-url", other.url)
    assert line.startswith(f"{other.url}: ")
    assert line.endswith("pass a key as --to-api-key, or set QDRANT_TO_API_KEY")
    for name in ("one", "two"):
        other.database.delete_collection(name)
    other.node.settings.clear()
    monkeypatch.setenv("QDRANT_TO_API_KEY", "second-key")
    other.keys.clear()
    assert main(["copy", "--url", server.url, "--to-url", other.url]) == 0
    assert set(other.keys) == {"second-key"}
    arguments = ["--to-api-key", "third", "--to-url", other.url]
    assert "--to-api-key" in error(capsys, "--url", server.url, *arguments)
    server.tokens = {"x": "manage"}
    line = error(capsys, "--url", server.url, "--to-path", str(tmp_path / "new"))
    assert line.startswith(f"{server.url}: ")
    assert line.endswith("pass another key as --api-key, or set QDRANT_API_KEY")


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("side", ["", "to-"])
def test_what_cannot_be_reached_is_said(
    side: str, folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = ["--to-path", str(tmp_path / "new")] if side == "" else ["--path", folder]
    line = error(capsys, f"--{side}url", "http://127.0.0.1:9", *there)
    assert line.startswith("http://127.0.0.1:9: ")
    assert "refused" in line
    line = error(capsys, f"--{side}url", "http://u:p@h", *there)
    assert line.startswith(f"--{side}url has a user or password")
    assert f"--{side}api-key" in line
    line = error(capsys, f"--{side}url", "http://h", f"--{side}engine", "edge", *there)
    assert line == f"--{side}engine is for a folder, and --{side}url names a server"
    line = error(capsys, f"--{side}url", "http://h", f"--{side}ca", "nowhere", *there)
    assert line.startswith(f"--{side}ca nowhere cannot be read")


def test_folders_that_cannot_be_are_said(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = str(tmp_path / "new")
    assert error(capsys, "--path", new, "--to-path", folder) == f"folder {new} does not exist"
    assert not Path(new).exists()
    same = f"{folder}/../old"
    assert "is the folder that is copied" in error(capsys, "--path", folder, "--to-path", same)
    line = error(capsys, "--path", folder, "--to-path", new, "--collection", "three")
    assert "collection 'three' was not found" in line
    assert line.endswith("existing collections: one, two")
    assert main(["copy", "--path", new, "--to-path", str(tmp_path / "newer")]) == 0
    assert capsys.readouterr().out == "there is no collection to copy\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--path=a"],
        ["--to-path=a"],
        ["--path=a", "--url=b", "--to-path=c"],
        ["--path=a", "--from-path=b", "--url=c"],
        ["--path=a", "--to-path=b", "--to-url=c"],
        ["--path=", "--to-path=b"],
        ["--path=a", "--to-path=b", "--batch-size=0"],
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["copy", *arguments])
    assert caught.value.code == 2


def test_no_model_is_loaded(server: Server, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qdrant_embed.encoder.text.TextEmbedding.__init__", None)
    assert main(["copy", "--path", folder, "--to-url", server.url]) == 0
    client = QdrantClient(**at(server))
    assert client.count("one").count == 5
    client.close()
