"""A line that shows how far something long has come."""

from __future__ import annotations

from contextlib import AbstractContextManager

from qdrant_embed.errors import MissingDependencyError


class Progress(AbstractContextManager["Progress"]):
    """Steps, bytes or documents of one job, shown by tqdm.

    Args:
        title: what is going on.
        total: how many there will be; ``None`` where nobody knows.
        unit: what is counted; ``"B"`` for bytes.
        shown: whether to, and to leave it there in the end; by default it is shown where stderr
            is a terminal and tqdm is installed, and then wiped away.

    Raises:
        MissingDependencyError: it is to be shown, but tqdm is not installed.
    """

    def __init__(
        self,
        title: str,
        total: int | None = None,
        unit: str = " steps",
        *,
        shown: bool | None = None,
    ) -> None:
        self._bar = None
        if shown is False:
            return
        try:
            from tqdm import tqdm
        except ImportError as error:
            if shown:
                raise MissingDependencyError("tqdm", "a progress bar") from error
        else:
            self._bar = tqdm(
                desc=title,
                total=total,
                unit=unit,
                unit_scale=unit == "B",
                disable=None if shown is None else not shown,
                leave=bool(shown),
            )

    @property
    def is_visible(self) -> bool:
        """Whether a bar is shown."""
        return self._bar is not None and not self._bar.disable

    def step(self, done: str) -> None:
        """Shows that `done` is."""
        if self._bar is not None:
            self._bar.set_postfix_str(done, refresh=False)
            self._bar.update()

    def advance(self, to: int, note: str = "") -> None:
        """Shows that so many are there, and a `note` beside it."""
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(to - self._bar.n)

    def __exit__(self, *raised: object) -> None:
        if self._bar is not None:
            self._bar.close()
