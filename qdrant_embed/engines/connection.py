"""Connections of a client: how they are opened, what they ask of answers, and when to open others.

A server that compresses an answer sends it in several small writes. On a connection that is kept
alive, each then waits for the client's kernel to acknowledge the one before, 40 ms: ten texts came
after 46 ms, and uncompressed after 4. So answers are asked for as they are, unless the user's own
headers say otherwise. Without compression there is no reason left to open a connection for each
request on loopback, as ``qdrant_client`` does against this very delay.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import wraps
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import qdrant_client
from qdrant_client.async_qdrant_remote import AsyncQdrantRemote
from qdrant_client.local.async_qdrant_local import AsyncQdrantLocal
from qdrant_client.local.qdrant_local import QdrantLocal
from qdrant_client.qdrant_remote import QdrantRemote

from qdrant_embed.errors import InputError

# as many connections as httpx allows by default, and as many of them kept: threads that ask
# together would otherwise close and open them all the time
LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=100)
# A channel that lost its server answers UNAVAILABLE without asking, until it connects again: by
# default after a second, then two, four, up to two minutes.
_GRPC_OPTIONS = {
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1000,
}
_ENCODING = "accept-encoding"
_NOT_OF_A_SERVER = ("location", "path", "force_disable_check_same_thread")
_NOT_SENT = ("cloud_inference", "local_inference_batch_size")
_UNSENDABLE = re.compile(r"[^\t\x20-\x7e]|^[\t ]|[\t ]$")  # in a header's value


class OwnConnections(qdrant_client.QdrantClient):
    """A synchronous client that keeps its connections, and asks for uncompressed answers.

    The constructor is that of the next class; what its user passes is respected. A key that no
    header can carry is an `InputError`; a gRPC channel connects again at once after its server was
    restarted.
    """

    if not TYPE_CHECKING:  # its signature, too, is that of the next class

        @wraps(qdrant_client.QdrantClient.__init__)
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            args, kwargs = _with_defaults(super().__init__, args, kwargs)
            super().__init__(*args, **kwargs)
            _ask_uncompressed(self)


class OwnAsyncConnections(qdrant_client.AsyncQdrantClient):
    """Like `OwnConnections`, an asynchronous client."""

    if not TYPE_CHECKING:

        @wraps(qdrant_client.AsyncQdrantClient.__init__)
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            args, kwargs = _with_defaults(super().__init__, args, kwargs)
            super().__init__(*args, **kwargs)
            _ask_uncompressed(self)


def _with_defaults(
    constructor: Callable[..., None], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a client's constructor, with our defaults where none is given.

    Args:
        constructor: the bound ``__init__``, which is left alone if it is not of ``qdrant_client``.
        args: its positional arguments.
        kwargs: its keyword arguments.

    Raises:
        InputError: if a key or a header has characters that no header can carry.
    """
    own = (qdrant_client.QdrantClient.__init__, qdrant_client.AsyncQdrantClient.__init__)
    if getattr(constructor, "__func__", None) not in own:
        return args, kwargs
    try:
        options = inspect.signature(constructor).bind(*args, **kwargs).arguments
    except TypeError:  # the constructor says so better
        return args, kwargs
    options |= options.pop("kwargs", {})
    check_headers(options)
    if options.get("location") != ":memory:" and not options.get("path"):
        options["grpc_options"] = _GRPC_OPTIONS | _without_agent(options.get("grpc_options"))
        if not options.get("pool_size"):
            options.setdefault("limits", LIMITS)
    return (), options


def _without_agent(grpc_options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a user's options of channels, without the name that qdrant_client adds to them."""
    name = "grpc.primary_user_agent"
    return {
        option: value
        for option, value in (grpc_options or {}).items()
        if option != name or not str(value).startswith("python-client/")
    }


def check_headers(options: Mapping[str, Any]) -> None:
    """Raise `InputError` if a key or a header cannot be sent; the message does not show the key."""
    headers = {
        f"headers[{name!r}]": value for name, value in (options.get("headers") or {}).items()
    }
    for name, value in {"api_key": options.get("api_key"), **headers}.items():
        if isinstance(value, str) and (found := _UNSENDABLE.search(value)):
            raise InputError(
                f"{name} has {found[0]!r} at position {found.start()}, which no HTTP header can "
                "carry: check how it was copied or read, and strip() it"
            )


def _ask_uncompressed(client: qdrant_client.QdrantClient | qdrant_client.AsyncQdrantClient) -> None:
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


def address_of(client: qdrant_client.QdrantClient, *, grpc: bool) -> str:
    """Return the URL of the server that a client asks, its port too, without user and password.

    Args:
        client: of either kind.
        grpc: whether it is asked over gRPC.
    """
    try:
        rest = urlsplit(client.http.client.host)
    except NotImplementedError:  # of a client whose own class asks in another way
        return "an unknown address"
    place = rest.netloc.rpartition("@")[2]
    if not grpc:
        return f"{rest.scheme}://{place}{rest.path}"
    host = place.rpartition(":")[0] if rest.port else place
    return f"{rest.scheme}://{host}:{client.init_options['grpc_port']} (gRPC)"


TIME_LEFT: ContextVar[Callable[[], float] | None] = ContextVar("seconds left", default=None)


def keep_time(database: Any, *, grpc: bool) -> None:
    """Let requests take no longer than `TIME_LEFT` says, where it is set.

    Some methods of ``qdrant_client`` have no timeout of their own, and others only whole seconds.

    Args:
        database: the object that a ``qdrant_client`` client talks to.
        grpc: whether it prefers gRPC, whose only method without a timeout reads a collection.
    """
    if grpc and isinstance(database, QdrantRemote | AsyncQdrantRemote):
        # of each channel of the pool, one after the other
        while not isinstance((stub := database.grpc_collections).Get, _TimelyCall):
            stub.Get = _TimelyCall(stub.Get)
    if isinstance(database, QdrantRemote):
        database.http.client.add_middleware(_in_time)
    elif isinstance(database, AsyncQdrantRemote):
        database.http.client.add_middleware(_async_in_time)


class _TimelyCall:
    """A method of gRPC that takes no longer than `TIME_LEFT` says."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, request: Any, timeout: float | None = None, **options: Any) -> Any:
        if (left := TIME_LEFT.get()) is not None:
            timeout = max(0.001, left() if timeout is None else min(timeout, left()))
        return self._call(request, timeout=timeout, **options)


def _in_time(request: httpx.Request, send: Callable[[httpx.Request], httpx.Response]) -> Any:
    _limit(request)
    return send(request)


async def _async_in_time(request: httpx.Request, send: Callable[[httpx.Request], Any]) -> Any:
    _limit(request)
    return await send(request)


def _limit(request: httpx.Request) -> None:
    if (left := TIME_LEFT.get()) is not None:
        seconds = max(left(), 0.001)
        request.extensions["timeout"] = {
            phase: seconds if given is None else min(given, seconds)
            for phase, given in request.extensions.get("timeout", {}).items()
        }


def is_folder(database: object) -> bool:
    """Return whether this is a local database in a folder, which one process alone may write."""
    return isinstance(database, QdrantLocal | AsyncQdrantLocal) and database.persistent


def reopened(database: Any, options: Mapping[str, Any]) -> Any:
    """Return what talks to the same server through connections of its own.

    Args:
        database: the object that a ``qdrant_client`` client talks to.
        options: the client's ``init_options``.

    Returns:
        `database` itself if it is local, or of a kind that is not known here.
    """
    if type(database) not in (QdrantRemote, AsyncQdrantRemote):
        return database
    unwanted = (*_NOT_OF_A_SERVER, *_NOT_SENT)
    sent = {name: value for name, value in options.items() if name not in unwanted}
    sent["url"] = sent.get("url") or options.get("location")
    sent["grpc_options"] = _without_agent(sent.get("grpc_options"))
    sent["check_compatibility"] = False
    fresh = type(database)(**sent)
    keep_time(fresh, grpc=bool(sent.get("prefer_grpc")))
    fresh.http.client.middleware = database.http.client.middleware
    return fresh
