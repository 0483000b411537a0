"""Readers of bytes from outside, as a fuzzer calls them: each returns, or raises an error of ours.

``tox -e atheris`` runs each with atheris, which follows the branches that an input takes; the tests
run them on the seeds and what is near.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from hostile import models, payloads
from qdrant_embed import QdrantEmbedError, TextEmbedding
from qdrant_embed.cli.records import Field, Fields, Format, RecordFile
from qdrant_embed.collection.payload import PayloadCodec, chunk_facts
from qdrant_embed.collection.stamp import MARK_KEY, STAMP_KEY, read_mark, read_stamp
from qdrant_embed.encoder.facts.directory import ModelDirectory
from qdrant_embed.encoder.facts.tokenizer_file import read_tokenizer_file
from qdrant_embed.encoder.files.cache import sealed
from qdrant_embed.encoder.files.plan import MANIFEST, read_exported
from qdrant_embed.encoder.files.repository import is_file_inside, read_repository
from qdrant_embed.encoder.files.tensors import read_tensors, tensor_shapes
from qdrant_embed.encoder.run.tokenizer import Tokenizer
from qdrant_embed.ingest.chunks import joined_text


@dataclass(frozen=True)
class Reader:
    """A reader, and inputs that it accepts.

    Attributes:
        read: reads bytes; what it raises is a finding.
        seeds: sound inputs.
    """

    read: Callable[[bytes], None]
    seeds: Sequence[bytes]

    def __call__(self, data: bytes) -> None:
        """Read `data`; an error of ours is an answer."""
        with suppress(QdrantEmbedError):
            self.read(data)


def readers(folder: Path) -> dict[str, Reader]:
    """Return every reader by name; what they read from a file is written below `folder`."""
    bert = models.sound("bert", folder / "bert")
    static = models.sound("static", folder / "static")
    exported = folder / "exported"
    TextEmbedding(static, cache_dir=folder / "cache").export(exported)

    def file_of(model: Path, name: str, read: Callable[[Path], object]) -> Reader:
        copy = folder / f"{model.name}-{name.replace('/', '-')}"
        shutil.copytree(model, copy)
        seed = (copy / name).read_bytes()

        def write_and_read(data: bytes) -> None:
            (copy / name).write_bytes(data)
            read(copy)

        return Reader(write_and_read, [seed])

    return {
        "config": file_of(bert, "config.json", _directory),
        "modules": file_of(bert, "modules.json", _directory),
        "pooling": file_of(bert, "1_Pooling/config.json", _directory),
        "tokenizer": file_of(bert, "tokenizer.json", _tokenizer),
        "safetensors": file_of(static, "model.safetensors", _tensors),
        "manifest": file_of(exported, MANIFEST, _manifest),
        "stamp": Reader(_stamp, [json.dumps(stamp).encode() for stamp in _STAMPS]),
        "hub": Reader(_hub, [json.dumps(REPOSITORY).encode()]),
        "payload": Reader(_payload, [json.dumps(payloads.chunk()).encode()]),
        "jsonl": _records(
            "jsonl",
            b'{"text": "a", "id": 1, "day": "2024-01-01"}\n'
            b'{"text": "b", "id": "x", "day": "2024-01-02"}\n',
        ),
        "csv": _records("csv", b'text,id,day\na,1,2024-01-01\n"b, c",x,2024-01-02\n'),
    }


def _directory(folder: Path) -> None:
    directory = ModelDirectory(folder, tensor_shapes=tensor_shapes)
    spec = directory.spec("m")
    directory.settings(spec, read_tokenizer_file(directory.tokenizer))
    assert directory.weights("fp32")[0].resolve().is_relative_to(folder.resolve())


def _tokenizer(folder: Path) -> None:
    path = folder / "tokenizer.json"
    largest = read_tokenizer_file(path).largest_id
    tokenizer = Tokenizer(path, 64)
    for text in ("cat", "the mat \U00012000", ""):
        [ids] = tokenizer.tokenize([text]).ids
        assert max(ids, default=0) <= max(largest, tokenizer.vocabulary_size)


def _tensors(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensor_shapes([path])
    dict(read_tensors([path]))


def _manifest(folder: Path) -> None:
    path = folder / MANIFEST
    with suppress(ValueError, TypeError, RecursionError, AttributeError):  # or as it is
        content = json.loads(path.read_bytes())
        content.pop("digest", None)  # the digest of itself, which a fuzzer would never find
        path.write_text(sealed(content))
    for file in read_exported(folder).run:
        assert file.parent == folder


def _stamp(data: bytes) -> None:
    with suppress(ValueError, RecursionError):
        content = json.loads(data)
        with suppress(QdrantEmbedError):
            found = read_stamp("c", {STAMP_KEY: content})
            assert found is None or read_stamp("c", found.metadata()) == found
        with suppress(QdrantEmbedError):
            mark = read_mark("c", {MARK_KEY: content})
            assert mark is None or read_mark("c", mark.metadata()) == mark


def _hub(data: bytes) -> None:
    with suppress(ValidationError):
        for path in read_repository("a/b", data).files:
            assert is_file_inside(path)


def _payload(data: bytes) -> None:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not isinstance(content, dict):
        return
    codec = PayloadCodec()
    facts = chunk_facts(content)
    if facts is not None:
        joined_text([(facts, codec.document(content))])
    codec.metadata(content)


def _records(file_format: Format, seed: bytes) -> Reader:
    def read(data: bytes) -> None:
        fields = Fields("text", Field("id"), [Field("day", "date")])
        stream = io.BufferedReader(io.BytesIO(data))
        for document in RecordFile(stream, file_format, fields, "utf-8"):
            assert isinstance(document.text, str)

    return Reader(read, [seed])


_STAMPS = (
    {
        "model": "BAAI/bge-small-en-v1.5",
        "dimension": 384,
        "distance": "Cosine",
        "pooling": "cls",
        "query_prefix": "query: ",
        "max_tokens": 512,
        "overflow": "chunk",
        "vector_name": "fast-bge",
        "version": 1,
        "sparse": {"model": "Qdrant/bm25", "idf": True, "vector_name": "s", "k": 1.2},
        "late": {"model": "a/colbert", "dimension": 96, "vector_name": "t", "max_tokens": 300},
    },
    {"source": "/db", "collection": "c", "together": ["c", "d"], "complete": False},
)
REPOSITORY = {
    "id": "a/b",
    "sha": "0" * 40,
    "siblings": [
        {"rfilename": "config.json", "size": 3, "blobId": "0" * 40},
        {"rfilename": "model.safetensors", "lfs": {"sha256": "0" * 64, "size": 3}},
    ],
}
