"""The examples print on a running server what they print on a local database."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from clients import named_server, opened, prefixed

EXAMPLES = Path(__file__).parents[2] / "examples"


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("grpc", [False, True])
@pytest.mark.parametrize("name", ["quickstart", "hybrid_search", "long_documents"])
def test_an_example_prints_the_same(
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
    name: str,
    grpc: bool,
) -> None:
    named = named_server(request.config, grpc=grpc)
    if named is None:
        pytest.skip("no server: name one, as --url http://localhost:6333 and --grpc-port 6334")
    request.getfixturevalue("compiled_minilm")
    example: Any = loaded(name)
    example.main()
    expected = capsys.readouterr().out
    with opened("sync", **named) as client, prefixed(client) as own:
        example.QdrantClient = lambda _: own
        example.main()
    numbers = re.compile(r"\d+\.\d+")
    printed = capsys.readouterr().out
    assert numbers.sub("#", printed) == numbers.sub("#", expected)
