"""A database's collections, each with the model that wrote it; the chosen models for new ones."""

from __future__ import annotations

import copy
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar, cast

import qdrant_client

from qdrant_embed.async_client import AsyncQdrantClient
from qdrant_embed.collection.payload import CHUNK_KEY, PayloadCodec
from qdrant_embed.collection.selection import EncoderSelection
from qdrant_embed.collection.stored import StoredCollection, read_collection
from qdrant_embed.encoder.interfaces import DenseEncoder
from qdrant_embed.errors import CollectionMismatchError
from qdrant_embed.flows.requests import CollectionRequests
from qdrant_embed.ingest.adding import OnExisting
from qdrant_embed.ingest.documents import Document
from qdrant_embed.ingest.whole_documents import StoredDocument
from qdrant_embed.search.comparison import Found, Way, find_by, ways_of
from qdrant_embed.search.search import QueryResponse, Search, checked_queries
from qdrant_embed.serve.batching import Together

T = TypeVar("T")

_EVERY = "*"  # in a request that is about no collection
_SAMPLE = 8  # points
_ASKED = 8  # requests that are alike, of a server at the same time
_RETRIES = 2  # somebody waits for the answer


@dataclass(frozen=True)
class ListedCollection:
    """A collection as it is listed.

    Attributes:
        name: its name.
        points: number of its points, about; ``None`` if the database does not say.
        stamp: the facts of what wrote it; ``None`` without a stamp.
        vectors: names of its dense vectors.
        sparse_vectors: names of its sparse vectors.
        problem: why it cannot be used, if it cannot.
    """

    name: str
    points: int | None = None
    stamp: Mapping[str, Any] | None = None
    vectors: Sequence[str] = ()
    sparse_vectors: Sequence[str] = ()
    problem: str | None = None


@dataclass(frozen=True)
class NewCollections:
    """The models of collections that are created.

    Attributes:
        model: of their dense vectors; the default model without it.
        sparse_model: of their sparse vectors, if they have them.
        late_model: of the vectors of their tokens, if they have them.
    """

    model: DenseEncoder | str | None = None
    sparse_model: str | None = None
    late_model: str | None = None


class Collections:
    """The collections of one database.

    Each is used with the model that wrote it, and a new one with the chosen models. A service has
    one client: this is two views of it, with and without the choice.

    Args:
        client: the client, on which no model was set.
        new: the models of new collections.
    """

    def __init__(self, client: AsyncQdrantClient, new: NewCollections | None = None) -> None:
        self._following = client
        self._choosing = copy.copy(client)
        policy = client._selection.policy
        self._choosing.__dict__["_encoder_selection"] = EncoderSelection(policy)
        new = new or NewCollections()
        if new.model is not None:
            self._choosing.set_model(new.model)
        if new.sparse_model is not None:
            self._choosing.set_sparse_model(new.sparse_model)
        if new.late_model is not None:
            self._choosing.set_late_model(new.late_model)
        self._of_others: set[str] = set()
        self._searches = Together[str, list[QueryResponse]]()
        self.codec = PayloadCodec(client.document_key)

    async def close(self) -> None:
        """Close the client, once the requests that run have ended."""
        await self._following.close()

    async def check(self) -> None:
        """Ask the database for its collections.

        Raises:
            QdrantEmbedError: if it does not answer.
        """
        await self._names()

    async def all(self) -> list[ListedCollection]:
        """Return all collections with their stamps, by name.

        Raises:
            QdrantEmbedError: if the database does not answer.
        """
        names = await self._names()
        listed = [await self._listed(name) for name in names]
        return [collection for collection in listed if collection is not None]

    async def _names(self) -> list[str]:
        client = cast("qdrant_client.QdrantClient", self._following)  # Io awaits its results
        found = await self._requests(_EVERY).send(client.get_collections)
        return sorted(described.name for described in found.collections)

    async def _listed(self, name: str) -> ListedCollection | None:
        info = await self._requests(name).info()
        if info is None:  # deleted since
            return None
        try:
            stored = read_collection(name, info)
        except CollectionMismatchError as error:
            return ListedCollection(name, points=info.points_count, problem=str(error))
        return ListedCollection(
            name,
            stored.points,
            _facts(stored),
            sorted(stored.vectors),
            sorted(stored.sparse_vectors),
        )

    async def sample(self, name: str, count: int = _SAMPLE) -> list[Mapping[str, Any]]:
        """Return the payloads of some points of a collection; none if it does not exist.

        Args:
            name: name of the collection.
            count: number of points at most.

        Raises:
            QdrantEmbedError: if the database does not answer.
        """
        requests = self._requests(name)
        if not await requests.exists():
            return []
        records, _ = await requests.page(count, with_payload=True)
        return [record.payload or {} for record in records]

    async def query(self, name: str, text: str | None, **options: Any) -> list[QueryResponse]:
        """Return what `AsyncQdrantClient.query` does.

        Texts that are searched for at the same time with the same options are encoded together,
        and asked in one request.

        Args:
            name: name of the collection.
            text: the text to search for.
            options: see `AsyncQdrantClient.query`.

        Raises:
            QdrantEmbedError: as `AsyncQdrantClient.query` does.
        """
        if text is None:
            return await self._with_its_model(name, lambda client: client.query(name, **options))

        async def ask(texts: list[str]) -> list[list[QueryResponse]]:
            return await self._with_its_model(
                name, lambda client: client.query_batch(name, texts, **options)
            )

        checked_queries([text])  # so that it does not fail with others
        alike = json.dumps([name, options], sort_keys=True, default=repr)
        # a server answers others while it works; here, more at a time are only fewer together
        engine = self._following._collection(name).io.engine
        most_asked = _ASKED if engine.name == "server" else 1
        return await self._searches.result(alike, text, ask, most_asked)

    async def ways(self, name: str) -> list[Way]:
        """Return the ways to search a collection, without a reranker.

        Raises:
            QdrantEmbedError: as `AsyncQdrantClient.query` does.
        """

        async def read(client: AsyncQdrantClient) -> list[Way]:
            return ways_of(await client._collection(name, _RETRIES).vectors_for_query())

        return await self._with_its_model(name, read)

    async def find_by(self, name: str, search: Search, text: str, way: Way) -> Found | None:
        """Search a collection in one way; return ``None`` if it lacks the vectors for it.

        Args:
            name: name of the collection.
            search: how to search.
            text: the text to search for.
            way: see `find_by` of the comparison.

        Raises:
            QdrantEmbedError: as `AsyncQdrantClient.query` does.
        """

        def ask(client: AsyncQdrantClient) -> Awaitable[Found | None]:
            return find_by(client._collection(name), search, text, way)

        return await self._with_its_model(name, ask)

    async def add(
        self, name: str, documents: Sequence[Document], *, on_existing: OnExisting, ids: Any = None
    ) -> list[str | int]:
        """Store documents and return their ids; a collection that does not exist is created.

        Args:
            name: name of the collection.
            documents: the documents.
            on_existing: see `AsyncQdrantClient.add`.
            ids: see `AsyncQdrantClient.add`.

        Raises:
            QdrantEmbedError: as `AsyncQdrantClient.add` does.
        """
        return await self._with_its_model(
            name,
            lambda client: client.add(
                name,
                documents,
                ids=ids,
                on_existing=on_existing,
                max_retries=_RETRIES,
                progress=False,
            ),
        )

    async def get(self, name: str, ids: Sequence[str | int]) -> list[StoredDocument | None]:
        """Return documents, whole; ``None`` for one that is missing.

        Raises:
            QdrantEmbedError: as `AsyncQdrantClient.get_documents` does.
        """
        return await self._following.get_documents(name, ids, max_retries=_RETRIES)

    async def delete(self, name: str, ids: Sequence[str | int]) -> None:
        """Delete documents; ids that do not exist are ignored.

        Raises:
            QdrantEmbedError: as `AsyncQdrantClient.delete_documents` does.
        """
        await self._following.delete_documents(name, ids, max_retries=_RETRIES)

    async def _with_its_model(
        self, name: str, ask: Callable[[AsyncQdrantClient], Awaitable[T]]
    ) -> T:
        """Ask with the chosen models, or with a collection's own if it was written by others."""
        clients = self._choosing, self._following
        first, second = reversed(clients) if name in self._of_others else clients
        try:
            return await ask(first)
        except CollectionMismatchError:  # known before anything is encoded or stored
            answer = await ask(second)
        self._of_others ^= {name}  # which exists, so that names are no more than collections
        return answer

    def _requests(self, name: str) -> CollectionRequests:
        return self._following._collection(name, _RETRIES).requests


def _facts(stored: StoredCollection) -> dict[str, Any] | None:
    """Return the facts of a stamp that are known, as JSON values."""
    if stored.stamp is None:
        return None
    return {name: fact for name, fact in asdict(stored.stamp).items() if fact is not None}


def chunk_of(hit: QueryResponse) -> Mapping[str, Any] | None:
    """Return which part of its document a hit is, if it is a part."""
    chunk = hit.metadata.get(CHUNK_KEY)
    return chunk if isinstance(chunk, Mapping) else None
