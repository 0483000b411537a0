"""Connections of a client: how they are opened, to which engine, and when to open others.

A folder is opened by one of two engines: see `qdrant_embed.engines.folders`.

A server that compresses an answer sends it in several small writes. On a connection that is kept
alive, each then waits for the client's kernel to acknowledge the one before, 40 ms: ten texts came
after 46 ms, and uncompressed after 4. So answers are asked for as they are, unless the user's own
headers say otherwise. Without compression there is no reason left to open a connection for each
request on loopback, as ``qdrant_client`` does against this very delay.
"""

from __future__ import annotations

import difflib
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import httpx
import qdrant_client
from qdrant_client.async_qdrant_remote import AsyncQdrantRemote
from qdrant_client.local.async_qdrant_local import AsyncQdrantLocal
from qdrant_client.local.qdrant_local import QdrantLocal
from qdrant_client.qdrant_remote import QdrantRemote

from qdrant_embed.engines import embedded, local, server
from qdrant_embed.engines.embedded import open_edge
from qdrant_embed.engines.engine import Engine
from qdrant_embed.engines.folders import chosen_engine
from qdrant_embed.engines.guard import guarded, unguarded
from qdrant_embed.errors import InputError

ClientT = TypeVar("ClientT", bound="OwnConnections")
AsyncClientT = TypeVar("AsyncClientT", bound="OwnAsyncConnections")

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
_KEYWORDS: Mapping[str, tuple[Any, str]] = {
    "engine": (None, "str | None"),
    "optimize": (True, "bool"),
    "trust_stamps": (False, "bool"),
    "offline": (False, "bool"),
}
_OF_MODELS = ("trust_stamps", "offline")  # of every client, whatever it is connected to
# what qdrant_client passes on to httpx, and takes for itself
_OF_REQUESTS = {*inspect.signature(httpx.Client).parameters, "metadata"}
_UNSENDABLE = re.compile(r"[^\t\x20-\x7e]|^[\t ]|[\t ]$")  # in a header's value


def _with_keywords(constructor: Callable[..., None]) -> Callable[..., Any]:
    """Have a constructor show the signature of another one, with our keywords."""

    def wrapped(ours: Callable[..., None]) -> Callable[..., None]:
        shown = inspect.signature(constructor)
        *named, others = shown.parameters.values()
        keywords = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=of)
            for name, (default, of) in _KEYWORDS.items()
        ]
        wraps(constructor)(ours)
        ours.__signature__ = shown.replace(parameters=[*named, *keywords, others])  # type: ignore[attr-defined] # functions have it
        return ours

    return wrapped


class OwnConnections(qdrant_client.QdrantClient):
    """A synchronous client that keeps its connections, and asks for uncompressed answers.

    The constructor is that of the next class, with two keywords more for a folder (``path=``), and
    two for models. What its user passes is respected. A key that no header can carry is an
    `InputError`, and so is a keyword that nothing knows; a gRPC channel connects again at once
    after its server was restarted.

    Args of the constructor, in addition:
        engine: ``"edge"`` for the embedded engine, of the extra ``edge``; ``"local"`` for the local
            mode of ``qdrant_client``. By default that which made the folder, and for a new one
            ``"edge"`` if it is installed.
        optimize: whether the embedded engine builds indices in the background once a search
            without one takes more than about 1 ms, or 5 ms while much is stored.
        trust_stamps: whether collections may name any model on the hub; see
            `qdrant_embed.collection.selection`.
        offline: whether models that this client finds by name are never fetched.
    """

    if not TYPE_CHECKING:  # its signature, too, is that of the next class

        @_with_keywords(qdrant_client.QdrantClient.__init__)
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._model_keywords = _of_models(super().__init__, kwargs)
            opening = _opening(super().__init__, args, kwargs)
            super().__init__(*opening.args, **opening.kwargs)
            if opening.folder is not None:
                self._client.close()
                opening.folder.open(self, asynchronous=False)
            self._client = guarded(self._client)
            _ask_uncompressed(self)

    def __enter__(self: ClientT) -> ClientT:
        """Return the client, which is closed when the block ends."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the client."""
        self.close()

    def __del__(self) -> None:
        if not sys.is_finalizing():  # when local mode fails to import what it unlocks its folder by
            super().__del__()


class OwnAsyncConnections(qdrant_client.AsyncQdrantClient):
    """Like `OwnConnections`, an asynchronous client."""

    if not TYPE_CHECKING:

        @_with_keywords(qdrant_client.AsyncQdrantClient.__init__)
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._model_keywords = _of_models(super().__init__, kwargs)
            opening = _opening(super().__init__, args, kwargs)
            super().__init__(*opening.args, **opening.kwargs)
            if opening.folder is not None:
                opening.folder.open(self, asynchronous=True)
            self._client = guarded(self._client)
            _ask_uncompressed(self)

    async def __aenter__(self: AsyncClientT) -> AsyncClientT:
        """Return the client, which is closed when the block ends."""
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Close the client."""
        await self.close()


@dataclass(frozen=True)
class _EmbeddedFolder:
    """A folder that the embedded engine opens for a client.

    Attributes:
        path: the folder.
        optimize: whether indices are built in the background.
    """

    path: str | os.PathLike[str]
    optimize: bool

    def open(self, client: Any, *, asynchronous: bool) -> None:
        """Have a client, which was made for memory, use the folder."""
        client._client = open_edge(self.path, asynchronous=asynchronous, optimize=self.optimize)
        client._init_options |= {
            "location": None,
            "path": self.path,
            "engine": "edge",
            "optimize": self.optimize,
        }


@dataclass(frozen=True)
class _Opening:
    """How the constructor of the next class is called.

    Attributes:
        args: its positional arguments.
        kwargs: its keyword arguments.
        folder: what the client uses in place of what that constructor opens.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    folder: _EmbeddedFolder | None = None


def _of_models(constructor: Callable[..., None], kwargs: dict[str, Any]) -> dict[str, bool]:
    """Take our keywords about models out of `kwargs`, unless the next class has such itself.

    Raises:
        InputError: if one is neither true nor false.
    """
    theirs = inspect.signature(constructor).parameters
    names = [name for name in _OF_MODELS if name in kwargs and name not in theirs]
    for name in names:
        if not isinstance(kwargs[name], bool):
            raise InputError(f"{name} must be True or False, not {kwargs[name]!r:.80}")
    return {name: kwargs.pop(name) for name in names}


def _opening(
    constructor: Callable[..., None], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> _Opening:
    """Return how a client is opened, with our defaults where nothing is given.

    Args:
        constructor: the bound ``__init__``, which is left alone if it is not of ``qdrant_client``.
        args: its positional arguments.
        kwargs: its keyword arguments, and ours.

    Raises:
        InputError: if a key or a header has characters that no header can carry, or nothing knows
            a keyword.
        FolderError: if another engine made the folder.
        MissingDependencyError: if the embedded engine is wanted, but not installed.
    """
    own = (qdrant_client.QdrantClient.__init__, qdrant_client.AsyncQdrantClient.__init__)
    if getattr(constructor, "__func__", None) not in own:
        return _Opening(args, kwargs)
    ours = {name: kwargs.pop(name) for name in _KEYWORDS if name in kwargs}
    try:
        options = inspect.signature(constructor).bind(*args, **kwargs).arguments
    except TypeError:  # the constructor says so better
        return _Opening(args, kwargs)
    others = options.pop("kwargs", {})
    _check_known(constructor, others)
    options |= others
    check_headers(options)
    engine, optimize = ours.get("engine"), ours.get("optimize", True)
    if not isinstance(optimize, bool):
        raise InputError(f"optimize must be True or False, not {optimize!r:.80}")
    path, is_memory = options.get("path"), options.get("location") == ":memory:"
    if path is None:
        if engine is not None and not (is_memory and engine == "local"):
            where = "':memory:' is local mode" if is_memory else "a server is its own engine"
            raise InputError(f"engine={engine!r:.80} is for a folder (path=): {where}")
        if not is_memory:
            options["grpc_options"] = _GRPC_OPTIONS | _without_agent(options.get("grpc_options"))
            if not options.get("pool_size"):
                options.setdefault("limits", LIMITS)
    elif chosen_engine(path, engine) == "edge":
        del options["path"]
        if not any(options.get(name) for name in ("location", "url", "host")):
            options["location"] = ":memory:"
            return _Opening((), options, _EmbeddedFolder(path, optimize))
        options["path"] = path  # two places, as the constructor says
    return _Opening((), options)


def _check_known(constructor: Callable[..., None], keywords: Mapping[str, Any]) -> None:
    """Raise `InputError` for a keyword that neither ``qdrant_client`` nor ``httpx`` knows."""
    known = {*inspect.signature(constructor).parameters, *_KEYWORDS, *_OF_REQUESTS}
    known -= {"kwargs"}
    for name in keywords:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise InputError(f"unknown keyword {name!r} of a client{hint}")


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


# tried in this order; the last one recognises everything
_RECOGNISE: tuple[Callable[[object], Engine | None], ...] = (
    local.recognise,
    embedded.recognise,
    server.recognise,
)


def engine_of(database: object) -> Engine:
    """Return the engine of `database`, the object that a ``qdrant_client`` client wraps."""
    engines = (recognise(database) for recognise in _RECOGNISE)
    return next(engine for engine in engines if engine is not None)


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
    kind = unguarded(type(database))
    if kind not in (QdrantRemote, AsyncQdrantRemote):
        return database
    unwanted = (*_NOT_OF_A_SERVER, *_NOT_SENT)
    sent = {name: value for name, value in options.items() if name not in unwanted}
    sent["url"] = sent.get("url") or options.get("location")
    sent["grpc_options"] = _without_agent(sent.get("grpc_options"))
    sent["check_compatibility"] = False
    fresh = guarded(kind(**sent))
    keep_time(fresh, grpc=bool(sent.get("prefer_grpc")))
    fresh.http.client.middleware = database.http.client.middleware
    return fresh
