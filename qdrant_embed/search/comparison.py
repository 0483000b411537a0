"""One text searched for in several ways: by one kind of a collection's vectors, or by all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from qdrant_client import models

from qdrant_embed.collection.collection import Collection
from qdrant_embed.collection.vectors import CollectionVectors
from qdrant_embed.search.ranking import Ranking
from qdrant_embed.search.reranking import load_reranker
from qdrant_embed.search.search import (
    EncodedQuery,
    QueryResponse,
    Search,
    checked_queries,
    found_points,
    with_vectors,
)

Way: TypeAlias = Literal["dense", "sparse", "hybrid", "late", "reranked"]


@dataclass(frozen=True)
class Found:
    """What one way of searching has found, and the time that it took.

    Attributes:
        way: the way.
        hits: the hits, best first.
        encoding: seconds until the text's vectors were computed.
        searching: seconds until the collection had answered.
        reranking: seconds until the reranker had scored; ``None`` without one.
    """

    way: Way
    hits: list[QueryResponse]
    encoding: float
    searching: float
    reranking: float | None


@dataclass(frozen=True)
class _Prepared:
    """A ranking that is still to be requested; ``None`` for a text without any of the words."""

    vectors: CollectionVectors
    ranking: Ranking | None
    seconds: float


@dataclass(frozen=True)
class _Asked:
    """The points of a ranking, with the time that encoding and searching took."""

    points: Sequence[models.ScoredPoint]
    encoding: float
    searching: float


def ways_of(vectors: CollectionVectors) -> list[Way]:
    """Return the ways to search a collection with these vectors, without a reranker."""
    ways: list[Way] = ["dense"]
    if vectors.sparse is not None:
        ways += ["sparse", "hybrid"]
    if vectors.late is not None:
        ways.append("late")
    return ways


async def find_by(collection: Collection, search: Search, text: str, way: Way) -> Found | None:
    """Search a collection in one way; return ``None`` if it lacks the vectors for it.

    Args:
        collection: the collection.
        search: how to search; its reranker is used by ``reranked`` alone, which needs it.
        text: the text to search for.
        way: what to search by; ``reranked`` searches by all vectors, as `query` does.

    Raises:
        As `query` does.
    """
    (text,) = checked_queries([text])
    if way != "reranked":
        search = replace(search, reranker=None)

    def prepare(vectors: CollectionVectors) -> _Prepared | None:
        is_reranked = way == "reranked"
        if search.reranker is None if is_reranked else way not in ways_of(vectors):
            return None
        load_reranker(search.reranker)
        started = time.perf_counter()
        only = _only(vectors, way)
        if way == "sparse" and only.sparse is not None:
            query = EncodedQuery(words=only.sparse.queries([text])[0])
            ranking = search.words_ranking(only, query)
        else:
            (query,) = search.encoded(only, [text])
            ranking = search.ranking(only, query)
        return _Prepared(only, ranking, time.perf_counter() - started)

    async def ask(_: CollectionVectors, prepared: _Prepared | None) -> _Asked | None:
        if prepared is None:
            return None
        if prepared.ranking is None:
            return _Asked([], prepared.seconds, 0.0)
        started = time.perf_counter()
        rankings = [prepared.ranking]
        (points,) = await found_points(collection, search, prepared.vectors, rankings)
        return _Asked(points, prepared.seconds, time.perf_counter() - started)

    vectors, asked = await with_vectors(collection, search, prepare, ask)
    if asked is None:
        return None
    started = time.perf_counter()
    (hits,) = await collection.io.compute(
        search.responses, vectors, [text], [asked.points], collection.codec
    )
    seconds = time.perf_counter() - started
    reranking = None if search.reranker is None else seconds
    return Found(way, hits, asked.encoding, asked.searching, reranking)


def _only(vectors: CollectionVectors, way: Way) -> CollectionVectors:
    """Return the vectors that a way searches by."""
    if way == "dense":
        return replace(vectors, sparse=None, late=None)
    return replace(vectors, late=None) if way == "hybrid" else vectors
