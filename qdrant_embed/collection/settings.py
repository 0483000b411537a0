"""The methods of both clients that set and describe their models; none sends a request."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

import qdrant_client
from qdrant_client import models

from qdrant_embed.collection.collection import Collection
from qdrant_embed.collection.encoders import ModelTerms, adapt
from qdrant_embed.collection.options import CollectionOptions, sparse_vector_params
from qdrant_embed.collection.payload import DOCUMENT_KEY, PayloadCodec
from qdrant_embed.collection.selection import EncoderSelection, ModelPolicy
from qdrant_embed.collection.stamp import describe_sparse
from qdrant_embed.encoder.cross import Activation, TextCrossEncoder
from qdrant_embed.encoder.facts.catalog import CATALOG
from qdrant_embed.encoder.facts.precision import Precision, Runtime
from qdrant_embed.encoder.facts.spec import ModelSpec
from qdrant_embed.encoder.interfaces import (
    DenseEncoder,
    LateEncoder,
    Overflow,
    Reranker,
    SparseEncoder,
    WordTokenizer,
    check_late_encoder,
    check_reranker,
    check_sparse_encoder,
)
from qdrant_embed.encoder.late import LateInteractionTextEmbedding
from qdrant_embed.encoder.long_texts.overflow import Splitter
from qdrant_embed.encoder.sparse import SparseTextEmbedding
from qdrant_embed.encoder.text import TextEmbedding, with_terms
from qdrant_embed.engines.connection import engine_of
from qdrant_embed.engines.names import check_vector_name
from qdrant_embed.errors import InputError, check_picklable, check_whole
from qdrant_embed.flows.io import Io
from qdrant_embed.flows.requests import MAX_RETRIES, CollectionRequests

if TYPE_CHECKING:
    from qdrant_embed.encoder.run.session import Provider


class ModelSettings:
    """The part of both clients that sets and describes their models.

    Attributes:
        document_key: key of the text in a point's payload; ``"document"`` by default, as in the
            predecessor. Set it on a client or a subclass to use collections of other tools, for
            instance to ``"page_content"`` for LangChain's.
    """

    document_key: str = DOCUMENT_KEY

    _loads_eagerly: ClassVar[bool] = True

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how another process opens the client again: with its options and its models.

        An API key goes with it, as it is.

        Raises:
            InputError: if the database is inside this process.
        """
        options = self._copied_options()
        for name, value in options.items():
            if callable(value):
                check_picklable(name, value)
        return _opened_again, (type(self), options, self._copied_state())

    def __deepcopy__(self, memo: dict[int, Any]) -> ModelSettings:
        state = copy.deepcopy(self._copied_state(), memo)
        return _opened_again(type(self), self._copied_options(), state)

    def __copy__(self) -> ModelSettings:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def _copied_options(self) -> dict[str, Any]:
        client = cast("qdrant_client.QdrantClient", self)
        if (engine := engine_of(client._client)).name != "server":
            raise InputError(
                f"a client of a {engine.name} database cannot be pickled or copied: its database "
                "is inside this process and belongs to this client. Open one client for each "
                "process, or use a server, which many of them can share"
            )
        return dict(client.init_options)

    def _copied_state(self) -> dict[str, Any]:
        names = ("_encoder_selection", "_model_keywords", "document_key")
        return {name: self.__dict__[name] for name in names if name in self.__dict__}

    @property
    def engine(self) -> str:
        """What answers this client: ``"server"``, ``"edge"`` in a folder, or ``"local"``."""
        return engine_of(cast("qdrant_client.QdrantClient", self)._client).name

    def _as_client_wants(self, lazy_load: bool, local_files_only: bool) -> dict[str, Any]:
        """Return when a model is loaded and from where, for these options of a setter."""
        return {
            "lazy_load": lazy_load or not self._loads_eagerly,
            "local_files_only": local_files_only or self._selection.policy.offline,
        }

    # created on first use, so that the mixin needs no constructor

    @property
    def _selection(self) -> EncoderSelection:
        selection: EncoderSelection | None = self.__dict__.get("_encoder_selection")
        if selection is None:
            policy = ModelPolicy(**self.__dict__.get("_model_keywords", {}))
            selection = self.__dict__.setdefault("_encoder_selection", EncoderSelection(policy))
        return selection

    @property
    def _io(self) -> Io:
        raise NotImplementedError("each client defines its own")

    def _collection(self, name: str, max_retries: int = MAX_RETRIES) -> Collection:
        # the asynchronous client's methods have the same arguments, and Io awaits their results
        client = cast("qdrant_client.QdrantClient", self)
        requests = CollectionRequests(self._io, client, name, max_retries)
        return Collection(requests, self._selection, PayloadCodec(self.document_key))

    @property
    def embedding_model_name(self) -> str:
        """Name of the model set with `set_model`; without that call, of the default model."""
        return self._selection.current.name

    @property
    def sparse_embedding_model_name(self) -> str | None:
        """Name of the model set with `set_sparse_model`; ``None`` if there is none."""
        sparse = self._selection.current_sparse
        return None if sparse is None else sparse.model_name

    @property
    def late_embedding_model_name(self) -> str | None:
        """Name of the model set with `set_late_model`; ``None`` if there is none."""
        late = self._selection.current_late
        return None if late is None else late.model_name

    def set_model(
        self,
        embedding_model_name: str | os.PathLike[str] | DenseEncoder,
        max_length: int | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        threads: int | None = None,
        providers: Sequence[Provider] | None = None,
        cuda: bool = False,
        device_ids: Sequence[int] | None = None,
        lazy_load: bool = False,
        *,
        vector_name: str | None = None,
        query_prefix: str | None = None,
        document_prefix: str | None = None,
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
        sparse: bool = False,
        runtime: Runtime = "onnxruntime",
    ) -> None:
        """Set the model for all collections that this client uses from now on.

        Without this call, new collections get the default model, and existing ones are used with
        their own, as far as they may choose it (see `QdrantClient`). A collection that was written
        with another model, or with other options that affect its vectors, is refused. The
        asynchronous client always loads the model at its first `add` or `query`, off the event
        loop.

        Args:
            embedding_model_name: a known model's name in any case, a folder, ``owner/name`` on
                the hub, or a custom encoder with the methods of `DenseEncoder`.
            max_length: maximum number of tokens per text; the model's own limit by default.
            cache_dir: folder of downloads and compiled models; see `TextEmbedding`.
            threads: number of texts encoded concurrently; by default, the number of usable cores.
            providers: onnxruntime's execution providers; a missing one is an error.
            cuda: run on a GPU, or fail.
            device_ids: with `cuda`, the one device to use; 0 by default.
            lazy_load: load the model at the first `add` or `query` instead of now.
            vector_name: name of the vector in new collections, and in collections without a record
                of their model, such as other tools'; ``""`` for the unnamed vector.
                `get_vector_field_name` returns the default.
            query_prefix: prefix of every query; the model's own by default, ``""`` for none.
            document_prefix: prefix of every document; the default is the same.
            revision: branch, tag or commit on the hub.
            local_files_only: never use the network.
            precision: ``int8``, ``fp32`` for exact vectors, or ``bf16`` or ``fp16`` for half the
                memory of ``fp32``; see `TextEmbedding`.
            dimensions: truncate vectors to this many dimensions; see `TextEmbedding`.
            spec: the model's facts, overriding its files and the catalog.
            overflow: how to handle texts longer than the model's limit: ``truncate`` truncates
                them and logs a warning, ``chunk`` stores each chunk of a text as a point and finds
                texts by their best chunk, ``mean`` stores the mean of the chunks' vectors,
                ``error`` refuses them before anything is stored. A client that calls `set_model`
                on a chunked collection must pass ``overflow="chunk"``.
            overlap: with ``chunk`` and ``mean``, number of tokens that neighbouring chunks share.
            splitter: with ``chunk`` and ``mean``, your own splitter: a function that takes a text
                longer than the limit and returns the ``(start, end)`` pairs of its parts; see
                ``examples/long_documents.py``.
            task: what an instruction-tuned model is told to do with a query, in its own words; the
                vendor's default otherwise. Collections remember it, as part of the query prefix.
            query_prompt: name of the model's own prompt to put before every query; see
                `TextEmbedding`.
            document_prompt: likewise before every document.
            sparse: whether a head of the model weighs terms in the same pass, which makes searches
                hybrid without another model; for models with ``sparse_linear.pt``, as BAAI/bge-m3.
                `set_sparse_model` replaces it. With ``overflow="chunk"``, a text of several chunks
                takes two passes.
            runtime: what runs documents: ``onnxruntime``; ``openvino``, which needs the extra
                ``openvino``; or ``auto`` for the faster, which is measured; see `TextEmbedding`.

        Raises:
            InputError: if an option is invalid, or does not apply to a custom encoder.
            ModelError: if the model cannot be found, downloaded or read.
            MissingDependencyError: if the extra ``fastembed`` (or ``gpu``) is not installed.
        """
        options: dict[str, Any] = {
            "max_tokens": max_length,
            "cache_dir": cache_dir,
            "threads": threads,
            "providers": providers,
            "cuda": cuda,
            "device_ids": device_ids,
            "query_prefix": query_prefix,
            "document_prefix": document_prefix,
            "revision": revision,
            "local_files_only": local_files_only,
            "precision": precision,
            "dimensions": dimensions,
            "spec": spec,
            "overflow": overflow,
            "overlap": overlap,
            "splitter": splitter,
            "task": task,
            "query_prompt": query_prompt,
            "document_prompt": document_prompt,
            "runtime": runtime,
        }
        if vector_name is not None:
            check_vector_name(vector_name)
        if max_length is not None:
            check_whole("max_length", max_length, 3)  # two special tokens and one of the text
        if isinstance(embedding_model_name, str | os.PathLike):
            options |= self._as_client_wants(lazy_load, local_files_only)
            lazy = options["lazy_load"]
            options["lazy_load"] = lazy or sparse
            embedding = TextEmbedding(embedding_model_name, **options)
            terms = None
            if sparse:
                embedding = with_terms(embedding)
                terms = ModelTerms(embedding)
                if not lazy:
                    embedding.load()
            self._selection.choose(adapt(embedding), vector_name, terms)
        else:
            encoder = adapt(embedding_model_name)
            options["sparse"] = sparse
            _refuse_options(options, None, False, "int8", "truncate", "onnxruntime")
            self._selection.choose(encoder, vector_name)

    def set_sparse_model(
        self,
        embedding_model_name: str | os.PathLike[str] | SparseEncoder | None,
        cache_dir: str | os.PathLike[str] | None = None,
        threads: int | None = None,
        providers: Sequence[Provider] | None = None,
        cuda: bool = False,
        device_ids: Sequence[int] | None = None,
        lazy_load: bool = False,
        *,
        vector_name: str | None = None,
        max_tokens: int | None = None,
        max_terms: int | None = None,
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
        """Set the sparse model, which makes searches hybrid.

        New collections get both vectors, and `add` adds the sparse vector to a collection that
        lacks it. Adding a sparse vector to an existing collection needs Qdrant 1.18 or newer, or
        memory or a folder; documents stored earlier are found by their dense vectors alone until
        they are added again. A server weighs rare words by the documents of each shard, so that
        scores of BM25 differ a little with the number of shards.

        Without this call, collections with sparse vectors are searched with their own sparse model.
        After ``set_sparse_model(None)``, they are searched by their dense vectors only.

        Args:
            embedding_model_name: ``Qdrant/bm25``, a SPLADE model's folder or name on the hub, a
                custom encoder with the methods of `SparseEncoder`, or ``None`` for dense search
                only.
            cache_dir: folder of downloads and compiled models.
            threads: number of texts encoded concurrently; by default, the number of usable cores.
            providers: onnxruntime's execution providers; a missing one is an error.
            cuda: run on a GPU, or fail.
            device_ids: with `cuda`, the one device to use; 0 by default.
            lazy_load: load the model at the first `add` or `query` instead of now.
            vector_name: name of the sparse vector; `get_sparse_vector_field_name` returns the
                default.
            max_tokens: maximum number of tokens per text; the model's own limit by default.
            max_terms: number of terms kept per text, those with the highest weights; by default,
                all with a weight above 0.
            revision: branch, tag or commit on the hub.
            local_files_only: never use the network.
            language: BM25's stop words and stemmer; ``english`` by default.
            k: BM25's saturation of a word's count; see `SparseTextEmbedding`.
            b: BM25's penalty for long texts.
            average_length: number of stems in an average document, for BM25.
            normalize_text: whether BM25 normalises texts (Unicode's NFKC) and removes soft
                hyphens; by default, as the collection's documents were, and in new ones yes.
            tokenizer: what BM25 splits texts with: your own function from a text to its words, or
                ``bigrams`` for Chinese, Japanese, Korean and Thai; see `SparseTextEmbedding`. A
                client needs the same function as the one that wrote the collection.
            precision: ``int8``, or ``fp32`` for exact weights of a SPLADE model.

        Raises:
            InputError: if an option is invalid, or does not apply to a custom encoder.
            ModelError: if the model cannot be found, downloaded or read.
            MissingDependencyError: if the extra ``fastembed`` (or ``gpu``) is not installed.
        """
        options: dict[str, Any] = {
            "cache_dir": cache_dir,
            "threads": threads,
            "providers": providers,
            "cuda": cuda,
            "device_ids": device_ids,
            "max_tokens": max_tokens,
            "max_terms": max_terms,
            "revision": revision,
            "local_files_only": local_files_only,
            "language": language,
            "k": k,
            "b": b,
            "average_length": average_length,
            "normalize_text": normalize_text,
            "tokenizer": tokenizer,
            "precision": precision,
        }
        encoder: SparseEncoder | None
        if vector_name is not None:
            check_vector_name(vector_name)
        if isinstance(embedding_model_name, str | os.PathLike):
            options |= self._as_client_wants(lazy_load, local_files_only)
            encoder = SparseTextEmbedding(embedding_model_name, **options)
        else:
            encoder = (
                None if embedding_model_name is None else check_sparse_encoder(embedding_model_name)
            )
            _refuse_options(options, None, False, "int8")
        self._selection.choose_sparse(encoder, vector_name)

    def set_reranker(
        self,
        reranker: str | os.PathLike[str] | Reranker | None,
        cache_dir: str | os.PathLike[str] | None = None,
        threads: int | None = None,
        providers: Sequence[Provider] | None = None,
        cuda: bool = False,
        device_ids: Sequence[int] | None = None,
        lazy_load: bool = False,
        *,
        max_tokens: int | None = None,
        activation: Activation | None = "model",
        revision: str | None = None,
        local_files_only: bool = False,
        precision: Precision = "int8",
    ) -> None:
        """Set the reranker of all queries of this client that do not pass one of their own.

        A reranker scores the best hits of a search again, with their texts. Nothing of it is stored
        in collections. Searches by examples alone and `query_groups` do without.

        Args:
            reranker: a cross-encoder's name or folder, an object with the method of `Reranker`, or
                ``None`` for no reranker.
            cache_dir: folder of downloads and compiled models; see `TextEmbedding`.
            threads: number of pairs encoded concurrently; by default, the number of usable cores.
            providers: onnxruntime's execution providers; a missing one is an error.
            cuda: run on a GPU, or fail.
            device_ids: with `cuda`, the one device to use; 0 by default.
            lazy_load: load the model at the first `query` instead of now.
            max_tokens: maximum number of tokens per pair; the model's own limit by default.
            activation: what is applied to raw scores; see `TextCrossEncoder`.
            revision: branch, tag or commit on the hub.
            local_files_only: never use the network.
            precision: ``int8``, or ``fp32`` for exact scores; see `TextCrossEncoder`.

        Raises:
            InputError: if an option is invalid, or does not apply to a custom reranker.
            ModelError: if the model cannot be found, downloaded or read.
            MissingDependencyError: if the extra ``fastembed`` (or ``gpu``) is not installed.
        """
        options: dict[str, Any] = {
            "cache_dir": cache_dir,
            "threads": threads,
            "providers": providers,
            "cuda": cuda,
            "device_ids": device_ids,
            "max_tokens": max_tokens,
            "activation": activation,
            "revision": revision,
            "local_files_only": local_files_only,
            "precision": precision,
        }
        chosen: Reranker | None
        if isinstance(reranker, str | os.PathLike):
            options |= self._as_client_wants(lazy_load, local_files_only)
            chosen = TextCrossEncoder(reranker, **options)
        else:
            check_reranker(reranker)
            _refuse_options(options, None, False, "int8", "model")
            chosen = reranker
        self._selection.choose_reranker(chosen)

    def set_late_model(
        self,
        embedding_model_name: str | os.PathLike[str] | LateEncoder | None,
        cache_dir: str | os.PathLike[str] | None = None,
        threads: int | None = None,
        providers: Sequence[Provider] | None = None,
        cuda: bool = False,
        device_ids: Sequence[int] | None = None,
        lazy_load: bool = False,
        *,
        vector_name: str | None = None,
        max_tokens: int | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        precision: Precision = "int8",
    ) -> None:
        """Set the late-interaction model, which ranks what other vectors have found.

        New collections also store a vector for each token of a document, without an index.
        `query` then finds candidates by the dense vectors (and the sparse ones), and Qdrant ranks
        them in the same request by the sum of the greatest cosines of the query's tokens (MaxSim),
        which is the hits' score. Such vectors take tens of times as much memory as one vector of a
        document; see ``late_on_disk`` and ``late_quantization_config`` of `CollectionOptions`.

        Without this call, collections with vectors of tokens are searched with their own model.
        After ``set_late_model(None)``, they are searched without them. A collection that was
        written without this model stays so: `migrate_model` writes its documents to a new one.

        Args:
            embedding_model_name: a late-interaction model's name, its folder or name on the hub, a
                custom encoder with the methods of `LateEncoder`, or ``None`` for none.
            cache_dir: folder of downloads and compiled models.
            threads: number of texts encoded concurrently; by default, the number of usable cores.
            providers: onnxruntime's execution providers; a missing one is an error.
            cuda: run on a GPU, or fail.
            device_ids: with `cuda`, the one device to use; 0 by default.
            lazy_load: load the model at the first `add` or `query` instead of now.
            vector_name: name of the vectors of tokens; `get_late_vector_field_name` returns the
                default.
            max_tokens: maximum number of tokens per document; what the model's files state by
                default.
            revision: branch, tag or commit on the hub.
            local_files_only: never use the network.
            precision: ``int8``, or ``fp32`` for exact vectors; see `TextEmbedding`.

        Raises:
            InputError: if an option is invalid, or does not apply to a custom encoder.
            ModelError: if the model cannot be found, downloaded or read.
            MissingDependencyError: if the extra ``fastembed`` (or ``gpu``) is not installed.
        """
        options: dict[str, Any] = {
            "cache_dir": cache_dir,
            "threads": threads,
            "providers": providers,
            "cuda": cuda,
            "device_ids": device_ids,
            "max_tokens": max_tokens,
            "revision": revision,
            "local_files_only": local_files_only,
            "precision": precision,
        }
        encoder: LateEncoder | None
        if vector_name is not None:
            check_vector_name(vector_name)
        if isinstance(embedding_model_name, str | os.PathLike):
            options |= self._as_client_wants(lazy_load, local_files_only)
            encoder = LateInteractionTextEmbedding(embedding_model_name, **options)
        else:
            encoder = (
                None if embedding_model_name is None else check_late_encoder(embedding_model_name)
            )
            _refuse_options(options, None, False, "int8")
        self._selection.choose_late(encoder, vector_name)

    def get_vector_field_name(self) -> str:
        """Return the name of the vector in a new collection.

        It is the ``vector_name`` passed to `set_model`, else ``fast-`` and the last part of the
        model's name, in which ``-`` replaces each character that Qdrant refuses, such as ``:``. A
        name of more than 200 bytes is cut, and ends in 8 digits of its SHA-256.
        """
        return self._selection.vector_name()

    def get_sparse_vector_field_name(self) -> str | None:
        """Return the name of the sparse vector in a new collection.

        It is the ``vector_name`` passed to `set_sparse_model`, else ``fast-sparse-`` and the last
        part of the model's name; ``None`` without a sparse model.
        """
        return self._selection.sparse_name()

    def get_late_vector_field_name(self) -> str | None:
        """Return the name of the vectors of tokens in a new collection.

        It is the ``vector_name`` passed to `set_late_model`, else ``fast-late-`` and the last part
        of the model's name; ``None`` without a late-interaction model.
        """
        return self._selection.late_name()

    def get_embedding_size(self, model_name: str | None = None) -> int:
        """Return the number of dimensions of a model's vectors.

        Args:
            model_name: name or folder of the model; the client's own by default.

        Raises:
            InputError: if `model_name` is not a str.
            ModelError: if the model is unknown, and its files are not available.
            MissingDependencyError: if the files of an unknown model cannot be downloaded or read
                because the extra ``fastembed`` is not installed.
        """
        if model_name is None:
            return self._selection.current.dimension
        offline = self._selection.policy.offline
        return TextEmbedding(model_name, lazy_load=True, local_files_only=offline).dimension

    def get_fastembed_vector_params(
        self,
        on_disk: bool | None = None,
        quantization_config: models.QuantizationConfig | None = None,
        hnsw_config: models.HnswConfigDiff | None = None,
    ) -> dict[str, models.VectorParams]:
        """Return the ``vectors_config`` of the client's model, to pass to `create_collection`.

        Args:
            on_disk: whether to store vectors on disk instead of in memory.
            quantization_config: Qdrant's quantisation of the vectors; `CollectionOptions` says
                what each kind costs.
            hnsw_config: Qdrant's options of the index.

        Raises:
            InputError: if an option is invalid.
            ModelError: if the model is unknown, and its files are not available.
            MissingDependencyError: see `get_embedding_size`.
        """
        options = CollectionOptions(
            on_disk=on_disk, quantization_config=quantization_config, hnsw_config=hnsw_config
        )
        distance = self._selection.current.distance
        params = options.vector_params(self.get_embedding_size(), distance)
        return {self.get_vector_field_name(): params}

    def get_fastembed_sparse_vector_params(
        self, on_disk: bool | None = None, modifier: models.Modifier | None = None
    ) -> dict[str, models.SparseVectorParams] | None:
        """Return the ``sparse_vectors_config`` of the client's model, for `create_collection`.

        It is ``None`` without a sparse model.

        Args:
            on_disk: whether to store the index on disk instead of in memory.
            modifier: how Qdrant modifies the values; by default IDF if the model needs it.

        Raises:
            ModelError: if the model cannot be found, downloaded or read.
            MissingDependencyError: if the extra ``fastembed`` is not installed.
        """
        sparse, name = self._selection.current_sparse, self.get_sparse_vector_field_name()
        if sparse is None or name is None:
            return None
        return {
            name: sparse_vector_params(describe_sparse(sparse), on_disk=on_disk, modifier=modifier)
        }


def text_models() -> dict[str, tuple[int, models.Distance]]:
    """Return the vector size and distance of each known model, by name."""
    return {entry.spec.name: (entry.spec.dimension, models.Distance.COSINE) for entry in CATALOG}


def sparse_models() -> dict[str, dict[str, Any]]:
    """Return the facts of each known sparse model, by name."""
    return {known["model"]: known for known in SparseTextEmbedding.list_supported_models()}


def late_models() -> dict[str, dict[str, Any]]:
    """Return the facts of each known late-interaction model, by name."""
    known = LateInteractionTextEmbedding.list_supported_models()
    return {facts["model"]: facts for facts in known}


def _opened_again(
    kind: type[ModelSettings], options: dict[str, Any], state: dict[str, Any]
) -> ModelSettings:
    """Open a client as another one was opened, with the same models."""
    client = kind(**options)
    client.__dict__.update(state)
    return client


def _refuse_options(options: dict[str, Any], *unset: object) -> None:
    """Raise `InputError` if an option is set that only models by name accept."""
    used = [name for name, value in options.items() if value not in unset]
    if used:
        raise InputError(
            f"{', '.join(used)}: only models by name accept these options; set them on the encoder "
            "object itself"
        )
