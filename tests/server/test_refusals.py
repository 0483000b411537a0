"""What a running server refuses, or says of faults that need no restart, as it was recorded.

The recorded requests are sent as they were, to collections with a prefix; so the fake servers,
which every other test uses, are held to the server that is there.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from clients import named_server

RECORDED = Path(__file__).parents[1] / "fixtures" / "server" / "rest.jsonl"

# what is about the whole server, or harms it
LEFT_OUT = ("name ", "aliases", "no such route", "root", "ready", "custom sharding", "shard key")
RECORDED_WITH = "1.18."


@pytest.fixture
def there(request: pytest.FixtureRequest) -> Iterator[tuple[httpx.Client, str]]:
    """A connection to the named server, and a prefix; what is made under it is removed."""
    named = named_server(request.config, grpc=False)
    if named is None:
        pytest.skip("no server: name one, as --url http://localhost:6333")
    headers = {"api-key": named["api_key"]} if named["api_key"] else {}
    prefix = f"qdrant-embed-test-{uuid.uuid4().hex[:12]}-"
    with httpx.Client(base_url=named["url"], headers=headers, timeout=60) as client:
        yield client, prefix
        for name in ("demo", "k"):
            client.delete(f"/collections/{prefix}{name}")


def renamed(record: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return a record about collections with a prefix."""
    text = json.dumps(record)
    for name in ("demo", "live", "nowhere"):
        for before, after in (("/collections/", ""), ("`", "`"), (" ", "."), (' \\"', '\\"')):
            text = text.replace(f"{before}{name}{after}", f"{before}{prefix}{name}{after}")
        for key in ("collection_name", "alias_name"):
            text = text.replace(f'"{key}": "{name}"', f'"{key}": "{prefix}{name}"')
    found: dict[str, Any] = json.loads(text)
    return found


def test_refusals_are_those_that_were_recorded(there: tuple[httpx.Client, str]) -> None:
    client, prefix = there
    version = client.get("/").json()["version"]
    if not version.startswith(RECORDED_WITH):
        pytest.skip(f"answers were recorded with {RECORDED_WITH}x, this is {version}")
    for line in RECORDED.read_text().splitlines():
        record = renamed(json.loads(line), prefix)
        if record["note"].startswith(LEFT_OUT) or "/collections/k" in record["path"]:
            continue
        body = record.get("raw", json.dumps(record["body"]) if "body" in record else None)
        answer = client.request(record["method"], record["path"], content=body)
        assert answer.status_code == record["status"], (record["note"], answer.text)
        if answer.status_code >= 400:
            assert answer.json()["status"] == record["answer"]["status"], record["note"]
