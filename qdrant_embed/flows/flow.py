"""What the clients do, step by step: the steps, and requests to one collection.

A flow is a generator. It yields what is to be done next and is sent the result, or has the error
thrown into it: a `Request` to Qdrant, `Work` for the processor, a `Pause`, a `Wait` for what a
thread computes, flows that may run `Together`. The clients carry the steps out, each in its own
way; the asynchronous one does work in a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from qdrant_embed.collection.stored import StoredCollection, read_collection
from qdrant_embed.engines.retries import MAX_RETRIES, REQUEST_ERRORS, Retries
from qdrant_embed.errors import InputError, check_str

T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """One request: `call` gives the result, or its coroutine.

    `on_success` is called when it has been carried out, even if nobody waits for it any more;
    such a request is never left in the middle.
    """

    call: Callable[[], Any]
    on_success: Callable[[], None] | None = None


@dataclass(frozen=True)
class Work:
    """Something to compute."""

    call: Callable[[], Any]


@dataclass(frozen=True)
class Pause:
    """Seconds to wait."""

    seconds: float


@dataclass(frozen=True)
class Wait:
    """The result of what is computed meanwhile."""

    future: Future[Any]


@dataclass(frozen=True)
class Together:
    """Flows that may be carried out at the same time; the results are a list."""

    flows: Sequence[Flow[Any]]


Step: TypeAlias = Request | Work | Pause | Wait | Together
Flow: TypeAlias = Generator[Step, Any, T]


class CollectionFlows:
    """Requests to one collection, for a client whose methods give results or coroutines.

    They are tried again, `max_retries` times each, as long as that may help.
    """

    def __init__(self, client: Any, collection_name: str, max_retries: int = MAX_RETRIES) -> None:
        self._max_retries = max_retries
        self._client = client
        check_str("collection_name", collection_name)
        if not collection_name:
            raise InputError("collection_name is empty: name a collection")
        check_str("document_key", client.document_key)
        self._name = collection_name

    def tried(self, request: Request) -> Flow[Any]:
        """The result of a request that may be repeated."""
        retries = Retries(self._max_retries)
        while True:
            try:
                return (yield request)
            except REQUEST_ERRORS as error:
                wait = retries.wait_after(error)
                if wait is None:
                    raise
            yield Pause(wait)

    def exists(self) -> Flow[bool]:
        """Whether there is such a collection."""
        exists: bool = yield from self.tried(
            Request(lambda: self._client.collection_exists(self._name))
        )
        return exists

    def read(self) -> Flow[StoredCollection]:
        """What the collection says of itself."""
        info = yield from self.tried(Request(lambda: self._client.get_collection(self._name)))
        return read_collection(self._name, info)
