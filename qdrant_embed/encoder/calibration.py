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

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.encoder.batching import Batch, equal_length_batches
from qdrant_embed.encoder.quantize import Activations, Array
from qdrant_embed.encoder.spec import ModelSpec
from qdrant_embed.encoder.tokenizer import Tokenizer

_HELD_BACK = 5  # every fifth text is kept to check with
_LONGEST = 192  # tokens of a passage; the random sequences are longer
_RANDOM_TEXTS, _SAMPLED_ROWS, _SEED = 100, 2500, 0
_TOKENS_PER_BATCH = 256  # each batch gives the inputs of all groups at once

# token ids [batch, tokens] to outputs by name
Run = Callable[[NDArray[np.int64], Sequence[str]], Sequence[Array]]


@dataclass(frozen=True)
class CalibrationTokens:
    """Token ids: of texts, of random sequences, and of texts kept back to check with."""

    texts: list[list[int]]
    random: list[list[int]]
    held_back: list[list[int]]


@dataclass
class _Seen:
    low: Array
    high: Array
    rows: dict[int, NDArray[np.float16]]


@cache
def calibration_texts() -> tuple[str, ...]:
    """The package's own passages: many kinds of text, in 23 languages and 11 scripts."""
    content = files("qdrant_embed.encoder").joinpath("calibration.jsonl").read_text("utf-8")
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


def observe(
    run: Run, inputs: Mapping[str, str], tokens: CalibrationTokens, threads: int
) -> dict[str, Activations]:
    """What was seen at the input of each group.

    Ranges are those of texts and random sequences, rows are of texts alone.

    Args:
        run: runs the float32 graph with its taps.
        inputs: name of the tapped output by group.
        tokens: what to run on.
        threads: batches at once.
    """
    seen: dict[str, _Seen] = {}
    lock = threading.Lock()
    total = sum(len(text) for text in tokens.texts)

    def look(sequences: list[list[int]], batch: Batch, number: int, share: float) -> None:
        outputs = run(batch.token_ids(sequences), list(inputs.values()))
        for key, output in zip(inputs, outputs, strict=True):
            rows = output.reshape(-1, output.shape[-1])
            chosen = np.random.default_rng((_SEED, number)).random(len(rows)) < share
            low, high, sample = rows.min(axis=0), rows.max(axis=0), rows[chosen]
            with lock:
                known = seen.setdefault(key, _Seen(low, high, {}))
                known.low = np.minimum(known.low, low)
                known.high = np.maximum(known.high, high)
                known.rows[number] = sample.astype(np.float16)  # half the memory, enough digits

    with ThreadPoolExecutor(threads) as pool:
        futures: list[Future[None]] = []
        for sequences, share in (
            (tokens.texts, min(1.0, _SAMPLED_ROWS / total)),
            (tokens.random, 0.0),
        ):
            batches = equal_length_batches(
                [len(sequence) for sequence in sequences], _TOKENS_PER_BATCH
            )
            futures += [
                pool.submit(look, sequences, batch, len(futures) + i, share)
                for i, batch in enumerate(batches)
            ]
        for future in futures:
            future.result()
    return {
        # in the order of the batches, whichever ended first
        key: Activations(
            known.low, known.high, np.concatenate([known.rows[n] for n in sorted(known.rows)])
        )
        for key, known in seen.items()
    }


def encode(run: Run, sequences: list[list[int]], threads: int) -> Array:
    """Vectors of token sequences, float32 [sequences, dimension], in order."""
    batches = equal_length_batches([len(sequence) for sequence in sequences])
    with ThreadPoolExecutor(threads) as pool:
        results = list(
            pool.map(lambda batch: run(batch.token_ids(sequences), ["embedding"])[0], batches)
        )
    positions = list(chain.from_iterable(batch.positions for batch in batches))
    return np.concatenate(results)[np.argsort(positions)]
