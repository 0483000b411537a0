"""Groups of hits: the documents that share a value of their metadata, the best groups first.

Groups of a server are no help, for the reasons that `ranking` states. So hits are requested as for
a query, and grouped here. If these belong to too few groups, more are requested: in a dense search
the hits of other groups, in a hybrid one a longer part of its ranking. A dense search then fills
the groups that have room for more, all in one request. So a group of a dense search has the best
hits of its value; one of a hybrid search has those among the hits that were fused. A document with
several values is not found again for the others once one of its groups was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict
from qdrant_client import models
from qdrant_client.local.payload_value_extractor import value_by_key

from qdrant_embed.collection.collection import Collection
from qdrant_embed.collection.vectors import CollectionVectors
from qdrant_embed.engines.names import HOW_FIELDS_ARE_NAMED, is_field
from qdrant_embed.errors import InputError, check_whole
from qdrant_embed.search.hits import Groups, Hits
from qdrant_embed.search.ranking import CHUNKS_PER_DOCUMENT, DEPTHS
from qdrant_embed.search.search import (
    EncodedQuery,
    QueryResponse,
    Search,
    found_points,
    responses_of,
    with_vectors,
)

Value: TypeAlias = str | int
Points: TypeAlias = list[models.ScoredPoint]

_GROWTH = 4  # of a round
_MOST_HITS = DEPTHS[-1]  # of one round
_MOST_FILLED = 4096  # hits that are requested at once to fill groups


class GroupResponse(BaseModel):
    """The hits that share a value of their metadata.

    Attributes:
        value: the value.
        hits: the best hits with it, best first.
    """

    model_config = ConfigDict(extra="forbid")

    value: str | int
    hits: Annotated[list[QueryResponse], AfterValidator(Hits)]


@dataclass(frozen=True)
class Grouping:
    """How `query_groups`, which describes the options, groups hits.

    Raises:
        InputError: if an option cannot be used.
    """

    group_by: str
    group_size: int

    def __post_init__(self) -> None:
        if not isinstance(self.group_by, str) or not is_field(self.group_by):
            raise InputError(
                "group_by must be a key of the metadata, such as 'url', not "
                f"{self.group_by!r:.80}; {HOW_FIELDS_ARE_NAMED}"
            )
        check_whole("group_size", self.group_size, 1)

    @property
    def has_value(self) -> models.Filter:
        """The filter of points that belong to a group."""
        empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=self.group_by))
        return models.Filter(must_not=[empty])

    def is_one_of(self, values: Iterable[Value]) -> list[models.Condition]:
        """Return conditions, one of which holds for points with one of the values."""
        known = list(values)
        kinds = (
            [value for value in known if isinstance(value, str)],
            [value for value in known if isinstance(value, int)],
        )
        return [
            models.FieldCondition(key=self.group_by, match=models.MatchAny(any=some))
            for some in kinds
            if some
        ]

    def values(self, payload: Mapping[str, Any] | None) -> list[Value]:
        """Return the values that a payload has under the key, each once."""
        return list(
            dict.fromkeys(
                value
                for value in value_by_key(dict(payload or {}), self.group_by) or ()
                if isinstance(value, str | int) and not isinstance(value, bool)
            )
        )


@dataclass
class _Groups:
    """Groups found so far, the best first, and those that have all of their hits."""

    points: dict[Value, Points] = field(default_factory=dict)
    complete: set[Value] = field(default_factory=set)

    def add(self, grouping: Grouping, found: Iterable[models.ScoredPoint]) -> set[Value]:
        """Add points in their order; return the values of groups that are new."""
        before = set(self.points)
        for point in found:
            for value in grouping.values(point.payload):
                if value not in before:
                    group = self.points.setdefault(value, [])
                    if len(group) < grouping.group_size:
                        group.append(point)
        return set(self.points) - before


async def answer_groups(
    collection: Collection, search: Search, grouping: Grouping, query_text: str | None
) -> list[GroupResponse]:
    """Search a collection and return the best groups of hits, the best first.

    Args:
        collection: the collection.
        search: how to search; its `limit` is that of groups.
        grouping: how to group hits.
        query_text: the text; ``None`` to search by examples alone.

    Raises:
        As `query_groups` does.
    """
    texts = search.texts(query_text)

    def prepare(vectors: CollectionVectors) -> EncodedQuery:
        (query,) = search.encoded(vectors, texts)
        return query

    async def ask(vectors: CollectionVectors, query: EncodedQuery) -> _Groups:
        return await _Asked(collection, search, grouping, vectors, query).groups()

    vectors, groups = await with_vectors(collection, search, prepare, ask)
    best = list(groups.points.items())[: search.limit]
    points = [point for _, some in best for point in some]
    hits = iter(await collection.io.compute(responses_of, points, vectors, collection.codec))
    return Groups(
        GroupResponse(value=value, hits=[next(hits) for _ in some]) for value, some in best
    )


@dataclass(frozen=True)
class _Asked:
    """One question for groups, its text being encoded."""

    collection: Collection
    search: Search
    grouping: Grouping
    vectors: CollectionVectors
    query: EncodedQuery

    async def groups(self) -> _Groups:
        """Request hits until there are enough groups."""
        is_fused = self.query.words is not None or self.query.tokens is not None
        return await (self._fused() if is_fused else self._dense())

    async def _dense(self) -> _Groups:
        groups, limit = _Groups(), self.search.limit
        size = limit * self.grouping.group_size
        while True:
            excluded = models.Filter(must_not=self.grouping.is_one_of(groups.points))
            (found,) = await self._found([(size, excluded)])
            new = groups.add(self.grouping, found)
            if len(found) < size:
                groups.complete |= new
            if len(groups.points) >= limit or len(found) < size or not new:
                break
            size = max(size, min(size * _GROWTH, _MOST_HITS))
        await self._fill(groups)
        return groups

    async def _fill(self, groups: _Groups) -> None:
        """Request more hits of the groups that have room for some."""
        size = self.grouping.group_size
        short = [
            value
            for value, points in list(groups.points.items())[: self.search.limit]
            if len(points) < size and value not in groups.complete
        ]
        together = max(1, _MOST_FILLED // size)
        for start in range(0, len(short), together):
            values = short[start : start + together]
            filters = [models.Filter(must=self.grouping.is_one_of([value])) for value in values]
            found = await self._found([(size, condition) for condition in filters])
            groups.points.update(zip(values, found, strict=True))

    async def _fused(self) -> _Groups:
        documents = self.search.groups(self.vectors)
        reach = self.search.prefetch_limit or _MOST_HITS
        if documents and self.search.prefetch_limit is None:
            reach //= CHUNKS_PER_DOCUMENT
        size = min(reach, max(DEPTHS[0], self.search.limit * self.grouping.group_size))
        while True:
            groups = _Groups()
            (found,) = await self._found([(size, models.Filter())])
            groups.add(self.grouping, found)
            if len(groups.points) >= self.search.limit or len(found) < size or size == reach:
                return groups
            size = min(reach, size * _GROWTH)

    async def _found(self, asked: Sequence[tuple[int, models.Filter]]) -> list[Points]:
        """Return the hits of the query that match each of some filters, so many at most."""
        own = self.search.filter
        searches = [
            replace(
                self.search,
                limit=size,
                where=None,
                query_filter=models.Filter(
                    must=[*([] if own is None else [own]), self.grouping.has_value, condition]
                ),
            )
            for size, condition in asked
        ]
        rankings = [search.ranking(self.vectors, self.query) for search in searches]
        return await found_points(self.collection, searches[0], self.vectors, rankings)
