"""Long texts in flat memory: no architecture holds the scores of all pairs of tokens at once."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from architecture_fixtures import NAMES, Fixture, load

from qdrant_embed.encoder.compile.architectures.registry import model_graph
from qdrant_embed.encoder.facts.architectures import architecture_name, config_class
from qdrant_embed.encoder.facts.spec import ModelSpec
from qdrant_embed.encoder.run.backend import Inputs
from qdrant_embed.encoder.run.session import Session

LONG = 4096
# prints how much the peak memory grows with one long text, in MB
CHILD = """
import sys
import numpy as np
from qdrant_embed.encoder.run.backend import Inputs
from qdrant_embed.encoder.run.session import Session

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))

for path in sys.argv[2:]:
    session = Session(path)
    ids = np.resize(np.arange(4, 90), (1, int(sys.argv[1])))
    session.run(Inputs(ids[:, :8]))
    before = peak()
    session.run(Inputs(ids))
    print(peak() - before)
"""


def write(path: Path, fixture: Fixture, tokens: int) -> None:
    """Write the graph of a model that reads so many tokens."""
    table = "embeddings.position_embeddings.weight"
    weights = dict(fixture.weights)
    if table in weights:
        weights[table] = np.resize(weights[table], (tokens + 2, weights[table].shape[1]))
    positions = dict.fromkeys(("max_position_embeddings", "n_positions"), tokens + 2)
    changed = replace(fixture, config=fixture.config | positions, weights=weights)
    kind = config_class(architecture_name(changed.config))
    assert kind is not None
    config = kind.model_validate(changed.config)
    spec = ModelSpec("tiny", config.dimension, "mean", tokens, False)
    model_graph(changed.weights, config, spec).save(path)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_memory_does_not_grow_with_the_square_of_a_text(tmp_path: Path) -> None:
    """All scores of three heads would take 201 MB."""
    paths = {}
    for name in NAMES:
        paths[name] = tmp_path / f"{name}.onnx"
        write(paths[name], load(name), LONG)
    command = [sys.executable, "-c", CHILD, str(LONG), *map(str, paths.values())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    grown = dict(zip(paths, map(float, done.stdout.split()), strict=True))
    assert {name: megabytes for name, megabytes in grown.items() if megabytes > 60} == {}


@pytest.mark.parametrize(
    ("name", "in_parts"),
    [("bert", b"MultiHeadAttention"), ("xlm-roberta", b"MultiHeadAttention"), ("mpnet", b"Loop")],
)
def test_models_for_long_texts_have_the_same_vectors(
    name: str, in_parts: bytes, tmp_path: Path
) -> None:
    fixture = load(name)
    found = []
    for tokens in (1024, 1025):
        path = tmp_path / f"{tokens}.onnx"
        write(path, fixture, tokens)
        assert (in_parts in path.read_bytes()) == (tokens > 1024)
        found.append(Session(path).run(Inputs(np.tile(fixture.ids, (2, 1)))))
    np.testing.assert_allclose(found[0], found[1], atol=2e-6)
