"""Listening on an address until the process is told to stop."""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from qdrant_embed.errors import InputError
from qdrant_embed.limits import SERVICE_CONNECTIONS, SERVICE_HEADERS, SERVICE_READING

IDLE_SECONDS = 30  # for which a connection is kept without a request
STOPPING_SECONDS = 30  # that requests in work have when the process is told to stop
_WAITING_CONNECTIONS = 2_048
_LONGEST_HEAD = 1 << 16  # bytes; as long as h11 reads


class _Bounded(asyncio.Protocol):
    """One of uvicorn's protocols, whose clients hold nothing that they do not use.

    These are half a request, and an answer that is not read. A connection that is closed waits
    until all that was sent is read; these are cut.
    """

    cycle: Any
    loop: asyncio.AbstractEventLoop
    transport: Any
    _deadline: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._deadline, self._unread):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(SERVICE_READING, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()

    def _expect_headers(self) -> None:
        """Start to wait for a request's headers, or end it when they have arrived."""
        is_waiting = self.cycle is None or self.cycle.response_complete
        if is_waiting and self._deadline is None:
            self._deadline = self.loop.call_later(SERVICE_HEADERS, self.transport.close)
        elif not is_waiting and self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _protocol() -> type[asyncio.Protocol]:
    """Return the protocol with the faster parser of HTTP, if that is installed."""
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    except ModuleNotFoundError:
        from uvicorn.protocols.http.h11_impl import H11Protocol

        class WithH11(_Bounded, H11Protocol):
            pass

        return WithH11

    class WithHttpTools(_Bounded, HttpToolsProtocol):
        """The one that bounds neither headers nor what follows a body."""

        _unused = 0  # bytes received since the parser made something of them

        def data_received(self, data: bytes) -> None:
            self._unused += len(data)
            super().data_received(data)
            if self._unused > _LONGEST_HEAD and not self.transport.is_closing():
                self.send_400_response("The headers are too long.")

        def on_headers_complete(self) -> None:
            self._unused = 0
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._unused = 0
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._unused = 0
            super().on_message_complete()

    return WithHttpTools


def bound(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address; port 0 is any free one.

    Raises:
        InputError: if that is not possible.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # of a socket without its protocol, asyncio does not know that small writes shall not wait
        opened = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InputError(f"--host {host} is not an address: {error.strerror}") from error
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(_WAITING_CONNECTIONS)
    except OSError as error:
        opened.close()
        raise InputError(f"{host}:{port} cannot be listened on: {error.strerror}") from error
    return opened


@dataclass(frozen=True)
class Certificate:
    """What a service proves its name with, and encrypts by (TLS).

    Attributes:
        certificates: PEM file of the certificate and those that signed it.
        key: PEM file of its private key, which must not need a password; by default it is in the
            same file.

    Raises:
        InputError: if these cannot be read, or do not belong together.
    """

    certificates: str
    key: str | None = None

    def __post_init__(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.certificates, self.key, password=lambda: "")
        except (OSError, ValueError) as error:  # those of ssl are OSErrors
            files = self.certificates if self.key is None else f"{self.certificates}, {self.key}"
            raise InputError(
                f"{files}: no certificate with its private key can be read from there, in PEM "
                f"format and without a password: {error}"
            ) from error


def address_of(opened: socket.socket, certificate: Certificate | None = None) -> str:
    """Return the URL of a socket that listens, with or without TLS."""
    host, port = opened.getsockname()[:2]
    scheme = "http" if certificate is None else "https"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def run(app: ASGIApp, opened: socket.socket, certificate: Certificate | None = None) -> None:
    """Answer requests until the process is told to stop; those in work are answered first."""
    server_of(app, certificate).run(sockets=[opened])


def server_of(app: ASGIApp, certificate: Certificate | None = None) -> uvicorn.Server:
    """Return what answers requests of HTTP/1.1, with a bound for what clients may hold."""
    config = uvicorn.Config(
        app,
        http=_protocol(),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=SERVICE_CONNECTIONS,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=STOPPING_SECONDS,
        ssl_certfile=None if certificate is None else certificate.certificates,
        ssl_keyfile=None if certificate is None else certificate.key,
    )
    return uvicorn.Server(config)
