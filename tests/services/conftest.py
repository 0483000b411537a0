"""Services in this process, on a tiny model and a database in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from qdrant_embed import AsyncQdrantClient, TextCrossEncoder, TextEmbedding
from qdrant_embed.serve.admission import Admission
from qdrant_embed.serve.app import application
from qdrant_embed.serve.database import Collections, NewCollections
from qdrant_embed.serve.door import Rules
from qdrant_embed.serve.models import ServedModels
from qdrant_embed.serve.service import Service

Opened = Callable[..., TestClient]


@pytest.fixture(scope="session")
def embedding(tiny_e5_name: str) -> TextEmbedding:
    """A tiny model with prefixes, by name."""
    return TextEmbedding(tiny_e5_name, local_files_only=True)


@pytest.fixture(scope="session")
def scorer(reranker: Path) -> TextCrossEncoder:
    """A small cross-encoder."""
    return TextCrossEncoder(reranker)


@pytest.fixture
def new_service(embedding: TextEmbedding, scorer: TextCrossEncoder) -> Callable[..., Service]:
    """Makes services; without a database if ``database=False``."""

    def make(*, database: bool = True, admission: Admission | None = None) -> Service:
        client = AsyncQdrantClient(":memory:") if database else None
        collections = client and Collections(client, NewCollections(embedding))
        models = ServedModels([embedding], [scorer])
        return Service(models, collections or None, admission or Admission())

    return make


@pytest.fixture
def open_service(new_service: Callable[..., Service]) -> Iterator[Opened]:
    """Opens services and returns clients of them."""
    with ExitStack() as opened:

        def open_it(rules: Rules | None = None, **options: Any) -> TestClient:
            app = application(new_service(**options), rules or Rules())
            client = TestClient(app, base_url="http://localhost", raise_server_exceptions=False)
            return opened.enter_context(client)

        yield open_it


@pytest.fixture
def http(open_service: Opened) -> TestClient:
    """A client of a service with models and a database."""
    return open_service()
