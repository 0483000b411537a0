"""Waits of more than two seconds are announced, shorter ones are not."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from processes import run
from tiny import TinyModel

from qdrant_embed import InputError, TextEmbedding, stalls
from qdrant_embed.encoder.compile import compiler
from qdrant_embed.encoder.compile.architectures import registry
from qdrant_embed.encoder.files import cache
from qdrant_embed.encoder.files.cache import cache_folder, locked
from qdrant_embed.progress_bar import Progress


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stalls, "NOTICE", 0.05)
    monkeypatch.setattr(cache, "NOTICE", 0.05)


def test_a_wait_is_announced_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    def wait() -> None:
        with stalls.announced("waiting for a bus"):
            while "takes more" not in caplog.text:
                time.sleep(0.01)
            raise KeyError

    with pytest.raises(KeyError):  # it may fail, too
        wait()
    first, last = caplog.records
    assert first.levelno == last.levelno == logging.WARNING  # seen without any configuration
    assert first.getMessage().startswith("waiting for a bus takes more than")
    assert last.getMessage().startswith("waiting for a bus has ended after")


def test_what_is_soon_done_or_shown_by_a_bar_says_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with stalls.announced("waiting for nothing"):
        pass
    with stalls.announced("waiting, shown by a bar", unless=True):
        time.sleep(0.1)
    time.sleep(0.1)
    assert not caplog.records


def test_of_waits_for_the_same_one_is_announced(caplog: pytest.LogCaptureFixture) -> None:
    done = threading.Event()

    def wait(what: str) -> None:
        with stalls.announced(what):
            done.wait(10)

    threads = [threading.Thread(target=wait, args=[f"waiting for {n % 2}"]) for n in range(6)]
    for thread in threads:
        thread.start()
    while len(caplog.records) < 2:
        time.sleep(0.01)
    time.sleep(0.1)
    assert len(caplog.records) == 2
    done.set()
    for thread in threads:
        thread.join()
    assert [caplog.text.count(f"waiting for {n} has ended") for n in (0, 1)] == [1, 1]
    assert len(caplog.records) == 4


def test_waits_for_the_same_that_overlap_end_with_the_last(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, last = (stalls.announced("waiting for a bus") for _ in range(2))
    with contextlib.ExitStack() as stack:
        with first:
            while not caplog.records:
                time.sleep(0.01)
            stack.enter_context(last)
        assert "has ended" not in caplog.text
        time.sleep(0.1)
    assert caplog.text.count("takes more") == caplog.text.count("has ended") == 1


def test_a_bar_knows_whether_it_is_seen() -> None:
    for shown, visible in ((True, True), (False, False), (None, False)):  # stderr is no terminal
        with Progress("a bar", 3, shown=shown) as bar:
            assert bar.is_visible is visible


def test_a_first_compile_without_a_terminal(
    tiny: TinyModel, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    graph = registry.model_graph

    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(0.1)
        return graph(*arguments, **options)

    monkeypatch.setattr(compiler, "model_graph", slow)
    TextEmbedding(tiny.path, cache_dir=tmp_path)
    said = [record.getMessage() for record in caplog.records if "compiling" in record.getMessage()]
    assert "takes more than" in said[0]
    assert "has ended after" in said[1]


def test_another_process_that_holds_the_cache(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    done = threading.Event()

    def wait() -> None:
        with locked(tmp_path / "lock"):
            done.set()

    with locked(tmp_path / "lock"):
        thread = threading.Thread(target=wait)
        thread.start()
        while "waiting for another process" not in caplog.text:
            time.sleep(0.01)
    thread.join()
    assert done.is_set()
    assert caplog.records[0].levelno == logging.WARNING


def test_a_warning_reaches_a_terminal_without_logging() -> None:
    script = """
    import time
    from qdrant_embed import stalls
    stalls.NOTICE = 0.05
    import contextlib, io
    with contextlib.redirect_stderr(io.StringIO()) as err, stalls.announced("compiling"):
        time.sleep(0.5)
    assert err.getvalue().count("compiling") == 2, err.getvalue()
    """
    run(script)


@pytest.mark.parametrize("blank", ["", " ", "\t", "\n ", "\u00a0"])
@pytest.mark.parametrize("variable", ["QDRANT_EMBED_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"])
def test_a_blank_variable_names_no_folder(
    monkeypatch: pytest.MonkeyPatch, variable: str, blank: str
) -> None:
    for name in ("QDRANT_EMBED_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    unset = cache_folder()
    monkeypatch.setenv(variable, blank)
    assert cache_folder() == unset


@pytest.mark.parametrize("blank", [" ", "\t\n"])
def test_a_blank_option_is_refused(tiny: TinyModel, blank: str) -> None:
    with pytest.raises(InputError, match="cache_dir is blank"):
        TextEmbedding(tiny.path, cache_dir=blank)
    with pytest.raises(InputError, match="folder is blank"):
        TextEmbedding(tiny.path).export(blank)
    with pytest.raises(InputError, match="blank"):
        TextEmbedding(blank)
