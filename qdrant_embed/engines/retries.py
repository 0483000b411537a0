"""Which failures of a request are worth another try, and when."""

from __future__ import annotations

import logging
import random
import time

import grpc
import httpx
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import (
    ApiException,
    ResponseHandlingException,
    UnexpectedResponse,
)

logger = logging.getLogger(__name__)

# what a request may raise, and what a refusal of the server or of a local database raises
REQUEST_ERRORS = (ApiException, QdrantException, grpc.RpcError)
REFUSALS = (UnexpectedResponse, grpc.RpcError, ValueError)

_PASSING_STATUS = frozenset({408, 429, 500, 502, 503, 504})
_PASSING_CODES = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
_FIRST_WAIT, _LONGEST_WAIT = 0.25, 8.0  # seconds
LONGEST_RETRYING = 300.0  # seconds after a request's first try
MAX_RETRIES = 3


def is_transient(error: Exception) -> bool:
    """Whether the same request may well succeed later: the network, a timeout, an overload."""
    if isinstance(error, UnexpectedResponse):
        return error.status_code in _PASSING_STATUS
    if isinstance(error, ResponseHandlingException):
        return isinstance(error.source, httpx.TransportError)
    if isinstance(error, grpc.RpcError):
        return isinstance(error, grpc.Call) and error.code() in _PASSING_CODES
    return isinstance(error, ResourceExhaustedResponse)


def is_too_large(error: Exception) -> bool:
    """Whether the server takes no request of that size: a smaller one may succeed."""
    if isinstance(error, UnexpectedResponse):
        return error.status_code == 413 or (  # Qdrant itself says 400, proxies 413
            error.status_code == 400 and b"larger than allowed" in error.content
        )
    return (
        isinstance(error, grpc.RpcError)
        and isinstance(error, grpc.Call)
        and "message length too large" in (error.details() or "")
    )


def wait_seconds(error: Exception, tries: int) -> float:
    """Seconds before the next try, after `tries` of them: what the server asked for, else
    doubling from a quarter second to eight, with jitter so that clients do not come together.
    """
    if isinstance(error, ResourceExhaustedResponse):
        return float(error.retry_after_s)
    if isinstance(error, UnexpectedResponse):
        asked = error.headers.get("Retry-After", "")
        if asked.isdecimal():  # a date, its other form, is left to the doubling
            return float(asked)
    longest = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (tries - 1))
    return random.uniform(longest / 2, longest)  # noqa: S311 - spreads clients, hides nothing


class Retries:
    """The tries of one request: how many more there may be, and when.

    Args:
        max_retries: further tries after the first. None begins later than five minutes after it,
            however long a server asks to wait.
    """

    def __init__(self, max_retries: int) -> None:
        self._max_retries = max_retries
        self._tries = 0
        self._start = time.monotonic()

    def wait_after(self, error: Exception) -> float | None:
        """Seconds before the next try, or ``None`` where there should be none."""
        self._tries += 1
        if self._tries > self._max_retries or not is_transient(error):
            return None
        wait = wait_seconds(error, self._tries)
        if time.monotonic() - self._start + wait > LONGEST_RETRYING:
            return None
        logger.warning("trying again in %.1f s: %s", wait, error)
        return wait
