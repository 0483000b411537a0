"""The asynchronous client: the same as the synchronous one, and the event loop stays free."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from typing import Any, ClassVar
from uuid import UUID

import qdrant_client
from qdrant_client import models
from qdrant_client.conversions import common_types as types

from qdrant_embed.collection.options import CollectionOptions, checked_options
from qdrant_embed.collection.settings import ModelSettings, sparse_models, text_models
from qdrant_embed.engines.retries import MAX_RETRIES
from qdrant_embed.flows.flows import Flows
from qdrant_embed.flows.migrators import AsyncMigrator
from qdrant_embed.flows.steps import AsyncSteps
from qdrant_embed.ingest.documents import Document, PendingPoint
from qdrant_embed.ingest.ids import IdScheme
from qdrant_embed.ingest.ingestion import WINDOW, Ingestion, OnExisting, ReadAhead
from qdrant_embed.ingest.progress import ProgressOption, Reporter
from qdrant_embed.search.filters import combined
from qdrant_embed.search.queries import Fusion, QueryResponse, Search, checked_queries
from qdrant_embed.search.reranking import Reranker


class AsyncQdrantEmbedMixin(
    AsyncMigrator, ModelSettings, AsyncSteps, qdrant_client.AsyncQdrantClient
):
    """`add` and `query` for an asynchronous Qdrant client; mix it into a class of your own.

    Every method of ``qdrant_client.AsyncQdrantClient`` stays as it is. Models are loaded, texts
    encoded and points built in threads; a local database, which would block the loop, is used
    from threads, too, by `add` and `query`, which take turns. Any number of tasks may share a
    client.
    """

    _loads_at_once: ClassVar[bool] = False

    # documents in

    async def add(
        self,
        collection_name: str,
        documents: Iterable[str | Document] | AsyncIterable[str | Document],
        metadata: Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]] | None = None,
        ids: Iterable[int | str | UUID] | AsyncIterable[int | str | UUID] | IdScheme | None = None,
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

        As `QdrantEmbedMixin.add`. Asynchronous iterables are read on the loop, others in a
        thread; a `progress` function is called on the loop. When it is cancelled, the request
        under way is carried out to its end, and `IngestError.behind` tells from the
        ``CancelledError`` (or the ``TimeoutError`` that became of it) what is stored; how much it
        is, is logged, too.

        Raises:
            As `QdrantEmbedMixin.add` does.
        """
        key, options = self.document_key, checked_options(collection_options)
        ahead = ReadAhead()
        ingestion = await asyncio.to_thread(
            Ingestion,
            collection_name,
            ahead.column(documents),
            ahead.column(metadata),
            ahead.column(ids),
            batch_size=batch_size,
            max_retries=max_retries,
            on_existing=on_existing,
            document_key=key,
        )
        await ahead.fill(WINDOW)
        window = await asyncio.to_thread(ingestion.next_window)
        if not window:
            return []
        flows = Flows(self, self._encoders, collection_name, max_retries)
        target = await self._carry_out(flows.open(ingestion.texts))
        encoding = target.with_threads(parallel).counting()
        if target.chunked:
            ingestion.splits_documents()

        async def encoded(window: Sequence[PendingPoint]) -> list[models.PointStruct]:
            wanted = await self._carry_out(flows.wanted(window, ingestion, shard_key_selector))
            return await asyncio.to_thread(encoding.to_points, wanted, key)

        async def following() -> list[models.PointStruct] | None:
            await ahead.fill(WINDOW)
            window = await asyncio.to_thread(ingestion.next_window)
            return await encoded(window) if window else None

        coming: asyncio.Task[list[models.PointStruct] | None]
        with Reporter(progress, collection_name, ingestion.total, encoding) as reporter:
            coming = asyncio.create_task(encoded(window))
            is_ready = False
            try:
                reporter.report(0)
                while (points := await coming) is not None:
                    coming = asyncio.create_task(following())
                    if points and not is_ready:
                        await self._carry_out(flows.prepare(target, options, shard_key_selector))
                        is_ready = True
                    for batch in ingestion.batches(points):
                        storing = flows.replace(
                            batch,
                            ingestion,
                            wait=wait,
                            shard_key_selector=shard_key_selector,
                        )
                        await self._carry_out(storing)
                        reporter.report(len(ingestion.stored_ids), ingestion.unchanged)
                    ingestion.note_stored(())  # a window may hold nothing new
                    reporter.report(len(ingestion.stored_ids), ingestion.unchanged)
            except BaseException as error:
                encoding.call_off()
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)
                ingestion.account_for(error)
                raise
        return ingestion.stored_ids

    # answers out

    async def query(
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

        Args and Raises are those of `QdrantEmbedMixin.query`.
        """
        (answers,) = await self.query_batch(
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

    async def query_batch(
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
        """What `query` gives for each of `query_texts`, in order, in one request for all.

        Args and Raises are those of `QdrantEmbedMixin.query`; an empty list gives an empty list.
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
        return await self._carry_out(flows.answer(search, texts))

    # documents out

    async def delete_documents(
        self,
        collection_name: str,
        ids: Iterable[int | str | UUID],
        *,
        wait: bool = True,
        max_retries: int = MAX_RETRIES,
        shard_key_selector: types.ShardKeySelector | None = None,
    ) -> None:
        """As `QdrantEmbedMixin.delete_documents`."""
        flows = Flows(self, self._encoders, collection_name, max_retries)
        await self._carry_out(flows.delete(ids, wait=wait, shard_key_selector=shard_key_selector))

    # known models

    @classmethod
    async def list_text_models(cls) -> dict[str, tuple[int, models.Distance]]:
        """Known models: vector size and distance by name; needs no network."""
        return text_models()

    @classmethod
    async def list_sparse_models(cls) -> dict[str, dict[str, Any]]:
        """Known sparse models: their facts by name; needs no network."""
        return sparse_models()


class AsyncQdrantClient(AsyncQdrantEmbedMixin):
    """``qdrant_client.AsyncQdrantClient`` with `add`, `query` and `query_batch`.

    The constructor is that of ``qdrant_client``: ``":memory:"``, ``path="folder"``,
    ``url="http://host:6333"`` and so on.
    """
