"""The building blocks of commands: their parsers, their answers, and tables."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


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
    run: Callable[[argparse.Namespace], Answer],
    *parents: argparse.ArgumentParser,
) -> argparse.ArgumentParser:
    """Add a command that calls `run`, whose docstring is its help, and return its parser."""
    added = commands.add_parser(name, help=run.__doc__, description=run.__doc__, parents=parents)
    added.set_defaults(run=run)
    return added


def table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Return aligned lines, of which the first has the column names; none without rows."""
    if not rows:
        return []
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
