"""What a model is run on to find the ranges of its activations, and what is seen then."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.encoder.compile.quantize import Activations, Array, LinearGroup
from qdrant_embed.encoder.facts.spec import ModelSpec
from qdrant_embed.encoder.run.batching import Batch, equal_length_batches
from qdrant_embed.encoder.run.tokenizer import Tokenizer

_HELD_BACK = 5  # every fifth text is kept to check with
_LONGEST = 192  # tokens of a passage; the random sequences are longer
_RANDOM_TEXTS, _SAMPLED_ROWS, _SEED = 100, 2500, 0
_TOKENS_PER_BATCH = 256  # each batch gives the inputs of all groups at once

# inputs of a graph and names of its outputs to those outputs
Run = Callable[[Mapping[str, NDArray[Any]], Sequence[str]], Sequence[Array]]


@dataclass(frozen=True)
class CalibrationTokens:
    """Token ids: of texts, of random sequences, and of texts kept back to check with."""

    texts: list[list[int]]
    random: list[list[int]]
    held_back: list[list[int]]


@dataclass(frozen=True)
class Stage:
    """A part of a model that can be run alone: one layer.

    Attributes:
        run: runs its graph.
        reads: the input that takes the hidden states; ``None`` for the first, which embeds.
        gives: the output with the next hidden states; the last's with the vectors.
        taps: by group, the input or output that the group reads.
    """

    run: Run
    reads: str | None
    gives: str
    taps: Mapping[LinearGroup, str]


@dataclass
class _Batch:
    """Sequences of one length on their way through the model."""

    token_ids: NDArray[np.int64]
    hidden: Array | None = None


@dataclass
class _Seen:
    low: Array
    high: Array
    rows: dict[int, NDArray[np.float16]]


@cache
def calibration_texts() -> tuple[str, ...]:
    """The package's own passages: many kinds of text, in 23 languages and 11 scripts."""
    content = files("qdrant_embed.encoder.compile").joinpath("calibration.jsonl").read_text("utf-8")
    return tuple(json.loads(line)["text"] for line in content.splitlines())


def calibration_tokens(tokenizer: Tokenizer, spec: ModelSpec) -> CalibrationTokens:
    """The passages as `tokenizer` sees them, three of four as documents, the fourth as a query.

    Random sequences reach channels that no text of these languages does.
    """
    prefixes = [spec.document_prefix] * 3 + [spec.query_prefix]
    texts = [prefixes[i % 4] + text for i, text in enumerate(calibration_texts())]
    ids = [
        text if len(text) <= _LONGEST else [*text[: _LONGEST - 1], text[-1]]
        for text in tokenizer.tokenize(texts).ids
    ]
    random = np.random.default_rng(_SEED)
    first, *_, last = tokenizer.tokenize([""]).ids[0]
    ordinary = tokenizer.ordinary_ids()
    lengths = np.clip(random.lognormal(3.6, 0.7, _RANDOM_TEXTS), 6, min(250, spec.max_tokens - 2))
    return CalibrationTokens(
        texts=[text for i, text in enumerate(ids) if (i + 1) % _HELD_BACK],
        random=[
            [first, *random.choice(ordinary, int(length)).tolist(), last] for length in lengths
        ],
        held_back=[text for i, text in enumerate(ids) if not (i + 1) % _HELD_BACK],
    )


class Calibration:
    """The calibration tokens on their way through a float32 model, layer after layer.

    Args:
        tokens: what to run on.
        threads: batches at once.
    """

    def __init__(self, tokens: CalibrationTokens, threads: int) -> None:
        self._threads = threads
        self._texts, self._random, self._held_back = (
            [_Batch(batch.token_ids(sequences)) for batch in _batches(sequences)]
            for sequences in (tokens.texts, tokens.random, tokens.held_back)
        )
        self._order = np.argsort(
            [position for batch in _batches(tokens.held_back) for position in batch.positions]
        )

    def step(self, stage: Stage) -> dict[LinearGroup, Activations]:
        """Takes all sequences one stage on; what was seen at the input of each group.

        Ranges are those of texts and random sequences, rows are of texts alone.
        """
        seen: dict[LinearGroup, _Seen] = {}
        lock = threading.Lock()
        sizes = [batch.token_ids.size for batch in self._texts]
        share = min(1.0, _SAMPLED_ROWS / sum(sizes))

        def look(number: int, batch: _Batch, share: float) -> None:
            for key, rows in self._advance(batch, stage).items():
                chosen = np.random.default_rng((_SEED, number)).random(len(rows)) < share
                low, high, sample = rows.min(axis=0), rows.max(axis=0), rows[chosen]
                with lock:
                    known = seen.setdefault(key, _Seen(low, high, {}))
                    known.low = np.minimum(known.low, low)
                    known.high = np.maximum(known.high, high)
                    known.rows[number] = sample.astype(np.float16)  # half the memory, enough digits

        work = [(batch, share) for batch in self._texts] + [(batch, 0.0) for batch in self._random]
        with ThreadPoolExecutor(self._threads) as pool:
            futures: list[Future[None]] = [
                pool.submit(look, number, *item) for number, item in enumerate(work)
            ]
            futures += [pool.submit(self._pass, batch, stage) for batch in self._held_back]
            for future in futures:
                future.result()
        return {
            # in the order of the batches, whichever ended first
            key: Activations(
                known.low, known.high, np.concatenate([known.rows[n] for n in sorted(known.rows)])
            )
            for key, known in seen.items()
        }

    def vectors(self) -> Array:
        """After the last stage, the vectors of the texts that were held back, in order."""
        found = [batch.hidden for batch in self._held_back if batch.hidden is not None]
        return np.concatenate(found)[self._order]

    def _pass(self, batch: _Batch, stage: Stage) -> None:
        self._advance(batch, stage)

    def _advance(self, batch: _Batch, stage: Stage) -> dict[LinearGroup, Array]:
        """Takes one batch on; what each group read, float32 [rows, inputs]."""
        feeds: dict[str, NDArray[Any]] = {"input_ids": batch.token_ids}
        if stage.reads is not None and batch.hidden is not None:
            feeds[stage.reads] = batch.hidden
        names = [stage.gives, *(set(stage.taps.values()) - feeds.keys())]
        values = feeds | dict(zip(names, stage.run(feeds, names), strict=True))
        batch.hidden = values[stage.gives].copy()  # else all memory of the run stays in use
        return {
            key: values[name].reshape(-1, values[name].shape[-1])
            for key, name in stage.taps.items()
        }


def encode(run: Run, sequences: list[list[int]], threads: int) -> Array:
    """Vectors of token sequences, float32 [sequences, dimension], in order."""
    batches = _batches(sequences)
    with ThreadPoolExecutor(threads) as pool:
        results = list(
            pool.map(
                lambda batch: run({"input_ids": batch.token_ids(sequences)}, ["embedding"])[0],
                batches,
            )
        )
    positions = list(chain.from_iterable(batch.positions for batch in batches))
    return np.concatenate(results)[np.argsort(positions)]


def _batches(sequences: Sequence[Sequence[int]]) -> list[Batch]:
    return equal_length_batches([len(sequence) for sequence in sequences], _TOKENS_PER_BATCH)
