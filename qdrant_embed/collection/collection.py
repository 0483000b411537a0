"""One collection, and how a client reads it and prepares it for documents and queries."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from qdrant_client import models

from qdrant_embed.collection.options import CollectionOptions
from qdrant_embed.collection.payload import PARENT_FIELD, PayloadCodec
from qdrant_embed.collection.selection import EncoderSelection
from qdrant_embed.collection.stored import StoredCollection, check_is_stamped, read_collection
from qdrant_embed.collection.vectors import CollectionVectors
from qdrant_embed.engines.server import is_transient
from qdrant_embed.errors import CollectionMismatchError
from qdrant_embed.flows.io import Io
from qdrant_embed.flows.requests import CollectionRequests

logger = logging.getLogger(__name__)


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
    """

    def __init__(
        self, requests: CollectionRequests, selection: EncoderSelection, codec: PayloadCodec
    ) -> None:
        self.requests, self.selection, self.codec = requests, selection, codec
        self._client = requests.client

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
        return read_collection(
            self.name, await self.requests.send(self._client.get_collection, self.name)
        )

    async def vectors_for_query(self) -> CollectionVectors:
        """Read the collection and select the vectors to search in.

        Raises:
            CollectionMismatchError: if the chosen encoders do not fit, or none can be found.
            ModelError: if a model cannot be found, downloaded or read.
        """
        stored = await self.read()
        return await self.io.compute(self.selection.for_query, stored)

    async def vectors_for_add(self, texts: Iterable[str] = ()) -> CollectionVectors:
        """Select the vectors of new documents; the collection need not exist yet.

        Args:
            texts: the texts known from the start, whose lengths are checked.

        Raises:
            CollectionMismatchError: if the chosen encoders do not fit, or none can be found.
            InputError: if a text is too long for an encoder with ``overflow="error"``.
            ModelError: if a model cannot be found, downloaded or read.
        """
        existing = await self.read() if await self.requests.exists() else None
        vectors = await self.io.compute(self.selection.for_add, existing)
        await self.io.compute(vectors.dense.encoder.check_lengths, texts)
        return vectors

    async def prepare(
        self,
        vectors: CollectionVectors,
        options: CollectionOptions,
        shard_keys: models.ShardKeySelector | None = None,
    ) -> None:
        """Prepare the collection for points with `vectors`.

        It is created if it does not exist, stamped if it is empty, and given the sparse vector and
        the index that it lacks.

        Raises:
            CollectionMismatchError: if the vectors do not fit the collection, or the server does
                not support them.
        """
        if not await self.requests.exists():
            await self._create(vectors, options, shard_keys)
        stored = await self.read()
        missing = await self.io.compute(vectors.missing_sparse, stored)
        for vector_name, config in missing.items():
            await self._add_vector(stored, vector_name, config)
        stamp = await self.io.compute(vectors.missing_stamp, stored)
        if stamp is not None:
            await self.requests.send(
                self._client.update_collection, self.name, metadata=stamp.metadata()
            )
        if stamp is not None or missing:
            stored = await self.read()
        if stamp is not None:
            check_is_stamped(stored)
        if vectors.chunked:
            await self._index_parents(stored)
        await self.io.compute(self.selection.remember, stored, vectors)

    async def _create(
        self,
        vectors: CollectionVectors,
        options: CollectionOptions,
        shard_keys: models.ShardKeySelector | None,
    ) -> None:
        arguments = await self.io.compute(vectors.creation, options)
        try:
            await self.requests.send(self._client.create_collection, self.name, **arguments)
        except self.io.engine.refusals:
            if not await self.requests.exists():
                raise
            # another process was faster, or the response to an earlier attempt was lost
        for key in options.shard_keys(shard_keys):
            await self._create_shards(key)

    async def _create_shards(self, key: models.ShardKey) -> None:
        try:
            await self.requests.send(self._client.create_shard_key, self.name, key)
        except self.io.engine.refusals:
            cluster = await self.requests.send(self._client.collection_cluster_info, self.name)
            keys = [shard.shard_key for shard in cluster.local_shards]
            keys += [shard.shard_key for shard in cluster.remote_shards]
            if key not in keys:
                raise

    async def _add_vector(
        self, stored: StoredCollection, vector_name: str, config: models.SparseVectorNameConfig
    ) -> None:
        """Add a sparse vector to an existing collection, if the server supports it."""
        try:
            await self.requests.send(
                self._client.create_vector_name, self.name, vector_name, config
            )
        except self.io.engine.refusals as error:
            stored = await self.read()
            if vector_name in stored.sparse_vectors:  # another process was faster
                return
            if is_transient(error):
                raise
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

    async def _index_parents(self, stored: StoredCollection) -> None:
        """Index the field that names a chunk's document, by which a server groups and deletes."""
        if PARENT_FIELD in stored.indexed or not self.io.engine.payload_index:
            return
        await self.requests.send(
            self._client.create_payload_index,
            self.name,
            PARENT_FIELD,
            models.PayloadSchemaType.KEYWORD,
        )
