"""Points on their way to an engine: vectors as the encoder's float32 rows, no object for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models


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
