"""A progress bar for adding a file of documents."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qdrant_embed.cli.records import RecordFile
from qdrant_embed.ingest.documents import Document
from qdrant_embed.progress_bar import Progress

if TYPE_CHECKING:
    from qdrant_embed.flows.progress import IngestProgress


@dataclass(frozen=True)
class _Place:
    """The end of a document in the file: its line, and the number of bytes up to it."""

    line: int
    end: int


class FileProgress(AbstractContextManager["FileProgress"]):
    """The documents of a file, which can be read once, and a bar of how much of it is stored.

    The number of documents in a file is unknown, so the bar counts bytes.

    Args:
        title: title of the bar.
        records: the file.
        size: size of the file in bytes; ``None`` if it is unknown.
        shown: whether to show the bar; by default, it is shown if stderr is a terminal.
    """

    def __init__(
        self, title: str, records: RecordFile, size: int | None, *, shown: bool | None
    ) -> None:
        self._records = records
        self._bar = Progress(title, size, "B", shown=shown)
        self._in_flight: deque[_Place] = deque()
        self._stored = self._bytes = 0

    def __iter__(self) -> Iterator[Document]:
        """Yield the documents in order.

        Raises:
            InputError: if a line cannot be used.
        """
        for record in self._records:
            self._in_flight.append(_Place(self._records.line, self._records.bytes_read))
            yield record

    def line_of(self, index: int) -> int:
        """Return the line of a document that is not stored yet, by its position in the file.

        For a document that could not be read, it is the last line that was read.
        """
        ahead = index - self._stored
        return self._in_flight[ahead].line if ahead < len(self._in_flight) else self._records.line

    def report(self, progress: IngestProgress) -> None:
        """Show the progress of an `add`, which calls this method."""
        while self._stored < progress.documents:
            self._stored += 1
            self._bytes = self._in_flight.popleft().end
        self._bar.advance(
            self._bytes, ", ".join([f"{self._stored:,} documents", *progress.notes()])
        )

    def __exit__(self, *raised: object) -> None:
        self._bar.__exit__(*raised)
