"""Run the command: read its arguments, print its answer, and say how it ended.

Exit codes: 0 done, 1 failed (the reason is on stderr), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
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
    """Runs the command; its exit code. `arguments` are those of the process by default."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    run: Callable[[argparse.Namespace], Answer] = options.run
    try:
        answer = run(options)
        text = (
            json.dumps(answer.found, indent=2, default=str)
            if options.json
            else "\n".join(answer.lines)
        )
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qdrant-embed", description="Text into Qdrant and answers out; models for it."
    )
    parser.add_argument("--version", action="version", version=VERSION)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    documents.add_to(commands)
    models.add_to(commands)
    return parser
