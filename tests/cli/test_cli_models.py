"""``qdrant-embed models NAME``: all facts about one model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hub_server import COMMIT, asked, downloaded, serving
from rerankers import unpacked
from safetensors.numpy import save_file
from tiny import TinyModel, tiny_bert, tiny_tokenizer, write_model, write_modules
from tiny_onnx import WIDTH, tiny_onnx

from qdrant_embed import TextCrossEncoder, TextEmbedding
from qdrant_embed.cli.main import main
from qdrant_embed.encoder.compile import mixed_precision
from qdrant_embed.encoder.facts.catalog import CATALOG, MINILM

KNOWN = "intfloat/e5-small-v2"  # of the catalog


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("QDRANT_EMBED_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Command:
    """``qdrant-embed models NAME`` as it is printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def lines(self, *arguments: str) -> dict[str, str]:
        """The facts as people see them, by their labels; the first line is the name."""
        assert main(["models", *arguments]) == 0, self._capsys.readouterr().err
        name, *lines = self._capsys.readouterr().out.splitlines()
        return {"": name} | {line[2:18].strip(): line[19:] for line in lines}

    def found(self, *arguments: str) -> dict[str, Any]:
        """The facts as ``--json`` prints them."""
        assert main(["models", "--json", *arguments]) == 0
        found: dict[str, Any] = json.loads(self._capsys.readouterr().out)
        return found

    def failure(self, *arguments: str) -> str:
        """The message of a command that fails."""
        assert main(["models", *arguments]) == 1
        return self._capsys.readouterr().err


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


def test_a_known_model_that_is_not_here(command: Command, empty: Path) -> None:
    lines = command.lines("E5-SMALL-v2")
    assert lines[""] == KNOWN
    assert (lines["dimensions"], lines["tokens"], lines["pooling"]) == ("384", "512", "mean")
    assert (lines["query prefix"], lines["document prefix"]) == ("'query: '", "'passage: '")
    assert (lines["license"], lines["languages"]) == ("MIT", "en")
    assert (lines["architecture"], lines["trained for"]) == ("bert", "retrieval")
    assert lines["runs"] == "a graph compiled from its weights, in int8"
    assert lines["files"] == f"not here: 'qdrant-embed pull {KNOWN}' fetches them"
    assert "about 33 MB" in lines["size"]
    assert "about 132 MB" in command.lines(KNOWN, "--precision", "fp32")["size"]
    found = command.found(KNOWN)
    assert (found["folder"], found["fidelity"], found["megabytes"]) == (None, None, 33)
    assert not empty.exists()


def test_facts_that_the_files_may_refute_are_marked(command: Command, empty: Path) -> None:
    del empty
    lines = command.lines("Qwen3-Embedding-0.6B")
    assert lines["query prefix"].endswith("(by its vendor's page alone)")
    assert lines["can be cut to"] == "32 (by its vendor's page alone)"
    assert lines["dimensions"] == "1024"
    lines = command.lines("granite-embedding-english-r2")
    assert lines["pooling"] == "cls (unconfirmed)"
    assert "by cosine" in command.lines("multi-qa-mpnet-base-dot-v1")["note"]
    assert command.lines("potion-base-8M")["runs"] == "a table of vectors, in numpy"


def test_every_known_model_can_be_shown(command: Command, empty: Path) -> None:
    del empty
    for entry in CATALOG:
        lines = command.lines(entry.spec.name)
        assert lines[""] == entry.spec.name


def test_the_files_win_and_leave_no_doubt(command: Command, empty: Path, tmp_path: Path) -> None:
    del empty
    name = "ibm-granite/granite-embedding-english-r2"
    tiny_bert(tmp_path / "model", prompts={"query": "ask: ", "other": "say: "})
    downloaded(name, tmp_path / "model")
    lines = command.lines(name)
    assert (lines["dimensions"], lines["tokens"], lines["pooling"]) == ("32", "64", "mean")
    assert (lines["query prefix"], lines["prompt other"]) == ("'ask: '", "'say: '")
    assert lines["license"] == "Apache-2.0"
    assert lines["files"].endswith(f"commit {COMMIT[:12]}")
    assert lines["runs"] == "a graph compiled from model.safetensors, in int8; not compiled yet"
    found = command.found(name)
    assert found["sources"]["pooling"] == found["sources"]["query_prefix"] == "files"
    assert found["sources"]["document_prefix"] == "mteb"
    TextEmbedding(name, precision="fp32")
    size = command.found(name, "--precision", "fp32")["megabytes"]
    assert size < 5
    assert command.lines(name, "--precision", "fp32")["runs"].endswith("in fp32")
    assert command.lines(name)["runs"].endswith("not compiled yet")


def test_fidelity_is_shown_after_compiling(
    command: Command, minilm: TextEmbedding, cache: Path
) -> None:
    fidelity = minilm.report.fidelity
    assert fidelity is not None
    lines = command.lines(MINILM, "--cache-dir", str(cache))
    assert lines["runs"] == "a graph compiled from model.safetensors, in int8"
    assert lines["fidelity"].startswith(f"cosine to float32 {fidelity.mean:.4f}; ")
    assert "english" in lines["fidelity"]
    assert "code" in lines["fidelity"]
    assert command.found(MINILM, "--cache-dir", str(cache))["fidelity"]["mean"] == fidelity.mean
    assert "fidelity" not in command.lines(MINILM, "--precision", "fp32")


def test_a_model_that_int8_would_make_too_inexact(
    command: Command, empty: Path, tiny: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    del empty
    monkeypatch.setattr(mixed_precision, "LEAST_OVERLAP", 1.1)
    TextEmbedding(tiny.path)
    assert command.lines(str(tiny.path))["runs"].endswith("in fp32: int8 would be too inexact")


def test_a_folder_and_what_it_was_exported_to(
    command: Command, empty: Path, tmp_path: Path, tiny_e5: TinyModel
) -> None:
    del empty
    lines = command.lines(str(tiny_e5.path))
    assert lines[""] == str(tiny_e5.path)
    assert lines["query prefix"] == "'query: '"
    assert lines["license"] == "not stated"
    assert "languages" not in lines
    TextEmbedding(tiny_e5.path, precision="fp32").export(tmp_path / "exported")
    lines = command.lines(str(tmp_path / "exported"), "--precision", "fp32")
    assert lines["files"] == f"in {tmp_path / 'exported'}"
    assert lines["runs"] == "a graph compiled from model.safetensors, in fp32"


def test_models_that_are_not_compiled(command: Command, empty: Path, tmp_path: Path) -> None:
    del empty
    own = tmp_path / "own"
    write_model(own, {"model_type": "deberta", "hidden_size": WIDTH}, None)
    tiny_onnx(tiny_tokenizer().get_vocab_size()).save(own / "onnx/model_quantized.onnx")
    assert command.lines(str(own))["runs"] == "its own file onnx/model_quantized.onnx, in int8"
    static = tmp_path / "static"
    static.mkdir()
    table = tiny_onnx(tiny_tokenizer().get_vocab_size()).words
    save_file({"embeddings": table}, static / "model.safetensors")
    tiny_tokenizer().save(str(static / "tokenizer.json"))
    write_modules(static, ["StaticEmbedding", "Normalize"])
    runs = command.lines(str(static))["runs"]
    assert runs == "a table of vectors from model.safetensors, in numpy"


def test_nothing_is_fetched(command: Command, empty: Path, tiny: TinyModel) -> None:
    with serving("someone/tiny", tiny.path) as hub, asked(hub):
        failure = command.failure("someone/tiny")
        assert "'qdrant-embed pull someone/tiny' fetches it if the hub has it" in failure
        assert hub.requests == []
    assert not empty.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bge-smal-en-v1.5",), "did you mean 'BAAI/bge-small-en-v1.5'"),
        (("intfloat/e5-smal-v2",), "did you mean 'intfloat/e5-small-v2'"),
        (("nothing of the kind",), "neither in the catalog nor in the cache folder"),
        (("./nothing",), "does not exist"),
        ((KNOWN, "--task", "retrieval"), "omit NAME"),
        ((KNOWN, "--max-mb", "0"), "omit NAME"),
    ],
)
def test_what_cannot_be_shown(
    command: Command, empty: Path, arguments: tuple[str, ...], message: str
) -> None:
    del empty
    assert message in command.failure(*arguments)


def test_models_of_other_kinds(command: Command) -> None:
    assert command.found("bm25") == {
        "model": "Qdrant/bm25",
        "requires_idf": True,
        "license": "Apache-2.0",
        "inference_free": False,
        "kind": "sparse",
    }
    late, reranker = command.found("colbertv2.0"), command.found("ms-marco-MiniLM-L6-v2")
    assert (late["model"], late["kind"], late["dim"]) == ("colbert-ir/colbertv2.0", "late", 128)
    assert reranker["model"] == "cross-encoder/ms-marco-MiniLM-L6-v2"
    assert reranker["kind"] == "reranker"


def test_models_of_other_kinds_are_compiled_and_exported(
    capsys: pytest.CaptureFixture[str], empty: Path, tmp_path: Path
) -> None:
    del empty
    assert main(["pull", "bm25"]) == 0
    assert capsys.readouterr().out == "Qdrant/bm25 is ready (nothing to fetch)\n"
    source = unpacked("bert", tmp_path / "source").folder
    made = ["compile", str(source), "--precision", "fp32", "--out"]
    assert main([*made, str(tmp_path / "reranker"), "--kind", "reranker"]) == 0
    assert "fp32" in capsys.readouterr().out
    (score,) = TextCrossEncoder(tmp_path / "reranker", local_files_only=True).rerank("a", ["b"])
    (expected,) = TextCrossEncoder(source, precision="fp32").rerank("a", ["b"])
    assert score == pytest.approx(expected)
    assert main(["verify", str(tmp_path / "reranker")]) == 0
