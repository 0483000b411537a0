"""Numbers in metadata: whole ones that a payload can hold, and floats as a server returns them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pytest
from clients import LetterEncoder, stored
from hypothesis import given
from hypothesis import strategies as st
from tiny import TinyModel

from qdrant_embed import Document, InputError, QdrantClient
from qdrant_embed.collection.payload import same_json
from qdrant_embed.ingest.documents import pair

LARGE = [2**63, 2**64 - 1, 2**64, 10**30, -(2**63) - 1]
FITS = [2**63 - 1, -(2**63), 2**53 + 1, 0, -1]


class Counting(LetterEncoder):
    """Keeps the texts it has encoded."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def passage_embed(self, texts: Iterable[str], /) -> Any:
        listed = list(texts)
        self.texts += listed
        return super().passage_embed(listed)


@pytest.mark.parametrize("number", LARGE)
def test_a_number_that_would_change_is_refused_before_anything_is_stored(
    anywhere: QdrantClient, number: int
) -> None:
    metadata: list[dict[str, Any]] = [{"n": 1}, {"n": 2}, {"deep": {"list": [0, (number,)]}}]
    with pytest.raises(
        InputError, match=r"metadata\[2\]\['deep'\]\['list'\]\[1\]\[0\] is"
    ) as error:
        anywhere.add("demo", ["cat"] * 3, metadata)
    assert str(number) in str(error.value)
    assert error.value.index == 2
    with pytest.raises(InputError, match=r"metadata\[0\]\['n'\]"):
        anywhere.add("demo", [Document("cat", {"n": number})])
    assert not anywhere.collection_exists("demo")


def test_numbers_that_fit_come_back(anywhere: QdrantClient) -> None:
    metadata = {"numbers": FITS, "float": 1e30, "text": "9" * 40, "yes": True}
    anywhere.add("demo", ["cat"], [metadata], ids=[1])
    assert stored(anywhere)[1] == {"document": "cat", **metadata}


def test_a_stream_names_the_position() -> None:
    documents = pair(iter(["a", "b"]), iter([{}, {"n": 2**63}]))
    next(documents)
    with pytest.raises(InputError, match=r"metadata\[1\]\['n'\] is 9223372036854775808"):
        next(documents)


def shifted(value: Any) -> Any:
    """Return a payload as a server may return it: each float the next one up."""
    if isinstance(value, float):
        return math.nextafter(value, math.inf)
    if isinstance(value, dict):
        return {key: shifted(item) for key, item in value.items()}
    return [shifted(item) for item in value] if isinstance(value, list) else value


FLOATS = {"f": 1.5777777777770001, "list": [1e-300, {"g": -3.3}], "none": None}


def shift_all(client: QdrantClient, name: str) -> None:
    """Move every float of a collection's payloads by one step."""
    for point, payload in stored(client, name).items():
        client.overwrite_payload(name, shifted(payload), points=[point])


def test_a_float_that_comes_back_one_step_off_is_unchanged(anywhere: QdrantClient) -> None:
    encoder = Counting()
    anywhere.set_model(encoder)
    anywhere.add("demo", ["cat"], [FLOATS], ids=[1])
    shift_all(anywhere, "demo")
    encoder.texts.clear()
    anywhere.add("demo", ["cat"], [FLOATS], ids=[1], on_existing="skip")
    assert encoder.texts == []
    anywhere.add("demo", ["cat"], [FLOATS | {"f": 1.57777777778}], ids=[1], on_existing="skip")
    assert encoder.texts == ["cat"]


def test_a_migration_compares_floats_alike(anywhere: QdrantClient) -> None:
    encoder = Counting()
    anywhere.add("old", ["cat", "dog"], [FLOATS, {}], ids=[1, 2])
    anywhere.migrate_model("old", encoder, "new")
    shift_all(anywhere, "new")
    encoder.texts.clear()
    anywhere.migrate_model("old", encoder, "new")
    assert encoder.texts == []
    anywhere.set_payload("old", {"f": 2.5}, points=[1])
    anywhere.migrate_model("old", encoder, "new")
    assert encoder.texts == ["cat"]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_neighbours_are_equal_and_others_are_not(number: float) -> None:
    assert same_json(number, number)
    if 1e-300 < abs(number) < 1e300:
        assert same_json({"a": [number]}, {"a": [math.nextafter(number, math.inf)]})
        assert not same_json(number, number * (1 + 1e-13))


@pytest.mark.parametrize(
    ("first", "second"),
    [(1, 1.0), (True, 1), (0, False), ("1", 1), (None, 0), ([], {}), ([1], [1, 2]), ({"a": 1}, {})],
)
def test_other_kinds_differ(first: object, second: object) -> None:
    assert not same_json(first, second)
    assert not same_json(second, first)


@pytest.mark.parametrize("number", [2**63, 2**64 - 1])
def test_a_large_id_of_a_chunked_document_is_found(
    anywhere: QdrantClient, chunking: str, number: int
) -> None:
    anywhere.set_model(chunking, overflow="chunk")
    text = "cat dog ship sea " * 200
    assert anywhere.add("demo", [text, "a ship"], ids=[number, 1]) == [number, 1]
    assert {hit.id for hit in anywhere.query("demo", "ship")} == {number, 1}
    points, _ = anywhere.scroll("demo", limit=1000)
    assert len(points) > 2
    assert all(value != number for point in points for value in (point.payload or {}).values())
    anywhere.add("demo", ["cat"], ids=[number])
    assert anywhere.count("demo").count == 2


@pytest.fixture
def chunking(tiny: TinyModel) -> str:
    """The folder of a model that splits long texts."""
    return str(tiny.path)
