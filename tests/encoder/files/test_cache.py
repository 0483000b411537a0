"""The cache folder: whole or absent, whoever writes it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tiny import TinyModel

from qdrant_embed import ModelFileError, TextEmbedding
from qdrant_embed.encoder.files.cache import cache_folder, locked, new_folder, sha256


def test_the_folder_is_the_argument_then_the_variable_then_the_platforms(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("QDRANT_EMBED_CACHE", str(tmp_path / "variable"))
    assert cache_folder(tmp_path / "argument") == tmp_path / "argument"
    assert cache_folder() == tmp_path / "variable"
    monkeypatch.delenv("QDRANT_EMBED_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "qdrant-embed"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "qdrant-embed"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == Path.home() / "Library" / "Caches" / "qdrant-embed"


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "target"
    with new_folder(target) as temporary:
        (temporary / "file").write_text("content")
        assert not target.exists()
    assert (target / "file").read_text() == "content"
    with pytest.raises(KeyError), new_folder(tmp_path / "failed") as temporary:
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]


def test_the_first_of_two_writers_wins(tmp_path: Path) -> None:
    with new_folder(tmp_path / "target") as late:
        (late / "file").write_text("late")
        with new_folder(tmp_path / "target") as early:
            (early / "file").write_text("early")
    assert (tmp_path / "target" / "file").read_text() == "early"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_cannot_be_written_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(ModelFileError, match=r"file.*QDRANT_EMBED_CACHE"),
        new_folder(tmp_path / "file" / "target"),
    ):
        pass


def test_a_lock_is_held_by_one_at_a_time_and_freed_by_an_error(tmp_path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with locked(tmp_path / ".lock"):
            order.append("second")

    other = threading.Thread(target=second)

    def first() -> None:
        with locked(tmp_path / ".lock"):
            other.start()
            other.join(0.3)
            order.append("first")
            raise KeyError

    with pytest.raises(KeyError):
        first()
    other.join(10)
    assert order == ["first", "second"]


def test_a_lock_is_freed_by_the_end_of_the_process_that_holds_it(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys; from qdrant_embed.encoder.files.cache import locked\n"
        "with locked(pathlib.Path(sys.argv[1])): os._exit(3)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / ".lock")]
    assert subprocess.run(command, check=False).returncode == 3
    with locked(tmp_path / ".lock"):
        pass


def test_a_digest_is_remembered_until_the_file_changes(tmp_path: Path) -> None:
    file, cache = tmp_path / "file", tmp_path / "cache"
    file.write_bytes(b"one")
    assert sha256(file, cache) == hashlib.sha256(b"one").hexdigest()
    (note,) = (cache / "sha256").iterdir()
    note.write_text("0" * 64)
    assert sha256(file, cache) == "0" * 64  # it was the note that answered
    file.write_bytes(b"two")
    os.utime(file, ns=(1, 1))
    assert sha256(file, cache) == hashlib.sha256(b"two").hexdigest()


def test_a_digest_needs_no_cache_that_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    assert sha256(tmp_path / "cache", tmp_path / "cache") == hashlib.sha256(b"a file").hexdigest()


@pytest.mark.slow
def test_two_processes_may_compile_the_same_model_at_once(tiny: TinyModel, tmp_path: Path) -> None:
    code = (
        "import sys; from qdrant_embed import TextEmbedding; "
        "print(next(TextEmbedding(sys.argv[1], cache_dir=sys.argv[2]).embed('cat'))[:4])"
    )
    cache = tmp_path / "cache"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tiny.path), str(cache)],
            stdout=subprocess.PIPE,
            cwd=tmp_path,
        )
        for _ in range(2)
    ]
    outputs = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert outputs[0] == outputs[1]
    assert [path.name[0] for path in (cache / "compiled").iterdir()] == ["t"]  # nothing temporary


def test_a_compiled_model_is_found_again_without_its_compiler(
    tiny: TinyModel, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    (expected,) = TextEmbedding(tiny.path, cache_dir=cache).embed("cat")
    code = (
        "import sys; sys.modules['onnx'] = sys.modules['safetensors'] = None; "
        "from qdrant_embed import TextEmbedding; "
        "print(next(TextEmbedding(sys.argv[1], cache_dir=sys.argv[2]).embed('cat')).sum())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny.path), str(cache)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert float(done.stdout) == pytest.approx(float(expected.sum()), rel=1e-5)
