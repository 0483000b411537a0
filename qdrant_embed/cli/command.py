"""What every command is made of: its place in the parser, what it gives, tables for people."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


@dataclass(frozen=True)
class Answer:
    """What a command found out: what ``--json`` prints, and the lines for people."""

    found: object
    lines: Sequence[str]


def with_json() -> argparse.ArgumentParser:
    """The option that every command has."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], Answer],
    *parents: argparse.ArgumentParser,
) -> argparse.ArgumentParser:
    """The parser of a new command, which does what `run` does and says of itself."""
    added = commands.add_parser(name, help=run.__doc__, description=run.__doc__, parents=parents)
    added.set_defaults(run=run)
    return added


def table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Aligned lines, the first with the names of the columns; none without rows."""
    if not rows:
        return []
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
