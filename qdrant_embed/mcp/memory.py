"""What agents store and find: texts with metadata, in collections that mcp-server-qdrant reads.

That server stores a text under ``document`` and all metadata under ``metadata``; this package's
`add` has the metadata beside the text. A collection is used in the way it was written, and a new
one in that server's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qdrant_embed.errors import CollectionNotFoundError, InputError
from qdrant_embed.mcp.settings import Settings

if TYPE_CHECKING:  # which take long to import, and are not needed to begin
    from qdrant_embed.serve.database import Collections

_NESTED = "metadata"


@dataclass(frozen=True)
class Found:
    """A text that was found.

    Attributes:
        id: its id.
        score: higher is nearer.
        text: the text.
        metadata: its metadata.
    """

    id: str | int
    score: float
    text: str
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class Listed:
    """A collection that agents can use.

    Attributes:
        name: its name.
        points: number of its points, about; ``None`` if that is not known.
        model: the model that wrote it, if it records one.
    """

    name: str
    points: int | None
    model: str | None


class Memory:
    """Texts in a database, which is opened when something is stored or looked for.

    Args:
        settings: which collections, and what may be done.
        open_collections: opens the database; called once, in a thread.
    """

    def __init__(self, settings: Settings, open_collections: Callable[[], Collections]) -> None:
        self._settings = settings
        self._open = open_collections
        self._opening = asyncio.Lock()
        self._collections: Collections | None = None
        self._nested: dict[str, bool] = {}  # by collection that has documents

    async def close(self) -> None:
        """Close the database, if it was opened."""
        async with self._opening:
            if self._collections is not None:
                await self._collections.close()

    async def store(
        self, text: str, metadata: Mapping[str, Any] | None, collection: str | None
    ) -> str | int:
        """Store a text and return its id, which depends on text and metadata alone.

        Args:
            text: the text.
            metadata: JSON values by name, if there are any.
            collection: name of the collection; created if it does not exist.

        Raises:
            InputError: if it cannot be stored there.
            QdrantEmbedError: if storing fails.
        """
        from qdrant_embed.ingest.documents import Document

        if self._settings.read_only:
            raise InputError("this memory can only be read")
        collections, name = await self._opened(), self._name(collection)
        if await self._is_nested(collections, name):
            metadata = {_NESTED: None if metadata is None else dict(metadata)}
        document = Document(text=text, metadata=dict(metadata or {}))
        (stored,) = await collections.add(name, [document], on_existing="skip", ids="content")
        return stored

    async def find(
        self,
        text: str,
        where: Mapping[str, Any] | None,
        limit: int | None,
        collection: str | None,
    ) -> list[Found]:
        """Return the stored texts nearest in meaning, best first; none without the collection.

        Args:
            text: what to look for.
            where: a filter on metadata.
            limit: number of texts at most; the setting's by default.
            collection: name of the collection.

        Raises:
            InputError: if the filter cannot be used.
            QdrantEmbedError: if the search fails.
        """
        from qdrant_embed.search.filters import below

        collections, name = await self._opened(), self._name(collection)
        is_nested = await self._is_nested(collections, name)
        if where and is_nested:
            where = below(where, _NESTED)
        try:
            hits = await collections.query(
                name, text, where=where, limit=limit or self._settings.limit
            )
        except CollectionNotFoundError:
            return []
        found = []
        for hit in hits:
            metadata = collections.codec.metadata(hit.metadata)
            nested = metadata.get(_NESTED)
            if is_nested and set(metadata) == {_NESTED}:
                metadata = dict(nested) if isinstance(nested, Mapping) else {}
            found.append(Found(hit.id, hit.score, hit.document, metadata))
        return found

    async def collections(self) -> list[Listed]:
        """Return the collections that agents can use, by name.

        Raises:
            QdrantEmbedError: if the database does not answer.
        """
        listed = await (await self._opened()).all()
        return [
            Listed(found.name, found.points, None if found.stamp is None else found.stamp["model"])
            for found in listed
            if self._settings.collection in (None, found.name)
        ]

    async def _opened(self) -> Collections:
        async with self._opening:
            if self._collections is None:
                self._collections = await asyncio.to_thread(self._open)
            return self._collections

    def _name(self, collection: str | None) -> str:
        """Return the collection to use.

        Raises:
            InputError: if there is none, or it is not the one that may be used.
        """
        own = self._settings.collection
        if own is not None and collection not in (None, own):
            raise InputError(f"only the collection {own!r} can be used, not {collection!r:.200}")
        name = own or collection
        if not name:
            raise InputError("collection_name is missing")
        return name

    async def _is_nested(self, collections: Collections, name: str) -> bool:
        """Return whether the metadata of a collection's texts is under one key of its own."""
        if name in self._nested:
            return self._nested[name]
        payloads = await collections.sample(name)
        keys = [set(collections.codec.metadata(payload)) for payload in payloads]
        is_nested = all(found == {_NESTED} for found in keys)
        if keys:  # a collection that is empty, or not there, may yet be written in another way
            self._nested[name] = is_nested
        return is_nested
