"""The synchronous client: text in, answers out. Only I/O; decisions are made elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import qdrant_client
from qdrant_client import models
from qdrant_client.conversions import common_types as types

from qdrant_embed.collection.options import CollectionOptions, checked_options
from qdrant_embed.collection.settings import ModelSettings, sparse_models, text_models
from qdrant_embed.engines.retries import MAX_RETRIES
from qdrant_embed.flows.flows import Flows
from qdrant_embed.flows.migrators import Migrator
from qdrant_embed.flows.steps import Steps
from qdrant_embed.ingest.documents import Document
from qdrant_embed.ingest.ids import IdScheme
from qdrant_embed.ingest.ingestion import Ingestion, OnExisting
from qdrant_embed.ingest.progress import ProgressOption, Reporter
from qdrant_embed.search.filters import combined
from qdrant_embed.search.queries import Fusion, QueryResponse, Search, checked_queries
from qdrant_embed.search.reranking import Reranker


class QdrantEmbedMixin(Migrator, ModelSettings, Steps, qdrant_client.QdrantClient):
    """`add` and `query` for a Qdrant client; mix it into a client class of your own.

    Every method of ``qdrant_client.QdrantClient`` stays as it is. Threads may share a client; on
    a local database `add` and `query` take turns.
    """

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
        """Embeds and stores texts; the ids of their points, in order.

        The collection is created with the first text where it does not exist. Texts are encoded
        while those before them are uploaded. Lists are checked whole before anything is stored;
        other iterables are read once and need not fit in memory.

        Args:
            collection_name: of the collection.
            documents: the texts, or `Document` objects, each with its own metadata and id.
            metadata: one dict of JSON values for each text, stored beside it.
            ids: one for each text: whole numbers, UUIDs (as `uuid.UUID` or str) or any other
                str, which is kept in the payload beside the UUID that `point_id` makes of it.
                Or ``"content"``: UUIDs made of text and metadata, so that adding the same again
                changes nothing, and equal documents in one input are one point; `ContentIds`
                names the metadata that counts, and of documents that agree in it the first of
                an input is stored. Without ids each text gets a random UUID, as a str with
                hyphens.
            batch_size: points in one request.
            parallel: threads that encode; every usable core by default and with 0.
            wait: return when the points can be found, not already when they are accepted. Without,
                documents stored in chunks are to be added again only once they can be found.
            max_retries: further tries of a request that failed for a passing reason, within five
                minutes. The same ids are sent again, so nothing is stored twice. A request that is
                too large for the server is sent in halves.
            on_existing: what becomes of documents whose ids the collection has already. They are
                stored anew (``"overwrite"``); or, with ``"skip"``, only if their text or metadata
                differ from what is stored, and else not even encoded; or, with ``"error"``, they
                are refused, at most 1024 at a time, before any of those is stored.
            progress: ``True`` for a bar with documents, tokens a second and the time left where
                the number of documents is known; ``False`` for none; by default one is shown if
                stderr is a terminal. Or a function that is given an `IngestProgress` at the start
                and after each request; what it raises ends the `add`.
            shard_key_selector: shards to write to, in a collection with custom sharding.
            collection_options: quantisation, shards and the like for a collection that is created.

        Raises:
            InputError: documents, metadata, ids or an option cannot be used.
            CollectionMismatchError: the collection belongs to another model.
            IngestError: it ended after a part was stored; says which, and why. After a
                ``KeyboardInterrupt``, `IngestError.behind` says so.
            ModelError: the model cannot be found, fetched or read.
            MissingDependencyError: ``progress=True``, but tqdm is not installed.
        """
        key, options = self.document_key, checked_options(collection_options)
        ingestion = Ingestion(
            collection_name,
            documents,
            metadata,
            ids,
            batch_size=batch_size,
            max_retries=max_retries,
            on_existing=on_existing,
            document_key=key,
        )
        window = ingestion.next_window()
        if not window:
            return []
        flows = Flows(self, self._encoders, collection_name, max_retries)
        target = self._carry_out(flows.open(ingestion.texts))
        encoding = target.with_threads(parallel).counting()
        if target.chunked:
            ingestion.splits_documents()
        with (
            Reporter(progress, collection_name, ingestion.total, encoding) as reporter,
            ThreadPoolExecutor(1, thread_name_prefix="qdrant-embed-add") as pool,
        ):
            try:
                reporter.report(0)
                is_ready = False
                wanted = self._carry_out(flows.wanted(window, ingestion, shard_key_selector))
                coming = pool.submit(encoding.to_points, wanted, key)
                while window:
                    window = ingestion.next_window()
                    wanted = self._carry_out(flows.wanted(window, ingestion, shard_key_selector))
                    points = coming.result()
                    coming = pool.submit(encoding.to_points, wanted, key)
                    if points and not is_ready:
                        self._carry_out(flows.prepare(target, options, shard_key_selector))
                        is_ready = True
                    for batch in ingestion.batches(points):
                        storing = flows.replace(
                            batch,
                            ingestion,
                            wait=wait,
                            shard_key_selector=shard_key_selector,
                        )
                        self._carry_out(storing)
                        reporter.report(len(ingestion.stored_ids), ingestion.unchanged)
                    ingestion.note_stored(())  # a window may hold nothing new
                    reporter.report(len(ingestion.stored_ids), ingestion.unchanged)
            except BaseException as error:
                encoding.call_off()
                ingestion.account_for(error)
                raise
        return ingestion.stored_ids

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
        """The stored texts nearest in meaning to `query_text`, best first, in one request.

        In a collection with sparse vectors the search is hybrid: Qdrant finds candidates by
        either vector and fuses them.

        Args:
            collection_name: of the collection.
            query_text: what to look for.
            query_filter: only points whose payload fits.
            limit: how many at most.
            where: the same as a plain dict, ``{"source": "docs", "year": {"gte": 2020}}``; see
                `qdrant_embed.search.filters`. With `query_filter` both must fit.
            with_vectors: fill `QueryResponse.embedding` and ``sparse_embedding``.
            search_params: Qdrant's options for the search (exactness, rescoring ...).
            score_threshold: only hits with at least this score; in a hybrid search the fused
                one, with a reranker the score before it.
            offset: leave out so many of the best.
            fusion: of a hybrid search: by ranks (``"rrf"``) or by scores (``"dbsf"``).
            prefetch_limit: candidates of each vector in a hybrid search; by default 4 times as
                many as hits are wanted, and at least 100.
            reranker: an object that scores the found texts anew; see `Reranker`.
            rerank_limit: how many it is given; by default 3 times as many as hits are wanted, and
                at least 50.
            chunks: in a collection of ``overflow="chunk"``, give chunks instead of documents with
                the text and score of their best chunk.
            consistency: how many replicas must agree.
            shard_key_selector: shards to search, in a collection with custom sharding.
            timeout: seconds, instead of the client's own.

        Raises:
            InputError: the text is empty, or an option cannot be used.
            CollectionMismatchError: the collection belongs to another model.
            ModelError: the model cannot be found, fetched or read.
        """
        (answers,) = self.query_batch(
            collection_name,
            [query_text],
            query_filter,
            limit,
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
        return answers

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
        """What `query` gives for each of `query_texts`, in order, in one request for all; where
        documents are stored in chunks, in one for each.

        Args and Raises are those of `query`; an empty list gives an empty list.
        """
        texts = checked_queries(query_texts)
        search = Search(
            query_filter=combined(query_filter, where),
            limit=limit,
            with_vectors=with_vectors,
            search_params=search_params,
            score_threshold=score_threshold,
            offset=offset,
            shard_key_selector=shard_key_selector,
            fusion=fusion,
            prefetch_limit=prefetch_limit,
            reranker=reranker,
            rerank_limit=rerank_limit,
            chunks=chunks,
            document_key=self.document_key,
            consistency=consistency,
            timeout=timeout,
        )
        flows = Flows(self, self._encoders, collection_name)
        return self._carry_out(flows.answer(search, texts))

    # documents out

    def delete_documents(
        self,
        collection_name: str,
        ids: Iterable[int | str | UUID],
        *,
        wait: bool = True,
        max_retries: int = MAX_RETRIES,
        shard_key_selector: types.ShardKeySelector | None = None,
    ) -> None:
        """Deletes documents with all their chunks; ids that are not there are passed over.

        Args:
            collection_name: of the collection.
            ids: as `add` returned them.
            wait: return when they are gone, not already when the request is accepted.
            max_retries: as of `add`.
            shard_key_selector: shards they are in, in a collection with custom sharding.

        Raises:
            InputError: an id is none, or a single str.
        """
        flows = Flows(self, self._encoders, collection_name, max_retries)
        self._carry_out(flows.delete(ids, wait=wait, shard_key_selector=shard_key_selector))

    # known models

    @classmethod
    def list_text_models(cls) -> dict[str, tuple[int, models.Distance]]:
        """Known models: vector size and distance by name; needs no network."""
        return text_models()

    @classmethod
    def list_sparse_models(cls) -> dict[str, dict[str, Any]]:
        """Known sparse models: their facts by name; needs no network."""
        return sparse_models()


class QdrantClient(QdrantEmbedMixin):
    """``qdrant_client.QdrantClient`` with `add`, `query` and `query_batch`.

    The constructor is that of ``qdrant_client``: ``":memory:"``, ``path="folder"``,
    ``url="http://host:6333"`` and so on.
    """
