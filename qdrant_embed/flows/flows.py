"""What the clients do, step by step, written once for both."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from qdrant_client import models

from qdrant_embed.collection.options import CollectionOptions
from qdrant_embed.collection.selection import EncoderChoice
from qdrant_embed.collection.stored import StoredCollection, check_is_stamped
from qdrant_embed.collection.vectors import Target
from qdrant_embed.engines.retries import (
    MAX_RETRIES,
    REFUSALS,
    REQUEST_ERRORS,
    is_too_large,
    is_transient,
)
from qdrant_embed.errors import CollectionMismatchError
from qdrant_embed.flows.chunk_flows import ChunkFlows
from qdrant_embed.flows.flow import Flow, Request, Together, Work
from qdrant_embed.ingest.documents import PendingPoint
from qdrant_embed.ingest.ingestion import Ingestion
from qdrant_embed.search.queries import QueryResponse, Search

logger = logging.getLogger(__name__)


class Flows(ChunkFlows):
    """What clients do with one collection; the encoders are the client's."""

    def __init__(
        self,
        client: Any,
        encoders: EncoderChoice,
        collection_name: str,
        max_retries: int = MAX_RETRIES,
    ) -> None:
        super().__init__(client, collection_name, max_retries)
        self._encoders = encoders

    def open(self, texts: Iterable[str]) -> Flow[Target]:
        """What new documents are encoded with; the collection need not exist.

        `texts` are those known from the start, none of which may be too long.
        """
        existing = (yield from self.read()) if (yield from self.exists()) else None
        target: Target = yield Work(lambda: self._encoders.extended(existing))
        yield Work(lambda: target.check_lengths(texts))
        return target

    def prepare(
        self,
        target: Target,
        options: CollectionOptions,
        shard_keys: models.ShardKeySelector | None,
    ) -> Flow[None]:
        """Has the collection ready for the target's points: created, stamped if empty, with the
        sparse vector.
        """
        if not (yield from self.exists()):
            yield from self._create(target, options, shard_keys)
        collection = yield from self.read()
        missing = yield Work(lambda: target.missing_sparse(collection))
        for vector_name, config in missing.items():
            yield from self._add_vector(collection, vector_name, config)
        stamp = yield Work(lambda: target.missing_stamp(collection))
        if stamp is not None:
            yield from self.tried(
                Request(
                    lambda: self._client.update_collection(self._name, metadata=stamp.metadata())
                )
            )
        if stamp is not None or missing:
            collection = yield from self.read()
        if stamp is not None:
            check_is_stamped(collection)
        if target.chunked:
            yield from self.index_parents(collection)
        yield Work(lambda: self._encoders.accept(collection, target))

    def wanted(
        self,
        window: Sequence[PendingPoint],
        ingestion: Ingestion,
        shard_key_selector: models.ShardKeySelector | None,
    ) -> Flow[list[PendingPoint]]:
        """Those of a window's documents that are to be encoded and stored."""
        documents = ingestion.firsts(window)
        if not documents or not ingestion.looks_up:
            return documents
        if not ingestion.found_collection:
            ingestion.found_collection = ingestion.looks_up = yield from self.exists()
        if not ingestion.looks_up:  # nor later: all there will be is of this `add`
            return documents
        if (replacement := ingestion.replacement) is not None:
            old = [document.id for document in documents if not document.is_new]
            stored = yield from self.stored_chunks(old, shard_key_selector)
            chosen: list[PendingPoint] = yield Work(
                lambda: ingestion.wanted_chunked(documents, stored, replacement)
            )
            return chosen
        existing = yield from self.tried(
            Request(
                lambda: self._client.retrieve(
                    self._name,
                    [document.id for document in documents],
                    with_payload=not ingestion.ids_tell_all,
                    shard_key_selector=shard_key_selector,
                )
            )
        )
        wanted: list[PendingPoint] = yield Work(lambda: ingestion.wanted(documents, existing))
        return wanted

    def store(
        self,
        points: Sequence[models.PointStruct],
        note: Callable[[Sequence[models.PointStruct]], None],
        *,
        wait: bool,
        shard_key_selector: models.ShardKeySelector | None,
    ) -> Flow[None]:
        """One batch uploaded and noted, in two halves where the server says it is too large."""
        request = Request(
            lambda: self._client.upsert(
                self._name, points, wait=wait, shard_key_selector=shard_key_selector
            ),
            on_success=lambda: note(points),
        )
        try:
            yield from self.tried(request)
            return
        except REQUEST_ERRORS as error:
            if len(points) == 1 or not is_too_large(error):
                raise
        middle = len(points) // 2
        for half in (points[:middle], points[middle:]):
            yield from self.store(half, note, wait=wait, shard_key_selector=shard_key_selector)

    def replace(
        self,
        points: Sequence[models.PointStruct],
        ingestion: Ingestion,
        *,
        wait: bool,
        shard_key_selector: models.ShardKeySelector | None,
    ) -> Flow[None]:
        """One batch stored, then what it makes stale deleted, so that nothing is lost between."""
        yield from self.store(
            points, ingestion.note_stored, wait=wait, shard_key_selector=shard_key_selector
        )
        replacement = ingestion.replacement
        if replacement is not None and (stale := replacement.stale):
            yield from self._delete(
                models.PointIdsList(points=[*stale]),
                lambda: ingestion.note_deleted(replacement),
                wait=wait,
                shard_key_selector=shard_key_selector,
            )

    def answer(self, search: Search, texts: Sequence[str]) -> Flow[list[list[QueryResponse]]]:
        """What is found for each text."""
        if not texts:
            return []
        remembered = self._encoders.targets.find(self._name)
        if remembered is None:
            target = yield from self._searched()
            return (yield from self._ask(target, search, texts))
        try:
            return (yield from self._ask(remembered, search, texts))
        except REFUSALS:  # the collection may have been made anew since it was looked at
            target = yield from self._searched()
            if target == remembered:
                raise
            return (yield from self._ask(target, search, texts))

    def _ask(
        self, target: Target, search: Search, texts: Sequence[str]
    ) -> Flow[list[list[QueryResponse]]]:
        requests = yield Work(lambda: search.requests(target, texts))
        if search.groups(target):  # which no batch can hold
            answers = yield Together([self._documents(search, request) for request in requests])
        else:
            options = search.options()
            found = yield from self.tried(
                Request(lambda: self._client.query_batch_points(self._name, requests, **options))
            )
            answers = [answer.points for answer in found]
        results: list[list[QueryResponse]] = yield Work(
            lambda: search.responses(target, texts, answers)
        )
        return results

    def _documents(
        self, search: Search, request: models.QueryRequest
    ) -> Flow[list[models.ScoredPoint]]:
        arguments = search.grouped(request)
        groups = yield from self.tried(
            Request(lambda: self._client.query_points_groups(self._name, **arguments))
        )
        return search.best_of(groups)

    def _searched(self) -> Flow[Target]:
        collection = yield from self.read()
        target: Target = yield Work(lambda: self._encoders.searched(collection))
        return target

    def _create(
        self,
        target: Target,
        options: CollectionOptions,
        shard_keys: models.ShardKeySelector | None,
    ) -> Flow[None]:
        arguments = yield Work(lambda: target.creation(options))
        try:
            yield from self.tried(
                Request(lambda: self._client.create_collection(self._name, **arguments))
            )
        except REFUSALS:
            if not (yield from self.exists()):
                raise
            # another process was first, or an earlier try whose answer was lost
        for key in options.shard_keys(shard_keys):
            yield from self._create_shards(key)

    def _create_shards(self, key: models.ShardKey) -> Flow[None]:
        try:
            yield from self.tried(Request(lambda: self._client.create_shard_key(self._name, key)))
        except REFUSALS:
            found = yield from self.tried(
                Request(lambda: self._client.collection_cluster_info(self._name))
            )
            shards = (*found.local_shards, *found.remote_shards)
            if all(shard.shard_key != key for shard in shards):
                raise

    def _add_vector(
        self, collection: StoredCollection, vector_name: str, config: models.SparseVectorNameConfig
    ) -> Flow[None]:
        """Gives an existing collection a sparse vector, where the server can."""
        try:
            yield from self.tried(
                Request(lambda: self._client.create_vector_name(self._name, vector_name, config))
            )
        except REFUSALS as error:
            collection = yield from self.read()
            if vector_name in collection.sparse_vectors:  # another process was first
                return
            if is_transient(error):
                raise
            raise CollectionMismatchError(
                f"collection {self._name!r} has no sparse vector {vector_name!r}, and the server "
                f"would not add it ({error}): Qdrant 1.18 or newer can. Else use another "
                "collection name and let add() create it, or set_sparse_model(None)",
                expected={"sparse vector": vector_name},
                found={"sparse vectors": sorted(collection.sparse_vectors)},
            ) from error
        if not collection.is_empty:
            logger.warning(
                "collection %r has sparse vectors from now on: documents stored before have none, "
                "and are found by their dense vectors alone until they are added again",
                self._name,
            )
