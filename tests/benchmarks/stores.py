"""Embedded stores: what they keep, how fast they take and find it.

    python tests/benchmarks/stores.py [--figures store,text] [--sizes 1000,20000,100000]
                                      [--stores edge,local,memory,chroma,lancedb] [--patience 240]

``store`` measures stores alone, on the same vectors and payloads: ours through our client, with the
embedded engine (``edge``; ``int8``: on disk, with quantised vectors in memory), on a folder of
local mode and in memory, and chromadb and lancedb, where they are installed, through their own
APIs. Vectors are those of real sentences; more than 5,000 are made of these by noise, as different
from one another as two sentences of one subject. ``text`` measures `add` and `query` against the
encoder alone.

Each store is a process of its own, and another one opens what the first one stored. They take
turns; a ratio is the median over the turns. Recall is against an exact search of all vectors, of
which equals count alike. A store that takes longer than ``--patience`` seconds for all points is
left out after that, but for the rate so far; local mode on a folder, which takes minutes for
20,000, is not asked for more unless `--stores` names it. ``--sizes 1000000`` takes 2 GB of disk
for the vectors alone. Each figure is printed beside its limit; the exit code is 1 if one is not
kept.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from corpora import docstrings, queries
from ingestion import MINILM, Figure, judged
from memory import resident_mb
from numpy.typing import NDArray
from qdrant_client import models
from server import median, median_ratio, processor, short_texts

from qdrant_embed import QdrantClient, TextEmbedding
from qdrant_embed.collection.encoders import ModelEncoder
from qdrant_embed.engines.edge.shard import Shard
from qdrant_embed.engines.embedded import embedded
from qdrant_embed.engines.points import Points
from qdrant_embed.engines.wire import default_batch_size, upsert_request

Floats = NDArray[np.float32]

DIMENSION, REAL, NEAREST, GROUPS, GROUP = 384, 5_000, 10, 100, 7
QUESTIONS = 200
NOISE = 0.03  # of each number: two vectors made of one have a cosine of 0.74
NAME = "bench"
FEW, MANY, INDEXED, MILLION = 1_000, 20_000, 100_000, 1_000_000
LOCAL_MOST = 20_000
TURN = 5_000  # points that a store is given before it is the next one's turn
BLOCK = 50_000  # vectors that are made, or compared, at a time
ASKING, LEAST_ASKED = 3.0, 10  # seconds of a turn that asks, and questions even if it takes longer
PEERS = ("edge", "local", "memory", "chroma", "lancedb")
_PACKAGES = {"chroma": "chromadb", "lancedb": "lancedb"}


@dataclass(frozen=True)
class Vectors:
    """Vectors to store, and others to ask for, in files.

    Attributes:
        file: float32 numbers of the former, one vector after the other.
        questions: the latter.
        size: how many are stored.
    """

    file: Path
    questions: Floats
    size: int

    @classmethod
    def made(cls, size: int, folder: Path) -> Vectors:
        """Those of sentences; above `REAL`, of sentences with noise, and of length 1 again."""
        encoder = TextEmbedding(MINILM)
        words = " ".join(docstrings()).split()
        count = min(size, REAL)
        texts = [" ".join(words[step * 9 : step * 9 + 14]) for step in range(count)]
        real = np.array(list(encoder.passage_embed(texts)), np.float32)
        asked = [text[:200] for text in docstrings()[-QUESTIONS:]]
        questions = np.array(list(encoder.query_embed(asked)), np.float32)
        file, chance = folder / f"{size}.f32", np.random.default_rng(0)
        with file.open("wb") as written:
            for first in range(0, size, BLOCK):
                rows = real[np.arange(first, min(first + BLOCK, size)) % count]
                if size > count:
                    rows += NOISE * chance.standard_normal(rows.shape, np.float32)
                    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
                written.write(rows.tobytes())
        np.save(file.with_suffix(".npy"), questions)
        return cls(file, questions, size)

    @classmethod
    def read(cls, file: Path) -> Vectors:
        """Those that were made."""
        size = file.stat().st_size // (4 * DIMENSION)
        return cls(file, np.load(file.with_suffix(".npy")), size)

    def rows(self, first: int, last: int) -> Floats:
        """Some of the vectors; the file does not become a part of the process's memory."""
        start, count = 4 * DIMENSION * first, DIMENSION * (last - first)
        return np.fromfile(self.file, np.float32, count, offset=start).reshape(-1, DIMENSION)

    def recall(self, found: Sequence[Sequence[int]], group: int | None = None) -> float:
        """Share of the nearest that the first questions found; of equals, any counts.

        Args:
            found: numbers of vectors, of each question.
            group: whose vectors alone were to be found; all, if none.
        """
        questions = self.questions[: len(found)]
        best = np.empty((len(found), 0), np.float32)
        right = np.zeros(len(found), int)
        scores_of_found: list[dict[int, float]] = [{} for _ in found]
        for first in range(0, self.size, BLOCK):
            rows = self.rows(first, min(first + BLOCK, self.size))
            scores = questions @ rows.T
            for question, points in enumerate(found):
                for point in set(points):
                    if first <= point < first + len(rows):
                        scores_of_found[question][point] = float(scores[question, point - first])
            if group is not None:
                scores = scores[:, (np.arange(first, first + len(rows)) % GROUPS) == group]
            best = np.sort(np.hstack([best, scores]), axis=1)[:, -NEAREST:]
        for question, of in enumerate(scores_of_found):
            fitting = (of[point] for point in of if group is None or point % GROUPS == group)
            right[question] = sum(score >= best[question, 0] - 1e-6 for score in fitting)
        return float(right.sum()) / (best.shape[1] * len(found))


def payload(number: int) -> dict[str, Any]:
    """A sentence's worth of text, and two numbers; one in a hundred has any one group."""
    text = f"sentence {number:8} " + "of a few words " * 5
    return {"document": text, "n": number, "group": number % GROUPS}


class Qdrant:
    """Our client, on one of its engines.

    Args:
        folder: to store in.
        kind: engine of the client; ``"memory"`` for none, ``"int8"`` for a large collection's
            options.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self._place: dict[str, Any] = {"location": ":memory:"}
        if kind != "memory":  # what builds an index is measured, and not at the same time
            engine = "local" if kind == "local" else "edge"
            self._place = {"path": str(folder / "db"), "engine": engine, "optimize": False}
        self._is_large = kind == "int8"
        self._client: Any = None

    def open(self) -> int:
        """Open what is there, if anything; return the number of points."""
        self._client = QdrantClient(**self._place)
        if not self._client.collection_exists(NAME):
            return 0
        return int(self._client.count(NAME).count)

    def create(self) -> None:
        """Before the first point."""
        params = models.VectorParams(size=DIMENSION, distance=models.Distance.COSINE)
        if self._is_large:
            params.on_disk = True
            int8 = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
            params.quantization_config = models.ScalarQuantization(scalar=int8)
        self._client.create_collection(NAME, vectors_config={"text": params})
        self._client.create_payload_index(NAME, "group", models.PayloadSchemaType.INTEGER)

    def batch(self) -> int:
        """Number of points that `add` stores at a time."""
        return default_batch_size(self._client)

    def store(self, rows: Floats, first: int) -> None:
        """As `add` does, with what is encoded."""
        numbers = range(first, first + len(rows))
        points = Points(
            ids=list(numbers),
            payloads=[payload(number) for number in numbers],
            dense=rows,
            dense_name="text",
        )
        upsert_request(self._client, NAME, points).send()

    def flush(self) -> None:
        """As `add` does at its end."""
        database = embedded(self._client)
        if database is not None:
            database.flush(NAME)

    def index(self) -> None:
        """Until searches use it."""
        self._client.optimize(NAME, progress=False)

    def ask(self, vector: Floats, group: int | None) -> list[int]:
        """As any program asks that has a vector."""
        condition = None
        if group is not None:
            match = models.MatchValue(value=group)
            condition = models.Filter(must=[models.FieldCondition(key="group", match=match)])
        found = self._client.query_points(
            NAME, query=vector.tolist(), using="text", query_filter=condition, limit=NEAREST
        )
        return [int(point.id) for point in found.points]

    def close(self) -> None:
        """At the end."""
        self._client.close()


class Chroma:
    """chromadb's persistent client, with its defaults, by cosine.

    Args:
        folder: to store in.
    """

    def __init__(self, folder: Path) -> None:
        import chromadb

        self._chromadb: Any = chromadb
        self._folder = folder
        self._client: Any = None
        self._collection: Any = None

    def open(self) -> int:
        """Open what is there, if anything; return the number of points."""
        settings = self._chromadb.Settings(anonymized_telemetry=False)
        self._client = self._chromadb.PersistentClient(str(self._folder / "db"), settings)
        if not self._client.list_collections():
            return 0
        self._collection = self._client.get_collection(NAME, embedding_function=None)
        return int(self._collection.count())

    def create(self) -> None:
        """Before the first point."""
        self._collection = self._client.create_collection(
            NAME, configuration={"hnsw": {"space": "cosine"}}, embedding_function=None
        )

    def batch(self) -> int:
        """Number of points that it takes at a time, or a turn's."""
        return min(TURN, int(self._client.get_max_batch_size()))

    def store(self, rows: Floats, first: int) -> None:
        """With what is encoded."""
        payloads = [payload(number) for number in range(first, first + len(rows))]
        texts = [one.pop("document") for one in payloads]
        self._collection.add(
            ids=[str(one["n"]) for one in payloads],
            embeddings=rows,
            documents=texts,
            metadatas=payloads,
        )

    def flush(self) -> None:
        """It has done so."""

    def index(self) -> None:
        """It has done so."""

    def ask(self, vector: Floats, group: int | None) -> list[int]:
        """By vector."""
        found = self._collection.query(
            query_embeddings=[vector],
            n_results=NEAREST,
            where=None if group is None else {"group": group},
            include=["documents", "metadatas", "distances"],
        )
        return [int(point) for point in found["ids"][0]]

    def close(self) -> None:
        """At the end."""


class Lance:
    """lancedb's table, with the index that its documentation recommends.

    Args:
        folder: to store in.
    """

    def __init__(self, folder: Path) -> None:
        import lancedb
        import pyarrow

        self._lancedb, self._arrow, self._folder = lancedb, pyarrow, folder
        self._database: Any = None
        self._table: Any = None

    def open(self) -> int:
        """Open what is there, if anything; return the number of points."""
        is_new = not (self._folder / "db").exists()
        self._database = self._lancedb.connect(str(self._folder / "db"))
        if is_new:
            return 0
        self._table = self._database.open_table(NAME)
        return int(self._table.count_rows())

    def create(self) -> None:
        """The first points do."""

    def batch(self) -> int:
        """As many as may be: each is a file."""
        return TURN

    def store(self, rows: Floats, first: int) -> None:
        """With what is encoded."""
        arrow = self._arrow
        payloads = [payload(number) for number in range(first, first + len(rows))]
        vectors = arrow.FixedSizeListArray.from_arrays(arrow.array(rows.reshape(-1)), DIMENSION)
        columns = {name: [one[name] for one in payloads] for name in payloads[0]}
        data = arrow.table({**columns, "vector": vectors})
        if self._table is None:
            self._table = self._database.create_table(NAME, data)
        else:
            self._table.add(data)

    def flush(self) -> None:
        """It has done so."""

    def index(self) -> None:
        """Of vectors and of groups."""
        self._table.create_scalar_index("group", index_type="BITMAP")
        self._table.create_index(metric="cosine", index_type="IVF_HNSW_SQ")

    def ask(self, vector: Floats, group: int | None) -> list[int]:
        """By vector."""
        search = self._table.search(vector).distance_type("cosine").limit(NEAREST)
        if group is not None:
            search = search.where(f"`group` = {group}", prefilter=True)
        return [int(row["n"]) for row in search.to_list()]

    def close(self) -> None:
        """At the end."""


def opened(store: str, folder: Path) -> Any:
    """One of the stores, its package imported, its folder not open yet."""
    if store == "chroma":
        return Chroma(folder)
    return Lance(folder) if store == "lancedb" else Qdrant(folder, store)


class Worker:
    """What one process measures of one store, of vectors in a file."""

    def __init__(self, store: str, file: str, folder: str) -> None:
        self._vectors, self._folder = Vectors.read(Path(file)), Path(folder)
        self._store = opened(store, self._folder)
        self._before = resident_mb()
        self._stored = 0

    def open(self) -> float:
        """Seconds until the number of points is known."""
        return timed(self._store.open)

    def create(self) -> None:
        """Before the first point."""
        self._store.create()

    def fill(self, patience: float) -> list[float]:
        """Points of one turn, and their seconds.

        Args:
            patience: seconds after which it stops.
        """
        first, started = self._stored, time.perf_counter()
        last, batch = min(first + TURN, self._vectors.size), self._store.batch()
        while self._stored < last and time.perf_counter() - started < patience:
            rows = self._vectors.rows(self._stored, min(self._stored + batch, last))
            self._store.store(rows, self._stored)
            self._stored += len(rows)
        if self._stored == self._vectors.size:
            self._store.flush()
        return [self._stored - first, time.perf_counter() - started]

    def index(self) -> float:
        """Seconds."""
        return timed(self._store.index)

    def first(self) -> float:
        """Seconds of a query."""
        return timed(lambda: self._store.ask(self._vectors.questions[0], None))

    def ask(self, group: int | None) -> list[Any]:
        """Seconds of each query, and what each found."""
        seconds: list[float] = []
        found: list[list[int]] = []
        for question in self._vectors.questions:
            started = time.perf_counter()
            found.append(self._store.ask(question, group))
            seconds.append(time.perf_counter() - started)
            if sum(seconds) > ASKING and len(seconds) >= LEAST_ASKED:
                break
        return [seconds, found]

    def size(self) -> list[float]:
        """MB of memory that are the store's, and of the disk."""
        used = sum(
            512 * getattr(file.stat(), "st_blocks", 0)
            for file in self._folder.rglob("*")
            if file.is_file()
        )
        return [resident_mb() - self._before, used / 2**20]

    def close(self) -> None:
        """At the end."""
        self._store.close()


class TextWorker:
    """What one process measures with the encoder: alone, and with the embedded engine."""

    def __init__(self, texts: str, folder: str) -> None:
        self._texts, self._folder = short_texts(int(texts)), folder
        self._encoder = TextEmbedding(MINILM)
        self._questions = queries(QUESTIONS)
        self._client: QdrantClient | None = None

    def encode(self) -> float:
        """Seconds."""
        return timed(lambda: sum(1 for _ in self._encoder.passage_embed(self._texts)))

    def add(self) -> float:
        """Seconds to encode and store."""
        if self._client is None:
            self._client = QdrantClient(path=f"{self._folder}/db", engine="edge")
            self._client.set_model(self._encoder)
        client, name = self._client, NAME
        client.delete_collection(name)
        return timed(lambda: client.add(name, self._texts, progress=False))

    def encode_queries(self) -> list[float]:
        """Seconds of each."""
        return [
            timed(lambda question=question: list(self._encoder.query_embed([question])))  # type: ignore[misc] # bound at once
            for question in self._questions
        ]

    def index(self) -> None:
        """What is done in the background, once nothing is stored."""
        assert self._client is not None
        self._client.optimize(NAME, progress=False)

    def query(self) -> list[float]:
        """Seconds of each."""
        client = self._client
        assert client is not None
        return [
            timed(lambda question=question: client.query(NAME, question))  # type: ignore[misc] # bound at once
            for question in self._questions
        ]

    def share(self) -> list[float]:
        """Seconds of each query that neither the encoder nor the engine takes.

        They are this thread's own, on a processor: others that compute do not count.
        """
        client = self._client
        assert client is not None
        seconds = []
        with ExitStack() as stack:
            inner = [stack.enter_context(spied(ModelEncoder, "queries"))]
            inner.append(stack.enter_context(spied(Shard, "ask")))
            for question in self._questions:
                before, started = sum(map(sum, inner)), time.thread_time()
                client.query(NAME, question)
                whole = time.thread_time() - started
                seconds.append(whole - (sum(map(sum, inner)) - before))
        assert all(inner), "nothing was asked there"
        return seconds

    def close(self) -> None:
        """At the end."""
        if self._client is not None:
            self._client.close()


@contextmanager
def spied(owner: Any, name: str) -> Iterator[list[float]]:
    """The thread's seconds of each call of a method, while the block runs."""
    method, seconds = getattr(owner, name), []

    def call(*arguments: Any, **options: Any) -> Any:
        started = time.thread_time()
        try:
            return method(*arguments, **options)
        finally:
            seconds.append(time.thread_time() - started)

    setattr(owner, name, call)
    try:
        yield seconds
    finally:
        setattr(owner, name, method)


def timed(function: Callable[[], object]) -> float:
    """Seconds of a call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


class Process:
    """A worker in a process of its own."""

    def __init__(self, kind: str, *arguments: str) -> None:
        command = [sys.executable, "-W", "ignore", __file__, "--worker", kind, *arguments]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, method: str, *arguments: Any) -> Any:
        """Runs a method there; what it returns."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([method, *arguments]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{method} failed in its process")
        return json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        if self._process.poll() is None:
            self._process.communicate(json.dumps(["close"]) + "\n")


def worker(kind: str, arguments: Sequence[str]) -> None:
    """Runs what standard input asks for."""
    of = TextWorker(*arguments) if kind == "text" else Worker(kind, *arguments)
    for line in sys.stdin:
        method, *told = json.loads(line)
        print(json.dumps(getattr(of, method)(*told)), flush=True)


@dataclass
class Found:
    """What was measured of a store.

    Attributes:
        rates: points a second, of each turn.
        index: seconds.
        reopen: seconds; none for one that keeps nothing.
        first: seconds of the first query after that.
        asked: seconds of each query, of each turn; likewise of those with a filter.
        recall: share of the nearest that it found; likewise with a filter.
        memory: MB of the process that has opened it and asked, that are the store's.
        disk: MB.
    """

    rates: list[float] = field(default_factory=list)
    index: float = 0.0
    reopen: float | None = None
    first: float | None = None
    asked: list[list[float]] = field(default_factory=list)
    filtered: list[list[float]] = field(default_factory=list)
    recall: float | None = None
    filtered_recall: float | None = None
    memory: float | None = None
    disk: float | None = None

    def cells(self) -> dict[str, float | None]:
        """A row of the table."""
        row: dict[str, float | None] = {
            "points/s": statistics.median(self.rates),
            "index s": self.index,
        }
        row |= {
            "reopen s": self.reopen,
            "first ms": None if self.first is None else 1e3 * self.first,
        }
        for name, turns in (("", self.asked), ("1% ", self.filtered)):
            every = [1e3 * one for turn in turns for one in turn]
            row[f"{name}p50 ms"] = statistics.median(every) if every else None
            row[f"{name}p99 ms"] = float(np.quantile(every, 0.99)) if every else None
        row |= {"recall": self.recall, "1% recall": self.filtered_recall}
        return row | {"RSS MB": self.memory, "disk MB": self.disk}


class Bench:
    """All figures.

    Args:
        arguments: of the command.
        folder: for everything that is stored.
    """

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self._arguments, self._folder = arguments, folder

    def store(self) -> Iterator[Figure]:
        """Stores alone."""
        stores = installed(self._arguments.stores or ",".join(PEERS))
        for size in map(int, self._arguments.sizes.split(",")):
            vectors = Vectors.made(size, self._folder)
            wanted = [store for store in stores if self._arguments.stores or fits(store, size)]
            if size >= MILLION and not self._arguments.stores:
                wanted.append("int8")
            found = {store: Found() for store in wanted}
            with ExitStack() as stack:
                self._ask(self._fill(stack, vectors, found), vectors, found)
            vectors.file.unlink()
            show(size, found)
            yield from limits(size, found)

    def _fill(
        self, stack: ExitStack, vectors: Vectors, found: Mapping[str, Found]
    ) -> dict[str, Process]:
        """Store all vectors in all stores; return a process for each that has its own open."""
        folders, peers, done = {}, {}, {}
        for store in found:
            folders[store] = self._folder / uuid.uuid4().hex
            folders[store].mkdir()
            stack.callback(shutil.rmtree, folders[store], ignore_errors=True)
            peers[store] = Process(store, str(vectors.file), str(folders[store]))
            stack.callback(peers[store].close)
            peers[store]("open")
            peers[store]("create")
            done[store] = [0.0, 0.0]
        while left := [store for store in peers if done[store][0] < vectors.size]:
            for store in left:
                count, seconds = peers[store]("fill", self._arguments.patience - done[store][1])
                done[store] = [done[store][0] + count, done[store][1] + seconds]
                found[store].rates.append(count / seconds)
                if done[store][0] < vectors.size and done[store][1] >= self._arguments.patience:
                    print(f"{store} stored {done[store][0]:,.0f} points, and is left out from here")
                    peers.pop(store).close()
        for store, peer in peers.items():
            found[store].index = peer("index")
            if store != "memory":
                peer.close()
                peers[store] = Process(store, str(vectors.file), str(folders[store]))
                stack.callback(peers[store].close)
        return peers

    def _ask(
        self, peers: Mapping[str, Process], vectors: Vectors, found: Mapping[str, Found]
    ) -> None:
        for store, peer in peers.items():
            if store != "memory":
                found[store].reopen, found[store].first = peer("open"), peer("first")
            of = found[store]
            of.recall = vectors.recall(peer("ask", None)[1])  # warm then
            of.filtered_recall = vectors.recall(peer("ask", GROUP)[1], GROUP)
        for _ in range(self._arguments.rounds):
            for store, peer in peers.items():
                found[store].asked.append(peer("ask", None)[0])
                found[store].filtered.append(peer("ask", GROUP)[0])
        for store, peer in peers.items():
            found[store].memory, found[store].disk = peer("size")

    def text(self) -> Iterator[Figure]:
        """`add` and `query` with MiniLM and the embedded engine, against the encoder alone."""
        count = str(self._arguments.texts)
        with ExitStack() as stack:
            peers = []
            for name in ("alone", "both"):
                folder = self._folder / f"text-{name}"
                folder.mkdir()
                peer = Process("text", count, str(folder))
                stack.callback(peer.close)
                peers.append(peer)
            alone, both = peers
            encoded, added, asked, answered = [], [], [], []
            both("add")
            for _ in range(self._arguments.rounds):
                encoded.append(alone("encode"))
                added.append(both("add"))
            both("index")
            for peer, method in ((alone, "encode_queries"), (both, "query")):
                peer(method)
            shares = []
            for _ in range(self._arguments.rounds):
                asked.append(statistics.median(alone("encode_queries")))
                answered.append(statistics.median(both("query")))
                shares.append(1e6 * statistics.median(both("share")))
        print(
            f"{int(count):,} texts encoded in {median(encoded)} s, added in {median(added)} s; a "
            f"query encoded in {1e3 * statistics.median(asked):.2f} ms, answered in "
            f"{1e3 * statistics.median(answered):.2f} ms, of which "
            f"{statistics.median(shares):.0f} us are neither the encoder's nor the engine's"
        )
        yield Figure("add to edge, encoding alone = 1", median_ratio(encoded, added), 0.8, False)
        yield Figure("query on edge, encoder alone = 1", median_ratio(answered, asked), 1.5)


def fits(store: str, size: int) -> bool:
    """Whether a store is asked to take so much."""
    return store != "local" or size <= LOCAL_MOST


def installed(stores: str) -> list[str]:
    """Those of the stores that are installed; says which are not."""
    found = []
    for store in stores.split(","):
        package = _PACKAGES.get(store)
        if package is None or find_spec(package) is not None:
            found.append(store)
        else:
            print(f"{package} is not installed, and left out")
    return found


def limits(size: int, found: Mapping[str, Found]) -> Iterator[Figure]:
    """The figures that have one."""
    if "edge" not in found:
        return
    edge = found["edge"]

    def stored(peer: str, limit: float) -> Iterator[Figure]:
        if peer in found:
            pairs = zip(edge.rates, found[peer].rates, strict=False)  # it may have given up
            value = median(one / other for one, other in pairs)
            yield Figure(f"{size:,} points stored, {peer} = 1", value, limit, False)

    def faster(peer: str, ours: str, limit: float) -> Iterator[Figure]:
        if peer in found and getattr(found[peer], ours) and getattr(edge, ours):
            turns = [
                [statistics.median(turn) for turn in getattr(of, ours)]
                for of in (found[peer], edge)
            ]
            what = "query" if ours == "asked" else "1% filter"
            yield Figure(f"{size:,}: {what}, {peer} = 1", median_ratio(*turns), limit, False)

    if size == MANY:
        yield from stored("chroma", 10)
        yield from stored("local", 20)
    if size >= INDEXED:
        if edge.recall is not None:
            yield Figure(f"{size:,}: recall of the ten nearest", edge.recall, 0.995, False)
        yield from faster("chroma", "asked", 2)
        yield from faster("chroma", "filtered", 5)
        yield from faster("memory", "filtered", 20)
    if size >= MILLION:
        for store in ("edge", "int8"):
            if store in found and found[store].reopen is not None:
                yield Figure(f"{size:,}: {store} opens, s", round(found[store].reopen or 0, 2), 2)


def show(size: int, found: Mapping[str, Found]) -> None:
    """Prints a table."""
    rows = {store: of.cells() for store, of in found.items()}
    columns = list(next(iter(rows.values())))
    print(f"\n{size:,} points".ljust(16) + "".join(f"{column:>11}" for column in columns))
    for store, row in rows.items():
        print(f"{store:15}" + "".join(f"{told(row[column]):>11}" for column in columns), flush=True)


def told(value: float | None) -> str:
    """With as many digits behind the point as are worth reading."""
    return "-" if value is None else f"{value:,.{digits(value)}f}"


def digits(value: float) -> int:
    """How many behind the point are worth reading."""
    return 0 if value >= 100 else 1 if value >= 10 else 4


def versions() -> str:
    """Of what is compared."""
    found = []
    for package in ("qdrant-edge-py", "qdrant-client", *_PACKAGES.values()):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def main() -> int:
    """Prints the figures; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--figures", default="store,text")
    parser.add_argument("--stores", help="of the figure store; also int8")
    parser.add_argument("--sizes", default=f"{FEW},{MANY},{INDEXED}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", type=int, default=20_000, help="of the figure text")
    parser.add_argument("--patience", type=float, default=240, help="seconds to store all points")
    parser.add_argument("--worker", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker[0], arguments.worker[1:])
        return 0
    print(f"{processor()}; {versions()}")
    found: list[Figure] = []
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        bench = Bench(arguments, Path(folder))
        for name in arguments.figures.split(","):
            found += getattr(bench, name)()
    return judged(found)


if __name__ == "__main__":
    sys.exit(main())
