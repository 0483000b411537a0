"""The models a client uses: chosen, named, measured. The same for both clients; no request."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from qdrant_client import models

from qdrant_embed.collection.options import CollectionOptions, sparse_vector_params
from qdrant_embed.collection.selection import EncoderChoice
from qdrant_embed.encoder.facts.catalog import CATALOG
from qdrant_embed.encoder.facts.precision import Precision
from qdrant_embed.encoder.facts.spec import ModelSpec
from qdrant_embed.encoder.interfaces import (
    DenseEncoder,
    Overflow,
    SparseEncoder,
    check_encoder,
    check_sparse_encoder,
    describe,
)
from qdrant_embed.encoder.long_texts.overflow import Splitter
from qdrant_embed.encoder.sparse import SparseTextEmbedding
from qdrant_embed.encoder.text import TextEmbedding
from qdrant_embed.errors import InputError, check_str, check_whole
from qdrant_embed.ingest.documents import DOCUMENT_KEY

if TYPE_CHECKING:
    from qdrant_embed.encoder.run.session import Provider


class ModelSettings:
    """The part of a client that knows models; mixed into both.

    Attributes:
        document_key: where in a point's payload its text is; ``"document"`` as the predecessor
            had it. Set it on a client (or a subclass) for collections of other tools, for
            instance to ``"page_content"`` for LangChain's.
    """

    document_key: str = DOCUMENT_KEY

    _loads_at_once: ClassVar[bool] = True

    @property
    def _encoders(self) -> EncoderChoice:
        """Made when first needed, so that a mixin needs no part in anybody's constructor."""
        choice: EncoderChoice = self.__dict__.setdefault("_encoder_choice", EncoderChoice())
        return choice

    @property
    def embedding_model_name(self) -> str:
        """Name of the model set with `set_model`, else of the default model."""
        return self._encoders.current.model_name

    @property
    def sparse_embedding_model_name(self) -> str | None:
        """Name of the model set with `set_sparse_model`; ``None`` without one."""
        sparse = self._encoders.current_sparse
        return None if sparse is None else sparse.model_name

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
    ) -> None:
        """Chooses the model for every collection this client uses from now on.

        Without it, new collections get the default model, and existing ones their own. The
        asynchronous client always loads the model at its first `add` or `query`, off the loop.

        Args:
            embedding_model_name: a known model's name in any case, a folder, ``owner/name`` on
                the hub, or an encoder object with the methods of `DenseEncoder`.
            max_length: tokens read of each text; the model's own limit by default.
            cache_dir: keeps downloads and compiled models; see `TextEmbedding`.
            threads: texts computed at once; by default the cores this process may use.
            providers: onnxruntime's execution providers; one that is missing is an error.
            cuda: run on a GPU, or fail.
            device_ids: with `cuda`, the one device to use; 0 by default.
            lazy_load: load the model at the first `add` or `query` instead of now.
            vector_name: of the vector in new collections, and in those that were made by hand;
                ``""`` is the unnamed vector. `get_vector_field_name` says what it is otherwise.
            query_prefix: put before every query; the model's own by default, ``""`` for none.
            document_prefix: likewise before every document.
            revision: branch, tag or commit on the hub.
            local_files_only: never use the network.
            precision: ``int8``, or ``fp32`` for exact vectors; see `TextEmbedding`.
            dimensions: cut vectors to so many numbers; see `TextEmbedding`.
            spec: the model's facts, in place of what its files and the catalog say.
            overflow: of texts longer than the model reads: ``truncate`` cuts them, ``chunk``
                stores each window of a text as a point and finds texts by their best, ``mean``
                stores the mean of the windows, ``error`` refuses them before anything is stored.
            overlap: with ``chunk`` and ``mean``, tokens that a window repeats of the one before.
            splitter: with ``chunk`` and ``mean``, your own way to split; see `TextEmbedding`.

        Raises:
            InputError: options that cannot be met, or that an encoder object cannot take.
            ModelError: the model cannot be found, fetched or read.
            MissingDependencyError: the extra ``fastembed`` (or ``gpu``) is not installed.
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
        }
        if vector_name is not None:
            check_str("vector_name", vector_name)
        if max_length is not None:
            check_whole("max_length", max_length, 3)  # two special tokens and one of the text
        if isinstance(embedding_model_name, str | os.PathLike):
            lazy = lazy_load or not self._loads_at_once
            encoder: DenseEncoder = TextEmbedding(embedding_model_name, lazy_load=lazy, **options)
        else:
            encoder = check_encoder(embedding_model_name)
            _refuse(options, None, False, "int8", "truncate")
        self._encoders.choose(encoder, vector_name)

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
    ) -> None:
        """Chooses the sparse model that, beside the dense one, makes search hybrid.

        New collections get both vectors; `add` gives the sparse vector to a collection that has
        none yet. Without this call, collections that have sparse vectors are searched with their
        own model; after ``set_sparse_model(None)`` none is.

        Args:
            embedding_model_name: ``Qdrant/bm25``, a SPLADE model's folder or name on the hub, an
                encoder object with the methods of `SparseEncoder`, or ``None`` for dense search
                alone.
            cache_dir: keeps downloads and compiled models.
            threads: texts computed at once.
            providers: onnxruntime's execution providers; one that is missing is an error.
            cuda: run on a GPU, or fail.
            device_ids: with `cuda`, the one device to use; 0 by default.
            lazy_load: load the model at the first `add` or `query` instead of now.
            vector_name: of the sparse vector; `get_sparse_vector_field_name` says what it is
                otherwise.
            max_tokens: tokens read of each text; the model's own limit by default.
            max_terms: terms kept of each text, the heaviest; all above 0 by default.
            revision: branch, tag or commit on the hub.
            local_files_only: never use the network.
            language: BM25's stop words and stemmer; ``english`` by default.
            k: BM25's saturation of a word's count; see `SparseTextEmbedding`.
            b: BM25's penalty for long texts.
            average_length: BM25's stems in an average document.

        Raises:
            InputError: options that cannot be met, or that an encoder object cannot take.
            ModelError: the model cannot be found, fetched or read.
            MissingDependencyError: the extra ``fastembed`` (or ``gpu``) is not installed.
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
        }
        encoder: SparseEncoder | None
        if vector_name is not None:
            check_str("vector_name", vector_name)
        if isinstance(embedding_model_name, str | os.PathLike):
            lazy = lazy_load or not self._loads_at_once
            encoder = SparseTextEmbedding(embedding_model_name, lazy_load=lazy, **options)
        else:
            encoder = (
                None if embedding_model_name is None else check_sparse_encoder(embedding_model_name)
            )
            _refuse(options, None, False)
        self._encoders.choose_sparse(encoder, vector_name)

    def get_vector_field_name(self) -> str:
        """The vector's name in a new collection: ``fast-`` and the model's short name, or what
        `set_model` was given as ``vector_name``.
        """
        return self._encoders.vector_name()

    def get_sparse_vector_field_name(self) -> str | None:
        """The sparse vector's name in a new collection: ``fast-sparse-`` and the model's short
        name, or what `set_sparse_model` was given; ``None`` without a sparse model.
        """
        return self._encoders.sparse_name()

    def get_embedding_size(self, model_name: str | None = None) -> int:
        """Numbers in one vector of `model_name`, or of the client's own model.

        Raises:
            ModelError: the model is not known, and its files cannot be had.
        """
        if model_name is None:
            return self._encoders.current.dimension
        return TextEmbedding(model_name, lazy_load=True).dimension

    def get_fastembed_vector_params(
        self,
        on_disk: bool | None = None,
        quantization_config: models.QuantizationConfig | None = None,
        hnsw_config: models.HnswConfigDiff | None = None,
    ) -> dict[str, models.VectorParams]:
        """The ``vectors_config`` of a collection for the client's model, for `create_collection`.

        Args:
            on_disk: keep vectors on disk instead of in memory.
            quantization_config: Qdrant's quantisation of the vectors; `CollectionOptions` says
                what each kind costs.
            hnsw_config: Qdrant's options for the index.
        """
        options = CollectionOptions(
            on_disk=on_disk, quantization_config=quantization_config, hnsw_config=hnsw_config
        )
        params = options.vector_params(self.get_embedding_size(), self._distance())
        return {self.get_vector_field_name(): params}

    def get_fastembed_sparse_vector_params(
        self, on_disk: bool | None = None, modifier: models.Modifier | None = None
    ) -> dict[str, models.SparseVectorParams] | None:
        """The ``sparse_vectors_config`` of a new collection; ``None`` without a sparse model.

        Args:
            on_disk: keep the index on disk instead of in memory.
            modifier: what Qdrant does to the values; IDF by default where the model wants it.
        """
        sparse, name = self._encoders.current_sparse, self.get_sparse_vector_field_name()
        if sparse is None or name is None:
            return None
        return {name: sparse_vector_params(sparse.describe(), on_disk=on_disk, modifier=modifier)}

    def _distance(self) -> str:
        encoder = self._encoders.current
        known = isinstance(encoder, TextEmbedding)  # which needs its files to describe itself
        return models.Distance.COSINE.value if known else describe(encoder).distance


def text_models() -> dict[str, tuple[int, models.Distance]]:
    """Known models: vector size and distance by name."""
    return {entry.spec.name: (entry.spec.dimension, models.Distance.COSINE) for entry in CATALOG}


def sparse_models() -> dict[str, dict[str, Any]]:
    """Known sparse models: their facts by name."""
    return {known["model"]: known for known in SparseTextEmbedding.list_supported_models()}


def _refuse(options: dict[str, Any], *unset: object) -> None:
    """Raises `InputError` where options were set that only a model by name can take."""
    used = [name for name, value in options.items() if value not in unset]
    if used:
        raise InputError(f"{', '.join(used)}: set them on the encoder object itself")
