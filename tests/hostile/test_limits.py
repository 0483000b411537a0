"""What is beyond a limit is refused by name, and every limit is in one table."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import Fault, serving
from huggingface_hub import constants

from hostile import models
from qdrant_embed import (
    CollectionNotFoundError,
    InputError,
    MissingDependencyError,
    ModelDownloadError,
    ModelFileError,
    ModelSpec,
    QdrantClient,
    TextEmbedding,
    UnknownModelError,
    limits,
)
from qdrant_embed.encoder.files import downloads, hub


def test_the_table_has_every_number() -> None:
    rows = dict(re.findall(r"^`(\w+)` +(\S+(?: \w+)?)  ", limits.__doc__ or "", re.MULTILINE))
    units = {"s": 1, "MB": 1 << 20, "GB": 1 << 30}
    stated = {}
    for name, cell in rows.items():
        number, _, unit = cell.partition(" ")
        stated[name] = int(number.replace(",", "")) * units.get(unit, 1)
    constants = {name: value for name, value in vars(limits).items() if name.isupper()}
    assert stated == constants


def test_a_message_of_any_length_is_shortened() -> None:
    for error in (
        InputError("a" * 10_000_000 + "end", index=3),
        ModelDownloadError("a" * 10_000_000 + "end"),
        UnknownModelError("a" * 10_000_000 + "end", name="x"),
        CollectionNotFoundError("a" * 10_000_000 + "end", collection_name="x"),
    ):
        assert len(str(error)) <= limits.ERROR_MESSAGE
        assert str(error).endswith("end")
        assert "10,000,003 characters in all" in str(error)
    assert str(InputError("short")) == "short"
    assert "x, which is not installed" in str(MissingDependencyError("x", "y"))


@pytest.mark.parametrize("option", ["query_prefix", "document_prefix"])
def test_a_prefix_of_megabytes_is_refused_wherever_it_comes_from(
    option: str, tmp_path: Path
) -> None:
    long = "x" * (limits.PREFIX + 1)
    folder = models.sound("static", tmp_path / "model")
    with pytest.raises(InputError, match=rf"{option} has 16,385 characters"):
        TextEmbedding(folder, **{option: long})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=rf"{option} has 16,385 characters"):
        ModelSpec("m", 3, "mean", 10, **{option: long})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=rf"{option} has 16,385 characters"):
        QdrantClient(":memory:").set_model(folder, **{option: long})  # type: ignore[arg-type]
    assert getattr(TextEmbedding(folder, **{option: long[1:]}).spec, option) == long[1:]  # type: ignore[arg-type]
    models.merged("config_sentence_transformers.json", prompts={"query": long})(folder)
    with pytest.raises(ModelFileError, match="the prompt 'query' has 16,385 characters"):
        TextEmbedding(folder)


def test_a_file_without_stated_size_ends_at_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = models.sound("bert", tmp_path / "model")
    unstated = Fault("/api/", body=lambda body: re.sub(rb'"(size|blobId|lfs)"', b'"other"', body))
    with serving("owner/tiny", folder) as server:
        server.faults += [unstated, Fault("/resolve/", headers={"Content-Length": None})]
        server.faults[1].close_after = 10**9
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(downloads, "UNSTATED_FILE", 1000)
        with pytest.raises(ModelFileError, match="has more than 1,000 bytes"):
            TextEmbedding("owner/tiny", cache_dir=tmp_path / "cache")


@pytest.mark.parametrize(
    ("file", "limit"), [("modules.json", "JSON"), ("tokenizer.json", "TOKENIZER")]
)
def test_a_file_above_its_limit_is_not_fetched(
    file: str, limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = models.sound("bert", tmp_path / "model")
    with serving("owner/tiny", folder) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(downloads, f"{limit}_FILE", (folder / file).stat().st_size - 1)
        with pytest.raises(ModelFileError, match=rf"{file} of owner/tiny has [\d,]+ bytes"):
            TextEmbedding("owner/tiny", cache_dir=tmp_path / "cache")
        assert not server.asked(f"/{file}")


@pytest.fixture
def dripping() -> Iterator[str]:
    """A server that sends a byte of a header now and then, and no answer ever."""
    listening = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nX-Header: ")
                while not ended.wait(0.05):
                    try:
                        connection.sendall(b"x")
                    except OSError:
                        break

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    ended.set()
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join()


def test_an_answer_that_never_begins_is_not_waited_for(
    dripping: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", dripping)
    monkeypatch.setattr(hub, "FIRST_BYTE", 0.5)
    started = time.monotonic()
    with pytest.raises(ModelDownloadError, match="no answer begins within 0 s"):
        TextEmbedding("owner/tiny", cache_dir=tmp_path / "cache")
    assert time.monotonic() - started < 5
