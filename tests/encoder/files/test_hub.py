"""Models from a hub, on loopback, in processes of their own: the hub's address is read once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hub_server import COMMIT, serving
from tiny import TinyModel

from qdrant_embed import TextEmbedding

PROGRAM = """
import json, sys
from qdrant_embed import TextEmbedding, QdrantEmbedError
try:
    encoder = TextEmbedding(sys.argv[1], **json.loads(sys.argv[2]))
    vector = next(encoder.query_embed("cat"))
    result = {"vector": vector.tolist(), "revision": encoder.describe().revision,
              "name": encoder.model_name, "prefix": encoder.spec.document_prefix}
except QdrantEmbedError as error:
    result = {"error": type(error).__name__, "message": str(error)}
print(json.dumps(result))
"""


def load(endpoint: str, home: Path, name: str, **options: Any) -> dict[str, Any]:
    """What a new process makes of model `name`."""
    environment = os.environ | {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home / "hf"),
        "QDRANT_EMBED_CACHE": str(home / "ours"),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, name, json.dumps(options)],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
        cwd=home,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.slow
def test_a_model_is_fetched_once_and_then_needs_no_network(
    tiny_e5: TinyModel, tmp_path: Path
) -> None:
    (tiny_e5.path / "README.md").write_text("not needed, not fetched")
    with serving("someone/tiny-e5", tiny_e5.path) as hub:
        first = load(hub.url, tmp_path, "someone/tiny-e5")
        assert first["name"] == "someone/tiny-e5"
        assert first["revision"] == COMMIT
        assert first["prefix"] == "passage: "
        (expected,) = TextEmbedding(tiny_e5.path).query_embed("cat")
        assert first["vector"] == pytest.approx(expected.tolist(), abs=1e-6)
        assert not any("README" in request for request in hub.requests)
        asked = len(hub.requests)
        assert load(hub.url, tmp_path, "someone/tiny-e5") == first
        assert len(hub.requests) == asked
        endpoint = hub.url
    assert load(endpoint, tmp_path, "someone/tiny-e5") == first


@pytest.mark.slow
def test_a_file_that_vanished_is_fetched_again(tiny: TinyModel, tmp_path: Path) -> None:
    with serving("someone/tiny", tiny.path) as hub:
        first = load(hub.url, tmp_path, "someone/tiny", cache_dir=str(tmp_path / "own"))
        assert not (tmp_path / "hf").exists()
        for config in (tmp_path / "own").rglob("modules.json"):
            config.unlink()
        assert load(hub.url, tmp_path, "someone/tiny", cache_dir=str(tmp_path / "own")) == first


def test_a_repository_the_hub_does_not_know_is_unknown(tiny: TinyModel, tmp_path: Path) -> None:
    with serving("someone/tiny", tiny.path) as hub:
        result = load(hub.url, tmp_path, "someone/tinny")
    assert result["error"] == "UnknownModelError"
    assert hub.url in result["message"]
    assert "HF_TOKEN" in result["message"]


def test_a_repository_without_safetensors_is_refused_by_name(
    tiny: TinyModel, tmp_path: Path
) -> None:
    folder = tmp_path / "repository"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_bytes((tiny.path / name).read_bytes())
    with serving("someone/half", folder) as hub:
        result = load(hub.url, tmp_path, "someone/half")
    assert result["error"] == "ModelFileError"
    assert "neither model.safetensors nor" in result["message"]
