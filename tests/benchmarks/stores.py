"""Embedded stores: what they keep, how fast they take and find it.

    python tests/benchmarks/stores.py [--figures store,text] [--sizes 1000,20000,100000]
                                      [--stores edge,local,memory,chroma,lancedb]

``store`` measures stores alone, on the same vectors and payloads: ours through our client, with the
embedded engine, on a folder of local mode and in memory, and chromadb and lancedb, where they are
installed, through their own APIs. Vectors are those of real sentences; more than 5,000 are made of
these by noise, as different from one another as two sentences of one subject. ``text`` measures
`add` and `query` against the encoder alone.

Each store is a process of its own. They take turns; a ratio is the median over the rounds. Local
mode takes minutes for 20,000 points, and is left out above, and so is lancedb's and chromadb's
repetition of what takes them long: what is stored is stored once. Each figure is printed beside its
limit; the exit code is 1 if one is not kept.
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
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from corpora import docstrings, queries
from ingestion import MINILM, Figure
from memory import resident_mb
from numpy.typing import NDArray
from qdrant_client import models
from server import median, median_ratio, processor, short_texts

from qdrant_embed import QdrantClient, TextEmbedding
from qdrant_embed.engines.points import Points
from qdrant_embed.engines.wire import upsert_request

Floats = NDArray[np.float32]

DIMENSION, REAL, NEAREST, GROUPS = 384, 5_000, 10, 100
QUESTIONS = 200
NOISE = 0.03  # of each number: two vectors made of one have a cosine of 0.74
NAME = "bench"
FEW, MANY, INDEXED = 1_000, 20_000, 100_000
LOCAL_MOST = 20_000
PEERS = ("edge", "local", "memory", "chroma", "lancedb")
_PACKAGES = {"chroma": "chromadb", "lancedb": "lancedb"}


def made(size: int, folder: Path) -> Path:
    """A file with `size` vectors, and questions at its end."""
    encoder = TextEmbedding(MINILM)
    words = " ".join(docstrings()).split()
    count = min(size, REAL)
    texts = [" ".join(words[step * 9 : step * 9 + 14]) for step in range(count)]
    real = np.array(list(encoder.passage_embed(texts)), np.float32)
    asked = docstrings()[-QUESTIONS:]
    questions = np.array(list(encoder.query_embed([text[:200] for text in asked])), np.float32)
    chance = np.random.default_rng(0)
    rows = real[np.arange(size) % count]
    if size > count:
        rows = rows + chance.normal(0, NOISE, rows.shape).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    file = folder / f"{size}.npy"
    np.save(file, np.vstack([rows, questions]).astype(np.float32))
    return file


def payload(number: int) -> dict[str, Any]:
    """A sentence's worth of text, and two numbers; one in a hundred has any one group."""
    text = f"sentence {number:8} " + "of a few words " * 5
    return {"document": text, "n": number, "group": number % GROUPS}


@dataclass(frozen=True)
class Asked:
    """What queries found, and how long each took.

    Attributes:
        ids: numbers of the points that each found, best first.
        seconds: of each.
    """

    ids: list[list[int]]
    seconds: list[float]


class Qdrant:
    """Our client, on one of its engines.

    Args:
        folder: to store in.
        engine: of the client; ``"memory"`` for none.
    """

    def __init__(self, folder: Path, engine: str) -> None:
        self._place: dict[str, Any] = {"location": ":memory:"}
        if engine != "memory":
            self._place = {"path": str(folder / "db"), "engine": engine}
        self._client = QdrantClient(**self._place)

    def create(self) -> None:
        """Before the first point."""
        params = models.VectorParams(size=DIMENSION, distance=models.Distance.COSINE)
        self._client.create_collection(NAME, vectors_config={"text": params})
        self._client.create_payload_index(NAME, "group", models.PayloadSchemaType.INTEGER)

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

    def reopen(self) -> None:
        """Closes the database, and opens it."""
        self._client.close()
        self._client = QdrantClient(**self._place)
        self._client.count(NAME)

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

        self._chromadb, self._folder = chromadb, folder
        settings = chromadb.Settings(anonymized_telemetry=False)
        self._client = chromadb.PersistentClient(str(folder / "db"), settings)
        self._collection: Any = None

    def create(self) -> None:
        """Before the first point."""
        self._collection = self._client.create_collection(
            NAME, configuration={"hnsw": {"space": "cosine"}}, embedding_function=None
        )

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

    def index(self) -> None:
        """It has done so."""

    def ask(self, vector: Floats, group: int | None) -> list[int]:
        """By vector."""
        where = None if group is None else {"group": group}
        found = self._collection.query(
            query_embeddings=[vector],
            n_results=NEAREST,
            where=where,
            include=["documents", "metadatas", "distances"],
        )
        return [int(point) for point in found["ids"][0]]

    def reopen(self) -> None:
        """In this process: what is cached of the folder is let go."""
        self._collection = None
        self._client._system.stop()
        self._chromadb.api.client.SharedSystemClient.clear_system_cache()
        settings = self._chromadb.Settings(anonymized_telemetry=False)
        self._client = self._chromadb.PersistentClient(str(self._folder / "db"), settings)
        self._collection = self._client.get_collection(NAME, embedding_function=None)
        self._collection.count()

    def close(self) -> None:
        """At the end."""


class Lance:
    """lancedb's table, with the index that its documentation recommends.

    Args:
        folder: to store in.
    """

    def __init__(self, folder: Path) -> None:
        import lancedb

        self._lancedb, self._folder = lancedb, folder
        self._table: Any = None

    def create(self) -> None:
        """The first points do."""

    def store(self, rows: Floats, first: int) -> None:
        """With what is encoded."""
        import pyarrow as pa

        payloads = [payload(number) for number in range(first, first + len(rows))]
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), DIMENSION)
        columns = {name: [one[name] for one in payloads] for name in payloads[0]}
        data = pa.table({**columns, "vector": vectors})
        if self._table is None:
            database = self._lancedb.connect(str(self._folder / "db"))
            self._table = database.create_table(NAME, data)
        else:
            self._table.add(data)

    def index(self) -> None:
        """Of vectors and of groups."""
        self._table.create_scalar_index("group", index_type="BITMAP")
        self._table.create_index(metric="cosine", index_type="IVF_HNSW_SQ")

    def ask(self, vector: Floats, group: int | None) -> list[int]:
        """By vector."""
        search = self._table.search(vector).metric("cosine").limit(NEAREST)
        if group is not None:
            search = search.where(f"`group` = {group}", prefilter=True)
        return [int(row["n"]) for row in search.to_list()]

    def reopen(self) -> None:
        """In this process."""
        self._table = self._lancedb.connect(str(self._folder / "db")).open_table(NAME)
        self._table.count_rows()

    def close(self) -> None:
        """At the end."""


def opened(store: str, folder: Path) -> Any:
    """One of the stores."""
    if store == "chroma":
        return Chroma(folder)
    return Lance(folder) if store == "lancedb" else Qdrant(folder, store)


class Worker:
    """What one process measures of one store, of vectors in a file."""

    def __init__(self, store: str, file: str, folder: str) -> None:
        rows = np.load(file)
        self._rows, self._questions = rows[:-QUESTIONS], rows[-QUESTIONS:]
        self._folder, self._before = Path(folder), resident_mb()
        self._batch = 5_000 if store in _PACKAGES else 256
        self._store = opened(store, self._folder)

    def fill(self) -> float:
        """Points a second."""
        self._store.create()
        started = time.perf_counter()
        for first in range(0, len(self._rows), self._batch):
            self._store.store(self._rows[first : first + self._batch], first)
        return len(self._rows) / (time.perf_counter() - started)

    def index(self) -> float:
        """Seconds."""
        return timed(self._store.index)

    def ask(self) -> list[float]:
        """Seconds of each query."""
        return self._asked(None).seconds

    def ask_filtered(self) -> list[float]:
        """Seconds of each query for one in a hundred points."""
        return self._asked(7).seconds

    def recall(self) -> float:
        """Of the ten nearest, by exact comparison; of equals, any counts."""
        scores = self._questions @ self._rows.T
        least = np.sort(scores, axis=1)[:, -NEAREST]
        found = self._asked(None).ids
        right = [
            sum(scores[question, point] >= least[question] - 1e-6 for point in points)
            for question, points in enumerate(found)
        ]
        return float(sum(right)) / (NEAREST * len(found))

    def reopen(self) -> list[float]:
        """Seconds to open, and of the first query."""
        return [timed(self._store.reopen), timed(lambda: self._store.ask(self._questions[0], None))]

    def size(self) -> list[float]:
        """MB of memory that are the store's, and of the disk."""
        used = sum(
            file.stat().st_blocks * 512 for file in self._folder.rglob("*") if file.is_file()
        )
        return [resident_mb() - self._before, used / 2**20]

    def close(self) -> None:
        """At the end."""
        self._store.close()

    def _asked(self, group: int | None) -> Asked:
        ids, seconds = [], []
        for question in self._questions:
            started = time.perf_counter()
            ids.append(self._store.ask(question, group))
            seconds.append(time.perf_counter() - started)
        return Asked(ids, seconds)


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

    def query(self) -> list[float]:
        """Seconds of each."""
        client = self._client
        assert client is not None
        return [
            timed(lambda question=question: client.query(NAME, question))  # type: ignore[misc] # bound at once
            for question in self._questions
        ]

    def close(self) -> None:
        """At the end."""
        if self._client is not None:
            self._client.close()


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

    def __call__(self, method: str) -> Any:
        """Runs a method there; what it returns."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{method}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{method} failed in its process")
        return json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate("close\n")


def worker(kind: str, arguments: Sequence[str]) -> None:
    """Runs what standard input asks for."""
    of = TextWorker(*arguments) if kind == "text" else Worker(kind, *arguments)
    for line in sys.stdin:
        print(json.dumps(getattr(of, line.strip())()), flush=True)


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
        for size in map(int, self._arguments.sizes.split(",")):
            stores = [store for store in installed(self._arguments.stores) if fits(store, size)]
            file, found = made(size, self._folder), {}
            with ExitStack() as stack:
                peers = {store: self._peer(stack, store, file) for store in stores}
                for store, peer in peers.items():
                    found[store] = {"points/s": peer("fill"), "index s": peer("index")}
                rounds = self._rounds(peers, ["ask", "ask_filtered"])
                for store, peer in peers.items():
                    of = found[store]
                    of["recall"] = peer("recall")
                    of["RSS MB"], of["disk MB"] = peer("size")
                    of["reopen s"], of["first ms"] = 0.0, 0.0
                    if store != "memory":
                        of["reopen s"], first = peer("reopen")
                        of["first ms"] = 1e3 * first
                    asked = [1e3 * one for turn in rounds[store]["ask"] for one in turn]
                    of["p50 ms"] = statistics.median(asked)
                    of["p99 ms"] = float(np.quantile(asked, 0.99))
                    filtered = [1e3 * one for turn in rounds[store]["ask_filtered"] for one in turn]
                    of["1% p50 ms"] = statistics.median(filtered)
            show(size, found)
            yield from limits(size, found, rounds)

    def _peer(self, stack: ExitStack, store: str, file: Path) -> Process:
        folder = self._folder / uuid.uuid4().hex
        folder.mkdir()
        peer = Process(store, str(file), str(folder))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.callback(peer.close)
        return peer

    def _rounds(
        self, peers: Mapping[str, Process], methods: Sequence[str]
    ) -> dict[str, dict[str, list[Any]]]:
        for peer in peers.values():
            for method in methods:
                peer(method)  # warm
        found: dict[str, dict[str, list[Any]]] = {
            name: {method: [] for method in methods} for name in peers
        }
        for _ in range(self._arguments.rounds):
            for name, peer in peers.items():
                for method in methods:
                    found[name][method].append(peer(method))
        return found

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
            for peer, method in ((alone, "encode_queries"), (both, "query")):
                peer(method)
            for _ in range(self._arguments.rounds):
                asked.append(statistics.median(alone("encode_queries")))
                answered.append(statistics.median(both("query")))
        print(
            f"{int(count):,} texts encoded in {median(encoded)} s, added in {median(added)} s; a "
            f"query encoded in {1e3 * statistics.median(asked):.2f} ms, answered in "
            f"{1e3 * statistics.median(answered):.2f} ms"
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


def limits(
    size: int,
    found: Mapping[str, Mapping[str, float]],
    rounds: Mapping[str, Mapping[str, list[list[float]]]],
) -> Iterator[Figure]:
    """The figures that have one."""

    def faster(peer: str, method: str) -> float:
        ours, theirs = (
            [statistics.median(turn) for turn in rounds[name][method]] for name in ("edge", peer)
        )
        return median_ratio(theirs, ours)

    def taken(peer: str) -> float:
        return round(found["edge"]["points/s"] / found[peer]["points/s"], 1)

    if size == MANY:
        if "chroma" in found:
            yield Figure(f"{size:,} points stored, chromadb = 1", taken("chroma"), 10, False)
        if "local" in found:
            yield Figure(f"{size:,} points stored, local mode = 1", taken("local"), 20, False)
    if size >= INDEXED:
        yield Figure(f"{size:,}: recall of the ten nearest", found["edge"]["recall"], 0.995, False)
        if "chroma" in found:
            yield Figure(f"{size:,}: query, chromadb = 1", faster("chroma", "ask"), 2, False)
            value = faster("chroma", "ask_filtered")
            yield Figure(f"{size:,}: 1% filter, chromadb = 1", value, 5, False)
        if "memory" in found:
            value = faster("memory", "ask_filtered")
            yield Figure(f"{size:,}: 1% filter, local mode in memory = 1", value, 20, False)


def show(size: int, found: Mapping[str, Mapping[str, float]]) -> None:
    """Prints a table."""
    columns = list(next(iter(found.values())))
    print(f"\n{size:,} points".ljust(16) + "".join(f"{column:>12}" for column in columns))
    for store, figures in found.items():
        cells = (f"{figures[column]:>12,.{digits(figures[column])}f}" for column in columns)
        print(f"{store:15}" + "".join(cells), flush=True)


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
    parser.add_argument("--stores", default=",".join(PEERS))
    parser.add_argument("--sizes", default=f"{FEW},{MANY},{INDEXED}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", type=int, default=20_000, help="of the figure text")
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
    for figure in found:
        bound = "at most" if figure.at_most else "at least"
        kept = "" if figure.is_kept else "  NOT KEPT"
        print(f"{figure.name:60} {figure.value:>8,.4g} {bound:>10} {figure.limit:.3g}{kept}")
    return 0 if all(figure.is_kept for figure in found) else 1


if __name__ == "__main__":
    sys.exit(main())
