"""Names of models of every kind."""

from __future__ import annotations

from typing import get_args

import pytest

from qdrant_embed import UnknownModelError
from qdrant_embed.encoder.facts.catalog import check_task, known_name
from qdrant_embed.encoder.interfaces import Task

NAMES: dict[Task, str] = {
    "embed": "BAAI/bge-small-en-v1.5",
    "terms": "prithivida/Splade_PP_en_v1",
    "token_vectors": "colbert-ir/colbertv2.0",
    "score": "cross-encoder/ms-marco-MiniLM-L6-v2",
}


@pytest.mark.parametrize("task", get_args(Task))
def test_a_known_model_is_for_one_task(task: Task) -> None:
    name = NAMES[task]
    assert known_name(name.rpartition("/")[2].upper()) == name
    for other in get_args(Task):
        check_task("owner/unknown", other)
        if other == task:
            check_task(name, task)
        else:
            with pytest.raises(UnknownModelError, match=rf"{name}' is a .* runs it, and set_"):
                check_task(name, other)
