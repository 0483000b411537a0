"""Facts about one model."""

from __future__ import annotations

from dataclasses import dataclass

from qdrant_embed.encoder.interfaces import Pooling
from qdrant_embed.errors import InputError


@dataclass(frozen=True)
class ModelSpec:
    """What must be known of a model to turn text into its vectors.

    Attributes:
        name: the model's name, as the hub spells it.
        dimension: numbers in one vector.
        pooling: how token vectors become one: the first token's (``cls``), their mean, the last
            token's, or, of sparse models, a weight for each term of the vocabulary (``splade``).
        normalize: whether vectors are scaled to length 1.
        max_tokens: tokens read of one text, special tokens included.
        query_prefix: put before every query.
        document_prefix: put before every document.
        license: SPDX identifier, or the name of the terms.
        smallest_dimension: how far vectors may be cut (`TextEmbedding`'s ``dimensions=``), for
            models trained for it (Matryoshka); ``None`` for others.
    """

    name: str
    dimension: int
    pooling: Pooling
    max_tokens: int
    normalize: bool = True
    query_prefix: str = ""
    document_prefix: str = ""
    license: str = ""
    smallest_dimension: int | None = None

    def __post_init__(self) -> None:
        if self.dimension < 1:
            raise InputError(f"{self.name}: dimension must be at least 1, not {self.dimension}")
        if self.max_tokens < 3:  # [CLS], one token, [SEP]
            raise InputError(f"{self.name}: max_tokens must be at least 3, not {self.max_tokens}")
