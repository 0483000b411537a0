"""Runs a model over texts: tokens, batches, threads, and results in the caller's order again."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.encoder.run.backend import Inputs
from qdrant_embed.encoder.run.batching import (
    TOKENS_PER_BATCH,
    Batch,
    windows,
)
from qdrant_embed.encoder.run.cores import Workers
from qdrant_embed.encoder.run.job import EncodeJob
from qdrant_embed.errors import ModelError

if TYPE_CHECKING:
    from concurrent.futures import Future

    from qdrant_embed.encoder.run.loaded_model import LoadedModel

logger = logging.getLogger(__name__)

T = TypeVar("T")


def _single_texts(batch: Batch, window: Sequence[Any]) -> Inputs:
    return Inputs(batch.token_ids(window), lengths=batch.lengths(window))


@dataclass(frozen=True)
class _Running(Generic[T]):
    """A window of texts that is being computed; `results` fills as its batches end."""

    results: dict[int, T] = field(default_factory=dict)
    batches: list[Future[None]] = field(default_factory=list)

    def wait(self) -> Iterator[T]:
        for batch in self.batches:
            batch.result()
        return (self.results[position] for position in range(len(self.results)))


class Pipeline(Generic[T]):
    """Runs a model over texts, one window while the next is read and tokenised.

    Args:
        load: returns the model, loading it on the first call; any number of threads call it.
        finish: turns the outputs of a batch, float32 [texts, ...], into one result for each text;
            called by the thread that computed them.
        tokens_per_batch: at most, unless a single text has more.
        inputs: returns what the model reads for a batch of a window; by default, the window has
            the token ids of each text.
        bulk: run texts on the model's bulk backend, if it has one: documents, of which each has
            the same vector whether it comes alone or with others.
    """

    def __init__(
        self,
        load: Callable[[], LoadedModel],
        finish: Callable[[NDArray[np.float32]], Iterable[T]],
        tokens_per_batch: int = TOKENS_PER_BATCH,
        inputs: Callable[[Batch, Sequence[Any]], Inputs] = _single_texts,
        *,
        bulk: bool = False,
    ) -> None:
        self._load, self._finish, self._tokens_per_batch = load, finish, tokens_per_batch
        self._inputs, self._bulk = inputs, bulk
        self._warned_of_truncation = self._warned_of_unknown = False

    def run(
        self,
        texts: Iterable[str],
        window: int,
        workers: int,
        job: EncodeJob | None = None,
        prefix: str = "",
    ) -> Iterator[T]:
        """Yield a result for each text, in order.

        Args:
            texts: read once, at most two windows ahead.
            window: texts that are tokenised and sorted by length together.
            workers: threads that compute.
            job: counts what is read, and may be cancelled; without it, a warning is logged once
                when texts are cut, and one when they have no known word.
            prefix: what every text begins with.
        """
        parts = self._token_ids(windows(texts, window), job, prefix)
        return self.run_tokens(parts, window, workers, job)

    def run_singly(
        self, texts: Iterable[str], workers: int, job: EncodeJob | None = None, prefix: str = ""
    ) -> Iterator[T]:
        """Do the same text by text: nothing delays a single one, which is a query."""
        for position, text in enumerate(texts):
            yield from self._single(self.tokenized([text], job, prefix, position), workers)

    def run_tokens(
        self,
        parts: Iterator[list[Any]],
        window: int,
        workers: int,
        job: EncodeJob | None = None,
    ) -> Iterator[T]:
        """Do the same for the token ids of `window` texts at a time, or what `inputs` takes."""
        first = next(parts, None)
        if first is None:
            return
        if len(first) == 1 < window and workers > 1:  # a single text: a query, most likely
            yield from self._single(first, workers)
            return
        running: _Running[T] | None = None
        process = os.getpid()

        def waited_for(running: _Running[T]) -> Iterator[T]:
            if process != os.getpid():
                raise ModelError(
                    "vectors that a process began to compute cannot be read on in its child: call "
                    "the encoder again after the fork"
                )
            return running.wait()

        with Workers(workers) as pool:
            for part in chain([first], parts):
                following = self._start(part, pool, job)
                if running is not None:
                    yield from waited_for(running)
                running = following
            if running is not None:
                yield from waited_for(running)

    def _token_ids(
        self, windows: Iterable[Sequence[str]], job: EncodeJob | None, prefix: str
    ) -> Iterator[list[list[int]]]:
        """Yield the token ids of each window's texts."""
        first = 0
        for texts in windows:
            yield self.tokenized(texts, job, prefix, first)
            first += len(texts)

    def tokenized(
        self, texts: Sequence[str], job: EncodeJob | None, prefix: str, first: int
    ) -> list[list[int]]:
        """Return the token ids of texts, of which the first has the position `first`."""
        model = self._load()
        tokens = model.tokenizer.tokenize(texts, first)
        unknown = model.tokenizer.unknown_texts(tokens.ids, prefix)
        if job is None:
            if tokens.truncated:
                self._warn_of_truncation(model)
            if unknown:
                self.warn_of_unknown(model)
        else:
            job.stats.add(tokens.ids, len(tokens.truncated), unknown)
        return tokens.ids

    def _single(self, ids: list[Any], workers: int) -> Iterable[T]:
        (batch,) = self._load().batches([len(ids[0])], self._tokens_per_batch, bulk=self._bulk)
        return self.computed(self._inputs(batch, ids), alone=workers > 1)

    def _start(self, ids: list[Any], workers: Workers, job: EncodeJob | None) -> _Running[T]:
        batches = self._batches(ids)
        running = _Running[T]()
        if len(batches) == 1:  # starting a thread would only take longer
            self._run(batches[0], ids, running.results, job)
        else:
            running.batches.extend(
                workers.submit(self._run, batch, ids, running.results, job) for batch in batches
            )
        return running

    def _batches(self, ids: list[Any]) -> list[Batch]:
        lengths = [len(text) for text in ids]
        return self._load().batches(lengths, self._tokens_per_batch, bulk=self._bulk)

    def _run(
        self, batch: Batch, ids: list[Any], results: dict[int, T], job: EncodeJob | None
    ) -> None:
        if job is not None:
            job.cancel_token.check()
        found = self.computed(self._inputs(batch, ids))
        results.update(zip(batch.positions, found, strict=True))

    def computed(self, inputs: Inputs, *, alone: bool = False) -> Iterable[T]:
        """Run the model on texts of one length; return one result for each.

        Args:
            inputs: the texts.
            alone: a single text is waited for, and the other cores are idle.
        """
        return self._finish(self._load().run(inputs, alone=alone))

    def warn_of_unknown(self, model: LoadedModel) -> None:
        """Log a warning, once, that there are texts of which the tokenizer knows no word."""
        if not self._warned_of_unknown:
            self._warned_of_unknown = True
            logger.warning(
                "the tokenizer of %s knows no word of some texts, such as words of more than 100 "
                "characters or a script that it lacks: their vectors say nothing of them; a "
                "multilingual model knows more scripts (said once)",
                model.spec.name,
            )

    def _warn_of_truncation(self, model: LoadedModel) -> None:
        if not self._warned_of_truncation:
            self._warned_of_truncation = True
            logger.warning(
                "texts longer than %d tokens are cut there (%s): what follows is not searchable; "
                "overflow='chunk' and 'mean' encode all of a text (logged once)",
                model.spec.max_tokens,
                model.spec.name,
            )
