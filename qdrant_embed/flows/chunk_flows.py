"""The chunks of documents in one collection: found, replaced, deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from uuid import UUID

from qdrant_client import models

from qdrant_embed.collection.stored import StoredCollection
from qdrant_embed.encoder.run.batching import windows
from qdrant_embed.engines.local import database_of
from qdrant_embed.flows.flow import CollectionFlows, Flow, Request, Work
from qdrant_embed.ingest.chunks import PARENT_FIELD, StoredChunks, of_documents
from qdrant_embed.ingest.ids import CHUNK_KEY, point_ids

_PAGE = 1000  # points of one answer, documents of one deletion


class ChunkFlows(CollectionFlows):
    """Documents that may be several points each."""

    def index_parents(self, collection: StoredCollection) -> Flow[None]:
        """Lets a server group and delete a document's chunks without reading every payload."""
        if PARENT_FIELD in collection.indexed or database_of(self._client).is_local:
            return
        yield from self.tried(
            Request(
                lambda: self._client.create_payload_index(
                    self._name, PARENT_FIELD, models.PayloadSchemaType.KEYWORD
                )
            )
        )

    def stored_chunks(
        self, ids: Sequence[str | int], shard_key_selector: models.ShardKeySelector | None
    ) -> Flow[StoredChunks]:
        """What the collection has of the documents with these ids."""
        records: list[models.Record] = []
        offset, more = None, bool(ids)
        while more:
            request = Request(
                lambda offset=offset: self._client.scroll(  # type: ignore[misc] # mypy types no default of a lambda
                    self._name,
                    models.Filter(must=[of_documents(ids)]),
                    limit=_PAGE,
                    offset=offset,
                    with_payload=[CHUNK_KEY],
                    shard_key_selector=shard_key_selector,
                )
            )
            page, offset = yield from self.tried(request)
            records += page
            more = offset is not None
        return StoredChunks(records)

    def delete(
        self,
        ids: Iterable[str | int | UUID],
        *,
        wait: bool,
        shard_key_selector: models.ShardKeySelector | None,
    ) -> Flow[None]:
        """Documents deleted, with all their chunks."""
        points = yield Work(lambda: point_ids(ids))
        chunked = bool(points) and (yield from self.read()).chunked
        for some in windows(points, _PAGE):
            selector: models.PointsSelector = models.PointIdsList(points=[*some])
            if chunked:
                own = models.HasIdCondition(has_id=[*some])
                chunks = models.Filter(should=[own, of_documents(some)])
                selector = models.FilterSelector(filter=chunks)
            yield from self._delete(
                selector,
                None,
                wait=wait,
                shard_key_selector=shard_key_selector,
            )

    def _delete(
        self,
        selector: models.PointsSelector,
        note: Callable[[], None] | None,
        *,
        wait: bool,
        shard_key_selector: models.ShardKeySelector | None,
    ) -> Flow[None]:
        yield from self.tried(
            Request(
                lambda: self._client.delete(
                    self._name, selector, wait=wait, shard_key_selector=shard_key_selector
                ),
                on_success=note,
            )
        )
