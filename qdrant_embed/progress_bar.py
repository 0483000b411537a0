"""A progress bar for long jobs."""

from __future__ import annotations

from contextlib import AbstractContextManager

from qdrant_embed.errors import MissingDependencyError
from qdrant_embed.terminals import escaped


class Progress(AbstractContextManager["Progress"]):
    """A bar, drawn by tqdm, that counts the steps, bytes or documents of one job.

    Args:
        title: title of the bar.
        total: number of units in the whole job; ``None`` if it is unknown.
        unit: the unit that is counted; ``"B"`` for bytes.
        shown: ``True`` to show the bar and leave it on the screen at the end, ``False`` to hide
            it. By default it is shown if stderr is a terminal and tqdm is installed, and is
            removed at the end.

    Raises:
        MissingDependencyError: if ``shown=True``, but tqdm is not installed.
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
                desc=escaped(title),
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
        """Advance by one step, and show `done`, the name of what was completed."""
        if self._bar is not None:
            self._bar.set_postfix_str(escaped(done), refresh=False)
            self._bar.update()

    def advance(self, to: int, note: str = "") -> None:
        """Advance to `to` units in total, and show `note` next to them."""
        if self._bar is not None:
            self._bar.set_postfix_str(escaped(note), refresh=False)
            self._bar.update(to - self._bar.n)

    def show_note(self, note: str) -> None:
        """Show a note, with no progress."""
        if self._bar is not None:
            self._bar.set_postfix_str(escaped(note))

    def __exit__(self, *raised: object) -> None:
        if self._bar is not None:
            self._bar.close()
