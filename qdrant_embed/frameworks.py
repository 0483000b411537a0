"""What the modules of frameworks have in common: a collection of a client as one of them sees it.

A framework has payloads, names of vectors and often an encoder of its own, and its stores have each
method twice, blocking and asynchronous. The flows of the client serve both, and either client: with
a synchronous one, asynchronous methods run in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, cast

import qdrant_client
from qdrant_client import models

from qdrant_embed.async_client import AsyncQdrantEmbedMixin
from qdrant_embed.client import QdrantEmbedMixin
from qdrant_embed.collection.collection import Collection
from qdrant_embed.collection.encoders import adapt
from qdrant_embed.collection.payload import PayloadCodec
from qdrant_embed.collection.selection import EncoderSelection, RecentVectors
from qdrant_embed.collection.vectors import CollectionVectors
from qdrant_embed.encoder.interfaces import DenseEncoder, Distance
from qdrant_embed.engines.engine import run_blocking
from qdrant_embed.errors import CollectionNotFoundError, InputError, check_str
from qdrant_embed.ingest.adding import AddOptions, add_documents, delete_documents
from qdrant_embed.ingest.documents import Document
from qdrant_embed.ingest.ids import points_by_id
from qdrant_embed.ingest.whole_documents import (
    DocumentScroll,
    ScrollOptions,
    StoredDocument,
    get_documents,
)
from qdrant_embed.search.comparison import find_by
from qdrant_embed.search.search import EncodedQuery, QueryResponse, Search, answer

T = TypeVar("T")

# options of a search that one by sparse vectors alone does not have
_NOT_BY_WORDS = ("like", "unlike", "diversity", "reranker", "rerank_limit")

Client: TypeAlias = QdrantEmbedMixin | AsyncQdrantEmbedMixin
Flow: TypeAlias = Callable[[], Coroutine[Any, Any, T]]


@dataclass(frozen=True)
class VectorSearch(Search):
    """A search by a vector that is encoded already.

    Attributes:
        vector: the dense vector.
        text: the text that it is of, by which a collection's other vectors are searched, too.
    """

    vector: Sequence[float] = ()
    text: str | None = None

    def encoded(
        self, vectors: CollectionVectors, texts: Sequence[str] | None
    ) -> list[EncodedQuery]:
        """Return the vector, and those of the text that the collection has besides."""
        del texts
        needed = vectors.dense.encoder.dimension
        if len(self.vector) != needed:
            raise InputError(
                f"the query's vector has {len(self.vector)} dimensions, but the collection's "
                f"{needed}: encode queries with the model of its documents"
            )
        words = tokens = None
        if self.text is not None and vectors.sparse is not None:
            (words,) = vectors.sparse.queries([self.text])
        if self.text is not None and vectors.late is not None:
            (tokens,) = vectors.late.queries([self.text])
        return [EncodedQuery([float(value) for value in self.vector], words, tokens)]


class FrameworkCollection:
    """One collection of a client, with a framework's payloads, vector names and encoder.

    Models that are set on the client later are followed, unless the encoder is the framework's.

    Args:
        client: of this package, of either kind.
        collection_name: name of the collection.
        codec: encodes and decodes payloads.
        dense_name: name of the dense vector in a new collection, and in one without a stamp that
            has it, unless `set_model` named it.
        sparse_name: name of the sparse vector, in the same way.
        encoder: encodes documents and queries in place of the client's model.

    Raises:
        InputError: if the client is of another package, or a name is not a str.
    """

    def __init__(
        self,
        client: Client,
        collection_name: str,
        codec: PayloadCodec,
        *,
        dense_name: str,
        sparse_name: str,
        encoder: DenseEncoder | None = None,
    ) -> None:
        if not isinstance(client, QdrantEmbedMixin | AsyncQdrantEmbedMixin):
            raise InputError(
                "client must be a QdrantClient or an AsyncQdrantClient of qdrant_embed, not "
                f"{type(client).__module__}.{type(client).__name__}"
            )
        check_str("collection_name", collection_name)
        self.client, self.name = client, collection_name
        self._codec, self._names = codec, (dense_name, sparse_name)
        self._encoder = None if encoder is None else adapt(encoder)
        self._selected: tuple[RecentVectors, EncoderSelection] | None = None

    @property
    def is_async(self) -> bool:
        """Whether the client is the asynchronous one."""
        return isinstance(self.client, AsyncQdrantEmbedMixin)

    @property
    def selection(self) -> EncoderSelection:
        """The client's models, under the framework's names, with the framework's encoder."""
        theirs = self.client._selection
        if self._selected is None or self._selected[0] is not theirs.recent:
            own = theirs.with_names(*self._names)
            if self._encoder is not None:
                own.choose(self._encoder, own.chosen_vector_name)
            self._selected = theirs.recent, own
        return self._selected[1]

    @property
    def collection(self) -> Collection:
        """The collection, for one flow."""
        return Collection(self.client._collection(self.name).requests, self.selection, self._codec)

    def run(self, flow: Flow[T]) -> T:
        """Run a flow to its end, and return its result.

        Raises:
            InputError: if the client is an asynchronous one.
        """
        if self.is_async:
            raise InputError(
                "this store has an AsyncQdrantClient, so it has asynchronous methods only: await "
                "these, or create the store with a QdrantClient"
            )
        return run_blocking(flow())

    async def arun(self, flow: Flow[T]) -> T:
        """Await a flow: on the event loop with an asynchronous client, else in a thread."""
        if self.is_async:
            return await flow()
        return await asyncio.to_thread(self.run, flow)

    async def add(self, documents: Sequence[Document], **options: Any) -> list[str | int]:
        """Store documents, as `QdrantClient.add` does with these options."""
        return await add_documents(self.collection, documents, None, None, AddOptions(**options))

    async def search(self, text: str, **options: Any) -> list[QueryResponse]:
        """Return hits, as `QdrantClient.query` does with these options."""
        options |= {
            name: points_by_id(options[name], name)
            for name in ("like", "unlike")
            if name in options
        }
        collection = self.collection
        reranker = self.selection.reranker(options.pop("reranker", None))
        search = Search(reranker=reranker, **options)
        (hits,) = await answer(collection, search, search.texts(text))
        return hits

    async def search_words(self, text: str, **options: Any) -> list[QueryResponse]:
        """Return hits by the collection's sparse vectors alone, without a reranker; see `search`.

        Raises:
            InputError: if the collection has no sparse vectors, or an option is not for them.
        """
        unusable = [name for name in _NOT_BY_WORDS if name in options]
        if unusable:
            raise InputError(f"a search by words has no {', '.join(unusable)}: omit it")
        found = await find_by(self.collection, Search(**options), text, "sparse")
        if found is None:
            raise InputError(
                f"collection {self.name!r} has no sparse vectors to search by: write it with a "
                "client that has a sparse model (set_sparse_model)"
            )
        return found.hits

    async def search_vector(
        self, vector: Sequence[float], text: str | None = None, **options: Any
    ) -> list[QueryResponse]:
        """Return hits by a vector, and by its text if there is one; see `search`."""
        if text is not None:
            options["reranker"] = self.selection.reranker(options.get("reranker"))
        elif options.get("reranker") is not None:
            raise InputError("a reranker compares hits with a text: search by a text, not a vector")
        search = VectorSearch(vector=vector, text=text, **options)
        (hits,) = await answer(self.collection, search, [text or ""])
        return hits

    async def get(self, ids: Iterable[str | int]) -> list[StoredDocument | None]:
        """Return the documents with these ids, ``None`` for one that is missing."""
        return await get_documents(self.collection, ids, shard_key_selector=None)

    async def scroll(self, condition: models.Filter | None) -> list[StoredDocument]:
        """Return all documents that match a filter; none of a collection that does not exist."""
        scroll = DocumentScroll(self.collection, ScrollOptions(filter=condition))
        found: list[StoredDocument] = []
        try:
            while page := await scroll.next_page():
                found += page
        except CollectionNotFoundError:
            return []
        return found

    async def count(self, condition: models.Filter | None = None) -> int:
        """Count the points that match a filter; 0 in a collection that does not exist."""
        requests = self.collection.requests
        try:
            return await requests.count(count_filter=condition)
        except CollectionNotFoundError:
            return 0

    async def delete(self, ids: Iterable[str | int]) -> None:
        """Delete documents with all their chunks."""
        await delete_documents(self.collection, ids, wait=True, shard_key_selector=None)

    async def delete_matching(self, condition: models.Filter) -> None:
        """Delete the points that match a filter."""
        requests = self.collection.requests
        await requests.delete(models.FilterSelector(filter=condition))
        await requests.flush()

    async def delete_collection(self) -> None:
        """Delete the collection, if it exists."""
        requests = self.collection.requests
        if await requests.exists():
            client = cast("qdrant_client.QdrantClient", self.client)  # of either kind, for `Io`
            await requests.send(client.delete_collection, self.name)
        self.selection.recent.forget(self.name)

    def distance(self) -> Distance | None:
        """Return what the scores of the last search measure; ``None`` if they are fused."""
        vectors = self.selection.recent.find(self.name)
        if vectors is None or vectors.sparse is not None or vectors.late is not None:
            return None
        return vectors.dense.encoder.distance
