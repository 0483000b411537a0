"""A Qdrant server over REST or gRPC: what its errors mean."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

import grpc
import httpx
from pydantic import ValidationError
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import (
    ApiException,
    ResponseHandlingException,
    UnexpectedResponse,
)

from qdrant_embed.backoff import retry_after_seconds
from qdrant_embed.engines.engine import Engine
from qdrant_embed.errors import (
    CollectionNotFoundError,
    PermissionRefusal,
    QdrantEmbedError,
    ServerRefusal,
)

# everything that a request can raise that is not the caller's mistake
REQUEST_ERRORS = (ApiException, QdrantException, grpc.RpcError)
# qdrant_client's, of an answer with status 200 that is not Qdrant's
NO_ANSWERS = (json.JSONDecodeError, AssertionError)

CapName: TypeAlias = Literal["limit", "upsert limit", "search batch size", "timeout", "condition"]

_Code = grpc.StatusCode
_CODES = {  # of REST's statuses, as gRPC has them
    400: _Code.INVALID_ARGUMENT,
    401: _Code.UNAUTHENTICATED,
    403: _Code.PERMISSION_DENIED,
    404: _Code.NOT_FOUND,
    408: _Code.DEADLINE_EXCEEDED,
    409: _Code.ALREADY_EXISTS,
    413: _Code.OUT_OF_RANGE,
    422: _Code.INVALID_ARGUMENT,
    429: _Code.RESOURCE_EXHAUSTED,
    500: _Code.INTERNAL,
    502: _Code.UNAVAILABLE,
    503: _Code.UNAVAILABLE,
    504: _Code.UNAVAILABLE,
}
_PASSING = frozenset(
    {
        _Code.UNAVAILABLE,
        _Code.DEADLINE_EXCEEDED,
        _Code.RESOURCE_EXHAUSTED,
        _Code.INTERNAL,
    }
)
_REFUSALS = frozenset(
    {
        _Code.INVALID_ARGUMENT,
        _Code.NOT_FOUND,
        _Code.ALREADY_EXISTS,
        _Code.FAILED_PRECONDITION,
        _Code.OUT_OF_RANGE,
        _Code.UNIMPLEMENTED,
    }
)

# what tells that the same request fails for ever, in the text of a failed connection
_WRONG_CONNECTION = re.compile(
    r"CERTIFICATE_VERIFY_FAILED|Hostname Verification|WRONG_VERSION_NUMBER|record layer failure|"
    r"packet length too long|illegal (status|request) line|SETTINGS frame|Invalid metadata"
)
_NO_ANSWER = re.compile("connect|resol|lookup|socket closed|by peer", re.IGNORECASE)
_REFUSED_BY_PROXY = re.compile(r"4\d\d\b")
_TOO_LARGE = re.compile(r"larger than allowed|message length too large|message larger than max")
_OVER_BUDGET = "please try to split"  # above what a rate limit allows in a whole minute

_NO_COLLECTION = re.compile(r"Collection `(.*?)` doesn't exist", re.DOTALL)
_NO_INDEX = re.compile(
    r'Index required but not found for "(?P<field>.*?)"'
    r"(?: of one of the following types: \[(?P<types>[^\]]*)\])?"
)
_CAP = re.compile(r'Limit exceeded (?P<asked>\d+) > (?P<most>\d+) for "(?P<name>[^"]+)"')
_CONDITION_CAP = re.compile(r"Condition size limit reached \((?P<asked>\d+) > (?P<most>\d+)\)")


def recognise(database: object) -> Engine:
    """Return the engine of a server, which is behind every client that is not local."""
    del database
    return _SERVER


@dataclass(frozen=True)
class Answer:
    """What a server answered instead of a result, over REST and gRPC alike.

    Attributes:
        code: gRPC's code; of REST the one that its status corresponds to.
        message: the server's reason, in one line; empty without one.
    """

    code: grpc.StatusCode
    message: str


@dataclass(frozen=True)
class Cap:
    """A number that a collection's strict mode allows at most.

    Attributes:
        name: what it limits.
        most: the largest number that is accepted.
    """

    name: CapName
    most: int


def answer_of(error: BaseException) -> Answer | None:
    """Return what the server answered; ``None`` if there was no answer."""
    if isinstance(error, UnexpectedResponse):
        status = error.status_code or 0
        other = _Code.FAILED_PRECONDITION if 400 <= status < 500 else _Code.UNKNOWN
        return Answer(_CODES.get(status, other), _rest_message(error))
    if isinstance(error, grpc.RpcError):  # that of grpc.aio is no grpc.Call
        code, details = getattr(error, "code", None), getattr(error, "details", None)
        if not callable(code) or not isinstance(found := code(), _Code):
            return None
        return Answer(found, _one_line((details() if callable(details) else "") or ""))
    if isinstance(error, ResourceExhaustedResponse):
        return Answer(_Code.RESOURCE_EXHAUSTED, _one_line(str(error)))
    return None


def _rest_message(error: UnexpectedResponse) -> str:
    """Return the reason in an answer's body, which may be JSON, text, or a proxy's page."""
    text = error.content.decode(errors="replace")
    try:
        return _one_line(str(json.loads(text)["status"]["error"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        is_page = text.lstrip().startswith(("<", "{", "["))
        return _one_line((error.reason_phrase if is_page else text) or error.reason_phrase or "")


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 500 else f"{line[:500]}..."


def in_one_line(error: BaseException) -> str:
    """Return what went wrong in one line, which the errors of gRPC, and empty ones, are not."""
    if (answer := answer_of(error)) is not None:
        code = answer.code.name.lower().replace("_", " ")
        return f"{code}: {answer.message}" if answer.message else code
    if isinstance(error, ResponseHandlingException):
        error = error.source
    return _one_line(str(error)) or type(error).__name__


def is_transient(error: BaseException) -> bool:
    """Return whether the same request may succeed later: the network, a timeout, an overload."""
    if isinstance(error, ResponseHandlingException):
        return isinstance(error.source, httpx.TransportError) and not _is_wrong(error.source)
    if is_too_large(error) or is_over_budget(error):
        return False
    answer = answer_of(error)
    return (
        answer is not None
        and answer.code in _PASSING
        and not _WRONG_CONNECTION.search(answer.message)
    )


def _is_wrong(error: httpx.TransportError) -> bool:
    """Return whether a connection will fail for ever: a certificate, a protocol, a proxy's no."""
    if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
        return True
    if isinstance(error, httpx.ProxyError) and _REFUSED_BY_PROXY.match(str(error)):
        return True
    return any(
        isinstance(cause, ssl.SSLCertVerificationError) or _WRONG_CONNECTION.search(str(cause))
        for cause in _chain(error)
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def is_unanswered(error: BaseException) -> bool:
    """Return whether no server answered: nobody listens, the connection broke or timed out."""
    if (answer := answer_of(error)) is None:
        return True
    # over gRPC, its code is that of an overloaded server
    return isinstance(error, grpc.RpcError) and (
        answer.code is _Code.DEADLINE_EXCEEDED
        or (answer.code is _Code.UNAVAILABLE and _NO_ANSWER.search(answer.message) is not None)
    )


def is_timeout(error: BaseException) -> bool:
    """Return whether the client waited no longer for an answer."""
    if isinstance(error, ResponseHandlingException):
        return isinstance(error.source, httpx.ReadTimeout)
    return isinstance(error, grpc.RpcError) and getattr(answer_of(error), "code", None) is (
        _Code.DEADLINE_EXCEEDED
    )


def is_cut_off(error: BaseException) -> bool:
    """Return whether the connection broke while a request was sent or before it was answered.

    A body above the server's limit is often seen like this: it answers and resets the connection,
    and not every client reads the answer.
    """
    return isinstance(error, ResponseHandlingException) and isinstance(
        error.source,
        httpx.ReadError | httpx.WriteError | httpx.WriteTimeout | httpx.RemoteProtocolError,
    )


def is_no_answer(error: BaseException) -> bool:
    """Return whether something answered that is not Qdrant, or of a version that cannot be read."""
    if isinstance(error, ResponseHandlingException):
        return isinstance(error.source, ValidationError)
    return isinstance(error, NO_ANSWERS)


def is_too_large(error: BaseException) -> bool:
    """Return whether the request is too large, so that a smaller one can succeed."""
    if isinstance(error, UnexpectedResponse) and error.status_code == 413:
        return True  # of proxies; Qdrant itself answers 400
    answer = answer_of(error)
    return answer is not None and _TOO_LARGE.search(answer.message) is not None


def is_over_budget(error: BaseException) -> bool:
    """Return whether the request is above what a rate limit ever allows, unless it is split."""
    answer = answer_of(error)
    return answer is not None and _OVER_BUDGET in answer.message


def exceeded_cap(error: BaseException) -> Cap | None:
    """Return the cap of strict mode that a request exceeded; ``None`` if that is not the reason."""
    answer = answer_of(error)
    if answer is None:
        return None
    if found := _CONDITION_CAP.search(answer.message):
        return Cap("condition", int(found["most"]))
    if found := _CAP.search(answer.message):
        return Cap(cast("CapName", found["name"]), int(found["most"]))
    return None


def requested_wait(error: BaseException) -> float | None:
    """Return the seconds the server asked to wait before the next try; ``None`` if it did not."""
    if isinstance(error, ResourceExhaustedResponse):
        return float(error.retry_after_s)
    if isinstance(error, UnexpectedResponse):
        return retry_after_seconds(error.headers.get("Retry-After"))
    return None


def explain(error: Exception, collection_name: str) -> QdrantEmbedError | None:
    """Return the error that says what a server refused, and what to do.

    Args:
        error: what a request about a collection raised.
        collection_name: the collection's name.

    Returns:
        ``None`` where the server refused nothing: without a connection, after an overload.
    """
    if is_no_answer(error):
        return ServerRefusal(
            f"what answers a request about collection {collection_name!r} is not Qdrant, or of a "
            "version that this qdrant-client cannot read: check the client's url, its port and its "
            "prefix"
        )
    answer = answer_of(error)
    if answer is None:
        return None
    code, message = answer.code, answer.message
    if code in (_Code.UNAUTHENTICATED, _Code.PERMISSION_DENIED):
        return PermissionRefusal(_missing_right(answer, collection_name))
    if is_over_budget(error):
        return ServerRefusal(
            f"a request about collection {collection_name!r} is larger than its rate limit allows "
            f"in a minute, and cannot be split further: raise the limit ({message})"
        )
    return _refusal(answer, collection_name) if code in _REFUSALS else None


def _refusal(answer: Answer, name: str) -> QdrantEmbedError:
    message = answer.message
    if answer.code is _Code.NOT_FOUND and (missing := _NO_COLLECTION.search(message)):
        return CollectionNotFoundError(
            f"collection {missing[1]!r} was not found: add() creates it, and "
            "client.get_collections() lists those that exist",
            collection_name=missing[1],
        )
    if index := _NO_INDEX.search(message):
        types = [kind.strip() for kind in (index["types"] or "keyword").split(",")]
        best = "integer" if "integer" in types else types[0]
        others = " or ".join(_quoted(kind) for kind in types if kind != best)
        return ServerRefusal(
            f"collection {name!r} needs an index of {index['field']!r}, because its strict mode "
            "refuses to filter or group by a field without one: client.create_payload_index("
            f"{_quoted(name)}, {_quoted(index['field'])}, {_quoted(best)})"
            f"{f', or {others} if that is what the field has' if others else ''}"
        )
    if (cap := _CAP.search(message)) or (cap := _CONDITION_CAP.search(message)):
        capped = cap.groupdict().get("name", "condition size")
        return ServerRefusal(
            f"collection {name!r} allows {cap['most']} at most for {capped!r} by its strict mode, "
            f"not {cap['asked']}: ask for less, or change it with "
            "client.update_collection(..., strict_mode_config=...)"
        )
    if answer.code is _Code.NOT_FOUND and message in ("", "Not Found"):
        message = "404 without a reason; check the url, its port and its prefix"
    return ServerRefusal(
        f"Qdrant refused a request about collection {name!r}: "
        f"{message or answer.code.name.lower().replace('_', ' ')}"
    )


def _missing_right(answer: Answer, name: str) -> str:
    reason = answer.message.removeprefix("Forbidden: ").rstrip(".")
    if answer.code is _Code.UNAUTHENTICATED:
        return (
            f"Qdrant needs a valid key for collection {name!r} (401, {reason or 'unauthorised'}): "
            "pass api_key= to the client"
        )
    if "global" in reason.lower():
        way_out = "creating and changing collections needs a key with global manage access"
    elif "write" in reason.lower():
        way_out = f"use a key that may write to collection {name!r}"
    else:
        way_out = f"use a key with access to collection {name!r}"
    return (
        f"the key has no right to this request about collection {name!r} "
        f"(403, {reason or 'forbidden'}): {way_out}"
    )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


_SERVER = Engine(
    name="server",
    serialize=False,
    off_loop=False,
    payload_index=True,
    refusals=(ServerRefusal, CollectionNotFoundError),
    explain=explain,
    copies=True,
    keeps_settings=True,
)
