"""What the page asks for, and the headers that its files come with."""

from __future__ import annotations

import base64
import re
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from services.conftest import Opened
from services.test_door import SECRET
from services.test_service import post, refused, served
from starlette.testclient import TestClient

from qdrant_embed import AsyncQdrantClient, TextEmbedding
from qdrant_embed.cli.main import main
from qdrant_embed.search.filters import to_filter
from qdrant_embed.serve import page
from qdrant_embed.serve.app import application
from qdrant_embed.serve.database import Collections, NewCollections
from qdrant_embed.serve.door import Key, Rules
from qdrant_embed.serve.listening import address_of
from qdrant_embed.serve.models import ServedModels
from qdrant_embed.serve.page.fields import PayloadField, fields_of
from qdrant_embed.serve.service import Service

FILES = Path(page.__file__).parent / "files"
LATE = Path(__file__).parents[1] / "fixtures" / "late" / "stanford"
PATH = "/collections/notes"
TEXTS = ["The cat sat on the mat", "A dog barks at the cat", "Paris is the capital of France"]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        ("/page/page.js", "text/javascript"),
        ("/page/page.css", "text/css"),
        ("/page/icon.svg", "image/svg+xml"),
    ],
)
def test_the_page_is_open_and_lets_nothing_in(open_service: Opened, path: str, kind: str) -> None:
    http = open_service(Rules(key=Key(SECRET)))
    response = http.get(path)
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith(kind)
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert http.get("/page/%2e%2e/routes.py").status_code in (401, 404)
    assert http.get("/page/door.py").status_code == 404


def test_the_page_needs_nothing_of_others_and_nothing_within_it() -> None:
    page = (FILES / "page.html").read_text("utf-8")
    script = (FILES / "page.js").read_text("utf-8")
    style = (FILES / "page.css").read_text("utf-8")
    assert "://" not in page + script + style
    assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=", page)
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(", script
    )
    assert "url(" not in style
    assert "@import" not in style


def theme(style: str) -> dict[str, tuple[int, ...]]:
    found = re.findall(r"--([\w-]+): #([0-9a-f]{6});", style)
    return {name: tuple(bytes.fromhex(color)) for name, color in found}


def contrast(first: tuple[int, ...], second: tuple[int, ...]) -> float:
    """Return the ratio of two colours as WCAG 2 defines it."""

    def light(color: tuple[int, ...]) -> float:
        shares = [value / 255 for value in color]
        linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    one, other = sorted((light(first), light(second)), reverse=True)
    return (one + 0.05) / (other + 0.05)


@pytest.mark.parametrize("part", [0, 1], ids=["light", "dark"])
def test_colours_can_be_told_apart(part: int) -> None:
    style = (FILES / "page.css").read_text("utf-8")
    colors = theme(style.split("@media (prefers-color-scheme: dark)")[part])
    for text, back, least in (
        ("text", "page", 7),
        ("text", "card", 7),
        ("quiet", "page", 4.5),
        ("quiet", "card", 4.5),
        ("problem", "page", 4.5),
        ("on-accent", "accent", 4.5),
        ("on-mark", "mark", 4.5),
        ("accent", "page", 3),  # the ring around what has the focus
    ):
        assert contrast(colors[text], colors[back]) >= least, (text, back)


def test_each_way_finds_what_its_vectors_find(
    embedding: TextEmbedding, scorer: Any, open_service: Opened
) -> None:
    new = NewCollections(embedding, "Qdrant/bm25", str(LATE))
    collections = Collections(AsyncQdrantClient(":memory:"), new)
    service = Service(ServedModels([embedding], [scorer]), collections)
    with TestClient(application(service, Rules()), base_url="http://localhost") as http:
        documents = [{"text": text, "id": number} for number, text in enumerate(TEXTS)]
        post(http, f"{PATH}/documents", {"documents": documents})
        every = ["dense", "sparse", "hybrid", "late", "reranked"]
        assert http.get(PATH).json()["ways"] == every
        found = post(http, f"{PATH}/compare", {"query": "the cat"})["found"]
        assert [one["way"] for one in found] == every
        by_way = {one["way"]: [hit["id"] for hit in one["hits"]] for one in found}
        assert sorted(by_way["sparse"]) == [0, 1]  # those with the word
        assert {way: len(ids) for way, ids in by_way.items() if way != "sparse"} == dict.fromkeys(
            ("dense", "hybrid", "late", "reranked"), 3
        )
        usual = post(http, f"{PATH}/query", {"query": "the cat"})["hits"]
        assert [hit["id"] for hit in usual] == by_way["late"]
        reranker = served(http, "rerank")
        usual = post(http, f"{PATH}/query", {"query": "the cat", "reranker": reranker})["hits"]
        assert [hit["id"] for hit in usual] == by_way["reranked"]
        vector = next(embedding.query_embed("the cat"))
        expected = [float(vector @ row) for row in embedding.passage_embed(TEXTS)]
        dense = {hit["id"]: hit["score"] for hit in found[0]["hits"]}
        assert [dense[number] for number in range(3)] == pytest.approx(expected, abs=1e-5)
        assert [one["reranking"] is None for one in found] == [True] * 4 + [False]
        assert all(one["encoding"] > 0 and one["searching"] > 0 for one in found)
        none = post(http, f"{PATH}/compare", {"query": "qwxz", "ways": ["sparse"]})["found"]
        assert none[0]["hits"] == []
        body = {"query": "the cat", "ways": ["sparse"], "where": {"x": 1}, "limit": 1}
        assert post(http, f"{PATH}/compare", body)["found"][0]["hits"] == []


def test_a_way_that_is_missing_is_refused(http: TestClient, open_service: Opened) -> None:
    post(http, f"{PATH}/documents", {"documents": [{"text": "the cat"}]})
    assert http.get(PATH).json()["ways"] == ["dense", "reranked"]
    for way in ("sparse", "hybrid", "late"):
        said = refused(http, f"{PATH}/compare", {"query": "a", "ways": [way]}, 422)
        assert f"no vectors for {way} search" in said
    assert refused(http, f"{PATH}/compare", {"query": "a", "ways": ["magic"]}, 422)
    assert refused(http, f"{PATH}/compare", {"query": " "}, 422)
    assert refused(http, "/collections/gone/compare", {"query": "a"}, 404)
    assert http.get("/collections/gone").status_code == 404


def test_fields_are_guessed_from_documents() -> None:
    documents: list[dict[str, Any]] = [
        {
            "topic": "a",
            "year": 1,
            "on": True,
            "day": "2024-02-01",
            "note": "x y",
            "who": {"name": "n"},
        },
        {"topic": "a", "year": 2.5, "on": False, "day": "2024-02-01T10:00:00Z", "note": "z"},
        {
            "topic": "b",
            "mixed": 1,
            "none": None,
            "tags": ["t", "u", "t"],
            "page number": 3,
            "or": 1,
        },
        {"mixed": "one", "deep": {"a": {"b": {"c": {"d": 1}}}}, "": 1, "empty": []},
    ]
    assert fields_of(documents) == [
        PayloadField("topic", "choice", ["a", "b"]),
        PayloadField("year", "number"),
        PayloadField("on", "bool"),
        PayloadField("day", "date"),
        PayloadField("note", "text"),
        PayloadField("who.name", "choice", ["n"]),
        PayloadField("tags", "choice", ["t", "u"]),
        PayloadField('"page number"', "number"),
        PayloadField('"or"', "number"),
    ]


@settings(max_examples=200)
@given(
    st.lists(
        st.dictionaries(
            st.text(max_size=8),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(st.text(max_size=5), inner, max_size=3)
                ),
                max_leaves=6,
            ),
            max_size=5,
        ),
        max_size=5,
    )
)
def test_every_guessed_field_can_be_filtered_by(documents: list[dict[str, Any]]) -> None:
    conditions: dict[str, Any] = {
        "bool": True,
        "number": {"gte": 1, "lte": 2},
        "date": {"gte": "2024-02-01"},
        "text": {"text": "a"},
    }
    for field in fields_of(documents):
        to_filter({field.path: conditions.get(field.kind) or field.values[0]})


def in_base64(content: str | bytes) -> str:
    data = content.encode() if isinstance(content, str) else content
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("a.txt", "the cat\nthe dog\n\n", {}),
        ("a.JSONL", '{"text": "the cat", "n": 1}\n{"text": "the dog", "n": 2}\n', {}),
        ("a.csv", "body,key\nthe cat,1\nthe dog,2\n", {"text_field": "body", "id_field": "key"}),
    ],
)
def test_files_are_stored_as_the_command_does(
    http: TestClient, name: str, content: str, options: dict[str, str]
) -> None:
    body = {"name": name, "content": in_base64(content), **options}
    for _ in range(2):
        assert post(http, f"{PATH}/files", body) == {"stored": 2}
    hits = post(http, f"{PATH}/query", {"query": "cat"})["hits"]
    assert sorted(hit["document"] for hit in hits) == ["the cat", "the dog"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"name": "a.exe", "content": in_base64("x")}, "does not end in"),
        ({"name": "txt", "content": in_base64("x")}, "does not end in"),
        ({"name": "a.txt", "content": "%%%"}, "content: must be base64"),
        ({"name": "a.txt", "content": "é"}, "content: must be base64"),
        ({"name": "a.jsonl", "content": in_base64('{"text": "a"}\n[]')}, "a.jsonl, line 2"),
        ({"name": "a.csv", "content": in_base64("a,b\n1,2\n")}, "'text'"),
        ({"name": "a.txt", "content": in_base64(b"\xff\xfe")}, "line 1"),
        ({"name": "a.txt", "content": in_base64("a\n" * 9_000)}, "8,192"),
    ],
)
def test_files_that_cannot_be_read_are_refused(
    http: TestClient, body: dict[str, str], said: str
) -> None:
    assert said in refused(http, f"{PATH}/files", body, 422)
    assert post(http, f"{PATH}/files", {"name": "a.txt", "content": ""}) == {"stored": 0}
    assert http.get("/collections").json()["collections"] == []


def test_browse_needs_a_database(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["browse"]) == 1
    assert "--path FOLDER" in capsys.readouterr().err


@pytest.mark.parametrize("opens", [True, False])
def test_browse_opens_the_page(
    opens: bool, tiny_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: list[str] = []
    addresses: list[str] = []

    def run(_: object, opened: socket.socket, certificate: object) -> None:
        assert certificate is None
        addresses.append(address_of(opened))
        opened.close()

    monkeypatch.setattr("webbrowser.open", pages.append)
    monkeypatch.setattr("qdrant_embed.serve.listening.run", run)
    arguments = ["browse", "--path", str(tmp_path / "db"), "--model", tiny_name]
    assert main([*arguments, *([] if opens else ["--no-open"])]) == 0
    (address,) = addresses
    assert address.startswith("http://127.0.0.1:")
    until = time.monotonic() + 5
    while opens and not pages and time.monotonic() < until:
        time.sleep(0.01)
    assert pages == ([f"{address}/"] if opens else [])
