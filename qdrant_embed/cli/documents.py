"""The commands about documents. Only running one imports qdrant_client."""

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
from qdrant_embed.errors import IngestError, InputError, QdrantEmbedError

if TYPE_CHECKING:
    from qdrant_embed.client import QdrantClient

_STDIN = "-"
_SHOWN = 80  # characters of a text in the table


def add_to(commands: Commands) -> None:
    """Adds the commands to the parser's."""
    connected = argparse.ArgumentParser(add_help=False, parents=[with_json()])
    where = connected.add_mutually_exclusive_group(required=True)
    where.add_argument("--url", help="of a server, like http://localhost:6333")
    where.add_argument("--path", metavar="FOLDER", help="of a local database")
    connected.add_argument("--collection", metavar="NAME", required=True)
    connected.add_argument("--api-key", help="instead of QDRANT_API_KEY")
    connected.add_argument(
        "--timeout", type=int, default=60, metavar="SECONDS", help="of a request; 60 by default"
    )
    connected.add_argument(
        "--sparse-model", metavar="MODEL", help="the collection's own by default, if any"
    )
    connected.set_defaults(overflow=None)  # only `add` has the option
    long = argparse.ArgumentParser(add_help=False)
    long.add_argument("--quiet", action="store_true", help="show no progress")
    own = argparse.ArgumentParser(add_help=False, parents=[connected])
    own.add_argument("--model", help="the collection's own by default")

    adding = add_command(commands, "add", add, own, long)
    adding.add_argument("file", metavar="FILE", help="FILE.jsonl, FILE.csv, FILE.txt; - for stdin")
    adding.add_argument("--format", choices=FORMATS, help="by the file's name, jsonl for stdin")
    adding.add_argument(
        "--text-field", default="text", metavar="FIELD", help="holds the text; text by default"
    )
    adding.add_argument(
        "--id-field", metavar="FIELD", help="holds the id; by default one made of text and metadata"
    )
    adding.add_argument(
        "--metadata-field",
        action="append",
        metavar="FIELD",
        help="stored beside the text; may be given several times; all other fields by default",
    )
    adding.add_argument(
        "--on-existing",
        choices=["skip", "overwrite", "error"],
        default="skip",
        help="documents that are there already; skip, the default, stores those that have changed",
    )
    adding.add_argument("--batch-size", type=int, help="points in one request")
    adding.add_argument(
        "--overflow",
        choices=get_args(Overflow),
        help="of texts longer than the model reads, in a new collection; truncate by default",
    )

    asking = add_command(commands, "query", query, own)
    asking.add_argument("text")
    asking.add_argument("--limit", type=int, default=10, help="hits at most; 10 by default")
    asking.add_argument(
        "--where", type=_json_object, metavar="JSON", help='like {"year": {"gte": 2020}}'
    )
    asking.add_argument(
        "--chunks", action="store_true", help="chunks of long documents, not only the best of each"
    )

    moving = add_command(commands, "migrate", migrate, connected, long)
    moving.set_defaults(model=None)  # the client's, which the new one is not
    moving.add_argument("--model", dest="new_model", metavar="MODEL", required=True)
    moving.add_argument("--to", metavar="NAME", required=True, help="the new collection")
    moving.add_argument("--alias", help="leads to the new collection, once that is complete")
    moving.add_argument("--batch-size", type=int, default=256, help="documents in one request")


def add(options: argparse.Namespace) -> Answer:
    """Embeds and stores the documents of a file."""
    fields = Fields(options.text_field, options.id_field, options.metadata_field)
    form = options.format or _format_of(options.file)
    with _opened(options.file) as stream, _connected(options) as client:
        records = RecordFile(stream, form, fields)
        size = 0 if options.file == _STDIN else Path(options.file).stat().st_size
        shown = False if options.quiet else None
        with FileProgress(f"adding {options.file}", records, size or None, shown=shown) as progress:
            stored = _stored(client, progress, options)
    found = {"collection": options.collection, "stored": stored}
    return Answer(found, [f"{stored} documents are stored in {options.collection!r}"])


def query(options: argparse.Namespace) -> Answer:
    """Finds the stored texts nearest in meaning to a text."""
    from qdrant_embed.collection.payload import PayloadCodec

    with _connected_to_collection(options) as client:
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
            "text": _shortened(hit.document),
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
    """Encodes a collection's documents with another model into a new collection."""
    with _connected_to_collection(options) as client:
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


def _stored(client: QdrantClient, progress: FileProgress, options: argparse.Namespace) -> int:
    """How many different documents there were.

    Raises:
        QdrantEmbedError: as of `add`; says which line is wrong where one is.
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
def _connected(options: argparse.Namespace) -> Iterator[QdrantClient]:
    """A client with the models that were asked for.

    Raises:
        QdrantEmbedError: what a request, or opening the database, has failed with, too.
    """
    from qdrant_embed.client import QdrantClient
    from qdrant_embed.engines.server import REQUEST_ERRORS

    where: dict[str, Any] = {"path": options.path}
    if options.path is None:
        key = options.api_key or os.environ.get("QDRANT_API_KEY")
        where = {"url": options.url, "api_key": key, "timeout": options.timeout}
    try:
        # a server that cannot be reached fails the first request, with the reason
        client = QdrantClient(**where, check_compatibility=False)
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
    except REQUEST_ERRORS as error:
        raise QdrantEmbedError(f"{options.path or options.url}: {error}") from error
    finally:
        client.close()


@contextmanager
def _connected_to_collection(options: argparse.Namespace) -> Iterator[QdrantClient]:
    """The same, once it is seen that the collection is there."""
    if options.path is not None and not Path(options.path).is_dir():
        raise InputError(f"there is no folder {options.path}")
    with _connected(options) as client:
        if not client.collection_exists(options.collection):
            names = sorted(known.name for known in client.get_collections().collections)
            raise InputError(
                f"there is no collection {options.collection!r}; there are: "
                f"{', '.join(names) or 'none'}"
            )
        yield client


@contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    if name == _STDIN:
        yield sys.stdin.buffer
        return
    try:
        stream = Path(name).open("rb")  # noqa: SIM115 - what `with` runs may fail by itself
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror}") from error
    with stream:
        yield stream


def _format_of(name: str) -> Format:
    suffix = "jsonl" if name == _STDIN else Path(name).suffix.lower().removeprefix(".")
    for known in FORMATS:
        if suffix == known:
            return known
    raise InputError(f"{name} is none of {', '.join(FORMATS)} by its name: say so with --format")


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("an object is needed")
    return value


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"
