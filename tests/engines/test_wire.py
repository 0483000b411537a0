"""How points and queries travel: nothing of them changes, and nothing is copied on the way."""

from __future__ import annotations

import datetime
import json
import threading
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from clients import KINDS, LetterEncoder, WordEncoder, at, opened
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from qdrant_client import grpc, models
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc
from qdrant_client.http.api.points_api import jsonable_encoder
from rest_server import Server

from qdrant_embed import QdrantClient
from qdrant_embed.engines import wire
from qdrant_embed.engines.points import Points
from qdrant_embed.engines.protobuf import NotEncodableError, query_message, upsert_message

UPSERT = "PUT /collections/demo/points"

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=8,
)
point_ids = st.integers(0, 2**64 - 1) | st.uuids().map(str)
floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
payloads = st.dictionaries(st.text(st.characters(codec="utf-8")), values, max_size=4)


@st.composite
def some_points(draw: st.DrawFn) -> Points:
    count, dimension = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    rows = draw(
        st.lists(
            st.lists(floats, min_size=dimension, max_size=dimension),
            min_size=count,
            max_size=count,
        )
    )
    sparse = [
        models.SparseVector(indices=[*range(length)], values=[0.5] * length)
        for length in draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    ]
    late = [
        np.array(tokens, np.float32)
        for tokens in draw(
            st.lists(
                st.lists(
                    st.lists(floats, min_size=dimension, max_size=dimension), min_size=1, max_size=3
                ),
                min_size=count,
                max_size=count,
            )
        )
    ]
    return Points(
        ids=draw(st.lists(point_ids, min_size=count, max_size=count)),
        payloads=draw(st.lists(payloads, min_size=count, max_size=count)),
        dense=np.array(rows, np.float32),
        dense_name=draw(st.sampled_from(["", "fast-x"])),
        sparse=draw(st.sampled_from([None, sparse])),
        sparse_name="words",
        late=draw(st.sampled_from([None, late])),
        late_name="tokens",
    )


@given(points=some_points())
def test_a_grpc_message_is_the_one_that_qdrant_client_builds(points: Points) -> None:
    expected = grpc.UpsertPoints(
        collection_name="demo",
        wait=True,
        points=[RestToGrpc.convert_point_struct(point) for point in points],
    )
    assert upsert_message("demo", points, wait=True) == expected


@pytest.mark.parametrize("value", [2**63, datetime.date(2024, 1, 1), {1: 2}, {1, 2}])
def test_what_a_grpc_message_cannot_hold_is_left_to_qdrant_client(value: object) -> None:
    points = Points([1], [{"a": {"b": [value]}}], np.ones((1, 2), np.float32), "x")
    with pytest.raises(NotEncodableError):
        upsert_message("demo", points)


def sent_over_rest(points: Points, **options: Any) -> tuple[httpx.Request, dict[str, Any]]:
    """The request that stores points, and its body."""
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={"result": {"status": "completed"}, "status": "ok"})

    client = QdrantClient(
        url="http://nowhere:1/some/prefix",
        transport=httpx.MockTransport(answer),
        check_compatibility=False,
    )
    request = wire.upsert_request(client, "a b", points, **options)
    request.send()
    client.close()
    assert request.size == len(asked[0].content)
    body: dict[str, Any] = models.PointsList.model_validate_json(asked[0].content).model_dump()
    return asked[0], body


@given(points=some_points())
def test_a_rest_body_is_the_one_that_qdrant_client_writes(points: Points) -> None:
    _, body = sent_over_rest(points)
    expected = jsonable_encoder(models.PointsList(points=list(points)))
    told = models.PointsList.model_validate_json(expected).model_dump()
    numbers, same = dense(body, points), dense(told, points)
    assert body == told  # but for the vectors, which are taken out
    np.testing.assert_array_equal(numbers.view(np.uint32), same.view(np.uint32))
    np.testing.assert_array_equal(numbers.view(np.uint32), points.dense.view(np.uint32))


def dense(body: dict[str, Any], points: Points) -> NDArray[np.float32]:
    """Takes the dense vectors out of a body: float32, as a server reads them."""
    rows: list[Any] = []
    for point in body["points"]:
        named = isinstance(point["vector"], dict)
        if points.late is not None:
            tokens = np.array(point["vector"].pop(points.late_name), np.float64).astype(np.float32)
            wanted = points.late[len(rows)]
            np.testing.assert_array_equal(tokens.view(np.uint32), wanted.view(np.uint32))
        rows.append(point["vector"].pop(points.dense_name) if named else point.pop("vector"))
    return np.array(rows, np.float64).astype(np.float32)


def test_every_kind_of_float32_is_stored_bit_for_bit() -> None:
    """Those of vectors also where a parser errs by the last bit of a float64."""
    bits = np.random.default_rng(0).integers(0, 2**32, 40_000, np.uint32)
    row = bits.view(np.float32)
    # what vectors are made of, among them those whose shortest text is the longest
    row = np.concatenate([row[np.isfinite(row)], np.linspace(-1, 1, 9_999, dtype=np.float32)])
    row = np.concatenate([row, np.array([-0.0, 1e-45, 3.4028235e38, 0.1], np.float32)])
    _, body = sent_over_rest(Points([1], [{}], row[None], ""))
    read = np.array(body["points"][0]["vector"], np.float64)
    usual = (np.abs(row) > 1e-3) & (np.abs(row) < 1e4)
    for parsed in (read, np.nextafter(read, np.inf), np.nextafter(read, -np.inf)):
        stored = parsed.astype(np.float32)
        np.testing.assert_array_equal(stored[usual], row[usual])
    np.testing.assert_array_equal(read.astype(np.float32).view(np.uint32), row.view(np.uint32))


def test_requests_are_those_of_qdrant_client() -> None:
    moment = datetime.datetime(2024, 2, 3, 4, 5, 6, tzinfo=datetime.timezone.utc)
    payload = {"at": moment, "day": moment.date(), "of": uuid.UUID(int=5), "in": (1, None)}
    points = Points([1], [payload], np.ones((1, 2), np.float32), "x")
    request, body = sent_over_rest(
        points, wait=False, shard_key_selector=models.ShardKeyWithFallback(target="a", fallback="b")
    )
    assert str(request.url) == "http://nowhere:1/some/prefix/collections/a%20b/points?wait=false"
    assert request.method == "PUT"
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["User-Agent"].startswith("python-client/")
    assert body["shard_key"] == {"target": "a", "fallback": "b"}
    expected = models.PointStruct(id=1, vector={}, payload=payload).model_dump_json()
    assert body["points"][0]["payload"] == models.PointStruct.model_validate_json(expected).payload


@pytest.mark.parametrize("kind", KINDS)
def test_what_orjson_cannot_write_is_sent_by_qdrant_client(
    kind: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(kind, **at(server)) as client:
        client.create_collection(
            "demo", {"x": models.VectorParams(size=2, distance=models.Distance.COSINE)}
        )
        points = Points([1], [{"a": 2**70}], np.ones((1, 2), np.float32), "x")
        request = wire.upsert_request(client, "demo", points)
        assert request.size is None
        request.send()
        monkeypatch.setattr(wire, "orjson", None)
        points = Points([2], [{"a": 1}], np.ones((1, 2), np.float32), "x")
        wire.upsert_request(client, "demo", points).send()
    found = [(point.payload or {})["a"] for point in server.database.retrieve("demo", [1, 2])]
    assert found == [pytest.approx(2**70), 1]  # which a server makes a float of


def test_a_clients_own_upsert_sees_points_one_request_at_a_time(server: Server) -> None:
    seen: list[Any] = []

    class Logging(QdrantClient):
        def upsert(self, *args: Any, **kwargs: Any) -> Any:
            seen.append(args[1])
            return super().upsert(*args, **kwargs)

    client = Logging(**at(server))
    client.set_model(LetterEncoder())
    client.add("demo", ["cat"] * 70)
    own = client.upsert
    client.upsert = partial(own)  # type: ignore[method-assign]
    client.add("demo", ["cat"])
    client.close()
    assert [len(points) for points in seen] == [32, 32, 6, 1]
    assert all(isinstance(point, models.PointStruct) for points in seen for point in points)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["memory", "server"])
def test_a_query_is_not_copied(
    kind: str, place: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies: list[object] = []

    def copied(value: object) -> object:
        if "process_request_thread" not in threading.current_thread().name:  # of the server
            copies.append(value)
        return value

    options = at(server) if place == "server" else {"location": ":memory:"}
    with opened(kind, **options) as client:
        client.set_model(LetterEncoder())
        client.set_sparse_model(WordEncoder())
        client.add("demo", ["cat", "dog"])
        for name in ("qdrant_fastembed", "async_qdrant_fastembed"):
            monkeypatch.setattr(f"qdrant_client.{name}.deepcopy", copied)
        assert {hit.document for hit in client.query("demo", "cat")} == {"cat", "dog"}
        assert [len(hits) for hits in client.query_batch("demo", ["dog", "cat"])] == [2, 2]
    assert not copies


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_query_batch_points(kind: str, server: Server) -> None:
    request = models.QueryRequest(
        query=[0.5] * 26,
        using="fast-letters",
        filter=models.Filter(must=[models.FieldCondition(key="n", range=models.Range(gte=1))]),
        limit=3,
        offset=1,
        with_payload=True,
        with_vector=True,
        score_threshold=0.1,
    )
    for options in (at(server), {"location": ":memory:"}):
        with opened(kind, **options) as client:
            client.set_model(LetterEncoder())
            texts = [f"{letter * 3} text" for letter in "abcdefgh"]
            client.add("demo", texts, [{"n": n} for n in range(8)], range(8))
            again = request.model_copy()
            raw = vars(client)["client"] if kind == "async" else client
            found = wire.query_batch(raw, "demo", [request, request])
            if kind == "async":
                found = vars(client)["loop"].run_until_complete(found)
            assert request == again
            expected = client.query_batch_points("demo", [request, request])
            points, same = (
                [point for answer in answers for point in answer.points]
                for answers in (found, expected)
            )
            assert len(points) == 6
            for point, other in zip(points, same, strict=True):
                assert point.score == pytest.approx(other.score)
                assert point == other.model_copy(update={"score": point.score})


def test_a_clients_own_query_batch_points_is_asked(server: Server, tmp_path: Path) -> None:
    asked: list[int] = []

    class Logging(QdrantClient):
        def query_batch_points(self, *args: Any, **kwargs: Any) -> Any:
            asked.append(1)
            return super().query_batch_points(*args, **kwargs)

    stores: list[dict[str, Any]] = [
        at(server),
        {"location": ":memory:"},
        {"path": str(tmp_path), "engine": "edge"},
    ]
    for options in stores:
        client = Logging(**options)
        client.set_model(LetterEncoder())
        client.add("demo", ["cat"])
        client.query("demo", "cat")
        client.close()
    assert asked == [1] * len(stores)


def test_a_method_that_was_replaced_on_the_client_itself_is_asked(tmp_path: Path) -> None:
    client, asked = QdrantClient(path=str(tmp_path), engine="edge"), []
    client.set_model(LetterEncoder())
    client.add("demo", ["cat"])
    own = client.query_batch_points

    def logging(*args: Any, **kwargs: Any) -> Any:
        asked.append(1)
        return own(*args, **kwargs)

    client.query("demo", "cat")
    assert asked == []
    client.query_batch_points = logging  # type: ignore[method-assign] # as tools that trace do
    client.query("demo", "cat")
    assert asked == [1]
    client.close()


queries = st.builds(
    models.QueryRequest,
    query=st.none()
    | st.lists(floats, min_size=1, max_size=4)
    | st.just([[0.5, 1.0], [1.0, 2.0]])
    | st.just(models.SparseVector(indices=[3], values=[0.5]))
    | st.just(models.FusionQuery(fusion=models.Fusion.RRF)),
    prefetch=st.none()
    | st.lists(st.builds(models.Prefetch, query=st.just([0.1, 2.0]), limit=st.integers(1, 9))),
    using=st.none() | st.just("x"),
    filter=st.none() | st.just(models.Filter(must=[models.HasIdCondition(has_id=[1, "a"])])),
    params=st.none() | st.just(models.SearchParams(exact=True)),
    limit=st.integers(1, 9),
    offset=st.none() | st.integers(0, 9),
    with_payload=st.booleans() | st.just(["a.b"]),
    with_vector=st.booleans() | st.just(["x"]),
    score_threshold=st.none() | st.just(0.25),
    shard_key=st.none() | st.just("k"),
)


@given(requests=st.lists(queries, min_size=1, max_size=3))
def test_queries_are_those_that_qdrant_client_sends(requests: list[models.QueryRequest]) -> None:
    bodies: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        bodies.append(request.content)
        return httpx.Response(200, json={"result": [], "status": "ok", "time": 0.0})

    client = QdrantClient(
        url="http://nowhere:1", transport=httpx.MockTransport(answer), check_compatibility=False
    )
    before = [request.model_copy(deep=True) for request in requests]
    wire.query_batch(client, "demo", requests)
    assert requests == before
    client.query_batch_points("demo", requests)
    ours, theirs = (json.loads(body) for body in bodies)
    assert ours == theirs
    client.close()
    for request in requests:
        expected = RestToGrpc.convert_query_request(resolve(client, request), "demo")
        assert query_message("demo", request) == expected


@pytest.mark.parametrize("point_id", [0, 7, str(uuid.UUID(int=5))])
@pytest.mark.parametrize("payload", [{}, {"a": {"b": [1, None, "x"]}}])
@pytest.mark.parametrize("shard_key", [None, "k"])
@pytest.mark.parametrize("vector", [None, [0.5, 0.25], {"x": [0.5]}])
def test_hits_over_grpc_are_those_that_qdrant_client_returns(
    point_id: Any, payload: Any, shard_key: Any, vector: Any
) -> None:
    hit = RestToGrpc.convert_scored_point(
        models.ScoredPoint(
            id=point_id, version=3, score=0.1, payload=payload, vector=vector, shard_key=shard_key
        )
    )
    found, expected = wire.scored_point(hit), GrpcToRest.convert_scored_point(hit)
    assert found == expected
    assert repr(found) == repr(expected)
    assert found.model_fields_set == expected.model_fields_set


def resolve(client: Any, request: models.QueryRequest) -> models.QueryRequest:
    """The request as qdrant_client makes it before it converts it."""
    found: models.QueryRequest = client._resolve_query_request(request)
    return found


class GrpcCalls:
    """Stands for ``grpc_points`` and remembers what it is asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any, float]] = []

    def Upsert(self, message: Any, timeout: float) -> Any:  # noqa: N802 - its name
        self.calls.append(("Upsert", message, timeout))

    def QueryBatch(self, message: Any, timeout: float) -> Any:  # noqa: N802 - its name
        self.calls.append(("QueryBatch", message, timeout))
        hit = grpc.ScoredPoint(id=grpc.PointId(num=7), score=0.5, version=1)
        return grpc.QueryBatchResponse(result=[grpc.BatchResult(result=[hit])])


@pytest.fixture
def over_grpc() -> Iterator[tuple[QdrantClient, GrpcCalls]]:
    """A client that prefers gRPC, and what it asks."""
    calls = GrpcCalls()

    class Remembering(QdrantClient):
        @property
        def grpc_points(self) -> Any:
            return calls

    client = Remembering("http://nowhere:1", prefer_grpc=True, check_compatibility=False, timeout=7)
    yield client, calls
    client.close()


def test_points_go_as_one_message_over_grpc(over_grpc: tuple[QdrantClient, GrpcCalls]) -> None:
    client, seen = over_grpc
    points = Points([1, 2], [{}, {"a": 1}], np.eye(2, dtype=np.float32), "x")
    request = wire.upsert_request(client, "demo", points, wait=False, shard_key_selector="k")
    request.send()
    ((name, message, timeout),) = seen.calls
    assert (name, timeout, request.size) == ("Upsert", 7, message.ByteSize())
    assert message.shard_key_selector == RestToGrpc.convert_shard_key_selector("k")
    assert (message.collection_name, message.wait, len(message.points)) == ("demo", False, 2)


@pytest.mark.parametrize("consistency", ["all", models.ReadConsistencyType.ALL, 2, None])
def test_queries_go_as_one_message_over_grpc(
    over_grpc: tuple[QdrantClient, GrpcCalls], consistency: Any
) -> None:
    client, seen = over_grpc
    request = models.QueryRequest(query=[0.5, 0.25], using="x", limit=1)
    (found,) = wire.query_batch(client, "demo", [request], consistency, 9)
    ((name, message, timeout),) = seen.calls
    assert (name, timeout, message.timeout) == ("QueryBatch", 9, 9)
    assert [*message.query_points[0].query.nearest.dense.data] == [0.5, 0.25]
    assert message.HasField("read_consistency") == (consistency is not None)
    assert [point.id for point in found.points] == [7]


def test_sizes_are_no_less_than_what_is_sent() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 384)).astype(np.float32)
    payloads = [{"document": "ü" * number, "n": [number, {"x": 1.5}]} for number in range(50)]
    points = Points([*range(50)], payloads, rows, "fast-x")
    request, _ = sent_over_rest(points)
    assert len(request.content) <= sum(points.sizes()) <= 2 * len(request.content)
    assert [*points[10:20].ids] == [*range(10, 20)]
    assert points[10:20].sizes() == points.sizes()[10:20]
