"""Calibration: run a float32 model on passages and record the activations of its linear layers."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.encoder.compile.quantize import Activations, Array, LinearGroup
from qdrant_embed.encoder.facts.spec import ModelSpec, calibrated_prompts
from qdrant_embed.encoder.run.batching import Batch, equal_length_batches, runs
from qdrant_embed.encoder.run.cores import Workers
from qdrant_embed.encoder.run.tokenizer import LateTokens, Tokenizer

_HELD_OUT = 5  # every fifth text is kept to check with
# tokens beside a prefix: of a document, of two of three documents to calibrate with, of a query.
# With twice or three times as many, int8 is not more exact (measured)
_LONGEST, _SHORT, _QUERY = 96, 16, 32
_LONG = 512  # tokens of a long text
_LONG_CHARACTERS = 2500  # that are sure to make as many
_LONG_TEXTS = 1  # of each group, to calibrate with, and as many to check with
_RANDOM_TEXTS, _SAMPLED_ROWS, _SEED = 40, 2500, 0
_TOKENS_PER_BATCH = 256  # each batch gives the inputs of all groups at once

# computes outputs of a graph, by name, from its inputs
Run: TypeAlias = Callable[[Mapping[str, NDArray[Any]], Sequence[str]], Sequence[Array]]


@dataclass(frozen=True)
class CalibrationTokens:
    """Token ids of texts, of random sequences, and of held-out texts, to check with.

    `groups` are those of the held-out texts: a group of languages, ``code`` or ``long``. In a
    model that reads pairs of texts, each sequence is a pair, and `firsts` says how many tokens of
    it belong to the first text, if the model reads that: of texts, random and held-out ones.
    """

    texts: list[list[int]]
    random: list[list[int]]
    held_out: list[list[int]]
    groups: list[str]
    firsts: tuple[list[int], list[int], list[int]] | None = None


@dataclass(frozen=True)
class Passage:
    """A text to calibrate or to check with.

    Attributes:
        text: the text.
        group: ``english``, ``european``, ``asian`` (all others), ``code`` (also tables and logs),
            or ``long``.
    """

    text: str
    group: str


@dataclass(frozen=True)
class Stage:
    """One layer of a model, as a graph that is run alone.

    Attributes:
        run: runs the graph.
        reads: the input for the hidden states; ``None`` for the first layer, which embeds.
        gives: the output with the next hidden states, or of the last layer with the vectors.
        taps: for each group of linear layers, the input or output of the graph that it reads.
    """

    run: Run
    reads: str | None
    gives: str
    taps: Mapping[LinearGroup, str]


@dataclass
class _Batch:
    """Sequences of one length, and their hidden states after the stages so far."""

    token_ids: NDArray[np.int64]
    hidden: Array | None = None
    token_types: NDArray[np.int64] | None = None


@dataclass
class _Seen:
    """The range of each channel, and sampled rows by number of the batch."""

    low: Array
    high: Array
    rows: dict[int, Array]


_EUROPEAN = frozenset({"de", "el", "es", "fr", "it", "nl", "pl", "pt", "ru", "uk"})
_CODE = frozenset({"code", "log", "numeric", "table"})


@cache
def calibration_passages() -> tuple[Passage, ...]:
    """Read the package's own passages: many kinds of text, in 23 languages and 11 scripts."""
    content = files("qdrant_embed.encoder.compile").joinpath("calibration.jsonl").read_text("utf-8")
    return tuple(
        Passage(line["text"], _group(line["language"], line["kind"]))
        for line in map(json.loads, content.splitlines())
    )


def _group(language: str, kind: str) -> str:
    if kind in _CODE:
        return "code"
    if language == "en":
        return "english"
    return "european" if language in _EUROPEAN else "asian"


def _long(passages: Sequence[Passage], most: int) -> list[Passage]:
    """Make long texts, `most` of each group, of passages one after the other."""
    found: list[Passage] = []
    for group in sorted({passage.group for passage in passages}):
        texts = [passage.text for passage in passages if passage.group == group]
        made = list(runs(texts, len, _LONG_CHARACTERS))[:most]
        found += [Passage("\n\n".join(run), "long") for run in made]
    return found


def calibration_tokens(tokenizer: Tokenizer, spec: ModelSpec) -> CalibrationTokens:
    """Tokenise the passages, three of four as documents, the fourth as a query.

    Two of three documents to calibrate with are cut short, none of those to check with; a long text
    of each group is whole. Random
    sequences reach channels that no text of these languages does. They have the
    tokenizer's own special tokens before and after ordinary ones.
    """
    passages = calibration_passages()
    parts: tuple[list[Passage], list[Passage]] = ([], [])
    for i, passage in enumerate(passages):
        parts[not (i + 1) % _HELD_OUT].append(passage)
    before, after = tokenizer.special_tokens_around(passages[0].text)
    special = len(before) + len(after)
    forms = calibrated_prompts(spec)
    late = _late_tokens(tokenizer, spec)
    added = {
        prefix: len(tokenizer.tokenize([prefix]).ids[0]) if prefix else 0
        for prefix in (spec.document_prefix, *forms)
    }

    def tokenized(part: list[Passage], short: int) -> tuple[list[list[int]], list[str]]:
        part = part + _long(part, _LONG_TEXTS)
        prefixes = [
            forms[i // 4 % len(forms)] if i % 4 == 3 else spec.document_prefix
            for i in range(len(part))
        ]
        texts = [prefix + passage.text for prefix, passage in zip(prefixes, part, strict=True)]
        found = tokenizer.tokenize(texts).ids
        if late is not None:
            found = [_marked(late[i % 4 == 3], ids) for i, ids in enumerate(found)]
        # without special tokens, nothing is left of a text whose script the tokenizer drops
        limits = [
            _LONG
            if passage.group == "long"
            else (_LONGEST, short, short, _QUERY)[i % 4] + added[prefix]
            for i, (passage, prefix) in enumerate(zip(part, prefixes, strict=True))
        ]
        kept = [
            (_cut(ids, len(after), limit), passage.group)
            for ids, passage, limit in zip(found, part, limits, strict=True)
            if ids
        ]
        return [ids for ids, _ in kept], [group for _, group in kept]

    texts, _ = tokenized(parts[0], _SHORT)
    held_out, groups = tokenized(parts[1], _LONGEST)
    random = np.random.default_rng(_SEED)
    ordinary = np.array(tokenizer.ordinary_ids())
    longest = min(250, spec.max_tokens - special)
    lengths = np.clip(random.lognormal(3.6, 0.7, _RANDOM_TEXTS), 6, longest)
    return CalibrationTokens(
        texts=texts,
        random=[
            [*before, *random.choice(ordinary, int(length)).tolist(), *after] for length in lengths
        ],
        held_out=held_out,
        groups=groups,
    )


def _late_tokens(tokenizer: Tokenizer, spec: ModelSpec) -> tuple[LateTokens, LateTokens] | None:
    """Return how documents and queries of a late-interaction model are read."""
    if spec.late is None:
        return None
    return LateTokens(tokenizer, spec, query=False), LateTokens(tokenizer, spec, query=True)


def _marked(late: LateTokens, ids: Sequence[int]) -> list[int]:
    """Return token ids with markers and mask tokens, whose activations may be larger."""
    marked = np.array([late.of(ids)], np.int64)
    found: list[int] = late.inputs(marked).ids[0].tolist()
    return found


def _cut(ids: list[int], after: int, longest: int) -> list[int]:
    """Cut a text to the longest length, but keep the special tokens `after` it."""
    if len(ids) <= longest:
        return ids
    return [*ids[: longest - after], *ids[len(ids) - after :]]


class Calibration:
    """Runs the calibration tokens through a float32 model, layer after layer.

    Args:
        tokens: what to run on.
        threads: batches that are run at once.
    """

    def __init__(self, tokens: CalibrationTokens, threads: int) -> None:
        self._threads = threads
        firsts = tokens.firsts or (None, None, None)
        self._texts, self._random, self._held_out = (
            _with_types(sequences, ends)
            for sequences, ends in zip(
                (tokens.texts, tokens.random, tokens.held_out), firsts, strict=True
            )
        )
        self._order = np.argsort(
            [position for batch in _batches(tokens.held_out) for position in batch.positions]
        )

    def step(self, stage: Stage) -> dict[LinearGroup, Activations]:
        """Run all sequences through one stage; return what the groups of linear layers read.

        Ranges are those of texts and random sequences, rows are of texts alone.
        """
        seen: dict[LinearGroup, _Seen] = {}
        lock = threading.Lock()
        sizes = [batch.token_ids.size for batch in self._texts]
        share = min(1.0, _SAMPLED_ROWS / sum(sizes))

        def record(number: int, batch: _Batch, share: float) -> None:
            for key, rows in self._advance(batch, stage).items():
                if not len(rows):  # no token chose this expert
                    continue
                # of an expert's few rows as many as of all tokens
                part = 1 if key.expert is None else len(rows) / batch.token_ids.size
                chosen = np.random.default_rng((_SEED, number)).random(len(rows)) * part < share
                low, high, sample = rows.min(axis=0), rows.max(axis=0), rows[chosen]
                with lock:
                    known = seen.setdefault(key, _Seen(low, high, {}))
                    known.low = np.minimum(known.low, low)
                    known.high = np.maximum(known.high, high)
                    known.rows[number] = sample

        work = [(batch, share) for batch in self._texts] + [(batch, 0.0) for batch in self._random]
        with Workers(self._threads) as pool:
            futures: list[Future[None]] = [
                pool.submit(record, number, *item) for number, item in enumerate(work)
            ]
            untapped = replace(stage, taps={})
            futures += [pool.submit(self._pass, batch, untapped) for batch in self._held_out]
            for future in futures:
                future.result()
        return {
            # in the order of the batches, whichever finished first
            key: Activations(
                known.low, known.high, np.concatenate([known.rows[n] for n in sorted(known.rows)])
            )
            for key, known in seen.items()
        }

    def states(self) -> list[Array | None]:
        """Return the hidden states after the stages so far, to be restored."""
        return [batch.hidden for batch in self._batches()]

    def restore(self, states: Sequence[Array]) -> None:
        """Go on from the `states` of another run on the same tokens.

        Raises:
            ValueError: they are those of other tokens.
        """
        for batch, state in zip(self._batches(), states, strict=True):
            if len(state) != len(batch.token_ids):
                raise ValueError("the states are those of other tokens")
            batch.hidden = state

    def _batches(self) -> list[_Batch]:
        return self._texts + self._random + self._held_out

    def outputs(self, stage: Stage) -> list[Array]:
        """Return what a stage gives for each batch of the held-out texts, with nothing recorded."""

        def output(batch: _Batch) -> Array:
            return stage.run(_feeds(batch, stage), [stage.gives])[0]

        with Workers(self._threads) as pool:
            futures = [pool.submit(output, batch) for batch in self._held_out]
            return [future.result() for future in futures]

    def difference(self, stage: Stage, exact: Sequence[Array]) -> float:
        """Measure how far a changed stage's outputs are from the `exact` ones.

        It is a mean over all tokens: the square of the change, relative to that of the output. Each
        token counts the same, because a few have outputs that are far larger than all others.
        """
        total, tokens = 0.0, 0
        for found, wanted in zip(self.outputs(stage), exact, strict=True):
            shares = ((found - wanted) ** 2).sum(axis=-1) / ((wanted**2).sum(axis=-1) + 1e-12)
            total += float(shares.sum())
            tokens += shares.size
        return total / tokens

    def vectors(self) -> Array:
        """Return the vectors of the held-out texts, in order, after the last stage.

        They are [texts, dimension], or [texts, tokens, dimension] as `encode` returns them.
        """
        found = [batch.hidden for batch in self._held_out if batch.hidden is not None]
        return _together(found)[self._order]

    def _pass(self, batch: _Batch, stage: Stage) -> None:
        self._advance(batch, stage)

    def _advance(self, batch: _Batch, stage: Stage) -> dict[LinearGroup, Array]:
        """Run one batch through a stage; return what each group read, float32 [rows, inputs]."""
        feeds = _feeds(batch, stage)
        names = [stage.gives, *(set(stage.taps.values()) - feeds.keys())]
        values = feeds | dict(zip(names, stage.run(feeds, names), strict=True))
        batch.hidden = values[stage.gives]
        return {
            key: values[name].reshape(-1, values[name].shape[-1])
            for key, name in stage.taps.items()
        }


def _feeds(batch: _Batch, stage: Stage) -> dict[str, NDArray[Any]]:
    feeds: dict[str, NDArray[Any]] = {"input_ids": batch.token_ids}
    if batch.token_types is not None:
        feeds["token_type_ids"] = batch.token_types
    if stage.reads is not None and batch.hidden is not None:
        feeds[stage.reads] = batch.hidden
    return feeds


def _with_types(sequences: list[list[int]], firsts: list[int] | None) -> list[_Batch]:
    return [
        _Batch(
            batch.token_ids(sequences),
            token_types=None if firsts is None else batch.token_types(firsts),
        )
        for batch in _batches(sequences)
    ]


def encode(
    run: Run, sequences: list[list[int]], threads: int, firsts: list[int] | None = None
) -> Array:
    """Run a whole model on token sequences; return vectors [sequences, dimension], in order.

    A late-interaction model's are [sequences, tokens, dimension], filled up with zeros. `firsts`
    are those of the sequences; see `CalibrationTokens`.
    """
    batches = _batches(sequences)

    def vectors(batch: Batch) -> Array:
        feeds = {"input_ids": batch.token_ids(sequences)}
        if firsts is not None:
            feeds["token_type_ids"] = batch.token_types(firsts)
        return run(feeds, ["embedding"])[0]

    with Workers(threads) as pool:
        futures = [pool.submit(vectors, batch) for batch in batches]
        results = [future.result() for future in futures]
    positions = list(chain.from_iterable(batch.positions for batch in batches))
    return _together(results)[np.argsort(positions)]


def _together(outputs: Sequence[Array]) -> Array:
    """Join the outputs of batches, those of tokens filled up with zeros to one number of tokens."""
    if outputs[0].ndim == 3:
        longest = max(output.shape[1] for output in outputs)
        outputs = [
            np.pad(output, ((0, 0), (0, longest - output.shape[1]), (0, 0))) for output in outputs
        ]
    return np.concatenate(outputs)


def _batches(sequences: Sequence[Sequence[int]]) -> list[Batch]:
    return equal_length_batches([len(sequence) for sequence in sequences], _TOKENS_PER_BATCH)
