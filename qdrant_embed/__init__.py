"""Qdrant clients with ``add`` and ``query``, which embed texts themselves."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from qdrant_embed import telemetry as _telemetry  # before anything imports onnxruntime

if TYPE_CHECKING:
    from qdrant_embed.async_client import AsyncQdrantClient, AsyncQdrantEmbedMixin
    from qdrant_embed.client import QdrantClient, QdrantEmbedMixin
    from qdrant_embed.collection.options import CollectionOptions
    from qdrant_embed.encoder.cross import RankedDocument, TextCrossEncoder
    from qdrant_embed.encoder.facts.precision import CompileReport
    from qdrant_embed.encoder.facts.spec import ModelSpec
    from qdrant_embed.encoder.interfaces import (
        Chunk,
        DenseEncoder,
        DescribedEncoder,
        EncoderDescription,
        LateDescription,
        LateEncoder,
        Reranker,
        SparseDescription,
        SparseEncoder,
        SparseVector,
    )
    from qdrant_embed.encoder.late import LateInteractionTextEmbedding
    from qdrant_embed.encoder.sparse import SparseTextEmbedding
    from qdrant_embed.encoder.text import DefaultEmbedding, TextEmbedding
    from qdrant_embed.errors import (
        ClientStateError,
        CollectionMismatchError,
        CollectionNotFoundError,
        DocumentNotFoundError,
        FolderError,
        IngestError,
        InputError,
        MissingDependencyError,
        ModelDownloadError,
        ModelError,
        ModelFileError,
        PermissionRefusal,
        QdrantEmbedError,
        ServerRefusal,
        ServerUnavailableError,
        UnknownModelError,
        UntrustedModelError,
    )
    from qdrant_embed.flows.progress import IngestProgress
    from qdrant_embed.ingest.documents import Document
    from qdrant_embed.ingest.ids import ContentIds, point_id
    from qdrant_embed.ingest.whole_documents import StoredDocument
    from qdrant_embed.search.groups import GroupResponse
    from qdrant_embed.search.search import QueryResponse

__all__ = [
    "AsyncQdrantClient",
    "AsyncQdrantEmbedMixin",
    "Chunk",
    "ClientStateError",
    "CollectionMismatchError",
    "CollectionNotFoundError",
    "CollectionOptions",
    "CompileReport",
    "ContentIds",
    "DefaultEmbedding",
    "DenseEncoder",
    "DescribedEncoder",
    "Document",
    "DocumentNotFoundError",
    "EncoderDescription",
    "FolderError",
    "GroupResponse",
    "IngestError",
    "IngestProgress",
    "InputError",
    "LateDescription",
    "LateEncoder",
    "LateInteractionTextEmbedding",
    "MissingDependencyError",
    "ModelDownloadError",
    "ModelError",
    "ModelFileError",
    "ModelSpec",
    "PermissionRefusal",
    "QdrantClient",
    "QdrantEmbedError",
    "QdrantEmbedMixin",
    "QueryResponse",
    "RankedDocument",
    "Reranker",
    "ServerRefusal",
    "ServerUnavailableError",
    "SparseDescription",
    "SparseEncoder",
    "SparseTextEmbedding",
    "SparseVector",
    "StoredDocument",
    "TextCrossEncoder",
    "TextEmbedding",
    "UnknownModelError",
    "UntrustedModelError",
    "point_id",
]

del _telemetry

# loaded on first access: qdrant_client and pydantic take long to import, and a caller who only
# needs vectors uses neither
_HOMES = {
    "AsyncQdrantClient": "qdrant_embed.async_client",
    "AsyncQdrantEmbedMixin": "qdrant_embed.async_client",
    "Chunk": "qdrant_embed.encoder.interfaces",
    "ClientStateError": "qdrant_embed.errors",
    "CollectionMismatchError": "qdrant_embed.errors",
    "CollectionNotFoundError": "qdrant_embed.errors",
    "CollectionOptions": "qdrant_embed.collection.options",
    "CompileReport": "qdrant_embed.encoder.facts.precision",
    "ContentIds": "qdrant_embed.ingest.ids",
    "DefaultEmbedding": "qdrant_embed.encoder.text",
    "DenseEncoder": "qdrant_embed.encoder.interfaces",
    "DescribedEncoder": "qdrant_embed.encoder.interfaces",
    "Document": "qdrant_embed.ingest.documents",
    "DocumentNotFoundError": "qdrant_embed.errors",
    "EncoderDescription": "qdrant_embed.encoder.interfaces",
    "FolderError": "qdrant_embed.errors",
    "GroupResponse": "qdrant_embed.search.groups",
    "IngestError": "qdrant_embed.errors",
    "IngestProgress": "qdrant_embed.flows.progress",
    "InputError": "qdrant_embed.errors",
    "LateDescription": "qdrant_embed.encoder.interfaces",
    "LateEncoder": "qdrant_embed.encoder.interfaces",
    "LateInteractionTextEmbedding": "qdrant_embed.encoder.late",
    "MissingDependencyError": "qdrant_embed.errors",
    "ModelDownloadError": "qdrant_embed.errors",
    "ModelError": "qdrant_embed.errors",
    "ModelFileError": "qdrant_embed.errors",
    "ModelSpec": "qdrant_embed.encoder.facts.spec",
    "PermissionRefusal": "qdrant_embed.errors",
    "QdrantClient": "qdrant_embed.client",
    "QdrantEmbedError": "qdrant_embed.errors",
    "QdrantEmbedMixin": "qdrant_embed.client",
    "QueryResponse": "qdrant_embed.search.search",
    "RankedDocument": "qdrant_embed.encoder.cross",
    "Reranker": "qdrant_embed.encoder.interfaces",
    "ServerRefusal": "qdrant_embed.errors",
    "ServerUnavailableError": "qdrant_embed.errors",
    "SparseDescription": "qdrant_embed.encoder.interfaces",
    "SparseEncoder": "qdrant_embed.encoder.interfaces",
    "SparseTextEmbedding": "qdrant_embed.encoder.sparse",
    "SparseVector": "qdrant_embed.encoder.interfaces",
    "StoredDocument": "qdrant_embed.ingest.whole_documents",
    "TextCrossEncoder": "qdrant_embed.encoder.cross",
    "TextEmbedding": "qdrant_embed.encoder.text",
    "UnknownModelError": "qdrant_embed.errors",
    "UntrustedModelError": "qdrant_embed.errors",
    "point_id": "qdrant_embed.ingest.ids",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from qdrant_embed.forks import IMPORTING

    with IMPORTING:
        value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
