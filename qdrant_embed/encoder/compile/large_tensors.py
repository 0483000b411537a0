"""Weights that need not be held whole: a tensor's shape, type and rows, without the tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol, runtime_checkable

from qdrant_embed.encoder.compile.quantize import Array
from qdrant_embed.encoder.facts.precision import Storage


@runtime_checkable
class LargeTensors(Protocol):
    """Weights that know more than a mapping does; see the functions of this file."""

    def blocks(self, name: str, rows: int) -> Iterator[Array]:
        """Yield a tensor in blocks of so many rows."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""

    def storage(self, name: str) -> Storage:
        """Return how a tensor is stored."""


def row_blocks(weights: Mapping[str, Array], name: str, rows: int) -> Iterator[Array]:
    """Yield a tensor in blocks of so many rows."""
    if isinstance(weights, LargeTensors):
        yield from weights.blocks(name, rows)
        return
    whole = weights[name]
    for start in range(0, len(whole), rows):
        yield whole[start : start + rows]


def shape_of(weights: Mapping[str, Array], name: str) -> tuple[int, ...]:
    """Return a tensor's shape."""
    return weights.shape(name) if isinstance(weights, LargeTensors) else weights[name].shape


def storage_of(weights: Mapping[str, Array], name: str) -> Storage:
    """Return how a tensor is stored in the file it is from."""
    return weights.storage(name) if isinstance(weights, LargeTensors) else "fp32"
