"""The embedded engine: what it refuses, what it survives, and the traps of the engine below it."""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from clients import LetterEncoder, WordTokens, vectors
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from processes import run
from qdrant_client import models

from qdrant_embed import QdrantClient
from qdrant_embed.errors import ClientStateError, FolderError

pytest.importorskip("qdrant_edge")

from qdrant_embed.engines.edge import builder
from qdrant_embed.engines.edge import shard as shards
from qdrant_embed.engines.edge.folder import Folder
from qdrant_embed.engines.edge.shard import Shard

pytestmark = pytest.mark.further
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
Point = models.PointStruct
DOT = models.Distance.DOT


def opened(path: Path) -> QdrantClient:
    return QdrantClient(path=str(path), engine="edge", optimize=False)


def database(client: QdrantClient) -> Any:
    return client._client


def points(client: QdrantClient, name: str = "demo") -> dict[Any, Any]:
    found, _ = client.scroll(name, limit=10_000, with_vectors=True)
    return {point.id: (point.payload, point.vector) for point in found}


def filled(path: Path, count: int = 40) -> QdrantClient:
    client = opened(path)
    client.create_collection(
        "demo", {"dense": models.VectorParams(size=2, distance=DOT)}, {"sparse": sparse()}
    )
    client.upsert(
        "demo", [Point(id=n, vector={"dense": [n, 1.0]}, payload={"n": n}) for n in range(count)]
    )
    return client


def sparse() -> models.SparseVectorParams:
    return models.SparseVectorParams()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[QdrantClient]:
    client = filled(tmp_path / "db")
    yield client
    client.close()


def reopened(client: QdrantClient) -> QdrantClient:
    client.close()
    return opened(Path(client.init_options["path"]))


# one process, one client


def test_another_client_and_another_process_are_told_which_folder_is_open(
    client: QdrantClient, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "db")
    for path in (tmp_path / "db", link):
        with pytest.raises(FolderError, match="open in another process, or another client"):
            opened(path)
    script = """
        import sys
        from qdrant_embed import QdrantClient
        from qdrant_embed.errors import FolderError
        try:
            QdrantClient(path=sys.argv[1])
        except FolderError as error:
            print(error)
    """
    assert str(tmp_path / "db") in run(script, tmp_path / "db")


def test_a_relative_path_stays_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    client = filled(Path("a folder ü"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    client.create_collection("数 据;--", models.VectorParams(size=2, distance=DOT))
    client.close()
    client = opened(tmp_path / "a folder ü")
    assert client.count("demo").count == 40
    assert client.count("数 据;--").count == 0
    client.close()


@forks
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_is_refused_and_ends_and_the_folder_opens_beside_it(
    client: QdrantClient, tmp_path: Path
) -> None:
    script = """
        import multiprocessing, os, sys
        from qdrant_client import models
        from qdrant_embed import QdrantClient
        from qdrant_embed.errors import ClientStateError

        client = QdrantClient(path=sys.argv[1], optimize=False)
        size = models.VectorParams(size=2, distance="Dot")
        client.create_collection("demo", size)
        client.create_collection("closed", size)
        client.upsert("demo", [models.PointStruct(id=1, vector=[1, 2])])
        database = client._client
        calls = {
            "count": ("demo",), "get_collections": (), "get_collection": ("demo",),
            "collection_exists": ("demo",), "create_collection": ("x", size),
            "delete_collection": ("demo",), "update_collection": ("demo",),
            "update_collection_aliases": ([],), "get_aliases": (), "scroll": ("demo",),
            "upsert": ("demo", [models.PointStruct(id=1, vector=[1, 2])]),
            "delete": ("demo", [1]), "set_payload": ("demo", {}, [1]),
            "query_points": ("demo", [1.0, 2.0]), "retrieve": ("demo", [1]),
            "create_payload_index": ("demo", "a", "keyword"), "flush": ("demo",),
            "optimize": ("demo",), "facet": ("demo", "a"), "delete_payload_index": ("demo", "a"),
        }

        def ask():
            for name, arguments in calls.items():
                try:
                    getattr(database, name)(*arguments)
                except ClientStateError as error:
                    assert "forked" in str(error)
                else:
                    print(name, "was answered")

        # locks that another thread holds are not waited for
        shard = database._shard("demo")
        locks = [database._lock, shard._changing, shard._flushing, database._folder._changing]
        import threading
        held, done = threading.Event(), threading.Event()

        def hold():
            for lock in locks:
                lock.acquire()
            shard._indexing.acquire()
            held.set()
            done.wait()
            for lock in reversed(locks):
                lock.release()
            shard._indexing.release()

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        process = multiprocessing.get_context("fork").Process(target=ask)
        process.start()
        process.join(60)
        print("exit code", process.exitcode)
        process.kill()
        sleeping = os.fork()
        if not sleeping:
            import time
            time.sleep(60)
            os._exit(0)
        done.set()
        thread.join()
        client.close()
        again = QdrantClient(path=sys.argv[1], optimize=False)
        print(again.count("demo").count)
        again.close()
        os.kill(sleeping, 9)
    """
    assert run(script, tmp_path / "forked").split("\n") == ["exit code 0", "1", ""]


# what cannot be stored

DEEP: Any = {}
for _ in range(500):
    DEEP = {"a": DEEP}

REFUSED: dict[str, dict[str, Any]] = {
    "negative id": {"id": -1},
    "id too large": {"id": 2**64},
    "float id": {"id": 1.0},
    "bool id": {"id": True},
    "no UUID": {"id": "abc"},
    "no id": {"id": None},
    "NaN": {"vector": {"dense": [math.nan, 1]}},
    "infinite": {"vector": {"dense": [math.inf, 1.0]}},
    "infinite as float32": {"vector": {"dense": [1e39, -1e39]}},
    "empty": {"vector": {"dense": []}},
    "too long": {"vector": {"dense": [1.0, 2.0, 3.0]}},
    "nested": {"vector": {"dense": [[1.0, 2.0]]}},
    "ragged": {"vector": {"dense": [[1.0], [1.0, 2.0]]}},
    "unknown": {"vector": {"other": [1.0, 2.0]}},
    "no name": {"vector": [1.0, 2.0]},
    "a dense one as sparse": {"vector": {"sparse": [1.0, 2.0]}},
    "a dimension twice": {
        "vector": {"sparse": models.SparseVector.model_construct(indices=[1, 1], values=[1, 2])}
    },
    "sparse NaN": {"vector": {"sparse": models.SparseVector(indices=[1], values=[math.nan])}},
    "sparse infinite": {"vector": {"sparse": models.SparseVector(indices=[1], values=[1e39])}},
    "dimension too large": {
        "vector": {"sparse": models.SparseVector.model_construct(indices=[2**32], values=[1.0])}
    },
    "NaN in a payload": {"payload": {"a": [math.nan]}},
    "infinite in a payload": {"payload": {"a": -math.inf}},
    "a number beyond floats": {"payload": {"a": 10**400}},
    "half a surrogate": {"payload": {"a": "\ud800"}},
    "half a surrogate as key": {"payload": {"\ud800": 1}},
    "too deep": {"payload": DEEP},
    "an object": {"payload": {"a": object()}},
    "a list": {"payload": [1]},
}


@pytest.mark.parametrize("wrong", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_stored_is_refused_before_anything_is(
    client: QdrantClient, wrong: dict[str, Any]
) -> None:
    before = points(client)
    good: dict[str, Any] = {"id": 100, "vector": {}, "payload": {}}
    batch = [Point.model_construct(**good), Point.model_construct(**good | {"id": 101} | wrong)]
    with pytest.raises(ValueError, match=r"."):
        client.upsert("demo", batch)
    assert points(client) == before
    log = Path(client.init_options["path"]) / "collections"
    client = reopened(client)
    assert points(client) == before
    client.close()
    assert log.is_dir()


def test_what_is_stored_is_what_local_mode_stores(client: QdrantClient) -> None:
    payload = {
        "whole": 2**64 - 1,
        "tuple": (1, 2),
        "date": datetime.date(2024, 1, 1),
        "time": datetime.datetime(2024, 1, 1, 1, 2, 3, 4, datetime.timezone.utc),
        "id": UUID(int=5),
        "": "",
        "a.b": "\0",
    }
    vector = {"sparse": models.SparseVector(indices=[5, 1], values=[5.0, 1.0])}
    stored = {}
    memory = QdrantClient(":memory:")
    memory.create_collection("demo", {}, {"sparse": sparse()})
    for each in (client, memory):
        each.upsert("demo", [Point.model_construct(id=100, vector=vector, payload=payload)])
        (stored[each],) = each.retrieve("demo", [100], with_vectors=True)
    assert stored[client].payload == json.loads(json.dumps(stored[memory].payload, default=str)) | {
        "tuple": [1, 2],
        "time": "2024-01-01T01:02:03.000004Z",
    }
    found: Any = stored[client].vector
    assert dict(zip(found["sparse"].indices, found["sparse"].values, strict=True)) == {5: 5, 1: 1}


# the folder

DAMAGED = {
    "cut": lambda text: text[: len(text) // 2],
    "empty": lambda _: "",
    "a list": lambda _: "[]",
    "null": lambda _: "null",
    "deep": lambda _: "[" * 100_000,
    "no JSON": lambda _: "\0\1",
    "another engine": lambda text: text.replace('"edge"', '"other"'),
    "a key that is a path": lambda text: text.replace('"key": "', '"key": "../'),
    "an alias to nowhere": lambda text: text.replace('"aliases": {', '"aliases": {"a": "b"'),
    "wrong types": lambda text: text.replace('"size": 2', '"size": "two"'),
    "an unknown field": lambda text: text.replace('"engine"', '"x": 1, "engine"'),
}


@pytest.mark.parametrize("change", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_manifest_is_named_and_nothing_is_changed(
    client: QdrantClient, change: Callable[[str], str]
) -> None:
    client.close()
    path = Path(client.init_options["path"])
    manifest = path / "qdrant_embed.json"
    text = manifest.read_text("utf-8")
    manifest.write_text(change(text), "utf-8")
    with pytest.raises(FolderError, match=r"qdrant_embed\.json.* is damaged"):
        opened(path)
    manifest.write_text(text, "utf-8")
    again = opened(path)
    assert again.count("demo").count == 40
    again.close()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


@settings(max_examples=25)
@given(
    field=st.sampled_from(["format", "engine", "collections", "aliases", "engine_version"]),
    value=JSON,
)
def test_any_manifest_is_read_or_named(
    tmp_path_factory: pytest.TempPathFactory, field: str, value: Any
) -> None:
    path = tmp_path_factory.mktemp("manifest")
    manifest = {"format": 1, "engine": "edge", "collections": {}, "aliases": {}} | {field: value}
    (path / "qdrant_embed.json").write_text(json.dumps(manifest), "utf-8")
    with contextlib.suppress(FolderError):
        Folder(path).release()


def test_folders_of_others(client: QdrantClient, tmp_path: Path) -> None:
    client.close()
    manifest = tmp_path / "db" / "qdrant_embed.json"
    text = manifest.read_text("utf-8")
    manifest.write_text(text.replace('"format": 1', '"format": 2'), "utf-8")
    with pytest.raises(FolderError, match="newer version"):
        opened(tmp_path / "db")
    manifest.unlink()
    with pytest.raises(FolderError, match=r"has collections, but no qdrant_embed\.json"):
        opened(tmp_path / "db")
    manifest.write_text(text, "utf-8")
    (tmp_path / "db" / "meta.json").write_text("{}")
    with pytest.raises(FolderError, match="of two engines"):
        opened(tmp_path / "db")
    (tmp_path / "file").touch()
    with pytest.raises(FolderError, match="is a file"):
        opened(tmp_path / "file")


def test_a_lost_collection_harms_no_other(client: QdrantClient, tmp_path: Path) -> None:
    client.create_collection("other", models.VectorParams(size=2, distance=DOT))
    client.close()
    manifest = json.loads((tmp_path / "db" / "qdrant_embed.json").read_text("utf-8"))
    key = manifest["collections"]["demo"]["key"]
    shutil.rmtree(tmp_path / "db" / "collections" / key)
    client = opened(tmp_path / "db")
    with pytest.raises(FolderError, match=rf"'demo' .* has lost its folder {key}"):
        client.count("demo")
    assert client.count("other").count == 0
    client.delete_collection("demo")
    client.close()


@pytest.mark.skipif(sys.platform == "win32", reason="open files cannot be removed")
def test_a_folder_that_was_removed_while_open_is_named(
    client: QdrantClient, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "db")
    with pytest.raises(FolderError, match="does not exist"):
        client.upsert("demo", [Point(id=1, vector={})])
    with pytest.raises(FolderError):
        client.create_collection("other", models.VectorParams(size=2, distance=DOT))
    assert [each.name for each in client.get_collections().collections] == ["demo"]
    with pytest.raises(FolderError):
        client.close()


@pytest.mark.slow
def test_damaged_files_are_named_and_harm_no_other_collection(tmp_path: Path) -> None:
    script = """
        import json, os, random, shutil, sys
        from pathlib import Path
        sys.path.append("engines")
        from test_edge import filled, models, opened
        from qdrant_embed.errors import FolderError

        root = Path(sys.argv[1])
        client = filled(root / "whole")
        client.create_collection("other", models.VectorParams(size=2, distance="Dot"))
        client.close()
        manifest = json.loads((root / "whole" / "qdrant_embed.json").read_text("utf-8"))
        key = manifest["collections"]["demo"]["key"]
        chance = random.Random(1)
        files = sorted(
            file.relative_to(root / "whole")
            for file in (root / "whole" / "collections" / key).rglob("*") if file.is_file()
        )
        for number, file in enumerate(chance.sample(files, 20)):
            path = root / str(number)
            shutil.copytree(root / "whole", path)
            if number % 3 == 0:
                (path / file).unlink()
            elif number % 3 == 1:
                os.truncate(path / file, (path / file).stat().st_size // 2)
            else:
                with (path / file).open("r+b") as opened_file:
                    opened_file.write(chance.randbytes(16))
            client = opened(path)
            try:
                client.scroll("demo", limit=100, with_vectors=True)
                client.query_points("demo", [1.0, 2.0], using="dense")
            except FolderError as error:
                assert "demo" in str(error)
            assert client.count("other").count == 0
            try:
                client.close()
            except FolderError:
                pass
            shutil.rmtree(path)
        print("all")
    """
    assert run(script, tmp_path) == "all\n"


def test_nothing_is_stored_on_a_disk_that_is_almost_full(
    client: QdrantClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = points(client)
    free = shards.LEAST_SPACE + 10_000
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 0, free))
    client.upsert("demo", [Point(id=0, vector={}, payload={"n": 0})])  # small enough
    for change in (
        lambda: client.upsert("demo", [Point(id=50, vector={}, payload={"a": "b" * 10_000})]),
        lambda: client.set_payload("demo", {"a": "b" * 1_000}, list(range(40))),
        lambda: database(client).optimize("demo"),
    ):
        with pytest.raises(FolderError, match="make space"):
            change()
    assert set(points(client)) == set(before)
    free = shards.LEAST_SPACE - 1
    with pytest.raises(FolderError, match="make space"):
        client.create_collection("other", models.VectorParams(size=2, distance=DOT))
    client.delete("demo", [0])  # makes space
    assert client.count("demo").count == 39
    assert client.query_points("demo", [1.0, 1.0], using="dense").points[0].id == 39


# durability


def test_what_was_flushed_is_there_after_a_power_cut(client: QdrantClient, tmp_path: Path) -> None:
    shard = database(client)._shard("demo")
    shard._settle()
    shutil.copytree(tmp_path / "db", tmp_path / "disk")
    client.upsert("demo", [Point(id=n, vector={"dense": [7.0, n]}) for n in range(20, 400)])
    client.delete("demo", [1, 399])
    client.set_payload("demo", {"a": 1}, [2])
    database(client).flush("demo")
    log = Path("collections") / shard.collection.key / "wal"
    shutil.rmtree(tmp_path / "disk" / log)  # what is kept of the segments is older
    shutil.copytree(tmp_path / "db" / log, tmp_path / "disk" / log)
    other = opened(tmp_path / "disk")
    assert points(other) == points(client)
    other.close()


def test_threads_that_change_the_manifest_do_not_undo_one_another(tmp_path: Path) -> None:
    client = filled(tmp_path / "db")
    failed: list[Exception] = []

    def work(number: int) -> None:
        try:
            client.create_collection(f"c{number}", models.VectorParams(size=2, distance=DOT))
            for n in range(8):
                client.update_collection(f"c{number}", metadata={f"m{n}": n})
                client.update_collection("demo", metadata={f"{number}-{n}": n})
                database(client).update_collection_aliases(
                    [
                        models.CreateAliasOperation(
                            create_alias=models.CreateAlias(
                                collection_name=f"c{number}", alias_name=f"a{number}-{n}"
                            )
                        )
                    ]
                )
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    client = reopened(client)
    assert len(client.get_collection("demo").config.metadata or {}) == 32
    assert len(client.get_aliases().aliases) == 32
    for number in range(4):
        assert len(client.get_collection(f"c{number}").config.metadata or {}) == 8
    client.close()


# an index that is built and exchanged while there are changes


def named(size: int) -> models.DenseVectorNameConfig:
    return models.DenseVectorNameConfig(dense=models.DenseVectorConfig(size=size, distance=DOT))


def change_all(client: QdrantClient) -> None:
    """Make a change of every kind."""
    client.upsert("demo", [Point(id=n, vector={"dense": [9.0, n]}) for n in range(30, 700)])
    client.delete("demo", [1, 2, 650])
    client.set_payload("demo", {"a": 1}, [3, 4, 3])
    client.overwrite_payload("demo", {"b": 1}, [5])
    client.clear_payload("demo", [6])
    client.delete_payload("demo", ["n"], [7])
    client.update_vectors("demo", [models.PointVectors(id=8, vector={"dense": [5.0, 5.0]})])
    client.delete_vectors("demo", ["dense"], [9])
    client.delete_vector_name("demo", "again")  # comes back, empty
    client.create_vector_name("demo", "again", named(3))
    client.upsert("demo", [Point(id=10, vector={"again": [1.0, 2.0, 3.0]})])
    client.delete_vector_name("demo", "sparse")
    client.create_vector_name("demo", "more", named(2))
    client.update_vectors("demo", [models.PointVectors(id=11, vector={"more": [1.0, 2.0]})])
    client.delete_payload_index("demo", "n")
    client.create_payload_index("demo", "n", models.PayloadSchemaType.FLOAT)
    client.create_payload_index("demo", "a", models.PayloadSchemaType.INTEGER)
    client.update_collection(
        "demo", hnsw_config=models.HnswConfigDiff(ef_construct=77), metadata={"x": 1}
    )


def prepared(path: Path) -> QdrantClient:
    client = filled(path)
    client.create_vector_name("demo", "again", named(3))
    client.create_payload_index("demo", "n", models.PayloadSchemaType.INTEGER)
    vector = models.PointVectors(id=20, vector={"again": [1.0, 1.0, 1.0]})
    client.update_vectors("demo", [vector])
    return client


def test_all_that_changes_while_an_index_is_built_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_index, without = prepared(tmp_path / "with"), prepared(tmp_path / "without")
    monkeypatch.setattr(Shard, "_built", lambda *_: change_all(with_index))
    old = database(with_index)._shard("demo").collection.key
    database(with_index).optimize("demo")
    change_all(without)
    assert database(with_index)._shard("demo").collection.key != old
    for _ in range(2):
        assert points(with_index) == points(without)
        found, expected = (each.get_collection("demo") for each in (with_index, without))
        assert found.config == expected.config
        assert found.payload_schema.keys() == expected.payload_schema.keys()
        assert len(list((tmp_path / "with" / "collections").iterdir())) == 1
        with_index, without = reopened(with_index), reopened(without)
    with_index.close()
    without.close()


def test_optimize_leaves_nothing_without_an_index_that_is_worth_one(tmp_path: Path) -> None:
    client = opened(tmp_path)
    client.create_collection("demo", models.VectorParams(size=512, distance=models.Distance.DOT))

    def stored(first: int, count: int) -> None:
        rows = np.random.default_rng(first).standard_normal((count, 512)).tolist()
        ids = range(first, first + count)
        client.upsert("demo", [Point(id=n, vector=row) for n, row in zip(ids, rows, strict=True)])

    for first, count in ((0, 1500), (1500, 700)):  # 3 and 1.4 megabytes
        stored(first, count)
        database(client).optimize("demo")
        assert client.get_collection("demo").indexed_vectors_count == first + count
    stored(2200, 100)
    database(client).optimize("demo")
    assert client.get_collection("demo").indexed_vectors_count == 2200
    client.close()


@pytest.mark.parametrize("end", ["close", "delete_collection"])
def test_an_index_is_given_up_when_nobody_wants_it_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    client = filled(tmp_path / "db")
    slow = tmp_path / "slow.py"  # a builder that never ends
    slow.write_text("import os, sys; os.read(0, 1)")
    monkeypatch.setattr(builder, "_command", lambda *_: [sys.executable, str(slow)])
    building = threading.Event()
    raised: list[BaseException] = []

    def told(step: str) -> None:
        if step == "indexing":
            building.set()

    def build() -> None:
        try:
            database(client).optimize("demo", told)
        except (ClientStateError, ValueError) as error:
            raised.append(error)

    thread = threading.Thread(target=build)
    thread.start()
    assert building.wait(30)
    if end == "close":
        client.close()
    else:
        client.delete_collection("demo")
    thread.join(30)
    assert not thread.is_alive()
    assert len(raised) == 1
    assert len(list((tmp_path / "db" / "collections").iterdir())) == (end == "close")
    client.close()


@pytest.mark.slow
def test_files_of_the_working_directory_do_not_mislead_the_builder(
    client: QdrantClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "logging", "qdrant_embed", "qdrant_edge"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('wrong one')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    database(client).optimize("demo")
    assert client.count("demo").count == 40


def test_points_that_are_named_twice_are_changed_once_and_all(tmp_path: Path) -> None:
    client = opened(tmp_path)
    client.create_collection(
        "demo",
        models.VectorParams(size=4, distance=models.Distance.EUCLID),
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=1),
    )
    client.upsert("demo", [Point(id=n, vector=[float(n)] * 4) for n in range(600)])
    database(client)._shard("demo")._open.optimize()
    client.set_payload("demo", {"a": 1}, [140, 60, 133, 99, 140, 63])
    stored = points(client)
    assert {point for point in stored if stored[point][0]} == {140, 60, 133, 99, 63}
    client.close()


@pytest.mark.parametrize("datatype", [models.Datatype.FLOAT32, models.Datatype.FLOAT16])
def test_an_index_compares_in_int8_and_scores_are_those_of_the_vectors(
    tmp_path: Path, datatype: models.Datatype
) -> None:
    vectors = np.random.default_rng(5).normal(size=(1_500, 48)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    client = opened(tmp_path)
    client.create_collection(
        "demo",
        models.VectorParams(size=48, distance=models.Distance.COSINE, datatype=datatype),
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=1),
    )
    client.upsert("demo", [Point(id=n, vector=row.tolist()) for n, row in enumerate(vectors)])
    database(client).optimize("demo")

    def found(**options: Any) -> list[models.ScoredPoint]:
        quantization = models.QuantizationSearchParams(**options) if options else None
        params = models.SearchParams(quantization=quantization)
        return client.query_points("demo", vectors[7].tolist(), search_params=params).points

    expected = vectors @ vectors[7]
    tolerance = 1e-6 if datatype == models.Datatype.FLOAT32 else 1e-3
    errors = [
        max(abs(point.score - expected[int(point.id)]) for point in found(**options))
        for options in ({}, {"rescore": False})
    ]
    assert errors[0] < tolerance
    assert (errors[1] > 9 * errors[0]) == (
        datatype == models.Datatype.FLOAT32
    )  # others stay as they are
    assert {point.id for point in found()} == {*np.argsort(-expected)[:10].tolist()}
    assert client.get_collection("demo").config.quantization_config is None
    client.close()


# configurations

CONFIGS: dict[str, dict[str, Any]] = {
    "scalar": {
        "quantization_config": models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
        )
    },
    "product": {
        "quantization_config": models.ProductQuantization(
            product=models.ProductQuantizationConfig(compression=models.CompressionRatio.X4)
        )
    },
    "binary": {
        "quantization_config": models.BinaryQuantization(binary=models.BinaryQuantizationConfig())
    },
    "hnsw": {"hnsw_config": models.HnswConfigDiff(m=8, ef_construct=50, on_disk=True)},
    "payload on disk": {"on_disk_payload": True},
    "plain": {},
}
DISTANCES = list(models.Distance)


@pytest.mark.slow
@pytest.mark.parametrize("options", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("datatype", [None, *models.Datatype])
def test_configurations_find_what_is_nearest(
    tmp_path: Path, options: dict[str, Any], datatype: models.Datatype | None
) -> None:
    distance = DISTANCES[len(repr((options, datatype))) % len(DISTANCES)]
    low = 1 if datatype == models.Datatype.UINT8 else -200
    rows = np.random.default_rng(3).integers(low, 200, (400, 16)).astype(float)
    client = opened(tmp_path)
    client.create_collection(
        "demo",
        models.VectorParams(size=16, distance=distance, datatype=datatype, on_disk=True),
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=1),
        **options,
    )
    client.upsert("demo", [Point(id=n, vector=row.tolist()) for n, row in enumerate(rows)])
    database(client)._shard("demo")._open.optimize()
    client = reopened(client)
    params = models.SearchParams(
        hnsw_ef=256, quantization=models.QuantizationSearchParams(rescore=True, oversampling=8)
    )
    right = 0
    for row in rows[:10]:
        exact = {
            models.Distance.DOT: rows @ row,
            models.Distance.COSINE: rows @ row / np.linalg.norm(rows, axis=1),
            models.Distance.EUCLID: -np.linalg.norm(rows - row, axis=1),
            models.Distance.MANHATTAN: -np.abs(rows - row).sum(axis=1),
        }[distance]
        found = client.query_points("demo", row.tolist(), limit=1, search_params=params).points
        right += found[0].id == int(np.argmax(exact))
    client.close()
    assert right >= 8


@pytest.mark.parametrize(
    "change",
    [
        {"hnsw_config": models.HnswConfigDiff(m=8)},
        {"optimizers_config": models.OptimizersConfigDiff(indexing_threshold=5)},
        {"quantization_config": CONFIGS["scalar"]["quantization_config"]},
        {"vectors_config": {"dense": models.VectorParamsDiff(on_disk=True)}},
        {
            "sparse_vectors_config": {
                "sparse": models.SparseVectorParams(index=models.SparseIndexParams(on_disk=True))
            }
        },
        {"metadata": {"a": {"b": 1}}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_is_updated_stays_so(client: QdrantClient, change: dict[str, Any]) -> None:
    before = points(client)
    client.update_collection("demo", **change)
    config = client.get_collection("demo").config
    assert points(client) == before
    client = reopened(client)
    assert client.get_collection("demo").config == config
    assert points(client) == before
    client.upsert("demo", [Point(id=0, vector={"dense": [1.0, 2.0]})])
    client.close()


def test_what_the_engine_cannot_change_is_refused(client: QdrantClient) -> None:
    config = client.get_collection("demo").config
    with pytest.raises(ValueError, match="cannot be changed"):
        client.update_collection(
            "demo",
            sparse_vectors_config={
                "sparse": models.SparseVectorParams(modifier=models.Modifier.IDF)
            },
        )
    assert client.get_collection("demo").config == config
    client = reopened(client)
    assert client.get_collection("demo").config == config
    assert client.count("demo").count == 40
    client.close()


def test_facets_have_no_value_that_every_point_has_lost(client: QdrantClient) -> None:
    client.create_payload_index("demo", "n", models.PayloadSchemaType.INTEGER)
    client.set_payload("demo", {"n": 1}, points=list(range(39)))
    found = [(hit.value, hit.count) for hit in client.facet("demo", "n", limit=50).hits]
    assert found == [(1, 39), (39, 1)]
    client.delete("demo", [39])
    found = [(hit.value, hit.count) for hit in client.facet("demo", "n", limit=50).hits]
    assert found == [(1, 39)]


def unaligned(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.frombuffer(b"x" + rows.tobytes(), np.float32, offset=1).reshape(rows.shape)


def of_records(rows: NDArray[np.float32]) -> Any:
    records = np.zeros(len(rows), [("key", "u1"), ("vector", "f4", rows.shape[1:])])
    records["vector"] = rows
    return records["vector"]


@pytest.mark.parametrize(
    "laid_out",
    [
        unaligned,
        of_records,
        np.asfortranarray,
        lambda rows: np.repeat(rows, 2, axis=1)[:, ::2],
        lambda rows: rows[::-1].copy()[::-1],
        lambda rows: rows.astype(">f4"),
        lambda rows: rows.astype(np.float64),
        lambda rows: rows.tolist(),
    ],
    ids=[
        "unaligned",
        "records",
        "columns",
        "strided",
        "reversed",
        "big-endian",
        "float64",
        "lists",
    ],
)
def test_vectors_are_stored_however_they_lie_in_memory(
    tmp_path: Path, laid_out: Callable[[NDArray[np.float32]], Any]
) -> None:
    class Dense(LetterEncoder):
        def passage_embed(self, texts: Any, /) -> Any:
            return laid_out(np.array(super().passage_embed(texts), np.float32))

    class Late(WordTokens):
        def passage_embed(self, texts: Any, /) -> Any:
            return [laid_out(rows) for rows in super().passage_embed(texts)]

    texts = ["a cat sat", "dogs", "zebras run"]
    found = []
    for dense, late, name in ((LetterEncoder(), WordTokens(), "plain"), (Dense(), Late(), "laid")):
        with opened(tmp_path / name) as client:
            client.set_model(dense)
            client.set_late_model(late)
            client.add("demo", texts, ids=range(3))
            found.append([vectors(client, n) for n in range(3)])
    assert found[0] == found[1]
