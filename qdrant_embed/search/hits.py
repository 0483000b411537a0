"""The hits of a query: lists, which show themselves as tables in notebooks and terminals."""

from __future__ import annotations

import math
import shutil
import unicodedata
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Protocol, SupportsIndex, TypeVar, overload

from qdrant_embed.collection.payload import CHUNK_KEY, ID_KEY
from qdrant_embed.terminals import escaped

_SHOWN = 100  # hits of a table
_BAR = 10  # characters of a terminal
_NARROWEST = 40  # columns of a terminal in which a line is not shortened further
_TEXT, _VALUE, _KEYS = 300, 60, 12  # characters of a text and of a value, and keys, in a notebook

_TABLE = "border-collapse:collapse;text-align:left;max-width:60em"
_CELL = "padding:.3em .7em;text-align:left;vertical-align:top"
_SCORE = f"{_CELL};white-space:nowrap"
_TRACK = "width:6em;height:.5em;margin-top:.3em;background:rgba(128,128,128,.25)"
_FULL = "height:100%;background:#3b82c4"
_KEY = "opacity:.65"
_NAME = "margin:1em .7em .2em;font-weight:bold"


T = TypeVar("T")
ShownT = TypeVar("ShownT", bound="_Shown[Any]")


class _Shown(list[T]):
    """A list, in every respect, that shows itself; so do its slices."""

    __slots__ = ()

    @overload
    def __getitem__(self, place: SupportsIndex, /) -> T: ...
    @overload
    def __getitem__(self: ShownT, place: slice, /) -> ShownT: ...
    def __getitem__(self, place: SupportsIndex | slice, /) -> Any:
        """Return an item, or a slice that shows itself in the same way."""
        if isinstance(place, slice):
            return type(self)(super().__getitem__(place))
        return super().__getitem__(place)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Print the items in IPython."""
        del cycle
        printer.text(str(self))


class Hit(Protocol):
    """What a table shows of a hit; see `QueryResponse`."""

    @property
    def id(self) -> str | int:
        """The document's id."""

    @property
    def document(self) -> str:
        """The text."""

    @property
    def metadata(self) -> dict[str, Any]:
        """The complete payload."""

    @property
    def score(self) -> float:
        """Higher is better."""


HitT = TypeVar("HitT", bound=Hit)


class Hits(_Shown[HitT]):
    """Hits as a list, in every respect, that shows itself as a table.

    ``print`` and IPython show a line for each hit, and a notebook a table; bars compare scores with
    the best one. A table has the first 100 hits, and shortened texts. ``repr`` is that of a list,
    and slices are shown like the list.
    """

    __slots__ = ()

    def __str__(self) -> str:
        """Return a line for each hit: a bar, its score, id and text, as wide as the terminal."""
        if not self:
            return "no hits"
        shown = self[:_SHOWN]
        scores = [f"{hit.score:.3f}" for hit in shown]
        ids = [_shortened(_one_line(str(hit.id)), 36) for hit in shown]
        widths = max(map(len, scores)), max(map(_columns, ids))
        room = max(_NARROWEST, shutil.get_terminal_size().columns)
        lines = []
        for hit, share, score, name in zip(shown, _shares(shown), scores, ids, strict=True):
            full = round(share * _BAR)
            bar = "#" * full + "." * (_BAR - full)
            padding = " " * (widths[1] - _columns(name))
            begin = f"{bar} {score:>{widths[0]}}  {name}{padding}  "
            text = _shortened(_one_line(hit.document), max(20, room - _columns(begin)))
            lines.append((begin + text).rstrip())
        return "\n".join([*lines, *_others(self)])

    def _repr_html_(self) -> str:
        """Return the table that a notebook shows, in which everything is escaped."""
        if not self:
            return "<p>no hits</p>"
        shown = self[:_SHOWN]
        head = "".join(f'<th style="{_CELL}">{name}</th>' for name in _HEAD)
        rows = "".join(_row(hit, share) for hit, share in zip(shown, _shares(shown), strict=True))
        others = "".join(f"<p>{line}</p>" for line in _others(self))
        return (
            f'<table style="{_TABLE}"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
            f"{others}"
        )


class Group(Protocol):
    """What is shown of a group; see `GroupResponse`."""

    @property
    def value(self) -> str | int:
        """The value that its hits share."""

    @property
    def hits(self) -> Sequence[Any]:
        """Its hits, best first."""


GroupT = TypeVar("GroupT", bound=Group)


class Groups(_Shown[GroupT]):
    """Groups of hits as a list, in every respect, that shows itself as a table for each group."""

    __slots__ = ()

    def __str__(self) -> str:
        """Return a line for each group, and one for each of its hits."""
        shown = [
            f"{_shortened(_one_line(str(group.value)), _VALUE)}\n{Hits(group.hits)}"
            for group in self[:_SHOWN]
        ]
        return "\n".join([*shown, *_others(self, "groups")]) if self else "no groups"

    def _repr_html_(self) -> str:
        """Return what a notebook shows, in which everything is escaped."""
        if not self:
            return "<p>no groups</p>"
        shown = [
            f'<p style="{_NAME}">{_html(str(group.value), _VALUE)}</p>'
            f"{Hits(group.hits)._repr_html_()}"
            for group in self[:_SHOWN]
        ]
        return "".join([*shown, *(f"<p>{line}</p>" for line in _others(self, "groups"))])


def _others(shown: Sequence[object], what: str = "") -> list[str]:
    """Return the line about what is left out, if something is."""
    hidden = len(shown) - _SHOWN
    return [f"... and {hidden} more {what}".rstrip()] if hidden > 0 else []


_HEAD = ("score", "id", "text", "metadata")


def _row(hit: Hit, share: float) -> str:
    bar = f'<div style="{_TRACK}"><div style="width:{share:.0%};{_FULL}"></div></div>'
    metadata = "<br>".join(
        f'<span style="{_KEY}">{key}:</span> {value}' for key, value in _metadata(hit)
    )
    return (
        f'<tr><td style="{_SCORE}">{hit.score:.3f}{bar}</td>'
        f'<td style="{_CELL}">{_html(str(hit.id), _VALUE)}</td>'
        f'<td style="{_CELL}">{_html(hit.document, _TEXT)}</td>'
        f'<td style="{_CELL}">{metadata}</td></tr>'
    )


def _metadata(hit: Hit) -> list[tuple[str, str]]:
    """Return keys and values of a payload as HTML, but for what is shown elsewhere."""
    own = [
        (key, value)
        for key, value in hit.metadata.items()
        if key not in (ID_KEY, CHUNK_KEY) and not (value and value == hit.document)
    ]
    return [
        (_html(str(key), _VALUE), _html(_beginning(value), _VALUE)) for key, value in own[:_KEYS]
    ] + [("...", f"{len(own) - _KEYS} more keys")] * (len(own) > _KEYS)


def _beginning(value: object) -> str:
    """Return a value as text, of which only the beginning is needed: payloads can be large."""
    if isinstance(value, list):
        return str(value[:_VALUE])
    if isinstance(value, Mapping):
        return str({key: value[key] for key in [*value][:_KEYS]})
    return str(value)


def _shares(hits: Sequence[Hit]) -> list[float]:
    """Return the length of each hit's bar, from 0 to 1.

    The best score is a whole bar. A bar begins at 0, or at the lowest score if that is below.
    """
    halves = [hit.score / 2 for hit in hits]  # of which no difference is infinite
    finite = [0.0, *filter(math.isfinite, halves)]
    low, spread = min(finite), max(finite) - min(finite)
    return [
        abs(half - low) / spread if spread and math.isfinite(half) else 0.0  # abs: of -0.0
        for half in halves
    ]


def _html(text: str, most: int) -> str:
    return escape(_shortened(_one_line(text), most))


def _one_line(text: str) -> str:
    """Return text without what would steer a terminal or turn the direction of writing."""
    return escaped(" ".join(text[: _TEXT * 4].split()))


def _shortened(text: str, most: int) -> str:
    """Return the beginning of a line that has `most` columns."""
    if len(text) * 2 <= most or _columns(text) <= most:
        return text
    width = 3
    for end, character in enumerate(text):
        width += _columns(character)
        if width > most:
            return text[:end].rstrip() + "..."
    return text


def _columns(text: str) -> int:
    """Return the number of a terminal's columns that a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1
        for one in text
    )
