"""Points on their way to an engine: vectors as the encoder's float32 rows, no object for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_jsonable_python
from qdrant_client import models

from qdrant_embed.engines.bodies import point_size
from qdrant_embed.errors import ServerRefusal

_BYTES_OF_NUMBER = 16  # a float32 as text, with its comma, or the like


@dataclass(frozen=True, eq=False)
class Points(Sequence[models.PointStruct]):
    """Points to store, column by column; each is made a ``PointStruct`` only when it is read.

    Attributes:
        ids: id of each point.
        payloads: payload of each point.
        dense: float32 [points, dimension], one row per point.
        dense_name: name of the dense vector; ``""`` for the unnamed one.
        sparse: sparse vector of each point, if there are any; an empty one is not stored.
        sparse_name: name of the sparse vector.
        late: vectors of each point's tokens, float32 [tokens, dimension], if there are any.
        late_name: name of the vectors of tokens.
    """

    ids: Sequence[str | int]
    payloads: Sequence[Mapping[str, Any]]
    dense: NDArray[np.float32]
    dense_name: str
    sparse: Sequence[models.SparseVector] | None = None
    sparse_name: str = ""
    late: Sequence[NDArray[np.float32]] | None = None
    late_name: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> models.PointStruct: ...

    @overload
    def __getitem__(self, index: slice) -> Points: ...

    def __getitem__(self, index: int | slice) -> models.PointStruct | Points:
        if isinstance(index, slice):
            return Points(
                self.ids[index],
                self.payloads[index],
                self.dense[index],
                self.dense_name,
                None if self.sparse is None else self.sparse[index],
                self.sparse_name,
                None if self.late is None else self.late[index],
                self.late_name,
            )
        return models.PointStruct(
            id=self.ids[index],
            vector=self.vectors(index),
            payload=dict(self.payloads[index]),
        )

    def where(self, chosen: Callable[[str | int], bool]) -> Points:
        """Return the points whose ids are chosen, in the same order."""
        rows = [index for index, point in enumerate(self.ids) if chosen(point)]
        return Points(
            [self.ids[row] for row in rows],
            [self.payloads[row] for row in rows],
            self.dense[rows],
            self.dense_name,
            None if self.sparse is None else [self.sparse[row] for row in rows],
            self.sparse_name,
            None if self.late is None else [self.late[row] for row in rows],
            self.late_name,
        )

    def with_payloads(self, payloads: Sequence[Mapping[str, Any]]) -> Points:
        """Return the same points with other payloads."""
        return replace(self, payloads=payloads)

    def sizes(self) -> list[int]:
        """Return about how many bytes each point takes in a request, rather too many."""
        dense = 40 + _BYTES_OF_NUMBER * self.dense.shape[1]
        sizes = [60 + dense + json_size(payload) for payload in self.payloads]
        for index, vector in enumerate(self.sparse or ()):
            sizes[index] += 40 + 2 * _BYTES_OF_NUMBER * len(vector.indices)
        for index, tokens in enumerate(self.late or ()):
            sizes[index] += 40 + _BYTES_OF_NUMBER * tokens.size + 2 * len(tokens)
        return sizes

    def sparse_of(self, index: int) -> models.SparseVector | None:
        """Return the sparse vector of a point; ``None`` if it has none, or an empty one."""
        if self.sparse is None or not self.sparse[index].indices:
            return None
        return self.sparse[index]

    def vectors(self, index: int) -> Any:
        """Return the vectors of a point as ``qdrant_client`` has them."""
        dense: list[float] = self.dense[index].tolist()
        others: dict[str, Any] = {}
        sparse = self.sparse_of(index)
        if sparse is not None:
            others[self.sparse_name] = sparse
        if self.late is not None:
            others[self.late_name] = self.late[index].tolist()
        # the unnamed vector goes without its name, unless another one comes with it
        return {self.dense_name: dense, **others} if self.dense_name or others else dense


@dataclass(frozen=True, eq=False)
class StoredPoints(Sequence[models.PointStruct]):
    """Points as one database returned them, to be stored in another with all that they have.

    Attributes:
        records: the points, each with its payload and all its vectors.
    """

    records: Sequence[models.Record]

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, index: int) -> models.PointStruct: ...

    @overload
    def __getitem__(self, index: slice) -> StoredPoints: ...

    def __getitem__(self, index: int | slice) -> models.PointStruct | StoredPoints:
        if isinstance(index, slice):
            return StoredPoints(self.records[index])
        record = self.records[index]
        vector = record.vector or {}
        if isinstance(vector, list):  # without its name, where others have theirs, it is refused
            vector = {"": vector}
        return models.PointStruct.model_construct(  # what was read is valid
            id=record.id, vector=vector, payload=record.payload
        )

    def sizes(self) -> list[int]:
        """See `Points.sizes`."""
        return [point_size(point) for point in self]


@dataclass(frozen=True)
class Kept:
    """What a stored point has that stays when its vectors and payload are stored again.

    Attributes:
        payload: keys and values of the payload that the new one lacks.
        overwrites: whether it also has keys that must go.
    """

    payload: Mapping[str, Any]
    overwrites: bool = False


def update_operations(
    points: Points,
    kept: Mapping[str | int, Kept],
    shard_key_selector: models.ShardKeySelector | None = None,
) -> list[models.UpdateOperation]:
    """Return the operations that store points which exist, and keep what else they have.

    The payload is written last: it tells whether a point must be stored again, and must not say
    that it need not before its vectors are right.

    Args:
        points: the points.
        kept: what each has that stays.
        shard_key_selector: where they are stored.
    """
    key = shard_key_selector
    vectors = [
        models.PointVectors(id=point, vector=points.vectors(row))
        for row, point in enumerate(points.ids)
    ]
    update = models.UpdateVectors(points=vectors, shard_key=key)
    operations: list[models.UpdateOperation] = [
        models.UpdateVectorsOperation(update_vectors=update)
    ]
    without = [point for row, point in enumerate(points.ids) if points.sparse_of(row) is None]
    if points.sparse is not None and without:  # of the text that is replaced
        delete = models.DeleteVectors(points=[*without], vector=[points.sparse_name], shard_key=key)
        operations.append(models.DeleteVectorsOperation(delete_vectors=delete))
    for point, payload in zip(points.ids, points.payloads, strict=True):
        operations.append(payload_operation([point], payload, kept[point], key))
    return operations


def payload_operation(
    ids: Sequence[str | int],
    payload: Mapping[str, Any],
    kept: Kept,
    shard_key_selector: models.ShardKeySelector | None = None,
) -> models.UpdateOperation:
    """Return the operation that sets keys of the payload of points, and keeps the others.

    Args:
        ids: ids of the points.
        payload: the keys to set, with their values.
        kept: what the points have that stays.
        shard_key_selector: where they are stored.
    """
    # a server takes a null that it is to set for a key that it is to remove
    if not kept.overwrites and not any(value is None for value in payload.values()):
        change = models.SetPayload(payload={**payload}, points=[*ids], shard_key=shard_key_selector)
        return models.SetPayloadOperation(set_payload=change)
    try:
        whole = to_jsonable_python({**kept.payload, **payload})
    except ValueError as error:  # lone surrogates that were stored as they are, for instance
        raise ServerRefusal(
            f"the payload of point {ids[0]!r} cannot be written again: {error}. Change it with "
            "client.overwrite_payload(), or delete the point"
        ) from error
    change = models.SetPayload(payload=whole, points=[*ids], shard_key=shard_key_selector)
    return models.OverwritePayloadOperation(overwrite_payload=change)


def json_size(value: object) -> int:
    """Return about how many bytes a value takes as JSON."""
    if isinstance(value, str):
        return 3 + (len(value) if value.isascii() else len(value.encode("utf-8", "replace")))
    if isinstance(value, Mapping):
        return 2 + sum(json_size(key) + json_size(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return 2 + sum(map(json_size, value))
    return 24
