"""A collection's documents encoded anew, by another model, into another collection."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qdrant_client import models

from qdrant_embed.documents import PendingPoint
from qdrant_embed.encoder.interfaces import DenseEncoder, SparseEncoder, check_encoder
from qdrant_embed.encoder.text import TextEmbedding
from qdrant_embed.encoders import EncoderChoice
from qdrant_embed.errors import CollectionMismatchError, InputError, check_whole
from qdrant_embed.fields import Target
from qdrant_embed.flows import Flow, Flows, Request, Work
from qdrant_embed.options import CollectionOptions


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
    document_key: str

    def __post_init__(self) -> None:
        check_whole("batch_size", self.batch_size, 1)
        check_whole("max_retries", self.max_retries, 0)
        if self.new_collection_name == self.collection_name:
            raise InputError(
                f"new_collection_name is {self.collection_name!r} as well: the documents go into "
                "a new collection"
            )

    def encoders(self) -> EncoderChoice:
        """The choice of the new model, which is not loaded yet."""
        given, choice = self.new_model, EncoderChoice()
        if isinstance(given, str | os.PathLike):
            choice.choose(TextEmbedding(given, lazy_load=True))
        else:
            choice.choose(check_encoder(given))
        return choice


class MigrationFlow:
    """The steps of one migration for a client whose methods give results or coroutines.

    `sparse` is what the client has chosen; without it the old collection's own sparse model stays.
    """

    def __init__(self, client: Any, sparse: SparseEncoder | None, migration: Migration) -> None:
        self._client = client
        self._sparse = sparse
        self._migration = migration
        self._encoders = EncoderChoice()

    def migrate(self) -> Flow[int]:
        """The number of documents in the new collection."""
        asked = self._migration
        yield from self._check_alias()
        self._encoders = yield Work(asked.encoders)
        old = yield from self._flows(asked.collection_name).read()
        sparse = self._sparse
        if sparse is None:
            sparse = yield Work(lambda: self._encoders.followed_sparse(old))
        if sparse is not None:
            self._encoders.choose_sparse(sparse)
        new = self._flows()
        target = yield from new.open(())
        yield from new.prepare(target, asked.collection_options, None)
        offset = None
        while True:
            records, offset = yield from self._page(offset)
            changed = yield from self._changed(records)
            if changed:
                points = yield Work(lambda changed=changed: self._points(target, changed))  # type: ignore[misc] # mypy types no default of a lambda
                yield from new.store(
                    points,
                    lambda _: None,
                    wait=True,
                    shard_key_selector=None,
                )
            if offset is None:
                break
        count = yield from self._checked_count()
        if asked.alias is not None:
            yield from self._switch(asked.alias)
        return count

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

    def _page(self, offset: Any) -> Flow[tuple[list[models.Record], Any]]:
        asked = self._migration
        request = Request(
            lambda: self._client.scroll(
                asked.collection_name, limit=asked.batch_size, offset=offset, with_payload=True
            )
        )
        page: tuple[list[models.Record], Any] = yield from self._flows().tried(request)
        return page

    def _changed(self, records: Sequence[models.Record]) -> Flow[list[models.Record]]:
        """Those that the new collection has not, or not so."""
        asked = self._migration
        ids = [record.id for record in records]
        request = Request(lambda: self._client.retrieve(asked.new_collection_name, ids))
        there = yield from self._flows().tried(request)
        payloads = {record.id: record.payload for record in there}
        return [record for record in records if payloads.get(record.id) != record.payload]

    def _points(self, target: Target, records: Sequence[models.Record]) -> list[models.PointStruct]:
        return target.to_points([self._document(*item) for item in enumerate(records)], self._key)

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

    def _checked_count(self) -> Flow[int]:
        asked = self._migration
        counts: list[int] = []
        for name in (asked.collection_name, asked.new_collection_name):
            request = Request(lambda name=name: self._client.count(name, exact=True))  # type: ignore[misc] # likewise
            counts.append((yield from self._flows().tried(request)).count)
        old, new = counts
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
        yield Request(
            lambda: self._client.update_collection_aliases(
                [
                    models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)),
                    models.CreateAliasOperation(create_alias=create),
                ]
            )
        )

    def _flows(self, name: str | None = None) -> Flows:
        """The flows of one collection, the new one by default."""
        asked = self._migration
        return Flows(
            self._client, self._encoders, name or asked.new_collection_name, asked.max_retries
        )

    @property
    def _key(self) -> str:
        return self._migration.document_key
