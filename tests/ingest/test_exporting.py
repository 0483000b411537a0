"""Exported points are what the collection has, and can be added again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from clients import Blocking, LetterEncoder, WordEncoder, opened, stored
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import models
from tiny import TinyModel

from qdrant_embed import InputError, QdrantClient
from qdrant_embed.engines.engine import run_blocking
from qdrant_embed.ingest import exporting
from qdrant_embed.ingest.exporting import export_points

METADATA: list[dict[str, Any]] = [
    {"n": 1, "f": 0.5, "b": True, "s": "x", "l": [1, 2], "d": {"a": [None]}, "id": 1},
    {"n": None, "f": 1.0, "b": None, "s": None, "l": [], "d": None, "mixed": 1, "vector": "v"},
    {"mixed": "one", "l": None, "d": [{}], "none": None},
]
KEYS = {key for each in METADATA for key in each}


def export(client: QdrantClient, path: Path, name: str = "demo") -> int:
    """Export points with a client of either kind."""

    async def flow(own: Any) -> int:
        return await export_points(own._collection(name), path, False)

    if isinstance(client, Blocking):
        own = vars(client)
        return int(own["loop"].run_until_complete(flow(own["client"])))
    return run_blocking(flow(client))


def test_points_come_back_on_every_store(
    anywhere: QdrantClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_round_trip(anywhere, tmp_path, monkeypatch, [1, "b", 3])


@pytest.mark.parametrize("ids", [[1, 2, 2**64 - 1], ["a", "b", "c"]])
def test_ids_keep_their_kind(
    client: QdrantClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ids: list[Any]
) -> None:
    client.set_sparse_model(WordEncoder())
    check_round_trip(client, tmp_path, monkeypatch, ids)


def check_round_trip(
    client: QdrantClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ids: list[Any]
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(exporting, "_PAGE", 2)
    texts = ["the cat sat", "the dog ran", "a bird sings"]
    client.add("demo", texts, METADATA, ids)
    file = tmp_path / "points.parquet"
    assert export(client, file) == 3
    assert [path.name for path in tmp_path.glob("points*")] == ["points.parquet"]
    table = parquet.read_table(file)
    records, _ = client.scroll("demo", with_vectors=True)
    name = client.get_vector_field_name()
    by_text = {record.payload["document"]: record for record in records if record.payload}
    for row in table.to_pylist():
        vectors: Any = by_text[row["document"]].vector
        assert row[f"vector {name}"] == pytest.approx(vectors[name], rel=1e-6)

    added = client.add_frame("copy", table, text="document", id="_id", progress=False)
    assert added == 3
    copied = {point["document"]: point for point in stored(client, "copy").values()}
    assert copied == {
        point["document"]: {**dict.fromkeys(KEYS), **point} for point in stored(client).values()
    }
    assert {hit.id for hit in client.query("copy", "cat")} == {*ids}


def test_vectors_of_all_kinds_are_written(tmp_path: Path, tiny: TinyModel) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    with opened("sync", ":memory:") as client:
        client.create_collection(
            "demo",
            vectors_config={
                "one": models.VectorParams(size=2, distance=models.Distance.DOT),
                "many": models.VectorParams(
                    size=2,
                    distance=models.Distance.DOT,
                    multivector_config=models.MultiVectorConfig(
                        comparator=models.MultiVectorComparator.MAX_SIM
                    ),
                ),
            },
            sparse_vectors_config={"words": models.SparseVectorParams()},
        )
        words = models.SparseVector(indices=[7, 9], values=[0.5, 2.0])
        whole: Any = {"one": [1.0, 2.0], "many": [[1.0, 2.0], [3.0, 4.0]], "words": words}
        points = [
            models.PointStruct(id=1, vector=whole),
            models.PointStruct(id=2, vector={"one": [3.0, 4.0]}, payload={"a": 1}),
        ]
        client.upsert("demo", points)
        assert export(client, tmp_path / "points.parquet") == 2
    assert parquet.read_table(tmp_path / "points.parquet").to_pylist() == [
        {
            "id": 1,
            "a": None,
            "vector one": [1.0, 2.0],
            "vector many": [[1.0, 2.0], [3.0, 4.0]],
            "vector words": {"indices": [7, 9], "values": [0.5, 2.0]},
        },
        {"id": 2, "a": 1, "vector one": [3.0, 4.0], "vector many": None, "vector words": None},
    ]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text("aé", max_size=2)
    # what a float is stored as, to the last bit, is tested elsewhere
    | st.integers(-99, 99).map(lambda number: number / 4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab"), inner, max_size=2),
    max_leaves=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(values=st.lists(JSON, min_size=1, max_size=4))
def test_any_payload_comes_back(values: list[Any], tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "points.parquet"
    file.unlink(missing_ok=True)
    with opened("sync", ":memory:") as client:
        client.set_model(LetterEncoder())
        client.add("demo", ["a"] * len(values), [{"x": value} for value in values])
        export(client, file)
        client.add_frame("copy", parquet.ParquetFile(file), text="document", id="id")
        found = {key: point["x"] for key, point in stored(client, "copy").items()}
        assert found == {key: point["x"] for key, point in stored(client).items()}
        assert repr(sorted(found.items())) == repr(
            sorted((key, point["x"]) for key, point in stored(client).items())
        )


def test_whole_numbers_that_are_too_large_are_exported(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    with opened("sync", ":memory:") as client:
        client.set_model(LetterEncoder())
        client.add("demo", ["a", "b"], [{"u": 1, "l": [1]}, {"u": 2}], [1, 2])
        client.set_payload("demo", {"u": 2**63, "l": [2**64]}, points=[2])
        assert export(client, tmp_path / "points.parquet") == 2
        found = parquet.read_table(tmp_path / "points.parquet").to_pydict()
    assert sorted(found["u"]) == ["1", str(2**63)]
    assert {*found["l"]} == {"[1]", f"[{2**64}]"}


def test_a_file_of_another_name_is_refused(tmp_path: Path) -> None:
    with opened("sync", ":memory:") as client:
        client.set_model(LetterEncoder())
        client.add("demo", ["a"])
        for name in ("points.arrow", "points.csv", "points"):
            with pytest.raises(InputError, match=r"let its name end in \.parquet"):
                export(client, tmp_path / name)


def test_a_file_is_complete_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(exporting, "_PAGE", 2)
    file = tmp_path / "points.parquet"
    with opened("sync", ":memory:") as client:
        client.set_model(LetterEncoder())
        client.set_sparse_model(WordEncoder())
        client.add("demo", ["a", "b", "c"], [{"n": number} for number in range(3)], [1, 2, 3])
        usual = exporting._Layout.rows

        def rows(layout: Any, points: Any) -> Any:
            client.set_payload("demo", {"n": "text", "new": 1}, points=[3])
            return usual(layout, points)

        monkeypatch.setattr(exporting._Layout, "rows", rows)
        with pytest.raises(InputError, match="'new' is new"):
            export(client, file)
        assert not [*tmp_path.iterdir()]
        client.delete_payload("demo", ["new"], [3])
        monkeypatch.setattr(exporting._Layout, "rows", usual)
        assert export(client, file) == 3
        with pytest.raises(InputError, match="exists; remove it"):
            export(client, file)
        with pytest.raises(InputError, match="cannot be written"):
            export(client, tmp_path / "none" / "points.parquet")
