"""Answer one question from a few facts, with the model next to this file; the image runs this.

python answer.py "How do insects communicate?"

If QDRANT_URL is set, the facts are stored on that server, else in memory.
"""

import os
import sys
from pathlib import Path

from qdrant_embed import QdrantClient

MODEL = Path(__file__).with_name("model")  # exported while the image was built
FACTS = [
    "Bees tell each other where to find flowers by dancing.",
    "Wolves returning to a valley can change the course of its rivers.",
    "Mangrove roots protect tropical coasts from storm surges.",
]


def main(question: str) -> None:
    client = QdrantClient(os.environ.get("QDRANT_URL", ":memory:"))
    client.set_model(MODEL)
    client.add("facts", FACTS, ids="content", on_existing="skip")
    (hit,) = client.query("facts", question, limit=1)
    print(f"{hit.score:.2f}  {hit.document}")


if __name__ == "__main__":
    main(sys.argv[1])
