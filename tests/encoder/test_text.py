"""The encoder as a user calls it: right values, in order, whatever the batch."""

from __future__ import annotations

import itertools
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import forward
from safetensors.numpy import load_file
from tiny import WORDS, TinyModel, tiny_bert
from tokenizers import Tokenizer

from qdrant_embed import DefaultEmbedding, InputError, ModelFileError, TextEmbedding
from qdrant_embed.encoder.facts.catalog import DEFAULT_MODEL, MINILM
from qdrant_embed.encoder.text import variant


def mixed_texts(count: int) -> list[str]:
    """Texts of very different lengths, real words, unsorted."""
    random = np.random.default_rng(7)
    lengths = np.clip(random.lognormal(3, 1, count), 1, 300).astype(int)
    return [" ".join(random.choice(WORDS, length)) for length in lengths]


def test_hello_world_has_the_canonical_values(minilm_fp32: TextEmbedding) -> None:
    (vector,) = minilm_fp32.embed("hello world")
    assert vector.shape == (384,)
    assert vector.dtype == np.float32
    assert vector[:5] == pytest.approx([-0.034478, 0.03102, 0.00673, 0.02611, -0.039362], abs=1e-4)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
def test_minilm_agrees_with_an_independent_forward_pass(minilm_fp32: TextEmbedding) -> None:
    minilm = minilm_fp32
    folder = minilm._model.facts.files.folder
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    weights = {
        name: tensor.astype(np.float64)
        for name, tensor in load_file(folder / "model.safetensors").items()
    }
    config = json.loads((folder / "config.json").read_text())
    texts = mixed_texts(30)
    expected = np.array(
        [
            forward(weights, config, tokenizer.encode(text).ids, pooling="mean", normalize=True)
            for text in texts
        ]
    )
    order = np.random.default_rng(1).permutation(len(texts))
    for batch_size in (1, 7, 256):
        vectors = np.array(list(minilm.embed([texts[i] for i in order], batch_size)))
        assert (vectors * expected[order]).sum(axis=1).min() >= 0.99999


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
def test_every_kind_of_bert_agrees_with_the_forward_pass(
    tmp_path: Path, pooling: str, normalize: bool, activation: str
) -> None:
    model = tiny_bert(
        tmp_path / "model",
        pooling=pooling,
        normalize=normalize,
        hidden_act=activation,
        weight_prefix="bert.",
    )
    assert_agrees_with_reference(model)


def test_a_single_layer_with_cls_pooling_agrees_too(tmp_path: Path) -> None:
    assert_agrees_with_reference(tiny_bert(tmp_path / "model", pooling="cls", layers=1))


def assert_agrees_with_reference(model: TinyModel) -> None:
    tokenizer = Tokenizer.from_file(str(model.path / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(64)
    texts = ["", "cat", *mixed_texts(20)]
    vectors = list(TextEmbedding(model.path, precision="fp32").embed(texts))
    for text, vector in zip(texts, vectors, strict=True):
        expected = forward(
            model.weights,
            model.config,
            tokenizer.encode(text).ids,
            pooling=model.pooling,
            normalize=model.normalize,
        )
        np.testing.assert_allclose(vector, expected, atol=2e-5, rtol=1e-4)


@settings(max_examples=25, deadline=None)
@given(
    texts=st.lists(st.text(max_size=80), max_size=20),
    batch_size=st.integers(1, 30),
    parallel=st.integers(0, 3),
)
def test_a_vector_depends_on_its_text_alone(
    minilm: TextEmbedding, texts: list[str], batch_size: int, parallel: int
) -> None:
    together = list(minilm.embed(texts, batch_size, parallel))
    assert len(together) == len(texts)
    for text, vector in zip(texts, together, strict=True):
        (alone,) = minilm.embed(text)
        np.testing.assert_allclose(vector, alone, atol=1e-6)


def test_a_generator_is_read_once_and_not_far_ahead(minilm: TextEmbedding) -> None:
    read = itertools.count()

    def endless() -> Iterator[str]:
        while True:
            yield f"text {next(read)}"

    vectors = minilm.embed(endless(), batch_size=8)
    assert len(list(itertools.islice(vectors, 20))) == 20
    assert next(read) <= 20 + 2 * 8
    vectors.close()  # type: ignore[attr-defined]


def test_a_list_of_one_text_may_grow_before_it_is_read(tiny: TinyModel) -> None:
    encoder = TextEmbedding(tiny.path)
    texts = ["cat"]
    vectors = encoder.embed(texts)
    texts.append("a dog at sea")
    for vector, text in zip(vectors, texts, strict=True):
        np.testing.assert_allclose(vector, next(encoder.embed(text)), atol=1e-6)


def test_prefixes_are_applied_to_their_own_side_only(tiny_e5: TinyModel) -> None:
    encoder = TextEmbedding(tiny_e5.path)
    assert (encoder.spec.query_prefix, encoder.spec.document_prefix) == ("query: ", "passage: ")
    bare = {text: next(encoder.embed(text)) for text in ("query: cat", "passage: cat", "cat")}
    np.testing.assert_array_equal(next(encoder.query_embed(["cat"])), bare["query: cat"])
    np.testing.assert_array_equal(next(encoder.passage_embed(["cat"])), bare["passage: cat"])
    np.testing.assert_array_equal(next(encoder.embed(["cat"])), bare["cat"])
    assert not np.allclose(bare["query: cat"], bare["passage: cat"], atol=1e-3)


def test_the_users_own_prefixes_come_first(tiny_e5: TinyModel) -> None:
    encoder = TextEmbedding(tiny_e5.path, query_prefix="", document_prefix="of ")
    np.testing.assert_array_equal(next(encoder.query_embed("cat")), next(encoder.embed("cat")))
    np.testing.assert_array_equal(next(encoder.passage_embed("cat")), next(encoder.embed("of cat")))


def test_a_variant_shares_the_loaded_model_and_leaves_the_original(tiny_e5: TinyModel) -> None:
    encoder = TextEmbedding(tiny_e5.path)
    assert encoder.spec.query_prefix == "query: "
    other = variant(encoder, query_prefix="", threads=1)
    assert other._model is encoder._model
    assert (other.spec.query_prefix, encoder.spec.query_prefix) == ("", "query: ")
    assert other.spec.document_prefix == "passage: "


def test_texts_are_cut_at_the_models_limit_not_the_tokenizers_and_it_is_said_once(
    tiny: TinyModel, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = TextEmbedding(tiny.path)  # its tokenizer.json says 7, the model says 64
    (full,) = encoder.embed("cat " * 62)
    (shorter,) = encoder.embed("cat " * 61)
    assert not np.array_equal(full, shorter)
    assert not caplog.records
    for _ in range(2):
        (longer,) = encoder.embed("cat " * 62 + "storm storm storm")
        np.testing.assert_array_equal(full, longer)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "64 tokens" in record.message


def test_max_tokens_can_be_set_within_the_models_positions(tiny: TinyModel) -> None:
    encoder = TextEmbedding(tiny.path, max_tokens=5)
    np.testing.assert_array_equal(
        next(encoder.embed("one two three four")), next(encoder.embed("one two three"))
    )
    with pytest.raises(InputError, match="positions for 96 tokens"):
        TextEmbedding(tiny.path, max_tokens=97)
    with pytest.raises(InputError, match="of at least 3"):
        TextEmbedding(tiny.path, max_tokens=2)


@pytest.mark.parametrize("bad", [None, 3, b"bytes"])
def test_what_is_no_text_is_refused(tiny: TinyModel, bad: object) -> None:
    encoder = TextEmbedding(tiny.path)
    with pytest.raises(InputError, match="number 1 is"):
        list(encoder.embed(["fine", bad]))  # type: ignore[list-item]


def test_what_is_no_list_is_refused_at_once(tiny: TinyModel) -> None:
    encoder = TextEmbedding(tiny.path)
    with pytest.raises(InputError, match="not int"):
        encoder.embed(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="batch_size"):
        encoder.embed(["a"], batch_size=0)
    with pytest.raises(InputError, match="parallel"):
        encoder.embed(["a"], parallel=-1)
    with pytest.raises(InputError, match="threads"):
        TextEmbedding(tiny.path, threads=0)


def test_many_threads_share_one_encoder(minilm: TextEmbedding) -> None:
    texts = mixed_texts(30)
    expected = np.array(list(minilm.embed(texts)))
    wrong: list[str] = []

    def work(start: int) -> None:
        wrong.extend(
            texts[i]
            for i in range(start, len(texts), 3)
            if not np.allclose(next(minilm.embed(texts[i])), expected[i], atol=1e-6)
        )

    workers = [threading.Thread(target=work, args=(start % 3,)) for start in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_lazy_loading_reads_nothing_until_needed(tiny: TinyModel, tmp_path: Path) -> None:
    encoder = TextEmbedding(tiny.path, lazy_load=True, cache_dir=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    assert len(next(encoder.embed("cat"))) == encoder.dimension == 32
    assert (tmp_path / "cache").exists()


def test_the_default_model_is_named_without_being_fetched() -> None:
    assert DefaultEmbedding(lazy_load=True).model_name == DEFAULT_MODEL
    names = [entry["model"] for entry in TextEmbedding.list_supported_models()]
    assert {DEFAULT_MODEL, MINILM} <= set(names)


def test_description_states_all_that_vectors_depend_on(minilm: TextEmbedding) -> None:
    description = minilm.describe()
    assert description.model == MINILM
    assert description.weights_sha256 is not None
    assert description.weights_sha256.startswith("53aa5117")
    assert (description.pooling, description.max_tokens, description.dimension) == (
        "mean",
        256,
        384,
    )


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    model = tiny_bert(tmp_path / "model", vocab_size=50)
    with pytest.raises(ModelFileError, match="do not belong together"):
        TextEmbedding(model.path)


@pytest.mark.slow
def test_a_damaged_compiled_model_is_made_again(tiny: TinyModel, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (before,) = TextEmbedding(tiny.path, cache_dir=cache).embed("cat")
    (graph,) = cache.glob("compiled/*/model.onnx")
    for damage in (b"", b"x" * graph.stat().st_size):
        graph.write_bytes(damage)
        (after,) = TextEmbedding(tiny.path, cache_dir=cache).embed("cat")
        np.testing.assert_array_equal(before, after)
