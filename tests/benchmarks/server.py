"""What a server's client costs: uploads and queries against those of qdrant-client itself.

    python tests/benchmarks/server.py [--figures query,upload,add,threads]
                                      [--url http://localhost:6333 --grpc-port 6334 --api-key KEY]

Without an address the server is one on loopback that accepts everything at once
(``loopback_store.py``), so that every figure is the client's. Each peer is a process of its own;
they take turns, and a ratio is the median over the rounds. Seconds of CPU are those of the peer's
process. Each figure is printed beside its limit; the exit code is 1 if one is not kept.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import qdrant_client
from ingestion import MINILM, Figure, judged
from numpy.typing import NDArray
from qdrant_client import models

from qdrant_embed import QdrantClient, TextEmbedding
from qdrant_embed.engines.points import Points
from qdrant_embed.engines.wire import upsert_request

HERE = Path(__file__).parent
DIMENSION, POINTS, BATCH, QUERIES, THREADS = 384, 5_120, 256, 100, 32
QUERY_SECONDS = 0.004  # of a real server, which the threads wait for
TRANSPORTS = ("REST", "gRPC")
COLLECTION = f"qdrant_embed_bench_{os.getpid()}"


class Rows:
    """An encoder that costs nothing: the same random rows again and again."""

    model_name = "bench/rows"
    dimension = DIMENSION

    def __init__(self) -> None:
        rows = np.random.default_rng(0).normal(size=(POINTS, DIMENSION)).astype(np.float32)
        self.rows: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def passage_embed(self, texts: Iterable[str], /) -> NDArray[np.float32]:
        """As many rows as texts."""
        return self.rows[: len(list(texts))]

    query_embed = passage_embed


def payload(number: int) -> dict[str, Any]:
    """Text of 100 characters, and two values."""
    return {"document": f"text {number:6} " + "of a few words " * 6, "n": number, "source": "bench"}


def short_texts(count: int) -> list[str]:
    """Texts of some 15 tokens, all different."""
    words = "cat ship storm market player goal paris france city river train music light".split()  # noqa: SIM905 - to be read
    return [
        " ".join(words[(number * step + step) % len(words)] for step in range(1, 13)) + f" {number}"
        for number in range(count)
    ]


class Peer:
    """What one process measures; each method is one figure's one round.

    Args:
        options: arguments of a client.
        name: of the collection.
        texts: number of texts to encode.
    """

    def __init__(self, options: Mapping[str, Any], name: str, texts: int) -> None:
        self._texts = short_texts(texts)
        self._options, self._name, self._encoder = {**options}, name, Rows()
        self._model: TextEmbedding | None = None
        self._client: Any = None

    def ours(self, encoder: Any = None) -> QdrantClient:
        """Our client, made once."""
        if self._client is None:
            self._client = QdrantClient(**self._options, check_compatibility=False)
            self._client.set_model(encoder or self._encoder)
        client: QdrantClient = self._client
        return client

    def theirs(self) -> qdrant_client.QdrantClient:
        """qdrant-client's, with the connections kept that it keeps to every other address."""
        if self._client is None:
            self._client = qdrant_client.QdrantClient(
                **self._options, check_compatibility=False, limits=httpx.Limits()
            )
        client: qdrant_client.QdrantClient = self._client
        return client

    def create(self) -> None:
        """Creates the collection, with documents: few make answers too short to be compressed."""
        self.our_add()

    def delete(self) -> None:
        """Deletes it."""
        for name in (self._name, f"{self._name}_minilm"):
            self.ours().delete_collection(name)

    def our_add(self) -> None:
        """An `add`."""
        payloads = [payload(number) for number in range(POINTS)]
        texts = [one.pop("document") for one in payloads]
        self.ours().add(self._name, texts, payloads, progress=False)

    def our_points(self) -> None:
        """What an `add` sends, without what it does before: batches one after the other."""
        client = self.ours()
        for start in range(0, POINTS, BATCH):
            numbers = range(start, start + BATCH)
            points = Points(
                ids=[str(uuid.uuid4()) for _ in numbers],
                payloads=[payload(number) for number in numbers],
                dense=self._encoder.rows[start : start + BATCH],
                dense_name="fast-rows",
            )
            upsert_request(client, self._name, points).send()

    def their_upsert(self) -> None:
        """Batches of points one after the other."""
        points = list(self._structs())
        for start in range(0, POINTS, BATCH):
            self.theirs().upsert(self._name, points[start : start + BATCH], wait=True)

    def their_upload_points(self) -> None:
        """Its own upload."""
        self.theirs().upload_points(self._name, self._structs(), batch_size=BATCH, wait=True)

    def _structs(self) -> Iterator[models.PointStruct]:
        vector = "fast-rows"
        for number, row in enumerate(self._encoder.rows):
            yield models.PointStruct(
                id=str(uuid.uuid4()), vector={vector: row.tolist()}, payload=payload(number)
            )

    def our_query(self) -> list[float]:
        """Seconds of each query."""
        client = self.ours()
        return timed(lambda: client.query(self._name, "a question"))

    def their_query(self) -> list[float]:
        """Seconds of each query, vector given."""
        client, vector = self.theirs(), self._encoder.rows[0].tolist()
        return timed(
            lambda: client.query_points(self._name, query=vector, using="fast-rows", limit=10)
        )

    def their_plain_query(self) -> list[float]:
        """The same, with answers that are not compressed."""
        self._options |= {"headers": {"accept-encoding": "identity"}}
        return self.their_query()

    def our_threads(self) -> dict[str, float]:
        """Rate and latencies with one thread, and with many."""
        client = self.ours()

        def ask(_: int) -> float:
            started = time.perf_counter()
            client.query(self._name, "a question")
            return time.perf_counter() - started

        found = {}
        for threads in (1, THREADS):
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(ask, range(2 * threads)))
                count = QUERIES * (1 if threads == 1 else 10)
                started = time.perf_counter()
                seconds = sorted(pool.map(ask, range(count)))
            found[f"rate {threads}"] = count / (time.perf_counter() - started)
            found[f"p99/p50 {threads}"] = seconds[count * 99 // 100] / seconds[count // 2]
        return found

    def our_encoding(self) -> None:
        """Encoding alone."""
        for _ in self._minilm().passage_embed(self._texts):
            pass

    def our_encoding_add(self) -> None:
        """The same texts encoded and stored."""
        self.ours(self._minilm()).add(f"{self._name}_minilm", self._texts, progress=False)

    def _minilm(self) -> TextEmbedding:
        if self._model is None:
            self._model = TextEmbedding(MINILM)
        return self._model


def timed(function: Callable[[], object]) -> list[float]:
    """Seconds of each of many calls."""
    seconds = []
    for _ in range(QUERIES):
        started = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - started)
    return seconds


class Process:
    """A peer in a process of its own."""

    def __init__(self, options: Mapping[str, Any], name: str, texts: int) -> None:
        told = json.dumps([options, name, texts])
        command = [sys.executable, "-W", "ignore", __file__, "--worker", told]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, method: str) -> dict[str, Any]:
        """Runs a method of `Peer` there: its result, seconds by the clock, and of CPU."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{method}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{method} failed in its process")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()


def worker(options: Mapping[str, Any], name: str, texts: int) -> None:
    """Runs what standard input asks for."""
    peer = Peer(options, name, texts)
    for line in sys.stdin:
        started, cpu = time.perf_counter(), time.process_time()
        result = getattr(peer, line.strip())()
        found = {
            "seconds": time.perf_counter() - started,
            "cpu": time.process_time() - cpu,
            "result": result,
        }
        print(json.dumps(found), flush=True)


@contextmanager
def store(*options: str) -> Iterator[tuple[int, int]]:
    """The store on loopback, in a process of its own: its two ports."""
    command = [sys.executable, str(HERE / "loopback_store.py"), *options]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        rest, grpc_port = map(int, process.stdout.readline().split())
        try:
            yield rest, grpc_port
        finally:
            assert process.stdin is not None
            process.stdin.close()


class Bench:
    """All figures, on one server.

    Args:
        arguments: of the command.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments

    @contextmanager
    def _peers(
        self, transport: str, count: int, *store_options: str
    ) -> Iterator[tuple[Process, ...]]:
        """Processes on a collection that exists while the block runs."""
        arguments = self._arguments
        with ExitStack() as stack:
            if arguments.url is None:
                rest, grpc_port = stack.enter_context(store(*store_options))
                options: dict[str, Any] = {"url": f"http://127.0.0.1:{rest}"}
            else:
                grpc_port = arguments.grpc_port
                options = {"url": arguments.url, "api_key": arguments.api_key, "timeout": 60}
            options |= {"grpc_port": grpc_port, "prefer_grpc": transport == "gRPC"}
            processes = tuple(
                Process(options, COLLECTION, arguments.texts) for _ in range(count + 1)
            )
            for process in processes:
                stack.callback(process.close)
            *peers, maker = processes
            maker("create")
            try:
                yield tuple(peers)
            finally:
                maker("delete")

    def _rounds(self, turns: Mapping[str, tuple[Process, str]]) -> dict[str, list[dict[str, Any]]]:
        for process, method in turns.values():
            process(method)  # warm
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in turns}
        for _ in range(self._arguments.rounds):
            for name, (process, method) in turns.items():
                found[name].append(process(method))
        return found

    def query(self) -> Iterator[Figure]:
        """A query with ten texts in its answer."""
        for transport in TRANSPORTS:
            turns = ["our_query", "their_query", "their_plain_query"]
            with self._peers(transport, 3) as peers:
                found = self._rounds(
                    {name: (peer, name) for name, peer in zip(turns, peers, strict=True)}
                )
            ours, theirs, plain = (
                [statistics.median(turn["result"]) for turn in found[name]] for name in turns
            )
            print(f"{transport}: query {told(ours, 1e3, 'ms')}; query_points", end=" ")
            print(f"{told(theirs, 1e3, 'ms')}, uncompressed {told(plain, 1e3, 'ms')}")
            if transport == "REST":
                ratio = median_ratio(theirs, ours)
                yield Figure("REST query on kept connections, times as fast", ratio, 5, False)
            share = 1e6 * statistics.median(a - b for a, b in zip(ours, plain, strict=True))
            yield Figure(
                f"{transport} query, us above query_points uncompressed", round(share), 150
            )

    def upload(self) -> Iterator[Figure]:
        """CPU of the client for a point."""
        turns = ["our_points", "our_add", "their_upsert", "their_upload_points"]
        for transport in TRANSPORTS:
            with self._peers(transport, len(turns)) as peers:
                found = self._rounds(
                    {name: (peer, name) for name, peer in zip(turns, peers, strict=True)}
                )
            cpu = {name: [turn["cpu"] / POINTS for turn in found[name]] for name in turns}
            rate = {name: [POINTS / turn["seconds"] for turn in found[name]] for name in turns}
            for name in turns:
                figures = f"{told(cpu[name], 1e6, 'us of CPU a point')}, "
                figures += f"{statistics.median(rate[name]):,.0f} points/s"
                print(f"{transport}: {name:20} {figures}")
            ratio = median_ratio(cpu["our_points"], cpu["their_upsert"])
            yield Figure(
                f"{transport} CPU of a point, with upsert of qdrant-client = 1", ratio, 1 / 3
            )

    def add(self) -> Iterator[Figure]:
        """`add` with MiniLM, against encoding alone."""
        seconds = ["0"] if self._arguments.url else ["0", "0.05"]
        for transport in TRANSPORTS:
            for pause in seconds:
                with self._peers(transport, 2, "--upsert-seconds", pause) as (one, two):
                    found = self._rounds(
                        {"alone": (one, "our_encoding"), "add": (two, "our_encoding_add")}
                    )
                alone, added = ([turn["seconds"] for turn in found[name]] for name in found)
                print(
                    f"{transport}: {self._arguments.texts:,} texts encoded {told(alone, 1, 's')}",
                    end=" ",
                )
                print(f"and added {told(added, 1, 's')} with {pause} s a request")
                name = f"{transport} add with {pause} s a request, encoding alone = 1"
                yield Figure(name, median_ratio(alone, added), 0.9, False)

    def threads(self) -> Iterator[Figure]:
        """Many threads that ask one client."""
        for transport in TRANSPORTS:
            with self._peers(transport, 1, "--query-seconds", str(QUERY_SECONDS)) as (one,):
                found = self._rounds({"ours": (one, "our_threads")})["ours"]
            rates = [turn["result"][f"rate {THREADS}"] / turn["result"]["rate 1"] for turn in found]
            tails = [turn["result"][f"p99/p50 {THREADS}"] for turn in found]
            yield Figure(
                f"{transport} rate of {THREADS} threads over one", median(rates), 1.5, False
            )
            yield Figure(f"{transport} p99 over p50 of {THREADS} threads", median(tails), 10)


def median(numbers: Iterable[float]) -> float:
    """Rounded."""
    return round(statistics.median(numbers), 3)


def median_ratio(numbers: Iterable[float], others: Iterable[float]) -> float:
    """Median over the rounds."""
    return median(one / other for one, other in zip(numbers, others, strict=True))


def told(numbers: Iterable[float], factor: float, unit: str) -> str:
    """The median."""
    return f"{statistics.median(numbers) * factor:.3g} {unit}"


def processor() -> str:
    """Which of the features that matter to the encoder the processor has."""
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text().split() if cpu.exists() else []
    known = [name for name in ("avx2", "avx512f", "avx512_vnni", "avx_vnni") if name in flags]
    return f"{os.cpu_count()} cores, {', '.join(known) or 'features unknown'}"


def main() -> int:
    """Prints the figures; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--figures", default="query,upload,add,threads")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=20_000, help="of the figure add")
    parser.add_argument("--url")
    parser.add_argument("--grpc-port", type=int, default=6334)
    parser.add_argument("--api-key")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(*json.loads(arguments.worker))
        return 0
    print(processor())
    bench = Bench(arguments)
    found: list[Figure] = []
    for name in arguments.figures.split(","):
        found += getattr(bench, name)()
    return judged(found)


if __name__ == "__main__":
    sys.exit(main())
