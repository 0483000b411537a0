"""Tokenizers that add one special token to a text, or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import tiny_bert, tiny_tokenizer, write_model
from tiny_onnx import WIDTH, tiny_onnx
from tokenizers import Tokenizer, processors

from qdrant_embed import QdrantClient, TextEmbedding

TEXTS = ["cat", "", "the cat sat on the mat", " ", "paris"]
LONG = "the cat sat on the mat. " * 20


@pytest.fixture(params=["", "[SEP]"])
def added(request: pytest.FixtureRequest) -> str:
    """What the tokenizer adds to a text."""
    return str(request.param)


def with_tokens(folder: Path, added: str) -> Path:
    """The model in `folder`, whose tokenizer adds only those tokens."""
    path = folder / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    special = [(added, 3)] if added else []
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {added}".strip(), special_tokens=special
    )
    tokenizer.save(str(path))
    return folder


@pytest.fixture(params=["compiled", "own file"])
def encoder(request: pytest.FixtureRequest, added: str, tmp_path: Path) -> TextEmbedding:
    folder, options = tmp_path / "model", {}
    if request.param == "compiled":
        tiny_bert(folder, pooling="last_token")
        options = {"precision": "fp32"}
    else:
        config = {"model_type": "deberta", "hidden_size": WIDTH, "max_position_embeddings": 64}
        write_model(folder, config, None, max_seq_length=64)
        tiny_onnx(tiny_tokenizer().get_vocab_size()).save(folder / "model.onnx")
    return loaded(with_tokens(folder, added), **options)


def loaded(folder: Path, **options: Any) -> TextEmbedding:
    return TextEmbedding(folder, cache_dir=folder.parent / "cache", **options)


def test_each_text_has_its_vector_and_one_without_tokens_has_zeros(
    encoder: TextEmbedding, added: str
) -> None:
    together = np.stack(list(encoder.embed(TEXTS)))
    alone = np.stack([next(encoder.embed(text)) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    empty = 1.0 if added else 0.0
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), [1, empty, 1, empty, 1], atol=1e-5)


@pytest.mark.parametrize("overflow", ["truncate", "mean", "chunk"])
def test_long_texts_are_split_as_any_others(overflow: Any, added: str, tmp_path: Path) -> None:
    tiny_bert(tmp_path / "model", max_seq_length=16)
    folder = with_tokens(tmp_path / "model", added)
    encoder = loaded(folder, precision="fp32", overflow=overflow)
    rows = np.stack(list(encoder.embed([LONG, "", "cat"])))
    assert np.isfinite(rows).all()
    chunks, empty, short = encoder.chunks([LONG, "", "cat"])
    parts = [LONG[chunk.start : chunk.end] for chunk in chunks]
    assert "".join("".join(parts).split()) == "".join(LONG.split())
    assert (len(empty), len(short)) == (1, 1)
    tokens = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokens.no_truncation()
    tokens.no_padding()
    assert 14 <= max(len(tokens.encode(part).ids) for part in parts) <= 16


def test_a_collection_stores_and_finds_its_texts(encoder: TextEmbedding) -> None:
    client = QdrantClient(":memory:")
    client.set_model(encoder)
    client.add("demo", TEXTS)
    assert client.query("demo", "paris")[0].document == "paris"
    client.close()
