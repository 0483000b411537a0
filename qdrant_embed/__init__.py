"""Text into Qdrant and answers out: `QdrantClient` with ``add`` and ``query``."""

from qdrant_embed.client import QdrantClient, QdrantEmbedMixin
from qdrant_embed.encoder.interfaces import DenseEncoder, DescribedEncoder, EncoderDescription
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
from qdrant_embed.queries import QueryResponse

__all__ = [
    "CollectionMismatchError",
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
    "TextEmbedding",
    "UnknownModelError",
]
