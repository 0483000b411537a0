"""A Qdrant server over REST or gRPC: what its errors mean."""

from __future__ import annotations

import grpc
import httpx
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import (
    ApiException,
    ResponseHandlingException,
    UnexpectedResponse,
)

from qdrant_embed.backoff import retry_after_seconds
from qdrant_embed.engines.engine import Engine

# everything that a request can raise that is not the caller's mistake
REQUEST_ERRORS = (ApiException, QdrantException, grpc.RpcError)

_TRANSIENT_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
_TRANSIENT_CODES = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)

_SERVER = Engine(
    name="server",
    serialize=False,
    off_loop=False,
    payload_index=True,
    refusals=(UnexpectedResponse, grpc.RpcError),
)


def recognise(database: object) -> Engine:
    """Return the engine of a server, which is behind every client that is not local."""
    del database
    return _SERVER


def is_transient(error: Exception) -> bool:
    """Return whether the same request can succeed later, as after a timeout or an overload."""
    if isinstance(error, UnexpectedResponse):
        return error.status_code in _TRANSIENT_STATUSES
    if isinstance(error, ResponseHandlingException):
        return isinstance(error.source, httpx.TransportError)
    if isinstance(error, grpc.RpcError):
        return isinstance(error, grpc.Call) and error.code() in _TRANSIENT_CODES
    return isinstance(error, ResourceExhaustedResponse)


def is_too_large(error: Exception) -> bool:
    """Return whether the request is too large, so that a smaller one can succeed."""
    if isinstance(error, UnexpectedResponse):
        return error.status_code == 413 or (  # Qdrant itself answers 400, proxies answer 413
            error.status_code == 400 and b"larger than allowed" in error.content
        )
    return (
        isinstance(error, grpc.RpcError)
        and isinstance(error, grpc.Call)
        and "message length too large" in (error.details() or "")
    )


def requested_wait(error: Exception) -> float | None:
    """Return the seconds to wait before a retry, if the server specified them, else ``None``."""
    if isinstance(error, ResourceExhaustedResponse):
        return float(error.retry_after_s)
    if isinstance(error, UnexpectedResponse):
        return retry_after_seconds(error.headers.get("Retry-After"))
    return None
