"""The commands that run until they are stopped; each imports what it needs when it runs."""

from __future__ import annotations

import argparse
import io
import os
import sys
import threading
import webbrowser
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from qdrant_embed.cli import database
from qdrant_embed.cli.command import Commands, add_command, not_empty, to_text
from qdrant_embed.cli.records import FORMATS, Field, Fields, RecordFile
from qdrant_embed.encoder.facts.catalog import DEFAULT_MODEL
from qdrant_embed.errors import InputError, MissingDependencyError
from qdrant_embed.limits import SERVICE_BODY

if TYPE_CHECKING:
    from qdrant_embed.ingest.documents import Document
    from qdrant_embed.serve.database import Collections, NewCollections
    from qdrant_embed.serve.door import Rules
    from qdrant_embed.serve.listening import Certificate

KEY_VARIABLE = "QDRANT_EMBED_API_KEY"
_MOST_BODY = 64  # MB that --max-body allows


def add_to(commands: Commands) -> None:
    """Add the commands to the parser's."""
    served = _models()
    add_command(commands, "serve", serve, database.service_parser(), served, _listening(6336))
    browsing = add_command(
        commands, "browse", browse, database.service_parser(), served, _listening(0)
    )
    browsing.add_argument(
        "--no-open", action="store_true", help="do not open the browser; the address is printed"
    )

    remembering = add_command(commands, "mcp", mcp, database.service_parser(), _listening(6337))
    remembering.add_argument(
        "--transport",
        choices=["stdio", "http"],
        default="stdio",
        help="standard input and output, the default, or streamable HTTP at /mcp",
    )
    remembering.add_argument(
        "--collection",
        type=to_text,
        metavar="NAME",
        help="the one collection that agents use; COLLECTION_NAME by default, and without both, "
        "agents name collections",
    )
    remembering.add_argument(
        "--model",
        metavar="MODEL",
        help="model of collections that are created; EMBEDDING_MODEL by default, and without both "
        "sentence-transformers/all-MiniLM-L6-v2",
    )
    remembering.add_argument(
        "--read-only", action="store_true", help="agents can store nothing; also QDRANT_READ_ONLY"
    )
    remembering.set_defaults(max_body=SERVICE_BODY)


def serve(options: argparse.Namespace) -> None:
    """Answer requests for vectors, rerankings and searches over HTTP until it is stopped."""
    _run(options, "qdrant-embed serve")


def browse(options: argparse.Namespace) -> None:
    """Open a page in the browser that searches a database, until it is stopped."""
    if options.path is None and options.url is None:
        raise InputError("there is no database: pass --path FOLDER or --url URL")
    _run(options, "qdrant-embed browse", opens=not options.no_open)


def _run(options: argparse.Namespace, purpose: str, *, opens: bool = False) -> None:
    """Run the service until it is stopped; open its page in the browser first, if asked to."""
    try:
        from qdrant_embed.serve.app import application
        from qdrant_embed.serve.listening import address_of, bound, run
        from qdrant_embed.serve.metrics import Metrics
        from qdrant_embed.serve.models import ServedModels
        from qdrant_embed.serve.service import Service
    except ModuleNotFoundError as error:
        raise _missing(error, purpose, "serve") from error
    from qdrant_embed.encoder.cross import TextCrossEncoder
    from qdrant_embed.encoder.text import TextEmbedding
    from qdrant_embed.serve.database import NewCollections

    rules = _rules(options)
    metrics = Metrics()
    models = ServedModels(
        [TextEmbedding(name, lazy_load=True) for name in options.model or [DEFAULT_MODEL]],
        [TextCrossEncoder(name, lazy_load=True) for name in options.reranker or []],
        metrics.batches.observe,
    )
    new = NewCollections(models.embedders[0].embedding, options.sparse_model, options.late_model)
    certificate = _certificate(options)
    opened = bound(options.host, options.port)
    collections = _collections(options, new)
    service = Service(models, collections, metrics=metrics, read_file=documents_of)
    address = address_of(opened, certificate)
    print(f"qdrant-embed serves at {address}", file=sys.stderr, flush=True)
    if opens:  # it listens already; a browser in this terminal would not return
        page = f"{address}/"
        threading.Thread(target=webbrowser.open, args=(page,), daemon=True).start()
    run(application(service, rules), opened, certificate)


def documents_of(
    name: str, content: bytes, text_field: str, id_field: str | None
) -> Iterator[Document]:
    """Yield the documents of a file, as ``qdrant-embed add`` reads them.

    Args:
        name: name of the file, which ends in its format.
        content: its bytes.
        text_field: field that holds the text, in JSON lines and CSV.
        id_field: field that holds the id, if one does.

    Raises:
        InputError: if the format is not known, or a line cannot be used.
    """
    found = next((known for known in FORMATS if name.lower().endswith(f".{known}")), None)
    if found is None:
        raise InputError(f"the name {name!r:.80} does not end in .jsonl, .csv or .txt")
    fields = Fields(text_field, None if id_field is None else Field(id_field))
    records = RecordFile(io.BytesIO(content), found, fields)
    try:
        yield from records
    except InputError as error:
        raise InputError(f"{name}, line {records.line}: {error}") from error


def mcp(options: argparse.Namespace) -> None:
    """Give agents a memory by the Model Context Protocol, until their input ends."""
    try:
        from qdrant_embed.mcp.server import application, run_over_stdio, server
    except ModuleNotFoundError as error:
        raise _missing(error, "qdrant-embed mcp", "mcp") from error
    from qdrant_embed.mcp.memory import Memory
    from qdrant_embed.mcp.settings import read_settings

    settings = read_settings(os.environ)
    if options.path is None and options.url is None:
        options.path, options.url = settings.path, settings.url
    if options.path is None and options.url is None:
        raise InputError(
            "there is no database: pass --path FOLDER or --url URL, or set QDRANT_LOCAL_PATH or "
            "QDRANT_URL"
        )
    settings = replace(
        settings,
        collection=options.collection or settings.collection,
        model=options.model or settings.model,
        read_only=options.read_only or settings.read_only,
    )

    def open_collections() -> Collections:
        from qdrant_embed.serve.database import Collections, NewCollections

        return Collections(database.service_client(options), NewCollections(settings.model))

    made = server(settings, Memory(settings, open_collections))
    if options.transport == "stdio":
        run_over_stdio(made)
        return
    from qdrant_embed.serve.listening import address_of, bound, run

    rules = _rules(options)
    certificate = _certificate(options)
    opened = bound(options.host, options.port)
    address = address_of(opened, certificate)
    print(f"qdrant-embed serves at {address}/mcp", file=sys.stderr, flush=True)
    run(application(made, rules), opened, certificate)


def _collections(options: argparse.Namespace, new: NewCollections) -> Collections | None:
    from qdrant_embed.serve.database import Collections

    if options.path is None and options.url is None:
        return None
    return Collections(database.service_client(options), new)


def _models() -> argparse.ArgumentParser:
    """Return a parent parser with the options of a service's models."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument(
        "--model",
        action="append",
        metavar="MODEL",
        help="model to serve; repeat it for several, of which the first is the default; "
        f"{DEFAULT_MODEL} by default",
    )
    options.add_argument(
        "--reranker",
        action="append",
        metavar="MODEL",
        help="cross-encoder to serve; repeat it for several; none by default",
    )
    options.add_argument(
        "--sparse-model", metavar="MODEL", help="sparse model of collections that are created"
    )
    options.add_argument(
        "--late-model",
        metavar="MODEL",
        help="late-interaction model of collections that are created",
    )
    options.add_argument(
        "--max-body",
        type=_megabytes,
        default=SERVICE_BODY,
        metavar="MB",
        help="largest body of a request; 8 by default",
    )
    return options


def _listening(port: int) -> argparse.ArgumentParser:
    """Return a parent parser with the options of what listens on an address."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument(
        "--host",
        type=not_empty,
        default="127.0.0.1",
        help="address to listen on; 127.0.0.1 by default. One that other machines reach needs a "
        f"key in {KEY_VARIABLE}",
    )
    options.add_argument(
        "--port",
        type=_port,
        default=port,
        help=f"port; {port or 'a free one'} by default{', 0 for any free one' if port else ''}",
    )
    options.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="name that requests may call this service by, besides localhost; repeat it for "
        "several",
    )
    options.add_argument(
        "--ssl-certfile",
        type=not_empty,
        metavar="FILE",
        help="PEM file of a certificate, to be reached by https alone",
    )
    options.add_argument(
        "--ssl-keyfile",
        type=not_empty,
        metavar="FILE",
        help="PEM file of its private key, if that is not in the same file",
    )
    options.set_defaults(json=False)
    return options


def _certificate(options: argparse.Namespace) -> Certificate | None:
    """Return what the service proves its name with, if it is told to.

    Raises:
        InputError: if that cannot be read.
    """
    from qdrant_embed.serve.listening import Certificate

    if options.ssl_certfile is not None:
        return Certificate(options.ssl_certfile, options.ssl_keyfile)
    if options.ssl_keyfile is not None:
        raise InputError("--ssl-keyfile needs the certificate of the key: pass --ssl-certfile FILE")
    return None


def _rules(options: argparse.Namespace) -> Rules:
    """Return what requests must be.

    Raises:
        InputError: if the address needs a key, or the key cannot be used.
    """
    from qdrant_embed.serve.door import rules_for

    key = os.environ.get(KEY_VARIABLE)
    if key is not None and not key.strip():
        raise InputError(f"{KEY_VARIABLE} is set and empty; unset it to need no key")
    return rules_for(options.host, key, options.allowed_host, most_body=options.max_body)


def _missing(error: ModuleNotFoundError, purpose: str, extra: str) -> MissingDependencyError:
    name = (error.name or "").partition(".")[0]
    if name == "qdrant_embed":
        raise error
    name = "mcp" if name == "mcp_types" else name  # the SDK comes in two
    return MissingDependencyError(name, purpose, extra=extra)


def _port(argument: str) -> int:
    if not argument.isascii() or not argument.isdecimal() or int(argument) > 65_535:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 65535, not {argument!r}")
    return int(argument)


def _megabytes(argument: str) -> int:
    if not argument.isascii() or not argument.isdecimal() or not 1 <= int(argument) <= _MOST_BODY:
        raise argparse.ArgumentTypeError(
            f"must be a number from 1 to {_MOST_BODY}, not {argument!r}"
        )
    return int(argument) << 20
