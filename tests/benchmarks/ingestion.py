"""What `add` costs besides encoding: time, memory, and a second run over the same documents.

    python tests/benchmarks/ingestion.py [--figures overhead,memory,frames,rerun] [--json FILE]

The store takes everything and keeps ids and payloads alone, so that no figure is the store's.
``frames`` is the memory of `add_frame` and of the command with a Parquet file, which a server on
loopback watches while it takes the points; it is measured where it is asked for, as it takes some
minutes. Each figure is printed beside its limit; the exit code is 1 if one is not kept.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from corpora import docstrings
from loopback_store import Rest, Store
from memory import resident_mb
from numpy.typing import NDArray
from qdrant_client import models

from qdrant_embed import IngestProgress, QdrantClient, TextEmbedding

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
COMMAND = "from qdrant_embed.cli.main import main; raise SystemExit(main())"


@dataclass(frozen=True)
class Figure:
    """One measured number; `limit` is the most it may be, or the least."""

    name: str
    value: float
    limit: float
    at_most: bool = True

    @property
    def is_kept(self) -> bool:
        """Whether the number is within its limit."""
        return self.value <= self.limit if self.at_most else self.value >= self.limit


def judged(figures: Sequence[Figure]) -> int:
    """Prints each figure beside its limit; the exit code, which is 1 if one is not kept."""
    for figure in figures:
        bound = "at most" if figure.at_most else "at least"
        kept = "" if figure.is_kept else "  NOT KEPT"
        print(f"{figure.name:60} {figure.value:>8,.4g} {bound:>10} {figure.limit:.3g}{kept}")
    return 0 if all(figure.is_kept for figure in figures) else 1


class StubStore(QdrantClient):
    """A client whose points go nowhere; with `keeps`, their payloads can be looked up."""

    def __init__(self, *, keeps: bool) -> None:
        super().__init__(":memory:")
        self._payloads: dict[Any, Any] | None = {} if keeps else None
        self.count_stored = 0

    def upsert(  # type: ignore[override] # what `add` asks for
        self, collection_name: str, points: Any, **_: Any
    ) -> models.UpdateResult:
        """Counts the points."""
        self.count_stored += len(points)
        if self._payloads is not None:
            self._payloads.update((point.id, point.payload) for point in points)
        return models.UpdateResult(status=models.UpdateStatus.COMPLETED)

    def retrieve(  # type: ignore[override] # likewise
        self, collection_name: str, ids: Any, **_: Any
    ) -> list[models.Record]:
        """Those of the points that are kept."""
        kept = self._payloads or {}
        return [models.Record(id=i, payload=kept[i]) for i in ids if i in kept]


class NoEncoder:
    """One constant vector for every text."""

    model_name = "bench/none"
    dimension = 384

    def passage_embed(self, texts: Iterable[str], /) -> NDArray[np.float32]:
        """Costs next to nothing."""
        return np.full((len(list(texts)), self.dimension), 0.1, np.float32)

    query_embed = passage_embed


def overhead(rounds: int) -> list[Figure]:
    """Medians over interleaved rounds: an `add` over encoding the same texts, by the clock and by
    what the processor did, which other programs disturb less.
    """
    encoder = TextEmbedding(MINILM)
    texts = [" ".join(text.split()[:60]) for text in docstrings()[:3000]]
    metadata = [{"place": place, "source": "docs"} for place in range(len(texts))]
    client = StubStore(keeps=False)
    client.set_model(encoder)
    client.add("demo", texts[:64], progress=False)
    actions: list[Callable[[], object]] = [
        lambda: sum(1 for _ in encoder.passage_embed(texts)),
        lambda: client.add("demo", texts, metadata, progress=False),
    ]
    pairs = [[spent(action) for action in actions] for _ in range(rounds)]
    print(f"pure encoding and add, (wall, processor) seconds: {pairs}", file=sys.stderr)
    figures = []
    for place, name in enumerate(["wall", "processor"]):
        pure, added = (statistics.median(pair[which][place] for pair in pairs) for which in (0, 1))
        percent = round(100 * (added / pure - 1), 1)
        figures.append(Figure(f"percent of {name} time over pure encoding", percent, 5))
    return figures


def memory(count: int = 200_000, first: int = 10_000) -> list[Figure]:
    """Growth of the resident set from the first 10,000 documents on, in a new process."""
    command = [sys.executable, __file__, "--worker", f"{count},{first}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [Figure(f"MB more after {count:,} documents", float(done.stdout.split()[-1]), 50)]


def memory_worker(count: int, first: int) -> None:
    """What the process measures of itself: the growth, ids that `add` gives included."""
    client = StubStore(keeps=False)
    client.set_model(NoEncoder())
    sizes: dict[int, float] = {}

    def note(progress: IngestProgress) -> None:
        if progress.documents >= first and progress.documents % 1024 < 32:
            sizes[progress.documents] = resident_mb()

    ids = client.add("demo", (f"short text number {n}" for n in range(count)), progress=note)
    if len(ids) != count or client.count_stored != count:
        raise SystemExit(f"{len(ids)} ids of {client.count_stored} points")
    before, *rest = sizes.values()
    print(round(max(rest) - before, 1))


class Watched(Store):
    """A store that looks at the memory of the process which fills it.

    Attributes:
        sizes: MB of that process when so many points had come.
    """

    def __init__(self) -> None:
        super().__init__(0, 0)
        self.process: int | None = None
        self.count, self.sizes = 0, dict[int, float]()

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any, float]:
        """As every store, once it has looked."""
        if self.process is not None and (method, path[-7:]) == ("PUT", "/points"):
            self.count += body.count(b'"vector":')
            self.sizes[self.count] = resident_mb(self.process)
        return super().answer(method, path, body)


def frames(count: int = 200_000, first: int = 20_000) -> list[Figure]:
    """Growth of the resident set from the first 20,000 rows of a Parquet file on."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.parquet"
        write_rows(file, count)
        found = []
        for name, command in [
            ("add_frame", [__file__, "--frame", str(file)]),
            ("the command", ["-c", COMMAND, "add", str(file)]),
        ]:
            sizes = asyncio.run(watched([sys.executable, *command], count))
            before = next(size for stored, size in sizes.items() if stored >= first)
            most = max(size for stored, size in sizes.items() if stored >= first)
            print(f"{name}: {before:.0f} MB after {first:,} rows, then {most:.0f} at most")
            found.append(Figure(f"MB more after {count:,} rows, {name}", most - before, 60))
        return found


def write_rows(file: Path, count: int) -> None:
    """Write a Parquet file of short texts, each with a number, a date and a list of words."""
    import pyarrow as arrow
    from pyarrow import parquet

    rng = np.random.default_rng(0)
    words = np.array(sorted(set(" ".join(docstrings()).split())))
    schema = arrow.schema(
        {
            "text": arrow.string(),
            "number": arrow.int64(),
            "day": arrow.date32(),
            "tags": arrow.list_(arrow.string()),
        }
    )
    with parquet.ParquetWriter(file, schema) as writer:
        for start in range(0, count, 20_000):
            numbers = range(start, min(start + 20_000, count))
            chosen = rng.choice(words, (len(numbers), 6)).tolist()
            rows = {
                "text": [" ".join(some[:4]) for some in chosen],
                "number": numbers,
                "day": arrow.array((n % 20_000 for n in numbers), arrow.int32()).cast("date32"),
                "tags": [some[4:] for some in chosen],
            }
            writer.write_table(arrow.table(rows, schema=schema))


async def watched(command: Sequence[str], count: int) -> dict[int, float]:
    """Run a command that fills a collection; return its memory, in MB, by number of points."""
    store = Watched()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Rest(store), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    options = ["--url", url, "--collection", "demo", "--model", MINILM]
    filling = await asyncio.create_subprocess_exec(*command, *options)
    store.process = filling.pid
    if await filling.wait() or store.count != count:
        raise SystemExit(f"{store.count} points of {count}")
    server.close()
    return store.sizes


def frame_worker(file: str, url: str, collection: str, model: str) -> None:
    """What the process does whose memory is measured."""
    from pyarrow import parquet

    client = QdrantClient(url=url, check_compatibility=False)
    client.set_model(model)
    client.add_frame(collection, parquet.ParquetFile(file), text="text", progress=False)


def rerun(count: int = 10_000) -> list[Figure]:
    """Texts encoded, and time, when the same documents are added again."""
    encoder = TextEmbedding(MINILM)
    encoded: list[int] = []

    class Counting(NoEncoder):
        model_name, dimension = encoder.model_name, encoder.dimension

        def passage_embed(self, texts: Iterable[str], /) -> Any:
            listed = list(texts)
            encoded.append(len(listed))
            return list(encoder.passage_embed(listed))

    words = " ".join(docstrings()).split()
    texts = [" ".join(words[n : n + 12]) + f" {n}" for n in range(count)]
    client = StubStore(keeps=True)
    client.set_model(Counting())

    def add(texts: Sequence[str]) -> None:
        client.add("demo", texts, ids=range(count), on_existing="skip", progress=False)

    client.add("demo", ["warm"], ids=[count])
    encoded.clear()
    first = timed(lambda: add(texts))
    encoded.clear()
    again = statistics.median(timed(lambda: add(texts)) for _ in range(3))
    unchanged = sum(encoded)
    add([*texts[:5000], "another text", *texts[5001:]])
    return [
        Figure("texts encoded again, of 10,000 unchanged", unchanged, 0),
        Figure("texts encoded after one change", sum(encoded), 1),
        Figure("times faster than the first run", round(first / again, 1), 20, at_most=False),
    ]


def spent(action: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds of one call, of all its threads."""
    started = time.process_time()
    wall = timed(action)
    return wall, time.process_time() - started


def timed(action: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def measured(figures: Sequence[str], rounds: int) -> Iterator[Figure]:
    """The figures asked for, as they are measured."""
    if "overhead" in figures:
        yield from overhead(rounds)
    if "memory" in figures:
        yield from memory()
    if "frames" in figures:
        yield from frames()
    if "rerun" in figures:
        yield from rerun()


def main() -> int:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--figures", default="overhead,memory,rerun")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--frame", help=argparse.SUPPRESS)
    for option in ("--url", "--collection", "--model"):
        parser.add_argument(option, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.frame:
        where = (arguments.url, arguments.collection, arguments.model)
        frame_worker(arguments.frame, *where)
        return 0
    if arguments.worker:
        memory_worker(*map(int, arguments.worker.split(",")))
        return 0
    found = list(measured(arguments.figures.split(","), arguments.rounds))
    code = judged(found)
    lines = [asdict(figure) for figure in found]
    print(json.dumps(lines))
    if arguments.json:
        arguments.json.write_text(json.dumps(lines, indent=2))
    return code


if __name__ == "__main__":
    sys.exit(main())
