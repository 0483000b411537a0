"""The asynchronous client: the methods of the synchronous one, awaited."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar
from uuid import UUID

from qdrant_client import models
from qdrant_client.conversions import common_types as types

from qdrant_embed.collection.indexing import optimize
from qdrant_embed.collection.migration import MigrationOptions, migrate
from qdrant_embed.collection.options import CollectionOptions
from qdrant_embed.collection.settings import (
    ModelSettings,
    late_models,
    sparse_models,
    text_models,
)
from qdrant_embed.collection.transfer import CopyOptions, Database, copy_collections
from qdrant_embed.encoder.interfaces import DenseEncoder, Reranker
from qdrant_embed.engines.connection import OwnAsyncConnections
from qdrant_embed.errors import InputError
from qdrant_embed.flows.io import AsyncIo
from qdrant_embed.flows.opened import OPENING, Opened, open_async
from qdrant_embed.flows.progress import ProgressOption
from qdrant_embed.flows.requests import MAX_RETRIES
from qdrant_embed.ingest.adding import (
    AddOptions,
    OnExisting,
    ReadAhead,
    add_documents,
    add_frame,
    delete_documents,
)
from qdrant_embed.ingest.documents import Document
from qdrant_embed.ingest.frames import Frame
from qdrant_embed.ingest.ids import ContentIds, IdScheme, points_by_id
from qdrant_embed.ingest.whole_documents import (
    DocumentScroll,
    ScrollOptions,
    StoredDocument,
    get_documents,
    update_metadata,
)
from qdrant_embed.search.filters import combined
from qdrant_embed.search.groups import Grouping, GroupResponse, answer_groups
from qdrant_embed.search.search import Fusion, QueryResponse, Search, answer, checked_queries


class AsyncQdrantEmbedMixin(ModelSettings, OwnAsyncConnections):
    """A mixin that adds `add` and `query` to your own asynchronous Qdrant client class.

    All methods of ``qdrant_client.AsyncQdrantClient`` stay. Models are loaded, texts encoded and
    points built in threads. Because local mode would block the event loop, `add` and `query` also
    use it from threads; the embedded engine always answers in threads. Any number of tasks can
    share a client: requests to a local database take turns, those of inherited methods, too.
    ``close()`` waits for requests of other tasks; what comes later is a `ClientStateError`. In
    another event loop, one after the other, and in a process that was forked, `add`, `query` and
    the other methods of this package open connections of their own.
    """

    _loads_eagerly: ClassVar[bool] = False

    @property
    def _io(self) -> AsyncIo:
        opened: Opened[AsyncIo] | None = self.__dict__.get("_opened")
        if opened is None or not opened.is_here():
            with OPENING:
                opened = self.__dict__.get("_opened")
                if opened is None or not opened.is_here():
                    opened = open_async(opened, self._client, self.init_options)
                    self._client = opened.database
                    self.__dict__["_opened"] = opened
        return opened.io

    # documents in

    async def add(
        self,
        collection_name: str,
        documents: Iterable[str | Document] | AsyncIterable[str | Document],
        metadata: Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]] | None = None,
        ids: Iterable[int | str | UUID] | AsyncIterable[int | str | UUID] | IdScheme | None = None,
        batch_size: int | None = None,
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

        Works like `QdrantEmbedMixin.add`. Asynchronous iterables are read on the event loop, others
        in a thread; a `progress` function is called on the loop. After a cancellation, the request
        in flight is completed, and `IngestError.behind` returns what is stored when it is passed
        the ``CancelledError`` (or the ``TimeoutError`` that asyncio made of it). The number of
        stored documents is also logged.

        Raises:
            As `QdrantEmbedMixin.add` does.
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
        ahead = ReadAhead()
        return await add_documents(
            collection,
            ahead.column(documents),
            ahead.column(metadata),
            ahead.column(ids),
            options,
            ahead,
        )

    async def add_frame(
        self,
        collection_name: str,
        frame: Frame,
        *,
        text: str = "text",
        id: str | ContentIds | None = None,
        metadata: Sequence[str] | None = None,
        batch_size: int | None = None,
        parallel: int | None = None,
        wait: bool = True,
        max_retries: int = MAX_RETRIES,
        on_existing: OnExisting = "overwrite",
        progress: ProgressOption = None,
        shard_key_selector: types.ShardKeySelector | None = None,
        collection_options: CollectionOptions | None = None,
    ) -> int:
        """Embed and store the rows of a frame; return the number of documents.

        Rows with equal ids, such as those of equal rows by default, are one document.

        Args and Raises are those of `QdrantEmbedMixin.add_frame`. The frame is read in a thread.
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
        return await add_frame(collection, frame, text, id, metadata, options)

    # answers out

    async def query(
        self,
        collection_name: str,
        query_text: str | None = None,
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
        reranker: Reranker | str | os.PathLike[str] | None = None,
        rerank_limit: int | None = None,
        chunks: bool = False,
        consistency: types.ReadConsistency | None = None,
        shard_key_selector: types.ShardKeySelector | None = None,
        timeout: int | None = None,
        diversity: float | None = None,
        like: Iterable[int | str | UUID] = (),
        unlike: Iterable[int | str | UUID] = (),
    ) -> list[QueryResponse]:
        """Return the stored documents nearest in meaning to `query_text`, best first.

        Args and Raises are those of `QdrantEmbedMixin.query`.
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
            reranker=self._selection.reranker(reranker, has_text=query_text is not None),
            rerank_limit=rerank_limit,
            chunks=chunks,
            consistency=consistency,
            shard_key_selector=shard_key_selector,
            timeout=timeout,
            diversity=diversity,
            like=points_by_id(like, "like"),
            unlike=points_by_id(unlike, "unlike"),
        )
        collection = self._collection(collection_name)
        (hits,) = await answer(collection, search, search.texts(query_text))
        return hits

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
        reranker: Reranker | str | os.PathLike[str] | None = None,
        rerank_limit: int | None = None,
        chunks: bool = False,
        consistency: types.ReadConsistency | None = None,
        shard_key_selector: types.ShardKeySelector | None = None,
        timeout: int | None = None,
        diversity: float | None = None,
        like: Iterable[int | str | UUID] = (),
        unlike: Iterable[int | str | UUID] = (),
    ) -> list[list[QueryResponse]]:
        """Return the hits of each of `query_texts`, in order, with one request for all.

        Works like `QdrantEmbedMixin.query_batch`. Args and Raises are those of
        `QdrantEmbedMixin.query`.
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
            reranker=self._selection.reranker(reranker),
            rerank_limit=rerank_limit,
            chunks=chunks,
            consistency=consistency,
            shard_key_selector=shard_key_selector,
            timeout=timeout,
            diversity=diversity,
            like=points_by_id(like, "like"),
            unlike=points_by_id(unlike, "unlike"),
        )
        collection = self._collection(collection_name)
        return await answer(collection, search, checked_queries(query_texts))

    async def query_groups(
        self,
        collection_name: str,
        query_text: str | None = None,
        query_filter: models.Filter | None = None,
        limit: int = 10,
        *,
        group_by: str,
        group_size: int = 3,
        where: Mapping[str, Any] | None = None,
        with_vectors: bool = False,
        search_params: models.SearchParams | None = None,
        score_threshold: float | None = None,
        fusion: Fusion = "rrf",
        prefetch_limit: int | None = None,
        chunks: bool = False,
        consistency: types.ReadConsistency | None = None,
        shard_key_selector: types.ShardKeySelector | None = None,
        timeout: int | None = None,
        like: Iterable[int | str | UUID] = (),
        unlike: Iterable[int | str | UUID] = (),
    ) -> list[GroupResponse]:
        """Return the best groups of documents that share a value of their metadata, best first.

        Works like `QdrantEmbedMixin.query_groups`. Args and Raises are those of
        `QdrantEmbedMixin.query_groups`.
        """
        search = Search(
            query_filter=query_filter,
            limit=limit,
            where=where,
            with_vectors=with_vectors,
            search_params=search_params,
            score_threshold=score_threshold,
            fusion=fusion,
            prefetch_limit=prefetch_limit,
            chunks=chunks,
            consistency=consistency,
            shard_key_selector=shard_key_selector,
            timeout=timeout,
            like=points_by_id(like, "like"),
            unlike=points_by_id(unlike, "unlike"),
        )
        grouping = Grouping(group_by=group_by, group_size=group_size)
        collection = self._collection(collection_name)
        return await answer_groups(collection, search, grouping, query_text)

    # documents read back and changed

    async def get_documents(
        self,
        collection_name: str,
        ids: Iterable[int | str | UUID],
        *,
        max_retries: int = MAX_RETRIES,
        shard_key_selector: types.ShardKeySelector | None = None,
    ) -> list[StoredDocument | None]:
        """Return the documents with these ids, in their order; ``None`` for one that is missing.

        Args and Raises are those of `QdrantEmbedMixin.get_documents`.
        """
        collection = self._collection(collection_name, max_retries)
        return await get_documents(collection, ids, shard_key_selector=shard_key_selector)

    def scroll_documents(
        self,
        collection_name: str,
        *,
        where: Mapping[str, Any] | None = None,
        query_filter: models.Filter | None = None,
        after: int | str | UUID | None = None,
        batch_size: int = 256,
        max_retries: int = MAX_RETRIES,
        shard_key_selector: types.ShardKeySelector | None = None,
    ) -> AsyncIterator[StoredDocument]:
        """Yield all documents of a collection, whole: ``async for document in ...``.

        Works like `QdrantEmbedMixin.scroll_documents`; the first request is sent when the first
        document is read. Args and Raises are those of `QdrantEmbedMixin.scroll_documents`.
        """
        options = ScrollOptions(
            filter=combined(query_filter, where),
            after=after,
            batch_size=batch_size,
            shard_key_selector=shard_key_selector,
        )
        return self._scrolled(collection_name, max_retries, options)

    async def _scrolled(
        self, collection_name: str, max_retries: int, options: ScrollOptions
    ) -> AsyncIterator[StoredDocument]:
        scroll = DocumentScroll(self._collection(collection_name, max_retries), options)
        while page := await scroll.next_page():
            for document in page:
                yield document

    async def update_metadata(
        self,
        collection_name: str,
        ids: Iterable[int | str | UUID],
        metadata: Mapping[str, Any] | Iterable[Mapping[str, Any]],
        *,
        wait: bool = True,
        max_retries: int = MAX_RETRIES,
        shard_key_selector: types.ShardKeySelector | None = None,
    ) -> None:
        """Set metadata of documents, in all their chunks, without encoding them again.

        Args and Raises are those of `QdrantEmbedMixin.update_metadata`.
        """
        collection = self._collection(collection_name, max_retries)
        await update_metadata(
            collection, ids, metadata, wait=wait, shard_key_selector=shard_key_selector
        )

    # documents moved and deleted

    async def migrate_model(
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
        """Encode a collection's documents with another model; return the number of points.

        Args and Raises are those of `QdrantEmbedMixin.migrate_model`.
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
        return await migrate(collection, options)

    async def delete_documents(
        self,
        collection_name: str,
        ids: Iterable[int | str | UUID],
        *,
        wait: bool = True,
        max_retries: int = MAX_RETRIES,
        shard_key_selector: types.ShardKeySelector | None = None,
    ) -> None:
        """Delete documents with all their chunks; ids that do not exist are ignored.

        Args and Raises are those of `QdrantEmbedMixin.delete_documents`.
        """
        collection = self._collection(collection_name, max_retries)
        await delete_documents(collection, ids, wait=wait, shard_key_selector=shard_key_selector)

    async def optimize(self, collection_name: str, *, progress: bool | None = None) -> None:
        """Build the index of a collection in a folder now, and wait until it is in use.

        Args and Raises are those of `QdrantEmbedMixin.optimize`.
        """
        await optimize(self._collection(collection_name), progress)

    async def wait_until_indexed(
        self, collection_name: str, *, progress: bool | None = None
    ) -> None:
        """Turn the index of a collection on if loading left it off, and wait until it is built.

        Args and Raises are those of `QdrantEmbedMixin.wait_until_indexed`.
        """
        await optimize(self._collection(collection_name), progress)

    # collections copied to another database

    async def copy_to(
        self,
        other: AsyncQdrantEmbedMixin,
        collections: Iterable[str] | None = None,
        *,
        batch_size: int = 256,
        max_retries: int = MAX_RETRIES,
        progress: ProgressOption = None,
    ) -> dict[str, int]:
        """Copy collections to another database; return the number of points of each.

        Args and Raises are those of `QdrantEmbedMixin.copy_to`.
        """
        if not isinstance(other, AsyncQdrantEmbedMixin):
            raise InputError(
                f"other must be a qdrant_embed.AsyncQdrantClient, not {type(other).__module__}."
                f"{type(other).__name__}"
            )
        options = CopyOptions(collections=collections, batch_size=batch_size, progress=progress)
        source, target = (
            Database(partial(client._collection, max_retries=max_retries))
            for client in (self, other)
        )
        return await copy_collections(source, target, options)

    # known models

    @classmethod
    async def list_text_models(cls) -> dict[str, tuple[int, models.Distance]]:
        """Return the vector size and distance of each known model by name, without network."""
        return text_models()

    @classmethod
    async def list_sparse_models(cls) -> dict[str, dict[str, Any]]:
        """Return the facts of each known sparse model by name, without network."""
        return sparse_models()

    @classmethod
    async def list_late_models(cls) -> dict[str, dict[str, Any]]:
        """Return the facts of each known late-interaction model by name, without network."""
        return late_models()


class AsyncQdrantClient(AsyncQdrantEmbedMixin):
    """``qdrant_client.AsyncQdrantClient`` with `add`, `query` and `query_batch`.

    The constructor is that of ``qdrant_client``: ``":memory:"``, ``path="folder"``,
    ``url="http://host:6333"`` and so on; see `QdrantClient`, also for `engine`, `optimize`,
    `trust_stamps` and `offline`.

    In another event loop it opens connections of its own; two loops that run concurrently need a
    client each.
    """
