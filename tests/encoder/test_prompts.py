"""Prompts by name, and tasks of instruction-tuned models, as a user chooses them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import tiny_bert

from qdrant_embed import InputError, QdrantClient, TextEmbedding
from qdrant_embed.encoder.facts.prompts import PromptChoice
from qdrant_embed.encoder.facts.spec import ModelSpec

SEARCH = "Given a web search query, retrieve relevant passages that answer the query"
PROMPTS = {
    "query": f"Instruct: {SEARCH}\nQuery: ",
    "document": "",
    "s2s": "Instruct: Retrieve semantically similar text.\nQuery: ",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("prompts") / "instructed", prompts=PROMPTS).path


def spec(query_prefix: str, **options: Any) -> ModelSpec:
    return ModelSpec("owner/model", 8, "mean", 32, query_prefix=query_prefix, **options)


@pytest.mark.parametrize(
    ("prefix", "made"),
    [
        ("Instruct: Find it.\nQuery: ", "Instruct: Find code\nQuery: "),
        ("Instruct: Find it.\nQuery:", "Instruct: Find code\nQuery:"),
        ("<instruct>Find it.\n<query>", "<instruct>Find code\n<query>"),
        ("task: search result | query: ", "task: Find code | query: "),
    ],
)
def test_a_task_takes_the_place_of_the_default(prefix: str, made: str) -> None:
    chosen = PromptChoice(task=" Find code ").of(spec(prefix, document_prefix="title: none | "))
    assert (chosen.query_prefix, chosen.document_prefix) == (made, "title: none | ")


def test_queries_alone_are_told_the_task(model: Path) -> None:
    told, plain = TextEmbedding(model, task="Find code"), TextEmbedding(model)
    assert plain.spec.query_prefix == PROMPTS["query"]
    assert told.spec.query_prefix == "Instruct: Find code\nQuery: "
    (expected,) = plain.embed("Instruct: Find code\nQuery: cat")
    np.testing.assert_array_equal(next(told.query_embed("cat")), expected)
    np.testing.assert_array_equal(next(told.passage_embed("cat")), next(plain.embed("cat")))


def test_a_prompt_is_chosen_by_its_name(model: Path) -> None:
    encoder = TextEmbedding(model, query_prompt="s2s", document_prompt="s2s")
    assert dict(encoder.spec.prompts) == PROMPTS
    assert encoder.spec.query_prefix == encoder.spec.document_prefix == PROMPTS["s2s"]
    again = pickle.loads(pickle.dumps(encoder))
    assert again.spec.query_prefix == PROMPTS["s2s"]
    assert encoder.variant(query_prefix="q").spec.query_prefix == "q"


def test_an_exported_folder_knows_the_prompts(model: Path, tmp_path: Path) -> None:
    TextEmbedding(model).export(tmp_path / "exported")
    encoder = TextEmbedding(tmp_path / "exported", query_prompt="s2s")
    assert encoder.spec.query_prefix == PROMPTS["s2s"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": ""}, "task is empty"),
        ({"task": " \n"}, "task is empty"),
        ({"task": 3}, "task must be"),
        ({"task": "x" * 100_000}, "task has 100,000 characters"),
        ({"task": "\ud800"}, "task"),
        ({"query_prompt": 3}, "query_prompt must be"),
        ({"query_prompt": "s2p"}, "did you mean 's2s'"),
        ({"document_prompt": "zzz"}, "it has 'query', 'document', 's2s'"),
        ({"task": "a", "query_prefix": "b"}, "only one of query_prefix, task"),
        ({"task": "a", "query_prompt": "b"}, "only one of query_prompt, task"),
        (
            {"document_prompt": "a", "document_prefix": "b"},
            "only one of document_prefix, document_prompt",
        ),
    ],
)
def test_what_cannot_be_chosen_is_refused(
    model: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        TextEmbedding(model, **options)


def test_a_model_that_is_told_nothing_refuses_a_task(tmp_path: Path) -> None:
    path = tiny_bert(tmp_path / "plain", prompts={"query": "query: "}).path
    encoder = TextEmbedding(path, task="Find code", lazy_load=True)
    with pytest.raises(InputError, match="not known to take a task: its queries have the prefix"):
        next(encoder.query_embed("cat"))
    with pytest.raises(InputError, match="plain has no such prompt: it has 'query'"):
        TextEmbedding(path, query_prompt="xyz")
    path = tiny_bert(tmp_path / "bare").path
    with pytest.raises(InputError, match="no prompts with names"):
        TextEmbedding(path, query_prompt="query")


def test_a_collection_remembers_the_task(model: Path) -> None:
    client = QdrantClient(":memory:")
    client.set_model(model, task="Find code")
    client.add("notes", ["a cat", "a dog"])
    told = client.query("notes", "cat")[0].score
    follower = QdrantClient(":memory:")
    follower._client = client._client
    follower.set_model(model, task="Find code")
    # local mode normalises stored vectors with each query, which moves the last digit of scores
    assert follower.query("notes", "cat")[0].score == pytest.approx(told, abs=1e-6)
    with pytest.raises(InputError, match="only models by name accept"):
        client.set_model(TextEmbedding(model), task="Find code")
