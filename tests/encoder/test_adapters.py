"""Models with weights for each task, of which `task=` chooses some: jina-embeddings-v3."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from architecture_fixtures import write
from hub_server import serving
from numpy.typing import NDArray

from qdrant_embed import CollectionMismatchError, InputError, QdrantClient, TextEmbedding

INSTRUCTIONS = {
    "retrieval.query": "query : ",
    "retrieval.passage": "passage : ",
    "separation": "",
    "classification": "",
    "text-matching": "match : ",
}
TEXTS = ["cat", "the cat sat on the mat"]


def change(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("jina") / "model"
    write(path, "xlm-roberta-flash")
    change(path, task_instructions=INSTRUCTIONS)
    return path


def encoder(folder: Path, task: str | None = None, **options: Any) -> TextEmbedding:
    return TextEmbedding(folder, precision="fp32", task=task, **options)


def vectors(found: Any) -> NDArray[np.float32]:
    return np.stack(list(found))


@pytest.fixture(scope="module")
def exact(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Vectors of `TEXTS` by weights and prefix, of models that have these as their only ones."""
    found = {}
    for number, (task, prefix) in enumerate(INSTRUCTIONS.items()):
        own = tmp_path_factory.mktemp("own") / f"{number}"
        write(own, "xlm-roberta-flash")
        change(own, lora_task=task)
        found[task] = vectors(encoder(own).embed([prefix + text for text in TEXTS]))
    return found


@pytest.mark.parametrize(
    ("task", "queries", "documents"),
    [
        ("text-matching", "text-matching", "text-matching"),
        ("separation", "separation", "separation"),
        ("retrieval.query", "retrieval.query", "retrieval.query"),
        ("retrieval", "retrieval.query", "retrieval.passage"),
    ],
)
def test_a_task_chooses_weights_and_what_is_put_before_texts(
    task: str, queries: str, documents: str, folder: Path, exact: dict[str, Any], tmp_path: Path
) -> None:
    first = encoder(folder, task, cache_dir=tmp_path)
    first.export(tmp_path / "out")
    again = encoder(folder, task, cache_dir=tmp_path)  # by its cached plan
    for found in (first, again, encoder(tmp_path / "out"), encoder(tmp_path / "out", task)):
        assert found.spec.query_prefix == INSTRUCTIONS[queries]
        assert found.spec.document_prefix == INSTRUCTIONS[documents]
        np.testing.assert_allclose(vectors(found.query_embed(TEXTS)), exact[queries], atol=1e-6)
        stored = vectors(found.passage_embed(TEXTS))
        np.testing.assert_allclose(stored, exact[documents], atol=1e-6)
        facts = (found.describe().adapter, found.describe().tokenizer_sha256)
        assert facts == (task, first.describe().tokenizer_sha256)


def test_weights_of_tasks_differ(exact: dict[str, Any]) -> None:
    for one in INSTRUCTIONS:
        for other in INSTRUCTIONS:
            assert one == other or np.abs(exact[one] - exact[other]).max() > 1e-2


def test_the_default_is_what_it_was_before_tasks_could_be_chosen(folder: Path) -> None:
    plain = encoder(folder)
    assert plain.describe() == encoder(folder, "retrieval.passage").describe()
    assert plain.describe().adapter is None
    client = QdrantClient(":memory:")
    client.set_model(folder, precision="fp32")
    client.add("demo", TEXTS)
    metadata = client.get_collection("demo").config.metadata or {}
    assert "adapter" not in metadata["qdrant_embed"]


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (
            "text_matching",
            r"'text_matching'.*tasks retrieval, retrieval.query.*did you mean 'text-",
        ),
        ("Given a question, find code", r"for the tasks retrieval, retrieval.query, [^?]*$"),
    ],
)
def test_a_task_without_weights_is_refused(task: str, message: str, folder: Path) -> None:
    with pytest.raises(InputError, match=message):
        encoder(folder, task)


def test_another_task_than_an_exported_one_is_refused(folder: Path, tmp_path: Path) -> None:
    encoder(folder, "separation").export(tmp_path / "out")
    with pytest.raises(InputError, match=r"'text-matching', but .* for the task 'separation'"):
        encoder(tmp_path / "out", "text-matching")


def test_a_collection_of_another_task_is_refused(folder: Path) -> None:
    client = QdrantClient(":memory:")
    client.set_model(folder, precision="fp32", task="separation")
    client.add("demo", TEXTS, ids=[1, 2])
    assert client.query("demo", TEXTS[0])[0].id == 1
    client.set_model(folder, precision="fp32", task="text-matching")
    with pytest.raises(CollectionMismatchError, match="adapter 'separation', not 'text-matching'"):
        client.query("demo", TEXTS[0])
    client.set_model(folder, precision="fp32")
    with pytest.raises(CollectionMismatchError, match="tokenizer_sha256"):
        client.query("demo", TEXTS[0])


PROGRAM = """
import json, sys
from qdrant_embed import QdrantClient
job = json.load(sys.stdin)
client = QdrantClient(":memory:", trust_stamps=True)
found = {}
for task in job["tasks"]:
    client.set_model("someone/jina", task=task)
    client.add(task, job["texts"], ids=[1, 2])
    found[task] = [client.query(task, job["texts"][1])]
other = QdrantClient(":memory:", trust_stamps=True)
client.copy_to(other)
for task, hits in found.items():
    hits.append(other.query(task, job["texts"][1]))
print(json.dumps({task: [[hit.score for hit in some] for some in hits]
    for task, hits in found.items()}))
"""


@pytest.mark.slow
def test_a_stamp_is_followed_with_the_weights_of_its_task(folder: Path, tmp_path: Path) -> None:
    with serving("someone/jina", folder) as hub:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            input=json.dumps({"texts": TEXTS, "tasks": ["text-matching", "retrieval"]}),
            check=False,
            capture_output=True,
            text=True,
            env=os.environ
            | {
                "HF_ENDPOINT": hub.url,
                "HF_HOME": str(tmp_path),
                "QDRANT_EMBED_CACHE": str(tmp_path),
            },
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    for task, (written, followed) in json.loads(done.stdout).items():
        assert followed == pytest.approx(written, abs=1e-6), task
