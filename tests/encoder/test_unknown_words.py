"""Texts of which a model's vocabulary has no word: counted, and warned of."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import TinyModel, tiny_tokenizer
from tokenizers import Tokenizer as RawTokenizer
from tokenizers import models, pre_tokenizers, processors

from qdrant_embed import IngestProgress, QdrantClient, SparseTextEmbedding, TextEmbedding
from qdrant_embed.encoder.run.tokenizer import Tokenizer

DNA = ["".join(random.Random(seed).choices("acgt", k=150)) for seed in range(2)]
UNKNOWN = [*DNA, "龘龘", "龘, 龘.", "ꙮ" * 20, f"({DNA[0]})", "☃ ☃"]
KNOWN = ["cat", "", " ", "cat 龘", f"{DNA[0]} cat", "龘 six", "query: query"]


def word_level() -> RawTokenizer:
    tokenizer = RawTokenizer(
        models.WordLevel({"[UNK]": 0, "cat": 1, "query": 2, "six": 3, "passage": 4}, "[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def pieces() -> RawTokenizer:
    """SentencePiece's way: white space alone is a known token."""
    vocabulary = [("<s>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁cat", -1.0)]
    vocabulary += [(f"▁{word}", -1.0) for word in ("query", "passage", "six")]
    vocabulary += [(mark, -3.0) for mark in ":.,()"]
    tokenizer = RawTokenizer(models.Unigram(vocabulary, unk_id=2, byte_fallback=False))
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return tokenizer


def marked() -> RawTokenizer:
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens(["[CLS]", "[SEP]", "[UNK]", "[PAD]"])
    return tokenizer


def saved(tokenizer: RawTokenizer, folder: Path) -> Tokenizer:
    tokenizer.save(str(folder / "tokenizer.json"))
    return Tokenizer(folder / "tokenizer.json", 64)


@pytest.mark.parametrize("prefix", ["", "query: ", "passage: ", "cat six cat "])
@pytest.mark.parametrize("make", [marked, word_level, pieces])
def test_texts_without_a_known_word_are_counted(tmp_path: Path, make: Any, prefix: str) -> None:
    tokenizer = saved(make(), tmp_path)

    def count(text: str) -> int:
        return tokenizer.unknown_texts(tokenizer.tokenize([prefix + text]).ids, prefix)

    assert [text for text in UNKNOWN if not count(text)] == []
    assert [text for text in KNOWN if count(text)] == []


def test_a_tokenizer_of_bytes_knows_everything(tmp_path: Path) -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = RawTokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = saved(raw, tmp_path)
    assert tokenizer.unknown_texts(tokenizer.tokenize([*UNKNOWN, *KNOWN]).ids) == 0


@pytest.mark.parametrize("overflow", ["truncate", "mean", "chunk", "error"])
@pytest.mark.parametrize("method", ["embed", "query_embed", "passage_embed"])
def test_an_encoder_warns_once(
    tiny_e5: TinyModel, caplog: pytest.LogCaptureFixture, overflow: Any, method: str
) -> None:
    encoder = TextEmbedding(tiny_e5.path, overflow=overflow)
    list(getattr(encoder, method)(["cat", "dog 龘", ""]))
    assert "knows no word" not in caplog.text
    for _ in range(3):
        one, other = getattr(encoder, method)(DNA)
    assert np.array_equal(one, other)  # which is what the warning is about
    assert caplog.text.count("knows no word") == 1
    list(getattr(encoder, method)("龘龘"))
    assert caplog.text.count("knows no word") == 1


def test_a_real_model_warns_of_dna(minilm: TextEmbedding, caplog: pytest.LogCaptureFixture) -> None:
    encoder = TextEmbedding(minilm.model_name)
    one, other = encoder.embed(DNA)
    assert float(one @ other) > 0.999
    assert caplog.text.count("knows no word") == 1


@pytest.mark.parametrize("overflow", ["truncate", "chunk"])
def test_an_add_counts_and_warns_once(
    client: QdrantClient, tiny: TinyModel, caplog: pytest.LogCaptureFixture, overflow: Any
) -> None:
    client.set_model(tiny.path, overflow=overflow)
    seen: list[IngestProgress] = []
    texts = ["cat", *DNA, "dog 龘", "龘 " * 300]
    client.add("a", texts, progress=seen.append)
    assert seen[0].unknown == 0
    assert seen[-1].unknown == 3
    assert "3 texts unknown" in seen[-1].notes()
    warnings = [r.getMessage() for r in caplog.records if "knows no word" in r.getMessage()]
    assert len(warnings) == 1
    assert "3 of the texts added to 'a'" in warnings[0]


@pytest.mark.parametrize("text", ["x" * 41, "the of and", f"{DNA[0]} and {DNA[1]}", "Это" * 20])
@pytest.mark.parametrize("method", ["embed", "query_embed"])
def test_bm25_warns_of_texts_without_a_term(
    caplog: pytest.LogCaptureFixture, text: str, method: str
) -> None:
    encoder = SparseTextEmbedding()
    for fine in ("cat", "", "...", "☃", "the cat"):
        list(getattr(encoder, method)(fine))
    assert caplog.text == ""
    for _ in range(2):
        [vector] = getattr(encoder, method)(text)
        assert not vector.indices.size
    assert caplog.text.count("finds no term") == 1
