"""How large requests are, reckoned before they are sent."""

from __future__ import annotations

from collections.abc import Mapping

from qdrant_client import models

MOST = 16_000_000  # bytes of a request with more than one item; servers accept 32 MB by default
LARGE = 1_000_000  # from here on, a connection that breaks may mean that a body is too large

_NUMBER = 20  # bytes of a float32 that is written with every digit of a float64, and its comma


def point_size(point: models.PointStruct) -> int:
    """Return about how many bytes a point takes in a request, rather too many than too few."""
    return 60 + _vector_size(point.vector) + _payload_size(point.payload)


def query_size(request: models.QueryRequest) -> int:
    """Return about how many bytes a query takes in a request."""
    branches = request.prefetch if isinstance(request.prefetch, list) else [request.prefetch]
    queries = [request.query, *(branch.query for branch in branches if branch is not None)]
    return 1000 + sum(map(_vector_size, queries))


def _vector_size(vector: object) -> int:
    if isinstance(vector, list):
        if vector and isinstance(vector[0], list):  # several vectors
            return sum(map(_vector_size, vector))
        return 2 + _NUMBER * len(vector)
    if isinstance(vector, dict):
        return sum(40 + _vector_size(each) for each in vector.values())
    if isinstance(vector, models.SparseVector):
        return 40 + 2 * _NUMBER * len(vector.indices)
    if isinstance(vector, models.NearestQuery):
        return 40 + _vector_size(vector.nearest)
    return _NUMBER


def _payload_size(value: object) -> int:
    if isinstance(value, str):
        return 3 + (len(value) if value.isascii() else len(value.encode("utf-8", "replace")))
    if isinstance(value, dict):
        size = 2
        for key, item in value.items():
            size += 3 + len(key) * 4 + _payload_size(item)
        return size
    if isinstance(value, list | tuple):
        return 2 + sum(map(_payload_size, value))
    if isinstance(value, Mapping):
        return _payload_size(dict(value))
    return _NUMBER
