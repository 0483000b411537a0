"""Models whose queries go through other modules; see `fixtures/make_router.py`."""

from __future__ import annotations

import copy
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub_server import serving
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from qdrant_embed import (
    CollectionMismatchError,
    InputError,
    ModelFileError,
    QdrantClient,
    TextEmbedding,
)
from qdrant_embed.encoder.facts.modules import read_chain
from qdrant_embed.encoder.files.inventory import check_folder

FIXTURES = Path(__file__).parents[1] / "fixtures" / "router"
NAMES = ["asymmetric", "heads", "static"]


def expected(name: str) -> tuple[list[str], NDArray[np.float32], NDArray[np.float32]]:
    with np.load(FIXTURES / name / "expected.npz") as file:
        return list(map(str, file["texts"])), file["queries"], file["documents"]


def assert_theirs(name: str, encoder: TextEmbedding) -> None:
    """Assert that an encoder returns the vectors of sentence-transformers."""
    texts, queries, documents = expected(name)
    found = {
        "queries": np.stack(list(encoder.query_embed(texts))) - queries,
        "a query": np.stack([next(encoder.query_embed(text)) for text in texts]) - queries,
        "documents": np.stack(list(encoder.passage_embed(texts))) - documents,
    }
    largest = {what: float(np.abs(difference).max()) for what, difference in found.items()}
    assert max(largest.values()) <= 1e-5, largest


def copied(name: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIXTURES / name, tmp_path / "model"))


def change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("name", NAMES)
def test_queries_and_documents_have_the_vectors_of_sentence_transformers(
    name: str, tmp_path: Path
) -> None:
    encoder = TextEmbedding(FIXTURES / name, precision="fp32", cache_dir=tmp_path)
    assert_theirs(name, encoder)
    text = expected(name)[0][0]
    [plain] = encoder.embed(f"passage : {text}")  # without any prefix, and as a document
    np.testing.assert_allclose(plain, next(encoder.passage_embed(text)), atol=1e-6)
    again = TextEmbedding(FIXTURES / name, precision="fp32", cache_dir=tmp_path)  # from its plan
    assert_theirs(name, again)
    assert again.describe() == encoder.describe()
    for other in (pickle.loads(pickle.dumps(encoder)), copy.deepcopy(encoder), encoder.variant()):
        assert_theirs(name, other)


@pytest.mark.parametrize("name", NAMES)
def test_an_exported_model_has_both_sides(name: str, tmp_path: Path) -> None:
    encoder = TextEmbedding(FIXTURES / name, precision="fp32", cache_dir=tmp_path / "cache")
    encoder.export(tmp_path / "out")
    shutil.rmtree(tmp_path / "cache")
    exported = TextEmbedding(tmp_path / "out", precision="fp32", cache_dir=tmp_path / "cache")
    assert_theirs(name, exported)
    assert exported.describe().weights_sha256 == encoder.describe().weights_sha256
    assert exported.describe().tokenizer_sha256 == encoder.describe().tokenizer_sha256
    files = [path for path in (tmp_path / "out/queries").iterdir() if path.suffix != ".json"]
    whole = check_folder(tmp_path / "out")
    assert not whole.damaged
    assert whole.files >= 4
    files[0].write_bytes(b"damaged")
    with pytest.raises(ModelFileError, match="queries is damaged"):
        TextEmbedding(tmp_path / "out", precision="fp32")
    assert check_folder(tmp_path / "out").damaged == [f"queries/{files[0].name}"]
    (tmp_path / "out/queries/qdrant-embed.json").unlink()
    assert check_folder(tmp_path / "out").damaged == ["queries/qdrant-embed.json"]


def test_the_digest_covers_what_runs_for_queries(tmp_path: Path) -> None:
    folder = copied("asymmetric", tmp_path)
    first = TextEmbedding(folder, precision="fp32").describe()
    dense = folder / "query_2_Dense/model.safetensors"
    save_file({name: 2 * tensor for name, tensor in load_file(dense).items()}, dense)
    second = TextEmbedding(folder, precision="fp32").describe()
    assert second.weights_sha256 != first.weights_sha256
    assert second.tokenizer_sha256 == first.tokenizer_sha256
    change(folder / "query_0_Transformer/config.json", hidden_act="relu")
    third = TextEmbedding(folder, precision="fp32").describe()
    assert third.weights_sha256 == second.weights_sha256
    assert third.tokenizer_sha256 != second.tokenizer_sha256


@pytest.mark.parametrize("overflow", ["mean", "error", "truncate"])
def test_long_queries_are_read_by_their_own_model(overflow: Any) -> None:
    """A static table reads texts of any length, the transformer of documents only 60 tokens."""
    encoder = TextEmbedding(FIXTURES / "static", precision="fp32", overflow=overflow)
    longer, long = encoder.query_embed(["cat " * 100, "cat " * 90])
    assert np.abs(longer - long).max() > 0
    if overflow == "error":
        with pytest.raises(InputError, match="has 104 tokens"):
            list(encoder.passage_embed(["cat " * 100]))


def test_a_collection_is_written_and_searched_by_both_sides(tmp_path: Path) -> None:
    texts, queries, documents = expected("asymmetric")
    client = QdrantClient(":memory:")
    client.set_model(FIXTURES / "asymmetric", precision="fp32")
    client.add("demo", texts, ids=[1, 2, 3, 4])
    hits = client.query("demo", texts[1], limit=4)
    scores = documents @ queries[1]
    assert {hit.id: pytest.approx(hit.score, abs=1e-5) for hit in hits} == dict(
        zip([1, 2, 3, 4], scores.tolist(), strict=True)
    )
    folder = copied("asymmetric", tmp_path)
    dense = folder / "query_2_Dense/model.safetensors"
    save_file({name: -tensor for name, tensor in load_file(dense).items()}, dense)
    client.set_model(folder, precision="fp32")
    with pytest.raises(CollectionMismatchError, match="weights_sha256"):
        client.query("demo", "cat")


PROGRAM = """
import json, sys
from qdrant_embed import QdrantClient, TextEmbedding
job = json.load(sys.stdin)
client = QdrantClient(":memory:", trust_stamps=True)
client.set_model("someone/leaf-asym", precision="fp32")
client.add("demo", job["texts"], ids=[1, 2, 3, 4])
other = QdrantClient(":memory:", trust_stamps=True)
client.copy_to(other)
hits = other.query("demo", job["texts"][1], limit=4)
encoder = TextEmbedding("someone/leaf-asym", precision="fp32", local_files_only=True)
print(json.dumps({
    "queries": [vector.tolist() for vector in encoder.query_embed(job["texts"])],
    "scores": {hit.id: hit.score for hit in hits},
}))
"""


@pytest.mark.slow
def test_both_sides_are_pulled_and_a_stamp_is_followed_by_both(tmp_path: Path) -> None:
    texts, queries, documents = expected("asymmetric")
    with serving("someone/leaf-asym", FIXTURES / "asymmetric") as hub:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            input=json.dumps({"texts": texts}),
            check=False,
            capture_output=True,
            text=True,
            env=os.environ
            | {
                "HF_ENDPOINT": hub.url,
                "HF_HOME": str(tmp_path),
                "QDRANT_EMBED_CACHE": str(tmp_path),
            },
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert not hub.asked("expected.npz")
    found = json.loads(done.stdout)
    assert np.abs(np.array(found["queries"]) - queries).max() <= 1e-5
    scores = dict(zip("1234", (documents @ queries[1]).tolist(), strict=True))
    assert found["scores"] == {key: pytest.approx(value, abs=0.02) for key, value in scores.items()}


def router(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: change(folder / "router_config.json", **changes)


def renamed(folder: Path) -> None:
    """Route as sentence-transformers did before 5, by names of another config."""
    config = folder / "router_config.json"
    content = json.loads(config.read_text())
    del content["parameters"]
    (folder / "config.json").write_text(json.dumps(content))
    config.unlink()
    modules = folder / "modules.json"
    asym = modules.read_text().replace("base.modules.router.Router", "models.Asym")
    modules.write_text(asym)


def mapped(folder: Path) -> None:
    """Route by task and modality."""
    config = folder / "router_config.json"
    structure = json.loads(config.read_text())["structure"]
    change(
        config,
        structure={"first": structure["query"], "text": structure["document"]},
        parameters={"route_mappings": {"('query', 'text')": "first", "('query', 'image')": "x"}},
    )


@pytest.mark.parametrize("changed", [renamed, mapped])
def test_routes_are_found_as_sentence_transformers_finds_them(
    changed: Callable[[Path], None], tmp_path: Path
) -> None:
    folder = copied("asymmetric", tmp_path)
    changed(folder)
    assert_theirs("asymmetric", TextEmbedding(folder, precision="fp32"))


def test_a_router_of_modalities_has_one_model_for_texts(tmp_path: Path) -> None:
    folder = copied("asymmetric", tmp_path)
    structure = json.loads((folder / "router_config.json").read_text())["structure"]
    router(structure={"text": structure["document"], "image": structure["query"]})(folder)
    chain = read_chain(folder)
    assert chain is not None
    assert not chain.is_routed
    texts, _, documents = expected("asymmetric")
    encoder = TextEmbedding(folder, precision="fp32", query_prefix="passage : ")
    assert np.abs(np.stack(list(encoder.query_embed(texts))) - documents).max() <= 1e-5


TYPES = {"query_0": "a.Transformer", "../..": "a.Transformer", "b": "a.Pooling"}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            router(structure={"query": []}),
            r"no modules for the route 'document': it has some for q",
        ),
        (router(structure={"document": ["b"], "query": ["c"]}), r"does not say what 'b' is"),
        (
            router(types=TYPES, structure={"document": ["../.."], "query": []}),
            r"router_config.json points out of its folder: '../..'",
        ),
        (router(structure={"document": [], "query": []}), r"chains Normalize for documents: only"),
        (
            router(types=TYPES, structure={"document": ["b"] * 101, "query": []}),
            r"chains 102 modules: it can 100 at most",
        ),
        (router(structure=[]), r"router_config.json cannot be used: structure"),
        (lambda folder: (folder / "router_config.json").unlink(), r"router_config.json is missing"),
    ],
)
def test_what_cannot_be_routed_is_refused(
    damage: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    folder = copied("asymmetric", tmp_path)
    damage(folder)
    with pytest.raises(ModelFileError, match=message):
        TextEmbedding(folder, precision="fp32")


def test_sides_of_other_dimensions_are_refused(tmp_path: Path) -> None:
    folder = copied("asymmetric", tmp_path)
    config = json.loads((folder / "router_config.json").read_text())
    config["structure"]["query"].remove("query_2_Dense")
    router(**config)(folder)
    with pytest.raises(ModelFileError, match="documents with 16 dimensions, but queries with 24"):
        TextEmbedding(folder, precision="fp32")
