"""Switches in the environment, read whenever they are needed."""

from __future__ import annotations

import os

from qdrant_embed.errors import InputError

OFFLINE_VARIABLE = "QDRANT_EMBED_OFFLINE"
TRUST_VARIABLE = "QDRANT_EMBED_TRUST_STAMPS"

_ON, _OFF = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


def is_on(variable: str) -> bool:
    """Return whether a variable is 1; 0, a blank one and an unset one are off.

    Raises:
        InputError: if its value is neither.
    """
    value = os.environ.get(variable, "").strip().lower()
    if value not in (*_ON, *_OFF):
        raise InputError(f"the environment variable {variable} must be 1 or 0, not {value!r:.80}")
    return value in _ON
