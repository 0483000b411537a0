"""The commands about documents. qdrant_client is imported only when one of them runs."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, get_args

from qdrant_embed.cli.command import Answer, Commands, add_command, table, with_json
from qdrant_embed.cli.progress import FileProgress
from qdrant_embed.cli.records import FORMATS, Fields, Format, RecordFile
from qdrant_embed.encoder.facts.catalog import DEFAULT_MODEL
from qdrant_embed.encoder.interfaces import Overflow
from qdrant_embed.errors import (
    CollectionNotFoundError,
    IngestError,
    InputError,
    QdrantEmbedError,
    ServerRefusal,
)

if TYPE_CHECKING:
    from qdrant_embed.client import QdrantClient

_STDIN = "-"
_SHOWN = 80  # characters of a text in the table


def add_to(commands: Commands) -> None:
    """Add the commands to the parser's."""
    connection = argparse.ArgumentParser(add_help=False, parents=[with_json()])
    database = connection.add_mutually_exclusive_group(required=True)
    database.add_argument("--url", help="URL of a server, like http://localhost:6333")
    database.add_argument("--path", metavar="FOLDER", help="folder of a local database")
    connection.add_argument(
        "--collection", metavar="NAME", required=True, help="name of the collection"
    )
    connection.add_argument("--api-key", help="key of the server; QDRANT_API_KEY by default")
    connection.add_argument(
        "--timeout",
        type=int,
        default=60,
        metavar="SECONDS",
        help="timeout of a request; 60 by default",
    )
    connection.add_argument(
        "--sparse-model", metavar="MODEL", help="sparse model; the collection's own by default"
    )
    connection.set_defaults(overflow=None)  # only `add` has the option
    progress = argparse.ArgumentParser(add_help=False)
    progress.add_argument("--quiet", action="store_true", help="do not show progress")
    model = argparse.ArgumentParser(add_help=False, parents=[connection])
    model.add_argument("--model", help="model; the collection's own by default")

    adding = add_command(commands, "add", add, model, progress)
    adding.add_argument(
        "file", metavar="FILE", help="a .jsonl, .csv or .txt file in UTF-8, or - for stdin"
    )
    adding.add_argument(
        "--format",
        choices=FORMATS,
        help="format of the file; by default from its name, and jsonl for stdin",
    )
    adding.add_argument(
        "--text-field",
        default="text",
        metavar="FIELD",
        help="field that holds the text; text by default",
    )
    adding.add_argument(
        "--id-field",
        metavar="FIELD",
        help="field that holds the id; by default, ids are derived from text and metadata",
    )
    adding.add_argument(
        "--metadata-field",
        action="append",
        metavar="FIELD",
        help="field to store as metadata; repeat it for several; all other fields by default",
    )
    adding.add_argument(
        "--on-existing",
        choices=["skip", "overwrite", "error"],
        default="skip",
        help="how to handle documents that are already stored; skip, the default, stores only "
        "those that have changed",
    )
    adding.add_argument(
        "--batch-size",
        type=int,
        help="number of points per request; by default 256 on a server, 32 in a local database",
    )
    adding.add_argument(
        "--overflow",
        choices=get_args(Overflow),
        help="how a new collection handles texts longer than the model's limit; truncate by "
        "default",
    )

    querying = add_command(commands, "query", query, model)
    querying.add_argument("text", help="text to search for")
    querying.add_argument(
        "--limit", type=int, default=10, help="maximum number of hits; 10 by default"
    )
    querying.add_argument(
        "--where",
        type=_json_object,
        metavar="JSON",
        help='filter on metadata, like {"year": {"gte": 2020}}',
    )
    querying.add_argument(
        "--chunks", action="store_true", help="show chunks instead of documents' best chunks"
    )

    migrating = add_command(commands, "migrate", migrate, connection, progress)
    migrating.set_defaults(model=None)  # the client's model, as opposed to the new one
    migrating.add_argument(
        "--model", dest="new_model", metavar="MODEL", required=True, help="the new model"
    )
    migrating.add_argument("--to", metavar="NAME", required=True, help="the new collection")
    migrating.add_argument(
        "--alias", help="alias to point to the new collection once that is complete"
    )
    migrating.add_argument(
        "--batch-size",
        type=int,
        default=256,
        help="number of documents per request; 256 by default",
    )


def add(options: argparse.Namespace) -> Answer:
    """Embed and store the documents of a file."""
    fields = Fields(options.text_field, options.id_field, options.metadata_field)
    file_format = options.format or _format_of(options.file)
    with _open_input(options.file) as stream, _connect(options) as client:
        records = RecordFile(stream, file_format, fields)
        size = 0 if options.file == _STDIN else Path(options.file).stat().st_size
        shown = False if options.quiet else None
        with FileProgress(f"adding {options.file}", records, size or None, shown=shown) as progress:
            stored = _add_records(client, progress, options)
    found = {"collection": options.collection, "stored": stored}
    return Answer(found, [f"{stored} documents are stored in {options.collection!r}"])


def query(options: argparse.Namespace) -> Answer:
    """Find the stored texts nearest in meaning to a text."""
    from qdrant_embed.collection.payload import PayloadCodec

    with _connect_to_collection(options) as client:
        hits = client.query(
            options.collection,
            options.text,
            limit=options.limit,
            where=options.where,
            chunks=options.chunks,
        )
        codec = PayloadCodec(client.document_key)
    rows = [
        {
            "score": f"{hit.score:.3f}",
            "id": str(hit.id),
            "text": _shorten(hit.document),
            "metadata": json.dumps(
                codec.metadata(hit.metadata),
                ensure_ascii=False,
                default=str,
            ),
        }
        for hit in hits
    ]
    unset = {"embedding", "sparse_embedding"}
    return Answer(
        [hit.model_dump(mode="json", exclude=unset) for hit in hits],
        table(rows) or ["nothing was found"],
    )


def migrate(options: argparse.Namespace) -> Answer:
    """Encode a collection's documents with another model into a new collection."""
    with _connect_to_collection(options) as client:
        count = client.migrate_model(
            options.collection,
            options.new_model,
            options.to,
            alias=options.alias,
            batch_size=options.batch_size,
            progress=False if options.quiet else None,
        )
    found = {"collection": options.to, "stored": count}
    return Answer(found, [f"{count} documents of {options.collection!r} are in {options.to!r}"])


def _add_records(client: QdrantClient, progress: FileProgress, options: argparse.Namespace) -> int:
    """Add a file's documents and return the number of distinct ones.

    Raises:
        QdrantEmbedError: if `add` fails; the message names the line that is wrong, if one is.
    """
    try:
        stored = client.add(
            options.collection,
            progress,
            ids="content" if options.id_field is None else None,
            batch_size=options.batch_size,
            on_existing=options.on_existing,
            progress=progress.report,
        )
    except (InputError, IngestError) as error:
        reason = error if isinstance(error, InputError) else error.__cause__
        if not isinstance(reason, InputError) or reason.index is None:
            raise
        raise InputError(
            f"{options.file}, line {progress.line_of(reason.index)}: {error}"
        ) from error
    return len(set(stored))


@contextmanager
def _connect(options: argparse.Namespace) -> Iterator[QdrantClient]:
    """Run the block with a client that uses the requested models.

    Raises:
        QdrantEmbedError: also if a request, or opening the database, fails.
    """
    from qdrant_embed.client import QdrantClient
    from qdrant_embed.engines.server import REQUEST_ERRORS

    database: dict[str, Any] = {"path": options.path}
    if options.path is None:
        key = options.api_key or os.environ.get("QDRANT_API_KEY")
        database = {"url": options.url, "api_key": key, "timeout": options.timeout}
    try:
        # if the server cannot be reached, the first request fails and states the reason
        client = QdrantClient(**database, check_compatibility=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise QdrantEmbedError(f"{options.path or options.url}: {error}") from error
    try:
        if options.model is not None or options.overflow is not None:
            client.set_model(
                options.model or DEFAULT_MODEL, overflow=options.overflow or "truncate"
            )
        if options.sparse_model is not None:
            client.set_sparse_model(options.sparse_model)
        yield client
    except (*REQUEST_ERRORS, CollectionNotFoundError, ServerRefusal) as error:
        raise QdrantEmbedError(f"{options.path or options.url}: {error}") from error
    finally:
        client.close()


@contextmanager
def _connect_to_collection(options: argparse.Namespace) -> Iterator[QdrantClient]:
    """Run the block like `_connect`, and raise `InputError` if the collection does not exist."""
    if options.path is not None and not Path(options.path).is_dir():
        raise InputError(f"folder {options.path} does not exist")
    with _connect(options) as client:
        if not client.collection_exists(options.collection):
            names = sorted(known.name for known in client.get_collections().collections)
            raise InputError(
                f"collection {options.collection!r} does not exist; existing collections: "
                f"{', '.join(names) or 'none'}"
            )
        yield client


@contextmanager
def _open_input(name: str) -> Iterator[BinaryIO]:
    if name == _STDIN:
        yield sys.stdin.buffer
        return
    try:
        stream = Path(name).open("rb")  # noqa: SIM115 - errors inside `with` are not about opening
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror}") from error
    with stream:
        yield stream


def _format_of(name: str) -> Format:
    suffix = "jsonl" if name == _STDIN else Path(name).suffix.lower().removeprefix(".")
    for known in FORMATS:
        if suffix == known:
            return known
    raise InputError(
        f"the name {name} does not end in .jsonl, .csv or .txt; specify the format with --format"
    )


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError('must be a JSON object, like {"year": 2020}')
    return value


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"
