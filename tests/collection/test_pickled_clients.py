"""Clients in other processes: opened again, or refused where the database is in this one."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clients import WordTokens, at
from rest_server import Server
from tiny import TinyModel

from qdrant_embed import AsyncQdrantClient, InputError, QdrantClient

WAYS: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda client: pickle.loads(pickle.dumps(client)),
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_client_of_a_server_is_opened_again(server: Server, tiny: TinyModel, way: str) -> None:
    with_models = QdrantClient(**at(server))
    with_models.set_model(tiny.path, vector_name="text", query_prefix="six ")
    with_models.set_sparse_model("Qdrant/bm25", language="german")
    with_models.set_late_model(WordTokens(), vector_name="tokens")
    with_models.document_key = "page_content"
    with_models.add("a", ["cat", "dog"])
    other = WAYS[way](with_models)
    assert type(other) is QdrantClient
    assert other.init_options == with_models.init_options
    assert other.document_key == "page_content"
    assert other.get_vector_field_name() == "text"
    assert other.get_late_vector_field_name() == "tokens"
    assert [hit.score for hit in other.query("a", "cat")] == [
        hit.score for hit in with_models.query("a", "cat")
    ]
    with_models.close()
    assert other.query("a", "cat")[0].document == "cat"  # over a connection of its own
    other.close()


def test_one_without_a_model_stays_so(server: Server) -> None:
    client = QdrantClient(**at(server))
    other = WAYS["pickle"](client)
    assert other.sparse_embedding_model_name is None
    assert other.embedding_model_name == client.embedding_model_name


def test_the_asynchronous_client(tiny: TinyModel) -> None:
    client = AsyncQdrantClient(url="http://127.0.0.1:9", check_compatibility=False)
    client.set_model(tiny.path)
    other = WAYS["pickle"](client)
    assert type(other) is AsyncQdrantClient
    assert other.embedding_model_name == client.embedding_model_name


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", [QdrantClient, AsyncQdrantClient])
def test_a_local_database_says_why_not(tmp_path: Path, way: str, kind: Any) -> None:
    for options in ({"location": ":memory:"}, {"path": str(tmp_path / "db")}):
        client: Any = kind(**options)
        with pytest.raises(InputError, match="inside this process"):
            WAYS[way](client)
        assert type(copy.copy(client)) is kind  # shares the database
        if (closing := client.close()) is not None:
            asyncio.run(closing)


def test_a_function_that_has_no_name_is_named(server: Server) -> None:
    with pytest.warns(UserWarning, match="insecure"):
        client = QdrantClient(**at(server), auth_token_provider=lambda: "token")
    with pytest.raises(InputError, match="auth_token_provider="):
        pickle.dumps(client)
    with pytest.warns(UserWarning, match="insecure"):
        copy.deepcopy(client).close()
    client = QdrantClient(**at(server))
    client.set_sparse_model("Qdrant/bm25", tokenizer=lambda text: text.split())
    with pytest.raises(InputError, match="tokenizer="):
        pickle.dumps(client)
    copy.deepcopy(client).close()
