"""The known late-interaction models. Their own files say how they are run.

Sources: V the vendor's model card, F the predecessor's tables (fastembed 0.9.1).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass


@dataclass(frozen=True)
class KnownLateModel:
    """What is published of a late-interaction model.

    Attributes:
        name: the model's name, as the hub spells it.
        dimension: numbers in the vector of a token.
        max_tokens: tokens read from a document by default.
        license: SPDX identifier, or the name of the terms.
        parameters: millions of numbers in the model.
    """

    name: str
    dimension: int
    max_tokens: int
    license: str
    parameters: int


LATE_MODELS: tuple[KnownLateModel, ...] = (
    # F, V
    KnownLateModel("colbert-ir/colbertv2.0", 128, 180, "MIT", 110),
    KnownLateModel("answerdotai/answerai-colbert-small-v1", 96, 512, "Apache-2.0", 33),
    KnownLateModel("jinaai/jina-colbert-v2", 128, 8192, "CC-BY-NC-4.0", 559),
    # V
    KnownLateModel("lightonai/GTE-ModernColBERT-v1", 128, 300, "Apache-2.0", 149),
    KnownLateModel("lightonai/LateOn", 128, 300, "Apache-2.0", 149),
    KnownLateModel("lightonai/mLateOn", 128, 8192, "Apache-2.0", 307),
    KnownLateModel("mixedbread-ai/mxbai-edge-colbert-v0-17m", 48, 512, "Apache-2.0", 17),
    KnownLateModel("mixedbread-ai/mxbai-edge-colbert-v0-32m", 64, 512, "Apache-2.0", 32),
)

_BY_NAME = {model.name.lower(): model for model in LATE_MODELS}
_BY_SHORT_NAME = {name.rpartition("/")[2]: model for name, model in _BY_NAME.items()}


def find_late(name: str) -> KnownLateModel | None:
    """Find the known model that `name` means, ignoring case; the part after the slash is enough."""
    return _BY_NAME.get(name.lower()) or _BY_SHORT_NAME.get(name.lower())


def close_late_matches(name: str) -> list[str]:
    """List known late-interaction models whose names look like `name`, best first."""
    known = {**_BY_NAME, **_BY_SHORT_NAME}
    found = difflib.get_close_matches(name.lower(), known)
    return list(dict.fromkeys(known[match].name for match in found))
