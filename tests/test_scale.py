"""`Writer` and `Encoder` without the libraries that they are for; those are in `scale/`."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from clients import LetterEncoder, stamp, stored
from numpy.typing import NDArray
from rest_server import Fault, Server
from tiny import TinyModel

from qdrant_embed import (
    CollectionMismatchError,
    CollectionOptions,
    InputError,
    QdrantClient,
    ServerUnavailableError,
    TextEmbedding,
)
from qdrant_embed.encoder.model import Model
from qdrant_embed.encoder.run.cores import usable_cores
from qdrant_embed.flows import requests
from qdrant_embed.scale import Encoder, Writer, share_of_cores

HIDDEN = 32  # dimensions of the tiny models
PATIENT = {"check_compatibility": False, "timeout": 120}


def writer(server: Server, model: Any, **options: Any) -> Writer:
    """A writer to the collection "demo" by REST."""
    options.setdefault("client_options", PATIENT)
    return Writer(server.url, "demo", model, **options)


def batch(count: int, first: int = 0) -> dict[str, Any]:
    """Texts with a number, and a column more."""
    numbers = np.arange(first, first + count)
    texts = np.array([f"the cat number {n}" for n in numbers], object)
    return {"text": texts, "number": numbers, "even": numbers % 2 == 0}


def plain(counts: Any) -> tuple[int, ...]:
    """The counts of a result, in the order of `Writer.COUNTS`."""
    assert [*counts] == [*Writer.COUNTS]
    assert {column.dtype for column in counts.values()} == {np.dtype("int64")}
    return tuple(int(column[0]) for column in counts.values())


def test_a_batch_is_stored_once(server: Server, tiny: TinyModel) -> None:
    write = writer(server, tiny.path)
    twice = {name: np.concatenate([column, column[:2]]) for name, column in batch(5).items()}
    assert plain(write(twice)) == (7, 5, 0)
    assert plain(write(batch(8))) == (8, 3, 5)
    assert plain(write(batch(0))) == (0, 0, 0)
    assert [type(value) for value in stored(server.database).popitem()[1].values()] == [
        str,
        int,
        bool,
    ]
    assert server.database.count("demo").count == 8
    points: dict[str, Any] = {
        (point.payload or {})["document"]: point.vector
        for point in server.database.scroll("demo", with_vectors=True)[0]
    }
    expected = TextEmbedding(tiny.path).passage_embed(points)
    for found, right in zip(points.values(), expected, strict=True):
        (row,) = found.values()
        assert np.allclose(row, right, atol=1e-5)


def test_ids_and_metadata_are_columns(server: Server, tiny: TinyModel) -> None:
    write = writer(server, tiny.path, id="number", metadata=["even"])
    assert plain(write(batch(3))) == (3, 3, 0)
    assert stored(server.database)[2] == {"document": "the cat number 2", "even": True}
    changed = batch(3) | {"text": ["a dog", "the cat number 1", "the cat number 2"]}
    assert plain(write(changed)) == (3, 1, 2)
    assert stored(server.database)[0]["document"] == "a dog"


def test_a_batch_is_no_end_of_loading(server: Server, tiny: TinyModel) -> None:
    write = writer(server, tiny.path, collection_options=CollectionOptions.bulk())
    for first in (0, 5):
        write(batch(5, first))
        created = server.node.settings["demo"].created
        assert created["optimizers_config"]["indexing_threshold"] == 0
    with QdrantClient(server.url, check_compatibility=False) as client:
        client.wait_until_indexed("demo")
    assert created["optimizers_config"]["indexing_threshold"] > 0


def test_an_iterator_of_batches_is_read_lazily(server: Server, tiny: TinyModel) -> None:
    read: list[int] = []

    def batches() -> Iterator[dict[str, Any]]:
        for n in range(3):
            read.append(n)
            yield batch(2, first=2 * n)

    counts = writer(server, tiny.path)(batches())
    assert read == []
    assert plain(next(counts)) == (2, 2, 0)
    assert read == [0]
    assert [plain(each) for each in counts] == [(2, 2, 0)] * 2
    vectors = Encoder(tiny.path)(batches())
    assert [each["vector"].shape for each in vectors] == [(2, HIDDEN)] * 3


def test_an_encoder_adds_the_vectors_of_documents(tiny_e5: TinyModel) -> None:
    found = pickle.loads(pickle.dumps(Encoder(tiny_e5.path, vector="v")))(batch(4))
    assert [*found] == ["text", "number", "even", "v"]
    assert found["v"].dtype == np.float32
    expected = [*TextEmbedding(tiny_e5.path).passage_embed([*batch(4)["text"]])]
    np.testing.assert_allclose(found["v"], expected, atol=1e-6)
    assert Encoder(tiny_e5.path)(batch(0))["vector"].shape == (0, HIDDEN)


@pytest.mark.parametrize(
    "kind", ["table", "batch", "pandas", "with the column twice", "of pandas", "told of"]
)
def test_an_encoders_column_is_the_same_for_no_rows(tiny: TinyModel, kind: str) -> None:
    arrow = pytest.importorskip("pyarrow")
    columns = {"text": ["a", "b"], "vector": [1, 2], "n": [3, 4]}
    twice = [arrow.array(column) for column in columns.values()] + [arrow.array([5, 6])]
    makers: dict[str, Callable[[], Any]] = {
        "table": lambda: arrow.table(columns),
        "with the column twice": lambda: arrow.table(twice, [*columns, "vector"]),
        "of pandas": lambda: arrow.Table.from_pandas(
            pytest.importorskip("pandas").DataFrame(columns).astype({"vector": "Int64"})
        ),
        "told of": lambda: arrow.table(columns).replace_schema_metadata(
            {"mine": "1", "huggingface": '{"info": {"features": {"vector": {"dtype": "int64"}}}}'}
        ),
        "batch": lambda: arrow.RecordBatch.from_pydict(columns),
        "pandas": lambda: pytest.importorskip("pandas").DataFrame(columns),
    }
    some = makers[kind]()
    found, none = Encoder(tiny.path)(some), Encoder(tiny.path)(some[:0])
    assert [*(found.schema.names if kind != "pandas" else found.columns)] == [*columns]
    if kind == "pandas":
        assert found.dtypes.to_dict() == none.dtypes.to_dict()
        vectors = [*found["vector"]]
    else:
        assert found.schema == none.schema
        assert kind != "of pandas" or [*found.to_pandas().columns] == [*columns]
        assert kind != "told of" or found.schema.metadata == {b"mine": b"1"}
        assert found.schema.field("vector").type == arrow.list_(arrow.float32())
        vectors = found["vector"].to_pylist()
    expected = [*TextEmbedding(tiny.path).passage_embed(["a", "b"])]
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_a_process_loads_a_model_once(
    server: Server, tiny: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[Model] = []
    load: Callable[[Model], Any] = Model._load

    def counted(model: Model) -> Any:
        loads.append(model)
        time.sleep(0.05)  # so that all threads come meanwhile
        return load(model)

    monkeypatch.setattr(Model, "_load", counted)
    # as each task gets it; another one with the same settings, too
    copies = [pickle.loads(pickle.dumps(writer(server, tiny.path))) for _ in range(4)]
    copies += [
        writer(server, tiny.path),
        Writer(server.url, "b", tiny.path, client_options=PATIENT),
    ]
    with ThreadPoolExecutor(len(copies)) as pool:
        results = [pool.submit(copy, batch(3)) for copy in copies]
        assert all(plain(result.result())[0] == 3 for result in results)
    assert len(loads) == 1


@pytest.mark.parametrize(
    ("share", "expected"),
    [("1", 1), (" 1,2", 1), ("100000", None), ("", None), ("0", None), ("x", None), ("-1", None)],
)
def test_threads_are_the_share_of_a_task(
    monkeypatch: pytest.MonkeyPatch, share: str, expected: int | None
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", share)
    assert share_of_cores() == (usable_cores() if expected is None else expected)


class Slow:
    """A picklable encoder of a user's own, which says how it was made."""

    model_name = "mine/Slow"
    dimension = 26

    def passage_embed(self, texts: Iterable[str], /) -> Iterable[NDArray[np.float32]]:
        return LetterEncoder().passage_embed(texts)

    query_embed = passage_embed


def test_models_may_be_objects(server: Server, tiny: TinyModel) -> None:
    chunked = TextEmbedding(tiny.path, overflow="chunk", lazy_load=True)
    write = pickle.loads(pickle.dumps(writer(server, chunked, sparse_model="Qdrant/bm25")))
    long = {"text": ["the cat sat on the ship " * 60], "n": [1]}
    assert plain(write(long)) == (1, 1, 0)
    assert server.database.count("demo").count > 1
    assert plain(write(long)) == (1, 0, 1)
    assert stamp(server.database)["overflow"] == "chunk"
    with pytest.raises(CollectionMismatchError):
        writer(server, Slow())(long)
    own = Writer(server.url, "own", Slow(), client_options=PATIENT)
    assert plain(pickle.loads(pickle.dumps(own))(long)) == (1, 1, 0)


class Script:
    """An encoder that plain pickle cannot send, as one of a script's own class."""

    model_name = "mine/Script"
    dimension = 26
    passage_embed = query_embed = LetterEncoder.passage_embed

    def __reduce__(self) -> Any:
        raise TypeError("a function of a script")


def test_what_only_cloudpickle_can_send_is_a_model(server: Server) -> None:
    assert plain(writer(server, Script())(batch(2))) == (2, 2, 0)


def test_what_is_wrong_is_said_before_anything_is_sent(server: Server, tiny: TinyModel) -> None:
    wrong: list[Callable[[], object]] = [
        lambda: writer(server, 5),
        lambda: writer(server, tiny.path, threads=0),
        lambda: writer(server, tiny.path, text=1),
        lambda: writer(server, tiny.path, metadata="number"),
        lambda: writer(server, tiny.path, on_existing="no"),
        lambda: writer(server, tiny.path, max_retries=-1),
        lambda: writer(server, tiny.path, batch_size=0),
        lambda: Writer(5, "demo"),  # type: ignore[arg-type]
        lambda: writer(server, tiny.path, client_options={"path": "x"}),
        lambda: writer(server, tiny.path, client_options={"location": ":memory:"}),
        lambda: Encoder(tiny.path, vector=5),  # type: ignore[arg-type]
        lambda: Encoder(tiny.path, vector="text"),
        lambda: writer(server, tiny.path, text="none")(batch(2)),
        lambda: writer(server, tiny.path)(["the cat"]),
        lambda: writer(server, tiny.path)(5),
        lambda: Encoder(tiny.path)("text"),
    ]
    for call in wrong:
        with pytest.raises(InputError):
            call()
    assert server.requests == []


WAYS: dict[str, dict[str, Any]] = {
    "dense": {},
    "hybrid": {"sparse_model": "Qdrant/bm25"},
    "chunks": {},
}


@pytest.mark.parametrize("transport", ["rest", "grpc"])
@pytest.mark.parametrize("way", WAYS)
def test_ten_writers_start_at_once(
    grpc_server: Server, tiny: TinyModel, transport: str, way: str
) -> None:
    """One of them makes the collection; half of what each has, another has, too."""
    model: Any = tiny.path
    if way == "chunks":
        model = TextEmbedding(tiny.path, overflow="chunk", max_tokens=6, lazy_load=True)
    ready = threading.Barrier(10)

    def start(number: int) -> tuple[int, ...]:
        options: dict[str, Any] = PATIENT | {"timeout": 100 + number}  # a client of its own
        if transport == "grpc":
            options |= {"prefer_grpc": True, "grpc_port": grpc_server.grpc_port}
        write = writer(grpc_server, model, client_options=options, **WAYS[way])
        ready.wait(60)
        return plain(write(batch(8, first=4 * number)))

    with ThreadPoolExecutor(10) as pool:
        counts = [result.result() for result in [pool.submit(start, n) for n in range(10)]]
    assert all(count == 8 and stored + unchanged == 8 for count, stored, unchanged in counts)
    points = stored(grpc_server.database)
    texts = [payload["document"] for payload in points.values()]
    if way == "chunks":
        assert len(points) == len({(*payload.items(),).__repr__() for payload in points.values()})
        texts = [payload.get("document", "") for payload in points.values()]
        assert len(points) > 44
    else:
        assert sorted(texts) == sorted(f"the cat number {n}" for n in range(44))
    known = stamp(grpc_server.database)
    assert known["dimension"] == HIDDEN
    assert (known.get("sparse") is not None) == (way == "hybrid")
    again = writer(grpc_server, model, **WAYS[way])
    assert plain(again(batch(44))) == (44, 0, 44)
    assert len(stored(grpc_server.database)) == len(points)


class Limiter:
    """Lets one in four requests that store through, and says of the others when to come back."""

    def __init__(self) -> None:
        self.refused = 0
        self._asked, self._lock = 0, threading.Lock()

    def __call__(self, request: str) -> Fault | None:
        if request != "PUT /collections/demo/points":
            return None
        with self._lock:
            self._asked += 1
            if self._asked % 4:
                self.refused += 1
                return Fault(429, headers=(("Retry-After", "0"),))
        return None


def test_many_writers_wait_for_a_server_that_is_busy(
    server: Server, tiny: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "LONGEST_RETRYING", 0.0)  # what `add` itself waits
    server.fault = limiter = Limiter()

    def start(number: int) -> tuple[int, ...]:
        options = PATIENT | {"timeout": 100 + number}
        write = writer(server, tiny.path, client_options=options, batch_size=4, max_retries=0)
        return plain(write(batch(12, first=12 * number)))

    with ThreadPoolExecutor(6) as pool:
        counts = [*pool.map(start, range(6))]
    assert all(count == 12 and stored + unchanged == 12 for count, stored, unchanged in counts)
    assert limiter.refused > 6
    assert server.database.count("demo").count == 72


def test_what_is_no_rate_limit_ends_it(server: Server, tiny: TinyModel) -> None:
    """A server that is down, and one that asks to come back tomorrow."""
    for fault in (Fault(503), Fault(429, headers=(("Retry-After", "86400"),))):
        server.fail_once("points", fault, times=99)
        with pytest.raises(ServerUnavailableError):
            writer(server, tiny.path, max_retries=1)(batch(2))


def test_an_error_can_be_sent_back(server: Server) -> None:
    with pytest.raises(InputError) as caught:
        writer(server, Slow())({"text": ["a", 5]})
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
