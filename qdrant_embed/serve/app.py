"""The application: the routes of all operations, behind the door."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TypeAlias, TypeVar

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from qdrant_embed.errors import QdrantEmbedError
from qdrant_embed.serve.description import description
from qdrant_embed.serve.door import Door, Rules
from qdrant_embed.serve.failures import Refusal, refusal_of, refusal_of_body
from qdrant_embed.serve.metrics import CONTENT_TYPE, Metrics
from qdrant_embed.serve.operations import OPERATIONS, Operation
from qdrant_embed.serve.page.routes import PAGE_PATHS, page_routes
from qdrant_embed.serve.service import Service

logger = logging.getLogger(__name__)

T = TypeVar("T")

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]

_LARGE = 1 << 13  # bytes of a body that is read and written off the event loop
_JSON = "application/json"
_NO_STORE = {"Cache-Control": "no-store"}


def application(service: Service, rules: Rules, *, loads: bool = True) -> ASGIApp:
    """Return the service as an ASGI application, with its page.

    Args:
        service: what answers; closed when the application ends.
        rules: what requests must be; operations that need no key, and the page, are added to its
            open paths.
        loads: whether models are loaded when the application starts.
    """
    described = json.dumps(description(has_key=rules.key is not None)).encode()

    async def openapi(_: Request) -> Response:
        return Response(described, media_type=_JSON)

    async def metrics(_: Request) -> Response:
        service.metrics.waiting.set(service.admission.texts)
        return Response(service.metrics.page(), media_type=CONTENT_TYPE)

    own = [
        Route(operation.path, _endpoint(operation, service), methods=[operation.method])
        for operation in OPERATIONS
    ]
    app = Starlette(
        routes=[*own, Route("/openapi.json", openapi), Route("/metrics", metrics), *page_routes()],
        exception_handlers={HTTPException: _http_error, Exception: _fault},
        lifespan=_lifespan(service, loads=loads),
    )
    app.router.redirect_slashes = False
    paths = tuple(operation.path for operation in OPERATIONS if operation.is_open)
    return Door(app, replace(rules, open_paths=(*rules.open_paths, *paths, *PAGE_PATHS)))


def _endpoint(operation: Operation, service: Service) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        started = time.perf_counter()
        try:
            response = await _answered(operation, service, request)
        except ValidationError as error:
            response = refused(refusal_of_body(error))
        except QdrantEmbedError as error:
            refusal = refusal_of(error)
            if refusal.status >= 500:
                logger.warning("%s: %s", operation.name, error)
            response = refused(refusal)
        except Refusal as refusal:
            response = refused(refusal)
        _count(service.metrics, operation, response.status_code, time.perf_counter() - started)
        return response

    return endpoint


async def _answered(operation: Operation, service: Service, request: Request) -> Response:
    arguments: list[object] = [service]
    if operation.has_name:
        arguments.append(request.path_params["name"])
    content, size = operation.body, 0
    if content is not None:
        body = await request.body()
        size = len(body)
        arguments.append(await _off_loop(size, partial(content.model_validate_json, body)))
    answer = await operation.run(*arguments)
    text = await _off_loop(size, answer.model_dump_json)
    return Response(text, headers=_NO_STORE, media_type=_JSON)


async def _off_loop(size: int, function: Callable[[], T]) -> T:
    """Return what a function returns; for a body so large, it is called in a thread."""
    return await asyncio.to_thread(function) if size > _LARGE else function()


def _count(metrics: Metrics, operation: Operation, status: int, seconds: float) -> None:
    metrics.requests.labels(operation.name, status).inc()
    metrics.seconds.labels(operation.name).observe(seconds)


def refused(refusal: Refusal) -> Response:
    """Return the answer of a refusal."""
    body = refusal.body.model_dump_json()
    return Response(body, refusal.status, {**_NO_STORE, **refusal.headers}, _JSON)


async def _http_error(request: Request, error: Exception) -> Response:
    """Answer what starlette refuses: an unknown path, or a method that a path does not have."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    path = request.url.path
    response = refused(
        Refusal(405, f"{path!r:.200} does not have {request.method}", "method_not_allowed")
        if status == 405
        else Refusal(404, f"there is no {path!r:.200}: see /openapi.json", "not_found")
    )
    if isinstance(error, HTTPException):
        response.headers.update(error.headers or {})
    return response


async def _fault(_: Request, error: Exception) -> Response:
    """Answer a fault of this service, which is logged and not shown."""
    logger.error("a request failed: %s", type(error).__name__, exc_info=error)
    return refused(Refusal(500, "the service failed, and has logged why", "internal_error"))


def _lifespan(
    service: Service, *, loads: bool
) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        loading = asyncio.create_task(_load(service, loads=loads))
        try:
            yield
        finally:
            loading.cancel()
            await service.close()

    return lifespan


async def _load(service: Service, *, loads: bool) -> None:
    try:
        if loads:
            await asyncio.to_thread(service.models.load)
        service.is_ready = True
    except QdrantEmbedError as error:  # a request that needs the model is told the same
        logger.error("a model cannot be loaded: %s", error)  # noqa: TRY400 - it says what to do
