"""One collection, and how a client reads it and prepares it for documents and queries."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from qdrant_client import models

from qdrant_embed.collection.options import CollectionOptions, check_shard_keys
from qdrant_embed.collection.payload import PARENT_FIELD, PayloadCodec
from qdrant_embed.collection.selection import EncoderSelection
from qdrant_embed.collection.stamp import BULK_KEY, INDEXING_THRESHOLD, BulkMark, Stamp
from qdrant_embed.collection.stored import StoredCollection, check_is_stamped, read_collection
from qdrant_embed.collection.vectors import CollectionVectors
from qdrant_embed.engines.names import check_new_collection_name
from qdrant_embed.engines.server import is_single_node
from qdrant_embed.errors import (
    CollectionMismatchError,
    InputError,
    PermissionRefusal,
    ServerUnavailableError,
)
from qdrant_embed.flows.io import Io
from qdrant_embed.flows.requests import SOON, CollectionRequests

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where a page of a collection begins: its shard key's position, and an offset."""

    shard: int = 0
    offset: Any = None


@dataclass(frozen=True)
class Page:
    """A page of a collection: points of one shard key, and where the next page begins, if any."""

    records: Sequence[models.Record]
    shard_key: models.ShardKey | None
    following: Place | None


class Collection:
    """A collection, together with the client's encoders and the format of its payloads.

    Args:
        requests: sends requests about the collection.
        selection: selects the client's encoders.
        codec: encodes and decodes payloads.

    Attributes:
        requests: sends requests about the collection.
        selection: selects the client's encoders.
        codec: encodes and decodes payloads.
        found: the collection when its vectors were selected; ``None`` if it did not exist then.
        bulk: the mark of a collection whose index is off, until it is on again.
    """

    def __init__(
        self, requests: CollectionRequests, selection: EncoderSelection, codec: PayloadCodec
    ) -> None:
        self.requests, self.selection, self.codec = requests, selection, codec
        self.found: StoredCollection | None = None
        self.bulk: BulkMark | None = None
        self._client = requests.client
        self._was_empty = False  # and without a stamp, when its vectors were selected

    @property
    def name(self) -> str:
        """The collection's name."""
        return self.requests.name

    @property
    def io(self) -> Io:
        """Everything that flows about the collection can await."""
        return self.requests.io

    def sibling(self, name: str, selection: EncoderSelection) -> Collection:
        """Return another collection of the same client, with other encoders."""
        requests = CollectionRequests(self.io, self._client, name, self.requests.max_retries)
        return Collection(requests, selection, self.codec)

    async def read(self) -> StoredCollection:
        """Read the collection's configuration from the server.

        Raises:
            CollectionMismatchError: if its stamp cannot be read.
        """
        return self._read(await self.requests.send(self._client.get_collection, self.name))

    def _read(self, info: models.CollectionInfo) -> StoredCollection:
        return read_collection(self.name, info, keeps_settings=self.io.engine.keeps_settings)

    async def read_whole(self) -> StoredCollection:
        """Read the configuration of a collection whose documents are to be read or changed.

        Raises:
            CollectionMismatchError: if it is an unfinished copy, or its stamp cannot be read.
        """
        stored = await self.read()
        self.selection.check_is_whole(stored)
        return stored

    async def check_is_whole(self) -> None:
        """Read the collection unless it was found to be whole within the last minute.

        Raises:
            CollectionMismatchError: see `read_whole`.
        """
        if not self.selection.is_known_to_be_whole(self.name):
            await self.read_whole()

    async def find(self) -> StoredCollection | None:
        """Read what the server says of the collection; ``None`` if it does not exist.

        Raises:
            CollectionMismatchError: if its stamp cannot be read.
        """
        info = await self.requests.info()
        return None if info is None else self._read(info)

    async def vectors_for_query(self) -> CollectionVectors:
        """Read the collection and select the vectors to search in.

        Raises:
            CollectionMismatchError: if the chosen encoders do not fit, or none can be found.
            ModelError: if a model cannot be found, downloaded or read.
        """
        stored = await self.read()
        return await self.io.compute(self.selection.for_query, stored)

    async def vectors_for_add(
        self,
        texts: Iterable[str] = (),
        options: CollectionOptions | None = None,
        shard_keys: models.ShardKeySelector | None = None,
    ) -> CollectionVectors:
        """Select the vectors of new documents; the collection need not exist yet.

        One that exists gets what look-ups need: the shards of the selector, and the index of
        parents if documents are stored in chunks.

        Args:
            texts: the texts known from the start, whose lengths are checked.
            options: of a collection that will be created.
            shard_keys: where the documents will be stored.

        Raises:
            CollectionMismatchError: if the chosen encoders do not fit, or none can be found.
            InputError: if a text is too long for an encoder with ``overflow="error"``, or
                the collection's name or its sharding cannot be used.
            ModelError: if a model cannot be found, downloaded or read.
        """
        existing = await self.find()
        if existing is None:
            check_new_collection_name(self.name)
            check_shard_keys(options, shard_keys)
        else:
            existing = await self._up_to_date(existing)
            self._was_empty = existing.stamp is None and existing.is_empty
            existing.check_shard_keys(shard_keys)
        self.found = existing
        self.bulk = None if existing is None else existing.bulk
        vectors = await self.io.compute(self.selection.for_add, existing)
        await self.io.compute(vectors.dense.encoder.check_lengths, texts)
        if existing is not None:
            await self.create_missing_shards(existing, shard_keys)
            await self.index_parents(existing)
        return vectors

    def has_other_vectors(self, vectors: CollectionVectors) -> bool:
        """Return whether the collection that was found has vectors under other names."""
        return self.found is not None and not self.found.vector_names <= {*vectors.names}

    async def prepare(
        self,
        vectors: CollectionVectors,
        options: CollectionOptions,
        shard_keys: models.ShardKeySelector | None = None,
    ) -> None:
        """Prepare the collection for points with `vectors`.

        It is created if it does not exist, stamped if it is empty, and given the sparse vector and
        the indexes that it lacks.

        Raises:
            CollectionMismatchError: if the vectors do not fit the collection, or the server does
                not support them.
            InputError: if its sharding cannot be used.
        """
        stored = await self.find()
        is_new = stored is None
        if stored is None:
            check_new_collection_name(self.name)
            check_shard_keys(options, shard_keys)
            arguments = await self.io.compute(vectors.creation, options)
            await self.io.finish(self.create(arguments, options.shard_keys(shard_keys)))
            stored = await self.read_until(lambda found: found.stamp is not None)
        else:
            await self.create_missing_shards(stored, shard_keys)
        stored = await self._up_to_date(stored)
        if self._was_empty and stored.stamp is None and not stored.is_empty:
            raise CollectionMismatchError(
                f"something else stores points in collection {self.name!r}, which was empty and "
                "has no stamp: nothing was written to it. Use another collection, or call add() "
                "again to follow what is in it now",
                expected={"points": 0},
                found={"points": "some"},
            )
        missing = await self.io.compute(vectors.missing_sparse, stored)
        stamp = await self.io.compute(vectors.missing_stamp, stored)
        if missing and stamp is not None:
            # the right to stamp is greater than the right to add a vector: asked for first, so
            # that a refusal leaves the collection unchanged
            await self.requests.send(self._client.update_collection, self.name, metadata={})
        for vector_name, config in missing.items():
            await self._add_vector(stored, vector_name, config)
        if stamp is not None:
            await self.requests.define(
                self._client.update_collection,
                partial(self._is_stamped, stamp),
                self.name,
                metadata=stamp.metadata(),
                timeout=self.requests.defining_timeout,
            )
        if stamp is not None or missing:
            stored = await self.read_until(
                lambda found: (
                    missing.keys() <= found.sparse_vectors.keys()
                    and (stamp is None or found.stamp is not None)
                    and (stamp is None or stamp.sparse is None or found.has_sparse_stamp)
                    and (stamp is None or stamp.late is None or found.late_stamp is not None)
                )
            )
        if stamp is not None:
            check_is_stamped(stored)
        if is_new or stored.is_empty:
            await self.index(stored, options.indexes)
            if options.indexing != "on":
                await self._index_later(stored)
        await self.index_parents(stored, chunked=vectors.chunked)
        await self.io.compute(self.selection.remember, stored, vectors)

    async def _index_later(self, stored: StoredCollection) -> None:
        """Turn the index off, and leave a mark that says so to whoever comes later."""
        is_off = stored.bulk is None and stored.indexing_threshold == 0  # by somebody's own choice
        if is_off or not self.io.engine.indexes:
            return
        mark = self.bulk = stored.bulk or BulkMark(stored.indexing_threshold or INDEXING_THRESHOLD)
        await self._set_threshold(0, mark.metadata())

    async def index_now(self) -> None:
        """Turn the index on again if the mark says that it is off."""
        if self.bulk is not None:
            await self._set_threshold(self.bulk.indexing_threshold, {BULK_KEY: None})
            self.bulk = None

    async def _set_threshold(self, threshold: int, metadata: dict[str, Any]) -> None:
        await self.requests.send(
            self._client.update_collection,
            self.name,
            optimizers_config=models.OptimizersConfigDiff(indexing_threshold=threshold),
            metadata=metadata,
            timeout=self.requests.defining_timeout,
        )

    async def shard_keys(self) -> list[models.ShardKey]:
        """Return the keys of the collection's shards, in a collection with custom sharding."""
        found = await self.requests.send(self._client.collection_cluster_info, self.name)
        keys = [shard.shard_key for shard in found.local_shards]
        keys += [shard.shard_key for shard in found.remote_shards]
        return list(dict.fromkeys(key for key in keys if key is not None))

    async def index_parents(self, stored: StoredCollection, *, chunked: bool | None = None) -> None:
        """Let a server find and delete a document's chunks without reading every payload.

        Args:
            stored: the collection.
            chunked: whether its documents are stored in chunks; as its stamp says by default.
        """
        if not (stored.chunked if chunked is None else chunked):
            return
        await self.index(stored, {PARENT_FIELD: models.PayloadSchemaType.KEYWORD})

    async def index(
        self, stored: StoredCollection, fields: Mapping[str, models.PayloadFieldSchema]
    ) -> None:
        """Create the indexes of payload fields that the collection lacks, if the engine has any.

        Args:
            stored: the collection.
            fields: the kind of each field's index.
        """
        if not self.io.engine.payload_index:
            return
        for field, schema in fields.items():
            if field not in stored.indexed:
                await self.requests.define(
                    self._client.create_payload_index,
                    partial(self._has_index, field),
                    self.name,
                    field,
                    schema,
                    timeout=self.requests.defining_timeout,
                )

    async def page(
        self,
        place: Place,
        shard_keys: Sequence[models.ShardKey | None],
        limit: int,
        **options: Any,
    ) -> Page:
        """Read a page of the points, shard key by shard key.

        Args:
            place: where it begins.
            shard_keys: all shard keys; ``[None]`` without any.
            limit: number of points at most.
            options: those of the client's ``scroll``.
        """
        key = shard_keys[place.shard]
        records, offset = await self.requests.page(
            limit, offset=place.offset, shard_key_selector=key, **options
        )
        following = None
        if offset is not None:
            following = Place(place.shard, offset)
        elif place.shard + 1 < len(shard_keys):
            following = Place(place.shard + 1)
        return Page(records, key, following)

    async def count(self, shard_keys: Sequence[models.ShardKey | None] = (None,)) -> int:
        """Count the points, those with the same id under two shard keys as two."""
        return sum([await self.requests.count(shard_key_selector=key) for key in shard_keys])

    async def set_alias(self, alias: str) -> None:
        """Let an alias point to the collection, wherever it has pointed before."""
        create = models.CreateAlias(collection_name=self.name, alias_name=alias)
        operations: list[models.AliasOperations] = [
            models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)),
            models.CreateAliasOperation(create_alias=create),
        ]
        await self.requests.define(
            self._client.update_collection_aliases,
            partial(self._has_alias, alias),
            operations,
            timeout=self.requests.defining_timeout,
        )

    async def aliases(self) -> list[str]:
        """Return the aliases that point to the collection."""
        known = await self.requests.send(self._client.get_collection_aliases, self.name)
        return [found.alias_name for found in known.aliases]

    async def _has_alias(self, alias: str) -> bool:
        return alias in await self.aliases()

    async def _up_to_date(self, stored: StoredCollection) -> StoredCollection:
        """Read the collection again behind all that others have sent to it, if that matters.

        Only an empty collection gets a stamp. One whose points still wait in a server's queue looks
        empty by every count, but a deletion that waits gets behind them; it deletes nothing.
        """
        if stored.stamp is not None or not stored.is_empty:
            return stored
        nothing = models.HasIdCondition(has_id=[str(uuid.uuid4())])
        # a filter goes to every shard, an id to one of them
        selector = models.FilterSelector(filter=models.Filter(must=[nothing]))
        keys: Sequence[models.ShardKey | None] = [None]
        if stored.has_custom_sharding:
            keys = await self.shard_keys()
        for key in keys:
            await self.requests.delete(selector, shard_key_selector=key)
        return await self.read()

    async def read_until(self, is_right: Callable[[StoredCollection], bool]) -> StoredCollection:
        """Read the collection, and again for a moment while another node may answer from before.

        Return what was read last, right or not.
        """
        tries = 0
        while True:
            stored = await self.read()
            if is_right(stored) or not self.requests.is_settling:
                return stored
            tries += 1
            await self.io.sleep(SOON.seconds(tries))

    async def _is_stamped(self, stamp: Stamp) -> bool:
        return (await self.read()).stamp == stamp

    async def _has_sparse(self, vector_name: str) -> bool:
        return vector_name in (await self.read()).sparse_vectors

    async def _has_index(self, field: str) -> bool:
        return field in (await self.read()).indexed

    async def _has_shard(self, key: models.ShardKey) -> bool:
        return key in await self.shard_keys()

    async def create(
        self, arguments: Mapping[str, Any], shard_keys: Sequence[models.ShardKey]
    ) -> None:
        """Create the collection with its shards.

        Run it to completion, because a collection without its shards must not stay behind.

        Args:
            arguments: those of ``create_collection`` besides the name.
            shard_keys: keys of the shards to create.

        Raises:
            InputError: if its sharding cannot be used.
        """
        is_ours = True

        async def is_done() -> bool:
            # another process may be faster, or the answer to an earlier try be lost
            nonlocal is_ours
            is_ours = not (there := await self.requests.exists())
            return there

        await self.requests.define(
            self._client.create_collection,
            is_done,
            self.name,
            **arguments,
            timeout=self.requests.defining_timeout,
        )
        # local databases ignore what only a cluster has
        keys = shard_keys if self.io.engine.copies else []
        try:
            for key in keys:
                await self._create_shard(key)
        except BaseException:
            # what is without shards cannot be used, and fails in other ways than by saying so
            if is_ours:
                with suppress(*self.io.engine.refusals, ServerUnavailableError):
                    if (await self.read()).is_empty:
                        await self.requests.send(self._client.delete_collection, self.name)
            raise

    async def create_missing_shards(
        self, stored: StoredCollection, selector: models.ShardKeySelector | None
    ) -> None:
        """Create the shards of a selector that an existing collection lacks.

        Raises:
            InputError: if its sharding cannot be used.
        """
        wanted = stored.shard_keys(selector)
        if not wanted:
            return
        there = await self.shard_keys()
        for key in wanted:
            if key not in there:
                await self._create_shard(key)

    async def _create_shard(self, key: models.ShardKey) -> None:
        create, is_done = self._client.create_shard_key, partial(self._has_shard, key)
        try:
            await self.requests.define(create, is_done, self.name, key)
        except self.io.engine.refusals as error:
            if not is_single_node(error):
                raise
            raise InputError(
                f"collection {self.name!r} cannot have the shard key {key!r}: the server is a "
                "single node, and only a cluster has custom sharding. Omit sharding_method and "
                "shard_key_selector"
            ) from error.__cause__

    async def _add_vector(
        self, stored: StoredCollection, vector_name: str, config: models.SparseVectorNameConfig
    ) -> None:
        """Add a sparse vector to an existing collection, if the server supports it."""
        try:
            await self.requests.define(
                self._client.create_vector_name,
                partial(self._has_sparse, vector_name),
                self.name,
                vector_name,
                config,
                timeout=self.requests.defining_timeout,
            )
        except PermissionRefusal:
            raise
        except self.io.engine.refusals as error:
            raise CollectionMismatchError(
                f"collection {self.name!r} has no sparse vector {vector_name!r}, and the server "
                f"refused to add it ({error}); upgrade to Qdrant 1.18 or newer, use another "
                "collection name and let add() create the collection, or call "
                "set_sparse_model(None)",
                expected={"sparse vector": vector_name},
                found={"sparse vectors": sorted(stored.sparse_vectors)},
            ) from error
        if not stored.is_empty:
            logger.warning(
                "collection %r has sparse vectors from now on; documents stored earlier have none "
                "and are found by their dense vectors alone until they are added again",
                self.name,
            )
