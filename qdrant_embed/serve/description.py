"""The service's description in OpenAPI, made from the table of operations and their bodies."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from qdrant_embed.serve.bodies import LONGEST_NAME
from qdrant_embed.serve.failures import FailureAnswer
from qdrant_embed.serve.operations import OPERATIONS, Operation
from qdrant_embed.version import VERSION

_REFERENCE = "#/components/schemas/{model}"


def description(*, has_key: bool) -> dict[str, Any]:
    """Return the description, an OpenAPI 3.1 document.

    Args:
        has_key: whether requests need a key.
    """
    inputs = [operation.body for operation in OPERATIONS if operation.body is not None]
    answers = [operation.answer for operation in OPERATIONS]
    bodies = _schemas(inputs, answers)
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "qdrant-embed", "version": VERSION},
        "paths": {},
        "components": {"schemas": bodies},
    }
    for operation in OPERATIONS:
        item = document["paths"].setdefault(operation.path, {})
        item[operation.method.lower()] = _operation(operation)
    if has_key:
        document["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "api-key": {"type": "apiKey", "in": "header", "name": "api-key"},
        }
        document["security"] = [{"bearer": []}, {"api-key": []}]
        for operation in OPERATIONS:
            if operation.is_open:
                document["paths"][operation.path][operation.method.lower()]["security"] = []
    return document


def _schemas(inputs: list[type[BaseModel]], answers: list[type[BaseModel]]) -> dict[str, Any]:
    modes: list[tuple[type[BaseModel], Literal["validation", "serialization"]]] = []
    modes += [(body, "validation") for body in inputs]
    modes += [(answer, "serialization") for answer in answers]
    modes.append((FailureAnswer, "serialization"))
    _, found = models_json_schema(modes, ref_template=_REFERENCE)
    schemas: dict[str, Any] = found["$defs"]
    return schemas


def _operation(operation: Operation) -> dict[str, Any]:
    failure = {"description": "It failed.", "content": _content(FailureAnswer)}
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": {
            "200": {"description": "It is done.", "content": _content(operation.answer)},
            "4XX": failure,
            "5XX": failure,
        },
    }
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": _content(operation.body)}
    if operation.has_name:
        described["parameters"] = [
            {
                "name": "name",
                "in": "path",
                "required": True,
                "description": "name of the collection",
                "schema": {"type": "string", "minLength": 1, "maxLength": LONGEST_NAME},
            }
        ]
    return described


def _content(body: type[BaseModel]) -> dict[str, Any]:
    reference = _REFERENCE.format(model=body.__name__)
    return {"application/json": {"schema": {"$ref": reference}}}
