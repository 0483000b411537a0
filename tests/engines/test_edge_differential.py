"""The embedded engine against local mode: random operations on both, every answer compared.

Where the two differ by design, the operation is left out here, and tested in `test_edge`:

- what local mode alone accepts (NaN in payloads), or the engine alone;
- the order of points with equal scores or values: local mode has that of insertion.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from qdrant_client import models

from qdrant_embed import QdrantClient

pytest.importorskip("qdrant_edge")
pytestmark = pytest.mark.further

IDS = st.one_of(
    st.integers(0, 8),
    st.integers(1, 4).map(lambda number: f"00000000-0000-0000-0000-00000000000{number}"),
)
# the engine gives other floats back with another last bit, as a server does
QUARTERS = st.integers(-8, 8).map(lambda number: number / 4)
NUMBERS = st.integers(-4, 4).map(float)
DENSE = st.lists(NUMBERS, min_size=4, max_size=4).filter(any)
MULTI = st.lists(st.lists(NUMBERS, min_size=2, max_size=2).filter(any), min_size=1, max_size=3)
SPARSE: st.SearchStrategy[Any] = st.dictionaries(
    st.integers(0, 5), st.integers(1, 4).map(float), min_size=1, max_size=4
).map(lambda found: models.SparseVector(indices=[*found], values=[*found.values()]))
VECTORS = st.fixed_dictionaries({}, optional={"dense": DENSE, "multi": MULTI, "sparse": SPARSE})
WORDS = st.sampled_from(["red", "green", "blue", "deep blue"])
PAYLOADS = st.fixed_dictionaries(
    {},
    optional={
        "word": st.one_of(WORDS, st.none(), st.lists(WORDS, max_size=3)),
        "number": st.one_of(st.integers(-3, 3), st.lists(st.integers(-3, 3), max_size=2)),
        "part": QUARTERS,
        "flag": st.booleans(),
        "when": st.sampled_from(["2024-01-01T00:00:00Z", "2025-06-01T12:30:00+02:00"]),
        "deep": st.fixed_dictionaries(
            {},
            optional={
                "word": WORDS,
                "list": st.lists(st.fixed_dictionaries({"a": st.integers(0, 2)}), max_size=2),
            },
        ),
    },
)
POINTS = st.lists(
    st.builds(
        lambda point, vector, payload: models.PointStruct(id=point, vector=vector, payload=payload),
        IDS,
        VECTORS,
        PAYLOADS,
    ),
    min_size=1,
    max_size=6,
)


def _conditions() -> st.SearchStrategy[Any]:
    field = models.FieldCondition
    return st.one_of(
        WORDS.map(lambda word: field(key="word", match=models.MatchValue(value=word))),
        st.lists(WORDS, max_size=2).map(
            lambda words: field(key="word", match=models.MatchAny(any=words))
        ),
        st.lists(WORDS, min_size=1, max_size=2).map(
            lambda words: field(key="word", match=models.MatchExcept(**{"except": words}))
        ),
        WORDS.map(lambda word: field(key="word", match=models.MatchText(text=word))),
        st.booleans().map(lambda flag: field(key="flag", match=models.MatchValue(value=flag))),
        st.integers(-3, 3).map(lambda one: field(key="number", match=models.MatchValue(value=one))),
        st.integers(-3, 3).map(lambda one: field(key="number", range=models.Range(gte=one))),
        QUARTERS.map(lambda one: field(key="part", range=models.Range(lt=one))),
        st.just(
            field(
                key="when", range=models.DatetimeRange(gt=datetime(2024, 6, 1, tzinfo=timezone.utc))
            )
        ),
        st.just(field(key="word", values_count=models.ValuesCount(gte=2))),
        WORDS.map(lambda word: field(key="deep.word", match=models.MatchValue(value=word))),
        st.integers(0, 2).map(
            lambda one: field(key="deep.list[].a", match=models.MatchValue(value=one))
        ),
        st.integers(0, 2).map(
            lambda one: models.NestedCondition(
                nested=models.Nested(
                    key="deep.list",
                    filter=models.Filter(must=[field(key="a", match=models.MatchValue(value=one))]),
                )
            )
        ),
        st.sampled_from(["word", "deep.word", "missing"]).map(
            lambda key: models.IsEmptyCondition(is_empty=models.PayloadField(key=key))
        ),
        st.just(models.IsNullCondition(is_null=models.PayloadField(key="word"))),
        st.lists(IDS, max_size=3).map(lambda ids: models.HasIdCondition(has_id=[*ids])),
        st.sampled_from(["dense", "sparse"]).map(
            lambda name: models.HasVectorCondition(has_vector=name)
        ),
    )


CONDITIONS = st.lists(_conditions(), max_size=2)
FILTERS = st.one_of(
    st.none(),
    st.builds(
        lambda must, must_not, should: models.Filter(
            must=must or None, must_not=must_not or None, should=should or None
        ),
        CONDITIONS,
        CONDITIONS,
        CONDITIONS,
    ),
    st.builds(
        lambda conditions, count: models.Filter(
            min_should=models.MinShould(conditions=conditions, min_count=count)
        ),
        st.lists(_conditions(), min_size=1, max_size=3),
        st.integers(1, 2),
    ),
)
SELECTED = st.one_of(
    st.booleans(),
    st.just(["word", "deep.word"]),
    st.just(models.PayloadSelectorInclude(include=["number"])),
    st.just(models.PayloadSelectorExclude(exclude=["word", "deep.list"])),
)
NAMED = st.one_of(
    st.tuples(st.just("dense"), DENSE),
    st.tuples(st.just("multi"), MULTI),
    st.tuples(st.just("sparse"), SPARSE),
)


@st.composite
def queries(draw: st.DrawFn) -> dict[str, Any]:
    name, vector = draw(NAMED)
    _, other = draw(NAMED.filter(lambda found: found[0] == name))
    example = st.one_of(st.just(vector), st.just(other), IDS)
    pair = models.ContextPair(positive=draw(example), negative=draw(example))
    positive: Any = draw(st.lists(example, max_size=2))
    negative: Any = draw(st.lists(example, max_size=2))
    strategy = draw(st.sampled_from([*models.RecommendStrategy, None]))
    query = draw(
        st.one_of(
            st.just(vector),
            st.just(models.NearestQuery(nearest=vector)),
            IDS,
            st.just(
                models.RecommendQuery(
                    recommend=models.RecommendInput(
                        positive=positive, negative=negative, strategy=strategy
                    )
                )
            ),
            st.just(
                models.DiscoverQuery(
                    discover=models.DiscoverInput(target=draw(example), context=[pair])
                )
            ),
            st.just(models.ContextQuery(context=[pair])),
        )
    )
    return {"query": query, "using": name}


@st.composite
def operations(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    selector = st.one_of(
        st.lists(IDS, max_size=3),
        FILTERS.map(lambda found: models.FilterSelector(filter=found or models.Filter())),
    )
    # a null to be set removes its key, as on a server, and is stored by local mode
    payload = {key: value for key, value in draw(PAYLOADS).items() if value is not None}
    chosen: tuple[str, dict[str, Any]] = draw(
        st.one_of(
            st.tuples(st.just("upsert"), st.fixed_dictionaries({"points": POINTS})),
            st.tuples(
                st.just("upsert"),
                st.fixed_dictionaries(
                    # of a point that comes twice, a server decides once, and local mode twice
                    {"points": POINTS.map(lambda points: [*{p.id: p for p in points}.values()])},
                    optional={
                        "update_filter": FILTERS,
                        "update_mode": st.sampled_from([*models.UpdateMode]),
                    },
                ),
            ),
            st.tuples(st.just("delete"), st.fixed_dictionaries({"points_selector": selector})),
            st.tuples(
                st.sampled_from(["set_payload", "overwrite_payload"]),
                st.fixed_dictionaries({"payload": st.just(payload), "points": selector}),
            ),
            st.tuples(
                st.just("set_payload"),
                st.fixed_dictionaries(
                    {"payload": st.just(payload), "points": selector, "key": st.just("deep")}
                ),
            ),
            st.tuples(
                st.just("delete_payload"),
                st.fixed_dictionaries(
                    {"keys": st.just(["word", "deep.list[].a"]), "points": selector}
                ),
            ),
            st.tuples(
                st.just("clear_payload"), st.fixed_dictionaries({"points_selector": selector})
            ),
            st.tuples(
                st.just("update_vectors"),
                st.fixed_dictionaries(
                    {
                        "points": st.lists(
                            st.builds(
                                lambda point, vector: models.PointVectors(id=point, vector=vector),
                                IDS,
                                VECTORS,
                            ),
                            min_size=1,
                            max_size=3,
                            unique_by=lambda point: point.id,
                        )
                    }
                ),
            ),
            st.tuples(
                st.just("delete_vectors"),
                st.fixed_dictionaries({"vectors": st.just(["sparse"]), "points": selector}),
            ),
            st.tuples(
                st.just("retrieve"),
                st.fixed_dictionaries(
                    {
                        "ids": st.lists(IDS, max_size=4),
                        "with_payload": SELECTED,
                        "with_vectors": st.one_of(st.booleans(), st.just(["dense"])),
                    }
                ),
            ),
            st.tuples(
                st.just("scroll"),
                st.fixed_dictionaries(
                    {"limit": st.integers(1, 5), "scroll_filter": FILTERS},
                    optional={"offset": IDS, "with_payload": SELECTED},
                ),
            ),
            st.tuples(
                st.just("scroll"),
                st.fixed_dictionaries(
                    {
                        "limit": st.just(20),
                        "scroll_filter": FILTERS,
                        "order_by": st.builds(
                            lambda key, direction, start: models.OrderBy(
                                key=key, direction=direction, start_from=start
                            ),
                            st.sampled_from(["number", "part"]),
                            st.sampled_from([*models.Direction, None]),
                            st.one_of(st.none(), st.integers(-2, 2)),
                        ),
                    }
                ),
            ),
            st.tuples(st.just("count"), st.fixed_dictionaries({"count_filter": FILTERS})),
            st.tuples(
                st.just("facet"),
                st.fixed_dictionaries(
                    {
                        "key": st.sampled_from(["word", "number", "flag", "deep.word"]),
                        "facet_filter": FILTERS,
                        "limit": st.just(20),
                    }
                ),
            ),
            queries().flatmap(
                lambda query: st.tuples(
                    st.just("query_points"),
                    st.fixed_dictionaries(
                        {
                            "query": st.just(query["query"]),
                            "using": st.just(query["using"]),
                            "query_filter": FILTERS,
                            "limit": st.just(20),
                        },
                        optional={"with_payload": SELECTED, "offset": st.just(0)},
                    ),
                )
            ),
            st.builds(
                lambda first, second, condition, fusion: (
                    "query_points",
                    {
                        "query": fusion,
                        "prefetch": [models.Prefetch(**each, limit=20) for each in (first, second)],
                        "query_filter": condition,
                        "limit": 20,
                    },
                ),
                queries(),
                queries(),
                FILTERS,
                st.sampled_from([models.FusionQuery(fusion=models.Fusion.DBSF)]),
            ),
            queries().flatmap(
                lambda query: st.tuples(
                    st.just("query_points_groups"),
                    st.fixed_dictionaries(
                        {
                            "query": st.just(query["query"]),
                            "using": st.just(query["using"]),
                            "group_by": st.sampled_from(["number", "word"]),
                            "limit": st.just(20),
                            "group_size": st.just(20),
                            "query_filter": FILTERS,
                        }
                    ),
                )
            ),
        )
    )
    return chosen


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[QdrantClient, QdrantClient]]:
    """A client of each, with a collection without indices and one with some."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what local mode ignores
        local = QdrantClient(":memory:")
        edge = QdrantClient(path=f"{folder}/db", engine="edge")
        for client in (local, edge):
            for name in ("plain", "indexed"):
                client.create_collection(
                    name,
                    vectors_config={
                        "dense": models.VectorParams(size=4, distance=models.Distance.COSINE),
                        "multi": models.VectorParams(
                            size=2,
                            distance=models.Distance.DOT,
                            multivector_config=models.MultiVectorConfig(
                                comparator=models.MultiVectorComparator.MAX_SIM
                            ),
                        ),
                    },
                    sparse_vectors_config={"sparse": models.SparseVectorParams()},
                )
            kinds = {"word": "keyword", "number": "integer", "flag": "bool", "part": "float"}
            for field, kind in kinds.items():
                client.create_payload_index("indexed", field, models.PayloadSchemaType(kind))
        yield local, edge
        local.close()
        edge.close()


def answered(client: QdrantClient, name: str, method: str, options: dict[str, Any]) -> Any:
    """What a method answers, or that it refuses."""
    try:
        return plain(getattr(client, method)(name, **options))
    except (ValueError, KeyError) as error:
        note(f"{client.engine}: {error!r}")
        return "refused"


def plain(answer: Any) -> Any:
    """An answer without what may differ: the order of equals, and the last bit of a score."""
    if isinstance(answer, tuple):
        records, offset = answer
        return ranked([(record.order_value, shown(record)) for record in records]), offset
    if isinstance(answer, list):
        return [shown(record) for record in answer]
    if isinstance(answer, models.FacetResponse):
        return sorted((repr(hit.value), hit.count) for hit in answer.hits)
    if isinstance(answer, models.GroupsResult):
        return sorted(
            (repr(group.id), ranked([(hit.score, shown(hit)) for hit in group.hits]))
            for group in answer.groups
        )
    if hasattr(answer, "points"):
        return ranked([(hit.score, shown(hit)) for hit in answer.points])
    return "done" if isinstance(answer, models.UpdateResult) else answer


def ranked(found: list[tuple[Any, str]]) -> list[tuple[float, str]]:
    return sorted(
        ((-1.0 if score is None else float(np.round(float(score), 3)) + 0.0), what)
        for score, what in found
    )


def shown(point: Any) -> str:
    vectors = point.vector
    if isinstance(vectors, dict):
        vectors = {name: rounded(vector) for name, vector in sorted(vectors.items())}
    payload = None if point.payload is None else sorted(point.payload.items())
    return repr((point.id, payload or None, vectors or None))


def rounded(vector: Any) -> Any:
    if isinstance(vector, models.SparseVector):
        return sorted(zip(vector.indices, vector.values, strict=True))
    return (np.round(np.asarray(vector, np.float64), 4) + 0.0).tolist()


@pytest.mark.skipif(
    version("qdrant-client").startswith("1.19."), reason="its local mode has other faults"
)
@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    name=st.sampled_from(["plain", "indexed"]),
    first=POINTS,
    others=st.lists(operations(), min_size=3, max_size=12),
)
def test_every_answer_is_that_of_local_mode(
    both: tuple[QdrantClient, QdrantClient],
    name: str,
    first: list[models.PointStruct],
    others: list[tuple[str, dict[str, Any]]],
) -> None:
    local, edge = both
    for client in both:
        client.delete(name, models.FilterSelector(filter=models.Filter()))
    for method, options in [("upsert", {"points": first}), *others]:
        expected = answered(local, name, method, options)
        assert answered(edge, name, method, options) == expected, (method, options)
    everything = {"limit": 100, "with_vectors": True}
    assert answered(edge, name, "scroll", everything) == answered(local, name, "scroll", everything)
