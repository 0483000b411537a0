"""Which failures of a request are worth another try, and when."""

from __future__ import annotations

import random

import grpc
import httpx
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

_PASSING_STATUS = frozenset({408, 429, 500, 502, 503, 504})
_PASSING_CODES = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
_FIRST_WAIT, _LONGEST_WAIT = 0.25, 8.0  # seconds


def is_transient(error: Exception) -> bool:
    """Whether the same request may well succeed later: the network, a timeout, an overload."""
    if isinstance(error, UnexpectedResponse):
        return error.status_code in _PASSING_STATUS
    if isinstance(error, ResponseHandlingException):
        return isinstance(error.source, httpx.TransportError)
    if isinstance(error, grpc.RpcError):
        return isinstance(error, grpc.Call) and error.code() in _PASSING_CODES
    return isinstance(error, ResourceExhaustedResponse)


def wait_seconds(error: Exception, tries: int) -> float:
    """Seconds before the next try, after `tries` of them: what the server asked for, else
    doubling from a quarter second to eight, with jitter so that clients do not come together.
    """
    if isinstance(error, ResourceExhaustedResponse):
        return float(error.retry_after_s)
    longest = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (tries - 1))
    return random.uniform(longest / 2, longest)  # noqa: S311 - spreads clients, hides nothing
