"""Two texts to a score: cross-encoders, which read a query and a document together."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.encoder.facts.catalog import (
    DEFAULT_RERANKER,
    checked_name,
    supported_rerankers,
)
from qdrant_embed.encoder.facts.precision import ModelReport, Precision
from qdrant_embed.encoder.model import Model, ModelOptions
from qdrant_embed.encoder.run.backend import Inputs
from qdrant_embed.encoder.run.batching import Batch, windows
from qdrant_embed.encoder.run.checked_texts import checked_texts
from qdrant_embed.encoder.run.cores import worker_count, workers_of_call
from qdrant_embed.encoder.run.pipeline import Pipeline
from qdrant_embed.errors import (
    InputError,
    check_str,
    check_unicode,
    check_whole,
)

if TYPE_CHECKING:
    from qdrant_embed.encoder.run.session import Provider
    from qdrant_embed.encoder.run.tokenizer import PairTokens

logger = logging.getLogger(__name__)

Activation: TypeAlias = Literal["model", "sigmoid"]


@dataclass(frozen=True)
class RankedDocument:
    """A document as `TextCrossEncoder.rank` returns it.

    Attributes:
        index: its position among the documents.
        score: its score; higher is better.
        document: its text.
    """

    index: int
    score: float
    document: str


class TextCrossEncoder:
    """Scores documents against a query with an ONNX encoder of our own, on every usable core.

    A cross-encoder reads the two texts together. That is more exact than to compare their vectors,
    and slower: it is for the best hits of a search. An object is a `Reranker`: pass it, or the
    model's name, as ``reranker=`` of `query`. A score depends on its two texts alone. One object
    can be used by any number of threads concurrently, and can be pickled.

    Models of architectures ``bert``, ``roberta``, ``xlm-roberta``, ``distilbert``, ``mpnet``,
    ``modernbert`` and ``gte`` (also called ``new``) with transformers' head for classification are
    compiled, models with the modules that sentence-transformers chains after the pooling, and
    Qwen3 rerankers, which answer "yes" or "no". Names are looked up as `TextEmbedding` does it.

    Args:
        model_name: a known model (see `list_supported_models`), a folder with a model's files, or
            ``owner/name`` on the hub.
        cache_dir: keeps downloads and compiled models; see `TextEmbedding`.
        threads: pairs computed concurrently; by default the cores this process may use.
        providers: onnxruntime's execution providers; a missing one is an error.
        cuda: run on a GPU; short for ``providers=["CUDAExecutionProvider"]``.
        device_ids: with `cuda`, the one device to use; 0 by default.
        max_tokens: tokens read from a pair, special ones included; by default the model's limit.
            Of longer pairs, the end of the longer text is cut, then the ends of both.
        activation: what is applied to the raw score: ``"sigmoid"``, which gives numbers from 0 to
            1; ``None`` for nothing; ``"model"``, the default, for what the model's files say, as
            sentence-transformers does. The order of documents is always the same.
        lazy_load: find and load the model when it is first used instead of now.
        revision: branch, tag or commit on the hub.
        local_files_only: never use the network.
        precision: ``int8`` computes linear layers in 8 bits, if pairs are then ranked as in float32
            (see `report`); ``fp32`` is exact. For ``bf16`` and ``fp16``, and what a GPU uses, see
            `TextEmbedding`.

    Raises:
        InputError: options contradict each other or cannot be met.
        UnknownModelError: there is no model of that name, or it is no cross-encoder.
        ModelDownloadError: the model's files could not be downloaded.
        ModelFileError: a file is missing, damaged, or not that of a cross-encoder that can be run.
        MissingDependencyError: the extra ``fastembed`` (or ``gpu``) is not installed.
    """

    def __init__(
        self,
        model_name: str | os.PathLike[str] = DEFAULT_RERANKER,
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        threads: int | None = None,
        providers: Sequence[Provider] | None = None,
        cuda: bool = False,
        device_ids: Sequence[int] | None = None,
        max_tokens: int | None = None,
        activation: Activation | None = "model",
        lazy_load: bool = False,
        revision: str | None = None,
        local_files_only: bool = False,
        precision: Precision = "int8",
    ) -> None:
        if activation not in ("model", "sigmoid", None):
            raise InputError(
                f"activation must be 'model', 'sigmoid' or None, not {activation!r:.80}"
            )
        self._model = Model(
            ModelOptions(
                model_name=checked_name(model_name, "score"),
                cache_dir=cache_dir,
                providers=providers,
                cuda=cuda,
                device_ids=device_ids,
                max_tokens=max_tokens,
                revision=revision,
                local_files_only=local_files_only,
                precision=precision,
                task="score",
            )
        )
        self._threads = worker_count("threads", threads)
        self._activation = activation
        self._warned = False
        self._pipeline = self._new_pipeline()
        if not lazy_load:
            self.load()

    def _new_pipeline(self) -> Pipeline[float]:
        return Pipeline(self._model.load, self._finished, inputs=self._inputs)

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs to load the model again when it is first used."""
        return {name: value for name, value in self.__dict__.items() if name != "_pipeline"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._pipeline = self._new_pipeline()

    def __deepcopy__(self, memo: object) -> TextCrossEncoder:
        return self  # it never changes, and threads share it

    @property
    def model_name(self) -> str:
        """The model's name as the hub spells it; a folder's path for a model without one."""
        return self._model.name

    @property
    def report(self) -> ModelReport:
        """What is run: the file, its precision, and how near int8 is to float32 (``ranking``)."""
        return self._model.load().report

    def load(self) -> None:
        """Find, compile and load the model now, where that has not happened yet.

        Raises:
            The same errors as the constructor without ``lazy_load=True``.
        """
        self._model.load()

    def export(self, folder: str | os.PathLike[str]) -> None:
        """Write the model to a new folder that needs no network, hub, or compiling to load.

        Pass the folder in place of a model's name.

        Raises:
            InputError: there is something in the folder already.
            ModelFileError: the folder cannot be written.
        """
        self._model.export(folder)

    def rerank(
        self,
        query: str,
        documents: Iterable[str],
        batch_size: int = 1024,
        parallel: int | None = None,
    ) -> Iterator[float]:
        """Yield a score for each document, in the order of the documents; higher is better.

        Args:
            query: the text that the documents are compared with.
            documents: texts; any iterable, read once, at most two windows ahead.
            batch_size: pairs tokenised and sorted by length together (a window). It bounds memory
                and never changes a score.
            parallel: threads for this call instead of the encoder's; 0 for every usable core.

        Raises:
            InputError: immediately for a bad option; when its turn comes for something that is not
                a str.
        """
        check_str("query", query)
        check_unicode("query", query)
        if isinstance(documents, str):
            raise InputError("documents must be a list of str, not a str")
        pairs = ((query, document) for document in checked_texts(documents))
        return self._scores(pairs, batch_size, parallel)

    def rerank_pairs(
        self,
        pairs: Iterable[tuple[str, str]],
        batch_size: int = 1024,
        parallel: int | None = None,
    ) -> Iterator[float]:
        """Like `rerank`, for pairs of a query and a document.

        Args:
            pairs: pairs of texts; any iterable, read once, at most two windows ahead.
            batch_size: as for `rerank`.
            parallel: as for `rerank`.

        Raises:
            InputError: as for `rerank`; also for what is not a pair of texts.
        """
        if not isinstance(pairs, Iterable):
            raise InputError(f"pairs must be a list of pairs, not {type(pairs).__name__}")
        return self._scores(_checked_pairs(pairs), batch_size, parallel)

    def rank(
        self,
        query: str,
        documents: Iterable[str],
        top_k: int | None = None,
        batch_size: int = 1024,
        parallel: int | None = None,
    ) -> list[RankedDocument]:
        """Return the documents with their scores, best first; equal scores in the given order.

        Args:
            query: as for `rerank`.
            documents: as for `rerank`.
            top_k: maximum number of documents to return; all by default.
            batch_size: as for `rerank`.
            parallel: as for `rerank`.

        Raises:
            InputError: as for `rerank`; also for a bad `top_k`.
        """
        if top_k is not None:
            check_whole("top_k", top_k, 1)
        if isinstance(documents, str) or not isinstance(documents, Iterable):
            raise InputError(f"documents must be a list of str, not {type(documents).__name__}")
        texts = list(documents)
        scores = self.rerank(query, texts, batch_size, parallel)
        ranked = [
            RankedDocument(index, score, text)
            for index, (score, text) in enumerate(zip(scores, texts, strict=True))
        ]
        ranked.sort(key=lambda document: document.score, reverse=True)
        return ranked[:top_k]

    @classmethod
    def list_supported_models(cls) -> list[dict[str, Any]]:
        """List the known models, a dict for each, without using the network.

        Keys: ``model``, ``parameters`` (millions), ``max_tokens``, ``license``, ``activation`` and
        ``languages`` (``en`` or ``many``). Any other of the same architectures can be run, too.
        """
        return supported_rerankers()

    def _scores(
        self, pairs: Iterator[tuple[str, str]], batch_size: int, parallel: int | None
    ) -> Iterator[float]:
        check_whole("batch_size", batch_size, 1)
        workers = workers_of_call(self._threads, parallel)
        return self._pipeline.run_tokens(self._tokenized(pairs, batch_size), batch_size, workers)

    def _tokenized(
        self, pairs: Iterator[tuple[str, str]], batch_size: int
    ) -> Iterator[list[PairTokens]]:
        first = 0
        for window in windows(pairs, batch_size):
            model = self._model.load()
            prompt = model.scoring.prompt if model.scoring is not None else None
            found = model.tokenizer.tokenize_pairs(window, prompt, first)
            if found.truncated:
                self._warn_of_truncation(model.spec.max_tokens)
            first += len(window)
            yield found.pairs

    def _warn_of_truncation(self, limit: int) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "pairs of a query and a document longer than %d tokens are truncated: %s does not "
                "read the end of such documents (logged once)",
                limit,
                self.model_name,
            )

    def _inputs(self, batch: Batch, window: Sequence[PairTokens]) -> Inputs:
        scoring = self._model.load().scoring
        types = None
        if scoring is not None and scoring.token_types:
            types = batch.token_types([pair.first for pair in window])
        return Inputs(batch.token_ids([pair.ids for pair in window]), types)

    def _finished(self, outputs: NDArray[np.float32]) -> list[float]:
        scores = outputs.reshape(-1).tolist()
        activation = self._activation
        if activation == "model":
            scoring = self._model.load().scoring
            activation = scoring.activation if scoring is not None else None
        return scores if activation is None else [_sigmoid(score) for score in scores]


def _sigmoid(score: float) -> float:
    """Return 1 / (1 + exp(-score)), without an overflow."""
    if score >= 0:
        return 1 / (1 + math.exp(-score))
    return math.exp(score) / (1 + math.exp(score))


def _checked_pairs(pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for position, pair in enumerate(pairs):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InputError(
                f"pair number {position} must be a query and a document, not {pair!r:.80}",
                index=position,
            )
        for text in pair:
            if not isinstance(text, str):
                raise InputError(
                    f"pair number {position} has a {type(text).__name__}, not a str: {text!r:.80}",
                    index=position,
                )
            check_unicode(f"pair number {position}", text, index=position)
        yield pair[0], pair[1]


def tokens_of_pairs(
    encoder: TextCrossEncoder, pairs: Sequence[tuple[str, str]]
) -> list[PairTokens]:
    """Return the token ids that the model reads for each pair, in order."""
    parts = encoder._tokenized(_checked_pairs(pairs), len(pairs) or 1)
    return [pair for part in parts for pair in part]


def scores_of_tokens(encoder: TextCrossEncoder, pairs: Sequence[PairTokens]) -> Iterable[float]:
    """Return the score of each pair of `tokens_of_pairs`, all of one length, in order.

    They are computed by the calling thread.
    """
    batch = Batch(tuple(range(len(pairs))), len(pairs[0]))
    return encoder._pipeline.computed(encoder._inputs(batch, pairs))
