"""Query texts to one request, and what it found to results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict
from qdrant_client import models

from qdrant_embed.encoders import Target
from qdrant_embed.errors import InputError, check_whole
from qdrant_embed.points import DOCUMENT_KEY, id_of


class QueryResponse(BaseModel):
    """One hit of a query.

    Attributes:
        id: of the point; a UUID as Qdrant writes it (with hyphens), or a whole number.
        document: the text that was stored; ``""`` for a point stored without one.
        metadata: the whole payload, the text included, as the predecessor had it.
        score: higher is better; cosine similarity with the models of this package.
        embedding: the stored vector, with ``with_vectors=True`` only.
        sparse_embedding: the stored sparse vector, likewise.
    """

    model_config = ConfigDict(extra="forbid")

    id: str | int
    embedding: list[float] | None = None
    sparse_embedding: models.SparseVector | None = None
    metadata: dict[str, Any]
    document: str
    score: float


@dataclass(frozen=True)
class Search:
    """What is asked of a collection besides the text; the names are those of ``query``."""

    query_filter: models.Filter | None = None
    limit: int = 10
    with_vectors: bool = False
    search_params: models.SearchParams | None = None
    score_threshold: float | None = None
    offset: int | None = None
    shard_key_selector: models.ShardKeySelector | None = None

    def __post_init__(self) -> None:
        check_whole("limit", self.limit, 1)
        if self.offset is not None:
            check_whole("offset", self.offset, 0)

    def requests(self, target: Target, texts: Sequence[str]) -> list[models.QueryRequest]:
        """A request for each text, which is encoded here."""
        return [
            models.QueryRequest(
                query=vector,
                using=target.vector_name,
                filter=self.query_filter,
                limit=self.limit,
                with_payload=True,
                with_vector=[target.vector_name] if self.with_vectors else False,
                params=self.search_params,
                score_threshold=self.score_threshold,
                offset=self.offset,
                shard_key=self.shard_key_selector,
            )
            for vector in target.encode_queries(texts).tolist()
        ]


def checked_queries(texts: Iterable[str]) -> list[str]:
    """The query texts as a list.

    Raises:
        InputError: one is empty or no str, or `texts` is itself a str.
    """
    if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
        raise InputError(f"query texts must be a list of str, not {type(texts).__name__}")
    checked = list(texts)
    for text in checked:
        if not isinstance(text, str):
            raise InputError(f"a query text must be a str, not {type(text).__name__}")
        if not text.strip():
            raise InputError("the query text is empty: there is nothing to search for")
    return checked


def results(answer: models.QueryResponse, vector_name: str) -> list[QueryResponse]:
    """The found points as the user sees them, best first."""
    return [_result(point, vector_name) for point in answer.points]


def _result(point: models.ScoredPoint, vector_name: str) -> QueryResponse:
    payload = point.payload or {}
    vectors: dict[str, Any] = point.vector if isinstance(point.vector, dict) else {}
    return QueryResponse(
        id=id_of(point),
        embedding=vectors.get(vector_name),
        metadata=payload,
        document=str(payload.get(DOCUMENT_KEY, "")),
        score=point.score,
    )
