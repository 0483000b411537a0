"""The synchronous client: signatures, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import qdrant_client
from qdrant_client import models
from qdrant_client.conversions import common_types as types

from qdrant_embed.collection.migration import MigrationOptions, migrate
from qdrant_embed.collection.options import CollectionOptions
from qdrant_embed.collection.settings import ModelSettings, sparse_models, text_models
from qdrant_embed.encoder.interfaces import DenseEncoder
from qdrant_embed.engines.registry import engine_of
from qdrant_embed.flows.io import BlockingIo, run_blocking
from qdrant_embed.flows.progress import ProgressOption
from qdrant_embed.flows.requests import MAX_RETRIES
from qdrant_embed.ingest.adding import AddOptions, OnExisting, add_documents, delete_documents
from qdrant_embed.ingest.documents import Document
from qdrant_embed.ingest.ids import IdScheme
from qdrant_embed.search.reranking import Reranker
from qdrant_embed.search.search import Fusion, QueryResponse, Search, answer


class QdrantEmbedMixin(ModelSettings, qdrant_client.QdrantClient):
    """`add` and `query` for a Qdrant client; mix it into your own client class.

    Every method of ``qdrant_client.QdrantClient`` stays unchanged. Threads can share a client; on
    a local database `add` and `query` take turns.
    """

    @property
    def _io(self) -> BlockingIo:
        io: BlockingIo | None = self.__dict__.get("_blocking_io")
        return io or self.__dict__.setdefault("_blocking_io", BlockingIo(engine_of(self._client)))

    # documents in

    def add(
        self,
        collection_name: str,
        documents: Iterable[str | Document],
        metadata: Iterable[Mapping[str, Any]] | None = None,
        ids: Iterable[int | str | UUID] | IdScheme | None = None,
        batch_size: int = 32,
        parallel: int | None = None,
        *,
        wait: bool = True,
        max_retries: int = MAX_RETRIES,
        on_existing: OnExisting = "overwrite",
        progress: ProgressOption = None,
        shard_key_selector: types.ShardKeySelector | None = None,
        collection_options: CollectionOptions | None = None,
    ) -> list[str | int]:
        """Embed and store documents; return their ids in input order.

        The collection is created with the first document if it does not exist. Texts are encoded
        while those before them are uploaded. Lists are checked completely before anything is
        stored; other iterables are read once and need not fit in memory.

        Args:
            collection_name: name of the collection.
            documents: the texts, or `Document` objects, each with its own metadata and id.
            metadata: one dict of JSON values per text, stored with it.
            ids: one per text: whole numbers, UUIDs (as `uuid.UUID` or str) or any other str, which
                is stored in the payload, while the point gets the UUID that `point_id` makes of
                it. Or ``"content"``: UUIDs made of text and metadata, so that adding the same
                documents again changes nothing, and equal documents in one input are one point.
                `ContentIds` names the metadata that counts; of documents that agree in it, the
                first of an input is stored. Without ids, each text gets a random UUID, as a str
                with hyphens.
            batch_size: number of points per request.
            parallel: number of threads that encode; every usable core by default and with 0.
            wait: return when the points can be found, not already when they are accepted. Without
                it, add documents that are stored in chunks again only once they can be found.
            max_retries: number of retries of a request after a transient failure, within five
                minutes. The same ids are sent again, so nothing is stored twice. A request that is
                too large for the server is sent in halves.
            on_existing: how to handle documents whose ids the collection already has.
                ``"overwrite"`` stores them again. ``"skip"`` stores them only if their text or
                metadata differ from what is stored, and otherwise does not even encode them.
                ``"error"`` refuses them, at most 1024 at a time, before any of those is stored.
            progress: ``True`` for a bar with documents, tokens per second and, if the number of
                documents is known, the time left; ``False`` for none; by default a bar is shown if
                stderr is a terminal. Or a function that is called with an `IngestProgress` at the
                start and after each request; an exception it raises ends the `add`.
            shard_key_selector: shards to write to, in a collection with custom sharding.
            collection_options: quantisation, shards and so on, for a collection that is created.

        Raises:
            InputError: if documents, metadata, ids or an option cannot be used.
            CollectionMismatchError: if the collection belongs to another model.
            IngestError: if it ended after a part was stored; says which part, and why. After a
                ``KeyboardInterrupt``, use `IngestError.behind`.
            ModelError: if the model cannot be found, downloaded or read.
            MissingDependencyError: if ``progress=True``, but tqdm is not installed.
        """
        options = AddOptions(
            batch_size=batch_size,
            parallel=parallel,
            wait=wait,
            on_existing=on_existing,
            progress=progress,
            shard_key_selector=shard_key_selector,
            collection_options=collection_options,
        )
        collection = self._collection(collection_name, max_retries)
        flow = add_documents(collection, documents, metadata, ids, options)
        return run_blocking(flow)

    # answers out

    def query(
        self,
        collection_name: str,
        query_text: str,
        query_filter: models.Filter | None = None,
        limit: int = 10,
        *,
        where: Mapping[str, Any] | None = None,
        with_vectors: bool = False,
        search_params: models.SearchParams | None = None,
        score_threshold: float | None = None,
        offset: int | None = None,
        fusion: Fusion = "rrf",
        prefetch_limit: int | None = None,
        reranker: Reranker | None = None,
        rerank_limit: int | None = None,
        chunks: bool = False,
        consistency: types.ReadConsistency | None = None,
        shard_key_selector: types.ShardKeySelector | None = None,
        timeout: int | None = None,
    ) -> list[QueryResponse]:
        """Return the stored documents nearest in meaning to `query_text`, best first.

        This is one request as a rule. In a collection with sparse vectors the search is hybrid:
        Qdrant finds candidates by either vector and fuses them. In a collection of
        ``overflow="chunk"`` the hits are documents, ranked by their best chunk. Equal scores are
        ordered by id. A page continues the one before, and a smaller `limit` returns the beginning
        of what a larger one returns; see `qdrant_embed.search.ranking`.

        Args:
            collection_name: name of the collection.
            query_text: what to search for.
            query_filter: only points whose payload matches.
            limit: maximum number of hits.
            where: a filter as a plain dict, ``{"source": "docs", "year": {"gte": 2020}}``; see
                `qdrant_embed.search.filters`. With `query_filter`, both must match.
            with_vectors: fill `QueryResponse.embedding` and ``sparse_embedding``.
            search_params: Qdrant's options for the search (exactness, rescoring ...).
            score_threshold: minimum score of a hit; in a hybrid search of the fused score, with a
                reranker of the score before it. Scores are rounded: to find identical texts, pass
                0.999, not 1.0.
            offset: number of best hits to leave out. A page that ends beyond the first 100 hits of
                a hybrid search takes a request for the ranking, without payloads, and one for the
                page. In a collection of ``overflow="chunk"``, so does an `offset` above `limit`.
                A hybrid search ranks 25,600 hits, or 6,400 documents stored in chunks.
            fusion: how a hybrid search fuses: by ranks (``"rrf"``) or by scores (``"dbsf"``).
            prefetch_limit: number of candidates per vector in a hybrid search, and how far it
                reaches. By default 100 (400 chunks, if these are stored), and behind their hits
                those of 4 times as many, again and again, as far as the page needs. Scores compare
                among the hits of the same candidates. Strict mode of a server can limit it.
            reranker: an object that scores the found texts again; see `Reranker`.
            rerank_limit: number of hits passed to it; by default 3 times the number of hits, and
                at least 50. Pages continue each other if it is the same for all of them.
            chunks: in a collection of ``overflow="chunk"``, return chunks instead of documents
                with the text and score of their best chunk.
            consistency: how many replicas must agree.
            shard_key_selector: shards to search, in a collection with custom sharding.
            timeout: in seconds, instead of the client's own.

        Raises:
            InputError: if the text is empty, an option cannot be used, or a hybrid search does not
                reach the last hit.
            CollectionMismatchError: if the collection belongs to another model.
            ModelError: if the model cannot be found, downloaded or read.
        """
        search = Search(
            query_filter=query_filter,
            limit=limit,
            where=where,
            with_vectors=with_vectors,
            search_params=search_params,
            score_threshold=score_threshold,
            offset=offset,
            fusion=fusion,
            prefetch_limit=prefetch_limit,
            reranker=reranker,
            rerank_limit=rerank_limit,
            chunks=chunks,
            consistency=consistency,
            shard_key_selector=shard_key_selector,
            timeout=timeout,
        )
        collection = self._collection(collection_name)
        (hits,) = run_blocking(answer(collection, search, [query_text]))
        return hits

    def query_batch(
        self,
        collection_name: str,
        query_texts: Sequence[str],
        query_filter: models.Filter | None = None,
        limit: int = 10,
        *,
        where: Mapping[str, Any] | None = None,
        with_vectors: bool = False,
        search_params: models.SearchParams | None = None,
        score_threshold: float | None = None,
        offset: int | None = None,
        fusion: Fusion = "rrf",
        prefetch_limit: int | None = None,
        reranker: Reranker | None = None,
        rerank_limit: int | None = None,
        chunks: bool = False,
        consistency: types.ReadConsistency | None = None,
        shard_key_selector: types.ShardKeySelector | None = None,
        timeout: int | None = None,
    ) -> list[list[QueryResponse]]:
        """Return what `query` returns for each of `query_texts`, in order, in one request.

        If `query` takes further requests, these are for all texts in common too. An empty list
        returns an empty list.

        Args and Raises are those of `query`.
        """
        search = Search(
            query_filter=query_filter,
            limit=limit,
            where=where,
            with_vectors=with_vectors,
            search_params=search_params,
            score_threshold=score_threshold,
            offset=offset,
            fusion=fusion,
            prefetch_limit=prefetch_limit,
            reranker=reranker,
            rerank_limit=rerank_limit,
            chunks=chunks,
            consistency=consistency,
            shard_key_selector=shard_key_selector,
            timeout=timeout,
        )
        return run_blocking(answer(self._collection(collection_name), search, query_texts))

    # documents moved and deleted

    def migrate_model(
        self,
        collection_name: str,
        new_model: str | os.PathLike[str] | DenseEncoder,
        new_collection_name: str,
        *,
        alias: str | None = None,
        batch_size: int = 256,
        max_retries: int = MAX_RETRIES,
        progress: ProgressOption = None,
        collection_options: CollectionOptions | None = None,
    ) -> int:
        """Encode a collection's documents with another model; return the number of documents.

        They are written to another collection, and the old one is only read. Ids and payloads stay
        the same, and so does the sparse model, unless `set_sparse_model` chose one. When it is run
        again, it encodes what is missing or has changed since.

        Args:
            collection_name: the old collection.
            new_model: see `set_model`.
            new_collection_name: created if it does not exist.
            alias: set to the new collection, once that is complete.
            batch_size: number of documents per request.
            max_retries: see `add`.
            progress: see `add`; a function is called after each `batch_size` documents.
            collection_options: see `add`.

        Raises:
            InputError: if an option cannot be used, or a point has no text.
            CollectionMismatchError: if the new collection has another model, or other points.
            ModelError: if the model cannot be found, downloaded or read.
            MissingDependencyError: if ``progress=True``, but tqdm is not installed.
        """
        options = MigrationOptions(
            new_model=new_model,
            new_collection_name=new_collection_name,
            alias=alias,
            batch_size=batch_size,
            progress=progress,
            collection_options=collection_options,
        )
        collection = self._collection(collection_name, max_retries)
        return run_blocking(migrate(collection, options))

    def delete_documents(
        self,
        collection_name: str,
        ids: Iterable[int | str | UUID],
        *,
        wait: bool = True,
        max_retries: int = MAX_RETRIES,
        shard_key_selector: types.ShardKeySelector | None = None,
    ) -> None:
        """Delete documents with all their chunks; ids that do not exist are ignored.

        Args:
            collection_name: name of the collection.
            ids: as `add` returned them.
            wait: return when they are deleted, not already when the request is accepted.
            max_retries: see `add`.
            shard_key_selector: shards they are in, in a collection with custom sharding.

        Raises:
            InputError: if an id is invalid, or `ids` is a single str.
        """
        collection = self._collection(collection_name, max_retries)
        flow = delete_documents(collection, ids, wait=wait, shard_key_selector=shard_key_selector)
        run_blocking(flow)

    # known models

    @classmethod
    def list_text_models(cls) -> dict[str, tuple[int, models.Distance]]:
        """Return the vector size and distance of each known model, by name; needs no network."""
        return text_models()

    @classmethod
    def list_sparse_models(cls) -> dict[str, dict[str, Any]]:
        """Return the facts of each known sparse model, by name; needs no network."""
        return sparse_models()


class QdrantClient(QdrantEmbedMixin):
    """``qdrant_client.QdrantClient`` with `add`, `query` and `query_batch`.

    The constructor is that of ``qdrant_client``: ``":memory:"``, ``path="folder"``,
    ``url="http://host:6333"`` and so on.
    """
