"""The commands about whole collections, whatever is in them."""

from __future__ import annotations

import argparse
from pathlib import Path

from qdrant_embed.cli import database
from qdrant_embed.cli.command import Answer, Commands, add_command, at_least_one, to_text, with_json


def add_to(commands: Commands) -> None:
    """Add the commands to the parser's."""
    copying = add_command(commands, "copy", copy, database.copying_parser(with_json()))
    copying.add_argument(
        "--collection",
        type=to_text,
        action="append",
        metavar="NAME",
        help="collection to copy; repeat it for several; all by default",
    )
    copying.add_argument(
        "--batch-size",
        type=at_least_one,
        default=256,
        help="number of points per request; 256 by default",
    )
    copying.add_argument("--quiet", action="store_true", help="do not show progress")

    place = database.parser(with_json(), positional=True)
    exporting = add_command(commands, "export-points", export_points, place)
    exporting.set_defaults(model=None)
    exporting.add_argument(
        "--to",
        type=to_text,
        metavar="FILE",
        required=True,
        help="the .parquet file to write; read it with add or pyarrow, as pandas and Polars do not "
        "see which columns are JSON or vectors",
    )
    exporting.add_argument("--quiet", action="store_true", help="do not show progress")


def copy(options: argparse.Namespace) -> Answer:
    """Copy collections from one database to another, with their vectors as they are."""
    from qdrant_embed.engines.embedded import is_index_due

    with database.connect_to_both(options) as (source, target):
        copied = source.copy_to(
            target,
            options.collection,
            batch_size=options.batch_size,
            progress=False if options.quiet else None,
        )
        for name in copied:
            if is_index_due(target, name):
                target.optimize(name, progress=False if options.quiet else None)
    place = options.to_path or options.to_url
    lines = [
        f"{count} {'point of' if count == 1 else 'points of'} {name!r} "
        f"{'is' if count == 1 else 'are'} in {place}"
        for name, count in copied.items()
    ]
    return Answer({"copied": copied}, lines or ["there is no collection to copy"])


def export_points(options: argparse.Namespace) -> Answer:
    """Write ids, payloads and vectors of a collection's points to a Parquet file."""
    from qdrant_embed.engines.engine import run_blocking
    from qdrant_embed.ingest import exporting

    with database.connect_to_collection(options) as client:
        collection = client._collection(options.collection)
        shown = False if options.quiet else None
        written = run_blocking(exporting.export_points(collection, Path(options.to), shown))
    points = "1 point is" if written == 1 else f"{written} points are"
    found = {"collection": options.collection, "file": options.to, "points": written}
    return Answer(found, [f"{points} in {options.to}"])
