"""Connections of a client: options of new ones, keys they can carry, and when others are needed."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

import httpx
from qdrant_client.async_qdrant_remote import AsyncQdrantRemote
from qdrant_client.local.async_qdrant_local import AsyncQdrantLocal
from qdrant_client.local.qdrant_local import QdrantLocal
from qdrant_client.qdrant_remote import QdrantRemote

from qdrant_embed.errors import InputError

# A channel that lost its server answers UNAVAILABLE without asking, until it connects again: by
# default after a second, then two, four, up to two minutes.
_GRPC_OPTIONS = {
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1000,
}
_NOT_OF_A_SERVER = ("location", "path", "force_disable_check_same_thread")
_NOT_SENT = ("cloud_inference", "local_inference_batch_size")
_UNSENDABLE = re.compile(r"[^\t\x20-\x7e]|^[\t ]|[\t ]$")  # in a header's value


def connection_options(constructor: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Return the arguments of a client's constructor by name, with our defaults where none is set.

    Args:
        constructor: ``__init__`` of ``qdrant_client``'s client.
        args: its positional arguments.
        kwargs: its keyword arguments.

    Raises:
        InputError: if a key or a header has characters that no header can carry.
    """
    bound = inspect.signature(constructor).bind(None, *args, **kwargs).arguments
    extra: dict[str, Any] = bound.pop("kwargs", {})
    options: dict[str, Any] = {
        name: value for name, value in bound.items() if name != "self"
    } | extra
    check_headers(options)
    if options.get("path") is None and options.get("location") != ":memory:":
        options["grpc_options"] = _GRPC_OPTIONS | _own(options.get("grpc_options"))
    return options


def _own(grpc_options: Mapping[str, Any] | None) -> dict[str, Any]:
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


TIME_LEFT: ContextVar[Callable[[], float] | None] = ContextVar("seconds left", default=None)


def keep_time(database: Any) -> None:
    """Let REST requests take no longer than `TIME_LEFT` says, where it is set.

    Some methods of ``qdrant_client`` have no timeout of their own, and others only whole seconds.
    """
    if isinstance(database, QdrantRemote):
        database.http.client.add_middleware(_in_time)
    elif isinstance(database, AsyncQdrantRemote):
        database.http.client.add_middleware(_async_in_time)


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
    sent["grpc_options"] = _own(sent.get("grpc_options"))
    sent["check_compatibility"] = False
    fresh = type(database)(**sent)
    fresh.http.client.middleware = database.http.client.middleware
    return fresh
