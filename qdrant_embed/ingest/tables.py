"""pyarrow, the optional library of Parquet and Arrow; its only importer."""

from __future__ import annotations

from typing import Any

from qdrant_embed.errors import MissingDependencyError


def pyarrow(purpose: str) -> Any:
    """Return the module.

    Args:
        purpose: what needs it, for the error.

    Raises:
        MissingDependencyError: if it is not installed.
    """
    try:
        import pyarrow as module
    except ImportError as error:
        raise MissingDependencyError("pyarrow", purpose, extra="arrow") from error
    return module
