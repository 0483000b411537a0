"""The commands as users run them, each in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import mcp
import numpy as np
import openai
import pytest
from mcp.client.stdio import StdioServerParameters

from qdrant_embed import QdrantClient, TextEmbedding

COMMAND = [
    sys.executable,
    "-c",
    "import sys; from qdrant_embed.cli.main import main; sys.exit(main())",
]
KEY = "0123456789abcdef-key"


@dataclass(frozen=True)
class Running:
    """A service in a process of its own."""

    url: str
    process: subprocess.Popen[str]

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").partition(":")
        return host, int(port.partition("/")[0])


@contextmanager
def running(*arguments: object, env: dict[str, str] | None = None) -> Iterator[Running]:
    """Runs the command until the block ends, on a free port."""
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments), "--port", "0"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
    )
    try:
        assert process.stderr is not None
        said = process.stderr.readline()
        assert "serves at" in said, said + process.stderr.read()
        yield Running(said.split()[-1], process)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=20)
        process.kill()


@pytest.fixture(scope="module")
def service(
    tiny_e5_name: str, reranker: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """A service on a folder, with a key."""
    folder = tmp_path_factory.mktemp("db")
    options = ("--model", tiny_e5_name, "--reranker", reranker, "--path", folder / "notes")
    with running("serve", *options, env={"QDRANT_EMBED_API_KEY": KEY}) as found:
        for _ in range(200):
            if httpx.get(f"{found.url}/readyz").status_code == 200:
                break
            time.sleep(0.05)
        yield found


def test_the_openai_client_works(service: Running, embedding: TextEmbedding) -> None:
    texts = ["The cat sat on the mat", "Paris"]
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key=KEY) as client:
        answer = client.embeddings.create(input=texts, model=embedding.model_name)
        found = [data.embedding for data in answer.data]  # base64
        np.testing.assert_allclose(found, list(embedding.embed(texts)), atol=1e-6)
        assert answer.usage.prompt_tokens > 0
        (short,) = client.embeddings.create(
            input="Paris",
            model=embedding.model_name,
            encoding_format="float",
            dimensions=8,
            extra_body={"input_type": "query"},
        ).data
        assert np.linalg.norm(short.embedding) == pytest.approx(1)
        assert len(short.embedding) == 8
        assert embedding.model_name in [model.id for model in client.models.list()]
        with pytest.raises(openai.NotFoundError, match="is not served"):
            client.embeddings.create(input="a", model="/etc/passwd")
        with pytest.raises(openai.UnprocessableEntityError, match="send texts"):
            client.embeddings.create(input=[[1, 2]], model=embedding.model_name)
    with (
        openai.OpenAI(base_url=f"{service.url}/v1", api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError, match="wrong"),
    ):
        client.models.list()


def test_the_asynchronous_openai_client_works(service: Running, embedding: TextEmbedding) -> None:
    async def run() -> None:
        async with openai.AsyncOpenAI(base_url=f"{service.url}/v1", api_key=KEY) as client:
            answers = await asyncio.gather(
                *(
                    client.embeddings.create(input=str(n), model=embedding.model_name)
                    for n in range(9)
                )
            )
        expected = list(embedding.embed(map(str, range(9))))
        found = [answer.data[0].embedding for answer in answers]
        np.testing.assert_allclose(found, expected, atol=1e-6)

    asyncio.run(run())


def test_a_thousand_requests_of_one_moment_are_all_answered(
    service: Running, embedding: TextEmbedding
) -> None:
    texts = [f"the {'cat ' * (number % 17)}sat {number}" for number in range(1_000)]
    expected = list(embedding.embed(texts))

    async def ask(text: str) -> dict[str, Any]:
        reader, writer = await asyncio.open_connection(*service.address)
        body = json.dumps({"input": text}).encode()
        head = f"Host: localhost\r\napi-key: {KEY}\r\nContent-Type: application/json\r\n"
        writer.write(
            f"POST /v1/embeddings HTTP/1.1\r\n{head}Connection: close\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        said, _, sent = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        assert b" 200 " in said, said
        answer: dict[str, Any] = json.loads(sent)
        return answer

    async def run() -> list[dict[str, Any]]:
        return await asyncio.gather(*map(ask, texts))

    for answer, vector in zip(asyncio.run(run()), expected, strict=True):
        # the texts that are computed together differ, and with them the last bit of a number
        np.testing.assert_allclose(answer["data"][0]["embedding"], vector, atol=1e-6)


def test_a_folder_is_shared_by_threads_of_clients(service: Running) -> None:
    def use(number: int) -> int:
        with httpx.Client(base_url=service.url, headers={"api-key": KEY}) as client:
            path = "/collections/shared"
            body = {"documents": [{"text": f"cat {number}", "id": number}]}
            assert client.post(f"{path}/documents", json=body).status_code == 200
            found = client.post(f"{path}/query", json={"query": f"cat {number}", "limit": 100})
            return sum(hit["id"] == number for hit in found.json()["hits"])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(use, range(1, 33))) == [1] * 32


def test_half_a_request_does_not_hold_a_connection(service: Running) -> None:
    with socket.create_connection(service.address, timeout=5) as slow:
        slow.sendall(b"GARBAGE\r\n\r\n")
        assert b"400" in slow.recv(100)


def test_requests_in_work_are_answered_before_the_service_stops(
    tiny_e5_name: str, tmp_path: Path
) -> None:
    with running("serve", "--model", tiny_e5_name, "--path", tmp_path / "db") as found:
        texts = ["the cat sat on the mat " * 20] * 2_000

        def ask() -> int:
            return httpx.post(
                f"{found.url}/v1/embeddings",
                json={"input": texts, "encoding_format": "base64"},
                timeout=60,
            ).status_code

        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(ask)
            time.sleep(0.3)
            found.process.send_signal(signal.SIGTERM)
            assert answer.result(30) == 200
        out, err = found.process.communicate(timeout=20)
        assert found.process.returncode in (0, -signal.SIGTERM), err
        assert "Traceback" not in err
        assert out == ""


@pytest.mark.parametrize(
    ("arguments", "env", "said"),
    [
        (["serve", "--host", "0.0.0.0"], {}, "QDRANT_EMBED_API_KEY"),
        (["serve"], {"QDRANT_EMBED_API_KEY": " "}, "empty"),
        (["serve"], {"QDRANT_EMBED_API_KEY": "short"}, "16 characters"),
        (["mcp"], {}, "QDRANT_LOCAL_PATH"),
        (["mcp", "--transport", "http", "--path", "x", "--host", "::"], {}, "no key"),
        (["mcp"], {"QDRANT_URL": "http://a", "QDRANT_LOCAL_PATH": "b"}, "both set"),
        (["mcp"], {"QDRANT_URL": "http://a", "EMBEDDING_PROVIDER": "openai"}, "fastembed"),
        (["mcp"], {"QDRANT_URL": "http://a", "QDRANT_SEARCH_LIMIT": "0"}, "from 1 to 100"),
        (["mcp"], {"QDRANT_URL": "http://a", "QDRANT_READ_ONLY": "maybe"}, "true or false"),
    ],
)
def test_what_is_refused_at_the_start(arguments: list[str], env: dict[str, str], said: str) -> None:
    done = subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        env={**os.environ, **env},
    )
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


# agents


def memory(model: str, *arguments: str, **env: str) -> StdioServerParameters:
    """How an agent starts the memory."""
    found = {
        name: os.environ[name] for name in os.environ if name.startswith(("PYTHON", "QDRANT_EM"))
    }
    return StdioServerParameters(
        command=COMMAND[0],
        args=[*COMMAND[1:], "mcp", *arguments],
        env={**found, "EMBEDDING_MODEL": model, **env},
        cwd=os.getcwd(),
    )


async def call(client: mcp.Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    text = result.content[0]
    assert isinstance(text, mcp.types.TextContent)
    assert json.loads(text.text) == result.structured_content
    answer: dict[str, Any] = result.structured_content
    return answer


def test_an_agent_stores_and_finds(tiny_name: str, tmp_path: Path) -> None:
    async def run() -> None:
        path = str(tmp_path / "memory")
        async with mcp.Client(memory(tiny_name, QDRANT_LOCAL_PATH=path)) as client:
            names = {tool.name for tool in (await client.list_tools()).tools}
            assert names == {"qdrant-store", "qdrant-find", "qdrant-collections"}
            assert await call(client, "qdrant-find", query="cat", collection_name="pets") == {
                "results": []
            }
            for text, year in (("the cat sat", 2020), ("the dog sat", 2024)):
                await call(
                    client,
                    "qdrant-store",
                    information=text,
                    metadata={"year": year},
                    collection_name="pets",
                )
            for where in (
                {"year": {"gte": 2022}},
                {"or": [{"year": 2024}, {"not": {"year": 2020}}]},
            ):
                found = await call(
                    client, "qdrant-find", query="the cat", where=where, collection_name="pets"
                )
                (hit,) = found["results"]
                assert (hit["text"], hit["metadata"]) == ("the dog sat", {"year": 2024})
            listed = await call(client, "qdrant-collections")
            assert listed["collections"] == [{"name": "pets", "points": 2, "model": tiny_name}]
            for tool, arguments in (
                ("qdrant-find", {"query": "a"}),
                ("qdrant-find", {"query": 1, "collection_name": "pets"}),
                ("qdrant-find", {"query": "a", "collection_name": "pets", "limit": 10**9}),
                (
                    "qdrant-find",
                    {"query": "a", "collection_name": "pets", "where": {"a": {"b": 1}}},
                ),
                ("qdrant-store", {"information": "a", "collection_name": "../x", "other": 1}),
                ("qdrant-store", {"information": "a", "collection_name": "a/b"}),
                ("delete", {}),
            ):
                result = await client.call_tool(tool, arguments)
                assert result.is_error, (tool, arguments)
        async with mcp.Client(
            memory(
                tiny_name,
                "--read-only",
                QDRANT_LOCAL_PATH=path,
                COLLECTION_NAME="pets",
                TOOL_FIND_DESCRIPTION="Look.",
            )
        ) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert set(tools) == {"qdrant-find", "qdrant-collections"}
            assert tools["qdrant-find"].description == "Look."
            assert "collection_name" not in tools["qdrant-find"].input_schema["properties"]
            assert (await call(client, "qdrant-find", query="the cat", limit=1))["results"]
            refused = await client.call_tool("qdrant-find", {"query": "a", "collection_name": "x"})
            assert refused.is_error
            assert (await client.call_tool("qdrant-store", {"information": "a"})).is_error

    asyncio.run(run())
    with QdrantClient(path=str(tmp_path / "memory")) as client:  # as the other server writes
        (first, *_), _ = client.scroll("pets", limit=1)
        assert first.payload is not None
        assert set(first.payload) == {"document", "metadata"}


def test_an_agent_uses_a_collection_as_it_was_written(tiny_name: str, tmp_path: Path) -> None:
    path = str(tmp_path / "memory")
    with QdrantClient(path=path) as client:
        client.set_model(tiny_name)
        client.add("flat", ["the cat sat"], metadata=[{"year": 2020}])

    async def run() -> None:
        async with mcp.Client(
            memory(tiny_name, QDRANT_LOCAL_PATH=path, COLLECTION_NAME="flat")
        ) as client:
            await call(client, "qdrant-store", information="the dog", metadata={"year": 2024})
            found = await call(client, "qdrant-find", query="the dog", where={"year": 2024})
            assert [hit["metadata"] for hit in found["results"]] == [{"year": 2024}]

    asyncio.run(run())


def test_the_other_servers_collections_are_read_and_extended(
    minilm: object, tmp_path: Path
) -> None:
    import uuid

    from qdrant_client import QdrantClient as Plain
    from qdrant_client import models

    path, name = str(tmp_path / "memory"), "sentence-transformers/all-MiniLM-L6-v2"
    vector = next(iter(TextEmbedding(name).embed("Bees dance"))).tolist()
    plain = Plain(path=path)  # what mcp-server-qdrant does
    plain.create_collection(
        "bees",
        vectors_config={
            "fast-all-minilm-l6-v2": models.VectorParams(size=384, distance=models.Distance.COSINE)
        },
    )
    payload = {"document": "Bees dance", "metadata": {"source": "book"}}
    point = models.PointStruct(
        id=uuid.uuid4().hex, vector={"fast-all-minilm-l6-v2": vector}, payload=payload
    )
    plain.upsert("bees", [point])
    plain.close()

    async def run() -> None:
        parameters = memory(name, QDRANT_LOCAL_PATH=path, COLLECTION_NAME="bees")
        async with mcp.Client(parameters) as client:
            await call(client, "qdrant-store", information="Wasps sting")
            found = await call(client, "qdrant-find", query="insects that dance")
            assert [hit["text"] for hit in found["results"]] == ["Bees dance", "Wasps sting"]
            assert [hit["metadata"] for hit in found["results"]] == [{"source": "book"}, {}]
            found = await call(client, "qdrant-find", query="a", where={"source": "book"})
            assert len(found["results"]) == 1

    asyncio.run(run())


def test_nothing_but_the_protocol_is_on_stdout(tiny_name: str, tmp_path: Path) -> None:
    hello = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    }
    asked = {
        "jsonrpc": "2.0",
        "id": 2,
        "method": "tools/call",
        "params": {
            "name": "qdrant-store",
            "arguments": {"information": "a \u2028 b", "collection_name": "x"},
        },
    }
    lines = [hello, {"jsonrpc": "2.0", "method": "notifications/initialized"}, "garbage", asked]
    process = subprocess.Popen(
        [*COMMAND, "mcp", "--path", str(tmp_path / "db"), "--model", tiny_name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    answers = {}
    for line in lines:
        process.stdin.write(json.dumps(line) + "\n")
    process.stdin.flush()
    while 2 not in answers:
        answer = json.loads(process.stdout.readline())
        answers[answer.get("id")] = answer
    rest, _ = process.communicate(timeout=30)
    assert all(json.loads(line)["jsonrpc"] == "2.0" for line in rest.splitlines())
    assert answers[1]["result"]["serverInfo"]["name"] == "qdrant-embed"
    assert process.returncode == 0


def test_agents_over_http_need_the_key(tiny_name: str, tmp_path: Path) -> None:
    options = ("mcp", "--transport", "http", "--path", tmp_path / "db", "--model", tiny_name)
    with running(*options, env={"QDRANT_EMBED_API_KEY": KEY}) as found:
        assert httpx.post(found.url, json={}).status_code == 401
        headers = {"Authorization": f"Bearer {KEY}"}
        evil = {**headers, "Host": "evil.example"}
        assert httpx.post(found.url, json={}, headers=evil).status_code == 421

        async def run() -> None:
            import httpx2
            from mcp.client.streamable_http import streamable_http_client

            async with (
                httpx2.AsyncClient(headers=headers) as http,
                mcp.Client(streamable_http_client(found.url, http_client=http)) as client,
            ):
                await call(client, "qdrant-store", information="the cat", collection_name="a")
                hits = await call(client, "qdrant-find", query="the cat", collection_name="a")
                assert len(hits["results"]) == 1

        asyncio.run(run())
        found.process.send_signal(signal.SIGTERM)
        _, err = found.process.communicate(timeout=20)
        assert "Traceback" not in err
