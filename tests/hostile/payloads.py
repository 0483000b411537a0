"""Makers of hostile payloads: each is what somebody stored under the keys of this package."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from qdrant_embed.collection.payload import CHUNK_KEY, DOCUMENT_KEY, ID_KEY

FACTS: dict[str, Any] = {
    "parent": "1",
    "position": 0,
    "count": 2,
    "start": 0,
    "end": 5,
    "document_sha256": "0" * 64,
    "spans_sha256": "1" * 64,
}
ODD = [None, True, 1.5, -1, 2**62, "", "x", "9" * 25, "\u0664", [], [1], {}, {"a": 1}]


def nested(depth: int) -> Any:
    """Return lists in lists."""
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


def payloads() -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Yield each payload with a name."""
    yield "nothing", None
    yield "no text", {"a": 1}
    for key in (DOCUMENT_KEY, ID_KEY, CHUNK_KEY):
        for odd in ODD:
            yield f"{key}: {odd!r}", {DOCUMENT_KEY: "a cat", key: odd}
    for name in FACTS:
        for odd in ODD:
            yield f"chunk's {name}: {odd!r}", chunk(**{name: odd})
        facts = {other: value for other, value in FACTS.items() if other != name}
        yield f"chunk without {name}", {DOCUMENT_KEY: "a cat", CHUNK_KEY: facts}
    for name in ("before", "after", "updated_sha256"):
        for odd in ODD:
            yield f"chunk's {name}: {odd!r}", chunk(start=3, **{name: odd})
    yield "a chunk of a million", chunk(count=10**6)
    yield "a chunk of 2**50", chunk(count=2**50)
    yield "a chunk far away", chunk(start=2**50, end=2**50 + 5)
    yield "a chunk that ends before it starts", chunk(start=9, end=5)
    yield "a chunk behind the last", chunk(position=7)
    yield "deep", {DOCUMENT_KEY: "a cat", "deep": nested(20)}


def chunk(**facts: Any) -> dict[str, Any]:
    """Return the payload of a chunk with some other facts."""
    return {DOCUMENT_KEY: "a cat", CHUNK_KEY: {**FACTS, **facts}}
