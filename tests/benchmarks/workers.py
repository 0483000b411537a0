"""Documents through workers of Ray and Spark that are killed, against one process: rate, memory.

`python tests/benchmarks/workers.py ENGINE --url http://localhost:6333 --documents 50000`, where
ENGINE is process, ray or spark. The server's collection "scale" is deleted first. One worker is
killed with half of a batch stored (of Spark, a task fails), and a fourth of the documents come
twice. At the end, what the server has is compared with what was sent: the texts, and the vectors of
some. With `--calm`, nothing of that happens, and the rate can be compared with that of one process.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from corpora import docstrings

from qdrant_embed import QdrantClient, TextEmbedding
from qdrant_embed.scale import Encoder, Writer

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
COLLECTION = "scale"
BATCH = 1024


class Dying:
    """A writer whose process is killed, once, when half of its second batch is stored.

    Args:
        marker: path of a file that says that it has been.
        error: whether it raises instead.
        options: those of `Writer`.
    """

    def __init__(self, marker: str, error: bool = False, **options: Any) -> None:
        self._write, self._marker, self._error = Writer(**options), marker, error
        self._calls = 0

    def __call__(self, batch: Mapping[str, Any]) -> Any:
        self._calls += 1
        if self._calls == 2 and self._is_chosen():
            size = len(next(iter(batch.values()))) // 2
            self._write({name: column[:size] for name, column in batch.items()})
            if self._error:
                raise RuntimeError("as the test asks for")
            os.kill(os.getpid(), 9)  # SIGKILL, by which nothing is tidied up
        counts = self._write(batch)
        return counts | {"megabytes": np.array([resident_mb()]), "worker": np.array([os.getpid()])}

    def _is_chosen(self) -> bool:
        try:
            os.close(os.open(self._marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True


def resident_mb() -> float:
    """Return the memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


def texts(count: int, most: int) -> list[str]:
    """Return different texts, of `most` words at most and of a third of that at least."""
    words, chance = " ".join(docstrings()).split(), random.Random(1)
    return [
        f"{n} {' '.join(chance.sample(words, chance.randint(most // 3, most)))}"
        for n in range(count)
    ]


def number(text: str) -> int:
    """Return the number that a text begins with."""
    return int(text.partition(" ")[0])


def started_ray() -> Any:
    """Return the module, when Ray runs on this machine."""
    import ray

    root = Path(__file__).parent
    paths = os.pathsep.join([str(root), str(root.parents[1]), os.environ.get("PYTHONPATH", "")])
    if not ray.is_initialized():
        ray.init(
            num_cpus=3,  # one reads
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env={"env_vars": {"PYTHONPATH": paths}},
        )
    return ray


def with_ray(options: Mapping[str, Any], documents: Sequence[str], marker: str | None) -> Any:
    """Store documents with two workers of Ray; return the rows of counts, as a DataFrame."""
    ray = started_ray()
    ray.data.DataContext.get_current().enable_progress_bars = False
    items = [{"text": text, "number": number(text)} for text in documents]
    data = ray.data.from_items(items, override_num_blocks=max(4, len(items) // BATCH))
    arguments: dict[str, Any] = {**options}
    if marker is not None:
        arguments["marker"] = marker
    done = data.map_batches(
        Writer if marker is None else Dying,
        fn_constructor_kwargs=arguments,
        compute=ray.data.ActorPoolStrategy(size=2),
        batch_size=min(BATCH, max(1, len(items) // 8)),
    )
    return done.to_pandas()


def with_spark(options: Mapping[str, Any], documents: Sequence[str], marker: str | None) -> Any:
    """Store documents with two tasks of Spark at a time, of which one fails once."""
    import pandas
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    root = Path(__file__).parent
    paths = os.pathsep.join([str(root), str(root.parents[1])])
    spark = (
        SparkSession.builder.master("local[2,4]")  # each task is tried four times
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.executorEnv.PYTHONPATH", paths)
        .config("spark.sql.execution.arrow.pyspark.enabled", "true")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", min(BATCH, len(documents) // 12))
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("OFF")
    try:
        frame = pandas.DataFrame({"text": documents, "number": [*map(number, documents)]})
        data = spark.createDataFrame(frame).repartition(4)
        schema = f"{Writer.SCHEMA}, megabytes double, worker long"
        return data.mapInPandas(_Frames(options, marker), schema).toPandas()
    finally:
        spark.stop()


class _Frames:
    """What `Dying` does with dicts, with iterators of pandas' frames."""

    def __init__(self, options: Mapping[str, Any], marker: str | None) -> None:
        self._write = Writer(**options) if marker is None else None
        self._dying = None if marker is None else Dying(marker, error=True, **options)

    def __call__(self, frames: Any) -> Any:
        for frame in frames:
            if self._write is not None:
                counts = self._write(frame)
                yield counts.assign(megabytes=resident_mb(), worker=os.getpid())
            elif self._dying is not None:
                rows = {name: frame[name].to_numpy() for name in frame}
                yield type(frame)(self._dying(rows))


def in_this_process(
    options: Mapping[str, Any], documents: Sequence[str], marker: str | None
) -> Any:
    """Store documents with every core of one process."""
    del marker
    url = options["url"]
    with QdrantClient(url=url, timeout=60) as client:
        client.set_model(options["model"])
        client.add(
            COLLECTION,
            documents,
            [{"number": number(text)} for text in documents],
            ids="content",
            on_existing="skip",
        )


RUNS = {"process": in_this_process, "ray": with_ray, "spark": with_spark}


def check(client: QdrantClient, documents: Sequence[str], model: Any) -> None:
    """Raise unless the collection has each document once, with its text and its vector."""
    found, offset = [], None
    while True:
        page, offset = client.scroll(COLLECTION, limit=5000, offset=offset)
        found += [(point.payload or {})["document"] for point in page]
        if offset is None:
            break
    assert sorted(found) == sorted(set(documents)), (len(found), len(set(documents)))
    page, _ = client.scroll(COLLECTION, limit=200, with_vectors=True)
    expected = TextEmbedding(model).passage_embed([(p.payload or {})["document"] for p in page])
    for point, right in zip(page, expected, strict=True):
        vector = point.vector
        [row] = vector.values() if isinstance(vector, dict) else [vector]
        cosine = float(np.dot(np.asarray(row, np.float32), right) / np.linalg.norm(right))
        assert cosine / float(np.linalg.norm(np.asarray(row))) > 0.999


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=RUNS)
    parser.add_argument("--url", required=True)
    parser.add_argument("--documents", type=int, default=50_000)
    parser.add_argument("--words", type=int, default=25, help="words of the longest document")
    parser.add_argument("--calm", action="store_true", help="kill nothing, and send nothing twice")
    chosen = parser.parse_args()
    documents = texts(chosen.documents, chosen.words)
    options = {"url": chosen.url, "collection": COLLECTION, "model": MINILM}
    is_rough = not chosen.calm and chosen.engine != "process"
    with (
        QdrantClient(url=chosen.url, timeout=60) as client,
        tempfile.TemporaryDirectory() as folder,
    ):
        client.delete_collection(COLLECTION)
        Encoder(MINILM)({"text": ["compiled before"]})
        RUNS[chosen.engine](options, documents[:2000], None)  # starts the workers
        client.delete_collection(COLLECTION)
        sent = documents + (documents[: len(documents) // 4] if is_rough else [])
        start = time.monotonic()
        counts = RUNS[chosen.engine](options, sent, f"{folder}/killed" if is_rough else None)
        seconds = time.monotonic() - start
        print(f"{chosen.engine}: {len(sent)} documents sent in {seconds:.1f} s,", end=" ")
        print(f"{len(sent) / seconds:.0f}/s; {client.count(COLLECTION).count} points")
        if counts is not None:
            print(counts[[*Writer.COUNTS]].sum().to_dict())
            if "megabytes" in counts:
                print("MB of each worker:", counts.groupby("worker").megabytes.max().to_dict())
        check(client, documents, MINILM)
        client.delete_collection(COLLECTION)


if __name__ == "__main__":
    main()
