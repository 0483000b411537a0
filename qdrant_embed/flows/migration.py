"""A collection's documents encoded anew, by another model, into another collection."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from qdrant_client import models

from qdrant_embed.collection.options import CollectionOptions, checked_options
from qdrant_embed.collection.selection import EncoderChoice
from qdrant_embed.collection.stored import StoredCollection
from qdrant_embed.collection.vectors import Target
from qdrant_embed.encoder.interfaces import DenseEncoder, check_encoder
from qdrant_embed.encoder.long_texts.overflow import OverflowOptions
from qdrant_embed.encoder.text import TextEmbedding, variant
from qdrant_embed.errors import CollectionMismatchError, InputError, check_str, check_whole
from qdrant_embed.flows.flow import Flow, Request, Wait, Work
from qdrant_embed.flows.flows import Flows
from qdrant_embed.ingest.documents import PendingPoint
from qdrant_embed.ingest.progress import ProgressOption, Reporter


@dataclass(frozen=True)
class Migration:
    """What is to be done; the names are those of ``migrate_model``."""

    collection_name: str
    new_model: str | os.PathLike[str] | DenseEncoder
    new_collection_name: str
    alias: str | None
    batch_size: int
    max_retries: int
    collection_options: CollectionOptions | None
    progress: ProgressOption
    document_key: str

    def __post_init__(self) -> None:
        check_whole("batch_size", self.batch_size, 1)
        check_whole("max_retries", self.max_retries, 0)
        checked_options(self.collection_options)
        if self.new_collection_name == self.collection_name:
            raise InputError(
                f"new_collection_name is {self.collection_name!r} as well: the documents go into "
                "a new collection"
            )
        if self.alias is not None:
            check_str("alias", self.alias)
        if self.alias == self.new_collection_name:
            raise InputError(f"alias {self.alias!r} is the new collection's own name: leave it out")

    def encoders(self, old: StoredCollection) -> EncoderChoice:
        """The choice of the new model, which is not loaded yet.

        A model by name treats long texts as the old collection does.

        Raises:
            InputError: it is no model; or it splits documents, and the old collection does not.
        """
        given, choice, stamp = self.new_model, EncoderChoice(), old.stamp
        encoder: DenseEncoder
        if by_name := isinstance(given, str | os.PathLike):
            encoder = TextEmbedding(given, lazy_load=True)
        else:
            encoder = check_encoder(given)
        if isinstance(encoder, TextEmbedding):
            if stamp is not None and stamp.overflow is not None and (by_name or old.chunked):
                overflow = OverflowOptions(stamp.overflow, stamp.overlap or 0)
                encoder = variant(encoder, overflow=overflow)
            elif encoder.overflow == "chunk":
                raise InputError(
                    f"collection {old.name!r} has one point for each document, and migrate_model "
                    "keeps points as they are: add the documents to a new collection to have "
                    "them in chunks"
                )
        choice.choose(encoder)
        return choice


@dataclass(frozen=True)
class _Page:
    """Some of the old collection's documents, and those that the new one has not, or not so."""

    documents: int
    changed: Sequence[models.Record]
    next_offset: Any


class MigrationFlow:
    """The steps of one migration for a client whose methods give results or coroutines.

    `chosen` is what the client uses: without a sparse model in it, the old collection's own stays.
    """

    def __init__(self, client: Any, chosen: EncoderChoice, migration: Migration) -> None:
        self._client = client
        self._chosen = chosen
        self._migration = migration
        self._encoders = EncoderChoice()

    def migrate(self) -> Flow[int]:
        """The number of documents in the new collection."""
        asked = self._migration
        yield from self._check_alias()
        old = yield from self._flows(asked.collection_name).read()
        self._encoders = yield Work(lambda: asked.encoders(old))
        sparse = self._chosen.current_sparse
        if sparse is None:
            sparse = yield Work(lambda: self._encoders.followed_sparse(old))
        if sparse is not None:
            self._encoders.choose_sparse(sparse)
        new = self._flows()
        target = yield from new.open(())
        if target.chunked != old.chunked:
            if (yield from new.exists()):
                raise CollectionMismatchError(
                    f"collection {asked.new_collection_name!r} does not treat long documents as "
                    f"{asked.collection_name!r} does: name a new collection",
                    expected={"overflow": old.stamp.overflow if old.stamp else None},
                    found={"chunked": target.chunked},
                )
            target = replace(target, chunked=old.chunked)  # with an encoder of a user's own
        total = yield from self._count(asked.collection_name)
        encoding = target.counting()
        options = asked.collection_options or CollectionOptions()
        with Reporter(asked.progress, asked.new_collection_name, total, encoding) as reporter:
            yield from new.prepare(target, options, None)
            yield from self._move(encoding, reporter)
        count = yield from self._checked_count()
        if asked.alias is not None:
            yield from self._switch(asked.alias)
            self._chosen.targets.forget(asked.alias)
        return count

    def _move(self, target: Target, reporter: Reporter) -> Flow[None]:
        """Has each page encoded while the one before is stored and the next is read."""
        done = unchanged = 0
        pool = ThreadPoolExecutor(1, thread_name_prefix="qdrant-embed-migrate")
        try:
            reporter.report(done)
            first = yield from self._page(None)
            coming = pool.submit(self._points, target, first.changed)
            page: _Page | None = first
            while page is not None:
                following = None
                if page.next_offset is not None:
                    following = yield from self._page(page.next_offset)
                points = yield Wait(coming)
                if following is not None:
                    coming = pool.submit(self._points, target, following.changed)
                if points:
                    yield from self._flows().store(
                        points, lambda _: None, wait=True, shard_key_selector=None
                    )
                done += page.documents
                unchanged += page.documents - len(page.changed)
                reporter.report(done, unchanged)
                page = following
        finally:
            target.call_off()
            pool.shutdown(wait=False, cancel_futures=True)

    def _check_alias(self) -> Flow[None]:
        alias = self._migration.alias
        if alias is None:
            return
        known = yield from self._flows().tried(Request(self._client.get_collections))
        if alias in {collection.name for collection in known.collections}:
            raise InputError(
                f"alias {alias!r} is the name of a collection, and cannot lead to another one: "
                "delete that collection when the new one is seen to be right, then create the alias"
            )

    def _page(self, offset: Any) -> Flow[_Page]:
        asked, flows = self._migration, self._flows()
        read = Request(
            lambda: self._client.scroll(
                asked.collection_name, limit=asked.batch_size, offset=offset, with_payload=True
            )
        )
        records, next_offset = yield from flows.tried(read)
        ids = [record.id for record in records]
        look_up = Request(lambda: self._client.retrieve(asked.new_collection_name, ids))
        there = yield from flows.tried(look_up)
        payloads = {record.id: record.payload for record in there}
        changed = [record for record in records if payloads.get(record.id) != record.payload]
        return _Page(len(records), changed, next_offset)

    def _points(self, target: Target, records: Sequence[models.Record]) -> list[models.PointStruct]:
        documents = [self._document(*item) for item in enumerate(records)]
        if not target.chunked:
            try:
                return target.to_points(documents, self._key)
            except InputError as error:
                if error.index is None:
                    raise
                raise InputError(
                    f"point {documents[error.index].id} of collection "
                    f"{self._migration.collection_name!r} cannot be encoded anew: {error}"
                ) from error
        chunks = target.dense.chunks([document.text for document in documents])
        for document, parts in zip(documents, chunks, strict=True):
            if len(parts) > 1:
                raise InputError(
                    f"point {document.id} of collection {self._migration.collection_name!r} is a "
                    f"chunk longer than {target.dense.encoder.model_name} reads, with its prefix: "
                    "add the documents themselves to a new collection, with chunks of its own"
                )
        return target.points_of(documents, [chunk.vector for (chunk,) in chunks], self._key)

    def _document(self, position: int, record: models.Record) -> PendingPoint:
        payload, name = record.payload or {}, self._migration.collection_name
        text = payload.get(self._key)
        if not isinstance(text, str):
            raise InputError(
                f"point {record.id} of collection {name!r} has no text under {self._key!r} in its "
                "payload, so that it cannot be encoded anew: set the client's document_key to "
                "where its texts are, or delete the point"
            )
        metadata = {key: value for key, value in payload.items() if key != self._key}
        own = record.id if isinstance(record.id, int) else str(record.id)
        # an id of another form is in the payload, and so in the metadata
        return PendingPoint(own, own, text, metadata, position)

    def _count(self, name: str) -> Flow[int]:
        request = Request(lambda: self._client.count(name, exact=True))
        count: int = (yield from self._flows().tried(request)).count
        return count

    def _checked_count(self) -> Flow[int]:
        asked = self._migration
        old = yield from self._count(asked.collection_name)
        new = yield from self._count(asked.new_collection_name)
        if old != new:
            raise CollectionMismatchError(
                f"collection {asked.new_collection_name!r} has {new} points, but "
                f"{asked.collection_name!r} has {old}: it held others before, or the old one has "
                "changed meanwhile. Everything else is done; nothing leads to the new one yet",
                expected={"points": old},
                found={"points": new},
            )
        return new

    def _switch(self, alias: str) -> Flow[None]:
        create = models.CreateAlias(
            collection_name=self._migration.new_collection_name, alias_name=alias
        )
        request = Request(
            lambda: self._client.update_collection_aliases(
                [
                    models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)),
                    models.CreateAliasOperation(create_alias=create),
                ]
            )
        )
        yield from self._flows().tried(request)

    def _flows(self, name: str | None = None) -> Flows:
        """The flows of one collection, the new one by default."""
        asked = self._migration
        return Flows(
            self._client, self._encoders, name or asked.new_collection_name, asked.max_retries
        )

    @property
    def _key(self) -> str:
        return self._migration.document_key
