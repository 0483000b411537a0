"""What an engine answered, checked before it is used: what was asked for, and nothing else.

A server's client checks the types of most of an answer, but not whether it answers the question.
Payloads are whatever somebody stored.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Collection, Sequence
from typing import Any, NoReturn, TypeVar
from uuid import UUID

from qdrant_client import models

from qdrant_embed.errors import ServerRefusal
from qdrant_embed.limits import PAYLOAD_DEPTH

P = TypeVar("P", models.Record, models.ScoredPoint)

_NESTED = (dict, list)  # values with further values


class Answers:
    """A checker of the answers to requests about one collection.

    Args:
        collection_name: the collection's name, for messages.
    """

    def __init__(self, collection_name: str) -> None:
        self._name = collection_name

    def hits(
        self, requests: Sequence[models.QueryRequest], answers: object
    ) -> list[models.QueryResponse]:
        """Return the answers to queries.

        A point that comes twice, as from two shards, is left out the second time.

        Raises:
            ServerRefusal: if there are fewer or more, one has more points than its limit, or a
                score is no number.
        """
        if not isinstance(answers, list) or len(answers) != len(requests):
            count = len(answers) if isinstance(answers, list) else "no"
            self._refuse(f"{len(requests)} queries", f"{count} results")
        for request, answer in zip(requests, answers, strict=True):
            points = answer.points
            limit = 10 if request.limit is None else request.limit
            if len(points) > limit:
                self._refuse(f"{limit} points at most", f"{len(points)}")
            if (distinct := _distinct(points)) is not points:
                answer.points = points = distinct
            for point in points:
                if not math.isfinite(point.score):
                    self._refuse(
                        "points with scores",
                        f"the score {point.score} for point {point.id!r}. If its vector has values "
                        "that are no numbers, delete the point, or store it again",
                        way_out="",
                    )
            self._check_payloads(points)
        return answers

    def records(self, ids: Collection[object], records: object) -> list[models.Record]:
        """Return the points that were asked for by their ids, each once.

        Raises:
            ServerRefusal: if there are others.
        """
        if not isinstance(records, list):
            self._refuse(f"{len(ids)} points", repr(records)[:60])
        asked = {*map(_canonical, ids)}
        for record in records:
            if _canonical(record.id) not in asked:
                self._refuse(f"{len(ids)} points by their ids", f"another one, {record.id!r}")
        self._check_payloads(records)
        return _distinct(records)

    def page(
        self, limit: int, offset: Any, answer: tuple[list[models.Record], Any]
    ) -> tuple[list[models.Record], Any]:
        """Return a page of points, each once, and where the next one begins.

        Raises:
            ServerRefusal: if there are more points than asked for, or the next page would not begin
                behind this one.
        """
        records, following = answer
        if len(records) > limit:
            self._refuse(f"{limit} points at most", f"{len(records)}")
        is_behind = records and (None in (offset, following) or _is_before(offset, following))
        if following is not None and not is_behind:
            self._refuse(
                f"the points from {offset!r} on",
                f"{len(records)} points and that the next ones begin at {following!r}",
            )
        self._check_payloads(records)
        return _distinct(records), following

    def count(self, answer: models.CountResult) -> int:
        """Return the number of points; raise `ServerRefusal` if it is below zero."""
        if answer.count < 0:
            self._refuse("the number of points", f"{answer.count}")
        return answer.count

    def check_vectors(
        self, params: models.CollectionParams, records: Sequence[models.Record]
    ) -> None:
        """Raise `ServerRefusal` unless points have vectors as their collection describes them."""
        config = params.vectors or {}
        dense = config if isinstance(config, dict) else {"": config}
        for record in records:
            found = record.vector or {}
            for name, vector in (found if isinstance(found, dict) else {"": found}).items():
                if isinstance(vector, models.SparseVector):
                    is_right = name in (params.sparse_vectors or {})
                else:
                    is_right = name in dense and _is_vector(vector, dense[name])
                if not is_right:
                    self._refuse(
                        f"vectors of {record.id!r}", f"{vector!r:.60} for the vector {name!r}"
                    )

    def _check_payloads(self, points: Sequence[models.Record | models.ScoredPoint]) -> None:
        """Raise `ServerRefusal` if a payload is nested too deeply to be read or written again."""
        for point in points:
            for value in (point.payload or {}).values():
                if type(value) in _NESTED:  # seldom: one loop, because each query comes here
                    self._check_depth(point)
                    break

    def _check_depth(self, point: models.Record | models.ScoredPoint) -> None:
        level = [value for value in (point.payload or {}).values() if type(value) in _NESTED]
        depth = 0
        while level:  # level by level: a deep value must not need a deep stack
            depth += 1
            if depth > PAYLOAD_DEPTH:
                raise ServerRefusal(
                    f"the payload of point {point.id!r} in collection {self._name!r} has more than "
                    f"{PAYLOAD_DEPTH} levels of lists and objects: change it with "
                    "client.overwrite_payload(), or delete the point"
                )
            level = [
                inner
                for outer in level
                for inner in (outer.values() if isinstance(outer, dict) else outer)
                if type(inner) in _NESTED
            ]

    def _refuse(
        self,
        asked: str,
        found: str,
        *,
        way_out: str = ": check that the client's url names Qdrant, and no proxy changes answers",
    ) -> NoReturn:
        raise ServerRefusal(
            f"a request about collection {self._name!r} asked for {asked}, and the answer has "
            f"{found}{way_out}"
        )


def _distinct(points: list[P]) -> list[P]:
    """Return points without those whose ids came before."""
    if len({point.id for point in points}) == len(points):
        return points
    return list({point.id: point for point in reversed(points)}.values())[::-1]


def _is_vector(vector: object, params: models.VectorParams) -> bool:
    """Return whether a vector is what its parameters say."""
    rows = vector if params.multivector_config is not None else [vector]
    if not isinstance(rows, list):
        return False
    try:
        return all(len(array("f", row)) == params.size for row in rows)
    except (TypeError, OverflowError):  # no list, or of something else than numbers
        return False


def _canonical(point: object) -> object:
    """Return a point's id as another one that names the same point has it."""
    if isinstance(point, int):
        return point
    text = str(point)
    if (len(text) == 36 and text.islower()) or text.replace("-", "").isdecimal():
        return text
    try:
        return str(UUID(text))
    except ValueError:
        return text


def _is_before(first: Any, second: Any) -> bool:
    """Return whether a point's id comes before another one: numbers first, then UUIDs."""
    if isinstance(first, int) != isinstance(second, int):
        return isinstance(first, int)
    if isinstance(first, int):
        return first < int(second)
    return str(_canonical(first)) < str(_canonical(second))
