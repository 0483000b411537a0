"""The catalog of known sparse models: data, one entry each.

Sources: F the predecessor's tables (fastembed 0.9.1), V the vendor's model card. What a model's own
files state wins.
"""

from __future__ import annotations

from dataclasses import dataclass

from qdrant_embed.encoder.interfaces import TermWeighting


@dataclass(frozen=True)
class SparseEntry:
    """What is known about a sparse model before its files are read.

    Attributes:
        name: the model's name, as the hub spells it.
        license: SPDX identifier.
        requires_idf: whether Qdrant weighs terms by how rare they are in the collection.
        inference_free: whether queries are weighed by a table, without a network.
        term_weighting: see `ModelSpec`.
        also: other names by which it is known.
    """

    name: str
    license: str = "Apache-2.0"
    requires_idf: bool = False
    inference_free: bool = False
    term_weighting: TermWeighting = "log"
    also: tuple[str, ...] = ()


# beside the weights of a sparse model without modules.json, the weights of a query's tokens
IDF_FILE = "idf.json"
TERMS_FILE = "sparse_linear.pt"  # beside those of bge-m3, the head that weighs each token

BM25 = "Qdrant/bm25"
SPLADE = "prithivida/Splade_PP_en_v1"

SPARSE_CATALOG = (
    SparseEntry(BM25, requires_idf=True),  # F
    SparseEntry(SPLADE, also=("prithvida/Splade_PP_en_v1",)),  # F, which once spelled it so
    SparseEntry("naver/splade-v3", "CC-BY-NC-SA-4.0"),  # V
    # V
    *(
        SparseEntry(
            f"opensearch-project/opensearch-neural-sparse-encoding-{name}", inference_free=True
        )
        for name in ("doc-v1", "doc-v2-distill", "doc-v2-mini", "multilingual-v1")
    ),
    # V; SIGIR 2025
    *(
        SparseEntry(
            f"opensearch-project/opensearch-neural-sparse-encoding-{name}",
            inference_free=True,
            term_weighting="log_log",
        )
        for name in ("doc-v3-distill", "doc-v3-gte")
    ),
    SparseEntry("ibm-granite/granite-embedding-30m-sparse"),  # V
)

_BY_NAME = {
    known: entry
    for entry in SPARSE_CATALOG
    for name in (entry.name, *entry.also)
    for known in (name.lower(), name.lower().rpartition("/")[2])
}
SPARSE_NAMES = {known: entry.name for known, entry in _BY_NAME.items()}


def find_sparse(name: str) -> SparseEntry | None:
    """Find the entry for `name`, ignoring case; the part after the slash is enough."""
    return _BY_NAME.get(name.lower())
