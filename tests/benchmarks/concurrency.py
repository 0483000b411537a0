"""How long an `add` holds up the event loop, and what threads and tasks get from one client.

    python tests/benchmarks/concurrency.py [--documents 1000] [--queries 10000] [--path FOLDER]
        [--parts stall,many,bulk] [--rounds 5]

``many`` compares threads and tasks that ask together with one that asks alone, round after round:
queries a second, 50th and 99th percentile of the latency, milliseconds of CPU time for a query, and
the median of the rounds' ratios. ``bulk`` asks single queries beside a large `embed`, and measures
that against the time of one of its batches on one core, and the `embed` against itself alone.

The loop's stall is the longest time between two turns of a task that sleeps a millisecond each.
Every answer to a thread or a task is compared with the serial one: the same ids in the same order,
scores equal to 1e-4.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from corpora import docstrings, queries

from qdrant_embed import AsyncQdrantClient, QdrantClient, QueryResponse, TextEmbedding

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
THREADS, TASKS = 8, 64
MANY = 32  # threads or tasks that ask together
SECONDS = 1.5  # of each measurement


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--path", help="a folder for the database, instead of memory")
    parser.add_argument("--parts", default="stall,many,bulk", help="some of them, with commas")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    place: dict[str, Any] = {"path": arguments.path} if arguments.path else {"location": ":memory:"}
    texts = docstrings()
    documents = [texts[n % len(texts)] for n in range(arguments.documents)]
    asked = queries(100)
    parts = arguments.parts.split(",")
    if "stall" in parts:
        asyncio.run(asynchronous(place, documents, asked, arguments.queries))
        synchronous(place, documents, asked, arguments.queries)
    if "many" in parts:
        many(place, documents, asked, arguments.rounds)
    if "bulk" in parts:
        beside_bulk(asked, arguments.rounds)


@dataclass(frozen=True)
class Load:
    """What some threads or tasks got in a while.

    Attributes:
        latencies: seconds of each query.
        seconds: that all of them took together.
        cpu: seconds of this process' CPU time meanwhile.
    """

    latencies: list[float]
    seconds: float
    cpu: float

    @property
    def rate(self) -> float:
        """Queries a second."""
        return len(self.latencies) / self.seconds

    def percentile(self, percent: float) -> float:
        """Milliseconds."""
        return 1000 * float(np.percentile(self.latencies, percent))


def from_threads(ask: Callable[[str], object], asked: Sequence[str], count: int) -> Load:
    """Have `count` threads ask one query after the other."""
    stop = time.perf_counter() + SECONDS

    def thread(first: int) -> list[float]:
        found: list[float] = []
        while (started := time.perf_counter()) < stop:
            ask(asked[(first + len(found)) % len(asked)])
            found.append(time.perf_counter() - started)
        return found

    started, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(count) as pool:
        found = list(pool.map(thread, range(0, 7 * count, 7)))
    return Load(list(chain(*found)), time.perf_counter() - started, time.process_time() - cpu)


async def from_tasks(
    ask: Callable[[str], Awaitable[object]], asked: Sequence[str], count: int
) -> Load:
    """Have `count` tasks ask one query after the other."""
    stop = time.perf_counter() + SECONDS

    async def task(first: int) -> list[float]:
        found: list[float] = []
        while (started := time.perf_counter()) < stop:
            await ask(asked[(first + len(found)) % len(asked)])
            found.append(time.perf_counter() - started)
        return found

    started, cpu = time.perf_counter(), time.process_time()
    found = await asyncio.gather(*(task(7 * number) for number in range(count)))
    return Load(list(chain(*found)), time.perf_counter() - started, time.process_time() - cpu)


def many(
    place: dict[str, Any], documents: Sequence[str], asked: Sequence[str], rounds: int
) -> None:
    """Threads and tasks that ask together, against one that asks alone."""
    encoder = TextEmbedding(MINILM)
    client = QdrantClient(**place)
    client.set_model(MINILM)
    client.add("many", documents[:200])
    asynchronous_client = AsyncQdrantClient(":memory:")

    async def prepare() -> None:
        asynchronous_client.set_model(MINILM)
        await asynchronous_client.add("many", documents[:200])

    def vector(text: str) -> object:
        return next(encoder.query_embed(text))

    def hits(text: str) -> object:
        return client.query("many", text, limit=5)

    def awaited_hits(text: str) -> Awaitable[object]:
        return asynchronous_client.query("many", text, limit=5)

    with asyncio.Runner() as runner:
        runner.run(prepare())
        ways: dict[str, Callable[[int], Load]] = {
            "vectors, threads": lambda count: from_threads(vector, asked, count),
            "client.query, threads": lambda count: from_threads(hits, asked, count),
            "async client.query, tasks": lambda count: runner.run(
                from_tasks(awaited_hits, asked, count)
            ),
        }
        for name, ask in ways.items():
            ask(1)
            compare(name, [(ask(1), ask(MANY)) for _ in range(rounds)])
        runner.run(asynchronous_client.close())
    client.close()


def compare(name: str, rounds: Sequence[tuple[Load, Load]]) -> None:
    """Prints what one got and what many got."""
    ratio = statistics.median(together.rate / alone.rate for alone, together in rounds)
    for count, loads in zip((1, MANY), zip(*rounds, strict=True), strict=True):
        rate = statistics.median(load.rate for load in loads)
        p50, p99 = (statistics.median(load.percentile(n) for load in loads) for n in (50, 99))
        cpu = statistics.median(1000 * load.cpu / len(load.latencies) for load in loads)
        print(
            f"{name}, {count}: {rate:.0f}/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms "
            f"({p99 / p50:.1f}x), CPU {cpu:.2f} ms a query"
        )
    print(f"{name}: rate of {MANY} is {ratio:.2f}x that of 1")


def beside_bulk(asked: Sequence[str], rounds: int) -> None:
    """Single queries beside a large `embed`, from one thread and from many."""
    encoder = TextEmbedding(MINILM)
    texts = docstrings()[:512]
    lone = encoder.variant(threads=1)
    batch = ["ship " * 62] * 8  # as many tokens as a batch has
    for text in asked:
        next(encoder.query_embed(text))

    def bulk(seconds: float) -> float:
        """Texts a second of an `embed` that goes on for a while."""
        started, count = time.perf_counter(), 0
        while time.perf_counter() < started + seconds:
            count += sum(1 for _ in encoder.embed(texts, batch_size=256))
        return count / (time.perf_counter() - started)

    def batch_seconds() -> float:
        started = time.perf_counter()
        list(lone.embed(batch))
        return time.perf_counter() - started

    def vector(text: str) -> object:
        return next(encoder.query_embed(text))

    for count in (1, MANY):
        shares, tails = [], []
        for _ in range(rounds):
            alone = bulk(SECONDS)
            one_batch = statistics.median(batch_seconds() for _ in range(10))
            beside: list[float] = []
            thread = threading.Thread(target=lambda found=beside: found.append(bulk(SECONDS)))
            thread.start()
            load = from_threads(vector, asked, count)
            thread.join()
            shares.append(beside[0] / alone)
            tails.append((load.percentile(50), load.percentile(99), 1000 * one_batch, load.rate))
        p50, p99, one_batch, rate = (statistics.median(row) for row in zip(*tails, strict=True))
        print(
            f"beside a large embed, {count} threads: {rate:.0f}/s, p50 {p50:.1f} ms, p99 {p99:.1f} "
            f"ms ({p99 / one_batch:.1f}x a batch of {one_batch:.1f} ms); the embed has "
            f"{statistics.median(shares):.2f} of its rate alone"
        )


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
