"""What a request lacks on a server: what another node was told, a copy, a cluster."""

from __future__ import annotations

import re

from qdrant_embed.engines.server import answer_of

_ELSEWHERE = re.compile(
    r"Collection `.*` doesn't exist|Shard key .*not found|Not existing vector name", re.DOTALL
)
_COPY = re.compile(r"not have enough active replicas|\d+ read operations failed")
_SINGLE_NODE = "Distributed mode disabled"


def may_come(error: BaseException) -> bool:
    """Return whether what is missing may be there soon, if it has just been created.

    Another node of a cluster may not know yet of a collection, a vector or a shard key.
    """
    answer = answer_of(error)
    return answer is not None and _ELSEWHERE.search(answer.message) is not None


def is_copy_down(error: BaseException) -> bool:
    """Return whether fewer copies of a shard answered than the request asks for."""
    answer = answer_of(error)
    return answer is not None and _COPY.search(answer.message) is not None


def is_single_node(error: BaseException) -> bool:
    """Return whether a server refused shard keys because it is no cluster."""
    return _SINGLE_NODE in str(error)
