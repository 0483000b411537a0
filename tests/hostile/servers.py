"""A hostile Qdrant server, and what is asked of it: every answer can be changed on its way.

Nothing listens: the client's requests over REST reach the node in this process.
"""

from __future__ import annotations

import atexit
import copy
import json
import math
import random
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import qdrant_client
from clients import Blocking, LetterEncoder, WordEncoder, at, opened
from fake_server import rest
from fake_server.node import Node
from fake_server.rules import RefusedError
from fake_server.serving import serving
from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]

from hostile.models import sound
from qdrant_embed import (
    QdrantClient,
    QdrantEmbedError,
    QueryResponse,
    StoredDocument,
    TextEmbedding,
)

Change = Callable[[str, Any], Any]  # an answer's name and its JSON, to JSON or to bytes

MOST = 400  # requests of one operation
DOCUMENTS = [
    "a cat",
    "the dog sat on the mat and the cat sat on the dog and ran, and the hat was on the mat",
    "mat and hat",
    "a dog",
    "the last of all cats sat on a mat of the dog. The cat ran. The dog sat. A mat was there.",
]
METADATA: list[dict[str, Any]] = [
    {"n": 1},
    {"n": 2, "deep": {"list": [1, None]}},
    {"n": 3},
    {"n": 4},
    {"n": 5},
]


class OtherEncoder(LetterEncoder):
    """Another encoder of a user's own."""

    model_name = "mine/Other"


class Lengths:
    """A reranker that prefers long texts."""

    def rerank(self, query: str, documents: Iterable[str], /) -> list[float]:
        return [float(len(text)) for text in documents]


@cache
def splitting(max_tokens: int = 8) -> TextEmbedding:
    """Return a model that splits documents into chunks of some words."""
    folder = Path(tempfile.mkdtemp(prefix="qdrant-embed-tests-splitting-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    sound("static", folder / "model")
    return TextEmbedding(
        folder / "model", overflow="chunk", max_tokens=max_tokens, cache_dir=folder / "cache"
    )


@contextmanager
def hostile(kind: str = "sync", *, grpc: bool = False) -> Iterator[Server]:
    """Run the block with a server that has three collections, and a client of it.

    Over gRPC `Server.change` gets messages, on loopback.
    """
    server = Server(Node(qdrant_client.QdrantClient(":memory:")))
    if grpc:
        with serving(grpc=True) as running, opened(kind, **at(running, grpc=True)) as client:
            running.node, running.change = server.node, server.answer_message
            server.client = client
            server.fill()
            yield server
        return
    transport = httpx.MockTransport(server.answer)
    with opened(
        kind, url="http://hostile", check_compatibility=False, timeout=5, transport=transport
    ) as client:
        server.client = client
        server.fill()
        yield server


class Server:
    """A server whose answers `change` may change.

    Attributes:
        node: what answers.
        client: a client of it.
        change: changes an answer.
        asked: number of requests since it was set.
    """

    client: QdrantClient

    def __init__(self, node: Node) -> None:
        self.node, self.asked = node, 0
        self.change: Change = lambda name, answer: answer
        self.names: list[str] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Answer a request; refuse it after too many."""
        self.asked += 1
        target = request.url.raw_path.decode()
        name = f"{request.method} {target.partition('?')[0]}"
        self.names.append(name)
        if self.asked > MOST:
            return httpx.Response(400, json={"status": {"error": "too many requests"}})
        try:
            answer = rest.answer(self.node, request.method, target, request.content)
        except RefusedError as refusal:
            answer = rest.refused(refusal)
        if answer.status != 200:
            return httpx.Response(answer.status, content=answer.body)
        changed = self.change(name, json.loads(answer.body))
        body = changed if isinstance(changed, bytes) else dumped(changed)
        return httpx.Response(200, content=body, headers={"Content-Type": "application/json"})

    def answer_message(self, name: str, message: Any) -> Any:
        """Return what is answered over gRPC."""
        self.asked += 1
        self.names.append(name)
        return self.change(name, message) if self.asked <= MOST else type(message)()

    def fill(self) -> None:
        """Store documents, in collections of every kind."""
        client = self.client
        ids: list[int | str] = [1, 2, "three", 4, 5]
        client.set_model(LetterEncoder())
        client.add("plain", DOCUMENTS, metadata=METADATA, ids=ids)
        client.set_sparse_model(WordEncoder())
        client.add("hybrid", DOCUMENTS, metadata=METADATA, ids=ids)
        client.set_sparse_model(None)
        client.set_model(splitting())
        client.add("chunks", DOCUMENTS, metadata=METADATA, ids=ids)
        database = self.node.database._client
        self._sound = copy.deepcopy((vars(database)["collections"], self.node.settings))

    def restore(self) -> None:
        """Have the documents that were stored first, and nothing else."""
        database = self.node.database._client
        collections, self.node.settings = copy.deepcopy(self._sound)
        vars(database).update(collections=collections, aliases={})
        self.asked, self.names = 0, []


def dumped(content: Any) -> bytes:
    """Return JSON, with numbers that JSON does not have."""
    return json.dumps(content).encode("utf-8", "surrogatepass")


def _model(client: QdrantClient, name: str) -> None:
    client.set_model(splitting() if name == "chunks" else LetterEncoder())
    client.set_sparse_model(WordEncoder() if name == "hybrid" else None)


def _hits(found: Any, limit: int) -> None:
    """Fail unless these are the hits of a query."""
    assert isinstance(found, list)
    assert len(found) <= limit
    for hit in found:
        assert isinstance(hit, QueryResponse)
        assert type(hit.id) in (int, str)
        assert math.isfinite(hit.score)
        assert isinstance(hit.document, str)


def _documents(found: Any) -> None:
    for document in found:
        if document is not None:
            assert isinstance(document, StoredDocument)
            assert type(document.id) in (int, str)
            assert isinstance(document.text, str)
            assert len(document.text) < 1 << 25


def _query(client: QdrantClient, name: str) -> None:
    _hits(client.query(name, "cat", limit=2, with_vectors=True), 2)
    if name == "chunks":
        for hit in client.query(name, "cat", limit=2, chunks=True):
            assert type(hit.id) in (int, str)


def _far_page(client: QdrantClient, name: str) -> None:
    _hits(client.query(name, "cat", limit=1, offset=3), 1)


def _batch(client: QdrantClient, name: str) -> None:
    found = client.query_batch(name, ["cat", "dog"], limit=2)
    assert len(found) == 2
    for hits in found:
        _hits(hits, 2)


def _reranked(client: QdrantClient, name: str) -> None:
    _hits(client.query(name, "cat", limit=2, reranker=Lengths()), 2)


def _skip(client: QdrantClient, name: str) -> None:
    ids: list[int | str] = [1, 2, "three", 6]
    stored = client.add(name, DOCUMENTS[:4], metadata=METADATA[:4], ids=ids, on_existing="skip")
    assert stored == ids


def _overwrite(client: QdrantClient, name: str) -> None:
    assert client.add(name, ["one", "dog"], ids=[1, 7]) == [1, 7]


def _content(client: QdrantClient, name: str) -> None:
    assert len(client.add(name, DOCUMENTS, ids="content", on_existing="skip")) == len(DOCUMENTS)


def _new(client: QdrantClient, name: str) -> None:
    assert client.add(f"new-{name}", DOCUMENTS[:2], ids=[1, 2]) == [1, 2]


def _get(client: QdrantClient, name: str) -> None:
    found = client.get_documents(name, [1, 2, "three", 99])
    assert len(found) == 4
    _documents(found)


def _scroll(client: QdrantClient, name: str) -> None:
    _documents(client.scroll_documents(name, batch_size=2))
    _documents(client.scroll_documents(name))


def _update(client: QdrantClient, name: str) -> None:
    client.update_metadata(name, [1, 2, "three"], {"x": 1})
    client.update_metadata(name, [1, 2, "three"], {"n": None})


def _delete(client: QdrantClient, name: str) -> None:
    client.delete_documents(name, [1, 2, "three", 99])


def _migrate(client: QdrantClient, name: str) -> None:
    encoder = splitting(9) if name == "chunks" else OtherEncoder()
    assert client.migrate_model(name, encoder, "other", alias="alias") >= 0


def _copy(client: QdrantClient, name: str) -> None:
    with opened("async" if isinstance(client, Blocking) else "sync", ":memory:") as other:
        inner = vars(other)["client"] if isinstance(other, Blocking) else other
        client.copy_to(inner, [name])


def _copy_here(client: QdrantClient, name: str) -> None:
    """Copy from a sound database to the hostile one."""
    kind = "async" if isinstance(client, Blocking) else "sync"
    with opened(kind, ":memory:") as other:
        _model(other, name)
        other.add("from", DOCUMENTS)
        other.copy_to(vars(client)["client"] if kind == "async" else client)


OPERATIONS: dict[str, Callable[[QdrantClient, str], None]] = {
    work.__name__[1:]: work
    for work in (
        _query,
        _far_page,
        _batch,
        _reranked,
        _skip,
        _overwrite,
        _content,
        _new,
        _get,
        _scroll,
        _update,
        _delete,
        _migrate,
        _copy,
        _copy_here,
    )
}
COLLECTIONS = ("plain", "hybrid", "chunks")


def operate(server: Server, operation: str, collection: str) -> str:
    """Run an operation; return the typed error that it ends in, ``""`` without one.

    Any other error is raised; so is `AssertionError` for a wrong answer, or too many requests.
    """
    said = ""
    _model(server.client, collection)
    server.restore()
    try:
        OPERATIONS[operation](server.client, collection)
    except QdrantEmbedError as error:
        said = f"{type(error).__name__}: {error}"
    assert server.asked <= MOST, f"{operation} of {collection} does not end: {server.names[-5:]}"
    return said


_WHOLE = [0, 1, 2, 7, 2**31 - 1, 2**32 - 1, -1, -(2**31), 2**63 - 1, 2**64 - 1, 10**9]
_FRACTIONS = [math.nan, math.inf, -math.inf, 0.0, 1e38, -1.0]
_TEXTS = ["", "x", "\0", "9" * 5000, "6d1f8e0a-7f0b-5c52-a3d4-1e9b6c2d8a75", "[[["]
_VALUES: dict[int, list[Any]] = {
    FieldDescriptor.CPPTYPE_INT32: _WHOLE,
    FieldDescriptor.CPPTYPE_INT64: _WHOLE,
    FieldDescriptor.CPPTYPE_UINT32: _WHOLE,
    FieldDescriptor.CPPTYPE_UINT64: _WHOLE,
    FieldDescriptor.CPPTYPE_ENUM: _WHOLE,
    FieldDescriptor.CPPTYPE_FLOAT: _FRACTIONS,
    FieldDescriptor.CPPTYPE_DOUBLE: _FRACTIONS,
    FieldDescriptor.CPPTYPE_BOOL: [True, False],
    FieldDescriptor.CPPTYPE_STRING: [*_TEXTS, b"\xff\xfe"],
}


def spoil(message: Any, chosen: random.Random) -> Any:
    """Change one field somewhere in a message of gRPC, and return the message."""
    inner, field = chosen.choice(_fields(message))
    found = getattr(inner, field.name)
    with suppress(ValueError, TypeError):  # a value that the field cannot have
        if hasattr(found, "extend"):
            how = chosen.choice(["fewer", "more", "none"])
            if how == "more":
                found.extend(list(found) * 3)
            else:
                del found[-1 if how == "fewer" and len(found) else 0 :]
        elif chosen.random() < 0.2 or hasattr(found, "keys"):
            inner.ClearField(field.name)
        elif field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
            found.SetInParent()
        else:
            setattr(inner, field.name, chosen.choice(_VALUES[field.cpp_type]))
    return message


def _fields(message: Any) -> list[tuple[Any, Any]]:
    """List every field of a message and of those in it."""
    fields = [(message, field) for field in message.DESCRIPTOR.fields]
    for _, value in message.ListFields():
        if hasattr(value, "keys"):
            inner = [value[key] for key in list(value)[:6]]
        else:
            inner = [*value[:5]] if hasattr(value, "extend") else [value]
        for each in inner:
            if hasattr(each, "DESCRIPTOR"):
                fields += _fields(each)
    return fields
