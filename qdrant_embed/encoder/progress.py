"""A line that shows how far something long has come."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType


class Progress(AbstractContextManager["Progress"]):
    """Steps of one job, shown by tqdm where stderr is a terminal and tqdm is installed.

    Args:
        title: what is going on.
    """

    def __init__(self, title: str) -> None:
        try:
            from tqdm import tqdm  # comes with huggingface-hub
        except ImportError:
            self._bar = None
        else:
            self._bar = tqdm(desc=title, unit=" steps", disable=None, leave=False)

    def step(self, done: str) -> None:
        """Shows that `done` is."""
        if self._bar is not None:
            self._bar.set_postfix_str(done, refresh=False)
            self._bar.update()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
