"""How long an `add` holds up the event loop, and what threads and tasks get from one client.

    python tests/benchmarks/concurrency.py [--documents 1000] [--queries 10000] [--path FOLDER]

The loop's stall is the longest time between two turns of a task that sleeps a millisecond each.
Every answer to a thread or a task is compared with the serial one: the same ids in the same order,
scores equal to 1e-4.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from corpora import docstrings, queries

from qdrant_embed import AsyncQdrantClient, QdrantClient, QueryResponse

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
THREADS, TASKS = 8, 64


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--path", help="a folder for the database, instead of memory")
    arguments = parser.parse_args()
    place: dict[str, Any] = {"path": arguments.path} if arguments.path else {"location": ":memory:"}
    texts = docstrings()
    documents = [texts[n % len(texts)] for n in range(arguments.documents)]
    asked = queries(100)
    asyncio.run(asynchronous(place, documents, asked, arguments.queries))
    synchronous(place, documents, asked, arguments.queries)


async def asynchronous(
    place: dict[str, Any], documents: Sequence[str], asked: Sequence[str], count: int
) -> None:
    """The loop's stall during an `add`, and queries from tasks."""
    client = AsyncQdrantClient(**place)
    client.set_model(MINILM)
    client.set_sparse_model("Qdrant/bm25")
    await client.add("warm", documents[:2])
    gc.collect()  # as a server does once it has started: walking through all that the imports
    gc.freeze()  # have left takes Python a tenth of a second, which is no doing of `add`
    longest = 0.0

    async def turning() -> None:
        nonlocal longest
        before = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            longest, before = max(longest, now - before), now

    idle = asyncio.create_task(turning())
    await asyncio.sleep(1)
    at_rest, longest = longest, 0.0
    started = time.perf_counter()
    await client.add("async", documents)
    seconds = time.perf_counter() - started
    idle.cancel()
    print(
        f"async add of {len(documents)} documents: {seconds:.1f} s, longest stall of the loop "
        f"{longest * 1000:.0f} ms ({at_rest * 1000:.0f} ms at rest)"
    )
    serial = {text: await client.query("async", text, limit=5) for text in asked}
    left = iter(range(count))
    wrong = 0

    async def task() -> None:
        nonlocal wrong
        for number in left:
            text = asked[number % len(asked)]
            wrong += not same(await client.query("async", text, limit=5), serial[text])

    await asyncio.gather(*(task() for _ in range(TASKS)))
    print(f"{count} queries from {TASKS} tasks: {wrong} answers differ from the serial ones")
    await client.close()


def synchronous(
    place: dict[str, Any], documents: Sequence[str], asked: Sequence[str], count: int
) -> None:
    """Queries from threads."""
    client = QdrantClient(**place)
    client.set_model(MINILM)
    client.set_sparse_model("Qdrant/bm25")
    client.add("sync", documents)
    serial = {text: client.query("sync", text, limit=5) for text in asked}

    def right(number: int) -> bool:
        text = asked[number % len(asked)]
        return same(client.query("sync", text, limit=5), serial[text])

    with ThreadPoolExecutor(THREADS) as pool:
        wrong = count - sum(pool.map(right, range(count)))
    print(f"{count} queries from {THREADS} threads: {wrong} answers differ from the serial ones")
    client.close()


def same(found: Sequence[QueryResponse], expected: Sequence[QueryResponse]) -> bool:
    """Whether both are the same hits in the same order."""
    return [hit.id for hit in found] == [hit.id for hit in expected] and all(
        abs(hit.score - other.score) < 1e-4 for hit, other in zip(found, expected, strict=True)
    )


if __name__ == "__main__":
    main()
