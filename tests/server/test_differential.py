"""What our client answers on a running server, and on a local database, to the same operations.

The two may differ in this alone: equal scores are in no order, a float may come back one unit in
the last place off, and a fusion by ranks depends on the order of equal scores.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grpc
import pytest
from clients import LetterEncoder, WordEncoder, opened
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client.http.exceptions import UnexpectedResponse

from qdrant_embed import QdrantClient, QdrantEmbedError, QueryResponse

Operation = Callable[[QdrantClient], Any]

WORDS = ["cat", "dog", "ship", "paris", "market", "storm", "goal", "capital"]
ids = st.integers(0, 12)
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join)
values = st.one_of(
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["a", "b", "ä \n\U0001f600", ""]),
    st.booleans(),
    st.none(),
    st.lists(st.integers(0, 3), max_size=3),
    st.dictionaries(st.sampled_from(["k", "l"]), st.integers(0, 3), max_size=2),
)
metadata = st.fixed_dictionaries(
    {"n": st.integers(0, 5), "tag": st.sampled_from(["a", "b"])}, optional={"v": values}
)
where = st.sampled_from(
    [
        None,
        {"n": 3},
        {"n": {"gte": 2}},
        {"n": {"not": 1}},
        {"tag": "a"},
        {"tag": ["a", "b"], "n": {"lt": 4}},
    ]
)


@st.composite
def adds(draw: st.DrawFn) -> Operation:
    entries = draw(st.lists(st.tuples(ids, texts, metadata), min_size=1, max_size=8))
    by_id = {entry[0]: entry for entry in entries}
    numbers, documents, facts = (list(column) for column in zip(*by_id.values(), strict=True))
    on_existing: Any = draw(st.sampled_from(["overwrite", "skip"]))
    batch_size = draw(st.sampled_from([1, 3, 32]))
    return lambda client: client.add(
        "demo", documents, facts, numbers, on_existing=on_existing, batch_size=batch_size
    )


@st.composite
def queries(draw: st.DrawFn) -> Operation:
    text, found_where = draw(texts), draw(where)
    limit, offset = draw(st.integers(1, 15)), draw(st.integers(0, 3))
    return lambda client: ranking(
        client.query("demo", text, limit=limit, offset=offset, where=found_where), limit
    )


@st.composite
def deletes(draw: st.DrawFn) -> Operation:
    gone: Any = draw(st.lists(ids, min_size=1, max_size=3))
    return lambda client: client.delete("demo", gone).status


@st.composite
def changes(draw: st.DrawFn) -> Operation:
    point = draw(ids)
    # a null removes the key, which local databases of qdrant_client 1.19 do not know
    payload = {key: value for key, value in draw(metadata).items() if value is not None}

    def change(client: QdrantClient) -> object:
        if not client.retrieve("demo", [point]):  # of which qdrant_client 1.19 has a KeyError
            return None
        return client.set_payload("demo", payload, [point]).status

    return change


def content(client: QdrantClient) -> dict[Any, Any]:
    """Return everything that is stored."""
    points, _ = client.scroll("demo", limit=100, with_vectors=True)
    return {point.id: (point.payload, point.vector) for point in points}


def ranking(hits: list[QueryResponse], limit: int) -> list[tuple[float, Any]]:
    """Return hits by score, those of one score in no order; of the last one, which the limit may
    have cut, the score alone; of the first, which the offset may have cut, too.
    """
    scores = [round(hit.score, 4) for hit in hits]
    ends = {scores[0], scores[-1]} if len(hits) == limit else {*scores[:1]}
    return [
        (score, None)
        if score in ends
        else (
            score,
            sorted(
                (hit.id, repr(sorted(hit.metadata)))
                for hit, own in zip(hits, scores, strict=True)
                if own == score
            ),
        )
        for score in scores
    ]


def outcome(client: QdrantClient, operation: Operation) -> Any:
    """Return an answer, or the kind of error, which is ours where the operation is."""
    try:
        return operation(client)
    except QdrantEmbedError as error:
        return type(error).__name__
    except (ValueError, KeyError, UnexpectedResponse, grpc.RpcError):
        return "an error of qdrant-client's"


def same(one: Any, other: Any) -> bool:
    """Return whether answers are equal but for the last places of floats."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=2e-4, abs_tol=2e-4)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if hasattr(one, "indices") and hasattr(other, "indices"):
        sparse = [dict(zip(vector.indices, vector.values, strict=True)) for vector in (one, other)]
        return same(*sparse)
    return type(one) is type(other) and bool(one == other)


@pytest.fixture
def local(kind: str) -> Iterator[QdrantClient]:
    with opened(kind, ":memory:") as client:
        yield client


@pytest.mark.parametrize("hybrid", [False, True])
def test_a_server_answers_as_a_local_database(
    there: QdrantClient, local: QdrantClient, hybrid: bool
) -> None:
    for client in (there, local):
        client.set_model(LetterEncoder())
        if hybrid:
            client.set_sparse_model(WordEncoder())

    @settings(
        max_examples=15,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    @given(first=adds(), operations=st.lists(st.one_of(adds(), queries(), deletes(), changes())))
    def check(first: Operation, operations: list[Operation]) -> None:
        for client in (there, local):
            client.delete_collection("demo")
            first(client)
        for operation in operations:
            here, away = outcome(local, operation), outcome(there, operation)
            if not (hybrid and isinstance(here, list) and here and isinstance(here[0], tuple)):
                assert same(here, away)
            assert same(content(local), content(there))

    check()
