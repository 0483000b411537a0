"""Migration of a collection's documents to another model, in another collection."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from qdrant_client import models

from qdrant_embed.collection.collection import Collection
from qdrant_embed.collection.encoders import Encoder, adapt
from qdrant_embed.collection.options import CollectionOptions, checked_options
from qdrant_embed.collection.selection import EncoderSelection
from qdrant_embed.collection.stored import StoredCollection
from qdrant_embed.collection.vectors import CollectionVectors
from qdrant_embed.encoder.interfaces import DenseEncoder
from qdrant_embed.encoder.long_texts.overflow import OverflowOptions
from qdrant_embed.encoder.text import TextEmbedding
from qdrant_embed.errors import CollectionMismatchError, InputError, check_str, check_whole
from qdrant_embed.flows.progress import ProgressOption, Reporter


@dataclass(frozen=True)
class MigrationOptions:
    """The options of one `migrate_model`, which describes them."""

    new_model: str | os.PathLike[str] | DenseEncoder
    new_collection_name: str
    alias: str | None
    batch_size: int
    progress: ProgressOption
    collection_options: CollectionOptions | None

    def __post_init__(self) -> None:
        check_whole("batch_size", self.batch_size, 1)
        checked_options(self.collection_options)
        if self.alias is not None:
            check_str("alias", self.alias)
        if self.alias == self.new_collection_name:
            raise InputError(
                f"alias {self.alias!r} is the name of the new collection itself; omit alias"
            )

    def selection(self, old: StoredCollection) -> EncoderSelection:
        """Return a selection of the new model, which is not loaded yet.

        A model by name handles long texts as the old collection does.

        Raises:
            InputError: if `new_model` is not a model, or splits documents while the old collection
                has one point per document.
        """
        new_model, stamp = self.new_model, old.stamp
        encoder: Encoder
        if by_name := isinstance(new_model, str | os.PathLike):
            encoder = adapt(TextEmbedding(new_model, lazy_load=True))
        else:
            encoder = adapt(new_model)
        if stamp is not None and stamp.overflow is not None and (by_name or old.chunked):
            overflow = OverflowOptions(stamp.overflow, stamp.overlap or 0)
            encoder = encoder.with_overflow(overflow)
        elif encoder.splits:
            raise InputError(
                f"collection {old.name!r} has one point for each document, and migrate_model does "
                "not split points; add the documents to a new collection to store them in chunks"
            )
        selection = EncoderSelection()
        selection.choose(encoder)
        return selection


async def migrate(old: Collection, options: MigrationOptions) -> int:
    """Migrate a collection and return the number of documents in the new one.

    Args:
        old: the collection to read. If its selection, the client's, has no sparse model, the new
            collection gets the sparse model of the old one.
        options: the options of the migration.

    Raises:
        As `migrate_model` does.
    """
    if options.new_collection_name == old.name:
        raise InputError(
            f"new_collection_name is the collection's own name {old.name!r}; pass another one, "
            "because the documents are written to a new collection"
        )
    return await _Migration(old, options).run()


@dataclass(frozen=True)
class _Page:
    """A page of the old collection, and its points that the new one lacks or has changed."""

    documents: int
    changed: Sequence[models.Record]
    next_offset: Any


class _Migration:
    def __init__(self, old: Collection, options: MigrationOptions) -> None:
        self._old, self._options = old, options
        self._new = old.sibling(options.new_collection_name, EncoderSelection())
        self._client, self._io = old.requests.client, old.io

    async def run(self) -> int:
        options = self._options
        await self._check_alias()
        old = await self._old.read()
        selection = await self._io.compute(options.selection, old)
        self._new = new = self._old.sibling(options.new_collection_name, selection)
        sparse = self._old.selection.current_sparse
        if sparse is None:
            sparse = await self._io.compute(selection.followed_sparse, old)
        if sparse is not None:
            selection.choose_sparse(sparse)
        vectors = await new.vectors_for_add()
        if vectors.chunked != old.chunked:
            if await new.requests.exists():
                raise CollectionMismatchError(
                    f"collection {new.name!r} does not handle long documents as {old.name!r} does; "
                    "pass the name of a new collection",
                    expected={"overflow": old.stamp.overflow if old.stamp else None},
                    found={"chunked": vectors.chunked},
                )
            vectors = replace(vectors, chunked=old.chunked)  # a custom encoder does not split
        total = await self._old.requests.count()
        encoder = vectors.dense.encoder.counting()
        with Reporter(options.progress, new.name, total, encoder) as reporter:
            await new.prepare(vectors, options.collection_options or CollectionOptions())
            await self._move(vectors.with_encoder(encoder), reporter)
        count = await self._checked_count()
        if options.alias is not None:
            await self._switch(options.alias)
            self._old.selection.recent.forget(options.alias)
        return count

    async def _move(self, vectors: CollectionVectors, reporter: Reporter) -> None:
        """Encode each page while the one before is stored and the next one is read."""
        done = unchanged = 0
        reporter.report(done)
        page = await self._page(None)
        coming = self._io.start(partial(self._points, vectors, page.changed))
        try:
            while True:
                following = None
                if page.next_offset is not None:
                    following = await self._page(page.next_offset)
                points = await coming.result()
                if following is not None:
                    coming = self._io.start(partial(self._points, vectors, following.changed))
                if points:
                    await self._new.requests.upsert(points, lambda _: None)
                done += page.documents
                unchanged += page.documents - len(page.changed)
                reporter.report(done, unchanged)
                if following is None:
                    return
                page = following
        except BaseException:
            vectors.dense.encoder.cancel()
            await coming.abandon()
            raise

    async def _check_alias(self) -> None:
        alias = self._options.alias
        if alias is None:
            return
        known = await self._new.requests.send(self._client.get_collections)
        if alias in {collection.name for collection in known.collections}:
            raise InputError(
                f"alias {alias!r} is the name of a collection and cannot point to another one; "
                "migrate without alias, verify the new collection, delete the one named "
                f"{alias!r}, then create the alias"
            )

    async def _page(self, offset: Any) -> _Page:
        records, next_offset = await self._old.requests.send(
            self._client.scroll,
            self._old.name,
            limit=self._options.batch_size,
            offset=offset,
            with_payload=True,
        )
        ids = [record.id for record in records]
        migrated = await self._new.requests.send(self._client.retrieve, self._new.name, ids)
        payloads = {record.id: record.payload for record in migrated}
        changed = [record for record in records if payloads.get(record.id) != record.payload]
        return _Page(len(records), changed, next_offset)

    def _points(
        self, vectors: CollectionVectors, records: Sequence[models.Record]
    ) -> list[models.PointStruct]:
        if not records:
            return []
        texts = [self._text(record) for record in records]
        encoded = self._encode_chunks if vectors.chunked else self._encode
        return [
            models.PointStruct(id=record.id, vector=vector, payload=record.payload)
            for record, vector in zip(records, encoded(vectors, records, texts), strict=True)
        ]

    def _encode(
        self, vectors: CollectionVectors, records: Sequence[models.Record], texts: Sequence[str]
    ) -> list[models.VectorStruct]:
        try:
            vectors.dense.encoder.check_lengths(texts)
            return vectors.encode(texts)
        except InputError as error:
            if error.index is None:
                raise
            raise InputError(
                f"point {records[error.index].id} of collection {self._old.name!r} cannot be "
                f"encoded again: {error}"
            ) from error

    def _encode_chunks(
        self, vectors: CollectionVectors, records: Sequence[models.Record], texts: Sequence[str]
    ) -> list[models.VectorStruct]:
        chunks = vectors.dense.encoder.chunks(texts)
        for record, parts in zip(records, chunks, strict=True):
            if len(parts) > 1:
                raise InputError(
                    f"point {record.id} of collection {self._old.name!r} is a chunk that, with its "
                    f"prefix, exceeds the limit of {vectors.dense.encoder.name}; add the documents "
                    "themselves to a new collection, which splits them into its own chunks"
                )
        return vectors.complete(texts, [chunk.vector for (chunk,) in chunks])

    def _text(self, record: models.Record) -> str:
        text = self._old.codec.text(record.payload)
        if not isinstance(text, str):
            raise InputError(
                f"point {record.id} of collection {self._old.name!r} has no text under "
                f"{self._old.codec.document_key!r} in its payload, so it cannot be encoded again; "
                "set the client's document_key to the key of its texts, or delete the point"
            )
        return text

    async def _checked_count(self) -> int:
        old = await self._old.requests.count()
        new = await self._new.requests.count()
        if old != new:
            raise CollectionMismatchError(
                f"collection {self._new.name!r} has {new} points, but {self._old.name!r} has "
                f"{old}, because the new collection had other points before, or the old one has "
                "changed during the migration. No alias was set; run migrate_model() again, or "
                "pass another new_collection_name",
                expected={"points": old},
                found={"points": new},
            )
        return new

    async def _switch(self, alias: str) -> None:
        create = models.CreateAlias(collection_name=self._new.name, alias_name=alias)
        operations: list[models.AliasOperations] = [
            models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)),
            models.CreateAliasOperation(create_alias=create),
        ]
        await self._new.requests.send(self._client.update_collection_aliases, operations)
