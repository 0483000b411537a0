"""Which failures of a request are worth another try, and when."""

from __future__ import annotations

import logging
import random

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


def wait_before_retry(error: Exception, tries: int, max_retries: int) -> float | None:
    """Seconds before the next try, or ``None`` where there should be none."""
    if tries > max_retries or not is_transient(error):
        return None
    wait = wait_seconds(error, tries)
    logger.warning("trying again in %.1f s: %s", wait, error)
    return wait
