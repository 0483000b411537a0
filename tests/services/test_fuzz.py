"""A fuzzer over the service's own description: whatever is sent, the answer is as described."""

from __future__ import annotations

import os
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from services.test_processes import KEY, Running, service  # noqa: F401 - a fixture

EXAMPLES = int(os.environ.get("QDRANT_EMBED_FUZZ", "25"))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.mark.parametrize("mode", [*GenerationMode])
def test_no_request_is_a_fault_of_the_service(service: Running, mode: GenerationMode) -> None:  # noqa: F811
    headers = {"api-key": KEY}
    schema = schemathesis.openapi.from_url(f"{service.url}/openapi.json", headers=headers)
    tried = set()
    for found in schema.get_all_operations():
        operation: Any = found.ok()  # type: ignore[union-attr] # it is one, or fails the test

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            suppress_health_check=[*HealthCheck],
            database=None,
        )
        def check(case: Any) -> None:
            response = case.call(headers=headers)
            case.validate_response(response, checks=CHECKS)

        tried.add(operation.path)
        if mode is GenerationMode.NEGATIVE and operation.method.upper() == "GET":
            continue  # it has nothing that could be wrong
        check()
    assert "/v1/embeddings" in tried
