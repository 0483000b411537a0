"""The tools as agents call them, over standard input and output or over HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.stdio import stdio_server
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qdrant_embed.errors import QdrantEmbedError
from qdrant_embed.limits import SERVICE_QUERY, SERVICE_TEXT, shortened
from qdrant_embed.mcp.memory import Memory
from qdrant_embed.mcp.settings import MOST_HITS, Settings
from qdrant_embed.version import VERSION

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from qdrant_embed.serve.door import Rules

_LONGEST_NAME = 255
_SHOWN = 300  # characters of a message about an argument

_CollectionName = Annotated[
    str | None,
    Field(min_length=1, max_length=_LONGEST_NAME, description="Name of the collection."),
]


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class StoreArguments(_Arguments):
    """The arguments of storing."""

    information: Annotated[str, Field(max_length=SERVICE_TEXT, description="The text to store.")]
    metadata: Annotated[
        dict[str, Any] | None, Field(description="What to store with it, by name: any JSON.")
    ] = None
    collection_name: _CollectionName = None


class FindArguments(_Arguments):
    """The arguments of finding."""

    query: Annotated[str, Field(max_length=SERVICE_QUERY, description="What to look for.")]
    where: Annotated[
        dict[str, Any] | None,
        Field(
            description='A filter on metadata: {"project": "atlas", "year": {"gte": 2020}}. '
            'Conditions are values, lists of values, {"gte": ..., "lt": ...}, {"not": ...} and '
            '{"text": ...}; {"or": [{...}, {...}]} combines filters.'
        ),
    ] = None
    limit: Annotated[
        int | None, Field(ge=1, le=MOST_HITS, description="Number of texts at most.")
    ] = None
    collection_name: _CollectionName = None


class ListArguments(_Arguments):
    """The arguments of listing: none."""


@dataclass(frozen=True)
class _Tool:
    """A tool, what it is called with, and what does it."""

    described: types.Tool
    arguments: type[_Arguments]
    run: Callable[[Any], Awaitable[dict[str, Any]]]


def server(settings: Settings, memory: Memory) -> Server[Any]:
    """Return the protocol's server of a memory, which is closed when the server ends."""
    tools = {tool.described.name: tool for tool in _tools(settings, memory)}

    async def list_tools(
        _: ServerRequestContext[Any], __: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[tool.described for tool in tools.values()])

    async def call_tool(
        _: ServerRequestContext[Any], called: types.CallToolRequestParams
    ) -> types.CallToolResult:
        tool = tools.get(called.name)
        if tool is None:
            return _failed(f"there is no tool {called.name!r:.80}; there are: {', '.join(tools)}")
        try:
            answer = await tool.run(tool.arguments.model_validate(called.arguments or {}))
        except ValidationError as error:
            return _failed(_in_words(error))
        except QdrantEmbedError as error:
            return _failed(str(error))
        text = types.TextContent(type="text", text=json.dumps(answer, ensure_ascii=False))
        return types.CallToolResult(content=[text], structured_content=answer)

    @asynccontextmanager
    async def lifespan(_: Server[Any]) -> AsyncIterator[None]:
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await memory.close()

    return Server(
        "qdrant-embed",
        version=VERSION,
        instructions="A memory that is searched by meaning: store texts, find them again.",
        lifespan=lifespan,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def run_over_stdio(made: Server[Any]) -> None:
    """Answer on standard input and output until the input ends."""

    async def run() -> None:
        async with stdio_server() as (incoming, outgoing):
            await made.run(incoming, outgoing, made.create_initialization_options())

    anyio.run(run)


def application(made: Server[Any], rules: Rules) -> ASGIApp:
    """Return the server as an ASGI application, streamable HTTP at ``/mcp``."""
    from qdrant_embed.serve.door import Door

    app = made.streamable_http_app(
        stateless_http=True,
        json_response=True,
        max_request_body_size=rules.most_body,
        transport_security=TransportSecuritySettings(  # the door does that
            enable_dns_rebinding_protection=False
        ),
    )
    return Door(app, rules)


def _tools(settings: Settings, memory: Memory) -> list[_Tool]:
    async def store(asked: StoreArguments) -> dict[str, Any]:
        stored = await memory.store(asked.information, asked.metadata, asked.collection_name)
        return {"stored": stored}

    async def find(asked: FindArguments) -> dict[str, Any]:
        found = await memory.find(asked.query, asked.where, asked.limit, asked.collection_name)
        return {"results": [asdict(text) for text in found]}

    async def collections(_: ListArguments) -> dict[str, Any]:
        return {"collections": [asdict(listed) for listed in await memory.collections()]}

    reads = types.ToolAnnotations(read_only_hint=True, open_world_hint=False)
    writes = types.ToolAnnotations(
        read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=False
    )

    def tool(
        name: str,
        description: str,
        arguments: type[_Arguments],
        run: Callable[[Any], Awaitable[dict[str, Any]]],
        hints: types.ToolAnnotations,
    ) -> _Tool:
        described = types.Tool(
            name=name,
            description=description,
            input_schema=_schema(arguments, settings),
            annotations=hints,
        )
        return _Tool(described, arguments, run)

    offered = [
        tool("qdrant-find", settings.find_description, FindArguments, find, reads),
        tool("qdrant-collections", "List the collections.", ListArguments, collections, reads),
    ]
    if not settings.read_only:
        offered.append(
            tool("qdrant-store", settings.store_description, StoreArguments, store, writes)
        )
    return offered


def _schema(arguments: type[_Arguments], settings: Settings) -> dict[str, Any]:
    """Return the schema of arguments; an agent that uses one collection does not name it."""
    schema = arguments.model_json_schema()
    properties: dict[str, Any] = schema.get("properties", {})
    if "collection_name" in properties:
        if settings.collection is not None:
            del properties["collection_name"]
        else:
            properties["collection_name"] = {
                "type": "string",
                "description": properties["collection_name"]["description"],
            }
            schema["required"] = [*schema.get("required", []), "collection_name"]
    return schema


def _failed(message: str) -> types.CallToolResult:
    text = shortened(message).encode(errors="backslashreplace").decode()
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=True)


def _in_words(error: ValidationError) -> str:
    wrong: Mapping[str, Any] = error.errors(include_url=False, include_input=False)[0]
    path = ".".join(str(part) for part in wrong["loc"])
    return f"{shortened(path, _SHOWN) or 'arguments'}: {shortened(wrong['msg'], _SHOWN)}"
