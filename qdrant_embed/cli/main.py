"""The command's main function: parses arguments, prints the answer, returns the exit code."""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence

from qdrant_embed import terminals
from qdrant_embed.cli import collections, documents, models, services
from qdrant_embed.cli.command import Answer, Parser
from qdrant_embed.errors import QdrantEmbedError
from qdrant_embed.limits import shortened
from qdrant_embed.version import VERSION


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; `arguments` are the process's by default."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what its encoding lacks, it shows as escapes
            stream.reconfigure(errors="backslashreplace")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what gRPC logs of itself is not for users
    options = _parser().parse_args(arguments)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    warnings.formatwarning = _warning
    run: Callable[[argparse.Namespace], Answer | None] = options.run
    try:
        answer = run(options)
    except (QdrantEmbedError, OSError) as error:  # of the system: a name that no file can have
        return _fail(str(error))
    except UnicodeEncodeError as error:  # the name of a file or folder
        return _fail(f"{error}; this locale has no such names, set PYTHONUTF8=1")
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    if answer is None:  # a service has nothing more to say
        return 0
    if options.json:
        return _print(json.dumps(answer.found, indent=2, default=str))
    return _print("\n".join(map(terminals.escaped, answer.lines)))


class _Formatter(logging.Formatter):
    """Log messages as users see them."""

    def format(self, record: logging.LogRecord) -> str:
        return terminals.message(shortened(record.getMessage()))


def _print(text: str) -> int:
    """Print an answer and return the exit code."""
    try:
        print(text, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # flush nothing at the end
        # a reader that is gone has seen enough
        return 0 if isinstance(error, BrokenPipeError) else _fail(str(error))
    return 0


def _fail(reason: str, code: int = 1) -> int:
    """Print why a command failed, and return the exit code."""
    if sys.stderr is not None:  # as it is where a shell has closed it
        print(f"qdrant-embed: {terminals.message(shortened(reason))}", file=sys.stderr)
    return code


def _warning(message: Warning | str, *_: object, **__: object) -> str:
    """Return a warning as users see it, without the line of code that it is about."""
    return f"qdrant-embed: {terminals.message(' '.join(str(message).split()))}\n"


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = Parser(
        prog="qdrant-embed",
        description="Store texts in Qdrant, query them, and prepare the models for it.",
    )
    parser.add_argument("--version", action="version", version=VERSION)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    documents.add_to(commands)
    collections.add_to(commands)
    models.add_to(commands)
    services.add_to(commands)
    return parser
