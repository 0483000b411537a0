"""onnxruntime's telemetry is off before anything that we import imports it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from processes import run

# stands for fastembed, which imports onnxruntime; qdrant_client imports it where it is installed
FASTEMBED = """
import os
from pathlib import Path

Path(os.environ["SEEN"]).write_text(os.environ.get("ORT_DISABLE_TELEMETRY", "unset"))
raise ImportError("only a stand-in")
"""
IMPORTS = [
    "from qdrant_embed import QdrantClient",
    "from qdrant_embed import AsyncQdrantClient",
    "from qdrant_embed import CollectionOptions",
    "from qdrant_embed.client import QdrantEmbedMixin",
    "import qdrant_embed.cli.main, qdrant_embed.client",
]


@pytest.mark.parametrize("statement", IMPORTS)
@pytest.mark.parametrize(("own", "seen"), [(None, "1"), ("0", "0"), ("1", "1")])
@pytest.mark.slow
def test_fastembed_beside_us(tmp_path: Path, statement: str, own: str | None, seen: str) -> None:
    (tmp_path / "fastembed").mkdir()
    (tmp_path / "fastembed" / "__init__.py").write_text(FASTEMBED)
    env = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    env |= {"SEEN": str(tmp_path / "seen")} | ({"ORT_DISABLE_TELEMETRY": own} if own else {})
    run(f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {statement}", env=env)
    assert (tmp_path / "seen").read_text() == seen
