"""LlamaIndex: embeddings, sparse functions, and a vector store over a client of this package.

Payloads and names of vectors are those of ``llama-index-vector-stores-qdrant``, so that either
library reads and extends what the other one wrote::

    from llama_index.core import StorageContext, VectorStoreIndex
    from qdrant_embed import QdrantClient
    from qdrant_embed.llama_index import QdrantEmbedding, QdrantVectorStore

    model = QdrantEmbedding("BAAI/bge-small-en-v1.5")
    store = QdrantVectorStore(QdrantClient(path="notes"), "notes", embed_model=model)
    index = VectorStoreIndex.from_documents(
        documents,
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=model,
    )
    index.as_retriever(similarity_top_k=3).retrieve("insects")

It needs ``llama-index-core`` 0.13 or newer: ``pip install 'qdrant-embed[llama-index]'``.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from qdrant_client import models

from qdrant_embed.collection.payload import CHUNK_KEY, DOCUMENT_KEY, ID_KEY, PayloadCodec
from qdrant_embed.collection.stamp import describe
from qdrant_embed.encoder.facts.catalog import DEFAULT_MODEL
from qdrant_embed.encoder.interfaces import (
    DenseEncoder,
    EncoderDescription,
    SparseEncoder,
    SparseVector,
    check_encoder,
    check_sparse_encoder,
)
from qdrant_embed.encoder.sparse import SparseTextEmbedding
from qdrant_embed.encoder.text import TextEmbedding
from qdrant_embed.errors import InputError, MissingDependencyError
from qdrant_embed.frameworks import Client, FrameworkCollection
from qdrant_embed.ingest.documents import Document
from qdrant_embed.ingest.ids import point_ids
from qdrant_embed.search.filters import combined
from qdrant_embed.search.search import QueryResponse

try:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.bridge.pydantic import PrivateAttr
    from llama_index.core.schema import BaseNode, MetadataMode, TextNode
    from llama_index.core.vector_stores.types import (
        BasePydanticVectorStore,
        MetadataFilter,
        MetadataFilters,
        VectorStoreQuery,
        VectorStoreQueryMode,
        VectorStoreQueryResult,
    )
    from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict
except ImportError as error:
    raise MissingDependencyError(
        "llama-index-core", "qdrant_embed.llama_index", extra="llama-index"
    ) from error

SparseFunction: TypeAlias = Callable[[list[str]], tuple[list[list[int]], list[list[float]]]]

_NODE = "_node_content"
_SOURCE = "doc_id"  # of the document that a node is a part of
_BATCH = 256  # texts that are embedded together: the encoder makes batches of its own
_RELEVANCE = 0.5  # of a search by MMR that does not say
_OF_LLAMA_INDEX = ("qdrant_filters", "mmr_threshold")  # options that are not those of a query
_BY_WORDS = (VectorStoreQueryMode.SPARSE, VectorStoreQueryMode.TEXT_SEARCH)


class QdrantEmbedding(BaseEmbedding):
    """LlamaIndex's embeddings by a model of this package.

    Args:
        model: the name or folder of a model, or an encoder, such as a `TextEmbedding` with options
            of its own.
        options: those of LlamaIndex's ``BaseEmbedding``.

    Raises:
        InputError: if `model` is neither a name nor an encoder.
        ModelError: if the model cannot be found, downloaded or read.
        MissingDependencyError: if a model by name is used, but the extra ``fastembed`` is not
            installed.
    """

    _encoder: DenseEncoder = PrivateAttr()

    def __init__(
        self, model: str | os.PathLike[str] | DenseEncoder = DEFAULT_MODEL, **options: Any
    ) -> None:
        encoder: DenseEncoder = (
            TextEmbedding(model) if isinstance(model, str | os.PathLike) else check_encoder(model)
        )
        options.setdefault("embed_batch_size", _BATCH)
        super().__init__(**{"model_name": str(encoder.model_name), **options})
        self._encoder = encoder

    @classmethod
    def class_name(cls) -> str:
        """Return the name by which LlamaIndex knows the class."""
        return "QdrantEmbedding"

    @property
    def encoder(self) -> DenseEncoder:
        """The encoder."""
        return self._encoder

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return [[float(value) for value in row] for row in self._encoder.passage_embed(texts)]

    def _get_text_embedding(self, text: str) -> list[float]:
        (row,) = self._get_text_embeddings([text])
        return row

    def _get_query_embedding(self, query: str) -> list[float]:
        (row,) = self._encoder.query_embed([query])
        return [float(value) for value in row]

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)


def sparse_functions(
    model: str | os.PathLike[str] | SparseEncoder = "Qdrant/bm25",
) -> tuple[SparseFunction, SparseFunction]:
    """Return the sparse functions for documents and queries that LlamaIndex's own store takes.

    They are for ``sparse_doc_fn`` and ``sparse_query_fn`` of the ``QdrantVectorStore`` of
    ``llama-index-vector-stores-qdrant``. For BM25, pass ``sparse_config=models.SparseVectorParams(
    modifier=models.Modifier.IDF)``, too. The store of this module needs neither: call
    ``client.set_sparse_model``.

    Args:
        model: the name or folder of a sparse model, or a `SparseEncoder`.

    Raises:
        InputError: if `model` is neither a name nor a sparse encoder.
        ModelError: if the model cannot be found, downloaded or read.
        MissingDependencyError: if a model by name is used, but the extra ``fastembed`` is not
            installed.
    """
    if isinstance(model, str | os.PathLike):
        encoder: SparseEncoder = SparseTextEmbedding(model)
    else:
        encoder = check_sparse_encoder(model)
    return (
        lambda texts: _columns(encoder.passage_embed(texts)),
        lambda texts: _columns(encoder.query_embed(texts)),
    )


def _columns(vectors: Iterable[SparseVector]) -> tuple[list[list[int]], list[list[float]]]:
    rows = [([*map(int, row.indices)], [*map(float, row.values)]) for row in vectors]
    return [indices for indices, _ in rows], [values for _, values in rows]


@dataclass(frozen=True)
class NodeCodec(PayloadCodec):
    """The payloads of ``llama-index-vector-stores-qdrant``: a node as JSON, and its metadata."""

    document_key: str = _NODE

    @property
    def reserved_keys(self) -> Mapping[str, str]:
        """Keys that metadata cannot have, and what is stored under them."""
        return {ID_KEY: "the id", CHUNK_KEY: "the chunk"}

    def encode(
        self,
        text: str,
        metadata: Mapping[str, Any],
        user_id: str | int | None = None,
        chunk: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return the payload of a point; the text is part of the metadata, which has the node."""
        payload = super().encode(text, metadata, user_id, chunk)
        return payload | {_NODE: metadata.get(_NODE, text)}

    def document(self, payload: Mapping[str, Any] | None) -> str:
        """Return the node's text; ``""`` if there is none."""
        return _text(payload or {})

    def text(self, payload: Mapping[str, Any] | None) -> object:
        """Return the node's text."""
        return _text(payload or {})


def _text(payload: Mapping[str, Any]) -> str:
    """Return the text of a payload that LlamaIndex, or another tool, wrote."""
    try:
        node = json.loads(payload[_NODE])
        resource = node.get("text_resource") or {}
        found = node.get("text") or resource.get("text")
    except (KeyError, TypeError, AttributeError, ValueError):
        found = next((payload[key] for key in _TEXTS if key in payload), "")
    return found if isinstance(found, str) else ""


_TEXTS = ("text", DOCUMENT_KEY, "page_content")


def _node(hit_id: str | int, payload: dict[str, Any]) -> BaseNode:
    """Return a node of a payload."""
    if _NODE in payload:
        node: BaseNode = metadata_dict_to_node(payload)
        return node
    metadata = {key: value for key, value in payload.items() if key not in (*_TEXTS, ID_KEY)}
    return TextNode(id_=str(hit_id), text=_text(payload), metadata=metadata)


class _EmbedModelEncoder:
    """An encoder by LlamaIndex's embeddings, for nodes whose vectors may be there already."""

    def __init__(self, embed_model: BaseEmbedding) -> None:
        self._model = embed_model
        self._own = embed_model.encoder if isinstance(embed_model, QdrantEmbedding) else None
        self._given: dict[str, Sequence[float]] = {}
        self._dimension: int | None = None

    @property
    def model_name(self) -> str:
        """Name of the model."""
        return str(self._model.model_name)

    @property
    def dimension(self) -> int:
        """Dimension of a vector."""
        if self._dimension is None:
            if self._own is not None:
                self._dimension = self._own.dimension
            else:
                self._dimension = len(self._model.get_query_embedding("dimension"))
        return self._dimension

    def describe(self) -> EncoderDescription:
        """Return the facts that a collection is stamped with."""
        if self._own is None:
            return EncoderDescription(self.model_name, self.dimension)
        described = describe(self._own)
        if described.overflow == "chunk":
            raise InputError(
                "a model with overflow='chunk' cannot embed nodes, which are chunks already: use "
                "overflow='truncate' or 'mean', and a splitter of LlamaIndex"
            )
        return described

    @contextmanager
    def given(self, vectors: Mapping[str, Sequence[float]]) -> Iterator[None]:
        """Use these vectors of texts while the block runs."""
        self._given |= vectors
        try:
            yield
        finally:
            for text in vectors:
                self._given.pop(text, None)

    def passage_embed(self, texts: Iterable[str], /) -> list[Sequence[float]]:
        """Return one vector per document."""
        texts = [*texts]
        found = {text: self._given.get(text) for text in texts}
        missing = [text for text, row in found.items() if row is None]
        if missing:
            rows = self._model.get_text_embedding_batch(missing)
            found |= dict(zip(missing, rows, strict=True))
        return [row for text in texts if (row := found[text]) is not None]

    def query_embed(self, query: Iterable[str], /) -> list[list[float]]:
        """Return one vector per query."""
        return [self._model.get_query_embedding(text) for text in query]


class QdrantVectorStore(BasePydanticVectorStore):
    """LlamaIndex's vector store over a collection of a client of this package.

    Pass the same `embed_model` to the store and the index, so that nodes are encoded once, by the
    index: the store keeps their vectors. Without it, the client's model encodes nodes and queries,
    and vectors of other models that nodes have are ignored.

    A query is one of ``client.query``: hybrid in a collection with sparse vectors
    (`set_sparse_model`), with the client's reranker, if any; one of mode ``"sparse"`` or
    ``"text_search"`` is by the sparse vectors alone. ``vector_store_kwargs`` of a retriever are
    options of `QdrantClient.query`, ``qdrant_filters`` a filter of Qdrant, and ``mmr_threshold``
    how near hits of mode ``"mmr"`` are, from 0 to 1.

    With a `QdrantClient`, asynchronous methods run in threads. With an `AsyncQdrantClient`, they
    run on the event loop, and the store has no others.

    Args:
        client: a client of this package, of either kind.
        collection_name: name of the collection, which the first nodes create.
        embed_model: LlamaIndex's embeddings, in place of the client's model.
        dense_vector_name: name of the dense vector in a new collection, and in one that others
            wrote, unless `set_model` has named it. An unnamed vector is found without it.
        sparse_vector_name: name of the sparse vector, in the same way.

    Raises:
        InputError: if the client is of another package.
    """

    stores_text: bool = True
    is_embedding_query: bool = True
    flat_metadata: ClassVar[bool] = False

    _own: FrameworkCollection = PrivateAttr()
    _encoder: _EmbedModelEncoder | None = PrivateAttr()

    def __init__(
        self,
        client: Client,
        collection_name: str,
        *,
        embed_model: BaseEmbedding | None = None,
        dense_vector_name: str = "text-dense",
        sparse_vector_name: str = "text-sparse-new",
    ) -> None:
        super().__init__(stores_text=True, is_embedding_query=embed_model is not None)
        self._encoder = None if embed_model is None else _EmbedModelEncoder(embed_model)
        self._own = FrameworkCollection(
            client,
            collection_name,
            NodeCodec(),
            dense_name=dense_vector_name,
            sparse_name=sparse_vector_name,
            encoder=self._encoder,
        )

    @classmethod
    def class_name(cls) -> str:
        """Return the name by which LlamaIndex knows the class."""
        return "QdrantEmbedVectorStore"

    @property
    def client(self) -> Client:
        """The client."""
        return self._own.client

    @property
    def collection_name(self) -> str:
        """Name of the collection."""
        return self._own.name

    # nodes in, back and out

    def add(self, nodes: Sequence[BaseNode], **options: Any) -> list[str]:
        """Store nodes; return their ids.

        Args:
            nodes: the nodes.
            options: those of `QdrantClient.add`.
        """
        return self._own.run(lambda: self._add(nodes, options))

    async def async_add(self, nodes: Sequence[BaseNode], **options: Any) -> list[str]:
        """Store nodes; return their ids. See `add`."""
        return await self._own.arun(lambda: self._add(nodes, options))

    async def _add(self, nodes: Sequence[BaseNode], options: Mapping[str, Any]) -> list[str]:
        documents = [
            Document(
                node.get_content(metadata_mode=MetadataMode.EMBED),
                node_to_metadata_dict(node, remove_text=False, flat_metadata=False),
                id=node.node_id,
            )
            for node in nodes
        ]
        if self._encoder is None:
            await self._own.add(documents, **options)
        else:
            given = {
                document.text: node.embedding
                for document, node in zip(documents, nodes, strict=True)
                if node.embedding is not None
            }
            with self._encoder.given(given):
                await self._own.add(documents, **options)
        return [node.node_id for node in nodes]

    def get_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Return the nodes with these ids that match the filters; all without either."""
        return self._own.run(lambda: self._nodes(_condition(node_ids, filters)))

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Return nodes; see `get_nodes`."""
        return await self._own.arun(lambda: self._nodes(_condition(node_ids, filters)))

    async def _nodes(self, condition: models.Filter | None) -> list[BaseNode]:
        return [_node(one.id, one.metadata) for one in await self._own.scroll(condition)]

    def delete(self, ref_doc_id: str, **options: Any) -> None:
        """Delete the nodes of a document.

        Args:
            ref_doc_id: id of the document.
            options: none.
        """
        _check_no_options(options)
        self._own.run(lambda: self._own.delete_matching(_of_document(ref_doc_id)))

    async def adelete(self, ref_doc_id: str, **options: Any) -> None:
        """Delete the nodes of a document; see `delete`."""
        _check_no_options(options)
        await self._own.arun(lambda: self._own.delete_matching(_of_document(ref_doc_id)))

    def delete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **options: Any,
    ) -> None:
        """Delete the nodes with these ids that match the filters.

        Args:
            node_ids: ids of nodes.
            filters: conditions on metadata.
            options: none.

        Raises:
            InputError: if there are neither ids nor filters: `clear` deletes all.
        """
        condition = _deleted(node_ids, filters, options)
        self._own.run(lambda: self._own.delete_matching(condition))

    async def adelete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **options: Any,
    ) -> None:
        """Delete nodes; see `delete_nodes`."""
        condition = _deleted(node_ids, filters, options)
        await self._own.arun(lambda: self._own.delete_matching(condition))

    def clear(self) -> None:
        """Delete the collection."""
        self._own.run(self._own.delete_collection)

    async def aclear(self) -> None:
        """Delete the collection."""
        await self._own.arun(self._own.delete_collection)

    # searches

    def query(self, query: VectorStoreQuery, **options: Any) -> VectorStoreQueryResult:
        """Return the nodes that answer a query, with their scores.

        Args:
            query: the query.
            options: see `QdrantVectorStore`.

        Raises:
            InputError: if its mode or an operator of its filters is not supported.
        """
        return self._own.run(lambda: self._query(query, options))

    async def aquery(self, query: VectorStoreQuery, **options: Any) -> VectorStoreQueryResult:
        """Return the nodes that answer a query; see `query`."""
        return await self._own.arun(lambda: self._query(query, options))

    async def _query(
        self, query: VectorStoreQuery, given: Mapping[str, Any]
    ) -> VectorStoreQueryResult:
        options = {**_options(query, given), **given}
        for name in _OF_LLAMA_INDEX:
            options.pop(name, None)
        text, vector = query.query_str, query.query_embedding
        mode = VectorStoreQueryMode(query.mode)
        if mode in _BY_WORDS:
            if text is None:
                raise InputError(f"mode {mode.value!r} searches by words: pass query_str")
            hits = await self._own.search_words(text, **options)
        elif vector is not None and self._encoder is not None:
            hits = await self._own.search_vector(vector, text or None, **options)
        elif text is None:
            raise InputError("the query has no text: pass query_str, or embed_model to the store")
        else:
            hits = await self._own.search(text, **options)
        return _result(hits)


def _result(hits: Sequence[QueryResponse]) -> VectorStoreQueryResult:
    nodes = [_node(hit.id, hit.metadata) for hit in hits]
    return VectorStoreQueryResult(
        nodes=nodes,
        similarities=[hit.score for hit in hits],
        ids=[node.node_id for node in nodes],
    )


def _options(query: VectorStoreQuery, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a search."""
    mode, limit = VectorStoreQueryMode(query.mode), query.similarity_top_k
    options: dict[str, Any] = {}
    if mode == VectorStoreQueryMode.HYBRID:
        limit = query.hybrid_top_k or limit
        if query.sparse_top_k is not None:
            options["prefetch_limit"] = max(limit, query.sparse_top_k, query.similarity_top_k)
    elif mode == VectorStoreQueryMode.MMR:
        threshold = query.mmr_threshold
        if threshold is None:
            threshold = given.get("mmr_threshold", _RELEVANCE)
        options["diversity"] = 1 - threshold
    elif mode == VectorStoreQueryMode.SPARSE:
        limit = query.sparse_top_k or limit
    elif mode != VectorStoreQueryMode.DEFAULT and mode not in _BY_WORDS:
        raise InputError(
            f"mode {mode.value!r} is not supported: use 'default' (hybrid in a collection with "
            "sparse vectors), 'hybrid', 'mmr', 'sparse' or 'text_search' (the two are one)"
        )
    condition = _condition(query.node_ids or None, query.filters, query.doc_ids)
    wanted: models.Filter | None = given.get("qdrant_filters")
    if condition is not None and wanted is not None:
        wanted = models.Filter(must=[condition, wanted])
    return options | {"limit": limit, "query_filter": wanted or condition}


# filters


def _condition(
    node_ids: Sequence[str] | None,
    filters: MetadataFilters | None,
    doc_ids: Sequence[str] | None = None,
) -> models.Filter | None:
    """Return the filter of nodes that match all that is given; ``None`` for no filter."""
    conditions: list[models.Condition] = []
    if node_ids is not None:
        conditions.append(models.HasIdCondition(has_id=[*point_ids(node_ids)]))
    if doc_ids:
        match = models.MatchAny(any=[*doc_ids])
        conditions.append(models.FieldCondition(key=_SOURCE, match=match))
    if filters is not None and filters.filters:
        found = combined(None, _where(filters))
        conditions += [] if found is None else [found]
    return models.Filter(must=conditions) if conditions else None


def _of_document(ref_doc_id: str) -> models.Filter:
    match = models.MatchValue(value=ref_doc_id)
    return models.Filter(must=[models.FieldCondition(key=_SOURCE, match=match)])


def _deleted(
    node_ids: list[str] | None, filters: MetadataFilters | None, options: Mapping[str, Any]
) -> models.Filter:
    _check_no_options(options)
    condition = _condition(node_ids, filters)
    if condition is None:
        raise InputError("pass node_ids or filters: clear() deletes all nodes")
    return condition


def _check_no_options(options: Mapping[str, Any]) -> None:
    if options:
        raise InputError(f"a deletion has no options {', '.join(options)}: omit them")


def _where(filters: MetadataFilters) -> dict[str, Any]:
    """Return LlamaIndex's filters as a plain dict; see `qdrant_embed.search.filters`."""
    parts = [
        _where(one) if isinstance(one, MetadataFilters) else _comparison(one)
        for one in filters.filters
    ]
    condition = "and" if filters.condition is None else str(filters.condition.value)
    if condition == "not":
        return {"not": {"or": parts}}
    return {condition: parts}


def _comparison(one: MetadataFilter) -> dict[str, Any]:
    operator, value = str(one.operator.value), one.value
    several = value if isinstance(value, list) else [value]
    conditions: dict[str, Any] = {
        "==": value,
        "contains": value,  # a list matches by any of its items
        "!=": {"not": value},
        "in": {"any": several},
        "any": {"any": several},
        "nin": {"not": several},
        "all": {"all": several},
        "text_match": {"text": value},
        "is_empty": {"exists": False},
        ">": {"gt": value},
        ">=": {"gte": value},
        "<": {"lt": value},
        "<=": {"lte": value},
    }
    if operator not in conditions:
        raise InputError(f"operator {operator!r} on {one.key!r} is not supported by Qdrant")
    return {one.key: conditions[operator]}
