"""Grouped-query attention (Ainslie et al. 2023) in flat memory: whole, causal, or in a window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qdrant_embed.encoder.compile.graph import Graph

_BLOCK = 128  # queries that are scored together; 64 to 256 measured within noise of each other
_PAIRS = 1 << 20  # of tokens, that are scored together for each head


@dataclass(frozen=True)
class Reach:
    """How far a token attends, in tokens, besides to itself; ``None`` without a limit.

    Attributes:
        before: tokens before it.
        after: tokens after it.
    """

    before: int | None = None
    after: int | None = None


class GroupedAttention:
    """Attention where several heads of queries share one head of keys and values.

    Queries are taken in blocks, and each block only reads the keys that one of its queries
    reaches: causal attention costs half as much as that to the whole text, and a window only as
    much as it is wide. A block has `_PAIRS` scores at most for each head.

    Args:
        graph: nodes are added to it.
        heads: heads of queries.
        key_heads: heads of keys and values.
        size: dimension of one head.
        scale: what scores are multiplied with.
    """

    def __init__(self, graph: Graph, heads: int, key_heads: int, size: int, scale: float) -> None:
        self._graph, self._heads, self._key_heads, self._size = graph, heads, key_heads, size
        self._scale = graph.scalar(scale, np.float32)
        node = graph.node
        self._zero, self._one = graph.integers(0), graph.integers(1)
        self._tokens = tokens = node("Shape", "input_ids", start=1, end=2)
        fitting = node("Max", node("Div", graph.integers(_PAIRS), tokens), self._one)
        self._block = node("Min", node("Min", fitting, graph.integers(_BLOCK)), tokens)
        rounded = node("Sub", node("Add", tokens, self._block), self._one)
        self._blocks = node("Div", rounded, self._block)
        missing = node("Sub", node("Mul", self._blocks, self._block), tokens)
        self._padding = node("Concat", graph.integers(*[0] * 6), missing, self._zero, axis=0)
        self._positions = self._range(tokens)
        self._in_block = node("Unsqueeze", self._range(self._block), self._one)

    def attended(self, query: str, key: str, value: str, reach: Reach) -> str:
        """Add the attention, [batch, tokens, heads * size].

        Args:
            query: [batch, tokens, heads * size].
            key: [batch, tokens, key_heads * size].
            value: like `key`.
            reach: which keys a query attends to.
        """
        graph, node, size = self._graph, self._graph.node, self._size
        shared = self._heads // self._key_heads
        query = self._by_head(node("Mul", query, self._scale), self._heads, [0, 2, 1, 3])
        padded = node("Pad", query, self._padding)
        queries = node("Reshape", padded, graph.integers(0, self._key_heads, shared, -1, size))
        keys = self._by_head(key, self._key_heads, [0, 2, 3, 1])
        values = self._by_head(value, self._key_heads, [0, 2, 1, 3])
        by_key_head = graph.integers(0, self._key_heads, -1, size)

        def block(number: str) -> str:
            start = node("Mul", node("Unsqueeze", number, self._zero), self._block)
            end = node("Add", start, self._block)
            rows = node("Slice", queries, start, end, graph.integers(3))
            rows = node("Reshape", rows, by_key_head)
            low, high = self._reached(start, end, reach)
            scores = node("MatMul", rows, node("Slice", keys, low, high, graph.integers(3)))
            if reach != Reach():
                scores = self._masked(scores, start, low, high, reach)
            shares = node("Softmax", scores, axis=-1)
            found = node("MatMul", shares, node("Slice", values, low, high, graph.integers(2)))
            shape = node(
                "Concat", graph.integers(0, self._heads), self._block, graph.integers(size), axis=0
            )
            return node("Transpose", node("Reshape", found, shape), perm=[0, 2, 1, 3])

        stacked = graph.repeated(self._blocks, block)  # [blocks, batch, block, heads, size]
        by_text = node("Transpose", stacked, perm=[1, 0, 2, 3, 4])
        width = graph.integers(-1, self._heads * size)
        texts = node("Reshape", by_text, node("Concat", self._zero, width, axis=0))
        return node("Slice", texts, self._zero, self._tokens, self._one)

    def _by_head(self, hidden: str, heads: int, order: list[int]) -> str:
        """Split [batch, tokens, heads * size] into [batch, tokens, heads, size], and reorder it."""
        split = self._graph.node("Reshape", hidden, self._graph.integers(0, 0, heads, self._size))
        return self._graph.node("Transpose", split, perm=order)

    def _reached(self, start: str, end: str, reach: Reach) -> tuple[str, str]:
        """Add the bounds of the keys that a block's queries reach."""
        graph, low, high = self._graph, self._zero, self._tokens
        if reach.before is not None:
            first = graph.node("Sub", start, graph.integers(reach.before))
            low = graph.node("Max", first, self._zero)
        if reach.after is not None:
            last = graph.node("Add", end, graph.integers(reach.after))
            high = graph.node("Min", last, self._tokens)
        return low, high

    def _masked(self, scores: str, start: str, low: str, high: str, reach: Reach) -> str:
        """Add the `scores` of a block without those of keys out of reach."""
        graph, node = self._graph, self._graph.node
        columns = node("Slice", self._positions, low, high, self._zero)
        distances = node("Sub", columns, node("Add", self._in_block, start))
        near = []
        if reach.before is not None:
            near.append(node("GreaterOrEqual", distances, graph.integers(-reach.before)))
        if reach.after is not None:
            near.append(node("LessOrEqual", distances, graph.integers(reach.after)))
        reached = near[0] if len(near) == 1 else node("And", *near)
        # [batch, key heads, heads of each · block, keys]: the mask is the same for each head
        heads = graph.integers(0, self._key_heads, self._heads // self._key_heads)
        apart = node("Concat", heads, self._block, graph.integers(-1), axis=0)
        never = graph.scalar(-1e30, np.float32)
        kept = node("Where", reached, node("Reshape", scores, apart), never)
        together = node(
            "Concat",
            graph.integers(0, self._key_heads, -1),
            node("Sub", high, low),
            axis=0,
        )
        return node("Reshape", kept, together)

    def _range(self, length: str) -> str:
        graph = self._graph
        end = graph.node("Squeeze", length)
        return graph.node("Range", graph.scalar(0, np.int64), end, graph.scalar(1, np.int64))
