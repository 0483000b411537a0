"""The catalog of known cross-encoders: data, one entry each.

Where a model's own files state a fact (length, activation), the files win. Sources as in
`catalog`: V the vendor's model card, F the tables of fastembed 0.9.1.
"""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass
from typing import Any

from qdrant_embed.encoder.facts.scoring import ScoreActivation

DEFAULT_RERANKER = "cross-encoder/ms-marco-MiniLM-L6-v2"


@dataclass(frozen=True)
class KnownReranker:
    """What is published about a cross-encoder.

    Attributes:
        model: the model's name, as the hub spells it.
        parameters: millions of numbers in the model.
        max_tokens: tokens read from a pair, special tokens included.
        license: SPDX identifier, or the name of the terms.
        activation: the function that follows its raw score by default, if any.
        languages: ``en`` or ``many``.
    """

    model: str
    parameters: float
    max_tokens: int
    license: str
    activation: ScoreActivation | None
    languages: str = "en"


RERANKERS: tuple[KnownReranker, ...] = (
    # V; F for L6 and L12
    KnownReranker("cross-encoder/ms-marco-TinyBERT-L2-v2", 4.4, 512, "Apache-2.0", None),
    KnownReranker("cross-encoder/ms-marco-MiniLM-L2-v2", 15.6, 512, "Apache-2.0", None),
    KnownReranker("cross-encoder/ms-marco-MiniLM-L4-v2", 19.2, 512, "Apache-2.0", None),
    KnownReranker(DEFAULT_RERANKER, 22.7, 512, "Apache-2.0", None),
    KnownReranker("cross-encoder/ms-marco-MiniLM-L12-v2", 33.4, 512, "Apache-2.0", None),
    # V
    KnownReranker("cross-encoder/ettin-reranker-17m-v1", 17, 7999, "Apache-2.0", None),
    KnownReranker("cross-encoder/ettin-reranker-32m-v1", 32, 7999, "Apache-2.0", None),
    KnownReranker("cross-encoder/ettin-reranker-68m-v1", 68, 7999, "Apache-2.0", None),
    KnownReranker("cross-encoder/ettin-reranker-150m-v1", 150, 7999, "Apache-2.0", None),
    # V; the activation is sentence-transformers' default, because the files state none
    KnownReranker("BAAI/bge-reranker-base", 278, 512, "MIT", "sigmoid", "many"),
    KnownReranker("BAAI/bge-reranker-large", 560, 512, "MIT", "sigmoid", "many"),
    KnownReranker("BAAI/bge-reranker-v2-m3", 568, 8192, "Apache-2.0", "sigmoid", "many"),
    KnownReranker("Alibaba-NLP/gte-reranker-modernbert-base", 150, 8192, "Apache-2.0", "sigmoid"),
    KnownReranker(
        "Alibaba-NLP/gte-multilingual-reranker-base", 306, 8192, "Apache-2.0", "sigmoid", "many"
    ),
    KnownReranker(
        "ibm-granite/granite-embedding-reranker-english-r2", 149, 8192, "Apache-2.0", "sigmoid"
    ),
    KnownReranker("Qwen/Qwen3-Reranker-0.6B", 596, 8192, "Apache-2.0", "sigmoid", "many"),
)

_BY_NAME = {known.model.lower(): known for known in RERANKERS}
_BY_SHORT_NAME = {name.rpartition("/")[2]: known for name, known in _BY_NAME.items()}
# as the repository was called before, and as fastembed calls it
_OTHER_NAMES = {
    "cross-encoder/ms-marco-minilm-l-6-v2": DEFAULT_RERANKER,
    "cross-encoder/ms-marco-minilm-l-12-v2": "cross-encoder/ms-marco-MiniLM-L12-v2",
    "xenova/ms-marco-minilm-l-6-v2": DEFAULT_RERANKER,
    "xenova/ms-marco-minilm-l-12-v2": "cross-encoder/ms-marco-MiniLM-L12-v2",
}


def reranker_name(name: str) -> str | None:
    """Find the known cross-encoder that `name` means, ignoring case."""
    text = name.lower()
    if (other := _OTHER_NAMES.get(text)) is not None:
        return other
    known = _BY_NAME.get(text) or _BY_SHORT_NAME.get(text)
    return None if known is None else known.model


def close_rerankers(name: str) -> list[str]:
    """List up to three known cross-encoders whose names look like `name`, best first."""
    short = name.lower().rpartition("/")[2]
    found = difflib.get_close_matches(short, _BY_SHORT_NAME, cutoff=0.6)
    return [_BY_SHORT_NAME[match].model for match in found]


def supported_rerankers() -> list[dict[str, Any]]:
    """List the facts about the known cross-encoders, a dict each."""
    return [asdict(known) for known in RERANKERS]
