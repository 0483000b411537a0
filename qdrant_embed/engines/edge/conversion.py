"""What ``qdrant_client`` says, as ``qdrant_edge`` understands it, and back.

Pure functions. What cannot be converted is a ``ValueError`` in one line, as local mode raises, and
nothing is checked by the engine that can be checked here: it writes an operation to its log before
it finds that it cannot be applied.

The engine does not check everything (seen in 0.9.0): it stores vectors with NaN, and sparse vectors
that name a dimension twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

import numpy as np
import qdrant_edge
from pydantic import BaseModel, TypeAdapter
from pydantic_core import to_jsonable_python
from qdrant_client import grpc, models
from qdrant_client.conversions.conversion import GrpcToRest

edge: Any = qdrant_edge  # its types are wrong in places, and it has attributes that they lack

NOTHING = "qdrant-embed: no vector"  # of a collection without any, which the engine forbids
UNNAMED = ""
LARGEST_ID = 2**64 - 1
LARGEST_NUMBER = float(np.finfo(np.float32).max)  # of a vector
_SCORED = TypeAdapter(list[models.ScoredPoint])
# The graph of an index, unless the user says, and the candidates that a search of it looks at: of
# 100,000 vectors of sentences, 99.9% of the ten nearest are found. The engine's own (16, 100, and
# 100 candidates) find 98 to 99%, in nine tenths of the time.
HNSW = {"m": 24, "ef_construct": 200, "full_scan_threshold": 10_000}
EF = 100
# Kilobytes of vectors below which a part of a collection stays without an index, unless the user
# says. By the engine's own 10,000, 3,600 of 20,000 texts were left, and compared one by one.
LEAST_INDEXED = 1_000
# An index compares vectors in int8, unless the user says how; what comes first is compared again
# in float32, so that scores are exact. That takes less time, and finds about as much.
_INT8 = edge.ScalarQuantizationConfig(edge.ScalarType.Int8)
_RESCORED = edge.QuantizationSearchParams(rescore=True, oversampling=2.0)


@lru_cache(maxsize=256)
def named(kind: Any, value: str) -> Any:
    """Return the member of an enumeration of the engine's that is Qdrant's `value`.

    Raises:
        ValueError: if it has none.
    """
    wanted = value.replace("_", "").lower()
    for name in dir(kind):
        if not name.startswith("_") and name.replace("_", "").lower() == wanted:
            return getattr(kind, name)
    raise ValueError(f"the embedded engine knows no {kind.__name__} {value!r}")


def _member(kind: Any, value: Any) -> Any:
    """Return the engine's member for one of qdrant_client's, or for its value; None for None."""
    return None if value is None else named(kind, str(getattr(value, "value", value)))


# ids


def edge_id(point_id: object) -> int | UUID:
    """Return the id of a point as the engine has it.

    Raises:
        ValueError: if it is no id.
    """
    if isinstance(point_id, UUID):
        return point_id
    if isinstance(point_id, str):
        try:
            return UUID(point_id)
        except ValueError as error:
            raise ValueError(f"Point id {point_id!r:.80} is not a valid UUID") from error
    is_whole = isinstance(point_id, int | np.integer) and not isinstance(point_id, bool)
    if is_whole and 0 <= point_id <= LARGEST_ID:  # type: ignore[operator] # it is a number
        return int(point_id)  # type: ignore[call-overload,no-any-return] # likewise
    raise ValueError(f"Point id {point_id!r:.80} is not a valid id: neither UUID nor unsigned int")


def client_id(point_id: int | UUID) -> int | str:
    """Return the engine's id of a point as qdrant_client has it."""
    return point_id if isinstance(point_id, int) else str(point_id)


def in_order(point_id: object) -> tuple[bool, Any]:
    """Return the key that sorts ids as Qdrant does: numbers, then UUIDs."""
    return isinstance(point_id, str), point_id


# vectors


def edge_vector(vector: Any, name: str) -> Any:
    """Return one vector as the engine has it: dense, sparse or multi.

    Raises:
        ValueError: if it is none, or has NaN, or a sparse one names a dimension twice.
    """
    if isinstance(vector, models.SparseVector):
        if len(vector.indices) != len(vector.values):
            raise ValueError(f"Sparse vector '{name}' must have as many indices as values")
        if len(set(vector.indices)) != len(vector.indices):
            raise ValueError(f"Sparse vector '{name}' must have unique indices")
        check_finite(_numbers(vector.values), name)
        return made(edge.SparseVector, vector.indices, vector.values)
    if _is_plain(vector):
        return vector
    try:
        array = _numbers(vector)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Wrong input: '{name}' is no vector of numbers: {vector!r:.80}"
        ) from error
    if array.ndim not in (1, 2) or not array.size:
        raise ValueError(f"Wrong input: vector '{name}' must not be empty, nor nested deeper")
    check_finite(array, name)
    return array.tolist()


def check_finite(values: Any, name: str) -> None:
    """Raise ``ValueError`` unless float32 values are numbers: the engine would store them."""
    if not np.isfinite(values).all():
        found = "NaN values" if np.isnan(values).any() else "values beyond those of float32"
        raise ValueError(f"Vector '{name}' contains {found}")


def _numbers(values: Any) -> Any:
    with np.errstate(over="ignore"):  # infinite then
        return np.asarray(values, dtype=np.float32)


def _is_plain(vector: Any) -> bool:
    """Return whether this is a list of numbers as it should be; only if so, this is certain."""
    if type(vector) is not list or not vector or type(vector[0]) is not float:
        return False
    try:
        return math.hypot(*vector) <= LARGEST_NUMBER  # no single one is greater; NaN is never less
    except TypeError:
        return False


def edge_vectors(vectors: Any) -> Any:
    """Return the vectors of a point: one without a name, or one for each name."""
    if isinstance(vectors, Mapping):
        return {name: edge_vector(vector, name) for name, vector in vectors.items()}
    return {UNNAMED: edge_vector(vectors, UNNAMED)}


def client_vectors(vectors: Any) -> Any:
    """Return vectors of the engine's as qdrant_client has them."""
    if isinstance(vectors, Mapping):
        return {name: client_vector(vector) for name, vector in vectors.items() if name != NOTHING}
    return client_vector(vectors)


def client_vector(vector: Any) -> Any:
    """Return one vector of the engine's as qdrant_client has it."""
    if isinstance(vector, edge.SparseVector):
        return models.SparseVector(indices=vector.indices, values=vector.values)
    return vector


# points


def edge_payload(payload: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a payload of JSON's types alone; dates and the like as text."""
    plain: dict[str, Any] = to_jsonable_python(payload or {})
    return plain


def edge_point(point_id: object, vectors: Any, payload: Mapping[str, Any] | None) -> Any:
    """Return a point to be stored.

    Raises:
        ValueError: if its id, a vector or its payload is invalid.
    """
    return made(edge.Point, edge_id(point_id), edge_vectors(vectors), edge_payload(payload))


def made_point(point_id: int | UUID, vectors: dict[str, Any], payload: Mapping[str, Any]) -> Any:
    """Return a point of which everything has been checked.

    Raises:
        ValueError: if its payload is invalid, nevertheless.
    """
    return made(edge.Point, point_id, vectors, payload)


def record(found: Any) -> models.Record:
    """Return a point that the engine found without ranking it."""
    if found.vector is None:  # what is without vectors is checked faster than it is made unchecked
        return models.Record(
            id=client_id(found.id), payload=found.payload, order_value=found.order_value
        )
    return models.Record.model_construct(
        id=client_id(found.id),
        payload=found.payload,
        vector=client_vectors(found.vector),
        shard_key=None,
        order_value=found.order_value,
    )


def scored_points(found: Sequence[Any], *, have_vectors: bool) -> list[models.ScoredPoint]:
    """Return points that the engine ranked."""
    if have_vectors:
        return [
            models.ScoredPoint.model_construct(
                id=client_id(point.id),
                version=point.version,
                score=point.score,
                payload=point.payload,
                vector=client_vectors(point.vector),
                shard_key=None,
                order_value=point.order_value,
            )
            for point in found
        ]
    # what is without vectors is checked faster than it is made unchecked, and all of it at a time
    return _SCORED.validate_python(
        [
            {
                "id": client_id(point.id),
                "version": point.version,
                "score": point.score,
                "payload": point.payload,
                "order_value": point.order_value,
            }
            for point in found
        ]
    )


def with_payload(wanted: Any) -> Any:
    """Return which keys of payloads are wanted, as the engine has it."""
    if isinstance(wanted, bool):
        return wanted
    if isinstance(wanted, models.PayloadSelectorInclude):
        return edge.PayloadSelector.Include(wanted.include)
    if isinstance(wanted, models.PayloadSelectorExclude):
        return edge.PayloadSelector.Exclude(wanted.exclude)
    if isinstance(wanted, Mapping):
        if isinstance(keys := wanted.get("include"), list):
            return edge.PayloadSelector.Include(keys)
        return edge.PayloadSelector.Exclude(wanted.get("exclude") or [])
    return bool(wanted) if not isinstance(wanted, list | tuple) else list(wanted)


def with_vectors(wanted: Any) -> bool | list[str]:
    """Return which vectors are wanted, as the engine has it."""
    return list(wanted) if isinstance(wanted, list | tuple) else bool(wanted)


# filters


def edge_filter(condition: Any) -> Any:
    """Return a filter as the engine has it; None for None.

    Raises:
        ValueError: if the engine cannot evaluate it.
    """
    if condition is None:
        return None
    if isinstance(condition, grpc.Filter):
        condition = GrpcToRest.convert_filter(condition)
    if isinstance(condition, Mapping):
        condition = models.Filter.model_validate(condition)
    at_least = condition.min_should
    return made(
        edge.Filter,
        must=_conditions(condition.must),
        should=_conditions(condition.should),
        must_not=_conditions(condition.must_not),
        min_should=at_least
        and made(edge.MinShould, _conditions(at_least.conditions), at_least.min_count),
    )


def _conditions(conditions: Any) -> list[Any] | None:
    if conditions is None:
        return None
    if not isinstance(conditions, list | tuple):
        conditions = [conditions]
    return [_condition(condition) for condition in conditions]


def _condition(condition: Any) -> Any:
    kind = type(condition).__name__  # some versions of qdrant_client have fewer kinds
    if kind not in _CONDITIONS:
        raise ValueError(f"the embedded engine knows no condition {condition!r:.80}")
    return _CONDITIONS[kind](condition)


def _field(condition: models.FieldCondition) -> Any:
    counted = condition.values_count
    return made(
        edge.FieldCondition,
        condition.key,
        match=None if condition.match is None else _match(condition.match),
        range=None if condition.range is None else _range(condition.range),
        geo_bounding_box=condition.geo_bounding_box
        and made(
            edge.GeoBoundingBox,
            _geo(condition.geo_bounding_box.top_left),
            _geo(condition.geo_bounding_box.bottom_right),
        ),
        geo_radius=condition.geo_radius
        and made(edge.GeoRadius, _geo(condition.geo_radius.center), condition.geo_radius.radius),
        geo_polygon=condition.geo_polygon
        and made(
            edge.GeoPolygon,
            _line(condition.geo_polygon.exterior),
            [_line(line) for line in condition.geo_polygon.interiors or []] or None,
        ),
        values_count=counted
        and made(edge.ValuesCount, lt=counted.lt, gt=counted.gt, lte=counted.lte, gte=counted.gte),
        is_empty=condition.is_empty,
        is_null=condition.is_null,
    )


def _match(match: Any) -> Any:
    kind = type(match).__name__
    if kind not in _MATCHES:
        raise ValueError(f"the embedded engine cannot match {match!r:.80}")
    name, value = _MATCHES[kind]
    return made(getattr(edge, name), _plain(getattr(match, value)))


def _plain(value: Any) -> Any:
    # seen in 0.9.0: a bool of Python's own becomes the number 1, which matches no bool
    return np.bool_(value) if isinstance(value, bool) else value


def _range(limits: Any) -> Any:
    if isinstance(limits, models.DatetimeRange):
        return made(
            edge.RangeDateTime,
            gte=_time(limits.gte),
            gt=_time(limits.gt),
            lte=_time(limits.lte),
            lt=_time(limits.lt),
        )
    return made(edge.RangeFloat, gte=limits.gte, gt=limits.gt, lte=limits.lte, lt=limits.lt)


def _time(moment: datetime | date | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _geo(point: models.GeoPoint) -> Any:
    return made(edge.GeoPoint, point.lon, point.lat)


def _line(line: models.GeoLineString) -> list[Any]:
    return [_geo(point) for point in line.points]


_CONDITIONS: dict[str, Callable[[Any], Any]] = {
    "FieldCondition": _field,
    "IsEmptyCondition": lambda found: made(edge.IsEmptyCondition, found.is_empty.key),
    "IsNullCondition": lambda found: made(edge.IsNullCondition, found.is_null.key),
    "HasIdCondition": lambda found: edge.HasIdCondition({edge_id(each) for each in found.has_id}),
    "HasVectorCondition": lambda found: made(edge.HasVectorCondition, found.has_vector),
    "NestedCondition": lambda found: made(
        edge.NestedCondition, found.nested.key, edge_filter(found.nested.filter)
    ),
    "SliceCondition": lambda found: made(
        edge.SliceCondition, total=found.slice.total, index=found.slice.index
    ),
    "Filter": edge_filter,
}
_MATCHES = {
    "MatchValue": ("MatchValue", "value"),
    "MatchText": ("MatchText", "text"),
    "MatchTextAny": ("MatchTextAny", "text_any"),
    "MatchPhrase": ("MatchPhrase", "phrase"),
    "MatchPrefix": ("MatchPrefix", "prefix"),
    "MatchSubstring": ("MatchSubstring", "substring"),
    "MatchAny": ("MatchAny", "any"),
    "MatchExcept": ("MatchExcept", "except_"),
}


# queries


def search_params(params: models.SearchParams | Mapping[str, Any] | None) -> Any:
    """Return how to search, as the engine has it."""
    if params is None:
        return _SEARCH
    if isinstance(params, Mapping):
        params = models.SearchParams.model_validate(params)
    quantization, acorn = params.quantization, getattr(params, "acorn", None)
    idf = getattr(params, "idf", None)
    corpus = getattr(idf, "corpus", None)
    return made(
        edge.SearchParams,
        hnsw_ef=EF if params.hnsw_ef is None else params.hnsw_ef,
        exact=bool(params.exact),
        indexed_only=bool(params.indexed_only),
        quantization=_RESCORED
        if quantization is None
        else made(
            edge.QuantizationSearchParams,
            ignore=bool(quantization.ignore),
            rescore=quantization.rescore,
            oversampling=quantization.oversampling,
        ),
        acorn=acorn
        and made(
            edge.AcornSearchParams,
            enable=bool(acorn.enable),
            max_selectivity=acorn.max_selectivity,
        ),
        idf=corpus and made(edge.IdfParams, corpus=edge_filter(corpus)),
    )


_SEARCH = edge.SearchParams(hnsw_ef=EF, quantization=_RESCORED)


def edge_query(query: Any, using: str | None, limit: int) -> Any:
    """Return a query whose points by id have been replaced by their vectors; None for None.

    Args:
        query: one of qdrant_client's queries, or a vector.
        using: name of the vector, or of the field of a text query.
        limit: number of points that it shall find, from which candidates are chosen by default.

    Raises:
        ValueError: if the engine cannot answer it.
    """
    if query is None:
        return None
    kind = type(query).__name__
    if kind in _QUERIES:
        return _QUERIES[kind](query, using, limit)
    return made(edge.Query.Nearest, edge_vector(query, using or UNNAMED), using)


def _nearest(query: models.NearestQuery, using: str | None, limit: int) -> Any:
    vector = edge_vector(query.nearest, using or UNNAMED)
    if query.mmr is None:
        return made(edge.Query.Nearest, vector, using)
    diversity = 0.5 if query.mmr.diversity is None else query.mmr.diversity
    if not 0 <= diversity <= 1:
        raise ValueError(f"mmr diversity value {diversity} is invalid. Must be from 0.0 to 1.0.")
    candidates = limit if query.mmr.candidates_limit is None else query.mmr.candidates_limit
    return made(edge.Mmr, vector, lambda_=1 - diversity, candidates_limit=candidates, using=using)


def _recommend(query: models.RecommendQuery, using: str | None, limit: int) -> Any:
    asked = query.recommend
    positive, negative = list(asked.positive or []), list(asked.negative or [])
    strategy = asked.strategy or models.RecommendStrategy.AVERAGE_VECTOR
    if strategy == models.RecommendStrategy.AVERAGE_VECTOR:
        if not positive:
            raise ValueError("Positive list is empty")
        return made(
            edge.Query.Nearest, edge_vector(average(positive, negative), using or UNNAMED), using
        )
    if not positive and not negative:
        raise ValueError("No positive or negative examples given")
    name = using or UNNAMED
    examples = made(
        edge.RecommendQuery,
        [edge_vector(each, name) for each in positive],
        [edge_vector(each, name) for each in negative],
    )
    if strategy == models.RecommendStrategy.BEST_SCORE:
        return made(edge.Query.RecommendBestScore, examples, using)
    return made(edge.Query.RecommendSumScores, examples, using)


def average(positive: Sequence[Any], negative: Sequence[Any]) -> Any:
    """Return the vector that recommends by the average of examples, as a server computes it."""
    if isinstance(positive[0], models.SparseVector):
        total: dict[int, np.float32] = {}
        for examples, weight in ((positive, 2 if negative else 1), (negative, -1)):
            for example in examples:
                share = np.float32(weight / len(examples))
                for index, value in zip(example.indices, example.values, strict=True):
                    total[index] = total.get(index, np.float32(0)) + np.float32(value) * share
        indices = sorted(total)
        return models.SparseVector(
            indices=indices, values=[float(total[index]) for index in indices]
        )
    if np.ndim(positive[0]) == 2:
        rows = [row for each in positive for row in np.asarray(each, dtype=np.float32)]
        return rows + [-row for each in negative for row in np.asarray(each, dtype=np.float32)]
    try:
        mean = np.mean(np.asarray(positive, dtype=np.float32), axis=0)
        if negative:
            mean = mean + mean - np.mean(np.asarray(negative, dtype=np.float32), axis=0)
    except ValueError as error:
        raise ValueError(f"Examples must be vectors of one size: {error}") from error
    return mean


def _discover(query: models.DiscoverQuery, using: str | None, limit: int) -> Any:
    target, pairs = query.discover.target, _pairs(query.discover.context, using)
    asked = made(edge.DiscoverQuery, edge_vector(target, using or UNNAMED), pairs)
    return made(edge.Query.Discover, asked, using)


def _context(query: models.ContextQuery, using: str | None, limit: int) -> Any:
    pairs = _pairs(query.context, using)
    if not pairs:
        raise ValueError("No target or context given")
    return made(edge.Query.Context, made(edge.ContextQuery, pairs), using)


def _pairs(context: Any, using: str | None) -> list[Any]:
    pairs = context if isinstance(context, list) else [] if context is None else [context]
    name = using or UNNAMED
    return [
        made(edge.ContextPair, edge_vector(pair.positive, name), edge_vector(pair.negative, name))
        for pair in pairs
    ]


def _feedback(query: Any, using: str | None, limit: int) -> Any:
    asked, name = query.relevance_feedback, using or UNNAMED
    weights = asked.strategy.naive
    items = [
        made(edge.FeedbackItem, edge_vector(item.example, name), item.score)
        for item in asked.feedback
    ]
    strategy = made(edge.NaiveFeedbackStrategy, weights.a, weights.b, weights.c)
    target = edge_vector(asked.target, name)
    return made(
        edge.Query.FeedbackNaive, made(edge.FeedbackNaiveQuery, target, items, strategy), using
    )


def _fusion(query: models.FusionQuery, using: str | None, limit: int) -> Any:
    if query.fusion == models.Fusion.DBSF:
        return edge.Fusion.Dbsf()
    return made(edge.Fusion.Rrf, RRF_K)


RRF_K = 2  # Qdrant's own default


def _rrf(query: models.RrfQuery, using: str | None, limit: int) -> Any:
    k = RRF_K if query.rrf.k is None else query.rrf.k
    return made(edge.Fusion.Rrf, k, getattr(query.rrf, "weights", None))


def edge_order(order: Any) -> Any:
    """Return an order by the values of a field, as the engine has it."""
    order = client_order(order)
    start = order.start_from
    return made(
        edge.OrderBy,
        order.key,
        _member(edge.Direction, order.direction),
        start.isoformat() if isinstance(start, date) else start,
    )


def client_order(order: Any) -> models.OrderBy:
    """Return an order by the values of a field in the one form of several."""
    if isinstance(order, grpc.OrderBy):
        order = GrpcToRest.convert_order_by(order)
    return models.OrderBy(key=order) if isinstance(order, str) else order


def _text(query: Any, using: str | None, limit: int) -> Any:
    if using is None:
        raise ValueError("A text query needs `using` to name the payload field to search")
    asked = query.text
    if isinstance(asked, str):
        return made(edge.TextQuery, using, asked)
    bm25 = None if asked.scoring is None else asked.scoring.bm25
    return made(
        edge.TextQuery, using, asked.query, bm25 and made(edge.Bm25Params, k=bm25.k, b=bm25.b)
    )


def _formula(query: models.FormulaQuery, using: str | None, limit: int) -> Any:
    return made(edge.Formula, _expression(query.formula), edge_payload(query.defaults))


def _expression(expression: Any) -> Any:  # noqa: PLR0911 - one for each kind
    one = edge.Expression
    if isinstance(expression, str):
        return made(one.Variable, expression)
    if isinstance(expression, int | float):
        return made(one.Constant, float(expression))
    kind = type(expression).__name__
    if kind in _CONDITIONS:
        return made(one.Condition, _condition(expression))
    if kind == "GeoDistance":
        asked = expression.geo_distance
        return made(one.GeoDistance, _geo(asked.origin), asked.to)
    if kind == "DivExpression":
        div = expression.div
        left, right = _expression(div.left), _expression(div.right)
        return made(one.Div, left, right, div.by_zero_default)
    if kind == "PowExpression":
        power = expression.pow
        return made(one.Pow, _expression(power.base), _expression(power.exponent))
    if kind in _DECAYS:
        field, name = _DECAYS[kind]
        decay = getattr(expression, field)
        return made(
            one.Decay,
            getattr(edge.DecayKind, name),
            _expression(decay.x),
            None if decay.target is None else _expression(decay.target),
            decay.midpoint,
            decay.scale,
        )
    if kind in _FUNCTIONS:
        field, name = _FUNCTIONS[kind]
        value = getattr(expression, field)
        if isinstance(value, list):
            return made(getattr(one, name), [_expression(each) for each in value])
        is_text = kind in ("DatetimeExpression", "DatetimeKeyExpression")
        return made(getattr(one, name), value if is_text else _expression(value))
    raise ValueError(f"the embedded engine knows no expression {expression!r:.80}")


_DECAYS = {
    "LinDecayExpression": ("lin_decay", "Lin"),
    "ExpDecayExpression": ("exp_decay", "Exp"),
    "GaussDecayExpression": ("gauss_decay", "Gauss"),
}
_FUNCTIONS = {
    "DatetimeExpression": ("datetime", "Datetime"),
    "DatetimeKeyExpression": ("datetime_key", "DatetimeKey"),
    "MultExpression": ("mult", "Mult"),
    "SumExpression": ("sum", "Sum"),
    "MaxExpression": ("max", "Max"),
    "MinExpression": ("min", "Min"),
    "NegExpression": ("neg", "Neg"),
    "AbsExpression": ("abs", "Abs"),
    "SqrtExpression": ("sqrt", "Sqrt"),
    "ExpExpression": ("exp", "Exp"),
    "Log10Expression": ("log10", "Log10"),
    "LnExpression": ("ln", "Ln"),
    "AcoshExpression": ("acosh", "Acosh"),
}
_QUERIES: dict[str, Callable[[Any, str | None, int], Any]] = {
    "NearestQuery": _nearest,
    "RecommendQuery": _recommend,
    "DiscoverQuery": _discover,
    "ContextQuery": _context,
    "OrderByQuery": lambda query, using, limit: edge_order(query.order_by),
    "FusionQuery": _fusion,
    "RrfQuery": _rrf,
    "FormulaQuery": _formula,
    "SampleQuery": lambda query, using, limit: edge.Sample.Random,
    "RelevanceFeedbackQuery": _feedback,
    "TextQuery": _text,
}


# configurations


def dense_of(config: models.CreateCollection) -> dict[str, models.VectorParams]:
    """Return the parameters of each dense vector, by name; ``""`` is the unnamed one."""
    vectors = config.vectors
    return {UNNAMED: vectors} if isinstance(vectors, models.VectorParams) else {**(vectors or {})}


def edge_config(config: models.CreateCollection) -> Any:
    """Return the configuration of a collection as the engine has it."""
    dense = dense_of(config)
    sparse = {
        name: _sparse_params(params) for name, params in (config.sparse_vectors or {}).items()
    }
    if not dense and not sparse:
        sparse = {NOTHING: edge.EdgeSparseVectorParams()}
    tuned = config.optimizers_config or models.OptimizersConfigDiff()
    return made(
        edge.EdgeConfig,
        vectors={name: _dense_params(params, config) for name, params in dense.items()},
        sparse_vectors=sparse,
        hnsw_config=_hnsw(config.hnsw_config),
        payload_memory=_payload_memory(config),
        id_tracker_memory=_memory(getattr(config, "id_tracker", None)),
        optimizers=made(
            edge.EdgeOptimizersConfig,
            deleted_threshold=tuned.deleted_threshold,
            vacuum_min_vector_number=tuned.vacuum_min_vector_number,
            default_segment_number=tuned.default_segment_number,
            max_segment_size=tuned.max_segment_size,
            indexing_threshold=LEAST_INDEXED
            if tuned.indexing_threshold is None
            else tuned.indexing_threshold,
        ),
        max_search_threads=1,  # each has a cost, and no query has gained by a second one
    )


def _payload_memory(config: models.CreateCollection) -> Any:
    chosen = _memory(getattr(config, "payload", None))
    if chosen is None and config.on_disk_payload is not None:
        return edge.Memory.Cold if config.on_disk_payload else edge.Memory.Cached
    return chosen


def _memory(params: Any) -> Any:
    return _member(edge.Memory, getattr(params, "memory", None))


def _dense_params(params: models.VectorParams, base: models.CreateCollection) -> Any:
    return made(
        edge.EdgeVectorParams,
        params.size,
        _member(edge.Distance, params.distance),
        on_disk=params.on_disk,
        multivector_config=_multivector(params.multivector_config),
        datatype=_member(edge.VectorStorageDatatype, params.datatype),
        quantization_config=_quantization(params.quantization_config or base.quantization_config)
        or (_INT8 if _is_float32(params) else None),
        hnsw_config=params.hnsw_config and _hnsw(base.hnsw_config, params.hnsw_config),
        memory=_memory(params),
    )


def _is_float32(params: models.VectorParams) -> bool:
    """Return whether there is one vector a point, of the usual numbers."""
    datatype = params.datatype in (None, models.Datatype.FLOAT32)
    return datatype and params.multivector_config is None


def _multivector(config: models.MultiVectorConfig | None) -> Any:
    return config and edge.MultiVectorConfig(_member(edge.MultiVectorComparator, config.comparator))


def _sparse_params(params: models.SparseVectorParams) -> Any:
    index = params.index or models.SparseIndexParams()
    return made(
        edge.EdgeSparseVectorParams,
        full_scan_threshold=index.full_scan_threshold,
        on_disk=index.on_disk,
        modifier=_member(edge.Modifier, params.modifier),
        datatype=_member(edge.VectorStorageDatatype, index.datatype),
        memory=_memory(index),
    )


def _hnsw(*configs: models.HnswConfigDiff | None) -> Any:
    """Return how an index is built: each of the configurations adds to those before it."""
    chosen: dict[str, Any] = {**HNSW}
    for config in configs:
        chosen |= given(config) if config is not None else {}
    memory = _member(edge.Memory, chosen.pop("memory", None))
    return made(edge.HnswIndexConfig, memory=memory, **chosen)


def _quantization(config: Any) -> Any:
    if config is None:
        return None
    kinds = {
        "scalar": edge.ScalarQuantizationConfig,
        "product": edge.ProductQuantizationConfig,
        "binary": edge.BinaryQuantizationConfig,
        "turbo": edge.TurboQuantQuantizationConfig,
    }
    enums = {
        "type": edge.ScalarType,
        "compression": edge.CompressionRatio,
        "encoding": edge.BinaryQuantizationEncoding,
        "query_encoding": edge.BinaryQuantizationQueryEncoding,
        "bits": edge.TurboQuantBitSize,
        "memory": edge.Memory,
    }
    for name, kind in kinds.items():
        if (chosen := getattr(config, name, None)) is not None:
            options = {
                option: _member(enums[option], value) if option in enums else value
                for option, value in given(chosen).items()
            }
            return made(kind, **options)
    raise ValueError(f"the embedded engine knows no quantisation {config!r:.80}")


def given(model: BaseModel, *without: str) -> dict[str, Any]:
    """Return the fields of a model that are set to something."""
    return {
        name: value
        for name in type(model).model_fields
        if name not in without and (value := getattr(model, name)) is not None
    }


def edge_index(schema: Any) -> Any:
    """Return what an index of a payload field is, as the engine has it.

    Raises:
        ValueError: if it has no such index.
    """
    if schema is None:
        raise ValueError("field_schema must be given: the kind of index, for instance 'keyword'")
    if not isinstance(schema, BaseModel):
        return named(edge.PayloadSchemaType, str(getattr(schema, "value", schema)))
    kind = getattr(edge, type(schema).__name__, None)
    if kind is None:
        raise ValueError(f"the embedded engine knows no index {schema!r:.80}")
    options = given(schema, "type")
    enums = {"memory": edge.Memory, "tokenizer": edge.TokenizerType}
    for option, value in options.items():
        if option in enums:
            options[option] = _member(enums[option], value)
    if (stopwords := options.get("stopwords")) is not None:
        options["stopwords"] = _stopwords(stopwords)
    if (stemmer := options.get("stemmer")) is not None:
        options["stemmer"] = (
            edge.SnowballParams(_member(edge.SnowballLanguage, stemmer.language))
            if hasattr(stemmer, "language")
            else edge.DisabledStemmer()
        )
    if isinstance(scoring := options.get("scoring"), BaseModel):
        options["scoring"] = edge.TextScoringParams(
            _member(edge.TextScoringType, getattr(scoring, "type", "bm25"))
        )
    return made(kind, **options)


def _stopwords(stopwords: Any) -> Any:
    if not isinstance(stopwords, models.StopwordsSet):
        return _member(edge.Language, stopwords)
    languages = {_member(edge.Language, language) for language in stopwords.languages or []}
    return made(edge.StopwordsSet, languages=languages, custom=set(stopwords.custom or []))


def index_kind(schema: Any) -> str:
    """Return the kind of an index of a payload field, by Qdrant's name."""
    kind = getattr(schema, "type", schema)
    return str(getattr(kind, "value", kind))


def new_vector(name: str, config: Any) -> Any:
    """Return the operation that adds a named vector to a collection."""
    if isinstance(config, models.DenseVectorNameConfig):
        dense = config.dense
        return made(
            edge.UpdateOperation.create_dense_vector,
            name,
            dense.size,
            _member(edge.Distance, dense.distance),
            _multivector(dense.multivector_config),
            _member(edge.VectorStorageDatatype, dense.datatype),
        )
    if isinstance(config, models.SparseVectorNameConfig):
        return made(
            edge.UpdateOperation.create_sparse_vector,
            name,
            _member(edge.Modifier, config.sparse.modifier),
            _member(edge.VectorStorageDatatype, config.sparse.datatype),
        )
    raise ValueError(f"Unsupported vector name config type: {type(config)}")


def made(kind: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Make something of the engine's; what it refuses is a ``ValueError`` in one line."""
    try:
        return kind(*args, **options)
    except (TypeError, OverflowError, ValueError) as error:
        found = next(iter(str(error).splitlines()), "")
        shown = ", ".join(
            f"{each!r:.60}" for each in (*args, *options.values()) if each is not None
        )
        name = getattr(kind, "__name__", str(kind))
        raise ValueError(
            f"Wrong input: {name} cannot be made of {shown:.200} ({found:.200})"
        ) from error


def ids_of(points: Iterable[Any]) -> list[int | UUID]:
    """Return ids as the engine has them, in order."""
    return [edge_id(point) for point in points]
