"""Learned sparse models: every head against transformers, every layout against its own library."""

from __future__ import annotations

import json
import shutil
import timeit
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub_server import downloaded
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from qdrant_embed import InputError, ModelFileError, ModelSpec, SparseTextEmbedding, SparseVector
from qdrant_embed.encoder.compile.architectures.registry import model_graph
from qdrant_embed.encoder.compile.layers import term_head
from qdrant_embed.encoder.facts.architectures import (
    ARCHITECTURES,
    TransformerConfig,
    architecture_name,
)
from qdrant_embed.encoder.run.backend import Inputs
from qdrant_embed.encoder.run.session import Session

FIXTURES = Path(__file__).parents[1] / "fixtures"
HEADS = sorted(path.stem for path in (FIXTURES / "terms").glob("*.npz"))
MODULES = FIXTURES / "sparse_modules"


class Fixture:
    """A masked language model, a text, and the largest logits of its beginnings."""

    def __init__(self, name: str) -> None:
        with np.load(FIXTURES / "terms" / f"{name}.npz") as file:
            content = json.loads(str(file["config"]))
            self.ids, self.largest = file["ids"], file["largest"]
            self.weights = {
                key.removeprefix("weights/"): file[key].astype(np.float32)
                for key in file.files
                if key.startswith("weights/")
            }
        self.config: TransformerConfig = ARCHITECTURES[
            str(architecture_name(content))
        ].model_validate(content)

    def session(self, path: Path, weighting: Any = "log") -> Session:
        """Compile the model to `path`."""
        spec = ModelSpec(
            "tiny", 96, None, len(self.ids), False, task="terms", term_weighting=weighting
        )
        model_graph(self.weights, self.config, spec).save(path / "model.onnx")
        return Session(path / "model.onnx")


def test_every_architecture_with_a_head_has_a_fixture() -> None:
    able = {name for name, kind in ARCHITECTURES.items() if "terms" in kind.tasks}
    assert {Fixture(name).config.architecture for name in HEADS} == able


@pytest.mark.parametrize("name", HEADS)
def test_weights_are_those_of_transformers_at_every_length(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixture = Fixture(name)
    monkeypatch.setattr(term_head, "_BLOCK", 40)  # three blocks, of which the last is smaller
    session = fixture.session(tmp_path)
    for length, logits in enumerate(fixture.largest, 1):
        one, other = session.run(Inputs(np.tile(fixture.ids[:length], (2, 1))))
        np.testing.assert_array_equal(one, other)
        np.testing.assert_allclose(one, np.log1p(np.maximum(logits, 0)), atol=1e-4)


def test_the_logarithm_is_taken_twice_where_a_model_says_so(tmp_path: Path) -> None:
    fixture = Fixture("distilbert")
    [found] = fixture.session(tmp_path, "log_log").run(Inputs(fixture.ids[None]))
    expected = np.log1p(np.log1p(np.maximum(fixture.largest[-1], 0)))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_vendors_names_of_gte_are_known_too(tmp_path: Path) -> None:
    fixture = Fixture("gte")
    fixture.weights = {
        name.replace("lm_head.layer_norm", "lm_head.norm").replace("gte.", "new."): tensor
        for name, tensor in fixture.weights.items()
    }
    [found] = fixture.session(tmp_path).run(Inputs(fixture.ids[None]))
    np.testing.assert_allclose(found, np.log1p(np.maximum(fixture.largest[-1], 0)), atol=1e-4)


def test_a_head_with_another_activation_is_refused(tmp_path: Path) -> None:
    fixture = Fixture("modernbert")
    fixture.config = fixture.config.model_copy(update={"classifier_activation": "tanh"})
    with pytest.raises(ModelFileError, match="a head with the activation 'tanh' cannot be run"):
        fixture.session(tmp_path)


def test_logits_of_all_tokens_and_terms_are_never_held(tmp_path: Path) -> None:
    """No tensor of the graph has both the tokens and the whole vocabulary."""
    onnx = pytest.importorskip("onnx")
    fixture = Fixture("bert")
    fixture.session(tmp_path)
    graph = onnx.load(tmp_path / "model.onnx", load_external_data=False).graph
    reduced = {node.input[0] for node in graph.node if node.op_type == "ReduceMax"}
    assert reduced
    for node in graph.node:
        if node.op_type in ("MatMul", "Gemm") and set(node.output) & reduced:
            (weight,) = (one for one in graph.initializer if one.name == node.input[1])
            assert weight.dims[1] <= term_head._BLOCK


def rows(vectors: Any, terms: int) -> NDArray[np.float32]:
    found = np.zeros((0, terms), np.float32)
    for vector in vectors:
        row = np.zeros((1, terms), np.float32)
        row[0, vector.indices] = vector.values
        assert (np.diff(vector.indices) > 0).all()
        assert (vector.values > 0).all()
        found = np.concatenate([found, row])
    return found


@pytest.mark.parametrize("name", ["chain", "routed"])
def test_vectors_are_those_of_sentence_transformers(name: str, cache: Path) -> None:
    encoder = SparseTextEmbedding(MODULES / name, precision="fp32")
    with np.load(MODULES / f"{name}.npz") as expected:
        texts = expected["texts"].tolist()
        terms = expected["documents"].shape[1]
        documents = rows(encoder.passage_embed(texts), terms)
        np.testing.assert_allclose(documents, expected["documents"], atol=1e-4)
        queries = rows(encoder.query_embed(texts), terms)
        np.testing.assert_allclose(
            queries, expected["queries"], atol=1e-6 if name == "routed" else 1e-4
        )


def routed(target: Path) -> Path:
    shutil.copytree(MODULES / "routed", target)
    return target


def test_queries_of_a_model_with_a_table_load_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qdrant_embed.encoder.model.Model.load", None)
    encoder = SparseTextEmbedding(MODULES / "routed", lazy_load=True, cache_dir=tmp_path)
    [vector] = encoder.query_embed("the cat sat")
    assert len(vector.indices) == 3
    assert not (tmp_path / "compiled").exists()
    [empty] = encoder.query_embed("")
    assert empty.indices.dtype == np.int64
    assert not empty.indices.size


def test_a_query_by_table_takes_microseconds(cache: Path) -> None:
    encoder = SparseTextEmbedding(MODULES / "routed", lazy_load=True)
    query = "the cat sat on the mat"
    list(encoder.query_embed(query))
    fastest = (
        min(timeit.repeat(lambda: list(encoder.query_embed(query)), number=20, repeat=30)) / 20
    )
    assert fastest < 100e-6  # 50 on an idle machine


def test_idf_json_beside_a_plain_model_weighs_queries(cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    shutil.copytree(MODULES / "routed/document_0_Transformer", folder)
    alone = SparseTextEmbedding(folder, precision="fp32")
    [before] = alone.query_embed("the cat")
    shutil.copyfile(MODULES / "idf.json", folder / "idf.json")
    encoder = SparseTextEmbedding(folder, precision="fp32")
    [after] = encoder.query_embed("the cat")
    [expected] = SparseTextEmbedding(MODULES / "routed", lazy_load=True).query_embed("the cat")
    np.testing.assert_array_equal(after.indices, expected.indices)
    np.testing.assert_allclose(after.values, expected.values, rtol=1e-5)
    assert len(before.indices) != len(after.indices)
    assert encoder.describe().weights_sha256 != alone.describe().weights_sha256


def test_the_weights_of_queries_are_part_of_the_models_digest(cache: Path, tmp_path: Path) -> None:
    folder = routed(tmp_path / "model")
    before = SparseTextEmbedding(folder, lazy_load=True).describe()
    file = folder / "query_0_SparseStaticEmbedding/model.safetensors"
    save_file({"weight": load_file(file)["weight"] * 2}, file)
    after = SparseTextEmbedding(folder, lazy_load=True).describe()
    assert before.weights_sha256 != after.weights_sha256
    assert before.tokenizer_sha256 == after.tokenizer_sha256
    pooling = folder / "document_1_SpladePooling/config.json"
    pooling.write_text(pooling.read_text().replace("log1p_relu", "relu"))
    other = SparseTextEmbedding(folder, lazy_load=True).describe()
    assert other.tokenizer_sha256 != after.tokenizer_sha256


@pytest.mark.parametrize("shape", [(3,), (96, 2)])
def test_weights_of_another_vocabulary_are_refused(shape: Any, tmp_path: Path, cache: Path) -> None:
    folder = routed(tmp_path / "model")
    file = folder / "query_0_SparseStaticEmbedding/model.safetensors"
    save_file({"weight": np.ones(shape, np.float32)}, file)
    encoder = SparseTextEmbedding(folder, lazy_load=True)
    with pytest.raises(ModelFileError, match="must have one finite weight for each of"):
        list(encoder.query_embed("cat"))
    file.unlink()
    with pytest.raises(ModelFileError, match="has no weights for the tokens of queries"):
        SparseTextEmbedding(folder, lazy_load=True).describe()


def test_a_router_that_leads_elsewhere_is_refused(tmp_path: Path, cache: Path) -> None:
    folder = routed(tmp_path / "model")
    file = folder / "router_config.json"
    content = json.loads(file.read_text())
    content["structure"]["query"] = content["structure"]["query"] * 2
    file.write_text(json.dumps(content))
    with pytest.raises(ModelFileError, match="Router"):
        SparseTextEmbedding(folder)
    content["structure"]["query"] = ["../query_0_SparseStaticEmbedding"]
    content["types"]["../query_0_SparseStaticEmbedding"] = "x.SparseStaticEmbedding"
    file.write_text(json.dumps(content))
    with pytest.raises(ModelFileError, match="points out of its folder"):
        SparseTextEmbedding(folder)


@pytest.mark.parametrize("name", ["chain", "routed"])
def test_the_files_of_a_repository_are_downloaded(name: str, cache: Path) -> None:
    repository = downloaded(f"someone/sparse-{name}", MODULES / name, "fp32")
    encoder = SparseTextEmbedding(repository, precision="fp32", local_files_only=True)
    local = SparseTextEmbedding(MODULES / name, precision="fp32")
    text = "the cat sat"
    for method in ("query_embed", "passage_embed"):
        [found], [expected] = (getattr(one, method)(text) for one in (encoder, local))
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_array_equal(found.values, expected.values)


def test_a_plan_is_read_again_with_its_table(tmp_path: Path) -> None:
    options: dict[str, Any] = {"precision": "fp32", "cache_dir": tmp_path}
    found: list[list[SparseVector]] = []
    for _ in range(2):  # the second time by the cached plan
        encoder = SparseTextEmbedding(MODULES / "routed", **options)
        found.append([*encoder.query_embed("the cat"), *encoder.embed("the cat")])
    assert len(list((tmp_path / "plans").iterdir())) == 1
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one.values, other.values)


def test_a_spec_says_how_terms_are_weighed() -> None:
    with pytest.raises(InputError, match="term_weighting must be one of log, log_log, not 'sqrt'"):
        ModelSpec("m", 9, None, 9, task="terms", term_weighting="sqrt")  # type: ignore[arg-type]


def test_known_models_say_whether_queries_need_a_network() -> None:
    known = {model["model"]: model for model in SparseTextEmbedding.list_supported_models()}
    free = [name for name, model in known.items() if model["inference_free"]]
    assert "opensearch-project/opensearch-neural-sparse-encoding-doc-v3-distill" in free
    assert not known["naver/splade-v3"]["inference_free"]
    assert known["Qdrant/bm25"]["requires_idf"]
