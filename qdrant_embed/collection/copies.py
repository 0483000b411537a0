"""Look-ups that ask every copy of a collection, as far as the copies are up."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from qdrant_client import models

from qdrant_embed.collection.collection import Collection
from qdrant_embed.engines.missing import is_copy_down
from qdrant_embed.engines.server import REQUEST_ERRORS, is_transient

logger = logging.getLogger(__name__)

T = TypeVar("T")


class LookUps:
    """Asks a collection what it has, so that what only some of its copies have counts as missing.

    A write that failed on some nodes has stayed on the others. Whoever then believes one copy
    takes the point to be stored, and the other nodes never get it. Where fewer copies are up, but
    enough for a write, as many are asked as are up.

    Args:
        collection: the collection.
    """

    def __init__(self, collection: Collection) -> None:
        self._collection, self._requests = collection, collection.requests
        self._consistency: models.ReadConsistency | None = None
        if collection.io.engine.copies:
            self._consistency = models.ReadConsistencyType.ALL

    async def send(self, method: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """Call a method of the client that reads, and return what all copies answer."""
        while True:
            try:
                return await self._requests.retried(lambda: self._ask(method, *args, **kwargs))
            except _CopyDownError as down:
                fewer, error = await self._fewer(), down.error
            except REQUEST_ERRORS as failed:  # a copy that answers nothing at all
                if not is_transient(failed):
                    raise
                fewer, error = await self._fewer(), failed
            if fewer is None:
                break
            logger.warning(
                "collection %r: not every copy is up, asking %d: %s",
                self._collection.name,
                fewer,
                error,
            )
            self._consistency = fewer
        # no write would succeed now: another copy may come back while this is retried
        return await self._requests.send(method, *args, **self._with_consistency(kwargs))

    async def _ask(self, method: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        try:
            return await self._requests.io.request(method, *args, **self._with_consistency(kwargs))
        except REQUEST_ERRORS as error:
            if is_copy_down(error):
                raise _CopyDownError(error) from error
            raise

    def _with_consistency(self, options: dict[str, Any]) -> dict[str, Any]:
        if self._consistency is None:
            return options
        return {**options, "consistency": self._consistency}

    async def _fewer(self) -> int | None:
        """Return the next smaller number of copies to ask; ``None`` if a write needs more."""
        if self._consistency is None:
            return None
        stored = await self._collection.read()
        asked = self._consistency
        fewer = (asked if isinstance(asked, int) else stored.copies) - 1
        return fewer if fewer >= max(1, stored.copies_written) else None


class _CopyDownError(Exception):
    """Raised when a server could not ask as many copies as it should; ends the retries."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error
