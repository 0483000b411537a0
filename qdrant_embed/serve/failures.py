"""What a request is refused with: the one place where an error becomes a status."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ValidationError

from qdrant_embed.errors import (
    ClientStateError,
    CollectionMismatchError,
    CollectionNotFoundError,
    DocumentNotFoundError,
    FolderError,
    IngestError,
    InputError,
    MissingDependencyError,
    ModelDownloadError,
    ModelFileError,
    PermissionRefusal,
    QdrantEmbedError,
    ServerRefusal,
    ServerUnavailableError,
    UnknownModelError,
    UntrustedModelError,
)
from qdrant_embed.limits import shortened

_SHOWN = 300  # characters of a message about one field

# the first that fits; what is not among them is a fault of this service
_STATUSES: tuple[tuple[type[QdrantEmbedError], int, str], ...] = (
    (InputError, 422, "invalid_value"),
    (CollectionMismatchError, 409, "collection_mismatch"),
    (CollectionNotFoundError, 404, "collection_not_found"),
    (DocumentNotFoundError, 404, "document_not_found"),
    (UnknownModelError, 404, "model_not_found"),
    (UntrustedModelError, 403, "model_not_trusted"),
    (PermissionRefusal, 502, "database_key_refused"),  # the key is this service's
    (ServerRefusal, 422, "refused_by_database"),
    (ServerUnavailableError, 503, "database_unavailable"),
    (ClientStateError, 503, "stopping"),
    (FolderError, 503, "folder_unavailable"),
    (ModelDownloadError, 503, "model_unavailable"),
    (ModelFileError, 503, "model_unavailable"),
    (MissingDependencyError, 501, "not_installed"),
)
_KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class Failure(BaseModel):
    """Why a request failed, in OpenAI's shape.

    Attributes:
        message: what is wrong, and what to do.
        type: kind of the error.
        param: the field that is wrong, if it is one.
        code: name of the error.
    """

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class FailureAnswer(BaseModel):
    """The body of every answer that is an error."""

    error: Failure


@dataclass(eq=False)  # what is raised is given its traceback
class Refusal(Exception):  # noqa: N818 - what it is, in a word
    """A request that is refused.

    Attributes:
        status: HTTP status of the answer.
        message: what is wrong, and what to do.
        code: name of the error.
        param: the field that is wrong, if it is one.
        retry_after: seconds after which another try may succeed.
    """

    status: int
    message: str
    code: str
    param: str | None = None
    retry_after: int | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The headers that belong to the answer."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers

    @property
    def body(self) -> FailureAnswer:
        """The body of the answer."""
        kind = _KINDS.get(
            self.status, "invalid_request_error" if self.status < 500 else "server_error"
        )
        failure = Failure(message=self.message, type=kind, param=self.param, code=self.code)
        return FailureAnswer(error=failure)


def refusal_of(error: QdrantEmbedError) -> Refusal:
    """Return what a request that ended with an error is answered."""
    reason: BaseException | None = error
    if isinstance(error, IngestError):  # its message says what is stored, its cause decides
        reason = error.__cause__
    for kind, status, code in _STATUSES:
        if isinstance(reason, kind):
            retry_after = 5 if status == 503 else None
            return Refusal(status, str(error), code, retry_after=retry_after)
    return Refusal(500, str(error), "internal_error")


def refusal_of_body(error: ValidationError) -> Refusal:
    """Return what a request whose body is not as described is answered."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    wrong = found[0]
    if wrong["type"] == "json_invalid":
        message = shortened(wrong["msg"], _SHOWN)
        return Refusal(400, f"the body is not valid JSON: {message}", "invalid_json")
    path = shortened(".".join(str(part) for part in wrong["loc"]), _SHOWN)
    more = f" ({len(found) - 1} more)" if len(found) > 1 else ""
    message = f"{path or 'the body'}: {shortened(wrong['msg'], _SHOWN)}{more}"
    return Refusal(422, _sendable(message), "invalid_value", _sendable(path) or None)


def _sendable(text: str) -> str:
    """Return text that is valid Unicode; what a body has as a key may not be."""
    return text.encode(errors="backslashreplace").decode()
