"""What ended processes left is swept, shown and removed; nobody else can write what is kept."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hub_server import serving
from huggingface_hub import constants
from processes import run
from tiny import TinyModel

from hostile import models
from qdrant_embed import TextEmbedding
from qdrant_embed.cli.main import main
from qdrant_embed.encoder.files import cache as cache_module
from qdrant_embed.encoder.files.cache import leftovers, new_folder, sweep
from qdrant_embed.encoder.files.inventory import cache_entries

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes and rights of Unix")


@pytest.fixture(scope="module")
def ended() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def left(folder: Path, name: str, pid: int, *, age: float) -> Path:
    """A temporary folder with a file in it, as a process leaves it that is killed."""
    path = folder / f".{name}-{pid}-0123abcd"
    (path / "inner").mkdir(parents=True)
    (path / "inner" / "file").write_bytes(b"x" * 1000)
    then = time.time() - age
    for one in (path / "inner" / "file", path / "inner", path):
        os.utime(one, (then, then))
    return path


def test_old_folders_of_ended_processes_are_swept_and_no_others(tmp_path: Path, ended: int) -> None:
    old = left(tmp_path, "model-int8-abc", ended, age=7200)
    young = left(tmp_path, "model-int8-def", ended, age=60)
    running = left(tmp_path, "model-int8-ghi", os.getpid(), age=7200)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".lock").touch()
    (tmp_path / f".x-{'9' * 20}-0123abcd").mkdir()  # no process has this number
    sweep(tmp_path)
    assert not old.exists()
    assert {path.name for path in tmp_path.iterdir()} == {
        young.name,
        running.name,
        ".hidden",
        ".lock",
        f".x-{'9' * 20}-0123abcd",
    }
    assert young in leftovers(tmp_path)
    assert running not in leftovers(tmp_path)


def test_a_file_that_changed_lately_keeps_its_folder(tmp_path: Path, ended: int) -> None:
    old = left(tmp_path, "model", ended, age=7200)
    (old / "inner" / "file").write_bytes(b"y")
    sweep(tmp_path)
    assert old.exists()


def test_compiling_and_downloading_sweep(
    tiny: TinyModel, tmp_path: Path, ended: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    swept = [left(cache / "compiled", "other-int8-abc", ended, age=7200)]
    TextEmbedding(tiny.path, cache_dir=cache, precision="fp32")
    with serving("owner/tiny", tiny.path) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        swept.append(left(cache / "hub" / "owner--tiny", "0" * 40 + ".json", ended, age=7200))
        TextEmbedding("owner/tiny", cache_dir=cache, precision="fp32")
    assert not any(path.exists() for path in swept)


def test_the_command_shows_and_removes_them(
    tmp_path: Path, ended: int, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [
        left(tmp_path / "compiled", "tiny-int8-abc", ended, age=1),
        left(tmp_path / "hub" / "owner--tiny", "record.json", ended, age=1),
        left(tmp_path / "compiled", "other-fp32-abc", ended, age=1),
        left(tmp_path / "plans", "note", ended, age=1),
    ]
    alive = left(tmp_path / "compiled", "tiny-int8-def", os.getpid(), age=1)
    entries = cache_entries(tmp_path)
    assert sorted(entry.folder for entry in entries) == sorted(folders)
    assert {(entry.kind, entry.size) for entry in entries} == {("leftover", 1000)}
    assert main(["cache", "list", "--cache-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("leftover") == 4
    assert main(["cache", "clear", "owner/tiny", "--cache-dir", str(tmp_path)]) == 0
    assert [path.exists() for path in folders] == [False, False, True, True]
    assert alive.exists()
    assert main(["cache", "clear", "--cache-dir", str(tmp_path)]) == 0
    assert not any(path.exists() for path in folders)


def test_nothing_is_writable_by_the_world(tiny: TinyModel, tmp_path: Path) -> None:
    """Whatever the umask is, which belongs to the whole process."""
    with serving("owner/tiny", tiny.path) as hub:
        script = """
        import os, sys
        os.umask(0)
        from huggingface_hub import constants
        from qdrant_embed import TextEmbedding
        constants.ENDPOINT, cache = sys.argv[1], sys.argv[2]
        for name in ("owner/tiny", sys.argv[3]):
            encoder = TextEmbedding(name, cache_dir=cache, precision="fp32")
            list(encoder.embed("cat"))
        encoder.export(sys.argv[4])
        TextEmbedding(sys.argv[4], cache_dir=cache)
        """
        run(script, hub.url, tmp_path / "cache", tiny.path, tmp_path / "deep/down/out")
    found = [path for path in tmp_path.rglob("*") if not path.is_symlink()]
    assert len(found) > 20
    open_ones = [path for path in found if path.stat().st_mode & stat.S_IWOTH]
    assert not open_ones


def test_files_of_a_group_stay_the_groups(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        with new_folder(tmp_path / "new") as folder:
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700  # until it is whole
            (folder / "file").touch()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o775
    assert stat.S_IMODE((tmp_path / "new/file").stat().st_mode) == 0o664


@pytest.mark.parametrize("part", ["", "compiled"])
def test_a_cache_that_others_can_write_is_warned_of_once(
    part: str,
    tiny: TinyModel,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cache_module, "_warned", set())
    cache = tmp_path / "cache"
    (cache / part).mkdir(parents=True)
    (cache / part).chmod(0o777)
    for _ in range(2):
        TextEmbedding(tiny.path, cache_dir=cache, precision="fp32")
    warnings = [r for r in caplog.records if "is not safe" in r.message]
    assert len(warnings) == 1
    assert warnings[0].levelno == logging.WARNING
    assert str(cache / part) in warnings[0].message


def test_a_cache_of_ones_own_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "_warned", set())
    folder = models.sound("static", tmp_path / "model")
    TextEmbedding(folder, cache_dir=tmp_path / "cache")
    TextEmbedding(folder, cache_dir=tmp_path / "cache")
    assert "is not safe" not in caplog.text
