"""LangChain: embeddings, a vector store over a client of this package, and a retriever.

Texts go through the client's ``add`` and ``query``: its models and their prefixes, hybrid search,
reranker, retries and the record of the model. Payloads are those of ``langchain-qdrant``, so that
either library reads and extends what the other one wrote::

    from qdrant_embed import QdrantClient
    from qdrant_embed.langchain import QdrantVectorStore

    store = QdrantVectorStore(QdrantClient(path="notes"), "notes")
    store.add_texts(["Bees dance."], [{"year": 2019}])
    store.similarity_search("insects", k=3, filter={"year": {"gte": 2000}})

It needs ``langchain-core`` 0.3 or newer: ``pip install 'qdrant-embed[langchain]'``.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias
from uuid import uuid4

from pydantic import ConfigDict, Field
from qdrant_client import models

from qdrant_embed.async_client import AsyncQdrantClient
from qdrant_embed.client import QdrantClient
from qdrant_embed.collection.payload import CHUNK_KEY, DOCUMENT_KEY, ID_KEY, PayloadCodec
from qdrant_embed.encoder.facts.catalog import DEFAULT_MODEL
from qdrant_embed.encoder.interfaces import DenseEncoder, check_encoder
from qdrant_embed.encoder.text import TextEmbedding
from qdrant_embed.errors import InputError, MissingDependencyError, check_str
from qdrant_embed.frameworks import Client, FrameworkCollection
from qdrant_embed.ingest.documents import Document as OwnDocument
from qdrant_embed.ingest.whole_documents import StoredDocument
from qdrant_embed.search.filters import below, combined
from qdrant_embed.search.search import QueryResponse

try:
    from langchain_core.callbacks import (
        AsyncCallbackManagerForRetrieverRun,
        CallbackManagerForRetrieverRun,
    )
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.retrievers import BaseRetriever
    from langchain_core.vectorstores import VectorStore
except ImportError as error:
    raise MissingDependencyError(
        "langchain-core", "qdrant_embed.langchain", extra="langchain"
    ) from error

Filter: TypeAlias = models.Filter | Mapping[str, Any]

_PROBE = "dimension"  # any text: other libraries do not say how many dimensions vectors have


class QdrantEmbeddings(Embeddings):
    """LangChain's embeddings by a model of this package.

    Args:
        model: the name or folder of a model, or an encoder, such as a `TextEmbedding` with options
            of its own.

    Raises:
        InputError: if `model` is neither a name nor an encoder.
        ModelError: if the model cannot be found, downloaded or read.
        MissingDependencyError: if a model by name is used, but the extra ``fastembed`` is not
            installed.
    """

    def __init__(self, model: str | os.PathLike[str] | DenseEncoder = DEFAULT_MODEL) -> None:
        self.encoder: DenseEncoder = (
            TextEmbedding(model) if isinstance(model, str | os.PathLike) else check_encoder(model)
        )

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return the vector of each document."""
        return [[float(value) for value in row] for row in self.encoder.passage_embed(texts)]

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a query."""
        (row,) = self.encoder.query_embed([text])
        return [float(value) for value in row]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return the vector of each document; the event loop stays free."""
        return await asyncio.to_thread(self.embed_documents, texts)

    async def aembed_query(self, text: str) -> list[float]:
        """Return the vector of a query; the event loop stays free."""
        return await asyncio.to_thread(self.embed_query, text)


class _EmbeddingsEncoder:
    """An encoder by LangChain's embeddings of somebody else."""

    def __init__(self, embeddings: Embeddings) -> None:
        self._embeddings = embeddings
        named = (getattr(embeddings, name, None) for name in ("model", "model_name"))
        self.model_name = next(
            (name for name in named if isinstance(name, str) and name), type(embeddings).__name__
        )
        self._dimension: int | None = None

    @property
    def dimension(self) -> int:
        """Dimension of a vector."""
        if self._dimension is None:
            self._dimension = len(self._embeddings.embed_query(_PROBE))
        return self._dimension

    def passage_embed(self, texts: Iterable[str], /) -> list[list[float]]:
        """Return one vector per document."""
        rows: list[list[float]] = self._embeddings.embed_documents([*texts])
        return rows

    def query_embed(self, query: Iterable[str], /) -> list[list[float]]:
        """Return one vector per query."""
        return [self._embeddings.embed_query(text) for text in query]


class QdrantVectorStore(VectorStore):
    """LangChain's vector store over a collection of a client of this package.

    The collection is created with the first document. Until then, searches raise
    `CollectionNotFoundError`, as those of the client do.

    A client's models embed texts; hybrid search, late interaction and rerankers are those set on
    it. In a collection that ``langchain-qdrant`` wrote, call ``client.set_model`` with the model
    that wrote it, or pass `embedding`.

    With a `QdrantClient`, asynchronous methods run in threads. With an `AsyncQdrantClient`, they
    run on the event loop, and the store has no others.

    `filter` of all searches is Qdrant's own, with keys like ``"metadata.year"``, or a plain dict on
    the metadata, ``{"year": {"gte": 2020}}``; see `qdrant_embed.search.filters`. `options` of all
    searches are those of `QdrantClient.query`, such as ``score_threshold``, ``reranker``,
    ``offset`` or ``search_params``, and `options` of `add_texts` those of `QdrantClient.add`, such
    as ``on_existing``.

    Args:
        client: a client of this package, of either kind.
        collection_name: name of the collection.
        embedding: LangChain's embeddings, in place of the client's model.
        content_payload_key: key of the text in payloads.
        metadata_payload_key: key of the metadata in payloads; ``None`` if the metadata is next to
            the text, as ``client.add`` stores it (whose key of the text is ``"document"``).
        vector_name: name of the dense vector in a new collection, and in one that others wrote,
            unless `set_model` has named it; by default ``""``, as in ``langchain-qdrant``.
        sparse_vector_name: name of the sparse vector, in the same way.

    Raises:
        InputError: if the client is of another package, or an option cannot be used.
    """

    def __init__(
        self,
        client: Client,
        collection_name: str,
        embedding: Embeddings | None = None,
        *,
        content_payload_key: str = "page_content",
        metadata_payload_key: str | None = "metadata",
        vector_name: str = "",
        sparse_vector_name: str = "langchain-sparse",
    ) -> None:
        self._embedding = embedding
        encoder: DenseEncoder | None = None
        if isinstance(embedding, QdrantEmbeddings):
            encoder = embedding.encoder
        elif embedding is not None:
            encoder = _EmbeddingsEncoder(embedding)
        if metadata_payload_key is not None:
            check_str("metadata_payload_key", metadata_payload_key)
        self._metadata_key, self._codec = metadata_payload_key, PayloadCodec(content_payload_key)
        self._own = FrameworkCollection(
            client,
            collection_name,
            self._codec,
            dense_name=vector_name,
            sparse_name=sparse_vector_name,
            encoder=encoder,
        )

    @property
    def client(self) -> Client:
        """The client."""
        return self._own.client

    @property
    def collection_name(self) -> str:
        """Name of the collection."""
        return self._own.name

    @property
    def embeddings(self) -> Embeddings | None:
        """The `embedding` of the constructor; ``None`` if the client's model embeds texts."""
        return self._embedding

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | None = None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        client: QdrantClient | None = None,
        collection_name: str | None = None,
        content_payload_key: str = "page_content",
        metadata_payload_key: str | None = "metadata",
        vector_name: str = "",
        sparse_vector_name: str = "langchain-sparse",
        **options: Any,
    ) -> QdrantVectorStore:
        """Return a store with these texts.

        Args:
            texts: see `add_texts`.
            embedding: see `QdrantVectorStore`.
            metadatas: see `add_texts`.
            ids: see `add_texts`.
            client: a client; by default one is created with `options`.
            collection_name: name of the collection; a new one by default.
            content_payload_key: see `QdrantVectorStore`.
            metadata_payload_key: see `QdrantVectorStore`.
            vector_name: see `QdrantVectorStore`.
            sparse_vector_name: see `QdrantVectorStore`.
            options: of the client's constructor, such as ``location=":memory:"``, ``path`` or
                ``url``; with a client, those of `QdrantClient.add`.
        """
        adding = options if client is not None else {}
        store = cls(
            QdrantClient(**options) if client is None else client,
            collection_name or uuid4().hex,
            embedding,
            content_payload_key=content_payload_key,
            metadata_payload_key=metadata_payload_key,
            vector_name=vector_name,
            sparse_vector_name=sparse_vector_name,
        )
        store.add_texts(texts, metadatas, ids=ids, **adding)
        return store

    @classmethod
    async def afrom_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | None = None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        client: Client | None = None,
        collection_name: str | None = None,
        content_payload_key: str = "page_content",
        metadata_payload_key: str | None = "metadata",
        vector_name: str = "",
        sparse_vector_name: str = "langchain-sparse",
        **options: Any,
    ) -> QdrantVectorStore:
        """Return a store with these texts, by default of a new `AsyncQdrantClient`.

        Args are those of `from_texts`.
        """
        adding = options if client is not None else {}
        store = cls(
            AsyncQdrantClient(**options) if client is None else client,
            collection_name or uuid4().hex,
            embedding,
            content_payload_key=content_payload_key,
            metadata_payload_key=metadata_payload_key,
            vector_name=vector_name,
            sparse_vector_name=sparse_vector_name,
        )
        await store.aadd_texts(texts, metadatas, ids=ids, **adding)
        return store

    # documents in, back and out

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: Iterable[Mapping[str, Any] | None] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
        **options: Any,
    ) -> list[str]:
        """Embed and store texts; return their ids.

        Args:
            texts: the texts.
            metadatas: the metadata of each text.
            ids: the id of each text, any str; a UUID is returned with hyphens. A text without one
                gets a random UUID.
            options: those of `QdrantClient.add`.
        """
        documents = self._documents(texts, metadatas, ids)
        return [*map(str, self._own.run(lambda: self._own.add(documents, **options)))]

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: Iterable[Mapping[str, Any] | None] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
        **options: Any,
    ) -> list[str]:
        """Embed and store texts; return their ids.

        Args are those of `add_texts`.
        """
        documents = self._documents(texts, metadatas, ids)
        return [*map(str, await self._own.arun(lambda: self._own.add(documents, **options)))]

    def delete(self, ids: Iterable[str] | None = None, **options: Any) -> bool:
        """Delete documents; ids that do not exist are ignored.

        Args:
            ids: the ids.
            options: none.

        Raises:
            InputError: if there are no ids: to delete all documents, delete the collection.
        """
        wanted = _checked_ids(ids, options)
        self._own.run(lambda: self._own.delete(wanted))
        return True

    async def adelete(self, ids: Iterable[str] | None = None, **options: Any) -> bool:
        """Delete documents; see `delete`."""
        wanted = _checked_ids(ids, options)
        await self._own.arun(lambda: self._own.delete(wanted))
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return the documents with these ids, in their order, without those that do not exist."""
        return self._stored(self._own.run(lambda: self._own.get(ids)))

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return the documents with these ids; see `get_by_ids`."""
        return self._stored(await self._own.arun(lambda: self._own.get(ids)))

    # searches

    def similarity_search(
        self, query: str, k: int = 4, filter: Filter | None = None, **options: Any
    ) -> list[Document]:
        """Return the documents nearest in meaning to `query`.

        Args:
            query: the text to search for.
            k: maximum number of documents.
            filter: see `QdrantVectorStore`.
            options: those of `QdrantClient.query`.
        """
        return _bare(self.similarity_search_with_score(query, k, filter, **options))

    async def asimilarity_search(
        self, query: str, k: int = 4, filter: Filter | None = None, **options: Any
    ) -> list[Document]:
        """Return the documents nearest in meaning to `query`; see `similarity_search`."""
        return _bare(await self.asimilarity_search_with_score(query, k, filter, **options))

    def similarity_search_with_score(
        self, query: str, k: int = 4, filter: Filter | None = None, **options: Any
    ) -> list[tuple[Document, float]]:
        """Return the documents nearest in meaning to `query`, with their scores.

        Scores are those of `QdrantClient.query`: cosines as a rule. Args are those of
        `similarity_search`.
        """
        options |= self._search(k, filter)
        return self._scored(self._own.run(lambda: self._own.search(query, **options)))

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, filter: Filter | None = None, **options: Any
    ) -> list[tuple[Document, float]]:
        """Return documents with their scores; see `similarity_search_with_score`."""
        options |= self._search(k, filter)
        return self._scored(await self._own.arun(lambda: self._own.search(query, **options)))

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, filter: Filter | None = None, **options: Any
    ) -> list[Document]:
        """Return the documents nearest to a dense vector; see `similarity_search`."""
        return _bare(self.similarity_search_with_score_by_vector(embedding, k, filter, **options))

    async def asimilarity_search_by_vector(
        self, embedding: list[float], k: int = 4, filter: Filter | None = None, **options: Any
    ) -> list[Document]:
        """Return the documents nearest to a dense vector; see `similarity_search`."""
        return _bare(
            await self.asimilarity_search_with_score_by_vector(embedding, k, filter, **options)
        )

    def similarity_search_with_score_by_vector(
        self, embedding: list[float], k: int = 4, filter: Filter | None = None, **options: Any
    ) -> list[tuple[Document, float]]:
        """Return the documents nearest to a dense vector, with their scores."""
        options |= self._search(k, filter)
        return self._scored(self._own.run(lambda: self._own.search_vector(embedding, **options)))

    async def asimilarity_search_with_score_by_vector(
        self, embedding: list[float], k: int = 4, filter: Filter | None = None, **options: Any
    ) -> list[tuple[Document, float]]:
        """Return the documents nearest to a dense vector, with their scores."""
        options |= self._search(k, filter)
        return self._scored(
            await self._own.arun(lambda: self._own.search_vector(embedding, **options))
        )

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Filter | None = None,
        **options: Any,
    ) -> list[Document]:
        """Return documents that are near `query` and differ from each other.

        Qdrant chooses them in the same request.

        Args:
            query: the text to search for.
            k: maximum number of documents.
            fetch_k: number of nearest documents that they are chosen from.
            lambda_mult: from 0, for documents that differ most, to 1, for the nearest.
            filter: see `QdrantVectorStore`.
            options: those of `QdrantClient.query`.
        """
        options |= self._diverse(k, fetch_k, lambda_mult, filter)
        return _bare(self._scored(self._own.run(lambda: self._own.search(query, **options))))

    async def amax_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Filter | None = None,
        **options: Any,
    ) -> list[Document]:
        """Return documents that differ from each other; see `max_marginal_relevance_search`."""
        options |= self._diverse(k, fetch_k, lambda_mult, filter)
        return _bare(self._scored(await self._own.arun(lambda: self._own.search(query, **options))))

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Filter | None = None,
        **options: Any,
    ) -> list[Document]:
        """Return documents that differ from each other; see `max_marginal_relevance_search`."""
        options |= self._diverse(k, fetch_k, lambda_mult, filter)
        return _bare(
            self._scored(self._own.run(lambda: self._own.search_vector(embedding, **options)))
        )

    async def amax_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Filter | None = None,
        **options: Any,
    ) -> list[Document]:
        """Return documents that differ from each other; see `max_marginal_relevance_search`."""
        options |= self._diverse(k, fetch_k, lambda_mult, filter)
        return _bare(
            self._scored(
                await self._own.arun(lambda: self._own.search_vector(embedding, **options))
            )
        )

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return self._relevance

    def _relevance(self, score: float) -> float:
        """Return a score of the last search as a number from 0 to 1, where it is of a distance.

        Fused scores are from 0 to 1; those of late interaction and of rerankers stay as they are.
        """
        distance = self._own.distance()
        if distance == "Cosine":
            return min(1.0, max(0.0, (score + 1) / 2))  # a rounded cosine can be above 1
        if distance in ("Euclid", "Manhattan"):
            return 1 / (1 + score)
        return score

    # payloads

    def _documents(
        self,
        texts: Iterable[str],
        metadatas: Iterable[Mapping[str, Any] | None] | None,
        ids: Iterable[str | None] | None,
    ) -> list[OwnDocument]:
        if isinstance(texts, str):
            raise InputError("texts must be a list of str, not a single str")
        texts = [*texts]
        none: list[None] = [None] * len(texts)
        columns = {
            "metadatas": none if metadatas is None else [*metadatas],
            "ids": none if ids is None else [*ids],
        }
        for name, column in columns.items():
            if len(column) != len(texts):
                raise InputError(f"{name} has {len(column)} items for {len(texts)} texts")
        return [
            OwnDocument(
                text,
                self._as_stored(metadata or {}),
                id=str(uuid4()) if identity is None else identity,
            )
            for text, metadata, identity in zip(texts, *columns.values(), strict=True)
        ]

    def _as_stored(self, metadata: Mapping[str, Any]) -> Mapping[str, Any]:
        return metadata if self._metadata_key is None else {self._metadata_key: metadata}

    def _stored(self, found: Iterable[StoredDocument | None]) -> list[Document]:
        documents = []
        for one in found:
            if one is not None:
                payload = {self._codec.document_key: one.text, **one.metadata}
                documents.append(self._document(one.id, one.text, payload))
        return documents

    def _scored(self, hits: Iterable[QueryResponse]) -> list[tuple[Document, float]]:
        return [(self._document(hit.id, hit.document, hit.metadata), hit.score) for hit in hits]

    def _document(self, identity: str | int, text: str, payload: Mapping[str, Any]) -> Document:
        key = self._codec.document_key
        if not text and key != DOCUMENT_KEY and key not in payload and DOCUMENT_KEY in payload:
            raise InputError(
                f"document {identity!r} of collection {self.collection_name!r} has its text under "
                f"{DOCUMENT_KEY!r}, as client.add() stores it, not under {key!r}: create the store "
                f"with content_payload_key={DOCUMENT_KEY!r}, metadata_payload_key=None"
            )
        if self._metadata_key is None:
            metadata = {name: payload[name] for name in payload if name not in (key, ID_KEY)}
        else:
            found = payload.get(self._metadata_key)
            metadata = dict(found) if isinstance(found, Mapping) else {}
            if CHUNK_KEY in payload:
                metadata[CHUNK_KEY] = payload[CHUNK_KEY]
        return Document(page_content=text, metadata=metadata, id=str(identity))

    # options

    def _search(self, k: int, filter: Filter | None) -> dict[str, Any]:
        return {"limit": k, "query_filter": self._filter(filter)}

    def _diverse(
        self, k: int, fetch_k: int, lambda_mult: float, filter: Filter | None
    ) -> dict[str, Any]:
        if not 0 <= lambda_mult <= 1:
            raise InputError(f"lambda_mult must be a number from 0 to 1, not {lambda_mult!r:.80}")
        candidates = max(k, fetch_k)
        return self._search(k, filter) | {
            "diversity": 1 - lambda_mult,
            "prefetch_limit": candidates,
        }

    def _filter(self, filter: Filter | None) -> models.Filter | None:
        if isinstance(filter, Mapping):
            key = self._metadata_key
            return combined(None, filter if key is None else below(filter, key))
        return combined(filter, None)


class QdrantRetriever(BaseRetriever):
    """A retriever over a `QdrantVectorStore`, whose options are fields of its own.

    ``store.as_retriever()`` is LangChain's own, with MMR and thresholds of relevance.

    Attributes:
        store: the store.
        k: maximum number of documents.
        filter: see `QdrantVectorStore`.
        options: those of `QdrantClient.query`, such as ``{"reranker": name}``.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    store: QdrantVectorStore
    k: int = 4
    filter: models.Filter | dict[str, Any] | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **options: Any
    ) -> list[Document]:
        del run_manager
        return self.store.similarity_search(query, **self._options(options))

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **options: Any
    ) -> list[Document]:
        del run_manager
        return await self.store.asimilarity_search(query, **self._options(options))

    def _options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return {"k": self.k, "filter": self.filter, **self.options, **given}


def _bare(found: Iterable[tuple[Document, float]]) -> list[Document]:
    return [document for document, _ in found]


def _checked_ids(ids: Iterable[str] | None, options: Mapping[str, Any]) -> list[str]:
    if options:
        raise InputError(f"delete has no options {', '.join(options)}: pass ids alone")
    if ids is None or isinstance(ids, str):
        raise InputError(
            "ids must be a list of ids; to delete all documents, call client.delete_collection()"
        )
    return [*ids]
