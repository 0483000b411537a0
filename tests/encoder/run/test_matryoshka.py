"""Vectors cut to their first numbers, and facts that the user states."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clients import opened
from tiny import TinyModel, tiny_bert

from qdrant_embed import InputError, ModelSpec, QdrantClient, TextEmbedding
from qdrant_embed.encoder.facts.catalog import MINILM


def trained(tiny: TinyModel, smallest: int | None = 8, **changes: object) -> ModelSpec:
    """The tiny model's facts, with what its files cannot say."""
    spec = TextEmbedding(tiny.path, lazy_load=True).spec
    return replace(spec, name="acme/tiny", smallest_dimension=smallest, **changes)  # type: ignore[arg-type] # fields by name


def test_vectors_are_cut_and_scaled_again(
    tiny: TinyModel, caplog: pytest.LogCaptureFixture
) -> None:
    full = TextEmbedding(tiny.path, precision="fp32", spec=trained(tiny))
    cut = TextEmbedding(tiny.path, precision="fp32", spec=trained(tiny), dimensions=12)
    texts = ["cat", "dog sat", "the sea storm", "cat"]
    expected = np.stack(list(full.embed(texts)))[:, :12]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(np.stack(list(cut.embed(texts))), expected, atol=1e-6)
    (single,) = cut.query_embed("cat")
    np.testing.assert_allclose(single, expected[0], atol=1e-6)
    assert (cut.dimension, cut.describe().dimension, full.dimension) == (12, 12, 32)
    assert caplog.text == ""


def test_unnormalised_vectors_are_scaled_once_they_are_cut(
    tiny: TinyModel, caplog: pytest.LogCaptureFixture
) -> None:
    spec = trained(tiny, normalize=False)
    encoder = TextEmbedding(tiny.path, precision="fp32", spec=spec, dimensions=12)
    assert np.linalg.norm(next(encoder.embed("cat"))) == pytest.approx(1, abs=1e-6)
    assert encoder.spec.normalize


@pytest.mark.parametrize(
    ("smallest", "reason"), [(None, "not known to be trained"), (16, "trained for 16 or more")]
)
def test_a_model_that_is_not_trained_for_it_is_warned_of_once(
    smallest: int | None, reason: str, tiny: TinyModel, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = TextEmbedding(
        tiny.path, precision="fp32", spec=trained(tiny, smallest), dimensions=12
    )
    list(encoder.embed(["cat", "dog"]))
    list(encoder.query_embed("cat"))
    assert caplog.text.count(reason) == 1


def test_the_full_dimension_is_no_cut(tiny: TinyModel, caplog: pytest.LogCaptureFixture) -> None:
    assert TextEmbedding(tiny.path, dimensions=32, lazy_load=True).dimension == 32
    assert caplog.text == ""


@pytest.mark.parametrize("dimensions", [0, -1, 33, True])
def test_dimensions_that_cannot_be_are_refused(dimensions: int, tiny: TinyModel) -> None:
    with pytest.raises(InputError, match="dimensions"):
        _ = TextEmbedding(tiny.path, dimensions=dimensions, lazy_load=True).spec


def test_a_collection_is_sized_and_stamped_by_it_and_followed_with_it(
    tiny_name: str, tmp_path: Path
) -> None:
    with opened("sync", path=str(tmp_path)) as writer:
        writer.set_model(tiny_name, dimensions=16)
        assert writer.get_embedding_size() == 16
        writer.add("demo", ["the cat sat", "the ship sailed"])
        params = writer.get_collection("demo").config
        assert params.params.vectors["fast-tiny-bert"].size == 16  # type: ignore[index] # a dict of named vectors
        assert (params.metadata or {})["qdrant_embed"]["dimension"] == 16
    with opened("sync", path=str(tmp_path)) as reader:  # who never heard of the model
        hits = reader.query("demo", "the cat sat")
        assert hits[0].document == "the cat sat"
        assert hits[0].score == pytest.approx(1, abs=1e-3)


def test_a_catalogued_size_needs_no_files() -> None:
    client = QdrantClient(":memory:")
    client.set_model("nomic-ai/nomic-embed-text-v1.5", dimensions=256, lazy_load=True)
    assert client.get_embedding_size() == 256
    assert client.get_embedding_size("BAAI/bge-base-en-v1.5") == 768
    client.close()


def test_the_users_facts_win_over_the_files(tiny_e5: TinyModel) -> None:
    spec = ModelSpec("acme/mine", 32, "cls", 24, normalize=False, query_prefix="ask: ")
    encoder = TextEmbedding(tiny_e5.path, precision="fp32", spec=spec)
    assert encoder.spec == spec
    assert encoder.model_name == "acme/mine"
    assert encoder.describe().pooling == "cls"
    assert encoder.describe().document_prefix == ""
    assert abs(np.linalg.norm(next(encoder.embed("cat"))) - 1) > 0.01
    # single options win over the facts
    other = TextEmbedding(tiny_e5.path, spec=spec, query_prefix="q: ", max_tokens=9, lazy_load=True)
    assert (other.spec.query_prefix, other.spec.max_tokens) == ("q: ", 9)


def test_facts_that_do_not_fit_the_files_are_refused(tiny: TinyModel) -> None:
    for wrong in (ModelSpec("a/b", 31, "mean", 24), ModelSpec("a/b", 32, "mean", 97)):
        with pytest.raises(InputError, match="spec= has"):
            _ = TextEmbedding(tiny.path, spec=wrong, lazy_load=True).spec


def test_prefixes_are_the_users_then_the_files_then_the_catalogs(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("prefixes")
    stated = tiny_bert(folder / "stated", prompts={"query": "file: ", "document": ""})
    assert TextEmbedding(stated.path).spec.query_prefix == "file: "
    assert TextEmbedding(stated.path, query_prefix="").spec.query_prefix == ""
    facts = {entry["model"]: entry for entry in TextEmbedding.list_supported_models()}
    assert facts["intfloat/multilingual-e5-large"]["document_prefix"] == "passage: "
    assert facts[MINILM]["query_prefix"] == ""
