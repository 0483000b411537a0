"""Requests about one collection, retried after transient failures."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

import qdrant_client
from qdrant_client import models

from qdrant_embed.backoff import Backoff
from qdrant_embed.engines.server import (
    REQUEST_ERRORS,
    is_too_large,
    is_transient,
    requested_wait,
)
from qdrant_embed.errors import InputError, check_str, check_whole
from qdrant_embed.flows.io import Flow, Io

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

BACKOFF = Backoff(first=0.25, longest=8.0)  # seconds
LONGEST_RETRYING = 300.0  # seconds after a request's first attempt
MAX_RETRIES = 3


class CollectionRequests:
    """A sender of requests about one collection.

    Args:
        io: calls the client's methods.
        client: the client; the asynchronous client's methods have the same arguments, and `io`
            awaits their results.
        collection_name: name of the collection.
        max_retries: number of retries of a request after a transient failure.

    Raises:
        InputError: if the name is empty or not a str, or `max_retries` is not a whole number.

    Attributes:
        io: calls the client's methods.
        client: the client.
        name: the collection's name.
        max_retries: number of retries of a request.
    """

    def __init__(
        self,
        io: Io,
        client: qdrant_client.QdrantClient,
        collection_name: str,
        max_retries: int = MAX_RETRIES,
    ) -> None:
        check_str("collection_name", collection_name)
        if not collection_name:
            raise InputError("collection_name is empty; pass the name of a collection")
        check_whole("max_retries", max_retries, 0)
        self.io, self.client = io, client
        self.name, self.max_retries = collection_name, max_retries

    async def send(self, method: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a method of the client, retry it if that can help, and return its result."""
        return await self.retried(lambda: self.io.request(method, *args, **kwargs))

    async def retried(self, attempt: Callable[[], Flow[T]]) -> T:
        """Await an attempt, repeat it after transient failures, and return its result.

        It is repeated at most `max_retries` times. No attempt begins later than five minutes after
        the first, no matter how long the server asks to wait.
        """
        start, failures = time.monotonic(), 0
        while True:
            try:
                return await attempt()
            except REQUEST_ERRORS as error:
                failures += 1
                if failures > self.max_retries or not is_transient(error):
                    raise
                wait = requested_wait(error)
                if wait is None:
                    wait = BACKOFF.seconds(failures)
                if time.monotonic() - start + wait > LONGEST_RETRYING:
                    raise
                logger.warning("a request failed and is retried in %.1f s: %s", wait, error)
            await self.io.sleep(wait)

    async def exists(self) -> bool:
        """Return whether the collection exists."""
        return await self.send(self.client.collection_exists, self.name)

    async def count(self) -> int:
        """Return the number of points."""
        return (await self.send(self.client.count, self.name, exact=True)).count

    async def upsert(
        self,
        points: Sequence[models.PointStruct],
        on_stored: Callable[[Sequence[models.PointStruct]], None],
        *,
        wait: bool = True,
        shard_key_selector: models.ShardKeySelector | None = None,
    ) -> None:
        """Store points in one request, or in halves if the request is too large for the server.

        `on_stored` is called after each request with the points that it stored. A request in
        flight is completed even after a cancellation, so it is known whether its points are stored.
        """

        async def attempt() -> None:
            await self.io.request(
                self.client.upsert,
                self.name,
                points,
                wait=wait,
                shard_key_selector=shard_key_selector,
            )
            on_stored(points)

        try:
            await self.retried(lambda: self.io.finish(attempt()))
            return
        except REQUEST_ERRORS as error:
            if len(points) == 1 or not is_too_large(error):
                raise
        middle = len(points) // 2
        for half in (points[:middle], points[middle:]):
            await self.upsert(half, on_stored, wait=wait, shard_key_selector=shard_key_selector)

    async def delete(
        self,
        selector: models.PointsSelector,
        on_deleted: Callable[[], None] | None = None,
        *,
        wait: bool = True,
        shard_key_selector: models.ShardKeySelector | None = None,
    ) -> None:
        """Delete points, then call `on_deleted`; a request in flight is always completed."""

        async def attempt() -> None:
            await self.io.request(
                self.client.delete,
                self.name,
                selector,
                wait=wait,
                shard_key_selector=shard_key_selector,
            )
            if on_deleted is not None:
                on_deleted()

        await self.retried(lambda: self.io.finish(attempt()))
