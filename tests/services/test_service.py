"""What the service answers, against the library itself."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from services.conftest import Opened
from starlette.testclient import TestClient

from qdrant_embed import AsyncQdrantClient, TextCrossEncoder, TextEmbedding
from qdrant_embed.serve.app import application
from qdrant_embed.serve.database import Collections, NewCollections
from qdrant_embed.serve.door import Rules
from qdrant_embed.serve.models import ServedModels
from qdrant_embed.serve.service import Service

EXAMPLES = 2 * int(os.environ.get("QDRANT_EMBED_FUZZ", "25"))

TEXTS = ["The cat sat on the mat", "Paris is the capital of France", "a", "", "storm " * 200]


def post(http: TestClient, path: str, body: Any, status: int = 200) -> dict[str, Any]:
    response = http.post(path, json=body)
    assert response.status_code == status, response.text
    answer: dict[str, Any] = response.json()
    return answer


def refused(http: TestClient, path: str, body: Any, status: int) -> str:
    error = post(http, path, body, status)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return str(error["message"])


@pytest.mark.parametrize("kind", [None, "query", "document"])
@pytest.mark.parametrize("dimensions", [None, 8])
@pytest.mark.parametrize("form", ["float", "base64"])
def test_vectors_are_those_of_the_library(
    http: TestClient, embedding: TextEmbedding, kind: str | None, dimensions: int | None, form: str
) -> None:
    body: dict[str, Any] = {"input": TEXTS, "encoding_format": form}
    body |= {"input_type": kind} if kind else {}
    body |= {"dimensions": dimensions} if dimensions else {}
    answer = post(http, "/v1/embeddings", body)
    encode = {
        None: embedding.embed,
        "query": embedding.query_embed,
        "document": embedding.passage_embed,
    }[kind]
    expected = np.array(list(encode(TEXTS)))
    if dimensions:
        expected = expected[:, :dimensions]
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = [data["embedding"] for data in answer["data"]]
    if form == "base64":
        found = [np.frombuffer(base64.b64decode(data), "<f4") for data in found]
    assert [data["index"] for data in answer["data"]] == list(range(len(TEXTS)))
    np.testing.assert_allclose(np.array(found), expected, atol=1e-6)
    assert answer["model"] == embedding.model_name


def test_usage_counts_the_tokens_of_each_request(http: TestClient) -> None:
    one = post(http, "/v1/embeddings", {"input": "the cat"})["usage"]
    assert one == {"prompt_tokens": 4, "total_tokens": 4}  # with [CLS] and [SEP]
    prefixed = post(http, "/v1/embeddings", {"input": "the cat", "input_type": "query"})["usage"]
    assert prefixed["prompt_tokens"] == 6  # query :


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"input": []}, 422, "input"),
        ({"input": [1, 2]}, 422, "send texts"),
        ({"input": [[1, 2]]}, 422, "send texts"),
        ({"input": ["a", 1]}, 422, "valid string"),
        ({"input": "a", "dimensions": 0}, 422, "dimensions"),
        ({"input": "a", "dimensions": 33}, 422, "have 32"),
        ({"input": "a", "dimensions": True}, 422, "dimensions"),
        ({"input": []}, 422, "it is empty: send a text"),
        ({"input": "a", "model": "/etc"}, 404, "is not served"),
        ({"input": "a", "model": "../tiny-e5"}, 404, "is not served"),
        ({"input": "a", "model": "BAAI/bge-small-en-v1.5"}, 404, "is not served"),
        ({"input": "a", "other": 1}, 422, "other"),
        ({"input": ["a"] * 2_049}, 422, "2048"),
        ({"input": "a" * (1 << 20) + "a"}, 422, "1048576"),
        ({}, 422, "input"),
        ([], 422, "the body"),
    ],
)
def test_what_cannot_be_encoded_is_refused_in_words(
    http: TestClient, body: Any, status: int, said: str
) -> None:
    message = refused(http, "/v1/embeddings", body, status)
    assert said in message
    assert len(message) < 1_000


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b'{"input": NaN}',
        b'{"input": "\xff"}',
        b'{"input": "\\ud800"}',
        b"[" * 100_000,
        b'{"input":' * 50_000,
        b'{"where": ' + b'{"a": ' * 300 + b"1" + b"}" * 301,
        b"1" * 5_000,
    ],
)
@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/rerank", "/collections/a/query"])
def test_no_body_is_a_fault_of_the_service(http: TestClient, path: str, body: bytes) -> None:
    response = http.post(path, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code in (400, 422), response.text
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_documents_are_ranked_as_by_the_library(http: TestClient, scorer: TextCrossEncoder) -> None:
    query = "what is the capital"
    body: dict[str, Any] = {
        "query": query,
        "documents": [*TEXTS[:3], {"text": TEXTS[4]}],
        "top_n": 2,
    }
    answer = post(http, "/v1/rerank", body | {"return_documents": True})
    ranked = scorer.rank(query, [*TEXTS[:3], TEXTS[4]], top_k=2)
    assert [result["index"] for result in answer["results"]] == [found.index for found in ranked]
    assert [result["relevance_score"] for result in answer["results"]] == pytest.approx(
        [found.score for found in ranked]
    )
    assert answer["results"][0]["document"] == {"text": ranked[0].document}
    assert answer["usage"]["total_tokens"] > 0
    assert "no model" not in refused(http, "/v1/rerank", body | {"model": "x"}, 404)
    assert "documents" in refused(http, "/v1/rerank", body | {"documents": []}, 422)
    much = {"query": "a " * 40_000, "documents": ["b"] * 2_000}
    assert "each of its documents" in refused(http, "/v1/rerank", much, 413)


def test_documents_are_added_found_read_and_deleted(http: TestClient) -> None:
    documents: list[dict[str, Any]] = [
        {"text": "The cat sat on the mat", "id": "cat", "metadata": {"year": 2020}},
        {"text": "Paris is the capital of France", "id": 7, "metadata": {"year": 2024}},
    ]
    path = "/collections/notes"
    assert post(http, f"{path}/documents", {"documents": documents}) == {"ids": ["cat", 7]}
    found = post(http, f"{path}/query", {"query": "the cat", "where": {"year": {"gte": 2024}}})
    assert [(hit["id"], hit["metadata"]) for hit in found["hits"]] == [(7, {"year": 2024})]
    reranked = post(
        http, f"{path}/query", {"query": "the cat", "reranker": served(http, "rerank"), "limit": 1}
    )
    assert reranked["hits"][0]["retrieval_score"] is not None
    read = post(http, f"{path}/documents/get", {"ids": [7, "gone"]})["documents"]
    assert read[0]["text"] == documents[1]["text"]
    assert read[1] is None
    (listed,) = http.get("/collections").json()["collections"]
    assert (listed["name"], listed["points"]) == ("notes", 2)
    assert listed["stamp"]["model"] == served(http, "embed")
    assert post(http, f"{path}/documents/delete", {"ids": ["cat"]}) == {"deleted": 1}
    assert len(post(http, f"{path}/query", {"query": "the cat"})["hits"]) == 1


def test_the_same_document_without_an_id_is_one(http: TestClient) -> None:
    body = {"documents": [{"text": "the cat"}]}
    first = post(http, "/collections/notes/documents", body)
    assert post(http, "/collections/notes/documents", body) == first


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/collections/gone/query", {"query": "a"}, 404),
        ("/collections/gone/documents/get", {"ids": [1]}, 404),
        ("/collections/..%2Fx/query", {"query": "a"}, 404),
        ("/collections/notes/query", {}, 422),
        ("/collections/notes/query", {"query": "a", "limit": 1_001}, 422),
        ("/collections/notes/query", {"query": "a", "where": {"a": {"b": 1}}}, 422),
        ("/collections/notes/query", {"query": "a", "where": {"a": ["b"] * 10_001}}, 422),
        ("/collections/notes/query", {"query": "a", "filter": {"must": [{"key": 1}]}}, 422),
        ("/collections/notes/query", {"query": "a", "filter": {"year": 2020}}, 422),
        ("/collections/notes/query", {"query": "a", "filter": {"must": [{}] * 10_001}}, 422),
        ("/collections/notes/query", {"query": "a", "filter": []}, 422),
        ("/collections/notes/query", {"query": "a", "reranker": "/etc"}, 404),
        ("/collections/notes/query", {"query": "a", "offset": 10_000}, 422),
        ("/collections/notes/documents", {"documents": [{"text": "a", "id": -1}]}, 422),
        (
            "/collections/notes/documents",
            {"documents": [{"text": "a", "id": 1}, {"text": "b"}]},
            422,
        ),
        ("/collections/notes/documents", {"documents": [{"text": "a", "metadata": []}]}, 422),
        (
            "/collections/notes/documents",
            {"documents": [{"text": "a", "metadata": {"document": 1}}]},
            422,
        ),
        ("/collections/" + "n" * 300 + "/documents", {"documents": [{"text": "a"}]}, 422),
    ],
)
def test_what_collections_refuse(http: TestClient, path: str, body: Any, status: int) -> None:
    post(http, "/collections/notes/documents", {"documents": [{"text": "the cat"}]})
    assert refused(http, path, body, status)


def test_hits_are_what_both_filters_let_through(http: TestClient) -> None:
    texts = [
        {"text": f"the cat {n}", "id": n, "metadata": {"year": 2000 + n, "kind": "ab"[n % 2]}}
        for n in range(9)
    ]
    post(http, "/collections/notes/documents", {"documents": texts})
    late = {"must": [{"key": "year", "range": {"gte": 2004}}]}
    odd = {"must_not": [{"key": "kind", "match": {"value": "a"}}]}
    bodies: list[tuple[dict[str, Any], set[int]]] = [
        ({"filter": late}, {4, 5, 6, 7, 8}),
        ({"filter": {**late, **odd}}, {5, 7}),
        ({"filter": late, "where": {"kind": "a"}}, {4, 6, 8}),
        ({"filter": {}}, set(range(9))),
        ({"filter": None}, set(range(9))),
    ]
    for body, ids in bodies:
        found = post(http, "/collections/notes/query", {"query": "cat", **body})["hits"]
        assert {hit["id"] for hit in found} == ids
    wrong = {"must": [{"key": "year", "range": {"gte": []}}]}
    said = refused(http, "/collections/notes/query", {"query": "cat", "filter": wrong}, 422)
    assert "must.0" in said
    assert "list[" not in said


Scalars = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(-1e9, 1e9)
    | st.sampled_from(["b", "2020", "2020-01-01T00:00:00Z", "", "\x00"])
)  # fmt: skip
Keys = st.sampled_from(
    ["year", "kind", "list", "list[]", "list[].a", "a.b", "geo", "x[", "[0]", ""]
)
Points = st.fixed_dictionaries({"lat": st.floats(-400, 400), "lon": st.floats(-400, 400)})
Ranges = st.fixed_dictionaries({}, optional=dict.fromkeys(("gt", "gte", "lt", "lte"), Scalars))
Matches = st.dictionaries(
    st.sampled_from(["value", "any", "except", "text", "phrase", "text_any"]),
    Scalars | st.lists(Scalars, max_size=3),
    max_size=1,
)
Conditions = st.recursive(
    st.one_of(
        st.fixed_dictionaries({"key": Keys, "match": Matches}),
        st.fixed_dictionaries({"key": Keys, "range": Ranges}),
        st.fixed_dictionaries({"key": Keys, "values_count": Ranges}),
        st.fixed_dictionaries({"is_empty": st.fixed_dictionaries({"key": Keys})}),
        st.fixed_dictionaries({"is_null": st.fixed_dictionaries({"key": Keys})}),
        st.fixed_dictionaries({"has_id": st.lists(Scalars, max_size=3)}),
        st.fixed_dictionaries({"has_vector": Keys}),
        st.builds(
            lambda key, center, radius: {"key": key, "geo_radius": {"center": center, **radius}},
            Keys,
            Points,
            st.fixed_dictionaries({"radius": st.floats(-9, 9)}),
        ),
        st.builds(
            lambda key, points: {"key": key, "geo_polygon": {"exterior": {"points": points}}},
            Keys,
            st.lists(Points, max_size=5),
        ),
    ),
    lambda inner: (
        st.dictionaries(
            st.sampled_from(["must", "should", "must_not"]), inner | st.lists(inner, max_size=3)
        )
        | st.builds(
            lambda key, held: {"nested": {"key": key, "filter": {"must": held}}},
            Keys,
            st.lists(inner, max_size=2),
        )
        | st.builds(
            lambda held, least: {"min_should": {"conditions": held, "min_count": least}},
            st.lists(inner, max_size=3),
            st.integers(-1, 4),
        )
    ),
    max_leaves=6,
)


@pytest.mark.parametrize("engine", ["local", "edge"])
def test_no_filter_is_a_fault_of_the_service(
    embedding: TextEmbedding, engine: Literal["local", "edge"], tmp_path: Path
) -> None:
    client = AsyncQdrantClient(path=str(tmp_path / "db"), engine=engine)
    collections = Collections(client, NewCollections(embedding))
    app = application(Service(ServedModels([embedding]), collections), Rules())
    metadata = {"year": 2020, "kind": "a", "list": [{"a": 1}, 2], "geo": {"lat": 1.0, "lon": 2}}
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as http:
        documents = [{"text": f"cat {n}", "metadata": {**metadata, "n": n}} for n in range(5)]
        post(http, "/collections/notes/documents", {"documents": documents})
        seen = set()

        @settings(max_examples=EXAMPLES, database=None)
        @given(condition=st.dictionaries(st.sampled_from(["must", "should"]), Conditions))
        @example({"must": {"key": "geo", "geo_polygon": {"exterior": {"points": []}}}})
        def ask(condition: dict[str, Any]) -> None:
            body = {"query": "cat", "filter": condition, "limit": 2}
            response = http.post("/collections/notes/query", json=body)
            seen.add(response.status_code)

        ask()
    assert seen <= {200, 422}


def test_nan_in_metadata_is_refused(http: TestClient) -> None:
    body = b'{"documents": [{"text": "a", "metadata": {"x": NaN}}]}'
    response = http.post(
        "/collections/notes/documents", content=body, headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 422, response.text


def test_a_service_without_a_database_says_so(open_service: Opened) -> None:
    http = open_service(database=False)
    assert "--path" in refused(http, "/collections/a/query", {"query": "a"}, 404)
    assert http.get("/readyz").status_code == 200


def test_a_collection_of_another_model_is_used_with_its_own(
    http: TestClient, tiny_name: str, open_service: Opened
) -> None:
    from qdrant_embed.serve.database import Collections, NewCollections

    async def run() -> None:
        from qdrant_embed import AsyncQdrantClient

        client = AsyncQdrantClient(":memory:")
        other = Collections(client, NewCollections(TextEmbedding(tiny_name)))
        from qdrant_embed import Document

        await other.add("theirs", [Document("the cat")], on_existing="overwrite", ids="content")
        ours = Collections(client, NewCollections("someone/tiny-e5"))
        for _ in range(3):
            (hit,) = await ours.query("theirs", "the cat")
            assert hit.document == "the cat"
        await ours.add("ours", [Document("the dog")], on_existing="overwrite", ids="content")
        models = [found.stamp and found.stamp["model"] for found in await ours.all()]
        assert models == ["someone/tiny-e5", "someone/tiny-bert"]
        await client.close()

    import asyncio

    asyncio.run(run())


def test_states_metrics_and_description_are_told(http: TestClient) -> None:
    assert http.get("/healthz").json() == {"status": "ok"}
    post(http, "/v1/embeddings", {"input": ["a", "b"]})
    metrics = http.get("/metrics").text
    assert 'qdrant_embed_requests_total{operation="embeddings",status="200"} 1.0' in metrics
    described = http.get("/openapi.json").json()
    assert "/collections/{name}/query" in described["paths"]
    assert json.dumps(described).count("$ref") > 10


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/x", 404), ("PUT", "/healthz", 405)]
)
def test_unknown_paths_have_errors_of_the_same_shape(
    http: TestClient, method: str, path: str, status: int
) -> None:
    response = http.request(method, path)
    assert response.status_code == status
    assert response.json()["error"]["message"]


def served(http: TestClient, task: str) -> str:
    models = http.get("/v1/models").json()["data"]
    return str(next(model["id"] for model in models if model["task"] == task))
