"""The command's main function: parses arguments, prints the answer, returns the exit code."""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence

from qdrant_embed.cli import documents, models
from qdrant_embed.cli.command import Answer
from qdrant_embed.errors import QdrantEmbedError
from qdrant_embed.version import VERSION


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; `arguments` are the process's by default."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what its encoding lacks, it shows as escapes
            stream.reconfigure(errors="backslashreplace")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what gRPC logs of itself is not for users
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    run: Callable[[argparse.Namespace], Answer] = options.run
    try:
        answer = run(options)
    except (QdrantEmbedError, OSError) as error:  # of the system: a name that no file can have
        print(f"qdrant-embed: {error}", file=sys.stderr)
        return 1
    except UnicodeEncodeError as error:  # the name of a file or folder
        print(
            f"qdrant-embed: {error}; this locale has no such names, set PYTHONUTF8=1",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("qdrant-embed: interrupted", file=sys.stderr)
        return 130
    return _print(
        json.dumps(answer.found, indent=2, default=str) if options.json else "\n".join(answer.lines)
    )


def _print(text: str) -> int:
    """Print an answer and return the exit code."""
    try:
        print(text, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # flush nothing at the end
        if isinstance(error, BrokenPipeError):  # the reader has seen enough
            return 0
        print(f"qdrant-embed: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qdrant-embed",
        description="Store texts in Qdrant, query them, and prepare the models for it.",
    )
    parser.add_argument("--version", action="version", version=VERSION)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    documents.add_to(commands)
    models.add_to(commands)
    return parser
