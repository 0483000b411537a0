"""Documents on OpenVINO: vectors near those of onnxruntime, and either searches the other's."""

from __future__ import annotations

import json
import logging
import pickle
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from processes import FORKS, run
from tiny import TinyModel, tiny_bert, tiny_tokenizer, write_model
from tiny_onnx import WIDTH, tiny_onnx

from qdrant_embed import (
    InputError,
    ModelError,
    QdrantClient,
    TextEmbedding,
)
from qdrant_embed.encoder.compile.calibration import calibration_passages
from qdrant_embed.encoder.facts.catalog import MINILM
from qdrant_embed.encoder.facts.precision import LARGEST_ERROR, LEAST_COSINE
from qdrant_embed.encoder.files.cache import sealed
from qdrant_embed.encoder.runtimes import choice

pytestmark = pytest.mark.skipif(
    find_spec("openvino") is None, reason="the extra openvino is not installed"
)

TEXTS = [passage.text for passage in calibration_passages()[::4]]


def cosines(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    found: NDArray[np.float32] = (one * other).sum(axis=1) / lengths
    return found


@pytest.fixture(scope="module")
def ours(minilm: TextEmbedding) -> NDArray[np.float32]:
    return np.array(list(minilm.embed(TEXTS)))


@pytest.fixture(scope="module")
def openvino(compiled_minilm: None) -> TextEmbedding:
    return TextEmbedding(MINILM, runtime="openvino")


def test_vectors_are_within_the_gate_of_each_other(
    openvino: TextEmbedding, ours: NDArray[np.float32], minilm_fp32: TextEmbedding
) -> None:
    found = np.array(list(openvino.passage_embed(TEXTS)))
    assert not np.array_equal(found, ours)
    for reference in (ours, np.array(list(minilm_fp32.embed(TEXTS)))):
        assert cosines(found, reference).mean() >= 1 - LARGEST_ERROR
        assert cosines(found, reference).min() >= LEAST_COSINE


def test_queries_run_on_onnxruntime(openvino: TextEmbedding, minilm: TextEmbedding) -> None:
    for texts in (TEXTS[:1], TEXTS[:9]):
        found = list(openvino.query_embed(texts))
        np.testing.assert_allclose(found, list(minilm.query_embed(texts)), atol=1e-6)


@settings(max_examples=15)
@given(
    texts=st.lists(st.sampled_from(TEXTS) | st.text(max_size=40), min_size=1, max_size=30),
    batch_size=st.integers(1, 30),
    parallel=st.integers(1, 3),
)
def test_a_vector_depends_on_its_text_alone(
    openvino: TextEmbedding, texts: list[str], batch_size: int, parallel: int
) -> None:
    together = np.array(list(openvino.embed(texts, batch_size, parallel)))
    alone = np.array([next(openvino.embed(text)) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_what_runs_is_visible(openvino: TextEmbedding, minilm: TextEmbedding) -> None:
    assert (openvino.runtime, openvino.report.runtime) == ("openvino", "openvino")
    assert (minilm.runtime, minilm.report.runtime) == ("onnxruntime", "onnxruntime")
    assert "runtime='openvino'" in repr(openvino)
    assert "runtime='auto'" in repr(TextEmbedding(MINILM, runtime="auto", lazy_load=True))


@pytest.mark.parametrize(
    ("writes", "asks"), [("openvino", "onnxruntime"), ("onnxruntime", "openvino")]
)
def test_a_collection_written_by_one_is_asked_by_the_other(
    writes: Any, asks: Any, compiled_minilm: None
) -> None:
    client = QdrantClient(":memory:")
    client.set_model(MINILM, runtime=writes)
    client.add("texts", TEXTS, ids=range(len(TEXTS)))
    client.set_model(MINILM, runtime=asks)
    for number in range(0, len(TEXTS), 5):
        assert client.query("texts", query_text=TEXTS[number], limit=1)[0].id == number
    client.add("texts", TEXTS[:3], ids=range(1000, 1003))
    hits = client.query("texts", query_text=TEXTS[0], limit=2)
    assert {hit.id for hit in hits} == {0, 1000}
    client.close()


def test_documents_in_chunks_and_of_fewer_dimensions(minilm: TextEmbedding) -> None:
    long = " ".join(TEXTS[:12])
    for options in ({"overflow": "mean"}, {"dimensions": 128}, {"overflow": "chunk"}):
        found = list(TextEmbedding(MINILM, runtime="openvino", **options).embed([long, "short"]))
        expected = list(TextEmbedding(MINILM, **options).embed([long, "short"]))
        assert np.shape(found) == np.shape(expected)
        assert cosines(np.array(found), np.array(expected)).min() >= LEAST_COSINE


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_both_poolings_without_normalisation(pooling: str, tmp_path: Path) -> None:
    model = tiny_bert(tmp_path / "tiny", pooling=pooling, normalize=False, max_seq_length=160)
    texts = ["cat", "the dog sat", "the ship sailed to sea in a storm " * 30]
    found = np.array(list(TextEmbedding(model.path, runtime="openvino").embed(texts)))
    expected = np.array(list(TextEmbedding(model.path).embed(texts)))
    assert cosines(found, expected).min() >= 0.99
    np.testing.assert_allclose(found, expected, atol=0.1 * np.abs(expected).max())


def test_a_pickled_encoder_runs_on_it(openvino: TextEmbedding) -> None:
    other = pickle.loads(pickle.dumps(openvino))
    assert other.runtime == "openvino"
    np.testing.assert_allclose(list(other.embed(TEXTS[:4])), list(openvino.embed(TEXTS[:4])))


# what it does not run


def test_float32_is_refused(tiny: TinyModel) -> None:
    with pytest.raises(InputError, match="int8, not in fp32"):
        TextEmbedding(tiny.path, precision="fp32", runtime="openvino")


def test_a_model_from_its_own_file_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write_model(folder, {"model_type": "deberta", "hidden_size": WIDTH}, None)
    tiny_onnx(tiny_tokenizer().get_vocab_size()).save(folder / "model.onnx")
    with pytest.raises(ModelError, match="its own ONNX file"):
        TextEmbedding(folder, runtime="openvino")
    assert TextEmbedding(folder, runtime="auto").runtime == "onnxruntime"


def test_poolings_that_padding_would_change_are_refused(tmp_path: Path) -> None:
    model = tiny_bert(tmp_path / "tiny", pooling="last_token").path
    with pytest.raises(ModelError, match="pooling"):
        TextEmbedding(model, runtime="openvino")
    assert TextEmbedding(model, runtime="auto").runtime == "onnxruntime"


# auto


@pytest.fixture
def own_cache(tmp_path: Path, cache: Path, compiled_minilm: None) -> Path:
    """A cache with the compiled model and no notes."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "compiled").symlink_to(cache / "compiled")
    return tmp_path / "cache"


def auto(cache: Path) -> TextEmbedding:
    return TextEmbedding(MINILM, runtime="auto", cache_dir=cache)


def noted(cache: Path) -> Path:
    [note] = (cache / choice.FOLDER).iterdir()
    return note


def test_both_are_measured_once(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    first = auto(own_cache)
    assert "documents of" in caplog.text
    seconds = json.loads(noted(own_cache).read_text())
    faster = seconds["openvino"] <= 0.95 * seconds["onnxruntime"]
    assert first.runtime == ("openvino" if faster else "onnxruntime")
    monkeypatch.setattr(choice, "_measured", None)  # never again
    assert auto(own_cache).runtime == first.runtime


@pytest.mark.parametrize(
    ("ours", "theirs", "chosen"), [(1.0, 0.5, "openvino"), (1.0, 0.99, "onnxruntime")]
)
def test_the_note_decides(
    ours: float, theirs: float, chosen: str, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "_ROUNDS", 1)
    auto(own_cache)
    noted(own_cache).write_text(sealed({"onnxruntime": ours, "openvino": theirs}))
    assert auto(own_cache).runtime == chosen


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\x00",
        b"[" * 5000,
        b"{}",
        b'{"onnxruntime": 1.0, "openvino": 0.5, "digest": "00"}',
        sealed({"onnxruntime": "1", "openvino": [2]}).encode(),
        sealed({"onnxruntime": 1.0, "openvino": float("nan")}).encode(),
        sealed({"onnxruntime": 1.0, "openvino": -1.0}).encode(),
        sealed({"onnxruntime": True, "openvino": 1 << 2000}).encode(),
    ],
)
def test_a_note_that_cannot_be_used_is_none(content: bytes, tmp_path: Path) -> None:
    note = tmp_path / "note.json"
    assert choice._noted(note) is None
    note.write_bytes(content)
    assert choice._noted(note) is None
    note.unlink()
    note.mkdir()
    assert choice._noted(note) is None


def test_vectors_that_differ_are_refused_and_auto_does_without(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "LARGEST_ERROR", -1.0)
    with pytest.raises(ModelError, match="are not those on onnxruntime"):
        TextEmbedding(MINILM, runtime="openvino", cache_dir=own_cache)
    assert auto(own_cache).runtime == "onnxruntime"
    assert "error" in json.loads(noted(own_cache).read_text())
    assert auto(own_cache).runtime == "onnxruntime"


# processes

BEGIN = (
    FORKS
    + """
from qdrant_embed import TextEmbedding

TEXTS = ["cat dog " * (number % 9) for number in range(80)]
encoder = TextEmbedding(sys.argv[1], runtime="openvino")
expected = list(encoder.embed(TEXTS))

def encode():
    for found, vector in zip(encoder.embed(TEXTS), expected):
        assert abs(found - vector).max() < 1e-5
"""
)


@pytest.mark.skipif(not hasattr(sys, "getdlopenflags"), reason="Unix forks")
def test_a_forked_child_encodes_and_so_does_its_parent(tiny: TinyModel) -> None:
    run(BEGIN + "ended(*[child(encode) for _ in range(3)]); encode()", tiny.path)


@pytest.mark.skipif(not hasattr(sys, "getdlopenflags"), reason="Unix forks")
@pytest.mark.slow
def test_a_child_of_a_process_that_encodes_does_not_hang(tiny: TinyModel) -> None:
    work = """
    import warnings; warnings.simplefilter("ignore")
    ends = threading.Event()
    def forever():
        while not ends.is_set():
            encode()
    threads = [threading.Thread(target=forever) for _ in range(3)]
    for thread in threads: thread.start()
    for _ in range(10):
        ended(child(encode))
    ends.set()
    for thread in threads: thread.join()
    """
    run(BEGIN + work.replace("\n    ", "\n"), tiny.path)


def test_threads_that_encode_first_do_not_wait_for_each_other(tiny: TinyModel) -> None:
    work = """
    barrier = threading.Barrier(4)
    def both():
        barrier.wait()
        encode()
    threads = [threading.Thread(target=both) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    """
    run(BEGIN + work.replace("\n    ", "\n"), tiny.path)


def test_openvino_is_imported_without_its_telemetry(tiny: TinyModel) -> None:
    script = """
    import os, sys
    os.fork = lambda: 1 / 0  # which that does
    from qdrant_embed import TextEmbedding
    assert "openvino" not in sys.modules
    list(TextEmbedding(sys.argv[1], runtime="openvino").embed(["cat"]))
    assert "openvino" in sys.modules
    assert not [name for name in sys.modules if name.startswith("openvino_telemetry")]
    """
    run(script, tiny.path)
