"""Facts about a model that do not fit each other are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from qdrant_embed import InputError, ModelSpec, TextEmbedding

SPEC = ModelSpec("acme/mine", 32, "mean", 24)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pooling": "splade"}, "pooling must be one of cls, mean, last_token"),
        ({"pooling": None}, "pooling must be one of"),
        ({"task": "sparse"}, "task must be one of embed, terms, token_vectors, score"),
        ({"task": "terms"}, "pooling='mean' is for task 'embed', not 'terms'"),
        ({"dimension": 0}, "dimension"),
        ({"max_tokens": 2}, "max_tokens"),
    ],
)
def test_impossible_facts(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(SPEC, **changes)


def test_only_vectors_are_pooled() -> None:
    spec = replace(SPEC, task="terms", pooling=None)
    with pytest.raises(InputError, match="spec= is of task 'terms'; it has to be 'embed'"):
        TextEmbedding("acme/mine", spec=spec, lazy_load=True)
