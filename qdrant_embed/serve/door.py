"""The door: what every request must be before anything reads it, and how long it may take.

A page on the web can have its reader's browser send requests to this service on loopback. It
cannot read the answers, unless its own name suddenly resolves to loopback (DNS rebinding); then the
``Host`` header names that page's host, and the request is refused. Requests that change something
are refused if their ``Origin`` is another, and a body must say that it is JSON, which a page cannot
do without asking first.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import anyio
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qdrant_embed.errors import InputError
from qdrant_embed.limits import SERVICE_BODIES, SERVICE_BODY, SERVICE_UPLOAD
from qdrant_embed.serve.failures import Refusal

logger = logging.getLogger(__name__)

SHORTEST_KEY = 16
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
_SAFE_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


@dataclass(frozen=True)
class Key:
    """The key that requests must have.

    Raises:
        InputError: if it is too short, or cannot be sent in a header.
    """

    value: str = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.value) < SHORTEST_KEY or not self.value.isascii() or " " in self.value:
            raise InputError(
                f"the service's key must have {SHORTEST_KEY} characters or more, ASCII without "
                f"spaces; this one has {len(self.value)}: make one with 'openssl rand -hex 24'"
            )

    def equals(self, given: bytes) -> bool:
        """Return whether a request has the key, in a time that tells nothing of it."""
        return hmac.compare_digest(
            hashlib.sha256(given).digest(), hashlib.sha256(self.value.encode()).digest()
        )


@dataclass(frozen=True)
class Rules:
    """What requests must be.

    Attributes:
        key: the key that they must have; ``None`` if they need none.
        hosts: names of this service, without ports; ``None`` if any name is right, as behind a key.
        open_paths: paths that need no key; one that ends in a slash stands for all below it.
        most_body: bytes of a body.
        json_only: whether a body must say that it is JSON.
    """

    key: Key | None = None
    hosts: frozenset[str] | None = frozenset(_LOOPBACK_NAMES)
    open_paths: tuple[str, ...] = ()
    most_body: int = SERVICE_BODY
    json_only: bool = True

    def needs_key(self, path: str) -> bool:
        """Return whether requests to a path must have the key."""
        return self.key is not None and not any(
            path == known or (known.endswith("/") and len(known) > 1 and path.startswith(known))
            for known in self.open_paths
        )


def is_loopback(host: str) -> bool:
    """Return whether an address to listen on is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def rules_for(
    host: str,
    key: str | None,
    names: Sequence[str] = (),
    open_paths: tuple[str, ...] = (),
    most_body: int = SERVICE_BODY,
) -> Rules:
    """Return the rules of a service that listens on an address.

    Args:
        host: the address.
        key: the key that requests must have, if one is set.
        names: names of this service, as of a proxy before it; the only ones besides loopback's.
        open_paths: see `Rules`.
        most_body: see `Rules`.

    Raises:
        InputError: if the address is reached from other machines, and there is no key; or the key
            cannot be used.
    """
    if not is_loopback(host) and key is None:
        raise InputError(
            f"--host {host} is reached from other machines, and there is no key: set "
            "QDRANT_EMBED_API_KEY, or listen on 127.0.0.1"
        )
    known = {*_LOOPBACK_NAMES, _bracketed(host), *(name.lower() for name in names)}
    hosts = None if not is_loopback(host) and not names else frozenset(known)
    return Rules(None if key is None else Key(key), hosts, open_paths, most_body)


class Door:
    """An ASGI application before another one: it refuses, and reads bodies.

    Args:
        app: gets what is let in, with its whole body.
        rules: what requests must be.
    """

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        self._app, self._rules = app, rules
        self._bytes = 0  # of the bodies that are in

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        taken = 0
        answer = _Answer(send)
        try:
            headers = _headers(scope)
            self._check(scope, headers)
            body = bytearray()
            try:
                with anyio.fail_after(SERVICE_UPLOAD):
                    more = True
                    while more:
                        message = await receive()
                        if message["type"] == "http.disconnect":
                            return
                        chunk = message.get("body", b"")
                        body += chunk
                        taken += len(chunk)
                        self._bytes += len(chunk)
                        self._check_size(len(body), self._bytes - len(body))
                        more = message.get("more_body", False)
            except TimeoutError:
                raise Refusal(
                    408, f"the body did not arrive within {SERVICE_UPLOAD:.0f} s", "too_slow"
                ) from None
            self._check_type(headers, has_body=bool(body))
            await self._app(scope, _Replayed(bytes(body), receive), answer)
        except Refusal as refusal:
            if not answer.begun:
                await respond(refusal, scope, receive, answer)
        finally:
            self._bytes -= taken

    def _check(self, scope: Scope, headers: dict[str, list[bytes]]) -> None:
        """Refuse a request for its headers alone."""
        hosts = headers.get("host", [])
        if len(hosts) != 1:
            raise Refusal(400, "a request has one Host header", "invalid_host")
        host = hosts[0].decode("latin-1").lower()
        if self._rules.hosts is not None and _without_port(host) not in self._rules.hosts:
            raise Refusal(
                421,
                f"this service is not called {host!r:.80}: --allowed-host NAME says that it is",
                "unknown_host",
            )
        for origin in headers.get("origin", []):
            if _authority(origin.decode("latin-1")) != host:
                raise Refusal(403, "pages of other origins are not answered", "foreign_origin")
        if self._rules.needs_key(scope["path"]):
            self._check_key(headers)
        for length in headers.get("content-length", []):
            if length.isdigit():
                self._check_size(int(length[:20]), 0)

    def _check_key(self, headers: dict[str, list[bytes]]) -> None:
        given = list(headers.get("api-key", []))
        for value in headers.get("authorization", []):
            scheme, _, rest = value.partition(b" ")
            if scheme.lower() == b"bearer":
                given.append(rest.strip())
        key = self._rules.key
        if key is not None and not any(map(key.equals, given)):
            said = "the key is wrong" if given else "a key is missing"
            raise Refusal(
                401,
                f"{said}: send 'Authorization: Bearer KEY' or 'api-key: KEY'",
                "invalid_api_key",
            )

    def _check_size(self, size: int, others: int) -> None:
        if size > self._rules.most_body:
            raise Refusal(
                413,
                f"the body is larger than {self._rules.most_body:,} bytes: send less in one "
                "request",
                "body_too_large",
            )
        if others and others + size > SERVICE_BODIES:
            raise Refusal(
                429,
                "the bodies of other requests fill the memory that is for them",
                "busy",
                retry_after=1,
            )

    def _check_type(self, headers: dict[str, list[bytes]], *, has_body: bool) -> None:
        if not has_body or not self._rules.json_only:
            return
        kinds = [
            value.partition(b";")[0].strip().lower() for value in headers.get("content-type", [])
        ]
        if kinds != [b"application/json"]:
            raise Refusal(
                415,
                "the body must be JSON, and say so: 'Content-Type: application/json'",
                "unsupported_media_type",
            )


class _Answer:
    """The sending half of a request, which adds headers."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            own = {name.lower() for name, _ in message.get("headers", [])}
            added = [pair for pair in _SAFE_HEADERS if pair[0] not in own]
            message = {**message, "headers": [*message.get("headers", []), *added]}
        await self._send(message)


class _Replayed:
    """The receiving half of a request whose body has been read."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


async def respond(refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    """Send the answer of a refusal."""
    headers = dict(refusal.headers)
    if refusal.status in (408, 413):  # what is left of the body is not read
        headers["Connection"] = "close"
    body = refusal.body.model_dump_json()
    response = Response(body, refusal.status, headers, "application/json")
    await response(scope, receive, send)


def _headers(scope: Scope) -> dict[str, list[bytes]]:
    headers: dict[str, list[bytes]] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode("latin-1").lower(), []).append(value)
    return headers


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() else host


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host.lower()


def _authority(origin: str) -> str | None:
    """Return the host and port of an origin; ``None`` for one that has none."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None
