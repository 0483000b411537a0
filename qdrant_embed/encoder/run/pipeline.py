"""Texts to what a model makes of them: tokens, batches, threads, and the caller's order again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Generic, TypeVar

import numpy as np

from qdrant_embed.encoder.interfaces import Vector
from qdrant_embed.encoder.model import Model
from qdrant_embed.encoder.run.batching import (
    TOKENS_PER_BATCH,
    Batch,
    equal_length_batches,
    windows,
)
from qdrant_embed.encoder.run.tally import Tally

logger = logging.getLogger(__name__)

T = TypeVar("T")


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
        model: run from any number of threads.
        finish: turns the vectors of a batch, float32 [texts, dimension], into a result for each;
            called by the thread that computed them.
        tokens_per_batch: at most, unless a single text has more.
    """

    def __init__(
        self,
        model: Model,
        finish: Callable[[Vector], Iterable[T]],
        tokens_per_batch: int = TOKENS_PER_BATCH,
    ) -> None:
        self._model, self._finish, self._tokens_per_batch = model, finish, tokens_per_batch
        self._warned_of_truncation = False

    def run(
        self, texts: Iterable[str], window: int, workers: int, tally: Tally | None = None
    ) -> Iterator[T]:
        """A result for each text, in order.

        Args:
            texts: read once, at most two windows ahead.
            window: texts tokenised and sorted by length together.
            workers: threads that compute.
            tally: counts what is read, and may call it off; without it, a warning is logged once
                of texts that are cut.
        """
        parts = map(partial(self._tokenized, tally=tally), windows(texts, window))
        return self.run_tokens(parts, window, workers, tally)

    def run_singly(
        self, texts: Iterable[str], workers: int, tally: Tally | None = None
    ) -> Iterator[T]:
        """The same, each text by itself: of a single one, a query, the least is in the way."""
        for text in texts:
            yield from self._single(self._tokenized([text], tally), workers)

    def run_tokens(
        self,
        parts: Iterator[list[list[int]]],
        window: int,
        workers: int,
        tally: Tally | None = None,
    ) -> Iterator[T]:
        """The same for token ids, of `window` texts at a time; `tally` may call it off."""
        first = next(parts, None)
        if first is None:
            return
        if len(first) == 1 < window and workers > 1:  # a single text: a query, most likely
            yield from self._single(first, workers)
            return
        pool = ThreadPoolExecutor(workers, thread_name_prefix="qdrant-embed")
        running: _Running[T] | None = None
        try:
            for part in chain([first], parts):
                following = self._start(part, pool, tally)
                if running is not None:
                    yield from running.wait()
                running = following
            if running is not None:
                yield from running.wait()
        finally:
            pool.shutdown(cancel_futures=True)

    def _tokenized(self, texts: Sequence[str], tally: Tally | None) -> list[list[int]]:
        tokens = self._model.runtime.tokenizer.tokenize(texts)
        if tally is None:
            self._warn_of_truncation(tokens.truncated)
        else:
            tally.note(tokens.ids, len(tokens.truncated))
        return tokens.ids

    def _single(self, ids: list[list[int]], workers: int) -> Iterable[T]:
        runtime = self._model.runtime
        runner = runtime.queries if workers > 1 else runtime.runner
        return self._finish(runner.run(np.array(ids, np.int64)))

    def _start(
        self, ids: list[list[int]], pool: ThreadPoolExecutor, tally: Tally | None
    ) -> _Running[T]:
        batches = equal_length_batches([len(text) for text in ids], self._tokens_per_batch)
        running = _Running[T]()
        if len(batches) == 1:  # a thread would only add its start
            self._run(batches[0], ids, running.results, tally)
        else:
            running.batches.extend(
                pool.submit(self._run, batch, ids, running.results, tally) for batch in batches
            )
        return running

    def _run(
        self, batch: Batch, ids: list[list[int]], results: dict[int, T], tally: Tally | None
    ) -> None:
        if tally is not None:
            tally.check()
        vectors = self._model.runtime.runner.run(batch.token_ids(ids))
        results.update(zip(batch.positions, self._finish(vectors), strict=True))

    def _warn_of_truncation(self, truncated: Sequence[int]) -> None:
        if truncated and not self._warned_of_truncation:
            self._warned_of_truncation = True
            logger.warning(
                "texts longer than %d tokens are cut there (%s): what follows is not searchable; "
                "overflow='chunk' and 'mean' read all of a text (said once)",
                self._model.facts.spec.max_tokens,
                self._model.name,
            )
