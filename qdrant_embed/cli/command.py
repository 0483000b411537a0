"""The building blocks of commands: their parsers, arguments and answers, and tables."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

from qdrant_embed import terminals
from qdrant_embed.limits import shortened
from qdrant_embed.terminals import escaped

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

_UNDECODED = re.compile("[\ud800-\udfff]")  # bytes that were not decoded


class Parser(argparse.ArgumentParser):
    """A parser whose messages steer no terminal, whatever the arguments are."""

    def error(self, message: str) -> NoReturn:
        """Print why the arguments are wrong, and exit."""
        super().error(terminals.message(shortened(message)))


@dataclass(frozen=True)
class Answer:
    """The result of a command.

    Attributes:
        found: what ``--json`` prints.
        lines: the human-readable output.
    """

    found: object
    lines: Sequence[str]


def with_json() -> argparse.ArgumentParser:
    """Return a parent parser with the option that all commands have."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], Answer | None],
    *parents: argparse.ArgumentParser,
) -> argparse.ArgumentParser:
    """Add a command that calls `run`, whose docstring is its help, and return its parser."""
    added = commands.add_parser(name, help=run.__doc__, description=run.__doc__, parents=parents)
    added.set_defaults(run=run)
    return added


def to_text(argument: str) -> str:
    """Return an argument that is text; as UTF-8 if the locale's encoding does not have it.

    Raises:
        ArgumentTypeError: if it is not UTF-8 either.
    """
    if not _UNDECODED.search(argument):
        return argument
    try:
        return os.fsencode(argument).decode()
    except UnicodeError as error:
        raise argparse.ArgumentTypeError(f"not UTF-8: {error}") from error


def not_empty(argument: str) -> str:
    """Return an argument.

    Raises:
        ArgumentTypeError: if it is empty or blank.
    """
    if not argument.strip():
        raise argparse.ArgumentTypeError("empty; is the variable set that it comes from?")
    return argument


def at_least_one(argument: str) -> int:
    """Return an argument that is a number from 1.

    Raises:
        ArgumentTypeError: if it is not.
    """
    if not argument.isascii() or not argument.isdecimal() or int(argument) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {argument!r}")
    return int(argument)


def printable(text: str) -> str:
    """Return text in one line, with escapes instead of what would steer a terminal."""
    return escaped(" ".join(text.split()))


def table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Return aligned lines, of which the first has the column names; none without rows."""
    if not rows:
        return []
    cells = [list(rows[0]), *(list(row.values()) for row in rows)]
    lines = [[escaped(cell) for cell in line] for line in cells]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
