"""Retrieval quality on Cranfield, through ``add`` and ``query_batch``.

    python tests/benchmarks/cranfield.py --data FOLDER [--model NAME] [--precision fp32]
    python tests/benchmarks/cranfield.py --data FOLDER --sparse Qdrant/bm25 [--fusion dbsf]
    python tests/benchmarks/cranfield.py --data FOLDER --reranker NAME [--sparse Qdrant/bm25]
    python tests/benchmarks/cranfield.py --data FOLDER --diversity 0.1 0.3 [--sparse Qdrant/bm25]
    python tests/benchmarks/cranfield.py --data FOLDER --join 1 10 --overflow truncate mean chunk

FOLDER holds ``cran.all.1400.xml``, ``cran.qry.xml`` and ``cranqrel.trec.txt``. A query's id in the
judgements is its position (1 to 225), not its ``<num>``. Cosine search is exact (local mode).
``--join 10`` makes long documents, each of ten abstracts that stand beside each other in the
file; one is relevant where one of its abstracts is. ``--diversity`` is that of `query`; the mean
cosine of the first ten hits with each other is printed beside it, which is lower the more they
differ.
"""

from __future__ import annotations

import argparse
import math
import re
from collections import defaultdict
from pathlib import Path

import numpy as np

from qdrant_embed import QdrantClient, QueryResponse
from qdrant_embed.search.search import Fusion

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


def main() -> None:
    """Prints nDCG@10 and recall@100, for each way with texts that are too long."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the three files")
    parser.add_argument("--model", default=MINILM)
    parser.add_argument("--precision", choices=["int8", "fp32"], default="int8")
    parser.add_argument("--sparse", help="a sparse model's name, for hybrid search")
    parser.add_argument("--fusion", choices=["rrf", "dbsf"], default="rrf")
    parser.add_argument("--reranker", help="a cross-encoder's name or folder; it scores 100 hits")
    parser.add_argument("--diversity", nargs="+", type=float, default=[None])
    parser.add_argument("--join", nargs="+", type=int, default=[1], help="abstracts in a document")
    parser.add_argument(
        "--overflow", nargs="+", choices=["truncate", "mean", "chunk"], default=["truncate"]
    )
    arguments = parser.parse_args()
    documents = read_documents(arguments.data / "cran.all.1400.xml")
    queries = read_queries(arguments.data / "cran.qry.xml")
    relevant = read_judgements(arguments.data / "cranqrel.trec.txt")
    search = f"reranked by {arguments.reranker}, " if arguments.reranker else ""
    search += f"with {arguments.sparse}, {arguments.fusion}" if arguments.sparse else "dense alone"
    for size in arguments.join:
        texts, wanted = joined(documents, relevant, size)
        print(f"{arguments.model} {arguments.precision}, {search}: {len(texts)} texts")
        for overflow in arguments.overflow:
            client = QdrantClient(":memory:")
            client.set_model(arguments.model, precision=arguments.precision, overflow=overflow)
            if arguments.sparse:
                client.set_sparse_model(arguments.sparse)
            client.add("cranfield", texts.values(), ids=texts.keys())
            client.set_reranker(arguments.reranker)
            for diversity in arguments.diversity:
                measure(
                    client,
                    queries,
                    wanted,
                    overflow,
                    diversity,
                    arguments.fusion,
                    reranks=arguments.reranker is not None,
                )


def measure(
    client: QdrantClient,
    queries: list[str],
    wanted: dict[int, set[int]],
    overflow: str,
    diversity: float | None,
    fusion: Fusion,
    *,
    reranks: bool,
) -> None:
    """Prints the quality of one way to search."""
    answers = client.query_batch(
        "cranfield",
        queries,
        limit=100,
        fusion=fusion,
        diversity=diversity,
        with_vectors=True,
        rerank_limit=100 if reranks else None,
    )
    found = {number: [int(hit.id) for hit in answer] for number, answer in enumerate(answers, 1)}
    ndcg = mean([ndcg_at(10, found[number], wanted[number]) for number in wanted])
    recall = mean([recall_at(100, found[number], wanted[number]) for number in wanted])
    line = f"{overflow:<8}  nDCG@10 {ndcg:.4f}  recall@100 {recall:.4f}"
    if diversity is not None:
        line += f"  diversity {diversity}  cosine of hits {mean(list(map(alike, answers))):.3f}"
    print(line, flush=True)


def alike(hits: list[QueryResponse]) -> float:
    """Mean cosine of the first ten hits with each other."""
    vectors = np.array([hit.embedding for hit in hits[:10]])
    cosines = vectors @ vectors.T
    return float(cosines[np.triu_indices(len(vectors), 1)].mean())


def joined(
    documents: dict[int, str], relevant: dict[int, set[int]], size: int
) -> tuple[dict[int, str], dict[int, set[int]]]:
    """Documents of `size` texts each, and which of them are relevant to which query."""
    numbers = sorted(documents)
    place = {number: index // size for index, number in enumerate(numbers)}
    texts: dict[int, list[str]] = defaultdict(list)
    for number in numbers:
        texts[place[number]].append(documents[number])
    return (
        {index: "\n\n".join(parts) for index, parts in texts.items()},
        {query: {place[number] for number in found} for query, found in relevant.items()},
    )


def read_documents(path: Path) -> dict[int, str]:
    """Texts by document number; the file is no well-formed XML."""
    pattern = r"<docno>\s*(\d+)\s*</docno>.*?<text>(.*?)</text>"
    return {
        int(number): " ".join(text.split())
        for number, text in re.findall(pattern, path.read_text(), re.DOTALL)
    }


def read_queries(path: Path) -> list[str]:
    """Query texts in the order of the file."""
    texts = re.findall(r"<title>(.*?)</title>", path.read_text(), re.DOTALL)
    return [" ".join(text.split()) for text in texts]


def read_judgements(path: Path) -> dict[int, set[int]]:
    """Relevant documents by query position, for queries that have any."""
    relevant: dict[int, set[int]] = defaultdict(set)
    for line in path.read_text().splitlines():
        query, _, document, grade = line.split()
        if int(grade) > 0:
            relevant[int(query)].add(int(document))
    return relevant


def ndcg_at(depth: int, found: list[int], relevant: set[int]) -> float:
    """Normalised discounted cumulative gain with binary relevance."""
    gain = sum(1 / math.log2(rank + 2) for rank, i in enumerate(found[:depth]) if i in relevant)
    best = sum(1 / math.log2(rank + 2) for rank in range(min(depth, len(relevant))))
    return gain / best


def recall_at(depth: int, found: list[int], relevant: set[int]) -> float:
    """Share of the relevant documents among the first `depth`."""
    return len(relevant.intersection(found[:depth])) / len(relevant)


def mean(values: list[float]) -> float:
    """The arithmetic mean."""
    return sum(values) / len(values)


if __name__ == "__main__":
    main()
