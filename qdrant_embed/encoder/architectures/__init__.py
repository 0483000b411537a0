"""The architectures that are compiled, one file each, loaded when a model needs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# `model_type` in config.json
COMPILED = frozenset(
    {
        "bert",
        "distilbert",
        "model2vec",
        "modernbert",
        "mpnet",
        "nomic_bert",
        "roberta",
        "xlm-roberta",
    }
)


def can_compile(config: Mapping[str, Any]) -> bool:
    """Whether the content of a ``config.json`` (none: empty) is of a kind that is compiled."""
    return not config or config.get("model_type") in COMPILED
