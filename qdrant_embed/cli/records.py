"""Files of documents: JSON lines, CSV or plain text, read once, line by line."""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal, NoReturn, TypeAlias

from qdrant_embed.errors import InputError
from qdrant_embed.ingest.documents import Document

Format: TypeAlias = Literal["jsonl", "csv", "txt"]
FORMATS: tuple[Format, ...] = ("jsonl", "csv", "txt")

_LONGEST_CELL = 2**31 - 1  # the csv module's limit is 131,072 characters, and texts can be longer
_CHUNK = 1 << 16  # bytes
_LINE_END = re.compile(r"\r\n|\r|\n")
_WHOLE = re.compile(r"[+-]?[0-9]+")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_BOOLS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class Field:
    """A field of JSON lines or CSV.

    Attributes:
        name: its name.
        type: the type its values are stored as, a key of `TYPES`; as they are by default.
    """

    name: str
    type: str | None = None


@dataclass(frozen=True)
class Fields:
    """The fields of JSON lines and CSV; plain text has none.

    Attributes:
        text: name of the field that holds the text.
        id: field that holds the id, if there is one.
        metadata: fields that are stored as metadata; all others by default.
    """

    text: str = "text"
    id: Field | None = None
    metadata: Sequence[Field] | None = None


@dataclass(frozen=True)
class _Type:
    """A type of a field: what its values are called, and how one is read."""

    values: str
    read: Callable[[str | int | float], Any]  # raises ValueError


def _whole(value: str | float) -> int:
    if isinstance(value, str):
        if not _WHOLE.fullmatch(value.strip()):
            raise ValueError(value)
        return int(value)
    if isinstance(value, bool) or value != math.trunc(value):
        raise ValueError(value)
    return int(value)


def _decimal(value: str | float) -> float:
    if isinstance(value, bool) or (isinstance(value, str) and not looks_like_number(value)):
        raise ValueError(value)
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(value)
    return number


def _bool(value: str | float) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).strip().lower() not in _BOOLS:
        raise ValueError(value)
    return _BOOLS[str(value).strip().lower()]


def _date(value: str | float) -> date:
    from qdrant_embed.search.filters import iso_date  # with qdrant_client, which takes long

    return iso_date(str(value))


def _text(value: str | float) -> str:
    if isinstance(value, bool | float):
        raise ValueError(value)  # noqa: TRY004 - like all others
    return str(value)


TYPES: Mapping[str, _Type] = {
    "str": _Type("text", _text),
    "int": _Type("a whole number", _whole),
    "float": _Type("a number", _decimal),
    "bool": _Type("true or false", _bool),
    "date": _Type("a date or time in ISO 8601, like 2024-02-01", _date),
}


def looks_like_number(text: str) -> bool:
    """Return whether text can be read as a number."""
    return _DECIMAL.fullmatch(text.strip()) is not None


def to_field(text: str) -> Field:
    """Return the field of "name" or "name:type"."""
    name, colon, kind = text.rpartition(":")
    return Field(name, kind) if colon and kind in TYPES else Field(text)


class RecordFile:
    """The documents of one file; lines without any text are skipped.

    Lines end with a newline, a carriage return, or both.

    Args:
        stream: the file.
        file_format: the file's format.
        fields: names and types of its fields.
        encoding: the file's encoding.

    Attributes:
        line: number of the last line that was read, counted from 1; 0 before the first.
        bytes_read: number of bytes read so far.
    """

    def __init__(
        self,
        stream: io.BufferedIOBase,
        file_format: Format,
        fields: Fields,
        encoding: str = "utf-8",
    ) -> None:
        self._stream = stream
        self._format = file_format
        self._fields = fields
        self._encoding = encoding
        self._bytes = 0  # those of chunks that were decoded, up to `_CHUNK` ahead
        self.line = 0
        self.bytes_read = 0

    def __iter__(self) -> Iterator[Document]:
        """Yield the documents in order.

        Raises:
            InputError: if a line cannot be used; `line` is its number, and the error's `index` is
                the number of documents before it.
        """
        count = 0
        try:
            for record in self._documents():
                yield record
                count += 1
        except InputError as error:
            error.index = count
            raise

    def _documents(self) -> Iterator[Document]:
        if self._format == "txt":
            for line in self._lines():
                if text := line.strip():
                    yield Document(text)
        elif self._format == "jsonl":
            for line in self._lines():
                if line.strip():
                    yield self._record(_object(line))
        else:
            for row in self._rows():
                yield self._record(row)

    def _lines(self) -> Iterator[str]:
        parts: list[str] = []  # of a line that is not complete
        whole = io.IncrementalNewlineDecoder(None, translate=False)  # keeps \r\n together
        for chunk in self._decoded():
            text, start = whole.decode(chunk, final=not chunk), 0
            for end in _LINE_END.finditer(text):
                parts.append(text[start : end.end()])
                yield self._next_line(parts)
                start = end.end()
            if start < len(text):
                parts.append(text[start:])
        if parts:
            yield self._next_line(parts)

    def _next_line(self, parts: list[str]) -> str:
        line = "".join(parts)
        parts.clear()
        self.line += 1
        length = len(line.encode(self._encoding, "ignore"))
        self.bytes_read = min(self._bytes, self.bytes_read + length)
        if "\0" in line:
            raise InputError(
                "the line has NUL characters, as UTF-16 has if it is read as something else; "
                "specify the file's encoding with --encoding, like utf-16-le"
            )
        return line.removeprefix("\ufeff") if self.line == 1 else line

    def _decoded(self) -> Iterator[str]:
        """Yield the file's text in chunks; an empty one ends it, also before a bad byte.

        Raises:
            InputError: if a byte cannot be decoded, after all lines before it.
        """
        decoder = codecs.getincrementaldecoder(self._encoding)()
        while True:
            chunk = self._stream.read1(_CHUNK)
            before = decoder.getstate()
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                undecoded = len(before[0])
                place = self._bytes - undecoded + error.start
                self._bytes += len(chunk)
                decoder.setstate(before)
                try:
                    text = decoder.decode(chunk[: max(0, error.start - undecoded)])
                except UnicodeError:  # of UTF-16 that does not start with a mark, either
                    text = ""
                yield text
                yield ""
                self.line += 1
                raise InputError(self._explain(error, place)) from error
            except UnicodeError as error:
                self.line += 1
                raise InputError(f"the file is not {self._encoding}: {error}") from error
            self._bytes += len(chunk)
            if text:
                yield text
            if not chunk:
                yield ""
                return

    def _explain(self, error: UnicodeDecodeError, place: int) -> str:
        marked = not place and error.object[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        name = "UTF-8" if self._encoding == "utf-8" else self._encoding
        return (
            f"the line is not {name}: byte 0x{error.object[error.start]:02x}, which is byte "
            f"{place + 1} of the file ({error.reason}); specify the file's encoding with "
            f"--encoding, like {'utf-16, which this file seems to be' if marked else 'cp1252'}"
        )

    def _rows(self) -> Iterator[dict[str, str]]:
        csv.field_size_limit(_LONGEST_CELL)
        rows = csv.reader(self._lines(), strict=True)
        try:
            names = next(rows, [])
            if len(set(names)) != len(names):
                raise InputError(f"the header has a field twice: {', '.join(names)}")
            if len(names) == 1 and self._fields.text not in names and ";" in names[0]:
                raise InputError(f"fields must be separated by commas, not as in {names[0]!r:.60}")
            for row in rows:
                if not row:
                    continue
                if len(row) != len(names):
                    raise InputError(
                        f"the line has {len(row)} fields, but the header has {len(names)}"
                    )
                yield dict(zip(names, row, strict=True))
        except csv.Error as error:
            raise InputError(f"the line is not CSV: {error}") from error

    def _record(self, row: Mapping[str, Any]) -> Document:
        fields = self._fields
        text = _value(row, Field(fields.text), "--text-field")
        if not isinstance(text, str):
            raise InputError(f"field {fields.text!r} must be a string, not {text!r:.60}")
        if fields.metadata is None:
            others = (fields.text, fields.id and fields.id.name)
            metadata = {key: row[key] for key in row if key not in others}
        else:
            metadata = {
                field.name: _value(row, field, "--metadata-field") for field in fields.metadata
            }
        return Document(text, metadata, None if fields.id is None else _id(row, fields.id))


def _object(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise InputError(f"the line is not JSON: {error.msg} at column {error.colno}") from error
    except InputError:
        raise
    except (RecursionError, ValueError) as error:  # nested too deeply; a number of 5,000 digits
        raise InputError(f"the line cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(
            f'the line must be a JSON object, like {{"text": "..."}}, not {value!r:.60}'
        )
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise InputError(f"{name} is not valid in JSON and cannot be stored")


def _value(row: Mapping[str, Any], field: Field, option: str) -> Any:
    """Return a field's value as its type says; an empty cell of a type other than text is None."""
    if field.name not in row:
        raise InputError(
            f"field {field.name!r} ({option}) is missing; the fields are {', '.join(row)}"
        )
    value = row[field.name]
    if field.type is None or value is None:
        return value
    if field.type != "str" and isinstance(value, str) and not value.strip():
        return None
    kind = TYPES[field.type]
    try:
        if isinstance(value, str | int | float):
            return kind.read(value)
    except (ValueError, OverflowError):
        pass
    raise InputError(
        f"field {field.name!r} must be {kind.values} ({option} {field.name}:{field.type}), "
        f"not {value!r:.60}"
    )


def _id(row: Mapping[str, Any], field: Field) -> str | int:
    value = _value(row, field, "--id-field")
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InputError(
            f"field {field.name!r} must be a string or a whole number, not {value!r:.60}"
        )
    return value
