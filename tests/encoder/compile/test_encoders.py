"""What `test_architectures` does not show: long texts, experts, tasks, variants."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from architecture_fixtures import FIXTURES, Fixture, assert_near, load, spec_for, vectors, write
from numpy.typing import NDArray

from qdrant_embed import ModelFileError, TextEmbedding
from qdrant_embed.encoder.compile.architectures.registry import model_graph
from qdrant_embed.encoder.compile.layers import distances
from qdrant_embed.encoder.compile.layers.distances import alibi
from qdrant_embed.encoder.facts import architectures
from qdrant_embed.encoder.facts.architectures import ARCHITECTURES, architecture_name
from qdrant_embed.encoder.interfaces import Pooling
from qdrant_embed.encoder.run.backend import Inputs
from qdrant_embed.encoder.run.session import Session


def session(fixture: Fixture, pooling: Pooling, path: Path, **changes: Any) -> Session:
    content = fixture.config | changes
    config = ARCHITECTURES[architecture_name(content) or ""].model_validate(content)
    graph = model_graph(fixture.weights, config, spec_for(fixture, pooling))
    graph.save(path / "model.onnx")
    return Session(path / "model.onnx")


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize(
    "name", ["jina_bert", "jina_bert-later", "t5", "nomic_bert_moe", "gte-new"]
)
def test_a_text_has_the_same_vector_alone_and_among_others(
    name: str, pooling: Pooling, tmp_path: Path
) -> None:
    fixture = load(name)
    runs = session(fixture, pooling, tmp_path)
    texts = np.random.default_rng(1).integers(4, 96, (5, 63))
    texts[2] = fixture.ids[:63]
    together = runs.run(Inputs(texts))
    alone = np.concatenate([runs.run(Inputs(text[None])) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(together[2], fixture.expected[pooling][62], atol=1e-5)


@pytest.mark.parametrize("pairs", [1, 500, 160 * 40])  # blocks of 1 token, of a few, of 40
@pytest.mark.parametrize("name", ["jina_bert", "mpnet", "t5"])
def test_long_texts_are_attended_to_in_blocks(
    name: str, pairs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distances, "_PAIRS", pairs)
    monkeypatch.setattr(architectures, "_SCORED_TOGETHER", 1)
    fixture = load(name)
    lengths = [1, 2, 7, 39, 40, 41, 63, 80, 128, 159, 160]
    runs = session(fixture, "mean", tmp_path)
    found = [runs.run(Inputs(np.tile(fixture.ids[:length], (2, 1)))) for length in lengths]
    expected = fixture.expected["mean"][np.array(lengths) - 1]
    assert_near(np.stack([run[1] for run in found]), expected)


_LONG = """
import resource, sys
from pathlib import Path
import numpy as np
from qdrant_embed.encoder.run.backend import Inputs
from qdrant_embed.encoder.run.session import Session
session = Session(Path(sys.argv[1]))
ids = np.random.default_rng(0).integers(4, 96, (1, 8192))
session.run(Inputs(ids[:, :512]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
session.run(Inputs(ids))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="measures memory by the resource module")
@pytest.mark.parametrize("name", ["jina_bert", "t5"])
def test_the_memory_of_a_long_text_does_not_grow_with_its_square(name: str, tmp_path: Path) -> None:
    fixture = load(name)
    changes = {"n_positions": 8192, "max_position_embeddings": 8192}
    long = Fixture(
        fixture.config | changes, fixture.weights, np.zeros(8192, np.int64), fixture.expected
    )
    session(long, "mean", tmp_path)
    assert (tmp_path / "model.onnx.weights").stat().st_size < 1 << 20
    command = [sys.executable, "-c", _LONG, str(tmp_path / "model.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 200  # MB; the scores of all pairs alone would take 768


def test_alibis_slopes_for_any_number_of_heads() -> None:
    def slopes(heads: int) -> list[float]:
        return [float(slope) for slope in -alibi(heads, 2)[:, -1]]

    assert slopes(1) == [2**-8]
    assert slopes(8) == [2**-power for power in range(1, 9)]
    np.testing.assert_allclose(
        slopes(12), [*slopes(8), 2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5], rtol=1e-6
    )
    assert alibi(8, 4)[0].tolist() == [-1.5, -1, -0.5, 0, -0.5, -1, -1.5]  # symmetric


def test_jinas_bert_by_its_own_name(tmp_path: Path) -> None:
    fixture = load("jina_bert")
    own = Fixture(
        fixture.config | {"model_type": "jina_bert"},
        {f"bert.{name}": tensor for name, tensor in fixture.weights.items()},
        fixture.ids[:7],
        fixture.expected,
    )
    assert_near(vectors(own, "mean", tmp_path), fixture.expected["mean"][:7])


def test_gte_as_converted_for_transformers(tmp_path: Path) -> None:
    fixture = load("gte-new")
    rope = {"rope_type": "linear", "rope_theta": 1000.0, "factor": 2 ** (2 / 8)}
    own = ("rope_theta", "rope_scaling", "logn_attention_scale", "pack_qkv")
    kept = {key: value for key, value in fixture.config.items() if key not in own}
    changes = {"model_type": "gte", "rope_parameters": rope}
    weights = {f"new.{name}": tensor for name, tensor in fixture.weights.items()}
    converted = Fixture(kept | changes, weights, fixture.ids, fixture.expected)
    assert_near(vectors(converted, "mean", tmp_path), fixture.expected["mean"])


def merged(fixture: Fixture, task: int) -> dict[str, NDArray[np.float32]]:
    """The weights with a task's changes, by the definition of LoRA."""
    kept = {name: w for name, w in fixture.weights.items() if "parametrizations" not in name}
    for name, original in fixture.weights.items():
        if not name.endswith(".original"):
            continue
        module = name.removesuffix(".parametrizations.weight.original")
        lora = f"{module}.parametrizations.weight.0.lora_"
        a, b = (fixture.weights[lora + part][task] for part in "AB")
        kept[f"{module}.weight"] = original + (a @ b if "embeddings" in module else b @ a) / 4
    return kept


@pytest.mark.parametrize("task", [0, 1, 4])
def test_the_changes_of_one_task_are_added_to_all_weights(task: int, tmp_path: Path) -> None:
    fixture = load("xlm-roberta-flash")
    names = fixture.config["lora_adaptations"]
    plain = Fixture(
        fixture.config | {"lora_adaptations": None},
        merged(fixture, task),
        fixture.ids,
        fixture.expected,
    )
    (tmp_path / "plain").mkdir()
    expected = vectors(plain, "mean", tmp_path / "plain")
    chosen = Fixture(
        fixture.config | {"lora_task": names[task]},
        fixture.weights,
        fixture.ids,
        fixture.expected,
    )
    np.testing.assert_allclose(vectors(chosen, "mean", tmp_path), expected, atol=1e-5)
    assert (np.abs(expected - fixture.expected["mean"]).max() > 0.1) == (task != 1)


def test_the_task_is_part_of_what_vectors_depend_on(tmp_path: Path) -> None:
    write(tmp_path / "model", "xlm-roberta-flash")
    first = TextEmbedding(tmp_path / "model", precision="fp32").describe()
    config = tmp_path / "model/config.json"
    content = json.loads(config.read_text())
    config.write_text(json.dumps(content | {"lora_task": "text-matching"}))
    second = TextEmbedding(tmp_path / "model", precision="fp32").describe()
    assert first.weights_sha256 == second.weights_sha256
    assert first.tokenizer_sha256 != second.tokenizer_sha256


def test_it_is_said_once_that_queries_have_the_weights_of_documents(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "model", "xlm-roberta-flash")
    for _ in range(2):
        encoder = TextEmbedding(tmp_path / "model", precision="fp32", cache_dir=tmp_path / "cache")
        list(encoder.embed("cat"))
    said = [record.message for record in caplog.records if "for queries and doc" in record.message]
    assert len(said) == 1
    assert "'retrieval.passage'" in said[0]


@pytest.mark.parametrize("part", ["lora_A", "lora_B"])
def test_changes_that_do_not_fit_are_refused(part: str, tmp_path: Path) -> None:
    fixture = load("xlm-roberta-flash")
    name = f"roberta.encoder.layers.0.mlp.fc1.parametrizations.weight.0.{part}"
    fixture.weights[name] = fixture.weights[name][:, :, :3]
    with pytest.raises(ModelFileError, match=r"fc1' for task 1 do not fit"):
        session(fixture, "mean", tmp_path)
    fixture.weights[name] = fixture.weights[name][:1]
    with pytest.raises(ModelFileError, match=r"fc1' for task 1 do not fit"):
        session(fixture, "mean", tmp_path)


@pytest.mark.slow
def test_experts_are_int8_but_for_those_that_no_text_chooses(tmp_path: Path) -> None:
    fixture = write(tmp_path / "model", "nomic_bert_moe")
    report = TextEmbedding(tmp_path / "model").report
    assert (report.precision, getattr(report, "float32_groups", None)) == ("int8", ())
    # the last expert of the first layer that has any is never among the two best
    layer = "encoder.layers.1"
    fixture.weights[f"{layer}.norm1.bias"][0] = 20
    fixture.weights[f"{layer}.mlp.router.layer.weight"][:, 0] = [0, 0, 0, -9]
    path = tmp_path / "unchosen"
    write(path, "nomic_bert_moe", weights=fixture.weights)
    report = TextEmbedding(path).report
    assert "1.f2.3" in getattr(report, "float32_groups", ())
    assert report.precision == "int8"


def test_fixtures_are_small() -> None:
    assert all(path.stat().st_size < 150_000 for path in FIXTURES.glob("*.npz"))
