"""Text to one vector for each token: late interaction (Khattab and Zaharia 2020, ColBERT)."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qdrant_embed.encoder.facts.catalog import (
    LATE_MODELS,
    checked_name,
)
from qdrant_embed.encoder.facts.precision import ModelReport, Precision
from qdrant_embed.encoder.interfaces import LateDescription, Recorded, Vector
from qdrant_embed.encoder.model import Model, ModelOptions
from qdrant_embed.encoder.run.backend import Inputs
from qdrant_embed.encoder.run.checked_texts import checked_texts
from qdrant_embed.encoder.run.cores import worker_count, workers_of_call
from qdrant_embed.encoder.run.job import EncodeJob
from qdrant_embed.encoder.run.pipeline import Pipeline
from qdrant_embed.errors import check_whole

if TYPE_CHECKING:
    from qdrant_embed.encoder.run.loaded_model import LoadedModel
    from qdrant_embed.encoder.run.session import Provider
    from qdrant_embed.encoder.run.tokenizer import LateTokens

logger = logging.getLogger(__name__)


class LateInteractionTextEmbedding:
    """Turns texts into a vector for each token; a `LateEncoder` for `set_late_model`.

    The score of a document is the sum, over the tokens of the query, of the greatest cosine with a
    token of the document (MaxSim). Markers, mask tokens after short queries, lengths and tokens
    without a vector (punctuation, for most models) are those of the model's own files, in the
    layouts of Stanford's ColBERT, PyLate and sentence-transformers 6. One encoder may be used by
    any number of threads at once.

    Args:
        model_name: a known model, a folder, or a repository on the hub.
        cache_dir: keeps downloads and compiled models.
        threads: texts computed at once, by default the cores this process may use.
        providers: onnxruntime's execution providers.
        cuda: run on a GPU.
        device_ids: with `cuda`, the one device to use; 0 by default.
        max_tokens: tokens read from each document, special tokens included; by default as many as
            the model's files state. The length of queries is the model's own.
        lazy_load: find and load the model when it is first used instead of now.
        revision: branch, tag or commit on the hub.
        local_files_only: never use the network.
        precision: ``int8``, or ``fp32`` for exact vectors; see `TextEmbedding`.

    Raises:
        InputError: an option is of a wrong kind, or cannot be met.
        UnknownModelError: there is no model of that name, or it is of another kind.
        ModelDownloadError: the model's files could not be downloaded.
        ModelFileError: a file is missing, damaged, or not that of a late-interaction model.
        MissingDependencyError: the extra ``fastembed`` (or ``gpu``) is not installed.
    """

    def __init__(
        self,
        model_name: str | os.PathLike[str],
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        threads: int | None = None,
        providers: Sequence[Provider] | None = None,
        cuda: bool = False,
        device_ids: Sequence[int] | None = None,
        max_tokens: int | None = None,
        lazy_load: bool = False,
        revision: str | None = None,
        local_files_only: bool = False,
        precision: Precision = "int8",
    ) -> None:
        options = ModelOptions(
            model_name=checked_name(model_name, "token_vectors"),
            cache_dir=cache_dir,
            providers=providers,
            cuda=cuda,
            device_ids=device_ids,
            max_tokens=max_tokens,
            revision=revision,
            local_files_only=local_files_only,
            precision=precision,
            task="token_vectors",
        )
        self._threads = worker_count("threads", threads)
        self._use(Model(options))
        if not lazy_load:
            self.load()

    def _use(self, model: Model) -> None:
        self._model = model
        self._documents = _LatePipeline(model.load, query=False)
        self._queries = _LatePipeline(model.load, query=True)

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs to load the model again when it is first used."""
        return {"model": self._model, "threads": self._threads}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._threads = state["threads"]
        self._use(state["model"])

    def __deepcopy__(self, memo: object) -> LateInteractionTextEmbedding:
        return self  # it never changes, and threads share it

    @property
    def model_name(self) -> str:
        """The model's name as the hub spells it; a folder's path for a model without one."""
        return self._model.name

    @property
    def dimension(self) -> int:
        """Dimension of the vector of a token."""
        return self._model.facts.spec.dimension

    def load(self) -> None:
        """Find, compile and load the model now, where that has not happened yet.

        Raises:
            The same errors as the constructor without ``lazy_load=True``.
        """
        self._documents.tokens(self._model.load())
        self._queries.tokens(self._model.load())

    @property
    def report(self) -> ModelReport:
        """What is run: the file, its precision, and how near int8 is to float32."""
        return self._model.load().report

    def export(self, folder: str | os.PathLike[str]) -> None:
        """Write the model to a new folder that needs no network, hub, or compiling to load.

        Raises:
            InputError: there is something in the folder already.
            ModelFileError: the folder cannot be written.
        """
        self._model.export(folder)

    def describe(self) -> LateDescription:
        """Return everything the vectors depend on; collections are stamped with it."""
        facts = self._model.facts
        return LateDescription(
            model=facts.spec.name,
            dimension=facts.spec.dimension,
            revision=facts.files.revision,
            weights_sha256=facts.weights_sha256,
            max_tokens=facts.spec.max_tokens,
            tokenizer_sha256=facts.tokenizer_sha256,
        )

    def embed(
        self, documents: str | Iterable[str], batch_size: int = 256, parallel: int | None = None
    ) -> Iterator[Vector]:
        """Yield the vectors of each document, float32 [tokens, dimension], in order.

        Args:
            documents: texts, or one text; any iterable, read once, at most two windows ahead.
            batch_size: texts tokenised and sorted by length together (a window). It bounds
                memory and never changes a vector.
            parallel: threads for this call instead of the encoder's; 0 for every usable core.

        Raises:
            InputError: at once for a bad option; when its turn comes for something that is not a
                str.
        """
        return self._run(self._documents, documents, batch_size, parallel)

    def passage_embed(
        self, texts: str | Iterable[str], batch_size: int = 256, parallel: int | None = None
    ) -> Iterator[Vector]:
        """Like `embed`, under the name that collections use."""
        return self._run(self._documents, texts, batch_size, parallel)

    def query_embed(
        self, query: str | Iterable[str], batch_size: int = 256, parallel: int | None = None
    ) -> Iterator[Vector]:
        """Like `embed`, for each `query`, with the vectors of its mask tokens."""
        return self._run(self._queries, query, batch_size, parallel)

    @classmethod
    def list_supported_models(cls) -> list[dict[str, Any]]:
        """List the known models, a dict for each, without using the network.

        Keys: ``model``, ``dim`` (of the vector of a token), ``max_tokens`` (of a document),
        ``license``, ``parameters`` (millions).
        """
        return [
            {
                "model": known.name,
                "dim": known.dimension,
                "max_tokens": known.max_tokens,
                "license": known.license,
                "parameters": known.parameters,
            }
            for known in LATE_MODELS
        ]

    def _run(
        self,
        pipeline: _LatePipeline,
        texts: str | Iterable[str],
        batch_size: int,
        parallel: int | None,
    ) -> Iterator[Vector]:
        check_whole("batch_size", batch_size, 1)
        workers = workers_of_call(self._threads, parallel)
        return pipeline.run_texts(texts, batch_size, workers)


def late_of_record(
    encoder: LateInteractionTextEmbedding, record: Recorded
) -> LateInteractionTextEmbedding:
    """Return an encoder like `encoder`, whose model is found as `record` allows."""
    other = copy.copy(encoder)
    other._use(Model(replace(encoder._model.options, recorded=record)))
    return other


class _LatePipeline(Pipeline[Vector]):
    """Runs a late-interaction model over texts of one kind; see `Pipeline`.

    Args:
        load: returns the model.
        query: whether the texts are queries.
    """

    def __init__(self, load: Callable[[], LoadedModel], *, query: bool) -> None:
        super().__init__(load, iter)
        self._query = query
        self._tokens: LateTokens | None = None
        self._is_warned = False

    def tokens(self, model: LoadedModel) -> LateTokens:
        """Return what makes the model's token ids."""
        if self._tokens is None:
            from qdrant_embed.encoder.run.tokenizer import LateTokens

            self._tokens = LateTokens(model.tokenizer, model.spec, query=self._query)
        return self._tokens

    def run_texts(self, texts: str | Iterable[str], window: int, workers: int) -> Iterator[Vector]:
        """Yield the vectors of each text, in order; one text, or a list of one, is not delayed."""
        checked = checked_texts(texts)
        if isinstance(texts, str) or (isinstance(texts, list) and len(texts) == 1):
            return self.run_singly(checked, workers)
        return self.run(checked, window, workers)

    def tokenized(
        self, texts: Sequence[str], job: EncodeJob | None, prefix: str, first: int
    ) -> list[list[int]]:
        """See `Pipeline.tokenized`; with markers, and cut to the model's lengths."""
        model = self._load()
        tokens = self.tokens(model)
        found = model.tokenizer.tokenize([tokens.prefix + text for text in texts], first)
        if model.tokenizer.unknown_texts(found.ids, tokens.prefix):
            self.warn_of_unknown(model)
        marked = tokens.marked(found)
        if marked.truncated and not self._is_warned:
            self._is_warned = True
            logger.warning(
                "%s longer than %d tokens are cut there (%s): what follows counts for nothing in "
                "their late-interaction score (logged once)",
                "queries" if self._query else "documents",
                tokens.longest,
                model.spec.name,
            )
        return marked.ids

    def computed(self, inputs: Inputs, *, alone: bool = False) -> Iterable[Vector]:
        """See `Pipeline.computed`; with mask tokens, and for the tokens that count alone."""
        model = self._load()
        tokens = self.tokens(model)
        whole = tokens.inputs(inputs.ids)
        return tokens.kept(whole.ids, model.run(whole, alone=alone))
