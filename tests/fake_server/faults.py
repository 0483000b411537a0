"""How a request fails, or is answered late, because a test asks for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """What to do to one request instead of answering it.

    Attributes:
        status: answer with this status; 0 to cut the connection, 200 to answer after all.
        after_commit: carry the request out first, then fail.
        headers: sent with the status; over gRPC, as metadata.
        message: of the error.
        pause: seconds before anything is done.
        late: seconds between carrying out and answering, which a proxy ends with 504, say.
        drip: seconds between the parts of an answer that comes a few bytes at a time.
        reset_after: bytes of the answer's body that are sent before the connection is reset.
        unfinished: answer a change with ``wait_timeout`` (and `status` 200): it is accepted, and
            carried out only if `after_commit`.
        code: of gRPC, by its name, as "UNAVAILABLE"; without it, the one that Qdrant itself would
            use for `status`.
    """

    status: int = 500
    after_commit: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    message: str = "injected"
    pause: float = 0.0
    late: float = 0.0
    drip: float = 0.0
    reset_after: int | None = None
    unfinished: bool = False
    code: str | None = None

    @property
    def is_run(self) -> bool:
        """Whether the request is carried out."""
        return self.after_commit or (self.status == 200 and not self.unfinished)

    @property
    def grpc_code(self) -> str:
        """The name of gRPC's code, "OK" if the request is answered after all."""
        return self.code or _CODES.get(self.status, "UNKNOWN")


_CODES = {
    0: "UNAVAILABLE",
    200: "OK",
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    409: "ALREADY_EXISTS",
    413: "RESOURCE_EXHAUSTED",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
