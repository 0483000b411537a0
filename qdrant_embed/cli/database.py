"""The database that a command works on: its options, how it is opened, why it cannot be reached."""

from __future__ import annotations

import argparse
import logging
import os
import re
import ssl
import sys
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from qdrant_embed.cli.command import at_least_one, not_empty, to_text
from qdrant_embed.encoder.facts.catalog import DEFAULT_MODEL
from qdrant_embed.errors import (
    CollectionNotFoundError,
    FolderError,
    IngestError,
    InputError,
    MissingDependencyError,
    QdrantEmbedError,
    ServerRefusal,
    ServerUnavailableError,
)

if TYPE_CHECKING:
    import httpx

    from qdrant_embed.async_client import AsyncQdrantClient
    from qdrant_embed.client import QdrantClient
    from qdrant_embed.engines.server import Trouble

    ClientT = TypeVar("ClientT", QdrantClient, AsyncQdrantClient)

T = TypeVar("T")

logger = logging.getLogger(__name__)

CONNECTING = 5  # seconds that opening one connection may take
_KEY_VARIABLE = "QDRANT_API_KEY"
_TARGET_KEY_VARIABLE = "QDRANT_TO_API_KEY"  # no key is sent to another server than it is meant for
_OF_A_PLACE = ("url", "path", "engine", "api_key", "prefix", "ca", "grpc", "grpc_port")
_FLAG = re.compile(r"--(?=(url|path|engine|api-key|prefix|ca|grpc|grpc-port)\b)")
_CA_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_GRPC_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")  # in this order
_OUR_ERRORS = (  # those of requests
    CollectionNotFoundError,
    ServerRefusal,
    ServerUnavailableError,
    IngestError,
)
_LIBRARY_SAYS = ": pass api_key= to the client"  # which is no way out of a command
_EVERY = "*"  # in a request that is about no collection
_NOT_QDRANT = "what answers there is not Qdrant"
_LOOPBACK = re.compile(r"localhost|127\..*|::1")

# what to do about a connection's trouble, where the command says it otherwise than the library
_WAYS_OUT: dict[Trouble | None, str] = {
    "certificate": "pass --ca FILE, which must have the certificate of the authority that signed "
    "the server's",
    "protocol": "another protocol is spoken on this port; by default, REST is at 6333, and gRPC "
    "(--grpc) at 6334 (--grpc-port)",
    "no host": "no host has this name, check --url",
    "late": "--timeout sets how long to wait for an answer",
    None: "",
}
_WANTS_TLS = re.compile("HTTPS (port|server)")  # on the page of a server that is asked without


@dataclass(frozen=True)
class _Proxy:
    """A proxy that requests go through: its URL, and the environment variable that sets it."""

    url: str
    variable: str

    @property
    def note(self) -> str:
        address = self.url.partition("//")[2] or self.url
        host = re.split("[/?#]", address)[0].rpartition("@")[2]
        return f"asked through the proxy {host} of {self.variable}"


def parser(
    json_option: argparse.ArgumentParser, *, positional: bool = False
) -> argparse.ArgumentParser:
    """Return a parent parser with the options of a database and a collection in it.

    Args:
        json_option: parent parser with ``--json``.
        positional: whether the collection's name is an argument, not an option.
    """
    options = argparse.ArgumentParser(add_help=False, parents=[json_option])
    _add_place(options, "", key=f"{_KEY_VARIABLE} by default")
    if positional:
        options.add_argument(
            "collection", type=to_text, metavar="COLLECTION", help="name of the collection"
        )
    else:
        options.add_argument(
            "--collection",
            type=to_text,
            metavar="NAME",
            required=True,
            help="name of the collection",
        )
    _add_timeout(options)
    options.add_argument(
        "--sparse-model", metavar="MODEL", help="sparse model; the collection's own by default"
    )
    options.add_argument(
        "--late-model",
        metavar="MODEL",
        help="late-interaction model; the collection's own by default",
    )
    # only `add` has the first one
    options.set_defaults(overflow=None, key_variable=_KEY_VARIABLE)
    return options


def copying_parser(json_option: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Return a parent parser with the options of two databases."""
    options = argparse.ArgumentParser(add_help=False, parents=[json_option])
    _add_place(options, "", also="from-", key=f"{_KEY_VARIABLE} by default")
    key = f"{_TARGET_KEY_VARIABLE} by default, or {_KEY_VARIABLE} if the other is no server"
    _add_place(options, "to-", key=key)
    _add_timeout(options)
    return options


def service_parser() -> argparse.ArgumentParser:
    """Return a parent parser with the options of a database that a service can have."""
    options = argparse.ArgumentParser(add_help=False)
    _add_place(options, "", key=f"{_KEY_VARIABLE} by default", required=False)
    _add_timeout(options)
    options.set_defaults(key_variable=_KEY_VARIABLE)
    return options


def _add_place(
    options: argparse.ArgumentParser,
    side: str,
    *,
    key: str,
    also: str | None = None,
    required: bool = True,
) -> None:
    """Add the options of one database.

    Args:
        options: the parser.
        side: what their names begin with.
        key: what the server's key is by default.
        also: what the names of the address may begin with as well.
        required: whether there must be one.
    """

    def names(option: str) -> list[str]:
        return [f"--{prefix}{option}" for prefix in (side, also) if prefix is not None]

    place = options.add_mutually_exclusive_group(required=required)
    place.add_argument(
        *names("url"), type=not_empty, help="URL of a server, like http://localhost:6333"
    )
    place.add_argument(
        *names("path"),
        type=not_empty,
        metavar="FOLDER",
        help="folder of a database; one of local mode only if you trust it, because opening it can "
        "run code that is pickled in it",
    )
    options.add_argument(
        *names("engine"),
        choices=["edge", "local"],
        help="what opens the folder; that which made it by default, and for a new one edge, the "
        "embedded engine, if it is installed",
    )
    options.add_argument(f"--{side}api-key", metavar="KEY", help=f"key of the server; {key}")
    options.add_argument(
        f"--{side}prefix", metavar="PATH", help="path of the server behind a proxy, like /qdrant"
    )
    options.add_argument(
        f"--{side}ca",
        type=not_empty,
        metavar="FILE",
        help="certificates of the authorities to trust, in PEM",
    )
    options.add_argument(f"--{side}grpc", action="store_true", help="use gRPC instead of REST")
    options.add_argument(
        f"--{side}grpc-port",
        type=at_least_one,
        default=6334,
        metavar="PORT",
        help="port of gRPC; 6334 by default",
    )


def _add_timeout(options: argparse.ArgumentParser) -> None:
    options.add_argument(
        "--timeout",
        type=at_least_one,
        default=60,
        metavar="SECONDS",
        help="timeout of a request; 60 by default",
    )


@contextmanager
def connect(options: argparse.Namespace) -> Iterator[QdrantClient]:
    """Run the block with a client that uses the requested models.

    A server that cannot be reached ends the command at once: only what has begun is worth waiting
    for, as while a server restarts.

    Raises:
        QdrantEmbedError: also if a request, or opening the database, fails; in one line.
    """
    with _open(options) as (client, _):
        yield client


@contextmanager
def connect_to_collection(options: argparse.Namespace) -> Iterator[QdrantClient]:
    """Run the block like `connect`, and raise `InputError` if the collection does not exist."""
    if options.path is not None and not Path(options.path).is_dir():
        raise InputError(f"folder {options.path} does not exist")
    with _open(options) as (client, exists):
        if not exists:
            known = _ask(client, client.get_collections).collections
            names = sorted(found.name for found in known)
            raise InputError(
                f"collection {options.collection!r} does not exist; existing collections: "
                f"{', '.join(names) or 'none'}"
            )
        yield client


@contextmanager
def connect_to_both(options: argparse.Namespace) -> Iterator[tuple[QdrantClient, QdrantClient]]:
    """Run the block with clients of both databases of a copy.

    Raises:
        QdrantEmbedError: also if a request, or opening a database, fails; in one line.
    """
    from qdrant_embed.engines.server import NO_ANSWERS, REQUEST_ERRORS, in_one_line

    if options.path is not None and not Path(options.path).is_dir():
        raise InputError(f"folder {options.path} does not exist")
    folders = [Path(path).resolve() for path in (options.path, options.to_path) if path is not None]
    if len(folders) == 2 and folders[0] == folders[1]:
        raise InputError(f"--to-path {options.to_path} is the folder that is copied; use another")
    with ExitStack() as opened:
        source, _ = opened.enter_context(_open(_one_of_both(options, "", _KEY_VARIABLE)))
        variable = _KEY_VARIABLE if options.url is None else _TARGET_KEY_VARIABLE
        try:
            target, _ = opened.enter_context(_open(_one_of_both(options, "to_", variable)))
        except QdrantEmbedError as error:
            raise QdrantEmbedError(_FLAG.sub("--to-", str(error))) from error
        try:
            yield source, target
        except (*REQUEST_ERRORS, *_OUR_ERRORS, *NO_ANSWERS) as error:
            places = f"{options.path or options.url} to {options.to_path or options.to_url}"
            said = str(error) if isinstance(error, QdrantEmbedError) else in_one_line(error)
            raise QdrantEmbedError(f"{places}: {said}") from error


def _one_of_both(options: argparse.Namespace, side: str, variable: str) -> argparse.Namespace:
    """Return the options of one database of a copy as other commands have them."""
    own = {name: getattr(options, side + name) for name in _OF_A_PLACE}
    none = dict.fromkeys(("collection", "model", "overflow", "sparse_model", "late_model"))
    return argparse.Namespace(**own, **none, timeout=options.timeout, key_variable=variable)


@contextmanager
def _open(options: argparse.Namespace) -> Iterator[tuple[QdrantClient, bool]]:
    """Run the block with a client, and whether the collection exists."""
    from qdrant_embed.engines.connection import address_of
    from qdrant_embed.engines.server import NO_ANSWERS, REQUEST_ERRORS

    client = _client(options)
    try:
        exists = _exists(client, options.collection)
        if options.model is not None or options.overflow is not None:
            client.set_model(
                options.model or DEFAULT_MODEL, overflow=options.overflow or "truncate"
            )
        if options.sparse_model is not None:
            client.set_sparse_model(options.sparse_model)
        if options.late_model is not None:
            client.set_late_model(options.late_model)
        yield client, exists
    except (*REQUEST_ERRORS, *_OUR_ERRORS, *NO_ANSWERS) as error:
        address = options.path or address_of(client, grpc=options.grpc)
        raise QdrantEmbedError(f"{address}: {_reason(error, address, options)}") from error
    finally:
        client.close()


def _exists(client: QdrantClient, name: str | None) -> bool:
    """Return whether the collection exists, as far as is known without trying again.

    Without a name, it is only looked whether the database answers.
    """
    from qdrant_embed.engines.engine import run_blocking
    from qdrant_embed.engines.server import is_transient, is_unanswered
    from qdrant_embed.flows.requests import CollectionRequests

    try:
        if name is None:
            return bool(_ask(client, client.get_collections))
        requests = CollectionRequests(client._io, client, name, max_retries=0)
        return run_blocking(requests.exists())
    except ServerUnavailableError as error:
        raised = error.__cause__ or error
        if is_unanswered(raised) or not is_transient(raised):
            raise
        return True  # it is there, and busy or starting: what follows waits for it


def _ask(client: QdrantClient, method: Callable[[], T]) -> T:
    """Return what a request about no collection is answered, without trying it again."""
    from qdrant_embed.engines.engine import run_blocking
    from qdrant_embed.flows.requests import CollectionRequests

    requests = CollectionRequests(client._io, client, _EVERY, max_retries=0)
    return run_blocking(requests.send(method))


# opening


def _client(options: argparse.Namespace) -> QdrantClient:
    """Return the client that the options describe.

    Raises:
        QdrantEmbedError: if it cannot be made.
    """
    from qdrant_embed.client import QdrantClient

    # what is begun in the background would end with the command
    client = _made(QdrantClient, options, optimize=False)
    if options.path is None:
        client.http.client.add_middleware(_connect_soon)
    return client


def service_client(options: argparse.Namespace) -> AsyncQdrantClient:
    """Return the client of a service, which the options describe.

    Raises:
        QdrantEmbedError: if it cannot be made.
    """
    from qdrant_embed.async_client import AsyncQdrantClient

    return _made(AsyncQdrantClient, options, optimize=True)


def _made(kind: type[ClientT], options: argparse.Namespace, *, optimize: bool) -> ClientT:
    """Return the client that the options describe.

    Raises:
        QdrantEmbedError: if it cannot be made.
    """
    import httpx

    from qdrant_embed.engines.connection import address_of

    if options.path is None:
        if options.engine is not None:
            raise InputError("--engine is for a folder, and --url names a server")
        asked = _server(options)
    else:
        asked = {"path": options.path, "engine": options.engine, "optimize": optimize}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Api key is used with an insecure")
            # if the server cannot be reached, the first request fails and states the reason
            client = kind(**asked, check_compatibility=False)
    except (FolderError, MissingDependencyError):
        raise
    except InputError as error:
        source = "--api-key" if options.api_key else options.key_variable
        raise InputError(str(error).replace("api_key", source, 1)) from error
    except httpx.InvalidURL as error:  # of a proxy, or of what is not asked through one
        raise QdrantEmbedError(
            f"{options.url}: {error} in the environment variables of proxies: {_proxy_variables()}"
        ) from error
    except ImportError as error:
        if options.path is not None:
            raise
        raise QdrantEmbedError(
            f"{options.url}: a SOCKS proxy ({_proxy_variables()}) needs a package: "
            "pip install 'httpx[socks]', or set NO_PROXY to the server's host"
        ) from error
    except (OSError, RuntimeError, ValueError) as error:
        said, source = " ".join(str(error).split()), ""
        if "proxy" in said.lower():
            source = f" ({_proxy_variables()})"
        elif isinstance(error, OSError) and options.path is None:
            names = [name for name in _CA_VARIABLES if name in os.environ]
            source = f" ({', '.join(names)})" if names else ""
        raise QdrantEmbedError(f"{options.path or options.url}: {said}{source}") from error
    if options.path is None:
        either: Any = client
        _warn_of_open_key(address_of(either, grpc=options.grpc), asked["api_key"])
    return client


def _server(options: argparse.Namespace) -> dict[str, Any]:
    """Return a client's arguments of a server.

    Raises:
        InputError: if the options cannot be used.
    """
    url = options.url.strip()
    try:
        parts = urlsplit(url if "//" in url else f"//{url}")
    except ValueError as error:  # brackets that hold no address
        raise InputError(f"--url {url!r:.200} is not a URL: {error}") from error
    if "@" in parts.netloc:
        raise InputError(
            "--url has a user or password, which Qdrant does not know: pass a key as --api-key or "
            f"{_KEY_VARIABLE}"
        )
    if not parts.hostname:
        raise InputError(f"--url {url} has no host; it must be like http://localhost:6333")
    prefix = (options.prefix or "").strip().strip("/")
    if options.grpc and (prefix or parts.path.strip("/")):
        raise InputError("--grpc cannot be used with a prefix, which gRPC does not have")
    asked: dict[str, Any] = {
        "url": url.rstrip("/"),
        "prefix": f"/{prefix}" if prefix else None,
        "api_key": options.api_key or os.environ.get(options.key_variable) or None,
        "timeout": options.timeout,
        "prefer_grpc": options.grpc,
        "grpc_port": options.grpc_port,
        "grpc_options": {"grpc.min_reconnect_backoff_ms": CONNECTING * 1000},
    }
    if options.ca is not None:
        try:
            asked["verify"] = ssl.create_default_context(cafile=options.ca)
            asked["grpc_options"]["root_certificates"] = Path(options.ca).read_bytes()
        except (OSError, ValueError) as error:  # errors of ssl are those of the system
            reason = "it has no certificate in PEM" if isinstance(error, ssl.SSLError) else error
            raise InputError(f"--ca {options.ca} cannot be read: {reason}") from error
    return asked


def _connect_soon(
    request: httpx.Request, send: Callable[[httpx.Request], httpx.Response]
) -> httpx.Response:
    timeouts = request.extensions.get("timeout", {})
    request.extensions["timeout"] = {
        **timeouts,
        "connect": min(CONNECTING, timeouts.get("connect") or CONNECTING),
    }
    return send(request)


def _warn_of_open_key(address: str, key: str | None) -> None:
    host = urlsplit(address).hostname or ""
    if key and address.startswith("http:") and not _LOOPBACK.fullmatch(host):
        logger.warning("%s: the key is sent without encryption; https:// would encrypt it", address)


# what went wrong


def _reason(error: Exception, address: str, options: argparse.Namespace) -> str:
    """Return in one line why a request failed, and what to set."""
    from qdrant_embed.engines.server import is_no_answer

    cause: BaseException = error
    while isinstance(cause, QdrantEmbedError) and cause.__cause__ is not None:
        cause = cause.__cause__
    is_told = isinstance(error, QdrantEmbedError) and not (_is_page(cause) or is_no_answer(cause))
    said = str(error) if is_told or isinstance(error, IngestError) else _said(cause)
    if isinstance(error, ServerUnavailableError):
        said = error.found
    if options.path is not None or isinstance(error.__cause__, ServerUnavailableError):
        return said
    way_out = _way_out(cause, address, options)
    return f"{said.removesuffix(_LIBRARY_SAYS)}: {way_out}" if way_out else said


def _said(error: BaseException) -> str:
    """Return what went wrong, without what to do about it."""
    from qdrant_client.http.exceptions import UnexpectedResponse

    from qdrant_embed.engines.server import in_one_line, is_no_answer

    if isinstance(error, UnexpectedResponse) and _is_page(error):
        return f"{error.status_code} {error.reason_phrase}"
    return _NOT_QDRANT if is_no_answer(error) else in_one_line(error)


def _way_out(error: BaseException, address: str, options: argparse.Namespace) -> str:
    """Return what to do about a failed request; empty if that is not known."""
    from qdrant_embed.engines.server import (
        WAYS_OUT,
        answer_of,
        is_no_answer,
        is_unanswered,
        trouble_of,
    )

    answer = answer_of(error)
    if answer is not None and answer.code.name == "UNAUTHENTICATED":
        variable = options.key_variable
        key = "another key" if options.api_key or os.environ.get(variable) else "a key"
        return f"pass {key} as --api-key, or set {variable}"
    is_reached = not is_unanswered(error)
    if (not is_reached or _is_page(error)) and (proxy := _proxy(address, options)) is not None:
        host = urlsplit(address).hostname
        return f"{proxy.note}; unset that, or set NO_PROXY={host} to ask the server itself"
    if is_no_answer(error) or (_is_page(error) and getattr(error, "status_code", None) == 404):
        return "check --url, its port and --prefix"
    content, headers = getattr(error, "content", b""), getattr(error, "headers", {})
    if is_reached and (location := headers.get("Location")):
        with suppress(ValueError):
            at = urlsplit(location)
            return f"the server is at {at.scheme}://{at.netloc}, pass that as --url"
    if _WANTS_TLS.search(content.decode(errors="replace")):
        return "the server wants TLS, use https://"
    trouble = trouble_of(error)
    return _WAYS_OUT[trouble] if trouble in _WAYS_OUT else WAYS_OUT[trouble]


def _is_page(error: BaseException) -> bool:
    """Return whether the answer is a page for people, as proxies send them."""
    content = getattr(error, "content", b"")
    return isinstance(content, bytes) and content.lstrip().startswith(b"<")


def _proxy(address: str, options: argparse.Namespace) -> _Proxy | None:
    """Return the proxy that requests to an address go through, as far as the environment says."""
    parts = urlsplit(address)
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    if options.grpc:
        for name in _GRPC_PROXIES:
            if value := os.environ.get(name):
                return _Proxy(value, name)
        return None
    proxies = urllib.request.getproxies()
    for name in (parts.scheme, "all"):
        if value := proxies.get(name):
            return _Proxy(value, f"{name.upper()}_PROXY")
    return None


def _proxy_variables() -> str:
    """Return the names of the environment's variables of proxies."""
    names = [name for name in os.environ if name.lower().endswith("_proxy")]
    return ", ".join(sorted(names)) or f"the settings of {sys.platform}"
