"""The ``qdrant-embed`` command, as a shell runs it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hub_server import COMMIT, Fault, Hub, corrupted, serving
from tiny import TinyModel

from qdrant_embed import TextEmbedding
from qdrant_embed.cli.main import main
from qdrant_embed.encoder.facts.catalog import CATALOG

NAME = "someone/tiny"


@pytest.fixture
def hub(tiny: TinyModel, tmp_path: Path) -> Iterator[Hub]:
    shutil.copytree(tiny.path, tmp_path / "repository")
    with serving(NAME, tmp_path / "repository") as hub:
        yield hub


NOWHERE = "http://127.0.0.1:9"
PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
from qdrant_embed.cli.main import main
sys.exit(main())
"""
MAIN = [sys.executable, "-c", PROGRAM]


def command(home: Path, *arguments: str, endpoint: str = NOWHERE) -> Any:
    """What the command prints with --json, in a cache below `home`."""
    done = run(home, *arguments, "--json", endpoint=endpoint)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def run(home: Path, *arguments: str, endpoint: str = NOWHERE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MAIN, *arguments],
        env=environment(home, endpoint),
        capture_output=True,
        text=True,
        check=False,
    )


def environment(home: Path, endpoint: str) -> dict[str, str]:
    return os.environ | {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home / "hf"),
        "QDRANT_EMBED_CACHE": str(home / "ours"),
    }


@pytest.mark.slow
def test_a_model_is_pulled_verified_exported_and_cleared(hub: Hub, tmp_path: Path) -> None:
    pulled = command(tmp_path, "pull", NAME, "--precision", "fp32", endpoint=hub.url)
    assert (pulled["model"], pulled["revision"]) == (NAME, COMMIT)
    assert (pulled["dimension"], pulled["precision"]) == (32, "fp32")

    out = tmp_path / "model"
    exported = command(tmp_path, "export", NAME, str(out), "--precision", "fp32")  # no network
    assert exported == {**pulled, "folder": str(out)}
    encoder = TextEmbedding(out)
    assert encoder.model_name == NAME
    assert encoder.describe().revision == COMMIT
    assert encoder.describe().weights_sha256 == pulled["weights_sha256"]

    for checked in command(tmp_path, "verify"):
        assert (checked["name"], checked["damaged"]) == (NAME, [])
    (kept, compiled) = command(tmp_path, "cache", "list")
    assert (kept["kind"], compiled["kind"]) == ("downloaded", "compiled")
    assert command(tmp_path, "cache", "clear", NAME.upper())["bytes"] > 100_000
    assert command(tmp_path, "cache", "list") == []
    assert f"nothing of {NAME} in" in run(tmp_path, "cache", "clear", NAME).stdout


@pytest.mark.slow
def test_pull_measures_what_runs_documents(hub: Hub, tmp_path: Path) -> None:
    done = run(tmp_path, "pull", NAME, "--runtime", "auto", "--json", endpoint=hub.url)
    assert json.loads(done.stdout)["runtime"] in ("onnxruntime", "openvino"), done.stderr
    assert (tmp_path / "ours/runtimes").is_dir() is (find_spec("openvino") is not None)
    refused = run(tmp_path, "pull", "Qdrant/bm25", "--runtime", "auto")
    assert refused.returncode == 1
    assert "--runtime auto is for dense models, which Qdrant/bm25 is not" in refused.stderr


@pytest.mark.slow
def test_damage_is_found_and_repaired(hub: Hub, tmp_path: Path) -> None:
    command(tmp_path, "pull", NAME, "--precision", "fp32", endpoint=hub.url)
    for damaged, repair in (
        ("model.safetensors", ()),
        ("model.onnx.weights", ("cache", "clear", NAME)),
    ):
        weights = next((tmp_path / "ours").rglob(damaged))
        status = weights.stat()
        weights.write_bytes(corrupted(weights.read_bytes()))
        os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))  # only a hash can tell
        failed = run(tmp_path, "verify", NAME)
        assert failed.returncode == 1
        assert f"{damaged} (someone/tiny)" in failed.stderr
        assert "qdrant-embed pull" in failed.stderr
        assert "qdrant-embed cache clear" in failed.stderr
        if repair:
            command(tmp_path, *repair)
        command(tmp_path, "pull", NAME, "--precision", "fp32", endpoint=hub.url)
        assert run(tmp_path, "verify", NAME).returncode == 0


@pytest.mark.slow
def test_pull_asks_what_main_is_now(hub: Hub, tmp_path: Path) -> None:
    arguments = ("pull", NAME, "--precision", "fp32")
    command(tmp_path, *arguments, endpoint=hub.url)
    hub.commit = "e" * 40
    assert command(tmp_path, *arguments, endpoint=hub.url)["revision"] == "e" * 40
    old = command(tmp_path, *arguments, "--revision", COMMIT, endpoint=hub.url)
    assert old["revision"] == COMMIT


@pytest.mark.slow
def test_a_folder_is_compiled_into_another(tiny: TinyModel, tmp_path: Path) -> None:
    out = tmp_path / "out"
    compiled = command(
        tmp_path, "compile", str(tiny.path), "--out", str(out), "--precision", "fp32"
    )
    assert compiled["model"] == str(tiny.path)
    assert TextEmbedding(out).describe() == TextEmbedding(tiny.path, lazy_load=True).describe()
    again = run(tmp_path, "compile", str(tiny.path), "--out", str(out))
    assert (again.returncode, again.stdout) == (1, "")
    assert "already exists" in again.stderr
    (out / "tokenizer.json").unlink()
    damaged = run(tmp_path, "verify", str(out))
    assert damaged.returncode == 1
    assert "tokenizer.json" in damaged.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pull", NAME), "could not be downloaded"),
        (("pull", "no such model"), "no model named"),
        (("pull", "Qdrant/bm25", "--kind", "dense"), "is a sparse model"),
        (("export", "bm25", "out"), "has no files to export"),
        (("pull", "x" * 5000), "no model named"),
        (("export", NAME, "file/model"), "cannot write file/model"),  # before the hub is asked
        (("compile", "nowhere", "--out", "x"), "folder nowhere does not exist"),
        (("verify", "someone/other"), "neither a folder nor a model in"),
        (("verify", "."), "only exported models"),
    ],
)
def test_a_failure_is_a_message_and_exit_code_1(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("QDRANT_EMBED_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("qdrant-embed: ")
    assert message in captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize("arguments", [(), ("pull",), ("cache",), ("compile", "x"), ("bake", "x")])
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


@pytest.mark.slow
def test_an_interrupt_is_exit_code_130(hub: Hub, tmp_path: Path) -> None:
    hub.faults.append(Fault("model.safetensors", pause=0.01))
    process = subprocess.Popen(
        [*MAIN, "pull", NAME],
        env=environment(tmp_path, hub.url),
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(6000):
        if hub.asked("model.safetensors"):
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip() == "qdrant-embed: interrupted"


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == version("qdrant-embed") + "\n"


def test_known_models_are_listed_without_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(CATALOG) + 1
    assert "'passage: '" in next(line for line in lines if "e5-small-v2" in line)
    assert main(["models", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    known = json.loads(json.dumps(TextEmbedding.list_supported_models()))
    assert listed == known


def test_models_are_listed_by_what_they_are_for(capsys: pytest.CaptureFixture[str]) -> None:
    def named(*options: str) -> set[str]:
        assert main(["models", "--json", *options]) == 0
        return {model["model"].rpartition("/")[2] for model in json.loads(capsys.readouterr().out)}

    assert "multilingual-e5-small" in named("--language", "DE") - named("--max-mb", "100")
    assert "bge-small-en-v1.5" in named("--language", "en", "--max-mb", "50", "--task", "retrieval")
    assert "bge-small-en-v1.5" not in named("--language", "de")
    assert "paraphrase-multilingual-MiniLM-L12-v2" in named("--task", "similarity")
    assert named("--task", "similarity") | named("--task", "retrieval") == named()
    assert named("--language", "xx") == set()
    assert main(["models", "--language", "xx"]) == 0
    assert capsys.readouterr().out == "no known model matches\n"
