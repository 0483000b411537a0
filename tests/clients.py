"""Clients of either kind on databases of every kind, and what tests ask of them."""

from __future__ import annotations

import asyncio
import inspect
import re
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import pytest
import qdrant_client
from numpy.typing import NDArray
from qdrant_client import models
from rest_server import Server

from qdrant_embed import (
    AsyncQdrantClient,
    LateDescription,
    QdrantClient,
    QueryResponse,
    SparseDescription,
    SparseVector,
)

KINDS = ["sync", "async"]

SENTENCES = [
    "The cat sat on the mat and purred",
    "Paris is the capital of France",
    "The stock market fell by three percent",
    "The striker scored two goals in the final",
    "The ship sailed through the storm",
]


class Blocking:
    """An asynchronous client that is called as the synchronous one is."""

    def __init__(self, client: AsyncQdrantClient, loop: asyncio.AbstractEventLoop) -> None:
        vars(self).update(client=client, loop=loop)

    def __getattr__(self, name: str) -> Any:
        value = getattr(vars(self)["client"], name)
        if not callable(value):
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            result = value(*args, **kwargs)
            if inspect.isawaitable(result):
                return vars(self)["loop"].run_until_complete(result)
            if isinstance(result, AsyncIterator):
                return each(vars(self)["loop"], result)
            return result

        return call

    def __setattr__(self, name: str, value: object) -> None:
        setattr(vars(self)["client"], name, value)


def each(loop: asyncio.AbstractEventLoop, items: AsyncIterator[Any]) -> Iterator[Any]:
    """Read an asynchronous iterator, each item when it is asked for."""
    ended = object()
    while (item := loop.run_until_complete(_next(items, ended))) is not ended:
        yield item


async def _next(items: AsyncIterator[Any], ended: object) -> Any:
    return await anext(items, ended)


class Prefixed:
    """A client whose collections carry a prefix, on a server that has others too.

    Args:
        client: of either kind, called as the synchronous one is.
        prefix: of the names of collections and aliases, if they can be such names.
    """

    def __init__(self, client: QdrantClient, prefix: str) -> None:
        vars(self).update(client=client, prefix=prefix)

    def __getattr__(self, name: str) -> Any:
        value = getattr(vars(self)["client"], name)
        if not callable(value):
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                given = inspect.signature(getattr(QdrantClient, name)).bind(None, *args, **kwargs)
            except TypeError:  # which the client itself shall say
                return value(*args, **kwargs)
            for argument in ("collection_name", "new_collection_name", "alias"):
                if argument in given.arguments:
                    given.arguments[argument] = self._own(given.arguments[argument])
            for operation in given.arguments.get("change_aliases_operations", ()):
                alias = operation.create_alias
                alias.collection_name = self._own(alias.collection_name)
                alias.alias_name = self._own(alias.alias_name)
            result = value(*given.args[1:], **given.kwargs)
            if isinstance(result, models.CollectionsResponse):
                prefix = vars(self)["prefix"]
                found = [one for one in result.collections if one.name.startswith(prefix)]
                result.collections = found
            return result

        return call

    def _own(self, name: Any) -> Any:
        plain = isinstance(name, str) and re.fullmatch(r"[a-z0-9 -]+", name)
        return vars(self)["prefix"] + name if plain else name

    def __setattr__(self, name: str, value: object) -> None:
        setattr(vars(self)["client"], name, value)


@contextmanager
def prefixed(client: QdrantClient) -> Iterator[QdrantClient]:
    """Give the client's collections a prefix of their own, and remove them after the block."""
    prefix = f"qdrant-embed-test-{uuid.uuid4().hex[:12]}-"
    try:
        yield cast(QdrantClient, Prefixed(client, prefix))
    finally:
        for found in client.get_collections().collections:
            if found.name.startswith(prefix):
                client.delete_collection(found.name)


def at(server: Server, *, grpc: bool = False) -> dict[str, Any]:
    """Return arguments of a client of the server, patient with a busy machine."""
    options = {"url": server.url, "check_compatibility": False, "timeout": 120}
    return options | ({"prefer_grpc": True, "grpc_port": server.grpc_port} if grpc else {})


@contextmanager
def opened(kind: str, *args: Any, **kwargs: Any) -> Iterator[QdrantClient]:
    """A client of the kind, called as the synchronous one is."""
    if kind == "sync":
        client = QdrantClient(*args, **kwargs)
        try:
            yield client
        finally:
            client.close()
        return
    loop = asyncio.new_event_loop()
    blocking = Blocking(AsyncQdrantClient(*args, **kwargs), loop)
    try:
        yield cast(QdrantClient, blocking)
    finally:
        blocking.close()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def run(program: Coroutine[Any, Any, None]) -> None:
    """Runs to the end; a program that hangs fails."""
    asyncio.run(asyncio.wait_for(program, 120))


class LetterEncoder:
    """An encoder of a user's own: counts letters."""

    model_name = "mine/Letters"
    dimension = 26

    def passage_embed(self, texts: Iterable[str], /) -> Iterable[NDArray[np.float32]]:
        return np.array([[text.count(chr(97 + i)) + 0.1 for i in range(26)] for text in texts])

    query_embed = passage_embed


class WordEncoder:
    """A sparse encoder of a user's own: words by their length, twice as much for documents."""

    model_name = "mine/Words"

    def __init__(self, **facts: Any) -> None:
        self.facts = facts

    def describe(self) -> SparseDescription:
        return SparseDescription(model=self.model_name, **self.facts)

    def passage_embed(self, texts: Iterable[str], /) -> list[SparseVector]:
        return [self._vector(text, 2) for text in texts]

    def query_embed(self, query: Iterable[str], /) -> list[SparseVector]:
        return [self._vector(text, 1) for text in query]

    def _vector(self, text: str, weight: float) -> SparseVector:
        lengths = sorted({len(word) for word in text.split()})
        return SparseVector(np.array(lengths, np.int64), np.full(len(lengths), weight, np.float32))


class WordTokens:
    """A late-interaction encoder of a user's own: the letters of each word."""

    model_name = "mine/WordTokens"
    dimension = 26

    def describe(self) -> LateDescription:
        return LateDescription(model=self.model_name, dimension=self.dimension)

    def passage_embed(self, texts: Iterable[str], /) -> list[NDArray[np.float32]]:
        return [self._vectors(text.lower()) for text in texts]

    query_embed = passage_embed

    def _vectors(self, text: str) -> NDArray[np.float32]:
        letters = [[word.count(chr(97 + i)) + 0.01 for i in range(26)] for word in text.split()]
        rows = np.array(letters, np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows


def same(found: list[QueryResponse], expected: list[QueryResponse]) -> bool:
    """The same hits; scores may differ by what float32 rounds off, in another batch or where an
    array begins elsewhere in memory.
    """
    without = {"score": 0.0, "retrieval_score": None}
    scores, wanted = (
        [score for hit in hits for score in (hit.score, hit.retrieval_score or 0.0)]
        for hits in (found, expected)
    )
    return [hit.model_copy(update=without) for hit in found] == [
        hit.model_copy(update=without) for hit in expected
    ] and scores == pytest.approx(wanted, abs=1e-5)


def stored(client: qdrant_client.QdrantClient, name: str = "demo") -> dict[Any, dict[str, Any]]:
    """Payloads by id."""
    points, _ = client.scroll(name, limit=10_000)
    return {point.id: point.payload or {} for point in points}


def vectors(
    client: qdrant_client.QdrantClient, point: str | int, name: str = "demo"
) -> dict[str, Any]:
    """The vectors of one point by their names."""
    (record,) = client.retrieve(name, [point], with_vectors=True)
    return record.vector if isinstance(record.vector, dict) else {"": record.vector}


def stamp(client: qdrant_client.QdrantClient, name: str = "demo") -> dict[str, Any]:
    """What the collection says of itself."""
    found: dict[str, Any] = (client.get_collection(name).config.metadata or {})["qdrant_embed"]
    return found


def cosine(size: int) -> models.VectorParams:
    """Parameters of a vector as people write them by hand."""
    return models.VectorParams(size=size, distance=models.Distance.COSINE)


def named_server(config: pytest.Config, *, grpc: bool) -> dict[str, Any] | None:
    """Arguments of a client of the server that the command line names, None if it names none."""
    url, port, key = (config.getoption(name) for name in ("url", "grpc_port", "api_key"))
    if url is None or (grpc and port is None):
        return None
    options = {"url": url, "api_key": key, "check_compatibility": False, "timeout": 60}
    return options | ({"prefer_grpc": True, "grpc_port": int(port)} if grpc else {})
