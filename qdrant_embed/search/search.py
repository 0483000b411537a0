"""A search: from a query's texts and options to requests, and from found points to hits."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, Literal, TypeAlias, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from qdrant_client import models

from qdrant_embed.collection.collection import Collection
from qdrant_embed.collection.payload import PARENT_FIELD, PayloadCodec, user_id
from qdrant_embed.collection.vectors import CollectionVectors, DenseVectors, LateVectors
from qdrant_embed.encoder.interfaces import Reranker
from qdrant_embed.errors import DocumentNotFoundError, InputError, ServerRefusal, check_whole
from qdrant_embed.forks import VALIDATING
from qdrant_embed.search.filters import combined, fields_of
from qdrant_embed.search.hits import Hits
from qdrant_embed.search.ranking import (
    CHUNKS_PER_DOCUMENT,
    DEPTHS,
    DenseRanking,
    DiverseRanking,
    FusedRanking,
    Ranking,
    with_payloads,
)
from qdrant_embed.search.reranking import load_reranker, rerank_scores

logger = logging.getLogger(__name__)

P = TypeVar("P")
A = TypeVar("A")

Fusion: TypeAlias = Literal["rrf", "dbsf"]
# the id of a document as it was passed, and that of its point
Example: TypeAlias = tuple[object, int | str]

_WITHOUT_OPTIONS = models.QueryRequest(with_payload=True)
_WITHOUT_INDEX = 20_000  # points that a filter can well read

# candidates that are chosen from with diversity, which takes time with their square, and the most
# that Qdrant accepts
_DIVERSE_DEPTHS, _MOST_DIVERSE = DEPTHS[:3], 16_384
_MIN_RERANKED = 50
_RERANKED_PER_HIT = 3


class QueryResponse(BaseModel):
    """One hit of a query.

    Attributes:
        id: the id that `add` returned: a whole number, a UUID with hyphens, or the str that was
            passed. A chunk has the id of its document.
        document: the stored text; ``""`` for a point that was stored without one. For a chunk, its
            own text; ``metadata["qdrant_embed_chunk"]`` says which part of the document it is.
        metadata: the complete payload, including the text, as in the predecessor.
        score: higher is better; the cosine similarity with the models of this package, the fused
            score in a hybrid query, the sum of the greatest cosines of the query's tokens with late
            interaction, and the reranker's score with a reranker. Cosines are rounded:
            an identical text can score slightly less or more than 1, and with quantised vectors
            and ``rescore=False`` some hundredths more.
        retrieval_score: with a reranker, the score that the hit was found with; else ``None``.
        embedding: the stored vector, only with ``with_vectors=True``.
        sparse_embedding: the stored sparse vector, only with ``with_vectors=True``.
    """

    model_config = ConfigDict(extra="forbid")

    id: str | int
    embedding: list[float] | None = None
    sparse_embedding: models.SparseVector | None = None
    metadata: dict[str, Any]
    document: str
    score: float
    retrieval_score: float | None = None


_RESPONSES = TypeAdapter(list[QueryResponse])


@dataclass(frozen=True)
class EncodedQuery:
    """A text to search for, as vectors; all ``None`` for a search by examples alone.

    Attributes:
        vector: of the dense encoder.
        words: of the sparse encoder, if there is one.
        tokens: of the late-interaction encoder, if there is one.
    """

    vector: list[float] | None = None
    words: models.SparseVector | None = None
    tokens: list[list[float]] | None = None


@dataclass(frozen=True)
class Search:
    """The options of a `query`, which describes them.

    To add an option, give it a field here, check it in `__post_init__`, and use it in the method
    that builds its part of the request. `query` and `query_batch` of both clients pass it.
    """

    query_filter: models.Filter | None = None
    limit: int = 10
    where: Mapping[str, Any] | None = None
    with_vectors: bool = False
    search_params: models.SearchParams | None = None
    score_threshold: float | None = None
    offset: int | None = None
    fusion: Fusion = "rrf"
    prefetch_limit: int | None = None
    reranker: Reranker | None = None
    rerank_limit: int | None = None
    chunks: bool = False
    consistency: models.ReadConsistency | None = None
    shard_key_selector: models.ShardKeySelector | None = None
    timeout: int | None = None
    diversity: float | None = None
    like: Sequence[Example] = ()
    unlike: Sequence[Example] = ()

    def __post_init__(self) -> None:
        _ = self.filter
        self._check_diversity()
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
        if self.rerank_limit is not None:
            if self.reranker is None:
                raise InputError("rerank_limit has no effect without a reranker; pass reranker")
            check_whole("rerank_limit", self.rerank_limit, self._reach)
        if self.prefetch_limit is not None:
            check_whole("prefetch_limit", self.prefetch_limit, self._fetched + self._skipped)

    def _check_diversity(self) -> None:
        """Raise `InputError` if `diversity` is invalid, or an example is liked and is not."""
        share = self.diversity
        if share is not None and not (
            isinstance(share, int | float) and not isinstance(share, bool) and 0 <= share <= 1
        ):
            raise InputError(f"diversity must be a number from 0 to 1, not {share!r:.80}")
        if not self.like:
            return
        unliked = {point for _, point in self.unlike}
        both = [given for given, point in self.like if point in unliked]
        if both:
            raise InputError(f"like and unlike both have the id {both[0]!r:.80}; pass it in one")

    def _check_options(self) -> None:
        """Raise `InputError` if an option of Qdrant's own is invalid."""
        if isinstance(self.consistency, int):
            check_whole("consistency", self.consistency, 1)
        elif self.consistency is not None and self.consistency not in [*models.ReadConsistencyType]:
            raise InputError(
                "consistency must be a number of replicas, 'majority', 'quorum' or 'all', not "
                f"{self.consistency!r:.80}"
            )
        _ = self._options

    @cached_property
    def _options(self) -> models.QueryRequest:
        """The options of Qdrant's own, in a query that lacks everything else."""
        if (self.search_params, self.score_threshold, self.shard_key_selector) == (None,) * 3:
            return _WITHOUT_OPTIONS
        try:
            return models.QueryRequest(
                params=self.search_params,
                score_threshold=self.score_threshold,
                shard_key=self.shard_key_selector,
                with_payload=True,
            )
        except ValidationError as error:
            wrong = error.errors()[0]
            option = {"params": "search_params", "shard_key": "shard_key_selector"}.get(
                str(wrong["loc"][0]), "score_threshold"
            )
            raise InputError(
                f"{option} cannot be {getattr(self, option)!r:.80}: {wrong['msg']}"
            ) from error

    @cached_property
    def filter(self) -> models.Filter | None:
        """The filter of both `query_filter` and `where`."""
        return combined(self.query_filter, self.where)

    @property
    def _reach(self) -> int:
        """Rank of the last hit."""
        return self.limit + (self.offset or 0)

    @property
    def _fetched(self) -> int:
        """Number of hits to request: `limit`, or more with a reranker."""
        if self.reranker is None:
            return self.limit
        return self.rerank_limit or max(_MIN_RERANKED, _RERANKED_PER_HIT * self._reach)

    @property
    def _skipped(self) -> int:
        """Number of best hits that Qdrant omits: `offset`, or none with a reranker."""
        return 0 if self.reranker is not None else self.offset or 0

    @property
    def needed(self) -> int:
        """Number of hits to request at least: more, for a reranker, are only better."""
        return self.limit if self.reranker is None else self.rerank_limit or self._reach

    def texts(self, query_text: str | None) -> list[str] | None:
        """Return the texts to search for; ``None`` to search by examples alone.

        Raises:
            InputError: if there is nothing to search for, the text is empty, or an option needs
                one.
        """
        if query_text is not None:
            return checked_queries([query_text])
        if not self.like:
            raise InputError(
                "unlike needs something to search for besides: pass query_text, or like"
                if self.unlike
                else "query_text is missing: pass a text, or ids of documents as like"
            )
        for option, value in (("diversity", self.diversity), ("reranker", self.reranker)):
            if value is not None:
                raise InputError(f"{option} compares hits with a text: pass query_text, too")
        return None

    def groups(self, vectors: CollectionVectors) -> bool:
        """Return whether each hit is the best chunk of a document."""
        return vectors.chunked and not self.chunks

    def options(self) -> dict[str, Any]:
        """Return the arguments that go with a request and are not part of it."""
        return {"consistency": self.consistency, "timeout": self.timeout}

    def rankings(self, vectors: CollectionVectors, texts: Sequence[str] | None) -> list[Ranking]:
        """Encode texts and return the page of each, still to be requested.

        Args:
            vectors: those of the collection.
            texts: the texts; ``None`` to search by examples alone, for a single page.

        Raises:
            InputError: if a search that is hybrid or has diversity does not reach the last hit, or
                fuses by scores, which have none.
            ModelError: if the reranker's model cannot be found, downloaded or read.
        """
        load_reranker(self.reranker)
        fuses = vectors.sparse is not None or vectors.late is not None
        if fuses and self.diversity is not None and self.fusion != "rrf":
            raise InputError(
                f"fusion={self.fusion!r} fuses by scores, but diversity is in the order of hits: "
                "pass fusion='rrf', or no diversity"
            )
        return [self.ranking(vectors, query) for query in self.encoded(vectors, texts)]

    def encoded(
        self, vectors: CollectionVectors, texts: Sequence[str] | None
    ) -> list[EncodedQuery]:
        """Encode texts; see `rankings`."""
        if texts is None:
            return [EncodedQuery()]
        rows, words = vectors.queries(texts)
        none = [None] * len(texts)
        sparse = none if vectors.sparse is None else words
        late = none if vectors.late is None else vectors.late.queries(texts)
        return [EncodedQuery(*each) for each in zip(rows.tolist(), sparse, late, strict=True)]

    def ranking(self, vectors: CollectionVectors, query: EncodedQuery) -> Ranking:
        """Return the page of an encoded text, still to be requested; see `rankings`."""
        documents, last = self.groups(vectors), self._skipped + self._fetched
        condition = self._condition(vectors)
        if query.tokens is not None and vectors.late is not None:
            return self._late_ranking(vectors, vectors.late, query, condition)
        if query.words is None and self.diversity is None:
            request = self._request(
                vectors,
                using=vectors.dense.vector_name or None,
                query=self._near(vectors, query),
                filter=condition,
                params=self._params(vectors.dense),
            )
            return DenseRanking(request, self._skipped, last, documents=documents)
        dense = self._dense(vectors, query, condition)
        if query.words is not None:
            return FusedRanking(
                self._request(
                    vectors,
                    prefetch=[dense, *self._sparse(vectors, query, condition)],
                    query=models.FusionQuery(fusion=models.Fusion(self.fusion)),
                ),
                self._skipped,
                last,
                documents=documents,
                depths=self._depths(last, documents),
            )
        request = self._request(
            vectors,
            prefetch=dense.prefetch,
            using=dense.using,
            query=dense.query,
            filter=dense.filter,
            params=dense.params,
        )
        depths = self._depths(last, documents)
        return DiverseRanking(request, self._skipped, last, documents=documents, depths=depths)

    def words_ranking(self, vectors: CollectionVectors, query: EncodedQuery) -> Ranking | None:
        """Return the page of an encoded text by its words alone; ``None`` if it has no words."""
        branches = self._sparse(vectors, query, self.filter)
        if not branches:
            return None
        (words,) = branches
        request = self._request(
            vectors, query=words.query, using=words.using, filter=words.filter, params=words.params
        )
        last = self._skipped + self._fetched
        return DenseRanking(request, self._skipped, last, documents=self.groups(vectors))

    def _late_ranking(
        self,
        vectors: CollectionVectors,
        late: LateVectors,
        query: EncodedQuery,
        condition: models.Filter | None,
    ) -> Ranking:
        """Return the page of what the other vectors find, ranked by the vectors of tokens.

        With diversity, that ranking and the order in which hits are chosen from it are fused: the
        latter alone is by dense vectors, and would lose what late interaction gained.
        """
        documents, last = self.groups(vectors), self._skipped + self._fetched
        using, depths = vectors.dense.vector_name or None, self._depths(last, documents)
        params, name = self._params(vectors.dense), late.vector_name
        nearest = self._branch(using, self._near(vectors, query), condition, params)
        branches = [nearest, *self._sparse(vectors, query, condition)]
        ranked = models.Prefetch(
            prefetch=branches, query=query.tokens, using=name, params=self._params(late)
        )
        if not self.diversity or query.vector is None:
            request = self._request(
                vectors, prefetch=branches, query=ranked.query, using=name, params=ranked.params
            )
        else:
            mmr = models.Mmr(diversity=self.diversity)  # of as many candidates as hits
            chosen = models.Prefetch(
                prefetch=[ranked],
                query=models.NearestQuery(nearest=query.vector, mmr=mmr),
                using=using,
                params=self._params(vectors.dense),
            )
            request = self._request(
                vectors,
                prefetch=[ranked, chosen],
                query=models.FusionQuery(fusion=models.Fusion(self.fusion)),
            )
        return FusedRanking(request, self._skipped, last, documents=documents, depths=depths)

    def _sparse(
        self, vectors: CollectionVectors, query: EncodedQuery, condition: models.Filter | None
    ) -> list[models.Prefetch]:
        """Return the search by sparse vectors; none for a text without any of the model's words."""
        if vectors.sparse is None or query.words is None or not query.words.indices:
            return []
        return [
            self._branch(vectors.sparse.vector_name, query.words, condition, self._options.params)
        ]

    def _dense(
        self,
        vectors: CollectionVectors,
        query: EncodedQuery,
        condition: models.Filter | None,
    ) -> models.Prefetch:
        """Return the search by dense vectors, with examples and diversity."""
        using = vectors.dense.vector_name or None
        params = self._params(vectors.dense)
        nearest = self._branch(using, self._near(vectors, query), condition, params)
        if self.diversity is None or query.vector is None:
            return nearest
        mmr = models.Mmr(diversity=self.diversity)  # of as many candidates as hits
        chosen = models.NearestQuery(nearest=query.vector, mmr=mmr)
        diverse = self._branch(using, chosen, condition, params)
        # Qdrant's core does not choose from the candidates of a branch unless these are another's
        if query.words is None and not self.like and not self.unlike:
            return diverse
        return diverse.model_copy(update={"prefetch": [nearest], "filter": None})

    def _near(
        self, vectors: CollectionVectors, query: EncodedQuery
    ) -> list[float] | models.RecommendQuery:
        """Return the query by a text's vector, or by it and the examples."""
        if query.vector is not None and not self.like and not self.unlike:
            return query.vector
        liked: list[Any] = []
        if query.vector is not None:
            # the mean is of stored vectors, which Qdrant scales to length 1 for this distance
            is_scaled = vectors.dense.encoder.distance == "Cosine"
            length = (math.hypot(*query.vector) if is_scaled else 0) or 1
            liked = [[value / length for value in query.vector]]
        examples = models.RecommendInput(
            positive=[*liked, *(point for _, point in self.like)],
            negative=[point for _, point in self.unlike] or None,
        )
        return models.RecommendQuery(recommend=examples)

    def _condition(self, vectors: CollectionVectors) -> models.Filter | None:
        """Return the filter of the query, without the examples themselves and their chunks."""
        if not self.like and not self.unlike:
            return self.filter
        examples: list[int | str | UUID] = [
            *dict.fromkeys(point for _, point in (*self.like, *self.unlike))
        ]
        excluded: list[models.Condition] = [models.HasIdCondition(has_id=examples)]
        if vectors.chunked:
            match = models.MatchAny(any=[str(point) for point in examples])
            excluded.append(models.FieldCondition(key=PARENT_FIELD, match=match))
        own = self.filter
        return models.Filter(must=None if own is None else [own], must_not=excluded)

    def retrieval(self, vectors: CollectionVectors) -> dict[str, Any]:
        """Return the arguments of ``retrieve``, besides the ids."""
        return {
            "with_payload": True,
            "with_vectors": self._with_vectors(vectors),
            "shard_key_selector": self.shard_key_selector,
            **self.options(),
        }

    def responses(
        self,
        vectors: CollectionVectors,
        texts: Sequence[str],
        answers: Sequence[Sequence[models.ScoredPoint]],
        codec: PayloadCodec,
    ) -> list[list[QueryResponse]]:
        """Return the hits of each text, best first, reranked if a reranker is set.

        Raises:
            ModelError: if the reranker returned something else than one score per text.
        """
        found = [responses_of(answer, vectors, codec) for answer in answers]
        if self.reranker is None:
            return found
        return [
            self._reranked(self.reranker, text, hits)
            for text, hits in zip(texts, found, strict=True)
        ]

    def _depths(self, last: int, documents: bool) -> Sequence[int]:
        """Return the candidates of each branch, or to choose from, tier by tier."""
        diverse = self.diversity is not None
        if self.prefetch_limit is not None:
            if diverse and self.prefetch_limit > _MOST_DIVERSE:
                raise InputError(
                    f"prefetch_limit={self.prefetch_limit}, but with diversity hits are chosen "
                    f"from {_MOST_DIVERSE:,} candidates at most"
                )
            return [self.prefetch_limit]
        depths = _DIVERSE_DEPTHS if diverse else DEPTHS
        depths = depths[1:] if documents else depths
        reach = depths[-1] // (CHUNKS_PER_DOCUMENT if documents else 1)
        if last > reach:
            search = "a search with diversity" if diverse else "a search by several vectors"
            raise InputError(
                f"limit, offset and rerank_limit reach hit {last}, but {search} ranks "
                f"{reach} by default: pass prefetch_limit, at least {last}"
            )
        return depths

    def _with_vectors(self, vectors: CollectionVectors) -> list[str] | bool:
        if not self.with_vectors:
            return False
        return vectors.shown_names if any(vectors.names) else True

    def _request(
        self, vectors: CollectionVectors, *, params: models.SearchParams | None = None, **query: Any
    ) -> models.QueryRequest:
        query |= {"params": params, "with_vector": self._with_vectors(vectors)}
        return self._options.model_copy(update=query)  # all of it is checked

    def _params(self, searched: DenseVectors | LateVectors) -> models.SearchParams | None:
        """Return the options of a search by some vectors: quantised ones are scored again."""
        own = self._options.params
        return searched.search_params if own is None else own

    def _branch(
        self,
        using: str | None,
        query: Any,
        condition: models.Filter | None,
        params: models.SearchParams | None,
    ) -> models.Prefetch:
        return models.Prefetch(
            query=query,
            using=using,
            filter=condition,
            params=params,
        )

    def _reranked(
        self, reranker: Reranker, text: str, hits: Sequence[QueryResponse]
    ) -> list[QueryResponse]:
        scores = rerank_scores(reranker, text, [hit.document for hit in hits])
        rescored = [
            hit.model_copy(update={"score": score, "retrieval_score": hit.score})
            for hit, score in zip(hits, scores, strict=True)
        ]
        rescored.sort(key=lambda hit: hit.score, reverse=True)
        return Hits(rescored[self.offset or 0 : self._reach])


async def answer(
    collection: Collection, search: Search, texts: Sequence[str] | None
) -> list[list[QueryResponse]]:
    """Search a collection and return the hits of each text, best first.

    The vectors to search in are remembered, or else read first. If the server refuses a request
    with remembered vectors, the collection may have been replaced by one with other vectors, so
    they are read again, and the request is repeated if they differ.

    Args:
        collection: the collection.
        search: how to search.
        texts: the checked texts; ``None`` to search by examples alone, for one list of hits.

    Raises:
        As `query` does.
    """
    if texts == []:
        return []

    async def ask(
        vectors: CollectionVectors, rankings: Sequence[Ranking]
    ) -> list[list[models.ScoredPoint]]:
        return await found_points(collection, search, vectors, rankings)

    vectors, answers = await with_vectors(
        collection, search, lambda vectors: search.rankings(vectors, texts), ask
    )
    return await collection.io.compute(
        search.responses, vectors, texts or [""], answers, collection.codec
    )


async def with_vectors(
    collection: Collection,
    search: Search,
    prepare: Callable[[CollectionVectors], P],
    ask: Callable[[CollectionVectors, P], Coroutine[Any, Any, A]],
) -> tuple[CollectionVectors, A]:
    """Search by a collection's vectors, once more by those that it has now if that is refused.

    Args:
        collection: the collection.
        search: how to search.
        prepare: does what takes computing, such as to encode texts.
        ask: sends requests.

    Returns:
        The vectors, and what `ask` returned.

    Raises:
        As `query` does.
    """
    collection.requests.limit_time(search.timeout)
    remembered = collection.selection.recent.find(collection.name)
    vectors = remembered or await collection.vectors_for_query()
    if remembered is None:
        _tell_of_no_index(collection)
    await _advise(collection, search.filter)
    prepared = await collection.io.compute(prepare, vectors)
    try:
        return vectors, await ask(vectors, prepared)
    except collection.io.engine.refusals:
        await _check_examples(collection, search)
        if remembered is None:
            raise
        vectors = await collection.vectors_for_query()
        if vectors == remembered:
            raise
        prepared = await collection.io.compute(prepare, vectors)
        return vectors, await ask(vectors, prepared)


async def _check_examples(collection: Collection, search: Search) -> None:
    """Raise `DocumentNotFoundError` if an example of a refused search does not exist."""
    examples = [*search.like, *search.unlike]
    if not examples:
        return
    records = await collection.requests.retrieve(
        list(dict.fromkeys(point for _, point in examples)),
        with_payload=False,
        with_vectors=False,
        shard_key_selector=search.shard_key_selector,
        **search.options(),
    )
    there = {str(record.id) for record in records}
    missing = [given for given, point in examples if str(point) not in there]
    if missing:
        raise DocumentNotFoundError(
            f"collection {collection.name!r} has no documents with {len(missing)} of the ids in "
            f"like and unlike ({', '.join(map(repr, missing[:5]))}"
            f"{', ...' if len(missing) > 5 else ''}): add them, or omit these ids",
            missing_ids=missing,
        )


def _tell_of_no_index(collection: Collection) -> None:
    """Log once that a collection was loaded without an index, and still has none."""
    name, selection = collection.name, collection.selection
    known = selection.recent.last_read(name)
    if known is None or known.bulk is None or (known.points or 0) <= _WITHOUT_INDEX:
        return
    if (name, "") not in selection.advised:
        selection.advised.add((name, ""))
        logger.warning(
            "collection %r has %s points and no index, because it is being loaded or that was "
            "interrupted; so each search compares all vectors. Once all is loaded, "
            "client.wait_until_indexed(%s) builds the index (logged once)",
            name,
            f"{known.points or 0:,}",
            json.dumps(name, ensure_ascii=False),
        )


async def _advise(collection: Collection, condition: models.Filter | None) -> None:
    """Log which fields of a filter should have an index, once for each.

    What was read of the collection may be a minute old: it is read again before something is said.
    """
    if condition is None or not collection.io.engine.payload_index:
        return
    name, selection = collection.name, collection.selection
    known = selection.recent.last_read(name)
    if known is None or (known.points or 0) <= _WITHOUT_INDEX:
        return
    fields = {
        field: kind
        for field, kind in fields_of(condition).items()
        if field not in known.indexed and (name, field) not in selection.advised
    }
    if not fields:
        return
    selection.advised |= {(name, field) for field in fields}
    known = await collection.read()
    for field, kind in fields.items():
        if field not in known.indexed:
            logger.warning(
                "collection %r has %s points and no index of %r, so a filter on it is slow: "
                "client.create_payload_index(%s) makes it fast%s (logged once)",
                name,
                f"{known.points or 0:,}",
                field,
                ", ".join(json.dumps(given, ensure_ascii=False) for given in (name, field, kind)),
                '; "float" if it has fractions' if kind == "integer" else "",
            )


async def found_points(
    collection: Collection,
    search: Search,
    vectors: CollectionVectors,
    rankings: Sequence[Ranking],
) -> list[list[models.ScoredPoint]]:
    """Send requests until each text's page is known, and return the points of each."""
    while unknown := [ranking for ranking in rankings if not ranking.known]:
        most = _most(collection, search)
        requests = [ranking.requests(most) for ranking in unknown]
        try:
            answers = await _send(collection, search, [r for several in requests for r in several])
        except ServerRefusal:
            if _most(collection, search) == most:
                raise
            continue  # with the cap that the server has named
        found = iter(answers)
        for ranking, several in zip(unknown, requests, strict=True):
            ranking.take(several, list(islice(found, len(several))))
    ids = dict.fromkeys(point for ranking in rankings for point in ranking.bare())
    if not ids:
        return [ranking.page() for ranking in rankings]
    retrieved = await collection.requests.retrieve(list(ids), **search.retrieval(vectors))
    records = {record.id: record for record in retrieved}
    return [with_payloads(ranking.page(), records, ranking.bare()) for ranking in rankings]


def _most(collection: Collection, search: Search) -> int | None:
    """Return the largest limit that the server accepts, as far as that is enough for the search."""
    most = collection.requests.cap("limit")
    return None if most is None or most < search.needed else most


async def _send(
    collection: Collection, search: Search, requests: Sequence[models.QueryRequest]
) -> list[list[models.ScoredPoint]]:
    """Send queries, in one request as a rule, and return the points that each found."""
    answers = await collection.requests.query(requests, search.needed, **search.options())
    return [answer.points for answer in answers]


def checked_queries(texts: Iterable[str]) -> list[str]:
    """Return the query texts as a list.

    Raises:
        InputError: if one is empty or not a str, or `texts` is itself a str.
    """
    if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
        raise InputError(f"query_texts must be a list of str, not {type(texts).__name__}")
    checked = list(texts)
    for text in checked:
        if not isinstance(text, str):
            raise InputError(f"a query text must be a str, not {type(text).__name__}")
        if not text.strip():
            raise InputError("a query text is empty; pass a text to search for")
    return checked


def responses_of(
    points: Sequence[models.ScoredPoint], vectors: CollectionVectors, codec: PayloadCodec
) -> list[QueryResponse]:
    """Return points as hits, in their order.

    Raises:
        ServerRefusal: if a point cannot be a hit.
    """
    dense = vectors.dense.vector_name
    sparse = vectors.sparse.vector_name if vectors.sparse else None
    rows = []
    for point in points:
        payload = point.payload or {}
        row: dict[str, Any] = {
            "id": user_id(point),
            "metadata": payload,
            "document": codec.document(payload),
            "score": point.score,
        }
        if point.vector is not None:
            # a single unnamed vector is returned without its name
            stored = point.vector if isinstance(point.vector, dict) else {"": point.vector}
            row["embedding"] = stored.get(dense)
            row["sparse_embedding"] = None if sparse is None else stored.get(sparse)
        rows.append(row)
    try:
        with VALIDATING:
            return Hits(_RESPONSES.validate_python(rows))  # faster than one at a time
    except ValidationError as error:
        wrong = error.errors()[0]
        place = [*wrong["loc"]]
        raise ServerRefusal(
            f"point {points[int(place[0])].id!r} was found, but its "
            f"{'.'.join(map(str, place[1:]))} cannot "
            f"be used: {wrong['msg']}. Pass with_vectors=False, or store the point again"
        ) from error
