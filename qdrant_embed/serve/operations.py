"""The operations of the service in one table, from which routes and description are made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from qdrant_embed.serve import bodies
from qdrant_embed.serve.service import Service


@dataclass(frozen=True)
class Operation:
    """One thing that the service can be asked.

    Attributes:
        method: of HTTP.
        path: its path; ``{name}`` in it is a collection.
        name: its name in the description and in the metrics.
        summary: what it does.
        run: does it; gets the service, the collection's name if the path has one, and the body if
            there is one.
        answer: what it returns.
        body: what it is sent, if it is.
        is_open: whether it needs no key.
    """

    method: str
    path: str
    name: str
    summary: str
    run: Callable[..., Awaitable[BaseModel]]
    answer: type[BaseModel]
    body: type[Any] | None = None
    is_open: bool = False

    @property
    def has_name(self) -> bool:
        """Whether its path names a collection."""
        return "{name}" in self.path


OPERATIONS = (
    Operation(
        "POST", "/v1/embeddings", "embeddings", "Return the vector of each text.",
        Service.embeddings, bodies.EmbeddingsAnswer, bodies.EmbeddingsRequest,
    ),
    Operation(
        "POST", "/v1/rerank", "rerank", "Compare documents with a query.",
        Service.rerank, bodies.RerankAnswer, bodies.RerankRequest,
    ),
    Operation(
        "GET", "/v1/models", "list_models", "List the served models.",
        Service.list_models, bodies.ModelsAnswer,
    ),
    Operation(
        "GET", "/collections", "list_collections", "List the collections with their stamps.",
        Service.list_collections, bodies.CollectionsAnswer,
    ),
    Operation(
        "POST", "/collections/{name}/query", "query", "Search a collection.",
        Service.query, bodies.QueryAnswer, bodies.QueryRequest,
    ),
    Operation(
        "POST", "/collections/{name}/documents", "add", "Encode and store documents.",
        Service.add, bodies.AddAnswer, bodies.AddRequest,
    ),
    Operation(
        "POST", "/collections/{name}/documents/get", "get", "Return documents by their ids.",
        Service.get, bodies.DocumentsAnswer, bodies.IdsRequest,
    ),
    Operation(
        "POST", "/collections/{name}/documents/delete", "delete", "Delete documents.",
        Service.delete, bodies.DeleteAnswer, bodies.IdsRequest,
    ),
    Operation(
        "GET", "/healthz", "health", "Say that the service runs.",
        Service.health, bodies.StateAnswer, is_open=True,
    ),
    Operation(
        "GET", "/readyz", "readiness", "Say whether models and database can be used.",
        Service.readiness, bodies.StateAnswer, is_open=True,
    ),
)  # fmt: skip
