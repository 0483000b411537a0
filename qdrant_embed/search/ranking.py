"""The order of what is found: pages, equal scores, and documents found by their chunks.

A text has one ranking in a collection, and a page is a slice of it. The page at `offset` continues
the one before, and ``limit=3`` is the beginning of ``limit=10``. Three things would break that, and
each is settled here, for every store alike:

- Equal scores. A server returns them in any order, and those of a hybrid search in another order
  each time. Here they are ordered by id. A page is requested with a few hits on either side, so
  that the ties at its ends are known. If these are not enough, more is requested, without payloads.
- The candidates of a hybrid search, which decide its scores. Their number is that of a tier, one of
  `DEPTHS`, and does not depend on the page. The ranking is the fused list of the first tier, then
  what the second tier has in addition, and so on. It ends with the first tier that has fewer hits
  than candidates were requested of a branch, because there are no more points.
- Documents. Their ranking is that of their best chunks. Groups of a server are no help: it searches
  them in rounds, fuses the ranks of each round separately, and gives up after the fifth. So several
  times as many chunks are requested as documents. If these belong to too few documents, more are
  requested: in a dense search the chunks of other documents, in a hybrid search whole tiers.

With diversity, the order of a dense search is that in which Qdrant chooses hits from the candidates
of a tier, whose scores go up and down; so it is taken as it is, and read from its beginning. In a
hybrid search it is the dense branch that is in such an order when it is fused. The candidates of
late interaction reach Qdrant's core in any order: with diversity, documents whose vectors are equal
then change places from request to request.

As a rule that is one request, and one for all texts of a batch. If more is needed, hits come
without payloads until the ranking is known, and then those of the page are retrieved. A dense
search for documents goes on while rounds find further ones, each of them with more chunks than the
one before.

Strict mode can have a cap for the limit of a request. Then all requests keep to it: hits on either
side of a page and further tiers give way, so that ties at a page's ends are as the server has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, TypeAlias

from qdrant_client import models

from qdrant_embed.collection.payload import PARENT_FIELD, chunk_parent

Points: TypeAlias = list[models.ScoredPoint]

CHUNKS_PER_DOCUMENT = 4  # requested for each document
_GROWTH = 4  # of a tier, and of a round
DEPTHS = tuple(100 * _GROWTH**tier for tier in range(5))  # candidates of each branch
_DENSE_SLACK = 1  # hits on either side of a page; texts stored twice are few
_FUSED_SLACK = 3  # a rank of one branch is as good as that of the other
_WIDE_SLACK = 256
_MOST_CHUNKS = 25_600  # of one round


class Ranking:
    """One text's page: what to request next, and what is known of it.

    Args:
        request: the query, complete but for its limit and offset.
        first: rank of the page's first hit, from 0.
        last: rank of the hit after the page's last one.
        documents: whether the hits are documents, each with its best chunk.

    Attributes:
        known: whether the page is known, so that there is nothing left to request.
    """

    def __init__(
        self, request: models.QueryRequest, first: int, last: int, *, documents: bool
    ) -> None:
        self._request, self._first, self._last = request, first, last
        self._documents = documents
        # most payloads would be those of documents before the page
        self._deep = documents and first > last - first
        self._from = 0  # rank of the first of `_hits`
        self._capped = False  # whether there is no room for hits on either side of the page
        self._hits: Points = []
        self._complete: dict[models.ExtendedPointId, models.ScoredPoint] = {}  # with payloads
        self.known = False

    def requests(self, most: int | None = None) -> list[models.QueryRequest]:
        """Return what to request next, all of it in one batch.

        Args:
            most: the largest limit that the server accepts, if there is such a cap.
        """
        raise NotImplementedError

    def take(
        self,
        requests: Sequence[models.QueryRequest],
        answers: Sequence[Sequence[models.ScoredPoint]],
    ) -> None:
        """Learn what the requests found."""
        raise NotImplementedError

    def page(self) -> Points:
        """Return the hits of the page, best first."""
        return [self._complete.get(point.id, point) for point in self._page_hits()]

    def bare(self) -> list[models.ExtendedPointId]:
        """Return the ids of the page's hits that came without payload."""
        return [point.id for point in self._page_hits() if point.id not in self._complete]

    def _page_hits(self) -> Points:
        return self._hits[self._first - self._from : self._last - self._from]

    def _with_slack(self, slack: int, last: int, most: int | None) -> int:
        """Set the first rank to request, and return how many hits; without slack under a cap."""
        first = 0 if self._documents else self._first
        self._from = max(0, first - slack)
        limit = last + slack - self._from
        self._capped = _at_most(limit, most) < limit
        if self._capped:
            self._from = first
        return _at_most(limit, most)

    def _asked(
        self, limit: int, *, offset: int = 0, bare: bool, **changes: Any
    ) -> models.QueryRequest:
        update: dict[str, Any] = {"limit": limit, "offset": offset or None, **changes}
        if bare:
            update["with_payload"] = [PARENT_FIELD] if self._documents else False
            update["with_vector"] = False
        return self._request.model_copy(update=update)

    def _ordered(
        self, request: models.QueryRequest, points: Sequence[models.ScoredPoint]
    ) -> Points:
        """Return what a request found, equal scores by id."""
        if request.with_payload is True:
            self._complete.update({point.id: point for point in points})
        return _by_id(points, _document_and_id if self._documents else _id)

    def _starts(self) -> bool:
        """Return whether no hit before those that are known can belong on the page."""
        hits, start = self._hits, self._first - self._from
        return self._from == 0 or len(hits) <= start or hits[0].score != hits[start].score

    def _reaches(self, lowest: float | None) -> bool:
        """Return whether no hit that scores `lowest` or less can change the page."""
        end = self._last - self._from
        return len(self._hits) >= end and self._hits[end - 1].score != lowest


class DenseRanking(Ranking):
    """The page of a search by one vector; see `Ranking`."""

    _round = 0

    def requests(self, most: int | None = None) -> list[models.QueryRequest]:
        """See `Ranking.requests`."""
        if self._documents:
            limit = CHUNKS_PER_DOCUMENT * self._last
            if self._round:
                limit = max(limit, min(limit * _GROWTH**self._round, _MOST_CHUNKS))
            limit = _at_most(limit, most)
            bare = self._deep or self._round > 0
            return [self._asked(limit, bare=bare, filter=self._other_documents())]
        slack = _WIDE_SLACK if self._round else _DENSE_SLACK
        limit = self._with_slack(slack, self._last, most)
        if self._round:
            return [self._asked(limit, offset=self._from, bare=True)]
        self._request.limit, self._request.offset = limit, self._from or None
        return [self._request]

    def take(
        self,
        requests: Sequence[models.QueryRequest],
        answers: Sequence[Sequence[models.ScoredPoint]],
    ) -> None:
        """See `Ranking.take`."""
        (request,), (points,) = requests, answers
        found = self._ordered(request, points)
        self._round += 1
        lowest = points[-1].score if points else None
        exhausted = len(points) < (request.limit or 0)
        if self._documents:
            # what a round found excludes, so that a document has one hit
            before = len(self._hits)
            self._hits = _by_id([*self._hits, *_best_chunks(found)], _document_and_id)
            self.known = exhausted or self._reaches(lowest) or len(self._hits) == before
        else:
            self._hits = found
            self.known = (
                self._capped
                or self._round > 1
                or (self._starts() and (exhausted or self._reaches(lowest)))
            )

    def _other_documents(self) -> models.Filter | None:
        """Return the filter of the query, without the documents that were found."""
        own = self._request.filter
        if not self._hits:
            return own
        parents = [
            parent for hit in self._hits if (parent := chunk_parent(hit.payload)) is not None
        ]
        single = [hit.id for hit in self._hits if chunk_parent(hit.payload) is None]
        found: list[models.Condition] = []
        if parents:
            match = models.MatchAny(any=parents)
            found.append(models.FieldCondition(key=PARENT_FIELD, match=match))
        if single:
            found.append(models.HasIdCondition(has_id=single))
        return models.Filter(must=None if own is None else [own], must_not=found)


class TieredRanking(Ranking):
    """A page of candidates whose number is that of a tier; see `Ranking`.

    Args:
        request: the query, complete but for its limit and offset, and the numbers of candidates.
        first: rank of the page's first hit, from 0.
        last: rank of the hit after the page's last one.
        documents: whether the hits are documents, each with its best chunk.
        depths: number of candidates, of each branch if there are several, tier by tier.
    """

    def __init__(
        self,
        request: models.QueryRequest,
        first: int,
        last: int,
        *,
        documents: bool,
        depths: Sequence[int],
    ) -> None:
        super().__init__(request, first, last, documents=documents)
        self._depths = depths
        self._candidates = CHUNKS_PER_DOCUMENT * last if documents else last
        # whether the first tier may be enough, so that the page comes with payloads
        self._by_page = not self._deep and (len(depths) == 1 or self._candidates <= depths[0])
        self._tier = 0

    def _keep_to(self, most: int | None) -> None:
        """Ask for no more candidates than the server accepts."""
        if most is not None:
            self._depths = sorted({min(depth, most) for depth in self._depths})

    def _tiers(self) -> list[int]:
        """Return the tiers to request next, as far as the page may need them."""
        tiers = [self._depths[min(self._tier, len(self._depths) - 1)]]
        for depth in self._depths[self._tier + 1 :]:
            if tiers[-1] >= self._candidates:
                break
            tiers.append(depth)
        return tiers

    def _add(self, found: Iterable[models.ScoredPoint]) -> None:
        """Add the points that are no hits yet; of a document, its best chunk."""
        seen = {hit.id for hit in self._hits}
        self._hits += (point for point in found if point.id not in seen)
        if self._documents:
            self._hits = _best_chunks(self._hits)


class FusedRanking(TieredRanking):
    """The page of a search by several vectors; see `TieredRanking`."""

    def requests(self, most: int | None = None) -> list[models.QueryRequest]:
        """See `Ranking.requests`."""
        self._keep_to(most)
        if self._by_page:
            limit = self._with_slack(_FUSED_SLACK, self._candidates, most)
            return [self._fused(self._depths[0], limit, bare=False, offset=self._from)]
        tiers = self._tiers()
        limits = [depth * len(_branches(self._request)) for depth in tiers]
        if most is not None:
            limits = [min(limit, most) for limit in limits]
        return [
            self._fused(depth, limit, bare=True) for depth, limit in zip(tiers, limits, strict=True)
        ]

    def take(
        self,
        requests: Sequence[models.QueryRequest],
        answers: Sequence[Sequence[models.ScoredPoint]],
    ) -> None:
        """See `Ranking.take`."""
        if self._by_page:
            (request,), (points,) = requests, answers
            self._take_page(request, points)
            return
        for request, points in zip(requests, answers, strict=True):
            self._add(self._ordered(request, points))
            self._tier += 1
            if self._is_last(request, points):
                self.known = True
                return
        self.known = len(self._hits) >= self._last

    def _take_page(
        self, request: models.QueryRequest, points: Sequence[models.ScoredPoint]
    ) -> None:
        found = self._ordered(request, points)
        self._hits = _best_chunks(found) if self._documents else found
        lowest = points[-1].score if points else None
        if len(points) < (request.limit or 0):  # that is all of the tier
            lowest = None
            self.known = self._tier_ends(request, self._from + len(points), tier=0)
        self.known = self._capped or (self._starts() and (self.known or self._reaches(lowest)))
        if not self.known:
            self._by_page, self._from, self._hits = False, 0, []

    def _is_last(self, request: models.QueryRequest, points: Sequence[models.ScoredPoint]) -> bool:
        return self._tier_ends(request, len(points), tier=self._tier - 1)

    def _tier_ends(self, request: models.QueryRequest, found: int, *, tier: int) -> bool:
        """Return whether the ranking ends with a tier that has `found` hits."""
        depth = min(branch.limit or 0 for branch in _branches(request))
        return found < depth or tier >= len(self._depths) - 1

    def _fused(self, depth: int, limit: int, *, bare: bool, offset: int = 0) -> models.QueryRequest:
        prefetch = [_of_depth(branch, depth) for branch in _branches(self._request)]
        return self._asked(limit, offset=offset, bare=bare, prefetch=prefetch)


class DiverseRanking(TieredRanking):
    """The page of a search whose hits are chosen to differ; see `TieredRanking`."""

    def requests(self, most: int | None = None) -> list[models.QueryRequest]:
        """See `Ranking.requests`."""
        self._keep_to(most)
        if self._by_page:
            depth = self._depths[0]
            return [self._chosen(depth, min(self._candidates, depth), bare=False)]
        return [self._chosen(depth, depth, bare=True) for depth in self._tiers()]

    def take(
        self,
        requests: Sequence[models.QueryRequest],
        answers: Sequence[Sequence[models.ScoredPoint]],
    ) -> None:
        """See `Ranking.take`."""
        for request, points in zip(requests, answers, strict=True):
            if request.with_payload is True:
                self._complete.update((point.id, point) for point in points)
            self._add(points)
            is_all = len(points) < (request.limit or 0)
            if self._by_page:
                whole = (request.limit or 0) == self._depths[0] and len(self._depths) == 1
                self.known = is_all or whole or len(self._hits) >= self._last
                break
            self._tier += 1
            if is_all or self._tier >= len(self._depths):
                self.known = True
                return
            self.known = len(self._hits) >= self._last
        if self._by_page and not self.known:
            self._by_page, self._hits = False, []

    def _chosen(self, depth: int, limit: int, *, bare: bool) -> models.QueryRequest:
        query = self._request.query
        if isinstance(query, models.NearestQuery) and query.mmr is not None:
            mmr = query.mmr.model_copy(update={"candidates_limit": depth})
            query = query.model_copy(update={"mmr": mmr})
        prefetch = [_of_depth(branch, depth) for branch in _branches(self._request)]
        return self._asked(limit, bare=bare, query=query, prefetch=prefetch or None)


def _of_depth(branch: models.Prefetch, depth: int) -> models.Prefetch:
    """Return a search for candidates, and those for its own, with `depth` as their limits."""
    inner = branch.prefetch if isinstance(branch.prefetch, list) else []
    prefetch = [_of_depth(each, depth) for each in inner] or None
    return branch.model_copy(update={"limit": depth, "prefetch": prefetch})


def with_payloads(
    points: Iterable[models.ScoredPoint],
    records: Mapping[models.ExtendedPointId, models.Record],
    bare: Sequence[models.ExtendedPointId],
) -> Points:
    """Return hits with what was retrieved of those that came without payload.

    A point that was deleted in the meantime is left out.
    """
    missing = set(bare)
    complete: Points = []
    for point in points:
        if point.id not in missing:
            complete.append(point)
        elif (record := records.get(point.id)) is not None:
            update = {"payload": record.payload, "vector": record.vector}
            complete.append(point.model_copy(update=update))
    return complete


def _at_most(limit: int, most: int | None) -> int:
    return limit if most is None else min(limit, most)


def _branches(request: models.QueryRequest) -> list[models.Prefetch]:
    prefetch = request.prefetch
    return prefetch if isinstance(prefetch, list) else []


def _document(point: models.ScoredPoint) -> str:
    return chunk_parent(point.payload) or str(point.id)


def _id(point: models.ScoredPoint) -> tuple[Any, ...]:
    return (0, point.id) if isinstance(point.id, int) else (1, str(point.id))


def _document_and_id(point: models.ScoredPoint) -> tuple[Any, ...]:
    return _document(point), *_id(point)


def _by_id(
    points: Iterable[models.ScoredPoint], key: Callable[[models.ScoredPoint], tuple[Any, ...]]
) -> Points:
    """Return points in their order, those with equal scores in that of `key`."""
    ordered = list(points)
    if len({point.score for point in ordered}) == len(ordered):
        return ordered
    runs = (list(run) for _, run in groupby(ordered, lambda point: point.score))
    return [point for run in runs for point in (run if len(run) == 1 else sorted(run, key=key))]


def _best_chunks(points: Iterable[models.ScoredPoint]) -> Points:
    """Return the first point of each document."""
    best: dict[str, models.ScoredPoint] = {}
    for point in points:
        best.setdefault(_document(point), point)
    return list(best.values())
