"""Pairs of texts that a cross-encoder is calibrated with, and how its int8 ranking is checked."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from qdrant_embed.encoder.compile.calibration import (
    CalibrationTokens,
    Passage,
    calibration_passages,
)
from qdrant_embed.encoder.compile.quantize import Array
from qdrant_embed.encoder.facts.head import Scoring
from qdrant_embed.encoder.facts.precision import LEAST_TAU, RankingFidelity
from qdrant_embed.encoder.facts.spec import ModelSpec
from qdrant_embed.encoder.run.tokenizer import PairTokens, Tokenizer

_HELD_OUT = 5  # every fifth passage is kept to check with
_SHORTEST = 60  # characters of a passage that a question can be taken from
_QUERY = 80  # characters of a query at most
_QUERIES, _DOCUMENTS = 24, 8  # that are checked, and documents of each query
_LONGEST = 192  # tokens of a pair, but for those of a prompt
_RANDOM_PAIRS, _SEED = 100, 0


class PairGate:
    """The `Gate` of cross-encoders.

    A query is the beginning of a passage, and its documents are the rest of that passage and other
    passages, half of them of the same group of languages: pairs of all degrees of relevance. The
    model is calibrated with other passages than it is checked on. Random pairs, whose ordinary
    tokens are chosen by chance, reach channels that no text of these languages does.

    The int8 model is exact enough if it ranks all held-out pairs nearly as in float32 (Kendall's
    tau), and finds the same best document for each query.

    Args:
        tokenizer: the model's tokenizer.
        spec: the model's length.
        scoring: how the model reads pairs.
    """

    def __init__(self, tokenizer: Tokenizer, spec: ModelSpec, scoring: Scoring) -> None:
        del spec
        self._tokenizer, self._scoring = tokenizer, scoring
        texts, checked = calibration_pairs()
        calibrated, kept = self._tokenized(texts), self._tokenized(checked)
        random = self._random(calibrated[:_RANDOM_PAIRS])
        parts = (calibrated, random, kept)
        firsts = tuple([pair.first for pair in part] for part in parts)
        self.tokens = CalibrationTokens(
            texts=[pair.ids for pair in calibrated],
            random=[pair.ids for pair in random],
            held_out=[pair.ids for pair in kept],
            groups=[str(number // _DOCUMENTS) for number in range(len(kept))],
            firsts=(firsts[0], firsts[1], firsts[2]) if scoring.token_types else None,
        )

    def measure(self, outputs: Array, reference: Array) -> RankingFidelity:
        """Compare the two rankings of the held-out pairs."""
        found, exact = outputs.reshape(-1), reference.reshape(-1)
        by_query = [scores.reshape(-1, _DOCUMENTS).argmax(axis=1) for scores in (found, exact)]
        return RankingFidelity(
            tau=round(kendall_tau(found, exact), 4),
            same_best=round(float((by_query[0] == by_query[1]).mean()), 4),
            pairs=len(found),
        )

    def is_enough(self, measured: RankingFidelity) -> bool:
        """Return whether int8 ranks as float32 does."""
        return measured.tau >= LEAST_TAU and measured.same_best == 1

    def _tokenized(self, pairs: Sequence[tuple[str, str]]) -> list[PairTokens]:
        found = self._tokenizer.tokenize_pairs(pairs, self._scoring.prompt).pairs
        if self._scoring.prompt is not None:
            return found
        return [self._cut(pair) for pair in found]

    def _cut(self, pair: PairTokens) -> PairTokens:
        """Cut a pair to the longest length, but keep the special token at its end."""
        if len(pair) <= _LONGEST:
            return pair
        end = pair.ids[-1:] if self._tokenizer.is_special(pair.ids[-1]) else []
        return PairTokens([*pair.ids[: _LONGEST - len(end)], *end], pair.first)

    def _random(self, pairs: Sequence[PairTokens]) -> list[PairTokens]:
        random = np.random.default_rng(_SEED)
        ordinary = np.array(self._tokenizer.ordinary_ids())
        return [
            PairTokens(
                [
                    token if self._tokenizer.is_special(token) else int(other)
                    for token, other in zip(
                        pair.ids, random.choice(ordinary, len(pair)), strict=True
                    )
                ],
                pair.first,
            )
            for pair in pairs
        ]


@cache
def calibration_pairs() -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
    """Make pairs of a query and a document to calibrate with, and others to check with.

    Of the latter, `_DOCUMENTS` in a row have the same query.
    """
    passages = calibration_passages()
    seen = [passage for i, passage in enumerate(passages) if (i + 1) % _HELD_OUT]
    held_out = [passage for i, passage in enumerate(passages) if not (i + 1) % _HELD_OUT]
    asked = [place for place, p in enumerate(held_out) if len(p.text) >= _SHORTEST]
    asked = asked[:: max(1, len(asked) // _QUERIES)][:_QUERIES]
    # of each passage that is seen, in turn its own rest and another passage
    texts = [_pairs(place, seen, 2)[place % 2] for place in range(len(seen))]
    checked = [pair for place in asked for pair in _pairs(place, held_out, _DOCUMENTS)]
    return tuple(texts), tuple(checked)


def _pairs(place: int, passages: Sequence[Passage], count: int) -> list[tuple[str, str]]:
    """Pair a query from the passage at `place` with its rest and with the passages after it."""
    passage = passages[place]
    end = min(_QUERY, max(1, len(passage.text) // 3))
    space = passage.text.rfind(" ", end // 2, end)
    end = space if space > 0 else end
    query, rest = passage.text[:end], passage.text[end:].lstrip() or passage.text
    others = [*range(place + 1, len(passages)), *range(place)]
    near = [other for other in others if passages[other].group == passage.group][: count // 2]
    far = [other for other in others if passages[other].group != passage.group]
    chosen = [*near, *far][: count - 1]
    return [(query, rest), *((query, passages[other].text) for other in chosen)]


def kendall_tau(found: Array, exact: Array) -> float:
    """Return Kendall's tau-b of two rankings: 1 for the same order, -1 for the reverse.

    Pairs that are tied in one ranking and not in the other lower it.
    """
    signs = [np.sign(scores[:, None] - scores[None, :]) for scores in (found, exact)]
    concordant = float((signs[0] * signs[1]).sum())
    untied = [float(np.abs(sign).sum()) for sign in signs]
    if 0.0 in untied:
        return 1.0 if untied[0] == untied[1] else 0.0
    return float(concordant / np.sqrt(untied[0] * untied[1]))
