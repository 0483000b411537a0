"""What a request lacks on a server: a collection, a shard key, a copy, a cluster, a right."""

from __future__ import annotations

import re

import grpc
from qdrant_client.http.exceptions import UnexpectedResponse

_NOT_FOUND = 404
_DENIED = frozenset({401, 403})
_DENIED_CODES = frozenset({grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED})
_LOCAL = re.compile(r"Collection .* not found", re.DOTALL)
_PART = re.compile(r"Shard key .*not found|Not existing vector name", re.DOTALL)
_COPY = re.compile(r"not have enough active replicas|\d+ read operations failed")
_SINGLE_NODE = "Distributed mode disabled"


def is_missing(error: BaseException) -> bool:
    """Return whether a request failed because its collection does not exist."""
    if isinstance(error, UnexpectedResponse):
        return error.status_code == _NOT_FOUND
    if isinstance(error, grpc.RpcError):
        return bool(_code(error) == grpc.StatusCode.NOT_FOUND)
    if isinstance(error, LookupError):
        return error.__cause__ is not None and is_missing(error.__cause__)
    return isinstance(error, ValueError) and _LOCAL.fullmatch(str(error)) is not None


def may_come(error: BaseException) -> bool:
    """Return whether what is missing may be there soon, if it has just been created.

    Another node of a cluster may not know yet of a collection, a vector or a shard key.
    """
    return is_missing(error) or _PART.search(str(error)) is not None


def is_copy_down(error: BaseException) -> bool:
    """Return whether fewer copies of a shard answered than the request asks for."""
    return _COPY.search(str(error)) is not None


def is_single_node(error: BaseException) -> bool:
    """Return whether a server refused shard keys because it is no cluster."""
    return _SINGLE_NODE in str(error)


def is_denied(error: BaseException) -> bool:
    """Return whether the client has no right to do this, or no key."""
    if isinstance(error, UnexpectedResponse):
        return error.status_code in _DENIED
    if isinstance(error, grpc.RpcError):
        return _code(error) in _DENIED_CODES
    return isinstance(error, PermissionError)


def _code(error: grpc.RpcError) -> object:
    code = getattr(error, "code", None)  # that of grpc.aio is no grpc.Call
    return code() if callable(code) else None
