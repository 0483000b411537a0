"""Text into Qdrant and answers out: `QdrantClient` with ``add`` and ``query``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from qdrant_embed.encoder.compiler import CompileReport
from qdrant_embed.encoder.interfaces import (
    DenseEncoder,
    DescribedEncoder,
    EncoderDescription,
    SparseDescription,
    SparseEncoder,
    SparseVector,
)
from qdrant_embed.encoder.sparse import SparseTextEmbedding
from qdrant_embed.encoder.spec import ModelSpec
from qdrant_embed.encoder.text import DefaultEmbedding, TextEmbedding
from qdrant_embed.errors import (
    CollectionMismatchError,
    IngestError,
    InputError,
    MissingDependencyError,
    ModelDownloadError,
    ModelError,
    ModelFileError,
    QdrantEmbedError,
    UnknownModelError,
)
from qdrant_embed.reranking import Reranker

if TYPE_CHECKING:
    from qdrant_embed.async_client import AsyncQdrantClient, AsyncQdrantEmbedMixin
    from qdrant_embed.client import QdrantClient, QdrantEmbedMixin
    from qdrant_embed.options import CollectionOptions
    from qdrant_embed.queries import QueryResponse

__all__ = [
    "AsyncQdrantClient",
    "AsyncQdrantEmbedMixin",
    "CollectionMismatchError",
    "CollectionOptions",
    "CompileReport",
    "DefaultEmbedding",
    "DenseEncoder",
    "DescribedEncoder",
    "EncoderDescription",
    "IngestError",
    "InputError",
    "MissingDependencyError",
    "ModelDownloadError",
    "ModelError",
    "ModelFileError",
    "ModelSpec",
    "QdrantClient",
    "QdrantEmbedError",
    "QdrantEmbedMixin",
    "QueryResponse",
    "Reranker",
    "SparseDescription",
    "SparseEncoder",
    "SparseTextEmbedding",
    "SparseVector",
    "TextEmbedding",
    "UnknownModelError",
]

# qdrant_client takes a second to import, which who only wants vectors need not wait for
_WITH_QDRANT = {
    "AsyncQdrantClient": "qdrant_embed.async_client",
    "AsyncQdrantEmbedMixin": "qdrant_embed.async_client",
    "CollectionOptions": "qdrant_embed.options",
    "QdrantClient": "qdrant_embed.client",
    "QdrantEmbedMixin": "qdrant_embed.client",
    "QueryResponse": "qdrant_embed.queries",
}


def __getattr__(name: str) -> object:
    if name not in _WITH_QDRANT:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_WITH_QDRANT[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
