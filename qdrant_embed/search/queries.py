"""Query texts to one request, and what it found to results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, ValidationError
from qdrant_client import models

from qdrant_embed.collection.vectors import DenseField, SparseField, Target
from qdrant_embed.errors import InputError, check_whole
from qdrant_embed.ingest.chunks import PARENT_FIELD
from qdrant_embed.ingest.documents import DOCUMENT_KEY
from qdrant_embed.ingest.points import id_of
from qdrant_embed.search.reranking import Reranker, check_reranker, rerank_scores

Fusion: TypeAlias = Literal["rrf", "dbsf"]

_LEAST_CANDIDATES = 100  # of each branch of a hybrid query
_CANDIDATES_PER_HIT = 4
_CHUNKS_PER_CANDIDATE = 4  # where a hit is the best of a document's
_LEAST_RERANKED = 50
_RERANKED_PER_HIT = 3


class QueryResponse(BaseModel):
    """One hit of a query.

    Attributes:
        id: as `add` returned it: a whole number, a UUID as Qdrant writes it (with hyphens), or
            the str that was given. That of a chunk is its document's.
        document: the text that was stored; ``""`` for a point stored without one. Of a chunk its
            own text, in ``metadata["qdrant_embed_chunk"]`` is where it stands.
        metadata: the whole payload, the text included, as the predecessor had it.
        score: higher is better; cosine similarity with the models of this package, in a hybrid
            query what the fusion makes of the ranks or scores, with a reranker its own score.
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
    """What is asked of a collection besides the text; the names are those of ``query``.

    `query_filter` is the whole filter, ``where`` included.
    """

    query_filter: models.Filter | None = None
    limit: int = 10
    with_vectors: bool = False
    search_params: models.SearchParams | None = None
    score_threshold: float | None = None
    offset: int | None = None
    shard_key_selector: models.ShardKeySelector | None = None
    fusion: Fusion = "rrf"
    prefetch_limit: int | None = None
    reranker: Reranker | None = None
    rerank_limit: int | None = None
    chunks: bool = False
    document_key: str = DOCUMENT_KEY
    consistency: models.ReadConsistency | None = None
    timeout: int | None = None

    def __post_init__(self) -> None:
        check_whole("limit", self.limit, 1)
        if self.timeout is not None:
            check_whole("timeout", self.timeout, 1)
        for option, value in (("with_vectors", self.with_vectors), ("chunks", self.chunks)):
            if not isinstance(value, bool):
                raise InputError(f"{option} must be True or False, not {value!r:.80}")
        if self.offset is not None:
            check_whole("offset", self.offset, 0)
        if self.fusion not in ("rrf", "dbsf"):
            raise InputError(f"fusion must be 'rrf' or 'dbsf', not {self.fusion!r}")
        self._check_options()
        check_reranker(self.reranker)
        if self.rerank_limit is not None:
            if self.reranker is None:
                raise InputError("rerank_limit needs a reranker")
            check_whole("rerank_limit", self.rerank_limit, self._reach)
        if self.prefetch_limit is not None:
            check_whole("prefetch_limit", self.prefetch_limit, self._fetched + self._skipped)

    def _check_options(self) -> None:
        """Raises `InputError` where Qdrant's own options cannot be sent to it."""
        if isinstance(self.consistency, int):
            check_whole("consistency", self.consistency, 1)
        elif self.consistency not in (None, *models.ReadConsistencyType):
            raise InputError(
                "consistency must be a number of replicas, 'majority', 'quorum' or 'all', not "
                f"{self.consistency!r:.80}"
            )
        try:
            models.QueryRequest(
                params=self.search_params,
                score_threshold=self.score_threshold,
                shard_key=self.shard_key_selector,
            )
        except ValidationError as error:
            wrong = error.errors()[0]
            option = {"params": "search_params", "shard_key": "shard_key_selector"}.get(
                str(wrong["loc"][0]), "score_threshold"
            )
            raise InputError(
                f"{option} cannot be {getattr(self, option)!r:.80}: {wrong['msg']}"
            ) from error

    @property
    def _reach(self) -> int:
        """How far down the ranking the last hit is."""
        return self.limit + (self.offset or 0)

    @property
    def _fetched(self) -> int:
        """Hits asked of Qdrant: with a reranker more than are wanted, from the first on."""
        if self.reranker is None:
            return self.limit
        return self.rerank_limit or max(_LEAST_RERANKED, _RERANKED_PER_HIT * self._reach)

    @property
    def _skipped(self) -> int:
        return 0 if self.reranker is not None else self.offset or 0

    def groups(self, target: Target) -> bool:
        """Whether each hit is the best of a document's chunks."""
        return target.chunked and not self.chunks

    def options(self) -> dict[str, Any]:
        """The arguments that go with a request instead of into it."""
        return {"consistency": self.consistency, "timeout": self.timeout}

    def grouped(self, request: models.QueryRequest) -> dict[str, Any]:
        """The arguments of ``query_points_groups`` that ask the same of documents."""
        return {
            "group_by": PARENT_FIELD,
            "group_size": 1,
            "query": request.query,
            "using": request.using,
            "prefetch": request.prefetch,
            "query_filter": request.filter,
            "search_params": request.params,
            "limit": self._fetched + self._skipped,  # groups have no offset
            "with_payload": request.with_payload,
            "with_vectors": request.with_vector,
            "score_threshold": request.score_threshold,
            "shard_key_selector": request.shard_key,
            **self.options(),
        }

    def best_of(self, groups: models.GroupsResult) -> list[models.ScoredPoint]:
        """The best chunks of the documents that were asked for."""
        return [group.hits[0] for group in groups.groups[self._skipped :]]

    def requests(self, target: Target, texts: Sequence[str]) -> list[models.QueryRequest]:
        """A request for each text, which is encoded here."""
        dense = target.dense.queries(texts).tolist()
        if target.sparse is None:
            return [
                self._request(target, using=target.dense.vector_name or None, query=vector)
                for vector in dense
            ]
        sparse = target.sparse.queries(texts)
        return [
            self._request(
                target,
                prefetch=[
                    self._branch(target, target.dense, vector),
                    # a text without any word of the sparse model finds nothing there
                    *([self._branch(target, target.sparse, words)] if words.indices else []),
                ],
                query=models.FusionQuery(fusion=models.Fusion(self.fusion)),
            )
            for vector, words in zip(dense, sparse, strict=True)
        ]

    def responses(
        self, target: Target, texts: Sequence[str], answers: Sequence[Sequence[models.ScoredPoint]]
    ) -> list[list[QueryResponse]]:
        """What was found for each text, best first, reranked if so asked.

        Raises:
            ModelError: the reranker gave something else than a score for each text.
        """
        found = [
            [_result(point, target, self.document_key) for point in answer] for answer in answers
        ]
        if self.reranker is None:
            return found
        return [
            self._reranked(self.reranker, text, hits)
            for text, hits in zip(texts, found, strict=True)
        ]

    def _request(self, target: Target, **query: Any) -> models.QueryRequest:
        names = [target.dense.vector_name]
        if target.sparse is not None:
            names.append(target.sparse.vector_name)
        hybrid = target.sparse is not None
        return models.QueryRequest(
            **query,
            filter=None if hybrid else self.query_filter,
            params=None if hybrid else self.search_params,
            limit=self._fetched,
            offset=self._skipped or None,
            with_payload=True,
            with_vector=(names if any(names) else True) if self.with_vectors else False,
            score_threshold=self.score_threshold,
            shard_key=self.shard_key_selector,
        )

    def _branch(
        self,
        target: Target,
        field: DenseField | SparseField,
        query: list[float] | models.SparseVector,
    ) -> models.Prefetch:
        reach = self._fetched + self._skipped
        limit = max(_LEAST_CANDIDATES, _CANDIDATES_PER_HIT * reach)
        if self.groups(target):
            limit *= _CHUNKS_PER_CANDIDATE
        return models.Prefetch(
            query=query,
            using=field.vector_name or None,
            filter=self.query_filter,
            params=self.search_params,
            limit=self.prefetch_limit or limit,
        )

    def _reranked(
        self, reranker: Reranker, text: str, hits: Sequence[QueryResponse]
    ) -> list[QueryResponse]:
        scores = rerank_scores(reranker, text, [hit.document for hit in hits])
        rescored = [
            hit.model_copy(update={"score": score}) for hit, score in zip(hits, scores, strict=True)
        ]
        rescored.sort(key=lambda hit: hit.score, reverse=True)
        return rescored[self.offset or 0 : self._reach]


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


def _result(point: models.ScoredPoint, target: Target, document_key: str) -> QueryResponse:
    payload = point.payload or {}
    # one unnamed vector comes without its name
    vectors: dict[str, Any] = point.vector if isinstance(point.vector, dict) else {"": point.vector}
    return QueryResponse(
        id=id_of(point),
        embedding=vectors.get(target.dense.vector_name),
        sparse_embedding=vectors.get(target.sparse.vector_name) if target.sparse else None,
        metadata=payload,
        document=str(payload.get(document_key, "")),
        score=point.score,
    )
