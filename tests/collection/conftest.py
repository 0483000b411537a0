"""Tests of collections ask a server over either transport."""

from __future__ import annotations

from typing import Any

import pytest
from clients import at
from rest_server import Server


@pytest.fixture
def server(grpc_server: Server) -> Server:
    """A Qdrant on loopback, over REST and gRPC."""
    return grpc_server


@pytest.fixture(params=["rest", "grpc"])
def where(request: pytest.FixtureRequest, server: Server) -> dict[str, Any]:
    """Arguments of a client of the server, over REST and over gRPC."""
    return at(server, grpc=request.param == "grpc")
