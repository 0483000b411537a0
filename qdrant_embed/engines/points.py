"""Points on their way to an engine: vectors as the encoder's float32 rows, no object for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

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
    """

    ids: Sequence[str | int]
    payloads: Sequence[Mapping[str, Any]]
    dense: NDArray[np.float32]
    dense_name: str
    sparse: Sequence[models.SparseVector] | None = None
    sparse_name: str = ""

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
            )
        return models.PointStruct(
            id=self.ids[index],
            vector=self._vectors(index),
            payload=dict(self.payloads[index]),
        )

    def sizes(self) -> list[int]:
        """Return about how many bytes each point takes in a request, rather too many."""
        dense = 40 + _BYTES_OF_NUMBER * self.dense.shape[1]
        sizes = [60 + dense + _json_size(payload) for payload in self.payloads]
        for index, vector in enumerate(self.sparse or ()):
            sizes[index] += 40 + 2 * _BYTES_OF_NUMBER * len(vector.indices)
        return sizes

    def sparse_of(self, index: int) -> models.SparseVector | None:
        """Return the sparse vector of a point; ``None`` if it has none, or an empty one."""
        if self.sparse is None or not self.sparse[index].indices:
            return None
        return self.sparse[index]

    def _vectors(self, index: int) -> Any:
        dense: list[float] = self.dense[index].tolist()
        sparse = self.sparse_of(index)
        if sparse is not None:
            return {self.dense_name: dense, self.sparse_name: sparse}
        # the unnamed vector goes without its name, unless a sparse one comes with it
        return {self.dense_name: dense} if self.dense_name else dense


def _json_size(value: object) -> int:
    if isinstance(value, str):
        return 3 + (len(value) if value.isascii() else len(value.encode("utf-8", "replace")))
    if isinstance(value, Mapping):
        return 2 + sum(_json_size(key) + _json_size(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return 2 + sum(map(_json_size, value))
    return 24
