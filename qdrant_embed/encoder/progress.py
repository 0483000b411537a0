"""A line that shows how far something long has come."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType


class Progress(AbstractContextManager["Progress"]):
    """Steps or bytes of one job, shown by tqdm where stderr is a terminal and tqdm is installed.

    Args:
        title: what is going on.
        total_bytes: how many there will be, for a job that is counted in bytes.
    """

    def __init__(self, title: str, total_bytes: int | None = None) -> None:
        try:
            from tqdm import tqdm  # comes with huggingface-hub
        except ImportError:
            self._bar = None
        else:
            in_bytes = total_bytes is not None
            self._bar = tqdm(
                desc=title,
                total=total_bytes,
                unit="B" if in_bytes else " steps",
                unit_scale=in_bytes,
                disable=None,
                leave=False,
            )

    def step(self, done: str) -> None:
        """Shows that `done` is."""
        if self._bar is not None:
            self._bar.set_postfix_str(done, refresh=False)
            self._bar.update()

    def advance(self, to: int) -> None:
        """Shows that so many bytes are there."""
        if self._bar is not None:
            self._bar.update(to - self._bar.n)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
