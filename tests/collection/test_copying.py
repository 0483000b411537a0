"""`copy_to`: collections as they are, in another database, however often it was interrupted."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import qdrant_client
from clients import SENTENCES, Blocking, LetterEncoder, WordEncoder, at, opened, same, stored
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import models
from rest_server import Fault, Server, serving
from tiny import TinyModel

from qdrant_embed import (
    AsyncQdrantClient,
    CollectionMismatchError,
    CollectionNotFoundError,
    IngestProgress,
    InputError,
    PermissionRefusal,
    QdrantClient,
)

TESTS = Path(__file__).parents[1]
MARK = "qdrant_embed_copy"
SERVERS = {"server", "grpc"}
STORES = ["memory", "path", "edge", "server", "grpc"]
UPSERT = "PUT /collections/demo/points"


@pytest.fixture
def opening(kind: str) -> Iterator[Callable[..., QdrantClient]]:
    """Open clients of the kind, which share an event loop, and are closed in the end."""
    with ExitStack() as open_clients:
        loop = asyncio.new_event_loop()
        open_clients.callback(loop.close)
        open_clients.callback(lambda: loop.run_until_complete(loop.shutdown_default_executor()))

        def client(**options: Any) -> QdrantClient:
            if kind == "sync":
                return open_clients.enter_context(opened(kind, **options))
            blocking = Blocking(AsyncQdrantClient(**options), loop)
            open_clients.callback(blocking.close)
            return cast(QdrantClient, blocking)

        yield client


@pytest.fixture
def client_of(
    opening: Callable[..., QdrantClient], tmp_path: Path
) -> Iterator[Callable[[str], QdrantClient]]:
    """Open a client of a store of its own."""
    with ExitStack() as servers:

        def client(store: str) -> QdrantClient:
            if store == "memory":
                return opening(location=":memory:")
            if store in ("path", "edge"):
                engine = "local" if store == "path" else "edge"
                return opening(path=str(tmp_path / f"{random.random()}"), engine=engine)
            server = servers.enter_context(serving(grpc=store == "grpc"))
            return opening(**at(server, grpc=store == "grpc"))

        yield client


@pytest.fixture
def other() -> Iterator[Server]:
    """Another server."""
    with serving() as running:
        yield running


def inner(client: QdrantClient) -> Any:
    """Return the client itself, as another client wants it."""
    return vars(client).get("client", client)


def content(client: qdrant_client.QdrantClient, name: str) -> dict[Any, Any]:
    """Return every point with its payload and vectors, which are equal but for a rounding.

    Whoever stores vectors for cosine makes them one long, though they are already.
    """
    points, _ = client.scroll(name, limit=10_000, with_vectors=True)
    return {point.id: (point.payload or {}, plain(point.vector)) for point in points}


@dataclass(frozen=True, eq=False)
class Near:  # noqa: PLW1641 - nothing is looked up by it
    """Numbers that are equal to others but for a rounding."""

    numbers: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Near) and self.numbers == pytest.approx(
            other.numbers, rel=1e-6, abs=1e-7
        )


def plain(vector: Any) -> Any:
    if isinstance(vector, dict):
        return {name: plain(one) for name, one in vector.items()}
    if isinstance(vector, models.SparseVector):
        return vector.indices, Near(np.asarray(vector.values))
    return None if vector is None else Near(np.asarray(vector))


# any collection

# far enough from nothing that a vector can be made one long
floats = st.sampled_from([0.0, -1.0]) | st.floats(0.125, 1, width=32)
numbers = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0.5, -1e-7, 1e300])
json_values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text("ab."), inside),
    max_leaves=4,
)
payloads = st.none() | st.dictionaries(st.sampled_from(["n", "tag", "ä b"]), json_values)
ids = st.integers(0, 2**64 - 1) | st.uuids().map(str)


def vector_of(params: Any) -> st.SearchStrategy[Any]:
    if isinstance(params, models.SparseVectorParams):
        entries = st.dictionaries(st.integers(0, 2**32 - 1), floats, min_size=1, max_size=4)
        return entries.map(
            lambda found: models.SparseVector(indices=[*found], values=[*found.values()])
        )
    row = st.lists(floats, min_size=params.size, max_size=params.size)
    return row if params.multivector_config is None else st.lists(row, min_size=1, max_size=3)


dense = st.builds(
    models.VectorParams,
    size=st.integers(1, 4),
    distance=st.sampled_from(models.Distance),
    datatype=st.none() | st.just(models.Datatype.FLOAT32),
    on_disk=st.none() | st.booleans(),
    hnsw_config=st.none() | st.just(models.HnswConfigDiff(m=8)),
    quantization_config=st.none()
    | st.just(models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True))),
    multivector_config=st.none()
    | st.just(models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)),
)
sparse = st.builds(
    models.SparseVectorParams,
    modifier=st.none() | st.just(models.Modifier.IDF),
    index=st.none() | st.just(models.SparseIndexParams(on_disk=True)),
)


@st.composite
def collections(draw: st.DrawFn) -> tuple[dict[str, Any], list[models.PointStruct]]:
    """Draw the arguments of a collection and its points."""
    named = draw(st.dictionaries(st.sampled_from(["", "a"]), dense, max_size=2))
    single = draw(dense) if not named or draw(st.booleans()) else None
    sparse_config = draw(st.none() | st.dictionaries(st.sampled_from(["s", "t"]), sparse))
    config: Any = single if single is not None and not named else named
    arguments = {
        "vectors_config": config,
        "sparse_vectors_config": sparse_config or None,
        "metadata": draw(st.none() | st.just({"mine": {"x": [1, "y"]}})),
    }
    kinds = {**named, **(sparse_config or {})}
    points = []
    for point in draw(st.lists(ids, max_size=12, unique=True)):
        chosen = draw(st.sets(st.sampled_from([*kinds]))) if kinds else set()
        vector: Any = {name: draw(vector_of(kinds[name])) for name in sorted(chosen)}
        if single is not None and not named:
            row = draw(vector_of(single))
            vector = row if not vector else {**vector, "": row}
        points.append(models.PointStruct(id=point, vector=vector, payload=draw(payloads)))
    return arguments, points


def settings_of(client: QdrantClient, stores: set[str]) -> Any:
    """Return what the collection says of itself, as far as stores of these kinds keep it."""
    info = client.get_collection("demo")
    config, params = info.config, info.config.params
    # some keep a null for what was removed
    metadata = {key: value for key, value in (config.metadata or {}).items() if value is not None}
    if stores <= SERVERS:
        return config.model_copy(update={"metadata": metadata}), info.payload_schema
    in_all = params.vectors or {}, params.sparse_vectors or {}, metadata
    if stores <= {*SERVERS, "edge"}:
        hnsw = config.hnsw_config
        kept = config.quantization_config, params.on_disk_payload, hnsw.m, hnsw.on_disk
        return in_all, kept, info.payload_schema.keys()
    return in_all


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect")
@pytest.mark.parametrize("to", STORES)
@pytest.mark.parametrize("of", STORES)
def test_any_collection_is_the_same_in_any_store(
    client_of: Callable[[str], QdrantClient], of: str, to: str
) -> None:
    source, target = client_of(of), client_of(to)

    @settings(
        max_examples=3,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(collection=collections(), batch_size=st.integers(1, 5), alias=st.booleans())
    def check(
        collection: tuple[dict[str, Any], list[models.PointStruct]], batch_size: int, alias: bool
    ) -> None:
        arguments, points = collection
        for client in (source, target):
            client.delete_collection("demo")
        if of in {*SERVERS, "edge"}:
            arguments |= {
                "on_disk_payload": False,
                "shard_number": 2,
                "hnsw_config": models.HnswConfigDiff(m=7, on_disk=True),
                "optimizers_config": models.OptimizersConfigDiff(indexing_threshold=77),
                "quantization_config": models.ScalarQuantization(
                    scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8)
                ),
            }
        source.create_collection("demo", **arguments)
        source.create_payload_index("demo", "n", models.PayloadSchemaType.INTEGER)
        if points:
            source.upsert("demo", points)
        if alias:
            create = models.CreateAlias(collection_name="demo", alias_name="live")
            source.update_collection_aliases([models.CreateAliasOperation(create_alias=create)])
        before = content(source, "demo")
        name = "live" if alias else "demo"
        copied = source.copy_to(inner(target), [name], batch_size=batch_size, progress=False)
        assert copied == {"demo": len(points)}
        assert content(target, "demo") == before == content(source, "demo")
        assert settings_of(target, {of, to}) == settings_of(source, {of, to})
        aliases = target.get_collection_aliases("demo").aliases
        assert [one.alias_name for one in aliases] == ["live"] * alias

    check()


# what our own methods say of a copy


@pytest.mark.parametrize("overflow", ["truncate", "chunk"])
@pytest.mark.parametrize("of", STORES)
def test_a_copy_is_searched_by_the_model_of_its_stamp(
    client_of: Callable[[str], QdrantClient], of: str, tiny_name: str, overflow: Any
) -> None:
    source, target = client_of(of), client_of("memory")
    source.set_model(tiny_name, overflow=overflow)
    ids = source.add("demo", [*SENTENCES, "cat " * 200], [{"n": n} for n in range(6)])
    assert source.copy_to(inner(target)) == {"demo": source.count("demo").count}
    for text in ("a ship at sea", "a cat"):
        expected = source.query("demo", text, limit=6)
        assert same(target.query("demo", text, limit=6), expected)
    assert [one and one.id for one in target.get_documents("demo", ids)] == ids
    target.set_model(tiny_name, overflow=overflow)
    assert target.add("demo", ["one more"], ids=[7]) == [7]


@pytest.mark.filterwarnings("ignore:Local mode")
def test_the_index_of_parents_is_made_on_a_server(
    opening: Callable[..., QdrantClient], server: Server, tiny: TinyModel
) -> None:
    source, target = opening(location=":memory:"), opening(**at(server))
    source.set_model(tiny.path, overflow="chunk")
    source.add("demo", ["cat " * 200])
    source.copy_to(inner(target))
    assert [*target.get_collection("demo").payload_schema] == ["qdrant_embed_chunk.parent"]


def test_indexes_are_there_before_the_first_point(
    opening: Callable[..., QdrantClient], server: Server, other: Server
) -> None:
    source, target = opening(**at(other)), opening(**at(server))
    filled(source)
    source.create_payload_index("demo", "n", models.PayloadSchemaType.INTEGER)
    text = models.TextIndexParams(type=models.TextIndexType.TEXT, lowercase=True)
    source.create_payload_index("demo", "document", text)
    source.copy_to(inner(target), batch_size=10)
    schema = target.get_collection("demo").payload_schema
    assert schema["document"].params == text
    order = [name for name in server.requests if name.startswith("PUT")]
    index = "PUT /collections/demo/index"
    assert order == ["PUT /collections/demo", index, index, *[UPSERT] * 3]


def filled(client: QdrantClient, name: str = "demo", count: int = 30) -> None:
    """Store some documents."""
    client.set_model(LetterEncoder())
    texts = [f"{SENTENCES[n % 5]} {n}" for n in range(count)]
    client.add(name, texts, [{"n": n} for n in range(count)], ids=range(count))


# interrupted


@pytest.fixture
def source(opening: Callable[..., QdrantClient]) -> QdrantClient:
    client = opening(location=":memory:")
    filled(client)
    return client


@pytest.fixture
def target(opening: Callable[..., QdrantClient], where: dict[str, Any]) -> QdrantClient:
    client = opening(**where)
    client.set_model(LetterEncoder())
    return client


def is_upsert(request: str) -> bool:
    return request in (UPSERT, "Points/Upsert")


def fail_at(server: Server, upsert: int) -> None:
    """Refuse an upsert, counted from 1."""
    uploads = 0

    def fault(request: str) -> Fault | None:
        nonlocal uploads
        uploads += is_upsert(request)
        return Fault(403) if is_upsert(request) and uploads == upsert else None

    server.fault = fault


def mark_of(client: qdrant_client.QdrantClient, name: str) -> Any:
    return (client.get_collection(name).config.metadata or {}).get(MARK)


def upserts(server: Server) -> int:
    return sum(map(is_upsert, server.requests))


def test_it_goes_on_where_it_failed(
    source: QdrantClient, target: QdrantClient, server: Server
) -> None:
    fail_at(server, 3)
    with pytest.raises(PermissionRefusal):
        source.copy_to(inner(target), batch_size=10)
    assert server.database.count("demo").count == 20
    for ask in (
        lambda: target.query("demo", "a"),
        lambda: target.add("demo", ["a"]),
        lambda: target.migrate_model("demo", LetterEncoder(), "new"),
        lambda: target.get_documents("demo", [1]),
        lambda: list(target.scroll_documents("demo")),
        lambda: target.update_metadata("demo", [1], {"n": 2}),
        lambda: target.delete_documents("demo", [1]),
        lambda: target.copy_to(inner(source)),
    ):
        with pytest.raises(CollectionMismatchError, match="'demo' is an unfinished copy of 'demo'"):
            ask()
    source.set_payload("demo", {"n": -1}, points=[3])
    told: list[IngestProgress] = []
    before = upserts(server)
    assert source.copy_to(inner(target), batch_size=10, progress=told.append) == {"demo": 30}
    assert upserts(server) - before == 2  # what was missing, and what has changed
    assert content(target, "demo") == content(source, "demo")
    assert (told[-1].documents, told[-1].total, told[-1].unchanged) == (30, 30, 19)
    assert target.query("demo", SENTENCES[0], limit=1)
    assert mark_of(target, "demo") is None


def test_collections_that_are_complete_are_not_copied_again(
    source: QdrantClient, target: QdrantClient, server: Server
) -> None:
    for name in ("a", "b"):
        filled(source, name)
    uploads = 0

    def fault(request: str) -> Fault | None:
        nonlocal uploads
        is_upload = request == "Points/Upsert" or (
            request.startswith("PUT") and "/points" in request
        )
        uploads += is_upload
        return Fault(403) if is_upload and uploads == 3 else None

    server.fault = fault
    with pytest.raises(PermissionRefusal):
        source.copy_to(inner(target))
    assert {name: stored(target, name).keys() for name in ("a", "b")} == {
        name: stored(source, name).keys() for name in ("a", "b")
    }
    target.query("a", "text")  # it is complete, whatever becomes of the others
    server.fault = lambda _: None
    server.requests.clear()
    assert source.copy_to(inner(target)) == {"a": 30, "b": 30, "demo": 30}
    assert not any("/a/points" in name and "count" not in name for name in server.requests)
    assert upserts(server) == 1


def test_a_call_that_ends_while_it_removes_marks_can_be_repeated(
    source: QdrantClient, target: QdrantClient, server: Server
) -> None:
    filled(source, "a")
    changes = 0

    def fault(request: str) -> Fault | None:
        nonlocal changes
        is_change = request.startswith("PATCH") or request == "Collections/Update"
        changes += is_change
        return Fault(403) if is_change and changes == 4 else None

    server.fault = fault
    with pytest.raises(PermissionRefusal):
        source.copy_to(inner(target))
    assert mark_of(server.database, "a") is None
    assert mark_of(server.database, "demo")["complete"]
    before = upserts(server)
    assert source.copy_to(inner(target)) == {"a": 30, "demo": 30}
    assert upserts(server) == before
    with pytest.raises(CollectionMismatchError, match="'a' already exists"):
        source.copy_to(inner(target))


def test_points_that_come_or_go_meanwhile_are_noticed(
    opening: Callable[..., QdrantClient], target: QdrantClient, server: Server, other: Server
) -> None:
    extra = models.PointStruct(id=1000, vector={"fast-letters": [1.0] * 26}, payload={})
    source = opening(**at(other))
    filled(source)

    def while_copying(request: str) -> None:
        if is_upsert(request):
            other.database.upsert("demo", [extra])

    server.fault = while_copying
    with pytest.raises(
        CollectionMismatchError,
        match=r"has 31 points in .*, but 30 in .*: 1 missing \(such as 1000\)",
    ):
        source.copy_to(inner(target))
    server.fault = lambda _: None
    assert source.copy_to(inner(target)) == {"demo": 31}
    target.delete_collection("demo")
    fail_at(server, 2)
    with pytest.raises(PermissionRefusal):
        source.copy_to(inner(target), batch_size=10)
    source.delete("demo", [0, 1])
    server.fault = lambda _: None
    with pytest.raises(CollectionMismatchError, match="2 too many"):
        source.copy_to(inner(target))
    assert mark_of(server.database, "demo")["complete"] is False


def test_a_cancelled_copy_goes_on_later() -> None:
    async def program() -> None:
        with serving() as server:
            source, target = AsyncQdrantClient(":memory:"), AsyncQdrantClient(**at(server))
            source.set_model(LetterEncoder())
            await source.add("demo", [f"text {n}" for n in range(100)])
            copying = asyncio.create_task(source.copy_to(target, batch_size=5))
            while upserts(server) < 4:
                await asyncio.sleep(0.001)
            copying.cancel()
            with pytest.raises(asyncio.CancelledError):
                await copying
            there = server.database.count("demo").count
            await asyncio.sleep(0.05)
            assert server.database.count("demo").count == there < 100
            assert await source.copy_to(target) == {"demo": 100}
            await source.close()
            await target.close()

    asyncio.run(program())


def copy(source: str, target: str, engine: str) -> None:
    """A copy in 16 batches, run in a process of its own."""
    old, new = QdrantClient(path=source), QdrantClient(path=target, engine=engine)
    sys.stdout.write("ready\n")
    old.copy_to(new, batch_size=5, progress=lambda _: sys.stdout.write("batch\n"))
    old.close()
    new.close()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "edge"])
def test_a_killed_copy_is_completed_by_the_same_call(
    tmp_path: Path, request: pytest.FixtureRequest, engine: str
) -> None:
    folder = str(tmp_path / "source")
    source = QdrantClient(path=folder, engine=engine)
    for name in ("a", "b"):
        filled(source, name, 40)
    source.close()
    source = QdrantClient(path=folder)  # vectors in a folder are read as they were written
    expected = {name: content(source, name) for name in ("a", "b")}
    source.close()
    moments = random.Random(8)
    setup = "import sys; sys.path.append('collection'); import test_copying as t"
    call = [sys.executable, "-c", f"{setup}; t.copy(*sys.argv[1:])", folder]
    for kill in range(request.config.getoption("--kills")):
        to = str(tmp_path / f"killed-{kill}")
        with subprocess.Popen([*call, to, engine], stdout=subprocess.PIPE, cwd=TESTS) as process:
            assert process.stdout is not None
            for _ in range(moments.randint(1, 18)):
                process.stdout.readline()
            time.sleep(moments.uniform(0, 0.02))
            process.kill()
        client = QdrantClient(path=to)  # it opens
        names = [found.name for found in client.get_collections().collections]
        for name in names:
            mark = mark_of(client, name)
            if mark is None or mark["complete"]:
                assert content(client, name) == expected[name]
            else:
                client.set_model(LetterEncoder())
                with pytest.raises(CollectionMismatchError, match="unfinished copy"):
                    client.query(name, "text")
        is_over = names == ["a", "b"] and not any(mark_of(client, name) for name in names)
        client.close()
        if not is_over:
            subprocess.run([*call, to, engine], check=True, stdout=subprocess.DEVNULL, cwd=TESTS)
        client = QdrantClient(path=to)
        assert {name: content(client, name) for name in ("a", "b")} == expected
        client.close()


# refused before anything is written


def test_a_collection_of_another_origin_is_left_alone(
    opening: Callable[..., QdrantClient],
    source: QdrantClient,
    target: QdrantClient,
    server: Server,
) -> None:
    filled(source, "a")
    target.add("demo", ["mine"])
    server.requests.clear()
    with pytest.raises(CollectionMismatchError, match="'demo' already exists") as caught:
        source.copy_to(inner(target))
    assert caught.value.found == {"copy of": None}
    assert "copy of" in caught.value.expected
    target.delete_collection("demo")
    fail_at(server, 1)
    with pytest.raises(PermissionRefusal):
        source.copy_to(inner(target), ["demo"])
    server.fault = lambda _: None
    other = opening(location=":memory:")
    filled(other)
    with pytest.raises(CollectionMismatchError, match="is a copy of 'demo' of :memory:"):
        other.copy_to(inner(target))
    assert [one.name for one in target.get_collections().collections] == ["demo"]
    assert server.database.count("demo").count == 0


@pytest.mark.parametrize("taken", ["collection", "alias"])
def test_an_alias_that_is_taken_is_refused(
    source: QdrantClient, target: QdrantClient, server: Server, taken: str
) -> None:
    def point(client: QdrantClient, name: str) -> None:
        create = models.CreateAlias(collection_name=name, alias_name="live")
        client.update_collection_aliases([models.CreateAliasOperation(create_alias=create)])

    point(source, "demo")
    target.add("live" if taken == "collection" else "mine", ["mine"])
    if taken == "alias":
        point(target, "mine")
    with pytest.raises(CollectionMismatchError, match="'live' is an alias of collection 'demo'"):
        source.copy_to(inner(target))
    assert not target.collection_exists("demo")
    target.delete_collection("live" if taken == "collection" else "mine")
    assert source.copy_to(inner(target)) == {"demo": 30}
    assert target.count("live").count == 30


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"collections": "demo"}, InputError, "must be a list of names"),
        ({"collections": ["demo", ""]}, InputError, "a name in collections is empty"),
        ({"collections": [7]}, InputError, "a name in collections must be a str"),
        ({"collections": ["demo", "b"]}, CollectionNotFoundError, "'b' was not found .*: demo"),
        ({"batch_size": 0}, InputError, "batch_size"),
        ({"max_retries": -1}, InputError, "max_retries"),
        ({"progress": "yes"}, InputError, "progress must be"),
    ],
)
def test_what_cannot_be_is_refused(
    source: QdrantClient, kind: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with opened(kind, ":memory:") as target:
        with pytest.raises(error, match=message):
            source.copy_to(inner(target), **options)
        assert target.get_collections().collections == []
        assert source.copy_to(inner(target), []) == {}


def test_only_another_database_of_the_same_kind_of_client_will_do(
    source: QdrantClient, kind: str
) -> None:
    with pytest.raises(InputError, match="other is this client's own"):
        source.copy_to(inner(source))
    other = "async" if kind == "sync" else "sync"
    refused = pytest.raises(InputError, match=r"must be a qdrant_embed\.(Async)?QdrantClient, not")
    with opened(other, ":memory:") as target, refused:
        source.copy_to(inner(target))
    plain_client = qdrant_client.QdrantClient(":memory:")
    with pytest.raises(InputError, match=r"not qdrant_client\.qdrant_client\.QdrantClient"):
        source.copy_to(plain_client)  # type: ignore[arg-type]


def test_a_server_that_keeps_no_metadata_gets_no_copy(
    opening: Callable[..., QdrantClient],
    source: QdrantClient,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    create = server.node.create

    def without_metadata(name: str, asked: models.CreateCollection) -> bool:
        return create(name, asked.model_copy(update={"metadata": None}))

    monkeypatch.setattr(server.node, "create", without_metadata)
    monkeypatch.setattr("qdrant_embed.flows.requests.SETTLING", 0.01)
    target = opening(**at(server))
    with pytest.raises(CollectionMismatchError, match=r"did not store .* upgrade to Qdrant 1\.16"):
        source.copy_to(inner(target))
    assert upserts(server) == 0


# how it is asked


def test_a_thousand_points_are_a_handful_of_requests(
    opening: Callable[..., QdrantClient], server: Server, other: Server, where: dict[str, Any]
) -> None:
    source, target = opening(**where), opening(location=":memory:")
    vector = models.VectorParams(size=2, distance=models.Distance.DOT)
    source.create_collection("demo", vector)
    points = [models.PointStruct(id=n, vector=[n, 1.0]) for n in range(2000)]
    server.database.upsert("demo", points)
    server.requests.clear()
    assert source.copy_to(inner(target)) == {"demo": 2000}
    assert len(server.requests) < 20
    assert target.copy_to(inner(opening(**at(other)))) == {"demo": 2000}
    assert len(other.requests) < 25


def test_what_a_server_does_not_take_at_once_goes_in_parts(
    source: QdrantClient, target: QdrantClient, server: Server
) -> None:
    server.largest = 8_000
    assert source.copy_to(inner(target)) == {"demo": 30}
    assert content(target, "demo") == content(source, "demo")


def test_strict_mode_is_copied_and_does_not_hinder(
    opening: Callable[..., QdrantClient],
    source: QdrantClient,
    target: QdrantClient,
    server: Server,
    other: Server,
) -> None:
    strict = opening(**at(other))
    source.copy_to(inner(strict))
    other.restrict("demo", upsert_max_batchsize=7, max_query_limit=9)
    assert strict.copy_to(inner(target), batch_size=20) == {"demo": 30}
    found = target.get_collection("demo").config.strict_mode_config
    assert found is not None
    assert (found.enabled, found.upsert_max_batchsize, found.max_query_limit) == (True, 7, 9)
    assert upserts(server) == 4  # a page of ids for each


@pytest.mark.filterwarnings("ignore:Local mode")
def test_shard_keys_stay_on_a_cluster(
    opening: Callable[..., QdrantClient], target: QdrantClient, server: Server, other: Server
) -> None:
    source = opening(**at(other))
    for node in (server.node, other.node):
        node.distributed = True
    source.create_collection(
        "demo",
        models.VectorParams(size=2, distance=models.Distance.DOT),
        sharding_method=models.ShardingMethod.CUSTOM,
    )
    for place, key in enumerate(["a", "b"]):
        source.create_shard_key("demo", key)
        point = models.PointStruct(id=place, vector=[1.0, 0.0])
        source.upsert("demo", [point], shard_key_selector=key)
    fail_at(server, 2)
    with pytest.raises(PermissionRefusal):
        source.copy_to(inner(target))
    target.delete_shard_key("demo", "b")  # as if it had been killed before it made that one
    server.fault = lambda _: None
    assert source.copy_to(inner(target)) == {"demo": 2}
    assert server.shards == ["a", "b"]
    for place, key in enumerate(["a", "b"]):
        found, _ = target.scroll("demo", shard_key_selector=key)
        assert [point.id for point in found] == [place]
    assert source.copy_to(inner(opening(location=":memory:"))) == {"demo": 2}
    server.node.distributed = False
    target.delete_collection("demo")
    with pytest.raises(InputError, match="the server is a single node"):
        source.copy_to(inner(target))
    assert not target.collection_exists("demo")


def test_sparse_vectors_of_an_encoder_come_with_it(
    opening: Callable[..., QdrantClient], where: dict[str, Any]
) -> None:
    source, target = opening(**where), opening(location=":memory:")
    for client in (source, target):
        client.set_model(LetterEncoder())
        client.set_sparse_model(WordEncoder())
    source.add("demo", SENTENCES, ids=range(5))
    source.copy_to(inner(target))
    expected = source.query("demo", SENTENCES[1])
    assert same(target.query("demo", SENTENCES[1]), expected)
