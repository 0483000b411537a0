"""How a client of a server opens its connections, and what it asks of answers.

A server that compresses an answer sends it in several small writes. On a connection that is kept
alive, each then waits for the client's kernel to acknowledge the one before, 40 ms: ten texts came
after 46 ms, and uncompressed after 4. So answers are asked for as they are, unless the user's own
headers say otherwise. Without compression there is no reason left to open a connection for each
request on loopback, as ``qdrant_client`` does against this very delay.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any

import httpx
import qdrant_client

_ENCODING = "accept-encoding"
# as many connections as httpx allows by default, and as many of them kept: threads that ask
# together would otherwise close and open them all the time
LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=100)


class OwnConnections(qdrant_client.QdrantClient):
    """A synchronous client that keeps its connections, and asks for uncompressed answers.

    The constructor is that of the next class; what its user passes is respected.
    """

    if not TYPE_CHECKING:  # its signature, too, is that of the next class

        @wraps(qdrant_client.QdrantClient.__init__)
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **with_limits(super().__init__, args, kwargs))
            ask_uncompressed(self)


class OwnAsyncConnections(qdrant_client.AsyncQdrantClient):
    """Like `OwnConnections`, an asynchronous client."""

    if not TYPE_CHECKING:

        @wraps(qdrant_client.AsyncQdrantClient.__init__)
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **with_limits(super().__init__, args, kwargs))
            ask_uncompressed(self)


def with_limits(
    constructor: Callable[..., None], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the keyword arguments of a client's constructor, with limits if it lacks them.

    Args:
        constructor: the bound ``__init__``, which is left alone if it is not of ``qdrant_client``.
        args: its positional arguments.
        kwargs: its keyword arguments.
    """
    own = (qdrant_client.QdrantClient.__init__, qdrant_client.AsyncQdrantClient.__init__)
    if getattr(constructor, "__func__", None) not in own or "limits" in kwargs:
        return dict(kwargs)
    try:
        given = inspect.signature(constructor).bind(*args, **kwargs).arguments
    except TypeError:  # the constructor says so better
        return dict(kwargs)
    if given.get("location") == ":memory:" or any(given.get(key) for key in ("path", "pool_size")):
        return dict(kwargs)
    return {**kwargs, "limits": LIMITS}


def ask_uncompressed(client: qdrant_client.QdrantClient | qdrant_client.AsyncQdrantClient) -> None:
    """Have a server send answers uncompressed, unless headers of the client's ask for something."""
    try:
        rest = client.http.client
    except NotImplementedError:  # a local database
        return
    options = client.init_options
    for option in ("headers", "metadata"):  # qdrant_client sends both
        if any(name.lower() == _ENCODING for name in options.get(option) or ()):
            return
    if isinstance(client, qdrant_client.AsyncQdrantClient):
        rest.add_middleware(_uncompressed_async)  # type: ignore[arg-type] # of one of two classes
    else:
        rest.add_middleware(_uncompressed)  # type: ignore[arg-type] # of the other


def _uncompressed(
    request: httpx.Request, call_next: Callable[[httpx.Request], httpx.Response]
) -> httpx.Response:
    request.headers[_ENCODING] = "identity"
    return call_next(request)


async def _uncompressed_async(request: httpx.Request, call_next: Callable[..., Any]) -> Any:
    request.headers[_ENCODING] = "identity"
    return await call_next(request)
