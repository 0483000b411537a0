"""The engines, and how the one behind a client is recognised."""

from __future__ import annotations

from collections.abc import Callable

from qdrant_embed.engines import embedded, local, server
from qdrant_embed.engines.engine import Engine

# tried in this order; the last one recognises everything
_RECOGNISE: tuple[Callable[[object], Engine | None], ...] = (
    local.recognise,
    embedded.recognise,
    server.recognise,
)


def engine_of(database: object) -> Engine:
    """Return the engine of `database`, the object that a ``qdrant_client`` client wraps."""
    engines = (recognise(database) for recognise in _RECOGNISE)
    return next(engine for engine in engines if engine is not None)
