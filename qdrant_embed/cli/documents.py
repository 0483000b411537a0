"""The commands about documents. qdrant_client is imported only when one of them runs."""

from __future__ import annotations

import argparse
import codecs
import gzip
import io
import json
import logging
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from qdrant_embed.cli import database
from qdrant_embed.cli.command import (
    Answer,
    Commands,
    add_command,
    printable,
    table,
    to_text,
    with_json,
)
from qdrant_embed.cli.comparisons import mismatches
from qdrant_embed.cli.progress import FileProgress
from qdrant_embed.cli.records import FORMATS, TYPES, Field, Fields, Format, RecordFile, to_field
from qdrant_embed.encoder.interfaces import Overflow
from qdrant_embed.errors import IngestError, InputError, QdrantEmbedError
from qdrant_embed.ingest.tables import TableFile, give_memory_back, open_tables, table_format

if TYPE_CHECKING:
    from qdrant_embed.client import QdrantClient

logger = logging.getLogger(__name__)

_STDIN = "-"
_PACKED = ".gz"
_SAMPLE = 20  # documents whose metadata is looked at
_SHOWN = 80  # characters of a text in the table


def add_to(commands: Commands) -> None:
    """Add the commands to the parser's."""
    connection = database.parser(with_json())
    progress = argparse.ArgumentParser(add_help=False)
    progress.add_argument("--quiet", action="store_true", help="do not show progress")
    model = argparse.ArgumentParser(add_help=False, parents=[connection])
    model.add_argument("--model", help="model; the collection's own by default")

    adding = add_command(commands, "add", add, model, progress)
    adding.add_argument(
        "file",
        metavar="FILE",
        help="a .jsonl, .csv or .txt file, each also with .gz behind; a .parquet or .arrow "
        "file, or a folder of these; or - for stdin",
    )
    adding.add_argument(
        "--encoding",
        type=_encoding,
        default="utf-8",
        help="encoding of the file, like cp1252 or utf-16; utf-8 by default",
    )
    adding.add_argument(
        "--format",
        choices=FORMATS,
        help="format of the file; by default from its name, and jsonl for stdin",
    )
    adding.add_argument(
        "--text-field",
        type=to_text,
        default="text",
        metavar="FIELD",
        help="field that holds the text; text by default",
    )
    adding.add_argument(
        "--id-field",
        type=_id_field,
        metavar="FIELD[:TYPE]",
        help="field that holds the id; by default, ids are derived from text and metadata. In CSV "
        "an id is text, unless its type is int",
    )
    adding.add_argument(
        "--metadata-field",
        type=lambda text: to_field(to_text(text)),
        action="append",
        metavar="FIELD[:TYPE]",
        help="field to store as metadata; repeat it for several; all other fields by default. "
        f"TYPE is one of {', '.join(TYPES)}, like year:int; in CSV all are text by default, and an "
        "empty cell of another type is null",
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
        help="number of points per request; by default 256, with local mode 32",
    )
    adding.add_argument(
        "--overflow",
        choices=get_args(Overflow),
        help="how a new collection handles texts longer than the model's limit; truncate by "
        "default",
    )

    querying = add_command(commands, "query", query, model)
    querying.add_argument("text", type=to_text, help="text to search for")
    querying.add_argument(
        "--limit", type=int, default=10, help="maximum number of hits; 10 by default"
    )
    querying.add_argument(
        "--where",
        type=_json_object,
        metavar="JSON",
        help='filter on metadata, like {"year": {"gte": 2020}} or {"day": {"lt": "2024-02-01"}}',
    )
    querying.add_argument(
        "--reranker",
        metavar="NAME",
        help="cross-encoder that scores the hits again: a name or a folder",
    )
    querying.add_argument(
        "--chunks", action="store_true", help="show chunks instead of documents' best chunks"
    )
    querying.add_argument(
        "--diversity",
        type=float,
        metavar="SHARE",
        help="how much hits shall differ from each other, from 0, the nearest ones, to 1",
    )

    migrating = add_command(commands, "migrate", migrate, connection, progress)
    migrating.set_defaults(model=None)  # the client's model, as opposed to the new one
    migrating.add_argument(
        "--model", dest="new_model", metavar="MODEL", required=True, help="the new model"
    )
    migrating.add_argument(
        "--to", type=to_text, metavar="NAME", required=True, help="the new collection"
    )
    migrating.add_argument(
        "--alias", type=to_text, help="alias to point to the new collection once that is complete"
    )
    migrating.add_argument(
        "--batch-size",
        type=int,
        default=256,
        help="number of documents per request; 256 by default",
    )


def add(options: argparse.Namespace) -> Answer:
    """Embed and store the documents of a file."""
    from qdrant_embed.engines.embedded import is_index_due

    shown = False if options.quiet else None
    with ExitStack() as opened:
        if options.format is None and _is_table(options.file):
            give_memory_back()
            files = open_tables(Path(options.file))
            client = opened.enter_context(database.connect(options))
            stored = _add_table(client, files, options)
        else:
            fields = Fields(options.text_field, options.id_field, options.metadata_field)
            file_format = options.format or _format_of(options.file)
            stream = opened.enter_context(_open_input(options.file))
            client = opened.enter_context(database.connect(options))
            records = RecordFile(stream, file_format, fields, options.encoding)
            has_size = options.file != _STDIN and not isinstance(stream, _Unpacked)
            size = Path(options.file).stat().st_size if has_size else 0
            title = f"adding {options.file}"
            with FileProgress(title, records, size or None, shown=shown) as progress:
                stored = _add_records(client, progress, options)
        if is_index_due(client, options.collection):
            client.optimize(options.collection, progress=shown)
    found = {"collection": options.collection, "stored": stored}
    documents = "1 document is" if stored == 1 else f"{stored} documents are"
    return Answer(found, [f"{documents} stored in {options.collection!r}"])


def query(options: argparse.Namespace) -> Answer:
    """Find the stored texts nearest in meaning to a text."""
    from qdrant_embed.collection.payload import PayloadCodec

    with database.connect_to_collection(options) as client:
        hits = client.query(
            options.collection,
            options.text,
            limit=options.limit,
            where=options.where,
            reranker=options.reranker,
            chunks=options.chunks,
            diversity=options.diversity,
        )
        codec = PayloadCodec(client.document_key)
        if options.where:
            _note_mismatches(client, options)
    rows = [
        {
            "score": f"{hit.score:.3f}",
            "id": printable(str(hit.id)),
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
    if options.reranker is None:
        unset.add("retrieval_score")
    return Answer(
        [hit.model_dump(mode="json", exclude=unset) for hit in hits],
        table(rows) or ["nothing was found"],
    )


def migrate(options: argparse.Namespace) -> Answer:
    """Encode a collection's documents with another model into a new collection."""
    with database.connect_to_collection(options) as client:
        count = client.migrate_model(
            options.collection,
            options.new_model,
            options.to,
            alias=options.alias,
            batch_size=options.batch_size,
            progress=False if options.quiet else None,
        )
    found = {"collection": options.to, "stored": count}
    documents, are = ("1 document", "is") if count == 1 else (f"{count} documents", "are")
    return Answer(found, [f"{documents} of {options.collection!r} {are} in {options.to!r}"])


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


def _is_table(name: str) -> bool:
    return name != _STDIN and (Path(name).is_dir() or table_format(Path(name)) is not None)


def _add_table(
    client: QdrantClient, files: Sequence[TableFile], options: argparse.Namespace
) -> int:
    """Add the rows of Parquet or Arrow files and return the number of distinct documents.

    Raises:
        QdrantEmbedError: if `add_frame` fails; the message names the file.
    """
    fields = [*(options.metadata_field or ()), *([options.id_field] if options.id_field else [])]
    for field in fields:
        if field.type is not None:
            raise InputError(
                f"{options.file} says which type field {field.name!r} has; omit :{field.type}"
            )
    try:
        return client.add_frame(
            options.collection,
            [*files],
            text=options.text_field,
            id=None if options.id_field is None else options.id_field.name,
            metadata=options.metadata_field and [field.name for field in options.metadata_field],
            batch_size=options.batch_size,
            on_existing=options.on_existing,
            progress=False if options.quiet else None,
        )
    except InputError as error:
        if any(str(error).startswith(str(file.path)) for file in files):
            raise
        raise InputError(f"{options.file}: {error}") from error


def _note_mismatches(client: QdrantClient, options: argparse.Namespace) -> None:
    """Log where the filter compares numbers with text, judging by some documents."""
    from qdrant_embed.engines.engine import run_blocking
    from qdrant_embed.flows.requests import CollectionRequests

    requests = CollectionRequests(client._io, client, options.collection, max_retries=0)
    try:
        some, _ = run_blocking(requests.page(_SAMPLE, with_payload=True))
    except QdrantEmbedError:  # the answer is there, and this only explains it
        return
    for note in mismatches(options.where, [point.payload or {} for point in some]):
        logger.warning("%s", note)


@contextmanager
def _open_input(name: str) -> Iterator[io.BufferedIOBase]:
    if name == _STDIN:
        if sys.stdin is None:
            raise InputError("- cannot be read: standard input is closed")
        yield cast("io.BufferedIOBase", sys.stdin.buffer)
        return
    try:
        stream = Path(name).open("rb")  # noqa: SIM115 - errors inside `with` are not about opening
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror}") from error
    with stream:
        if not name.lower().endswith(_PACKED):
            yield stream
            return
        with _Unpacked(name, fileobj=stream) as unpacked:
            yield unpacked


class _Unpacked(gzip.GzipFile):
    """A file that was packed with gzip."""

    def __init__(self, name: str, *, fileobj: io.BufferedIOBase) -> None:
        super().__init__(fileobj=fileobj, mode="rb")
        self._packed = name

    def read1(self, size: int = -1) -> bytes:
        """Read some bytes; raise `InputError` if the file is damaged."""
        try:
            return super().read1(size)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{self._packed} cannot be unpacked: {error}") from error


def _format_of(name: str) -> Format:
    suffix = "jsonl"
    if name != _STDIN:
        suffix = Path(name.lower().removesuffix(_PACKED)).suffix.removeprefix(".")
    for known in FORMATS:
        if suffix == known:
            return known
    raise InputError(
        f"the name {name} does not end in .jsonl, .csv, .txt, .parquet or .arrow; specify the "
        "format with --format"
    )


def _json_object(argument: str) -> dict[str, Any]:
    try:
        value = json.loads(to_text(argument))
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError('must be a JSON object, like {"year": 2020}')
    return value


def _id_field(argument: str) -> Field:
    field = to_field(to_text(argument))
    if field.type not in (None, "str", "int"):
        raise argparse.ArgumentTypeError(f"an id is str or int, not {field.type}")
    return field


def _encoding(argument: str) -> str:
    try:
        "a".encode(argument, "ignore")
        return codecs.lookup(argument).name
    except (LookupError, ValueError) as error:  # also base64, which is no encoding of text
        raise argparse.ArgumentTypeError(
            f"{argument!r} is not a known encoding; utf-8, utf-16, latin-1 and cp1252 are some"
        ) from error


def _shorten(text: str) -> str:
    line = printable(text)
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 3]}..."
