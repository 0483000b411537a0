"""`migrate_model` of both clients."""

from __future__ import annotations

import os

from qdrant_embed.collection.options import CollectionOptions
from qdrant_embed.collection.settings import ModelSettings
from qdrant_embed.encoder.interfaces import DenseEncoder
from qdrant_embed.engines.retries import MAX_RETRIES
from qdrant_embed.flows.migration import Migration, MigrationFlow
from qdrant_embed.flows.steps import AsyncSteps, Steps
from qdrant_embed.ingest.progress import ProgressOption


class Migrator(ModelSettings, Steps):
    """`migrate_model`; mixed into the synchronous client."""

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
        """Encodes a collection's documents with another model into another collection; how many.

        Ids and payloads stay; so does the sparse model, unless `set_sparse_model` chose one. The
        old collection is only read. Run again, it encodes what is missing or has changed since.

        Args:
            collection_name: the old collection.
            new_model: as `set_model` takes it.
            new_collection_name: created where it does not exist.
            alias: leads to the new collection, once that is complete.
            batch_size: documents in one request.
            max_retries: as of `add`.
            progress: as of `add`, told after each `batch_size` documents.
            collection_options: as of `add`.

        Raises:
            InputError: an option cannot be used, or a point has no text.
            CollectionMismatchError: the new collection has another model, or other points.
            ModelError: the model cannot be found, fetched or read.
            MissingDependencyError: ``progress=True``, but tqdm is not installed.
        """
        migration = Migration(
            collection_name,
            new_model,
            new_collection_name,
            alias=alias,
            batch_size=batch_size,
            max_retries=max_retries,
            progress=progress,
            collection_options=collection_options,
            document_key=self.document_key,
        )
        flow = MigrationFlow(self, self._encoders, migration)
        return self._carry_out(flow.migrate())


class AsyncMigrator(ModelSettings, AsyncSteps):
    """The same for the asynchronous client."""

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
        """Encodes a collection's documents with another model into another collection; how many.

        Args and Raises are those of `QdrantClient.migrate_model`.
        """
        migration = Migration(
            collection_name,
            new_model,
            new_collection_name,
            alias=alias,
            batch_size=batch_size,
            max_retries=max_retries,
            progress=progress,
            collection_options=collection_options,
            document_key=self.document_key,
        )
        flow = MigrationFlow(self, self._encoders, migration)
        return await self._carry_out(flow.migrate())
