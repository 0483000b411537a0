"""Attention whose scores depend on the distance between two tokens: ALiBi, T5's buckets."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.encoder.compile.graph import Graph
from qdrant_embed.encoder.compile.quantize import Array

# adds attention from queries to keys and values, with a bias for each head and pair of tokens
Attend: TypeAlias = Callable[[str, str, str, str], str]

BUCKETS, FARTHEST = 32, 128  # of T5 and MPNet, fixed in transformers' own code
_PAIRS = 1 << 20  # of tokens, that are scored together for each head


class DistanceBias:
    """Attention with a bias by distance, in flat memory.

    Queries are taken in blocks, so long that a block's scores are `_PAIRS` at most for each head.
    A block's bias is a part of one strip, whose columns are distances: it is as wide as a text is
    long, twice, and all layers and blocks share it.

    Args:
        graph: nodes are added to it.
        table: float32 [heads, 2 * longest - 1], the bias for each distance from a query to a key,
            from ``1 - longest`` to ``longest - 1``.
    """

    def __init__(self, graph: Graph, table: Array) -> None:
        self._graph, node = graph, graph.node
        self._zero, self._one = graph.integers(0), graph.integers(1)
        self._table, self._nearest = graph.constant(table[None]), table.shape[1] // 2
        self._by_head = graph.integers(0, 0, len(table), -1)
        self._tokens = tokens = node("Shape", "input_ids", start=1, end=2)
        fitting = node("Max", node("Div", graph.integers(_PAIRS), tokens), self._one)
        self._block = node("Min", tokens, fitting)
        rounded = node("Sub", node("Add", tokens, self._block), self._one)
        self._blocks = node("Div", rounded, self._block)
        whole = node("Mul", self._blocks, self._block)
        none = graph.integers(0, 0)
        missing = node("Sub", whole, tokens)
        self._padding = node("Concat", none, none, missing, self._zero, axis=0)
        self._before = node("Sub", whole, self._block)  # distances of the last block's first row
        self._strip = self._biases(self._block, node("Add", self._before, tokens), self._before)
        self._first = self._biases(self._one, tokens, self._zero)

    def attended(self, attend: Attend, query: str, key: str, value: str) -> str:
        """Add the attention of all tokens, [batch, tokens, width]."""
        graph, node = self._graph, self._graph.node
        width = node("Shape", key, start=2, end=3)
        padded = node("Pad", query, self._padding)
        # by heads already, else each block would do it again
        key, value = (
            node("Transpose", node("Reshape", part, self._by_head), perm=[0, 2, 1, 3])
            for part in (key, value)
        )

        def block(number: str) -> str:
            start = node("Mul", node("Unsqueeze", number, self._zero), self._block)
            end = node("Add", start, self._block)
            rows = node("Slice", padded, start, end, self._one)
            left = node("Sub", self._before, start)
            right = node("Add", left, self._tokens)
            bias = node("Slice", self._strip, left, right, graph.integers(3))
            return attend(rows, key, value, bias)

        stacked = graph.repeated(self._blocks, block)  # [blocks, batch, block, width]
        by_text = node("Transpose", stacked, perm=[1, 0, 2, 3])
        shape = node("Concat", self._zero, graph.integers(-1), width, axis=0)
        texts = node("Reshape", by_text, shape)
        return node("Slice", texts, self._zero, self._tokens, self._one)

    def first_attended(self, attend: Attend, query: str, key: str, value: str) -> str:
        """Add the attention of each text's first token, [batch, 1, width]."""
        return attend(query, key, value, self._first)

    def _biases(self, rows: str, columns: str, before: str) -> str:
        """Add biases [1, heads, rows, columns], where column `before` is row 0's own token."""
        graph, node = self._graph, self._graph.node
        places = node("Sub", self._range(columns), before)
        distances = node("Sub", places, node("Unsqueeze", self._range(rows), self._one))
        # rows beyond the end of a text are cut off again, whatever their bias
        nearest = graph.integers(self._nearest)
        indices = node("Max", node("Add", distances, nearest), self._zero)
        return node("Gather", self._table, indices, axis=2)

    def _range(self, length: str) -> str:
        graph = self._graph
        end = graph.node("Squeeze", length)
        return graph.node("Range", graph.scalar(0, np.int64), end, graph.scalar(1, np.int64))


def alibi(heads: int, longest: int) -> Array:
    """Compute the table of symmetric ALiBi (Press et al. 2022) for `DistanceBias`.

    The slopes of a power of two of heads fall geometrically to 2^-8; further heads have every
    second slope of twice as many.
    """
    power = 1 << (heads.bit_length() - 1)
    slopes = _geometric(power) + _geometric(2 * power)[::2]
    reach = np.abs(np.arange(1 - longest, longest, dtype=np.float32))
    return -np.array(slopes[:heads], np.float32)[:, None] * reach


def by_bucket(table: Array, longest: int) -> Array:
    """Spread T5's table of biases, [buckets, heads], over distances for `DistanceBias`."""
    return np.ascontiguousarray(table[buckets(np.arange(1 - longest, longest))].T)


def buckets(distances: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find the row of the bias table for each distance from a query's token to a key's.

    As in T5 (Raffel et al. 2020): half of the rows for each direction; in each, the shortest
    distances have a row of their own, and longer ones share rows, the more the longer they are.
    """
    half = BUCKETS // 2
    exact = half // 2
    reach = np.abs(distances)
    growth = np.log(np.maximum(reach, 1).astype(np.float32) / exact) / math.log(FARTHEST / exact)
    shared = np.minimum(exact + (growth * (half - exact)).astype(np.int64), half - 1)
    rows: NDArray[np.int64] = np.where(reach < exact, reach, shared) + half * (distances > 0)
    return rows


def _geometric(heads: int) -> list[float]:
    return [2 ** (-8 * (number + 1) / heads) for number in range(heads)]
