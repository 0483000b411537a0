"""How much of a file of documents is stored, as a bar."""

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
    """Where a document ends: the line, and the bytes of the file up to there."""

    line: int
    end: int


class FileProgress(AbstractContextManager["FileProgress"]):
    """The documents of a file, to be read once, and a bar of the bytes whose documents are stored.

    A file does not say how many documents it holds, but its bytes tell how long the rest will take.

    Args:
        title: of the bar.
        records: the file.
        size: in bytes; ``None`` where nobody knows.
        shown: whether to; by default where stderr is a terminal.
    """

    def __init__(
        self, title: str, records: RecordFile, size: int | None, *, shown: bool | None
    ) -> None:
        self._records = records
        self._bar = Progress(title, size, "B", shown=shown)
        self._under_way: deque[_Place] = deque()
        self._stored = self._bytes = 0

    def __iter__(self) -> Iterator[Document]:
        """The documents in order; raises what the file does."""
        for record in self._records:
            self._under_way.append(_Place(self._records.line, self._records.bytes_read))
            yield record

    def line_of(self, index: int) -> int:
        """The line of a document, by its position in the file; it is not reported as stored yet.

        Of one that could not even be read it is the line that was read last.
        """
        ahead = index - self._stored
        return self._under_way[ahead].line if ahead < len(self._under_way) else self._records.line

    def report(self, progress: IngestProgress) -> None:
        """Shows how far it has come; for `add` to call."""
        while self._stored < progress.documents:
            self._stored += 1
            self._bytes = self._under_way.popleft().end
        self._bar.advance(
            self._bytes, ", ".join([f"{self._stored:,} documents", *progress.notes()])
        )

    def __exit__(self, *raised: object) -> None:
        self._bar.__exit__(*raised)
