"""Collections that were stamped at the commit before the package had rooms are still its own.

``stamps.json`` holds what their metadata was, with MODELS for the folder of the models.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qdrant_embed import QdrantClient, UntrustedModelError
from qdrant_embed.collection.stamp import read_stamp
from qdrant_embed.encoder.files.cache import CACHE_VARIABLE

BEFORE = Path(__file__).parents[1] / "fixtures" / "before_rooms"
MODELS = BEFORE / "models"
STAMPS: dict[str, Any] = json.loads(
    (BEFORE / "stamps.json").read_text().replace("MODELS", str(MODELS))
)


@pytest.mark.parametrize("name", STAMPS)
def test_a_stamp_is_read_and_written_as_it_was(name: str) -> None:
    stamp = read_stamp("demo", STAMPS[name])
    assert stamp is not None
    assert stamp.metadata() == STAMPS[name]


@pytest.mark.parametrize(("name", "points"), [("chunked", 2), ("whole", 1)])
def test_the_collection_is_extended_once_its_folder_is_set(
    name: str, points: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    overflow: dict[str, Any] = {"overflow": "chunk", "overlap": 2} if name == "chunked" else {}
    client = QdrantClient(":memory:")
    client.set_model(MODELS / "tiny-bert", precision="fp32", **overflow)
    if name == "chunked":
        client.set_sparse_model("Qdrant/bm25", normalize_text=False)  # it came later
    client.add("demo", ["the cat"], ids=["a"])
    database: Any = client._client
    stamped = database.collections["demo"].config
    assert stamped.metadata["qdrant_embed"].pop("tokenizer_sha256")  # which came later
    assert client.get_collection("demo").config.metadata == STAMPS[name]
    later = QdrantClient(":memory:")
    later._client = client._client  # another client, on which nobody has set a model
    text = "the cat sat on the mat. " * 12
    with pytest.raises(UntrustedModelError, match="never chooses a folder"):
        later.query("demo", text)
    later.set_model(MODELS / "tiny-bert", precision="fp32", **overflow)
    later.add("demo", [text], ids=["b"], on_existing="skip")
    assert [hit.id for hit in later.query("demo", text, limit=1)] == ["b"]
    assert client.count("demo").count == 1 + points
