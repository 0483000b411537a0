"""`Writer` and `Encoder` in Ray, Spark and Dask, and the examples: ``tox -e scale``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import workers
from clients import stored
from rest_server import Server, serving
from tiny import TinyModel

from qdrant_embed import QdrantClient, TextEmbedding
from qdrant_embed.scale import Encoder, Writer

pandas = pytest.importorskip("pandas")
pyarrow = pytest.importorskip("pyarrow")

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs

ROOT = Path(__file__).parents[2]
NEEDS_JAVA = pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java")
ENGINES = ["ray", pytest.param("spark", marks=NEEDS_JAVA)]
PATIENT: dict[str, Any] = {"check_compatibility": False, "timeout": 120}
DOCUMENTS = [f"{number} ships stay in the harbour {number % 7}" for number in range(600)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny: TinyModel) -> str:
    """The folder of a model that workers need not compile."""
    folder = tmp_path_factory.mktemp("models") / "exported"
    TextEmbedding(tiny.path).export(folder)
    return str(folder)


@pytest.fixture(scope="module", autouse=True)
def _shut_down() -> Iterator[None]:
    yield
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()


@pytest.mark.parametrize("engine", ENGINES)
def test_documents_are_stored_once_whatever_dies(
    engine: str, server: Server, model: str, tmp_path: Path
) -> None:
    """One process is killed, or one task fails, with half a batch stored; and some come twice."""
    options = {
        "url": server.url,
        "collection": workers.COLLECTION,
        "model": model,
        "client_options": PATIENT,
    }
    marker = tmp_path / "killed"
    sent = DOCUMENTS + DOCUMENTS[:150]
    counts = workers.RUNS[engine](options, sent, str(marker))
    assert marker.exists()
    assert counts.documents.sum() == 750
    assert counts.stored.sum() + counts.unchanged.sum() <= 750
    with QdrantClient(url=server.url, **PATIENT) as client:
        assert client.count(workers.COLLECTION).count == 600
        workers.check(client, DOCUMENTS, model)


def test_batches_of_ray(server: Server, model: str) -> None:
    ray = workers.started_ray()
    write = Writer(server.url, "demo", model, client_options=PATIENT)
    data = ray.data.from_items([{"text": text, "n": 1.5} for text in DOCUMENTS[:20]])
    for batch_format, stored_now in (("numpy", 20), ("pandas", 0), ("pyarrow", 0)):
        counts = data.map_batches(write, batch_format=batch_format).to_pandas().sum()
        assert [counts.documents, counts.stored] == [20, stored_now]
        rows = data.map_batches(Encoder(model), batch_format=batch_format).take_all()
        assert {len(row["vector"]) for row in rows} == {TextEmbedding(model).dimension}
    assert {payload["n"] for payload in stored(server.database).values()} == {1.5}


def test_partitions_of_dask(server: Server, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sparse", None)  # there is a benchmark of that name
    dataframe = pytest.importorskip("dask.dataframe")
    frame = pandas.DataFrame({"text": DOCUMENTS[:20], "n": range(20)})
    parts = dataframe.from_pandas(frame, npartitions=3)
    write, encode = Writer(server.url, "demo", model, client_options=PATIENT), Encoder(model)
    result = parts.map_partitions(write)  # asks what the result looks like, with a made-up frame
    assert server.requests == []
    assert result.compute().sum().to_dict() == {"documents": 20, "stored": 20, "unchanged": 0}
    assert {payload["document"] for payload in stored(server.database).values()} == {*frame.text}
    vectors = parts.map_partitions(encode).compute().vector
    assert {row.shape for row in vectors} == {(TextEmbedding(model).dimension,)}


@pytest.mark.parametrize("kind", ["pandas", "table", "batch", "polars"])
def test_results_are_of_the_same_kind(server: Server, model: str, kind: str) -> None:
    columns = {"text": DOCUMENTS[:3], "n": [1, 2, 3]}
    make = {
        "pandas": pandas.DataFrame,
        "table": pyarrow.table,
        "batch": pyarrow.RecordBatch.from_pydict,
        "polars": lambda c: pytest.importorskip("polars").DataFrame(c),
    }[kind]
    batch = make(columns)
    counts = Writer(server.url, "demo", model, client_options=PATIENT)(batch)
    assert type(counts) is type(batch)
    assert [
        int(counts[name][0].as_py() if hasattr(counts[name][0], "as_py") else counts[name][0])
        for name in Writer.COUNTS
    ] == [3, 3, 0]
    encoded = Encoder(model)(batch)
    assert type(encoded) is type(batch)
    assert len(encoded["vector"]) == 3
    empty = Encoder(model)(batch[:0] if kind in ("pandas", "polars") else batch.slice(0, 0))
    assert len(empty["vector"]) == 0


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.usefixtures("compiled_minilm")
def test_the_example_stores_every_document_once(engine: str, tmp_path: Path) -> None:
    from pyarrow import parquet

    folder = tmp_path / "files"
    folder.mkdir()
    texts = [f"Ship number {number} stays in the harbour" for number in range(300)]
    for part, some in enumerate((texts, ["Bread rises in a warm place", *texts[:100]])):
        parquet.write_table(
            pyarrow.table({"text": some, "n": [1] * len(some)}), folder / f"{part}.parquet"
        )
    example = str(ROOT / f"examples/ingest_{engine}.py")
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()
    with serving() as server:
        done = subprocess.run(
            [sys.executable, example, str(folder), server.url],
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0, done.stderr
        points = stored(server.database, "documents")
    assert "301 documents in 'documents'" in done.stdout
    assert "stays in the harbour" in done.stdout
    assert sorted(point["document"] for point in points.values()) == sorted(
        ["Bread rises in a warm place", *texts]
    )
