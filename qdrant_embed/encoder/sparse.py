"""Text to sparse vectors: BM25, or a network that weighs the terms of its vocabulary."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.encoder.facts.catalog import (
    checked_name,
)
from qdrant_embed.encoder.facts.precision import ModelReport, Precision
from qdrant_embed.encoder.facts.sparse_catalog import BM25, SPARSE_CATALOG
from qdrant_embed.encoder.interfaces import (
    Recorded,
    SparseDescription,
    SparseEncoder,
    SparseVector,
    WordTokenizer,
)
from qdrant_embed.encoder.model import Model, ModelOptions
from qdrant_embed.encoder.run.checked_texts import checked_texts
from qdrant_embed.encoder.run.cores import worker_count, workers_of_call
from qdrant_embed.encoder.run.pipeline import Pipeline
from qdrant_embed.errors import (
    InputError,
    check_picklable,
    check_whole,
)
from qdrant_embed.forks import IMPORTING

if TYPE_CHECKING:
    from qdrant_embed.encoder.lexical.bm25 import Bm25
    from qdrant_embed.encoder.run.session import Provider

# a number for each text and term is held: 64 short texts of 30,522 terms are 8 MB a thread
_TOKENS_PER_BATCH = 256


class SparseTextEmbedding:
    """Turns texts into sparse vectors; a `SparseEncoder` for `set_sparse_model`.

    ``Qdrant/bm25`` (the default) needs no network and no download: its vectors are those of
    fastembed 0.9.1, but for texts that `normalize_text` changes. Any other model is a network that
    guesses masked words, such as SPLADE: texts become weights of the terms of its vocabulary, those
    of transformers up to what int8 changes; all above 0 are kept. Queries of models that were
    trained for it (OpenSearch's ``doc`` models) need no network: a table has the weight of each
    token. One encoder may be used by any number of threads at once.

    Args:
        model_name: ``Qdrant/bm25``; or a folder, or a repository on the hub, with the files of a
            model of architecture ``bert``, ``distilbert``, ``roberta``, ``xlm-roberta``, ``gte``
            or ``modernbert`` with the head that guesses masked words.
        cache_dir: keeps downloads and compiled models; BM25 has neither.
        threads: texts computed at once, by default the cores this process may use; BM25 computes
            one by one.
        providers: onnxruntime's execution providers; not for BM25.
        cuda: run on a GPU; not for BM25.
        device_ids: with `cuda`, the one device to use; 0 by default.
        max_tokens: tokens read from each text, special tokens included; the model's own limit by
            default. Not for BM25, which reads all of it.
        max_terms: how many terms to keep of each text, the heaviest; all above 0 by default. Not
            for BM25.
        lazy_load: find and load the model when it is first used instead of now.
        revision: branch, tag or commit on the hub; not for BM25.
        local_files_only: never use the network.
        language: BM25's stop words and stemmer; ``english`` by default.
        k: BM25's saturation of a word's count; 1.2 by default.
        b: BM25's penalty for long texts, from 0 to 1; 0.75 by default.
        average_length: BM25's stems in an average document; 256 by default.
        normalize_text: whether BM25 normalises texts (Unicode's NFKC) and takes soft hyphens out,
            so that a word is the same however it is typed; by default it does, but for collections
            whose vectors were written without. fastembed does not.
        tokenizer: what BM25 splits texts with: your own function, which takes a text and returns
            its words; or ``bigrams``, which takes pairs of characters of Chinese, Japanese, Korean
            and Thai for words. By default words are what stands between spaces and punctuation.
            Collections record its name.
        precision: ``int8``, or ``fp32`` for exact weights, which are slower and take more memory;
            not for BM25. What int8 would change too much stays float32, as for `TextEmbedding`.

    Raises:
        InputError: the model does not take an option, or it is of a wrong kind.
        UnknownModelError: there is no model of that name, or it is a dense one.
        ModelDownloadError: the model's files could not be downloaded.
        ModelFileError: a file is missing, damaged, or not that of a SPLADE model.
        MissingDependencyError: the extra ``fastembed`` is not installed.
    """

    def __init__(
        self,
        model_name: str | os.PathLike[str] = BM25,
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        threads: int | None = None,
        providers: Sequence[Provider] | None = None,
        cuda: bool = False,
        device_ids: Sequence[int] | None = None,
        max_tokens: int | None = None,
        max_terms: int | None = None,
        lazy_load: bool = False,
        revision: str | None = None,
        local_files_only: bool = False,
        language: str | None = None,
        k: float | None = None,
        b: float | None = None,
        average_length: float | None = None,
        normalize_text: bool | None = None,
        tokenizer: str | WordTokenizer | None = None,
        precision: Precision = "int8",
    ) -> None:
        of_bm25 = _given(
            language=language,
            k=k,
            b=b,
            average_length=average_length,
            normalize_text=normalize_text,
            tokenizer=tokenizer,
        )
        self._encoder: Bm25 | _Splade
        self._as_before = self  # for collections that were written without normalising texts
        name = checked_name(model_name, "terms")
        if name == BM25:
            of_networks = _given(
                providers=providers,
                cuda=cuda or None,
                device_ids=device_ids,
                max_tokens=max_tokens,
                max_terms=max_terms,
                revision=revision,
                precision=None if precision == "int8" else precision,
            )
            if of_networks:
                raise InputError(f"{BM25} takes no {', '.join(of_networks)}: it runs no network")
            worker_count("threads", threads)
            with IMPORTING:
                from qdrant_embed.encoder.lexical.bm25 import Bm25

            self._encoder = Bm25(**{"normalize_text": True, **of_bm25})
            if normalize_text is None:
                self._as_before = SparseTextEmbedding(**of_bm25, normalize_text=False)
            return
        if of_bm25:
            raise InputError(f"{', '.join(of_bm25)}: for {BM25} only, not for {name}")
        options = ModelOptions(
            model_name=name,
            cache_dir=cache_dir,
            providers=providers,
            cuda=cuda,
            device_ids=device_ids,
            max_tokens=max_tokens,
            revision=revision,
            local_files_only=local_files_only,
            precision=precision,
            task="terms",
        )
        self._encoder = _Splade(options, threads, max_terms)
        if not lazy_load:
            self._encoder.load()

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs to load the model again when it is first used."""
        tokenizer = getattr(self._encoder, "tokenizer", None)
        if callable(tokenizer):
            check_picklable("tokenizer", tokenizer)
        return self.__dict__

    def __deepcopy__(self, memo: object) -> SparseTextEmbedding:
        return self  # it never changes, and threads share it

    @property
    def model_name(self) -> str:
        """The model's name as the hub spells it; a folder's path for a model without one."""
        return self._encoder.model_name

    def load(self) -> None:
        """Find, compile and load the model now, where that has not happened yet; BM25 has none.

        Raises:
            The same errors as the constructor without ``lazy_load=True``.
        """
        if isinstance(self._encoder, _Splade):
            self._encoder.load()

    @property
    def report(self) -> ModelReport | None:
        """What is run: the file, its precision, and how near int8 is; ``None`` for BM25."""
        return self._encoder.report if isinstance(self._encoder, _Splade) else None

    def export(self, folder: str | os.PathLike[str]) -> None:
        """Write the model to a new folder that needs no network, hub, or compiling to load.

        Pass the folder in place of a model's name.

        Raises:
            InputError: it is BM25, which has no files; or there is something in the folder already.
            ModelFileError: the folder cannot be written.
        """
        if not isinstance(self._encoder, _Splade):
            raise InputError(f"{BM25} has no files to export: it works everywhere as it is")
        self._encoder.export(folder)

    def describe(self) -> SparseDescription:
        """Return everything the vectors depend on; collections are stamped with it."""
        return self._encoder.describe()

    def embed(
        self, documents: str | Iterable[str], batch_size: int = 256, parallel: int | None = None
    ) -> Iterator[SparseVector]:
        """Yield a vector for each document, in order.

        Args:
            documents: texts, or one text; any iterable, read once, at most two windows ahead.
            batch_size: texts tokenised and sorted by length together (a window). It bounds
                memory and never changes a vector; BM25 reads text by text.
            parallel: threads for this call instead of the encoder's; 0 for every usable core.

        Raises:
            InputError: at once for a bad option; when its turn comes for something that is not a
                str.
        """
        return self._embed(documents, batch_size, parallel, query=False)

    def passage_embed(
        self, texts: str | Iterable[str], batch_size: int = 256, parallel: int | None = None
    ) -> Iterator[SparseVector]:
        """Like `embed`, under the name that collections use."""
        return self._embed(texts, batch_size, parallel, query=False)

    def query_embed(
        self, query: str | Iterable[str], batch_size: int = 256, parallel: int | None = None
    ) -> Iterator[SparseVector]:
        """Like `embed`, for each `query`; BM25 gives each stem of a query the value 1."""
        return self._embed(query, batch_size, parallel, query=True)

    @classmethod
    def list_supported_models(cls) -> list[dict[str, Any]]:
        """List the known models, a dict for each, without using the network.

        Keys: ``model``, ``requires_idf``, ``license``, ``inference_free`` (queries need no
        network).
        """
        return [
            {
                "model": entry.name,
                "requires_idf": entry.requires_idf,
                "license": entry.license,
                "inference_free": entry.inference_free,
            }
            for entry in SPARSE_CATALOG
        ]

    def _embed(
        self, texts: str | Iterable[str], batch_size: int, parallel: int | None, *, query: bool
    ) -> Iterator[SparseVector]:
        check_whole("batch_size", batch_size, 1)
        if parallel is not None:
            check_whole("parallel", parallel, 0)
        if isinstance(self._encoder, _Splade):
            encode = self._encoder.queries if query else self._encoder.vectors
            return encode(checked_texts(texts), batch_size, parallel)
        checked = checked_texts(texts, any_unicode=True)
        return map(self._encoder.query if query else self._encoder.document, checked)


def sparse_of_record(encoder: SparseTextEmbedding, record: Recorded) -> SparseTextEmbedding:
    """Return an encoder like `encoder`, whose model is found as `record` allows."""
    other = copy.copy(encoder)
    other._as_before = other
    if isinstance(encoder._encoder, _Splade):  # BM25 has no files
        other._encoder = encoder._encoder.recorded(record)
    return other


def sparse_for(encoder: SparseEncoder, *, normalizes: bool) -> SparseEncoder:
    """Return an encoder for a collection whose texts were normalised, or were not.

    It is the same one, unless it is BM25 and the user has not said whether to normalise.
    """
    if normalizes or not isinstance(encoder, SparseTextEmbedding):
        return encoder
    return encoder._as_before


class _Splade:
    """Turns texts into weights of terms, queries in the same way unless the model has a table.

    A term is kept if its weight is above 0, as in fastembed; with `max_terms` only the heaviest
    are. The index of a term is its token id.

    Args:
        options: the model: a folder, or a repository on the hub, of a ``BertForMaskedLM``.
        threads: texts computed at once; ``None`` for every usable core.
        max_terms: terms kept of each text; ``None`` for all above 0.
    """

    def __init__(
        self, options: ModelOptions, threads: int | None = None, max_terms: int | None = None
    ) -> None:
        if max_terms is not None:
            check_whole("max_terms", max_terms, 1)
        self._options = options, threads, max_terms
        self._model = Model(options)
        self._threads = worker_count("threads", threads)
        self._max_terms = max_terms
        self._pipeline = Pipeline(self._model.load, self._sparse, _TOKENS_PER_BATCH)

    def __reduce__(self) -> tuple[type[_Splade], tuple[Any, ...]]:
        options, *others = self._options
        return _Splade, (options.anywhere(), *others)

    def __deepcopy__(self, memo: object) -> _Splade:
        return self  # it never changes, and threads share it

    def recorded(self, record: Recorded) -> _Splade:
        """Return the same, whose model is found as `record` allows."""
        options, *others = self._options
        return _Splade(replace(options, recorded=record), *others)

    @property
    def model_name(self) -> str:
        """The model's name as the hub spells it; a folder's path for a model without one."""
        return self._model.name

    def load(self) -> None:
        """Find, compile and load the model now, where that has not happened yet."""
        self._model.load()

    @property
    def report(self) -> ModelReport:
        """What is run."""
        return self._model.load().report

    def export(self, folder: str | os.PathLike[str]) -> None:
        """Write the model to a new folder."""
        self._model.export(folder)

    def describe(self) -> SparseDescription:
        """Return everything the vectors depend on."""
        facts = self._model.facts
        return SparseDescription(
            model=facts.spec.name,
            revision=facts.files.revision,
            weights_sha256=facts.weights_sha256,
            tokenizer_sha256=facts.tokenizer_sha256,
            max_tokens=facts.spec.max_tokens,
            max_terms=self._max_terms,
        )

    def vectors(
        self, texts: Iterator[str], window: int, parallel: int | None
    ) -> Iterator[SparseVector]:
        """Yield the vector of each text, in order."""
        workers = workers_of_call(self._threads, parallel)
        return self._pipeline.run(texts, window, workers)

    def queries(
        self, texts: Iterator[str], window: int, parallel: int | None
    ) -> Iterator[SparseVector]:
        """Yield the vector of each query, in order; without a network if the model has a table."""
        if (table := self._model.query_terms()) is None:
            return self.vectors(texts, window, parallel)
        return map(table.vector, texts)

    def _sparse(self, weights: NDArray[np.float32]) -> list[SparseVector]:
        return [self._kept(row) for row in weights]

    def _kept(self, weights: NDArray[np.float32]) -> SparseVector:
        terms: NDArray[np.int64] = np.flatnonzero(weights)
        if self._max_terms is not None and len(terms) > self._max_terms:
            heaviest = np.argsort(-weights[terms], kind="stable")[: self._max_terms]
            terms = np.sort(terms[heaviest])
        return SparseVector(terms, weights[terms])


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
