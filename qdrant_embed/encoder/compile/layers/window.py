"""Sliding-window attention, in blocks: memory grows with a text's length, not with its square."""

from __future__ import annotations

import numpy as np

from qdrant_embed.encoder.compile.graph import FLOAT, Graph


class SlidingWindow:
    """Cuts texts into blocks, each of which attends to itself and to the blocks beside it.

    A block is as long as the window's reach to one side (or as the text, if that is shorter), so
    no token attends beyond the next block. [batch, tokens, width] becomes
    [batch * blocks, block, width], and `bias` masks what is in a block but not in the window.

    Args:
        graph: nodes are added to it.
        reach: tokens that are attended to on each side.
        width: dimension of a token's vector.
        heads: attention heads.
        seen: number of tokens, from the first on, that are attended to, int64 [1]; all by default.
    """

    def __init__(self, graph: Graph, reach: int, width: int, heads: int, seen: str = "") -> None:
        self._graph, self._reach, self._heads = graph, reach, heads
        node, zero, one = graph.node, graph.integers(0), graph.integers(1)
        self._zero, self._one = zero, one
        self._batch = node("Shape", "input_ids", start=0, end=1)
        self._tokens = node("Shape", "input_ids", start=1, end=2)
        self._seen = node("Min", self._tokens, seen) if seen else self._tokens
        self._block = node("Min", self._tokens, graph.integers(max(reach, 1)))
        rounded = node("Sub", node("Add", self._tokens, self._block), one)
        self._blocks = node("Div", rounded, self._block)
        self._whole = node("Mul", self._blocks, self._block)
        missing = node("Sub", self._whole, self._tokens)
        none = graph.integers(0, 0)
        self._query_padding = node("Concat", none, none, missing, zero, axis=0)
        after = node("Add", missing, self._block)
        self._key_padding = node("Concat", zero, self._block, none, after, zero, axis=0)
        by_width = graph.integers(width)
        self._in_blocks = node("Concat", graph.integers(-1), self._block, by_width, axis=0)
        self._as_texts = node("Concat", self._batch, self._whole, by_width, axis=0)
        allowed = self._allowed()
        self.bias = self._bias(allowed)
        self._sees = self._sees_any(allowed) if seen else ""

    def split(self, query: str) -> str:
        """Add `query` [batch, tokens, width], split into blocks."""
        padded = self._graph.node("Pad", query, self._query_padding)
        return self._graph.node("Reshape", padded, self._in_blocks)

    def neighbourhoods(self, key: str) -> str:
        """Add for each block of queries its own block of `key` and those beside it."""
        node = self._graph.node
        padded, parts, start = node("Pad", key, self._key_padding), [], self._zero
        for _ in range(3):
            end = node("Add", start, self._whole)
            part = node("Slice", padded, start, end, self._one)
            parts.append(node("Reshape", part, self._in_blocks))
            start = node("Add", start, self._block)
        return node("Concat", *parts, axis=1)

    def joined(self, attended: str) -> str:
        """Add the `attended` blocks, joined to texts again; zeros where nothing is attended to."""
        if self._sees:
            attended = self._graph.node("Mul", attended, self._sees)
        texts = self._graph.node("Reshape", attended, self._as_texts)
        return self._graph.node("Slice", texts, self._zero, self._tokens, self._one)

    def _allowed(self) -> str:
        """Add whether a token attends to another one: [blocks, block, 3 * block]."""
        graph, node = self._graph, self._graph.node
        rows = node("Unsqueeze", self._range(self._block), self._one)
        seen = node("Mul", self._block, graph.integers(3))
        columns = node("Sub", self._range(seen), self._block)  # counted from the block's start
        distances = node("Abs", node("Sub", columns, rows))
        near = node("LessOrEqual", distances, graph.integers(self._reach))
        starts = node("Mul", self._range(self._blocks), self._block)
        positions = node("Add", node("Unsqueeze", starts, graph.integers(1, 2)), columns)
        inside = node(
            "And",
            node("GreaterOrEqual", positions, self._zero),
            node("Less", positions, self._seen),
        )
        return node("And", near, inside)

    def _bias(self, allowed: str) -> str:
        """Add the mask of tokens out of reach: [batch * blocks, heads, block, 3 * block].

        It is repeated for each head, because onnxruntime 1.20 misreads one for all heads.
        """
        graph, node = self._graph, self._graph.node
        bias = node("Where", allowed, graph.scalar(0, np.float32), graph.scalar(-1e30, np.float32))
        repeats = node("Concat", self._batch, graph.integers(self._heads, 1, 1), axis=0)
        return node("Tile", node("Unsqueeze", bias, self._one), repeats)

    def _sees_any(self, allowed: str) -> str:
        """Add 1 for each token that attends to any, else 0: [batch * blocks, block, 1]."""
        graph, node = self._graph, self._graph.node
        number = node("Cast", allowed, to=FLOAT)
        sees = node("ReduceMax", number, graph.integers(2), keepdims=1)
        return node("Tile", sees, node("Concat", self._batch, graph.integers(1, 1), axis=0))

    def _range(self, length: str) -> str:
        graph = self._graph
        end = graph.node("Squeeze", length)
        return graph.node("Range", graph.scalar(0, np.int64), end, graph.scalar(1, np.int64))
