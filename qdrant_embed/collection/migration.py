"""Migration of a collection's documents to another model, in another collection."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np
from qdrant_client import models

from qdrant_embed.collection.collection import Collection, Place
from qdrant_embed.collection.copies import LookUps
from qdrant_embed.collection.encoders import Encoder, adapt
from qdrant_embed.collection.options import CollectionOptions, checked_options
from qdrant_embed.collection.selection import EncoderSelection, ModelPolicy
from qdrant_embed.collection.stored import StoredCollection
from qdrant_embed.collection.vectors import CollectionVectors
from qdrant_embed.encoder.interfaces import DenseEncoder, Vector
from qdrant_embed.encoder.long_texts.overflow import OverflowOptions
from qdrant_embed.encoder.text import TextEmbedding
from qdrant_embed.engines.names import check_collection_name, check_new_collection_name
from qdrant_embed.engines.points import Kept, Points
from qdrant_embed.errors import CollectionMismatchError, InputError, check_whole
from qdrant_embed.flows.progress import ProgressOption, Reporter

_CUSTOM = models.ShardingMethod.CUSTOM


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
        check_collection_name(self.new_collection_name, "new_collection_name")
        if self.alias is not None:
            check_collection_name(self.alias, "alias")
        if self.alias == self.new_collection_name:
            raise InputError(
                f"alias {self.alias!r} is the name of the new collection itself; omit alias"
            )

    def selection(self, old: StoredCollection, policy: ModelPolicy) -> EncoderSelection:
        """Return a selection of the new model, which is not loaded yet.

        A model by name handles long texts as the old collection does. `policy` is the client's.

        Raises:
            InputError: if `new_model` is not a model, or splits documents while the old collection
                has one point per document.
        """
        new_model, stamp = self.new_model, old.stamp
        encoder: Encoder
        if by_name := isinstance(new_model, str | os.PathLike):
            offline = policy.offline
            encoder = adapt(TextEmbedding(new_model, lazy_load=True, local_files_only=offline))
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
        selection = EncoderSelection(policy)
        selection.choose(encoder)
        return selection


async def migrate(old: Collection, options: MigrationOptions) -> int:
    """Migrate a collection and return the number of documents in the new one.

    Args:
        old: the collection to read. If its selection, the client's, has no sparse model, the new
            collection gets the sparse model of the old one; likewise the late-interaction model,
            unless ``set_late_model(None)`` turned it off.
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
    """A page of the old collection, and its points that the new one lacks or has changed.

    Those in `existing` are there, with other vectors than ours.
    """

    documents: int
    changed: Sequence[models.Record]
    existing: frozenset[Any]
    shard_key: models.ShardKey | None
    following: Place | None


class _Migration:
    def __init__(self, old: Collection, options: MigrationOptions) -> None:
        self._old, self._options = old, options
        self._new = old.sibling(options.new_collection_name, EncoderSelection(old.selection.policy))
        self._client, self._io = old.requests.client, old.io
        self._shard_keys: Sequence[models.ShardKey | None] = [None]
        self._look_ups = LookUps(self._new)
        self._has_other_vectors = False

    async def run(self) -> int:
        options = self._options
        old = await self._old.read()
        old.check_is_whole()
        await self._check_names()
        created = await self._check_shards(old)
        shard_keys = [key for key in self._shard_keys if key is not None] or None
        policy = self._old.selection.policy
        selection = await self._io.compute(options.selection, old, policy)
        self._new = new = self._old.sibling(options.new_collection_name, selection)
        self._look_ups = LookUps(new)
        sparse = self._old.selection.current_sparse
        if sparse is None:
            sparse = await self._io.compute(selection.followed_sparse, old)
        if sparse is not None:
            selection.choose_sparse(sparse)
        late = self._old.selection.current_late
        if late is None and self._old.selection.follows_late:
            late = await self._io.compute(selection.followed_late, old)
        if late is not None:
            selection.choose_late(late)
        vectors = await new.vectors_for_add((), created, shard_keys)
        if vectors.chunked != old.chunked:
            if await new.requests.exists():
                raise CollectionMismatchError(
                    f"collection {new.name!r} does not handle long documents as {old.name!r} does; "
                    "pass the name of a new collection",
                    expected={"overflow": old.stamp.overflow if old.stamp else None},
                    found={"chunked": vectors.chunked},
                )
            vectors = replace(vectors, chunked=old.chunked)  # a custom encoder does not split
        total = await self._old.count(self._shard_keys)
        encoder = vectors.dense.encoder.counting()
        counting = vectors.counting(encoder)
        with Reporter(options.progress, new.name, total, encoder) as reporter:
            self._old.requests.on_wait = new.requests.on_wait = reporter.show_note
            await new.prepare(vectors, created, shard_keys)
            self._has_other_vectors = new.has_other_vectors(vectors)
            await self._move(counting, reporter)
        counting.warn_of_no_terms(new.name)
        count = await self._checked_count()
        await new.requests.flush()
        if options.alias is not None:
            await self._new.set_alias(options.alias)
            self._old.selection.recent.forget(options.alias)
        return count

    async def _move(self, vectors: CollectionVectors, reporter: Reporter) -> None:
        """Encode each page while the one before is stored and the next one is read."""
        done = unchanged = 0
        reporter.report(done)
        page = await self._page(Place())
        coming = self._io.start(partial(self._points, vectors, page.changed))
        try:
            while True:
                following = None
                if page.following is not None:
                    following = await self._page(page.following)
                points = await coming.result()
                if following is not None:
                    coming = self._io.start(partial(self._points, vectors, following.changed))
                if points is not None:
                    await self._store(points, page)
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

    async def _store(self, points: Points, page: _Page) -> None:
        """Store the points of a page; vectors that are not ours stay, payloads are copies."""
        key, existing = page.shard_key, page.existing
        fresh = points.where(lambda point: point not in existing) if existing else points
        if len(fresh):
            await self._new.requests.upsert(fresh, lambda _: None, shard_key_selector=key)
        there = points.where(existing.__contains__)
        kept = dict.fromkeys(there.ids, Kept({}, overwrites=True))
        await self._new.requests.merge(there, kept, lambda _: None, shard_key_selector=key)

    async def _check_names(self) -> None:
        """Refuse names that lead to a wrong place, and an alias without the right to set it."""
        old, new, alias = self._old.name, self._new.name, self._options.alias
        known = await self._new.requests.send(self._client.get_aliases)
        named = {found.alias_name: found.collection_name for found in known.aliases}
        if named.get(new, new) == named.get(old, old):
            raise InputError(
                f"new_collection_name {new!r} and {old!r} are names of one collection, "
                f"{named.get(new, new)!r}: the documents go into a new collection"
            )
        if alias is None:
            return
        collections = await self._new.requests.send(self._client.get_collections)
        if alias in {collection.name for collection in collections.collections}:
            raise InputError(
                f"alias {alias!r} is the name of a collection and cannot point to another one; "
                "migrate without alias, verify the new collection, delete the one named "
                f"{alias!r}, then create the alias"
            )
        # a token that may write to both collections may yet not set an alias
        nothing = models.DeleteAlias(alias_name=f"qdrant-embed-{uuid.uuid4()}")
        await self._new.requests.send(
            self._client.update_collection_aliases,
            [models.DeleteAliasOperation(delete_alias=nothing)],
        )

    async def _check_shards(self, old: StoredCollection) -> CollectionOptions:
        """Find the shard keys to keep; return the options for a new collection that has them."""
        options = self._options.collection_options or CollectionOptions()
        method = options.sharding_method
        existing = await self._new.find()
        if existing is None:
            check_new_collection_name(self._new.name, "new_collection_name")
            has_keys = old.has_custom_sharding if method is None else method == _CUSTOM
        else:
            has_keys = existing.has_custom_sharding
        if has_keys != old.has_custom_sharding:
            with_keys, without = (old, self._new) if old.has_custom_sharding else (self._new, old)
            raise InputError(
                f"collection {with_keys.name!r} has custom sharding, and {without.name!r} has not: "
                "migrate_model keeps shard keys, and cannot choose or drop them. Use another "
                "new_collection_name, and omit sharding_method"
            )
        if not old.has_custom_sharding:
            return options
        self._shard_keys = await self._old.shard_keys()
        if not self._shard_keys:
            raise InputError(f"collection {old.name!r} has no shard, and nothing to migrate")
        return replace(options, sharding_method=_CUSTOM)

    async def _page(self, place: Place) -> _Page:
        # asked as one copy has it: what only some have counts, and is missing in the new one
        page = await self._old.page(
            place, self._shard_keys, self._options.batch_size, with_payload=True
        )
        found = await self._look_ups.changes(page.records, page.shard_key)
        kept: frozenset[Any] = found.existing if self._has_other_vectors else frozenset()
        return _Page(len(page.records), found.changed, kept, page.shard_key, page.following)

    def _points(
        self, vectors: CollectionVectors, records: Sequence[models.Record]
    ) -> Points | None:
        if not records:
            return None
        texts = [self._text(record) for record in records]
        encoded = self._encode_chunks if vectors.chunked else self._encode
        ids = [cast("str | int", record.id) for record in records]
        payloads = [record.payload or {} for record in records]
        return vectors.points(ids, payloads, texts, encoded(vectors, records, texts))

    def _encode(
        self, vectors: CollectionVectors, records: Sequence[models.Record], texts: Sequence[str]
    ) -> Vector:
        try:
            vectors.dense.encoder.check_lengths(texts)
            return vectors.dense.encoder.documents(texts)
        except InputError as error:
            if error.index is None:
                raise
            raise InputError(
                f"point {records[error.index].id} of collection {self._old.name!r} cannot be "
                f"encoded again: {error}"
            ) from error

    def _encode_chunks(
        self, vectors: CollectionVectors, records: Sequence[models.Record], texts: Sequence[str]
    ) -> Vector:
        chunks = vectors.dense.encoder.chunks(texts)
        for record, parts in zip(records, chunks, strict=True):
            if len(parts) > 1:
                raise InputError(
                    f"point {record.id} of collection {self._old.name!r} is a chunk that, with its "
                    f"prefix, exceeds the limit of {vectors.dense.encoder.name}; add the documents "
                    "themselves to a new collection, which splits them into its own chunks"
                )
        return np.stack([chunk.vector for (chunk,) in chunks])

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
        old = await self._old.count(self._shard_keys)
        new = await self._new.count(self._shard_keys)
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
