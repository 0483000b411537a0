"""Runs a model over texts: tokens, batches, threads, and results in the caller's order again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.encoder.run.backend import Inputs
from qdrant_embed.encoder.run.batching import (
    TOKENS_PER_BATCH,
    Batch,
    equal_length_batches,
    windows,
)
from qdrant_embed.encoder.run.job import EncodeJob

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from qdrant_embed.encoder.run.loaded_model import LoadedModel

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
        load: returns the model, loading it on the first call; any number of threads call it.
        finish: turns the outputs of a batch, float32 [texts, ...], into one result for each text;
            called by the thread that computed them.
        tokens_per_batch: at most, unless a single text has more.
    """

    def __init__(
        self,
        load: Callable[[], LoadedModel],
        finish: Callable[[NDArray[np.float32]], Iterable[T]],
        tokens_per_batch: int = TOKENS_PER_BATCH,
    ) -> None:
        self._load, self._finish, self._tokens_per_batch = load, finish, tokens_per_batch
        self._warned_of_truncation = False

    def run(
        self, texts: Iterable[str], window: int, workers: int, job: EncodeJob | None = None
    ) -> Iterator[T]:
        """Yield a result for each text, in order.

        Args:
            texts: read once, at most two windows ahead.
            window: texts that are tokenised and sorted by length together.
            workers: threads that compute.
            job: counts what is read, and may be cancelled; without it, a warning is logged once
                when texts are cut.
        """
        parts = map(partial(self._tokenized, job=job), windows(texts, window))
        return self.run_tokens(parts, window, workers, job)

    def run_singly(
        self, texts: Iterable[str], workers: int, job: EncodeJob | None = None
    ) -> Iterator[T]:
        """Do the same text by text: nothing delays a single one, which is a query."""
        for text in texts:
            yield from self._single(self._tokenized([text], job), workers)

    def run_tokens(
        self,
        parts: Iterator[list[list[int]]],
        window: int,
        workers: int,
        job: EncodeJob | None = None,
    ) -> Iterator[T]:
        """Do the same for the token ids of `window` texts at a time."""
        first = next(parts, None)
        if first is None:
            return
        if len(first) == 1 < window and workers > 1:  # a single text: a query, most likely
            yield from self._single(first, workers)
            return
        from concurrent.futures import ThreadPoolExecutor  # which a single text need not wait for

        pool = ThreadPoolExecutor(workers, thread_name_prefix="qdrant-embed")
        running: _Running[T] | None = None
        try:
            for part in chain([first], parts):
                following = self._start(part, pool, job)
                if running is not None:
                    yield from running.wait()
                running = following
            if running is not None:
                yield from running.wait()
        finally:
            pool.shutdown(cancel_futures=True)

    def _tokenized(self, texts: Sequence[str], job: EncodeJob | None) -> list[list[int]]:
        model = self._load()
        tokens = model.tokenizer.tokenize(texts)
        if job is None:
            self._warn_of_truncation(model, tokens.truncated)
        else:
            job.stats.add(tokens.ids, len(tokens.truncated))
        return tokens.ids

    def _single(self, ids: list[list[int]], workers: int) -> Iterable[T]:
        inputs = Inputs(np.array(ids, np.int64))
        return self._finish(self._load().run(inputs, alone=workers > 1))

    def _start(
        self, ids: list[list[int]], pool: ThreadPoolExecutor, job: EncodeJob | None
    ) -> _Running[T]:
        batches = equal_length_batches([len(text) for text in ids], self._tokens_per_batch)
        running = _Running[T]()
        if len(batches) == 1:  # starting a thread would only take longer
            self._run(batches[0], ids, running.results, job)
        else:
            running.batches.extend(
                pool.submit(self._run, batch, ids, running.results, job) for batch in batches
            )
        return running

    def _run(
        self, batch: Batch, ids: list[list[int]], results: dict[int, T], job: EncodeJob | None
    ) -> None:
        if job is not None:
            job.cancel_token.check()
        outputs = self._load().run(Inputs(batch.token_ids(ids)))
        results.update(zip(batch.positions, self._finish(outputs), strict=True))

    def _warn_of_truncation(self, model: LoadedModel, truncated: Sequence[int]) -> None:
        if truncated and not self._warned_of_truncation:
            self._warned_of_truncation = True
            logger.warning(
                "texts longer than %d tokens are cut there (%s): what follows is not searchable; "
                "overflow='chunk' and 'mean' encode all of a text (logged once)",
                model.spec.max_tokens,
                model.spec.name,
            )
