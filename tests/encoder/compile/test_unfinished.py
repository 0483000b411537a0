"""A compilation that was interrupted is resumed, and what it made is used only if it fits."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny import TinyModel, tiny_bert

from qdrant_embed import CompileReport, ModelFileError, TextEmbedding
from qdrant_embed.cli.main import main
from qdrant_embed.encoder.compile import mixed_precision, unfinished
from qdrant_embed.encoder.compile.quantize import quantize_group
from qdrant_embed.encoder.files import compiled

LAYERS = 4


class Quantizer:
    """Quantises groups until it is interrupted, and counts them."""

    def __init__(self, most: int | None = None) -> None:
        self.most, self.count = most, 0

    def __call__(self, *arguments: object) -> object:
        if self.count == self.most:
            raise KeyboardInterrupt
        self.count += 1
        return quantize_group(*arguments)  # type: ignore[arg-type]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyModel:
    monkeypatch.setattr(unfinished, "_STATES_EVERY", -1.0)
    return tiny_bert(tmp_path / "model", layers=LAYERS)


def compiling(model: TinyModel, cache: Path, quantizer: Quantizer) -> bytes:
    """Compiles, and returns the constants of the graph."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixed_precision, "quantize_group", quantizer)
        report = TextEmbedding(model.path, cache_dir=cache).report
    assert isinstance(report, CompileReport)
    assert report.precision == "int8"
    (weights,) = cache.glob("compiled/*/*.weights")
    return weights.read_bytes()


def interrupted(model: TinyModel, cache: Path, groups: int) -> Path:
    """Compiles until so many groups are done; returns what stays in the cache."""
    with pytest.raises(KeyboardInterrupt):
        compiling(model, cache, Quantizer(groups))
    (kept,) = (cache / "compiled").iterdir()
    assert kept in compiled.unfinished_folders(cache)
    return kept


def test_a_compilation_is_resumed_and_gives_the_same_graph(
    model: TinyModel, tmp_path: Path
) -> None:
    expected = compiling(model, tmp_path / "other", Quantizer())
    interrupted(model, tmp_path / "cache", 10)  # in the third layer, of four groups each
    rest = Quantizer()
    assert compiling(model, tmp_path / "cache", rest) == expected
    assert rest.count == 4 * LAYERS - 8
    assert len(list((tmp_path / "cache/compiled").iterdir())) == 1  # nothing is left over


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such rights")
def test_what_is_unfinished_is_not_writable_by_the_world(model: TinyModel, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        kept = interrupted(model, tmp_path / "cache", 10)
    finally:
        os.umask(before)
    found = [kept, *kept.iterdir()]
    assert len(found) >= 4
    assert not [path for path in found if path.stat().st_mode & stat.S_IWOTH]


def edited_record(kept: Path) -> None:
    record = kept / "unfinished.json"
    record.write_text(record.read_text().replace('"layer-0', '"layer-1'))


def damaged_layer(kept: Path) -> None:
    path = kept / "layer-0.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def other_version(kept: Path) -> None:
    part = unfinished.Unfinished(kept, "made from something else")
    assert part.resumed() == (0, [])
    part.add(0, {}, [np.zeros((1, 1, 1), np.float32)], last=True)


@pytest.mark.parametrize("change", [edited_record, damaged_layer, other_version])
def test_parts_that_do_not_fit_are_made_again(
    change: object, model: TinyModel, tmp_path: Path
) -> None:
    expected = compiling(model, tmp_path / "other", Quantizer())
    kept = interrupted(model, tmp_path / "cache", 10)
    assert callable(change)
    change(kept)
    rest = Quantizer()
    assert compiling(model, tmp_path / "cache", rest) == expected
    assert rest.count == 4 * LAYERS


def test_other_weights_of_the_same_name_resume_nothing(model: TinyModel, tmp_path: Path) -> None:
    interrupted(model, tmp_path / "cache", 10)
    other = tiny_bert(tmp_path / "other" / "model", layers=LAYERS, seed=1)
    rest = Quantizer()
    compiling(other, tmp_path / "cache", rest)
    assert rest.count == 4 * LAYERS


def test_what_is_unfinished_is_shown_cleared_and_forgotten_after_a_week(
    model: TinyModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = tmp_path / "cache"
    kept = interrupted(model, cache, 10)
    assert main(["cache", "list", "--cache-dir", str(cache)]) == 0
    assert kept.name in capsys.readouterr().out.replace("\n", "")
    assert main(["cache", "clear", "--cache-dir", str(cache)]) == 0
    assert not kept.exists()
    kept = interrupted(model, cache, 10)
    monkeypatch.setattr(compiled, "_FORGOTTEN", -1.0)
    TextEmbedding(model.path, cache_dir=cache, precision="fp32")
    assert not kept.exists()


def test_layers_of_weights_that_changed_meanwhile_are_not_kept(
    model: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "qdrant_embed.encoder.compile.compiler.weights_digest", lambda *_, **__: "another"
    )
    with pytest.raises(ModelFileError, match="changed before or while"):
        TextEmbedding(model.path, cache_dir=tmp_path / "cache")
    assert not list((tmp_path / "cache/compiled").iterdir())
