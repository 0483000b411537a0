"""The targets of collections that were asked of the server lately."""

from __future__ import annotations

import time

from qdrant_embed.collection.vectors import Target

_LIFETIME = 60.0  # seconds; other clients may move an alias or give a collection sparse vectors


class Targets:
    """Targets by the collection's name or alias, so that not every query asks the server.

    Any number of threads may use it at once.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[Target, float]] = {}

    def find(self, collection_name: str) -> Target | None:
        """The target of a collection; ``None`` where the server is to be asked, for the first time
        or again.
        """
        target, until = self._known.get(collection_name, (None, 0.0))
        return target if time.monotonic() < until else None

    def note(self, collection_name: str, target: Target) -> None:
        """Keeps what the server just said."""
        self._known[collection_name] = target, time.monotonic() + _LIFETIME

    def forget(self, collection_name: str) -> None:
        """Has the server asked again, for the name leads elsewhere now."""
        self._known.pop(collection_name, None)
