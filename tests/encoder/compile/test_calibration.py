"""What a model is calibrated with, whatever special tokens its tokenizer has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_bert, tiny_tokenizer
from tokenizers import Regex, normalizers

from qdrant_embed import CompileReport, ModelSpec, TextEmbedding
from qdrant_embed.encoder.compile.calibration import (
    CalibrationTokens,
    Passage,
    calibration_passages,
    calibration_tokens,
)
from qdrant_embed.encoder.run.tokenizer import Tokenizer

CLS, SEP = 2, 3
SPECIAL: dict[str, tuple[list[int], list[int]]] = {
    "$A": ([], []),
    "[CLS] $A": ([CLS], []),
    "$A [SEP]": ([], [SEP]),
    "[CLS] $A [SEP]": ([CLS], [SEP]),
    "[CLS] [SEP] $A [SEP] [SEP]": ([CLS, SEP], [SEP, SEP]),
}


def tokens(folder: Path, special: str, max_tokens: int = 256, **spec: str) -> CalibrationTokens:
    tiny_tokenizer(special).save(str(folder / "tokenizer.json"))
    return calibration_tokens(
        Tokenizer(folder / "tokenizer.json", max_tokens),
        ModelSpec("tiny", 32, "mean", max_tokens, **spec),  # type: ignore[arg-type] # prefixes
    )


@pytest.mark.parametrize("max_tokens", [4, 8, 64, 1024])
@pytest.mark.parametrize("special", SPECIAL)
def test_every_sequence_has_the_tokenizers_special_tokens_and_fits(
    special: str, max_tokens: int, tmp_path: Path
) -> None:
    before, after = SPECIAL[special]
    found = tokens(tmp_path, special, max_tokens)
    assert len(found.random) == 40
    assert len(found.texts) > 3 * len(found.held_out) > 0
    for sequence in (*found.texts, *found.random, *found.held_out):
        inner = sequence[len(before) : len(sequence) - len(after)]
        assert sequence == [*before, *inner, *after]
        assert len(sequence) <= max_tokens
    assert not {CLS, SEP} & {
        number
        for text in found.texts + found.held_out
        for number in text[len(before) : len(text) - len(after)]
    }
    longest = min(512, max_tokens)
    assert max(map(len, found.texts + found.held_out)) == longest


@pytest.mark.parametrize("prefix", ["", "the cat at the sea "])
def test_two_of_three_documents_to_calibrate_with_are_short_but_none_to_check_with(
    prefix: str, tmp_path: Path
) -> None:
    found = tokens(tmp_path, "[CLS] $A [SEP]", document_prefix=prefix, query_prefix=prefix)
    added = 8 if prefix else 0
    parts: tuple[list[Passage], list[Passage]] = ([], [])
    for i, passage in enumerate(calibration_passages()):
        parts[not (i + 1) % 5].append(passage)
    for kept, part, limits in (
        (found.texts, parts[0], (96, 16, 16, 32)),
        (found.held_out, parts[1], (96, 96, 96, 32)),
    ):
        for start, limit in enumerate(limits):
            assert max(map(len, kept[: len(part)][start::4])) == limit + added
        # of each group a long text
        assert [len(ids) for ids in kept[len(part) :]] == [256] * 4


def test_texts_that_are_nothing_to_the_tokenizer_are_left_out(tmp_path: Path) -> None:
    whole = tokens(tmp_path, "$A")
    latin = tiny_tokenizer("$A")
    latin.normalizer = normalizers.Sequence(
        [latin.normalizer, normalizers.Replace(Regex("[^a-z ]"), "")]
    )
    latin.save(str(tmp_path / "tokenizer.json"))
    found = calibration_tokens(
        Tokenizer(tmp_path / "tokenizer.json", 256), ModelSpec("tiny", 32, "mean", 256)
    )
    assert all(found.texts)
    assert all(found.held_out)
    assert 0 < len(found.texts) < len(whole.texts)


@pytest.mark.parametrize("special", SPECIAL)
def test_a_model_is_int8_whatever_special_tokens_it_has(special: str, tmp_path: Path) -> None:
    model = tiny_bert(tmp_path / "model", special=special)
    encoder = TextEmbedding(model.path, cache_dir=tmp_path)
    assert isinstance(encoder.report, CompileReport)
    assert encoder.report.precision == "int8"
    exact = TextEmbedding(model.path, cache_dir=tmp_path, precision="fp32")
    texts = ["cat", "the ship sailed to sea in a storm " * 20]
    for found, expected in zip(encoder.embed(texts), exact.embed(texts), strict=True):
        assert float(np.dot(found, expected)) > 0.99
