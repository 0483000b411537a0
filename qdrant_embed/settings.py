"""The model a client uses: chosen, named, measured. The same for both clients; no request."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qdrant_client import models

from qdrant_embed.collection import vector_field_name, vector_params
from qdrant_embed.encoder.catalog import CATALOG
from qdrant_embed.encoder.fidelity import Precision
from qdrant_embed.encoder.interfaces import DenseEncoder, check_encoder, describe
from qdrant_embed.encoder.spec import ModelSpec
from qdrant_embed.encoder.text import TextEmbedding
from qdrant_embed.encoders import EncoderChoice
from qdrant_embed.errors import InputError

if TYPE_CHECKING:
    from qdrant_embed.encoder.session import Provider


class ModelSettings:
    """The part of a client that knows models; mixed into both."""

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
        """Name of the sparse model; ``None``, as only dense models can be set so far."""
        return None

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
        query_prefix: str | None = None,
        document_prefix: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        precision: Precision = "int8",
        dimensions: int | None = None,
        spec: ModelSpec | None = None,
    ) -> None:
        """Chooses the model for every collection this client uses from now on.

        Without it, new collections get the default model, and existing ones their own.

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
            query_prefix: put before every query; the model's own by default, ``""`` for none.
            document_prefix: likewise before every document.
            revision: branch, tag or commit on the hub.
            local_files_only: never use the network.
            precision: ``int8``, or ``fp32`` for exact vectors; see `TextEmbedding`.
            dimensions: cut vectors to so many numbers; see `TextEmbedding`.
            spec: the model's facts, in place of what its files and the catalog say.

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
        }
        if isinstance(embedding_model_name, str | os.PathLike):
            encoder: DenseEncoder = TextEmbedding(
                embedding_model_name, lazy_load=lazy_load, **options
            )
        else:
            encoder = check_encoder(embedding_model_name)
            unused = [name for name, value in options.items() if value not in (None, False, "int8")]
            if unused:
                raise InputError(f"{', '.join(unused)}: set them on the encoder object itself")
        self._encoders.choose(encoder)

    def get_vector_field_name(self) -> str:
        """The vector's name in a new collection: ``fast-`` and the model's short name."""
        return vector_field_name(self.embedding_model_name)

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
            quantization_config: Qdrant's quantisation of the vectors.
            hnsw_config: Qdrant's options for the index.
        """
        encoder = describe(self._encoders.current)
        params = vector_params(
            encoder,
            on_disk=on_disk,
            quantization_config=quantization_config,
            hnsw_config=hnsw_config,
        )
        return {vector_field_name(encoder.model): params}

    def get_sparse_vector_field_name(self) -> str | None:
        """The sparse vector's name in a new collection; ``None`` without a sparse model."""
        return None

    def get_fastembed_sparse_vector_params(self) -> dict[str, models.SparseVectorParams] | None:
        """The ``sparse_vectors_config`` of a new collection; ``None`` without a sparse model."""
        return None

    @classmethod
    def list_text_models(cls) -> dict[str, tuple[int, models.Distance]]:
        """Known models: vector size and distance by name; needs no network."""
        return {
            entry.spec.name: (entry.spec.dimension, models.Distance.COSINE) for entry in CATALOG
        }
