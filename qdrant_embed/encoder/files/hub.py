"""A model hub over HTTP; the only importer of ``huggingface_hub``.

Its session (proxies, certificates, redirects), tokens and settings are used. Its download
functions are not: they check no hash, keep nothing of a transfer that broke off, and give up
where another try would succeed.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from socket import gaierror
from ssl import SSLCertVerificationError
from typing import Any
from urllib.parse import quote

from pydantic import ValidationError

from qdrant_embed.backoff import retry_after_seconds
from qdrant_embed.encoder.files.huggingface_cache import cached_repository, copies_of
from qdrant_embed.encoder.files.repository import (
    TRIES,
    Body,
    RemoteFile,
    Repository,
    RepositoryNotOnHubError,
    RevisionNotOnHubError,
    TransientHubError,
    read_repository,
    wait_before_retry,
)
from qdrant_embed.environment import OFFLINE_VARIABLE, is_on
from qdrant_embed.errors import MissingDependencyError, ModelDownloadError
from qdrant_embed.limits import FIRST_BYTE, HUB_ANSWER, HUB_ANSWER_SECONDS
from qdrant_embed.stalls import announced
from qdrant_embed.terminals import without_credentials

try:
    from huggingface_hub import constants, errors, get_session
    from huggingface_hub.utils import (  # type: ignore[attr-defined] # documented, but not typed so
        build_hf_headers,
        validate_repo_id,
    )
except ImportError as error:
    raise MissingDependencyError("huggingface-hub", "downloading a model") from error

logger = logging.getLogger(__name__)

SLOWEST, SLOW_SECONDS = 1024, 60.0  # bytes a second, and seconds, before it counts as a hang
_BLOCK = 1 << 16

_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
# nobody answers, or somebody else. Far more often than a hub that restarts, this is a machine
# without network or a wrong HF_ENDPOINT, and its user should be told at once; what has arrived of
# a file is kept, and the next run continues it
_PERMANENT = (ConnectionRefusedError, gaierror, SSLCertVerificationError)
_WHOLE = re.compile(r"[0-9]{1,18}")  # below 2**63
_DIGEST = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")

# the hub's HTTP library changed twice (requests, httpx, httpx2); its errors are bases of this
_LIBRARY = sys.modules[errors.HfHubHTTPError.__mro__[1].__module__.partition(".")[0]]
_HTTP_ERRORS: tuple[type[BaseException], ...] = (
    *errors.HfHubHTTPError.__bases__,
    OSError,
    getattr(_LIBRARY, "InvalidURL", OSError),
    # of addresses and headers that are none
    ValueError,
    OverflowError,
)


def endpoint() -> str:
    """Return the hub's address: ``HF_ENDPOINT``, else huggingface.co."""
    return constants.ENDPOINT


def shown_endpoint() -> str:
    """Return the hub's address for messages, without a user and password."""
    return without_credentials(endpoint())


def is_offline() -> bool:
    """Return whether ``QDRANT_EMBED_OFFLINE`` or ``HF_HUB_OFFLINE`` forbids the network."""
    return is_on(OFFLINE_VARIABLE) or bool(constants.HF_HUB_OFFLINE)


def cached_copies(name: str, path: str) -> list[Path]:
    """Find files in huggingface_hub's own cache that may be `path` of repository `name`."""
    return copies_of(Path(constants.HF_HUB_CACHE), name, path)


def find_repository(
    name: str, revision: str | None, *, offline: bool, fresh: bool, anonymous: bool = False
) -> Repository:
    """Ask the hub what it has under `name` at `revision`.

    Args:
        name: ``owner/name``.
        revision: branch, tag or commit; ``main`` by default.
        offline: do not ask, but look into huggingface_hub's own cache.
        fresh: take the hub's answer only, not what that cache has.
        anonymous: send no token.

    Raises:
        RepositoryNotOnHubError: the hub answers that it has no such repository or revision.
        ModelDownloadError: it does not answer, after several tries where those make sense.
    """
    try:
        validate_repo_id(name)
    except errors.HFValidationError as error:
        raise RepositoryNotOnHubError(f"that is not a repository's name ({error})") from error
    cached = cached_repository(Path(constants.HF_HUB_CACHE), name, revision)
    if offline:
        if cached is None:
            raise ModelDownloadError(
                f"{name} is not in the local cache, and local_files_only, offline=True, "
                f"{OFFLINE_VARIABLE} or HF_HUB_OFFLINE forbids the network"
            )
        return cached
    try:
        return _ask(name, revision, anonymous)
    except ModelDownloadError as error:
        if cached is None or fresh:
            raise
        logger.warning("%s; using what huggingface_hub's cache has", error)
        return cached


def _ask(name: str, revision: str | None, anonymous: bool) -> Repository:
    at = quote(revision or "main", safe="")
    url = f"{endpoint()}/api/models/{name}/revision/{at}?blobs=true"
    for tries in range(1, TRIES + 1):
        try:
            with _opened(url, name, revision, anonymous=anonymous) as response:
                content = _whole(response, name)
            break
        except TransientHubError as error:
            wait_before_retry(error, tries)
    try:
        return read_repository(name, content)
    except ValidationError as error:
        begin = content[:100].decode("utf-8", "replace").strip()
        raise ModelDownloadError(
            f"{shown_endpoint()} did not answer like a model hub when asked for {name}: {begin!r}. "
            "Something is in between: a login page, a proxy, or a mirror of another kind"
        ) from error


def _whole(response: Any, name: str) -> bytes:
    """Read an answer about a repository.

    Raises:
        TransientHubError: it breaks off.
        ModelDownloadError: it is too large, or takes too long.
    """
    started, blocks, size = time.monotonic(), [], 0
    for block in _blocks(response, name):
        blocks.append(block)
        size += len(block)
        if size > HUB_ANSWER:
            raise ModelDownloadError(
                f"{_failed(name)}: its answer has more than {HUB_ANSWER:,} bytes"
            )
        if time.monotonic() - started > HUB_ANSWER_SECONDS:
            raise ModelDownloadError(
                f"{_failed(name)}: its answer takes more than {HUB_ANSWER_SECONDS:.0f} s"
            )
    return b"".join(blocks)


@contextmanager
def opened(
    repository: Repository, path: str, start: int = 0, *, anonymous: bool = False
) -> Iterator[Body]:
    """Open the file `path` from byte `start` on, or from its beginning if the hub cannot.

    With `anonymous`, no token is sent.

    Raises:
        TransientHubError: the connection failed, here or while the blocks are read.
        ModelDownloadError: it failed for good.
    """
    name = repository.name
    url = f"{endpoint()}/{name}/resolve/{repository.commit}/{quote(path)}"
    with _opened(url, name, repository.commit, start, anonymous=anonymous) as response:
        headers = response.headers
        continues = response.status_code == 206 and _first_byte(headers) == start
        if response.status_code == 206 and not continues:
            raise TransientHubError(f"{shown_endpoint()} sent the wrong part of {name}/{path}")
        length = headers.get("Content-Length")
        start = start if continues else 0
        stated = _WHOLE.fullmatch(length or "")
        size = start + int(stated[0]) if stated else None
        remote = RemoteFile(size, _stated_digest(response))
        kind = headers.get("Content-Type") or "no stated type"
        yield Body(start, remote, kind, _blocks(response, name))


@contextmanager
def _opened(
    url: str, name: str, revision: str | None, start: int = 0, *, anonymous: bool
) -> Iterator[Any]:
    """Send a GET. The response is that of requests or httpx, hence ``Any``: both will do."""
    token = False if anonymous else None  # by default that of the environment
    headers = build_hf_headers(library_name="qdrant-embed", token=token)
    headers |= {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    session: Any = get_session()
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT

    def opening() -> Any:
        if callable(session.stream):  # in requests it is a setting
            return session.stream(
                "GET", url, headers=headers, timeout=timeout, follow_redirects=True
            )
        return session.get(url, headers=headers, timeout=timeout, stream=True)

    with ExitStack() as stack:
        with _connected(name), announced(f"waiting for {shown_endpoint()} to answer about {name}"):
            response = _Answer(opening).within(FIRST_BYTE, stack)
        if response is None:
            raise ModelDownloadError(f"{_failed(name)}: no answer begins within {FIRST_BYTE:.0f} s")
        _check_status(response, name, revision, anonymous)
        yield response


class _Answer:
    """An answer that is waited for in a thread, because no library limits the whole wait.

    Their limits are of each read: who sends a byte now and then may take for ever.
    """

    def __init__(self, opening: Callable[[], AbstractContextManager[Any]]) -> None:
        self._opening, self._lock = opening, threading.Lock()
        self._found: SimpleQueue[Any] = SimpleQueue()
        self._is_awaited = True

    def within(self, seconds: float, stack: ExitStack) -> Any:
        """Return the answer, closed by `stack`; ``None`` if it does not begin in time.

        Raises:
            BaseException: what opening it raised.
        """
        threading.Thread(target=self._open, name="hub", daemon=True).start()
        try:
            found = self._found.get(timeout=seconds)
        except Empty:
            found = None
        finally:
            with self._lock:
                self._is_awaited = False
        if found is None and not self._found.empty():  # just now
            found = self._found.get()
        if isinstance(found, BaseException):
            raise found
        if found is None:
            return None
        context, response = found
        stack.push(context)
        return response

    def _open(self) -> None:
        found: Any
        try:
            context = self._opening()
            found = context, context.__enter__()
        except BaseException as error:  # noqa: BLE001 - raised where the answer is awaited
            found = error
        with self._lock:
            if self._is_awaited:
                self._found.put(found)
                return
        if not isinstance(found, BaseException):
            found[0].__exit__(None, None, None)


def _blocks(response: Any, name: str) -> Iterator[bytes]:
    """Yield the body as it arrives.

    Raises:
        TransientHubError: it breaks off, or arrives too slowly for too long.
    """
    since, amount = time.monotonic(), 0
    with _connected(name):
        for block in _raw_blocks(response):
            amount += len(block)
            passed = time.monotonic() - since
            if passed > SLOW_SECONDS:
                if amount < SLOWEST * passed:
                    raise TimeoutError(f"only {amount} bytes arrived in {passed:.0f} s")
                since, amount = time.monotonic(), 0
            yield block


def _raw_blocks(response: Any) -> Iterator[bytes]:
    if hasattr(response, "iter_raw"):
        yield from response.iter_raw()
        return
    # requests, whose own iterator waits for whole blocks
    from urllib3.exceptions import HTTPError

    read = getattr(response.raw, "read1", response.raw.read)
    try:
        while block := read(_BLOCK):
            yield block
    except HTTPError as error:
        raise ConnectionError(str(error)) from error


@contextmanager
def _connected(name: str) -> Iterator[None]:
    """Turn a connection's failures into our errors."""
    try:
        yield
    except _HTTP_ERRORS as error:
        chain = list(_chain(error))
        message = f"{_failed(name)}: {_first_line(chain[-1])}"
        if any(isinstance(link, _PERMANENT) for link in chain):
            raise ModelDownloadError(message) from error
        raise TransientHubError(message) from error


def _check_status(response: Any, name: str, revision: str | None, anonymous: bool) -> None:
    """Raise what an answer means that is not a success."""
    status, headers = response.status_code, response.headers
    code, message = headers.get("X-Error-Code"), headers.get("X-Error-Message")
    if status < 400:
        return
    if anonymous and (status in (401, 403) or code in ("GatedRepo", "RepoNotFound")):
        raise ModelDownloadError(
            f"{_failed(name)}: it does not exist, is private or is gated, and HF_TOKEN is not sent "
            "for a model because a collection names it; it is for one that set_model() or "
            "set_sparse_model() names"
        )
    if code == "GatedRepo":
        raise ModelDownloadError(
            f"{name} is gated: accept its terms on {shown_endpoint()}/{name}, then set HF_TOKEN to "
            "a token of that account"
        )
    if code == "RevisionNotFound":
        raise RevisionNotOnHubError(f"{shown_endpoint()} has no revision {revision!r} of {name}")
    if status == 401 and message == "Invalid credentials in Authorization header":
        raise ModelDownloadError(f"{_failed(name)}: it rejects the token in HF_TOKEN")
    if status == 401 or code == "RepoNotFound":
        raise RepositoryNotOnHubError(
            f"{shown_endpoint()} has no {name} (a private one needs HF_TOKEN)"
        )
    if status == 403:
        raise ModelDownloadError(
            f"{_failed(name)}: access is denied; the token in HF_TOKEN has no right to read it"
        )
    if status not in _TRANSIENT_STATUS:
        raise ModelDownloadError(f"{_failed(name)}: it answers {status}")
    asked = retry_after_seconds(headers.get("Retry-After"))
    pause = f" and asks to wait {asked:.0f} s" if asked is not None else ""
    raise TransientHubError(f"{_failed(name)}: it answers {status}{pause}", asked)


def _failed(name: str) -> str:
    return f"{name} could not be downloaded from {shown_endpoint()}"


def _stated_digest(response: Any) -> str | None:
    """Read the digest in the headers: of a redirect, the hub's own answer has it."""
    for answer in (*response.history, response):
        for header in ("X-Linked-ETag", "ETag"):
            stated = (answer.headers.get(header) or "").removeprefix("W/").strip('"')
            if _DIGEST.fullmatch(stated):
                return str(stated)
    return None


def _first_byte(headers: Mapping[str, str]) -> int | None:
    found = re.match(r"bytes ([0-9]{1,18})-", headers.get("Content-Range") or "")
    return int(found[1]) if found else None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
