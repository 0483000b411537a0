"""The ``qdrant-embed`` command: models, ready before they are needed.

Exit codes: 0 done, 1 failed (the reason is on stderr), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from qdrant_embed.encoder import inventory
from qdrant_embed.encoder.cache import cache_folder
from qdrant_embed.encoder.catalog import find
from qdrant_embed.encoder.sources import find_model
from qdrant_embed.encoder.text import TextEmbedding
from qdrant_embed.errors import InputError, ModelFileError, QdrantEmbedError, UnknownModelError

# what a command found out: what ``--json`` prints, and the lines for people
_Answer = tuple[object, list[str]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; its exit code. `arguments` are those of the process by default."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    run: Callable[[argparse.Namespace], _Answer] = options.run
    try:
        found, lines = run(options)
        text = json.dumps(found, indent=2, default=str) if options.json else "\n".join(lines)
        print(text, flush=True)
    except QdrantEmbedError as error:
        print(f"qdrant-embed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("qdrant-embed: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever reads has seen enough; nothing shall be flushed at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # a name that no file can have, for instance
        print(f"qdrant-embed: {error}", file=sys.stderr)
        return 1
    return 0


def models(options: argparse.Namespace) -> _Answer:
    """The table of known models."""
    known = TextEmbedding.list_supported_models()
    columns = {
        "model": "model",
        "dim": "dim",
        "smallest": "smallest_dimension",
        "tokens": "max_tokens",
        "pooling": "pooling",
        "license": "license",
        "query prefix": "query_prefix",
        "document prefix": "document_prefix",
    }
    rows = [{head: _cell(model[key]) for head, key in columns.items()} for model in known]
    return known, _table(rows)


def pull(options: argparse.Namespace) -> _Answer:
    """Asks the hub what it has now, fetches what is missing, checks and compiles it."""
    encoder = _encoder(options.name, options)
    find_model(
        options.name,
        cache=cache_folder(options.cache_dir),
        revision=options.revision,
        precision=options.precision,
        update=True,
    )
    facts = _facts(encoder)
    return facts, [f"{facts['model']} is ready ({_summary(facts)})"]


def compile_folder(options: argparse.Namespace) -> _Answer:
    """Compiles a folder's model into a folder that runs by itself."""
    if not Path(options.dir).is_dir():
        raise UnknownModelError(f"there is no folder {options.dir}", name=options.dir)
    return _exported(str(Path(options.dir).resolve()), options)


def export(options: argparse.Namespace) -> _Answer:
    """Writes a model to a folder that runs by itself."""
    return _exported(options.name, options)


def verify(options: argparse.Namespace) -> _Answer:
    """Hashes files anew and compares them with what was recorded."""
    asked, cache = options.what, cache_folder(options.cache_dir)
    if asked is not None and Path(asked).is_dir():
        checked = [inventory.check_folder(Path(asked))]
    else:
        checked = inventory.check_cache(cache, _full_name(asked))
    if asked is not None and not checked:
        raise UnknownModelError(f"{asked} is neither in {cache} nor a folder", name=asked)
    if damaged := [
        f"{model.folder / path} ({model.name})" for model in checked for path in model.damaged
    ]:
        raise ModelFileError(
            f"missing or not as recorded: {', '.join(damaged)}. A download is repaired by "
            "'qdrant-embed pull', an exported folder must be exported again"
        )
    lines = [f"{m.name}: {m.files} files as recorded in {m.folder}" for m in checked]
    return [asdict(model) for model in checked], lines or [f"nothing to check in {cache}"]


def cache_list(options: argparse.Namespace) -> _Answer:
    """What the cache folder holds."""
    cache = cache_folder(options.cache_dir)
    entries = inventory.cache_entries(cache, _full_name(options.name))
    rows = [
        {
            "model": entry.name,
            "kind": entry.kind,
            "version": entry.version[:12],
            "MB": f"{entry.size / 1e6:.1f}",
            "folder": str(entry.folder),
        }
        for entry in entries
    ]
    return [asdict(entry) for entry in entries], _table(rows) or [f"nothing in {cache}"]


def cache_clear(options: argparse.Namespace) -> _Answer:
    """Removes what the cache folder holds."""
    cache = cache_folder(options.cache_dir)
    freed = inventory.clear(cache, _full_name(options.name))
    return {"folder": cache, "bytes": freed}, [f"{freed / 1e6:.1f} MB freed in {cache}"]


def _exported(name: str, options: argparse.Namespace) -> _Answer:
    out = Path(options.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is there already: name a new folder")  # before anything long
    encoder = _encoder(name, options)
    encoder.export(out)
    facts = _facts(encoder) | {"folder": str(out)}
    return facts, [f"{facts['model']} is in {out} ({_summary(facts)})"]


def _encoder(name: str, options: argparse.Namespace) -> TextEmbedding:
    return TextEmbedding(
        name,
        cache_dir=options.cache_dir,
        revision=getattr(options, "revision", None),
        precision=options.precision,
        lazy_load=True,
    )


def _facts(encoder: TextEmbedding) -> dict[str, Any]:
    description, report = encoder.describe(), encoder.report
    return {
        "model": description.model,
        "revision": description.revision,
        "weights_sha256": description.weights_sha256,
        "dimension": description.dimension,
        "precision": report.precision,
        "fidelity": asdict(report.fidelity) if report.fidelity else None,
    }


def _summary(facts: Mapping[str, Any]) -> str:
    commit = f"commit {facts['revision'][:12]}, " if facts["revision"] else ""
    return (
        f"{commit}{facts['dimension']} dimensions, {facts['precision']}, "
        f"weights sha256 {facts['weights_sha256'][:12]}"
    )


def _full_name(name: str | None) -> str | None:
    """A model's name as the catalog spells it, where it knows it."""
    entry = find(name) if name else None
    return entry.spec.name if entry else name


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return text if text == " ".join(text.split()) else repr(text)  # shows spaces that count


def _table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    if not rows:
        return []
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="qdrant-embed", description="Models for qdrant-embed.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    everywhere = argparse.ArgumentParser(add_help=False)
    everywhere.add_argument("--json", action="store_true", help="print JSON")
    cached = argparse.ArgumentParser(add_help=False, parents=[everywhere])
    cached.add_argument("--cache-dir", metavar="DIR", help="instead of QDRANT_EMBED_CACHE")
    made = argparse.ArgumentParser(add_help=False, parents=[cached])
    made.add_argument("--precision", choices=["int8", "fp32"], default="int8")
    hub = argparse.ArgumentParser(add_help=False, parents=[made])
    hub.add_argument("--revision", help="branch, tag or commit; main by default")

    def command(
        group: argparse._SubParsersAction[argparse.ArgumentParser],
        name: str,
        run: Callable[[argparse.Namespace], _Answer],
        parent: argparse.ArgumentParser,
    ) -> argparse.ArgumentParser:
        added = group.add_parser(name, help=run.__doc__, description=run.__doc__, parents=[parent])
        added.set_defaults(run=run)
        return added

    command(commands, "models", models, everywhere)
    command(commands, "pull", pull, hub).add_argument("name")
    compiling = command(commands, "compile", compile_folder, made)
    compiling.add_argument("dir", help="a model's folder, as sentence-transformers saves it")
    compiling.add_argument("--out", metavar="DIR", required=True, help="a new folder")
    exporting = command(commands, "export", export, hub)
    exporting.add_argument("name")
    exporting.add_argument("out", metavar="dir", help="a new folder")
    verifying = command(commands, "verify", verify, cached)
    verifying.add_argument("what", nargs="?", help="a model or an exported folder; all by default")
    caches = commands.add_parser("cache", help="what is kept on disk").add_subparsers(
        required=True, metavar="COMMAND"
    )
    command(caches, "list", cache_list, cached).add_argument("name", nargs="?")
    command(caches, "clear", cache_clear, cached).add_argument("name", nargs="?")
    return parser
