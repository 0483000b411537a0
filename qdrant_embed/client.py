"""The synchronous client: text in, answers out. Only I/O; decisions are made elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from uuid import UUID

import grpc
import qdrant_client
from qdrant_client import models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.conversions import common_types as types
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

from qdrant_embed.collection import check_is_stamped, read_collection, vector_params
from qdrant_embed.encoder.batching import windows
from qdrant_embed.encoder.interfaces import describe
from qdrant_embed.encoders import Target
from qdrant_embed.errors import IngestError, check_whole
from qdrant_embed.points import id_of, pair
from qdrant_embed.queries import QueryResponse, Search, checked_queries, results
from qdrant_embed.retries import is_transient, wait_seconds
from qdrant_embed.settings import ModelSettings

logger = logging.getLogger(__name__)

_WINDOW = 1024  # documents encoded while the window before is uploaded


class QdrantEmbedMixin(ModelSettings, qdrant_client.QdrantClient):
    """`add` and `query` for a Qdrant client; mix it into a client class of your own.

    Every method of ``qdrant_client.QdrantClient`` stays as it is.
    """

    # documents in

    def add(
        self,
        collection_name: str,
        documents: Iterable[str],
        metadata: Iterable[Mapping[str, Any]] | None = None,
        ids: Iterable[int | str | UUID] | None = None,
        batch_size: int = 32,
        parallel: int | None = None,
        *,
        wait: bool = True,
        max_retries: int = 3,
        shard_key_selector: types.ShardKeySelector | None = None,
    ) -> list[str | int]:
        """Embeds and stores texts; the ids of their points, in order.

        The collection is created with the first text where it does not exist. Texts are encoded
        while those before them are uploaded. Lists are checked whole before anything is stored;
        other iterables are read once and need not fit in memory.

        Args:
            collection_name: of the collection.
            documents: the texts.
            metadata: one dict of JSON values for each text, stored beside it.
            ids: one for each text: whole numbers or UUIDs (as `uuid.UUID` or str). Without them
                each text gets a random UUID, as a str with hyphens. An id that the collection
                has already is overwritten.
            batch_size: points in one request.
            parallel: threads that encode; every usable core by default and with 0.
            wait: return when the points can be found, not already when they are accepted.
            max_retries: further tries of a request that failed for a passing reason. The same
                ids are sent again, so nothing is stored twice.
            shard_key_selector: shards to write to, in a collection with custom sharding.

        Raises:
            InputError: documents, metadata, ids or an option cannot be used.
            CollectionMismatchError: the collection belongs to another model.
            IngestError: it ended after a part was stored; says which, and why.
            ModelError: the model cannot be found, fetched or read.
        """
        check_whole("batch_size", batch_size, 1)
        check_whole("max_retries", max_retries, 0)
        pending = windows(pair(documents, metadata, ids), _WINDOW)
        first = next(pending, None)
        if first is None:
            return []
        exists = self.collection_exists(collection_name)
        target = self._target(collection_name) if exists else self._encoders.new_target()
        target = target.with_threads(parallel)
        stored: list[str | int] = []

        def upload(points: list[models.PointStruct]) -> None:
            if not stored:
                self._prepare(collection_name, target)
            self._retried(
                lambda: self.upsert(
                    collection_name, points, wait=wait, shard_key_selector=shard_key_selector
                ),
                max_retries,
            )
            stored.extend(id_of(point) for point in points)

        with ThreadPoolExecutor(1, thread_name_prefix="qdrant-embed-add") as encoding:
            try:
                coming: Future[list[models.PointStruct]] | None
                coming = encoding.submit(target.to_points, first)
                while coming is not None:
                    following = next(pending, None)
                    points = coming.result()
                    coming = encoding.submit(target.to_points, following) if following else None
                    for batch in windows(points, batch_size):
                        upload(batch)
            except Exception as error:
                if not stored:
                    raise
                raise IngestError(
                    f"{len(stored)} documents are stored in {collection_name!r}, then it failed "
                    f"at number {len(stored)}: {error}",
                    stored_ids=stored,
                    failed_index=len(stored),
                ) from error
        return stored

    # answers out

    def query(
        self,
        collection_name: str,
        query_text: str,
        query_filter: models.Filter | None = None,
        limit: int = 10,
        *,
        with_vectors: bool = False,
        search_params: models.SearchParams | None = None,
        score_threshold: float | None = None,
        offset: int | None = None,
        consistency: types.ReadConsistency | None = None,
        shard_key_selector: types.ShardKeySelector | None = None,
        timeout: int | None = None,
    ) -> list[QueryResponse]:
        """The stored texts nearest in meaning to `query_text`, best first, in one request.

        Args:
            collection_name: of the collection.
            query_text: what to look for.
            query_filter: only points whose payload fits.
            limit: how many at most.
            with_vectors: fill `QueryResponse.embedding`.
            search_params: Qdrant's options for the search (exactness, rescoring ...).
            score_threshold: only hits with at least this score.
            offset: leave out so many of the best.
            consistency: how many replicas must agree.
            shard_key_selector: shards to search, in a collection with custom sharding.
            timeout: seconds, instead of the client's own.

        Raises:
            InputError: the text is empty, or `limit` is below 1.
            CollectionMismatchError: the collection belongs to another model.
            ModelError: the model cannot be found, fetched or read.
        """
        (answers,) = self.query_batch(
            collection_name,
            [query_text],
            query_filter,
            limit,
            with_vectors=with_vectors,
            search_params=search_params,
            score_threshold=score_threshold,
            offset=offset,
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
        with_vectors: bool = False,
        search_params: models.SearchParams | None = None,
        score_threshold: float | None = None,
        offset: int | None = None,
        consistency: types.ReadConsistency | None = None,
        shard_key_selector: types.ShardKeySelector | None = None,
        timeout: int | None = None,
    ) -> list[list[QueryResponse]]:
        """What `query` gives for each of `query_texts`, in order, in one request for all.

        Args and Raises are those of `query`; an empty list gives an empty list.
        """
        texts = checked_queries(query_texts)
        search = Search(
            query_filter=query_filter,
            limit=limit,
            with_vectors=with_vectors,
            search_params=search_params,
            score_threshold=score_threshold,
            offset=offset,
            shard_key_selector=shard_key_selector,
        )
        if not texts:
            return []

        def ask(target: Target) -> list[list[QueryResponse]]:
            requests = search.requests(target, texts)
            answers = self.query_batch_points(
                collection_name, requests, consistency=consistency, timeout=timeout
            )
            return [results(answer, target.vector_name) for answer in answers]

        remembered = self._encoders.remembered(collection_name)
        if remembered is None:
            return ask(self._target(collection_name))
        try:
            return ask(remembered)
        except (UnexpectedResponse, grpc.RpcError, ValueError):
            # the collection may have been made anew since it was looked at
            target = self._target(collection_name)
            if target == remembered:
                raise
            return ask(target)

    # shared

    def _target(self, collection_name: str) -> Target:
        info = self.get_collection(collection_name)
        return self._encoders.target(read_collection(collection_name, info))

    def _prepare(self, collection_name: str, target: Target) -> None:
        """Has the collection ready for the target's points: created, and stamped if empty."""
        if not self.collection_exists(collection_name):
            try:
                self.create_collection(
                    collection_name,
                    vectors_config={target.vector_name: vector_params(describe(target.encoder))},
                    metadata=target.stamp().metadata(),
                )
            except (UnexpectedResponse, grpc.RpcError, ValueError):
                # another process may have been first
                if not self.collection_exists(collection_name):
                    raise
        collection = read_collection(collection_name, self.get_collection(collection_name))
        if collection.stamp is None and collection.is_empty:
            self.update_collection(collection_name, metadata=target.stamp().metadata())
            collection = read_collection(collection_name, self.get_collection(collection_name))
            check_is_stamped(collection)
        self._encoders.accept(collection, target)

    def _retried(self, request: Callable[[], object], max_retries: int) -> None:
        for tries in range(1, max_retries + 2):
            try:
                request()
                return
            except (ApiException, QdrantException, grpc.RpcError) as error:
                if tries > max_retries or not is_transient(error):
                    raise
                wait = wait_seconds(error, tries)
                logger.warning("trying again in %.1f s: %s", wait, error)
                time.sleep(wait)


class QdrantClient(QdrantEmbedMixin):
    """``qdrant_client.QdrantClient`` with `add`, `query` and `query_batch`.

    The constructor is that of ``qdrant_client``: ``":memory:"``, ``path="folder"``,
    ``url="http://host:6333"`` and so on.
    """
