"""A Qdrant server over REST or gRPC: what its errors mean."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, cast

import grpc
import httpx
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError
from qdrant_client import grpc as messages
from qdrant_client import models
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import (
    ApiException,
    ResponseHandlingException,
    UnexpectedResponse,
)

from qdrant_embed.backoff import retry_after_seconds
from qdrant_embed.engines.engine import Engine
from qdrant_embed.engines.guard import running
from qdrant_embed.engines.protobuf import TooDeepError
from qdrant_embed.errors import (
    CollectionNotFoundError,
    PermissionRefusal,
    QdrantEmbedError,
    ServerRefusal,
    ServerUnavailableError,
)


class NotAppliedError(Exception):
    """A change that a server has accepted, but not carried out while it was waited for.

    Attributes:
        is_grpc: whether it came over gRPC.
    """

    def __init__(self, *, is_grpc: bool) -> None:
        super().__init__("it accepted a change, but did not carry it out in time (wait_timeout)")
        self.is_grpc = is_grpc


# everything that a request can raise that is not the caller's mistake
REQUEST_ERRORS = (ApiException, QdrantException, grpc.RpcError, NotAppliedError)
# qdrant_client's, of an answer with status 200 that is not Qdrant's: no JSON, another, too deep
NO_ANSWERS = (UnicodeDecodeError, json.JSONDecodeError, AssertionError, RecursionError)
# of what no request can carry, to any engine
UNWRITABLE = (PydanticSerializationError, UnicodeEncodeError, TooDeepError)

CapName: TypeAlias = Literal["limit", "upsert limit", "search batch size", "timeout", "condition"]
Trouble: TypeAlias = Literal[
    "name",
    "certificate",
    "no TLS",
    "protocol",
    "proxy",
    "no host",
    "refused",
    "broken",
    "unreachable",
    "late",
    "elsewhere",
]

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
# over gRPC, the codes of a connection's failures are those of an overloaded server, too
_UNANSWERED = frozenset({_Code.UNAVAILABLE, _Code.DEADLINE_EXCEEDED})
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

# what a failed connection tells of its trouble, by the errors behind it, then by their texts
_BY_TYPE: tuple[tuple[type[BaseException], Trouble], ...] = (
    (httpx.ProxyError, "proxy"),
    (httpx.ConnectTimeout, "unreachable"),
    (httpx.TimeoutException, "late"),
    (ConnectionRefusedError, "refused"),
    (socket.gaierror, "no host"),
)
_BY_TEXT: tuple[tuple[str, Trouble], ...] = (
    ("hostname mismatch|hostname verification|not valid for|IP address mismatch|peer name", "name"),
    ("CERTIFICATE_VERIFY_FAILED", "certificate"),
    ("WRONG_VERSION_NUMBER|record layer failure|packet length too long", "no TLS"),
    ("illegal (status|request) line|http1|http2 header|expected SETTINGS frame", "protocol"),
    ("before receiving SETTINGS frame", "late"),  # connected, and then nothing came
    ("resol|lookup|domain name|DNS", "no host"),
    ("connection refused|actively refused", "refused"),
    (
        "disconnected|by peer|(socket|transport) closed|EOF occurred|broken pipe|FD shutdown|"
        "goaway|stream removed|RST_STREAM",
        "broken",
    ),
    ("unreachable|no route|connect", "unreachable"),
    ("timed out|deadline exceeded", "late"),
)
_FOUND: dict[Trouble | None, str] = {
    "no host": "no host has this name",
    "refused": "the connection was refused",
    "broken": "the connection broke before an answer came",
}
WAYS_OUT: dict[Trouble | None, str] = {
    "name": "use a name of the server that is in its certificate",
    "certificate": "pass the certificate of the authority that signed the server's, over REST as "
    "verify=ssl.create_default_context(cafile=...), over gRPC as "
    'grpc_options={"root_certificates": ...}',
    "no TLS": "the server does not speak TLS on this port, use http://",
    "protocol": "another protocol is spoken on this port; by default, REST is at 6333, and gRPC "
    "(prefer_grpc=True) at 6334 (grpc_port=)",
    "proxy": "check the proxies that the environment names, or set NO_PROXY to the server's host",
    "no host": "check the name of the host",
    "refused": "check the address and its port, and that the server runs",
    "broken": "check that the server runs, and whether its url begins with http:// or https://",
    "unreachable": "check the address, its port and firewalls",
    "late": "check how busy the server is, or let requests take longer with timeout=",
    "elsewhere": "pass the url of the place that it names",
    None: "try again later, or look into the server's log",
}
_FOR_EVER = frozenset[Trouble | None]({"name", "certificate", "no TLS", "protocol"})
_WRONG_HEADER = "Invalid metadata"
# Python's, of thousands of digits in an answer; qdrant_client's, of a message over gRPC
_OF_ANSWERS = re.compile(r"integer string conversion|^invalid \w+ model|^Not supported value")
_SAYS_NOTHING = "All connection attempts failed"  # of each address in turn, for its own reason
_OF_CHANNEL = re.compile(r".*last error: \w+: (?:ipv[46]:\S+: )?")  # before what gRPC found
_REFUSED_BY_PROXY = re.compile(r"4\d\d\b")
_TOO_LARGE = re.compile(r"larger than allowed|message length too large|message larger than max")
_DISK_FULL = re.compile(
    r"no space left|disk (is )?full|insufficient storage|available disk space|os error 28\b",
    re.IGNORECASE,
)
_MAKE_SPACE = "make space on the server's disk"
_OVER_BUDGET = "please try to split"  # above what a rate limit allows in a whole minute

_NO_COLLECTION = re.compile(r"Collection `(.*?)` doesn't exist", re.DOTALL)
_ELSEWHERE = re.compile(
    r"Collection `.*` doesn't exist|Shard key .*not found|Not existing vector name", re.DOTALL
)
_COPY = re.compile(r"not have enough active replicas|\d+ read operations failed")
_SINGLE_NODE = "Distributed mode disabled"
_NO_INDEX = re.compile(
    r'Index required but not found for "(?P<field>.*?)"'
    r"(?: of one of the following types: \[(?P<types>[^\]]*)\])?"
)
_CAP = re.compile(r'Limit exceeded (?P<asked>\d+) > (?P<most>\d+) for "(?P<name>[^"]+)"')
_CONDITION_CAP = re.compile(r"Condition size limit reached \((?P<asked>\d+) > (?P<most>\d+)\)")


def recognise(database: object) -> Engine:
    """Return the engine of a server, which is behind every client that is not local."""
    return replace(_SERVER, running=running(database))


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
    if isinstance(error, QdrantException):  # 429 with Retry-After, also with one that is a date
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
    if str(error) == _SAYS_NOTHING:
        *_, error = _chain(error)
    return _one_line(str(error)) or type(error).__name__


def is_transient(error: BaseException) -> bool:
    """Return whether the same request may succeed later: the network, a timeout, an overload."""
    if isinstance(error, NotAppliedError):
        return True
    if isinstance(error, ResponseHandlingException):
        return isinstance(error.source, httpx.TransportError) and not _is_wrong(error)
    if is_too_large(error) or is_over_budget(error):
        return False
    answer = answer_of(error)
    return answer is not None and answer.code in _PASSING and not _is_wrong(error)


def _is_wrong(error: BaseException) -> bool:
    """Return whether a connection will fail for ever: a certificate, a protocol, a proxy's no."""
    source = getattr(error, "source", None)
    if isinstance(source, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
        return True
    if isinstance(source, httpx.ProxyError) and _REFUSED_BY_PROXY.match(str(source)):
        return True
    if isinstance(error, grpc.RpcError) and _WRONG_HEADER in in_one_line(error):
        return True
    return trouble_of(error) in _FOR_EVER


def trouble_of(error: BaseException) -> Trouble | None:
    """Return why there was no answer; ``None`` if there was one, or if nothing tells why."""
    if isinstance(error, ResponseHandlingException):
        return _trouble_of_connection(error.source)
    if isinstance(error, UnexpectedResponse):
        return "elsewhere" if 300 <= (error.status_code or 0) < 400 else None
    answer = answer_of(error)
    if isinstance(error, grpc.RpcError) and answer is not None and answer.code in _UNANSWERED:
        return _told(answer.message)
    return None


def _trouble_of_connection(error: BaseException) -> Trouble | None:
    causes = [*_chain(error)]
    for kind, trouble in _BY_TYPE:
        if any(isinstance(cause, kind) for cause in causes):
            return trouble
    if (told := _told(" ".join(map(str, causes)))) is not None:
        return told
    return "broken" if isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError) else None


def _told(text: str) -> Trouble | None:
    return next((told for sign, told in _BY_TEXT if re.search(sign, text, re.IGNORECASE)), None)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        several = getattr(error, "exceptions", ())  # one for each address of a host
        error = several[0] if several else error.__cause__ or error.__context__


def is_unanswered(error: BaseException) -> bool:
    """Return whether no server answered: nobody listens, the connection broke or timed out."""
    if (answer := answer_of(error)) is None:
        return True
    return isinstance(error, grpc.RpcError) and (
        answer.code is _Code.DEADLINE_EXCEEDED or trouble_of(error) is not None
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
        return isinstance(error.source, ValidationError | httpx.DecodingError)
    if type(error) is ValueError:
        return _OF_ANSWERS.search(str(error)) is not None
    return isinstance(error, (*NO_ANSWERS, ValidationError))  # the latter is raised over gRPC


def is_too_large(error: BaseException) -> bool:
    """Return whether the request is too large, so that a smaller one can succeed."""
    if isinstance(error, UnexpectedResponse) and error.status_code == 413:
        return True  # of proxies; Qdrant itself answers 400
    answer = answer_of(error)
    return answer is not None and _TOO_LARGE.search(answer.message) is not None


def may_come(error: BaseException) -> bool:
    """Return whether what is missing may be there soon, if it has just been created.

    Another node of a cluster may not know yet of a collection, a vector or a shard key.
    """
    answer = answer_of(error)
    return answer is not None and _ELSEWHERE.search(answer.message) is not None


def is_copy_down(error: BaseException) -> bool:
    """Return whether fewer copies of a shard answered than the request asks for."""
    answer = answer_of(error)
    return answer is not None and _COPY.search(answer.message) is not None


def is_single_node(error: BaseException) -> bool:
    """Return whether a server refused shard keys because it is no cluster."""
    return _SINGLE_NODE in str(error)


def is_full(error: BaseException) -> bool:
    """Return whether the server's disk is full; what was sent may be stored in part."""
    if isinstance(error, UnexpectedResponse) and error.status_code == 507:
        return True
    answer = answer_of(error)
    return answer is not None and _DISK_FULL.search(answer.message) is not None


def check_applied(answer: object) -> None:
    """Raise `NotAppliedError` if a server has accepted a change, but not carried it out yet.

    Args:
        answer: what a request that changes points was answered, over REST, over gRPC, or by a
            method of ``qdrant_client``.
    """
    results: Any = answer.get("result") if isinstance(answer, dict) else answer
    late: object = models.UpdateStatus.WAIT_TIMEOUT
    is_grpc = isinstance(answer, messages.PointsOperationResponse)
    if is_grpc:
        results, late = results.result, messages.UpdateStatus.WaitTimeout
    for result in results if isinstance(results, list) else [results]:
        found = result.get("status") if isinstance(result, dict) else getattr(result, "status", "")
        if found == late:
            raise NotAppliedError(is_grpc=is_grpc)


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
    if isinstance(error, QdrantException):
        return retry_after_seconds(str(error).partition(": ")[2])
    if isinstance(error, UnexpectedResponse):
        return retry_after_seconds(error.headers.get("Retry-After"))
    return None


def explain(error: Exception, collection_name: str) -> QdrantEmbedError | None:
    """Return the error that says what a server refused, and what to do.

    Args:
        error: what a request about a collection raised.
        collection_name: the collection's name.

    Returns:
        ``None`` where the server refused nothing, without a connection or after an overload (see
        `unavailable`), or refused it because of the key (see `missing_right`).
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
    if is_over_budget(error):
        return ServerRefusal(
            f"a request about collection {collection_name!r} is larger than its rate limit allows "
            f"in a minute, and cannot be split further: raise the limit ({message})"
        )
    is_refusal = code in _REFUSALS or is_too_large(error)
    return _refusal(answer, collection_name) if is_refusal else None


def unwritable(error: Exception, collection_name: str) -> ServerRefusal | None:
    """Return the error that says what no request can carry; ``None`` if one could be sent."""
    if not isinstance(error, UNWRITABLE):
        return None
    return ServerRefusal(
        f"a request about collection {collection_name!r} cannot be written: {in_one_line(error)}. "
        "Change what is to be stored or sought: metadata that is nested too deeply (over gRPC, "
        "about 30 levels), or is not valid Unicode"
    )


@dataclass(frozen=True)
class Tries:
    """How often a request was tried.

    Attributes:
        count: number of tries.
        seconds: time from the beginning of the first to the end of the last.
        last: time that the last one took.
    """

    count: int
    seconds: float
    last: float


def unavailable(
    error: Exception, collection_name: str, tries: Tries, address: Callable[[bool], str]
) -> ServerUnavailableError | None:
    """Return the error that says what was found instead of an answer, and what to do.

    Args:
        error: what a request about a collection raised last; nothing that `explain` explains.
        collection_name: the collection's name.
        tries: how often it was tried.
        address: returns the URL that was asked, given whether over gRPC.

    Returns:
        ``None`` if the error is not about the server, such as that of a client which is closed.
    """
    if isinstance(error, ResponseHandlingException):
        if not isinstance(error.source, httpx.TransportError):
            return None
    elif answer_of(error) is None and not isinstance(error, NotAppliedError):
        return None
    is_grpc = isinstance(error, grpc.RpcError) or getattr(error, "is_grpc", False)
    url, found = address(is_grpc), found_instead(error, tries.last)
    way_out = _MAKE_SPACE if is_full(error) else WAYS_OUT[trouble_of(error)]
    often = f"{tries.count} times in {_shown(tries.seconds)}" if tries.count > 1 else "once"
    return ServerUnavailableError(
        f"Qdrant at {url} is not available: {found} (a request about collection "
        f"{collection_name!r}, tried {often}); {way_out}",
        address=url,
        found=found,
    )


def found_instead(error: Exception, seconds: float) -> str:
    """Return what was found instead of an answer, by a request that took `seconds`."""
    trouble, answer = trouble_of(error), answer_of(error)
    if trouble in _FOUND:
        return _FOUND[trouble]
    source = getattr(error, "source", None)
    if isinstance(source, httpx.ConnectTimeout | httpx.PoolTimeout):
        return f"no connection within {_shown(seconds)}"
    if trouble == "late":
        return f"no answer within {_shown(seconds)}"
    return in_one_line(error) if answer is None else _answered(error, answer)


def _answered(error: Exception, answer: Answer) -> str:
    message = answer.message
    if isinstance(error, UnexpectedResponse):
        status = f"{error.status_code} {error.reason_phrase}".strip()
        message = error.headers.get("Location", message if message != error.reason_phrase else "")
    elif isinstance(error, grpc.RpcError):
        if trouble_of(error) is not None:
            return _OF_CHANNEL.sub("", message)
        status = answer.code.name
    else:
        status = "429"
    message = f" ({message})" if message else ""
    wait = requested_wait(error)
    return f"it answered {status}{message}" + (f", and asks to wait {_shown(wait)}" if wait else "")


def _shown(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 9.95 else f"{max(0.1, round(seconds, 1)):g} s"


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
        return _above_cap(name, capped, cap["most"], cap["asked"])
    if answer.code is _Code.NOT_FOUND and message in ("", "Not Found"):
        message = "404 without a reason; check the url, its port and its prefix"
    return ServerRefusal(
        f"Qdrant refused a request about collection {name!r}: "
        f"{message or answer.code.name.lower().replace('_', ' ')}"
    )


def above_limit(error: ServerRefusal, collection_name: str, needed: int) -> ServerRefusal | None:
    """Return the refusal of a limit with the number that a user asked for.

    Args:
        error: the refusal of a request, which can have a larger limit than that.
        collection_name: the collection's name.
        needed: the user's number.

    Returns:
        ``None`` if something else was refused, or a cap allows the user's number.
    """
    cap = None if error.__cause__ is None else exceeded_cap(error.__cause__)
    if cap is None or cap.name != "limit" or cap.most >= needed:
        return None
    return _above_cap(collection_name, cap.name, cap.most, needed)


def _above_cap(name: str, capped: str, most: object, asked: object) -> ServerRefusal:
    return ServerRefusal(
        f"collection {name!r} allows {most} at most for {capped!r} by its strict mode, not "
        f"{asked}: ask for less, or change it with "
        "client.update_collection(..., strict_mode_config=...)"
    )


def missing_right(
    error: Exception, collection_name: str, *, writes: bool
) -> PermissionRefusal | None:
    """Return the error that says which key would do; ``None`` if the key is not the reason.

    Args:
        error: what a request about a collection raised.
        collection_name: the collection's name.
        writes: whether the right to write to the collection is enough for the request. A server
            asks keys that are not for single collections for the right to do everything.
    """
    answer = answer_of(error)
    if answer is None or answer.code not in (_Code.UNAUTHENTICATED, _Code.PERMISSION_DENIED):
        return None
    name, reason = collection_name, answer.message.removeprefix("Forbidden: ").rstrip(".")
    if answer.code is _Code.UNAUTHENTICATED:
        return PermissionRefusal(
            f"Qdrant needs a valid key for collection {name!r} (401, {reason or 'unauthorised'}): "
            "pass api_key= to the client"
        )
    if writes or "write" in reason.lower():
        way_out = f"use a key that may write to collection {name!r}"
    elif "global" in reason.lower():
        way_out = "creating and changing collections needs a key with global manage access"
    else:
        way_out = f"use a key with access to collection {name!r}"
    return PermissionRefusal(
        f"the key has no right to this request about collection {name!r} "
        f"(403, {reason or 'forbidden'}): {way_out}"
    )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


_SERVER = Engine(
    name="server",
    off_loop=False,
    payload_index=True,
    refusals=(ServerRefusal, CollectionNotFoundError),
    explain=explain,
    copies=True,
    keeps_settings=True,
    indexes=True,
)
