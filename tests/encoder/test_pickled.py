"""Encoders in other processes: pickled, copied, spawned."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import TinyModel

from qdrant_embed import DefaultEmbedding, InputError, SparseTextEmbedding, TextEmbedding

SPLADE = Path(__file__).parents[1] / "fixtures" / "before_rooms" / "models" / "tiny-splade"
TEXTS = ["the cat sat", "stock fell " * 50, ""]


def sentences(text: str) -> list[tuple[int, int]]:
    half = max(1, len(text) // 2)
    return [(0, half), (half, len(text))]


def pickled(encoder: Any) -> Any:
    return pickle.loads(pickle.dumps(encoder))


WAYS: dict[str, Callable[[Any], Any]] = {
    "pickle": pickled,
    "pickle twice": lambda encoder: pickled(pickled(encoder)),
    "oldest protocol": lambda encoder: pickle.loads(pickle.dumps(encoder, 2)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


def vectors(encoder: TextEmbedding) -> list[Any]:
    found = [*encoder.embed(TEXTS), *encoder.query_embed(TEXTS), *encoder.passage_embed(TEXTS)]
    return [vector.tolist() for vector in found]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"query_prefix": "one ", "document_prefix": "two "},
        {"overflow": "chunk", "overlap": 3, "splitter": sentences},
        {"overflow": "mean", "max_tokens": 12, "threads": 1},
        {"precision": "fp32", "dimensions": 16, "lazy_load": True},
    ],
    ids=lambda options: ",".join(options) or "none",
)
def test_a_copy_has_the_same_vectors(tiny_e5: TinyModel, way: str, options: Any) -> None:
    encoder = TextEmbedding(tiny_e5.path, **options)
    other = WAYS[way](encoder)
    assert vectors(other) == vectors(encoder)
    assert other.describe() == encoder.describe()
    assert other.spec == encoder.spec
    variant = encoder.variant(query_prefix="six ", threads=1)
    assert vectors(WAYS[way](variant)) == vectors(variant)


def test_it_loads_when_it_is_first_used(tiny: TinyModel) -> None:
    encoder = pickled(TextEmbedding(tiny.path))
    assert encoder._model._loaded is None
    list(encoder.embed("cat"))
    assert encoder._model._loaded is not None


def test_a_deep_copy_shares_the_loaded_model(tiny: TinyModel) -> None:
    encoder = TextEmbedding(tiny.path)
    [other] = copy.deepcopy([encoder])
    assert other is not encoder
    assert other._model is encoder._model


def test_a_subclass_keeps_what_is_its_own(tiny: TinyModel) -> None:
    encoder = Labelled(tiny.path)
    encoder.labels = ["a"]
    for way in ("pickle", "deepcopy"):
        other = WAYS[way](encoder)
        assert type(other) is Labelled
        assert other.labels == ["a"]
        assert other.labels is not encoder.labels


class Labelled(TextEmbedding):
    labels: list[str]


def test_folders_are_found_from_elsewhere(
    tiny: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny.path.parent)
    encoder = TextEmbedding(tiny.path.name, cache_dir=os.path.relpath(tmp_path / "cache"))
    expected = vectors(encoder)
    content = pickle.dumps(encoder)
    monkeypatch.chdir(tmp_path)
    other = pickle.loads(content)
    assert vectors(other) == expected
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


@pytest.mark.parametrize("splitter", [lambda text: [(0, 1)], threading.Lock().acquire])
def test_a_splitter_without_a_name_is_refused_by_its_own(tiny: TinyModel, splitter: Any) -> None:
    encoder = TextEmbedding(tiny.path, overflow="chunk", splitter=splitter)
    with pytest.raises(InputError, match=r"splitter=.*top of a module"):
        pickle.dumps(encoder)
    assert copy.deepcopy(encoder).overflow == "chunk"  # stays in its process


@pytest.mark.parametrize("way", WAYS)
def test_sparse_encoders(way: str) -> None:
    encoder = SparseTextEmbedding(language="german", k=2.0)
    other = WAYS[way](encoder)
    assert other.describe() == encoder.describe()
    for one, two in zip(encoder.embed(["Katze Hund"]), other.embed(["Katze Hund"]), strict=True):
        assert np.array_equal(one.indices, two.indices)
        assert np.array_equal(one.values, two.values)


@pytest.mark.parametrize("way", WAYS)
def test_splade(way: str) -> None:
    encoder = SparseTextEmbedding(SPLADE, max_terms=5, precision="fp32")
    other = WAYS[way](encoder)
    assert other.describe() == encoder.describe()
    [one], [two] = encoder.embed("cat dog"), other.embed("cat dog")
    assert np.array_equal(one.indices, two.indices)
    assert np.array_equal(one.values, two.values)


def test_the_default_encoder_keeps_its_class() -> None:
    assert type(pickled(DefaultEmbedding(lazy_load=True))) is DefaultEmbedding


def encode(encoder: Any) -> list[Any]:
    return vectors(encoder)


@pytest.mark.slow
def test_spawned_processes(tiny: TinyModel) -> None:
    encoder = TextEmbedding(tiny.path, overflow="chunk", splitter=sentences)
    expected = encode(encoder)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert np.allclose(pool.apply(encode, (encoder,))[0], expected[0])
