"""One model for both vectors: bge-m3's head that weighs terms, in the pass of its dense vectors."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clients import stamp, vectors
from hub_server import asked, downloaded, serving
from numpy.typing import NDArray
from tiny import TinyModel
from torch_zip import save_torch

from qdrant_embed import (
    CollectionMismatchError,
    InputError,
    ModelFileError,
    QdrantClient,
    TextEmbedding,
)
from qdrant_embed.collection.selection import RecentVectors
from qdrant_embed.encoder.files.cache import cache_folder
from qdrant_embed.encoder.run.session import Session
from qdrant_embed.encoder.text import vectors_and_terms, with_terms

FIXTURE = Path(__file__).parents[1] / "fixtures/bge_m3"
TEXTS = ["the cat sat on the mat", "Paris is the capital of France", "storm"]


def expected() -> tuple[list[str], NDArray[np.float32], NDArray[np.float32]]:
    with np.load(FIXTURE / "expected.npz") as file:
        return list(map(str, file["texts"])), file["vectors"], file["terms"]


@pytest.fixture(scope="module")
def m3(cache: Path) -> str:
    """The small model as a repository, downloaded with its head."""
    name = downloaded("someone/bge-m3", FIXTURE)
    with serving(name, FIXTURE) as hub, asked(hub):
        with_terms(TextEmbedding(name, precision="fp32", lazy_load=True)).load()
    return name


def set_m3(client: QdrantClient, name: str, **options: Any) -> None:
    client.set_model(name, precision="fp32", sparse=True, local_files_only=True, **options)


def forget(client: QdrantClient) -> QdrantClient:
    """The client as it was before a model was chosen."""
    selection = client._selection
    selection._chosen = replace(
        selection._chosen,
        dense=None,
        sparse=None,
        sparse_name=None,
        follows_sparse=True,
        recent=RecentVectors(),
    )
    return client


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of texts of each run of a graph."""
    counted: list[int] = []
    run = Session._run

    def counting(self: Session, names: list[str], inputs: Any) -> Any:
        counted.append(len(inputs["input_ids"]))
        return run(self, names, inputs)

    monkeypatch.setattr(Session, "_run", counting)
    return counted


def test_both_are_those_of_the_vendors_code(cache: Path) -> None:
    texts, dense, terms = expected()
    encoder = with_terms(TextEmbedding(FIXTURE, precision="fp32", lazy_load=True))
    for some in (texts, *([text] for text in texts)):
        pairs = list(vectors_and_terms(encoder, some, query=False))
        for text, (row, weights) in zip(some, pairs, strict=True):
            at = texts.index(text)
            np.testing.assert_allclose(row, dense[at], atol=1e-5)
            found = np.zeros_like(terms[at])
            found[weights.indices] = weights.values
            np.testing.assert_allclose(found, terms[at], atol=1e-5)
    rows = np.stack(list(encoder.embed(texts)))
    np.testing.assert_allclose(rows, dense, atol=1e-5)
    plain = TextEmbedding(FIXTURE, precision="fp32")
    assert plain.describe() == encoder.describe()


def test_one_pass_gives_both_vectors(
    anywhere: QdrantClient, m3: str, runs: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    set_m3(anywhere, m3)
    runs.clear()
    ids = anywhere.add("demo", TEXTS)
    assert sum(runs) == len(TEXTS)
    texts, _, terms = expected()
    stored = vectors(anywhere, ids[0])["fast-sparse-bge-m3"]
    assert stored.indices == np.flatnonzero(terms[texts.index(TEXTS[0])]).tolist()
    runs.clear()
    hits = anywhere.query("demo", TEXTS[1])
    assert runs == [1]
    assert hits[0].document == TEXTS[1]
    written = stamp(anywhere)["sparse"]
    assert written["beside_dense"] is True
    assert written["weights_sha256"] != stamp(anywhere)["weights_sha256"]
    runs.clear()
    anywhere.query_batch("demo", TEXTS)
    assert sum(runs) == len(TEXTS)


def test_the_collection_is_followed_in_one_pass(
    anywhere: QdrantClient, m3: str, runs: list[int]
) -> None:
    set_m3(anywhere, m3)
    anywhere.add("demo", TEXTS)
    exact = anywhere.query("demo", "a storm", limit=1)
    forget(anywhere)  # the follower runs int8, which moves scores a little
    found = anywhere.query("demo", "a storm", limit=1)
    assert [hit.id for hit in found] == [hit.id for hit in exact]
    runs.clear()
    anywhere.add("demo", ["a ship sailed"])
    anywhere.query("demo", "ship")
    assert runs == [1, 1]


def test_another_choice_replaces_it(client: QdrantClient, m3: str, tiny: TinyModel) -> None:
    set_m3(client, m3)
    assert client.get_sparse_vector_field_name() == "fast-sparse-bge-m3"
    client.set_sparse_model("Qdrant/bm25")
    assert client.get_sparse_vector_field_name() == "fast-sparse-bm25"
    set_m3(client, m3)
    client.set_model(tiny.path)
    assert client.get_sparse_vector_field_name() is None
    client.add("other", TEXTS)
    assert "sparse" not in stamp(client, "other")


def test_a_collection_keeps_its_terms_when_it_gets_another_dense_model(
    client: QdrantClient, m3: str, tiny_name: str
) -> None:
    set_m3(client, m3)
    client.add("demo", TEXTS)
    terms = [found["fast-sparse-bge-m3"] for found in map_vectors(client, "demo")]
    client.migrate_model("demo", tiny_name, "new")
    assert stamp(client, "new")["sparse"]["beside_dense"] is True
    moved = [found["fast-sparse-bge-m3"] for found in map_vectors(client, "new")]
    assert [one.indices for one in moved] == [one.indices for one in terms]
    forget(client)
    (hit,) = client.query("new", TEXTS[1], limit=1)
    assert hit.document == TEXTS[1]


def map_vectors(client: QdrantClient, name: str) -> list[dict[str, Any]]:
    records, _ = client.scroll(name, with_vectors=True, limit=10)
    return [dict(record.vector) for record in sorted(records, key=lambda r: str(r.payload))]  # type: ignore[arg-type]


def test_chunks_have_their_own_terms(client: QdrantClient, m3: str) -> None:
    set_m3(client, m3, overflow="chunk", max_length=16)
    text = "the cat sat on the mat. " * 4 + "storm " * 20
    (parent,) = client.add("demo", [text])
    records, _ = client.scroll("demo", with_vectors=True, limit=10)
    assert len(records) > 2
    hits = client.query("demo", "storm", limit=1)
    assert [hit.id for hit in hits] == [parent]


def test_a_truncated_text_is_counted_once(
    client: QdrantClient, m3: str, caplog: pytest.LogCaptureFixture
) -> None:
    set_m3(client, m3, max_length=8)
    with caplog.at_level(logging.WARNING):
        client.add("demo", ["storm " * 20, "cat"])
    assert caplog.text.count("1 of those added to 'demo'") == 1


def test_another_head_is_another_model(client: QdrantClient, tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(FIXTURE, folder)
    client.set_model(folder, precision="fp32", sparse=True)
    client.add("demo", TEXTS)
    weight = np.ones((1, 24), np.float32)
    head = {"weight": weight, "bias": np.ones(1, np.float32)}
    save_torch(head, folder / "sparse_linear.pt")
    client.set_model(folder, precision="fp32", sparse=True)
    with pytest.raises(CollectionMismatchError, match="weights_sha256"):
        client.query("demo", "cat")
    client.set_model(folder, precision="fp32")
    client.set_sparse_model(None)
    assert client.query("demo", "cat")  # the dense vectors are the same


def test_an_export_goes_without_its_head(m3: str, tmp_path: Path) -> None:
    encoder = with_terms(TextEmbedding(m3, precision="fp32", lazy_load=True, local_files_only=True))
    encoder.export(tmp_path / "out")
    exported = TextEmbedding(tmp_path / "out")
    (found,), (exact,) = exported.embed("cat"), encoder.embed("cat")
    np.testing.assert_allclose(found, exact, atol=1e-6)
    again = with_terms(TextEmbedding(tmp_path / "out", lazy_load=True))
    pairs = [list(vectors_and_terms(one, TEXTS, query=True)) for one in (again, encoder)]
    for (_, one), (_, other) in zip(*pairs, strict=True):
        np.testing.assert_array_equal(one.indices, other.indices)
    exported.export(tmp_path / "bare")
    with pytest.raises(ModelFileError, match="exported without the head"):
        with_terms(TextEmbedding(tmp_path / "bare", lazy_load=True)).load()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overflow": "mean"}, "overflow='mean' cannot be combined with sparse=True"),
        ({"dimensions": 8}, "dimensions= cannot be combined with sparse=True"),
    ],
)
def test_options_that_do_not_fit_are_named(
    client: QdrantClient, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        client.set_model(FIXTURE, sparse=True, **options)


def test_a_model_without_the_head_is_refused(tiny: TinyModel, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"has no sparse_linear\.pt"):
        with_terms(TextEmbedding(tiny.path, lazy_load=True)).load()
    folder = tmp_path / "model"
    shutil.copytree(FIXTURE, folder)
    save_torch({"weight": np.ones((1, 3), np.float32)}, folder / "sparse_linear.pt")
    with pytest.raises(ModelFileError, match="the head that weighs tokens has a weight of shape"):
        with_terms(TextEmbedding(folder, lazy_load=True)).load()


def test_a_plain_model_is_downloaded_without_its_head(cache: Path) -> None:
    with serving("someone/plain-m3", FIXTURE) as hub, asked(hub):
        TextEmbedding("someone/plain-m3", precision="fp32")
        assert not hub.asked("_linear.pt")
        with_terms(TextEmbedding("someone/plain-m3", precision="fp32", lazy_load=True)).load()
        assert hub.asked("sparse_linear.pt") == 1
        assert hub.asked("/pytorch_model.bin") == 1
    assert (cache_folder() / "hub/someone--plain-m3").exists()
