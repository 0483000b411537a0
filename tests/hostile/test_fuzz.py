"""Fuzzers of what reads bytes from outside: each returns, or raises an error of ours.

``QDRANT_EMBED_FUZZ=20000`` is how many examples each tries, 30 without it; ``tox -e fuzz`` sets it.
"""

from __future__ import annotations

import io
import json
import math
import os
import random
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch_zip
from clients import KINDS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from hostile import models, pickles, servers
from hostile.readers import REPOSITORY, Reader
from hostile.readers import readers as all_readers
from hostile.run_atheris import NAMES
from qdrant_embed import QdrantEmbedError, TextEmbedding
from qdrant_embed.backoff import Backoff, retry_after_seconds
from qdrant_embed.cli.records import FORMATS, Field, Fields, Format, RecordFile
from qdrant_embed.collection.stamp import (
    MARK_KEY,
    STAMP_KEY,
    check_sparse_stamp,
    check_stamp,
    read_mark,
    read_stamp,
)
from qdrant_embed.encoder.facts.directory import ModelDirectory
from qdrant_embed.encoder.facts.tokenizer_file import read_tokenizer_file
from qdrant_embed.encoder.files.cache import sealed, unsealed
from qdrant_embed.encoder.files.compiled import read_compiled
from qdrant_embed.encoder.files.inventory import cache_entries, check_cache
from qdrant_embed.encoder.files.plan import MANIFEST, PlanCache, check_exported, read_exported
from qdrant_embed.encoder.files.repository import is_file_inside, read_repository
from qdrant_embed.encoder.files.snapshots import Snapshots
from qdrant_embed.encoder.files.tensors import read_tensors, tensor_shapes
from qdrant_embed.encoder.interfaces import EncoderDescription, SparseDescription
from qdrant_embed.encoder.run.tokenizer import Tokenizer
from qdrant_embed.flows import requests

fuzz = settings(
    max_examples=int(os.environ.get("QDRANT_EMBED_FUZZ", "30")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

_NUMBERS = st.sampled_from(
    [
        0,
        -1,
        1,
        2**31,
        2**63,
        2**64,
        -(2**63) - 1,
        10**400,
        1e308,
        -1e-320,
        math.inf,
        -math.inf,
        math.nan,
    ]
)
_TEXTS = st.text(max_size=20) | st.sampled_from(
    ["\ud800", "\0", "..", "**", "x" * 5000, "\x1b[31m"]
)
_LEAVES = st.none() | st.booleans() | _NUMBERS | st.integers() | st.floats() | _TEXTS
JSON = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4),
    max_leaves=12,
)
TEXTS = ["cat", "the cat sat on the mat", "paris \U00012000 zz", "", "mat " * 200]


def places(content: Any) -> list[tuple[Any, Any]]:
    """List every container in `content` with each of its keys."""
    found, waiting = [], [content]
    while waiting:
        outer = waiting.pop()
        keys = outer.keys() if isinstance(outer, dict) else range(len(outer))
        for key in list(keys)[:50]:
            found.append((outer, key))
            if isinstance(outer[key], dict | list) and outer[key]:
                waiting.append(outer[key])
    return found


@st.composite
def mutated(draw: st.DrawFn, content: bytes) -> bytes:
    """Draw a JSON file that is like `content`, or bytes that are near it, or anything."""
    how = draw(st.sampled_from(["values", "values", "values", "keys", "bytes", "json", "any"]))
    if how == "any":
        return draw(st.binary(max_size=200))
    if how == "json":
        return json.dumps(draw(JSON)).encode("utf-8", "surrogatepass")
    if how == "bytes":
        data = bytearray(content)
        for _ in range(draw(st.integers(1, 8))):
            position = draw(st.integers(0, len(data) - 1))
            cut = draw(st.integers(0, 3))
            data[position : position + cut] = draw(st.binary(max_size=4))
            if not data:
                return b""
        return bytes(data)
    found = json.loads(content)
    for _ in range(draw(st.integers(1, 3))):
        known = places(found)
        if not known:
            break
        outer, key = draw(st.sampled_from(known))
        if how == "keys":
            del outer[key]
        else:
            outer[key] = draw(JSON)
    return json.dumps(found).encode("utf-8", "surrogatepass")


def ours(work: Callable[[], object], *also: type[Exception]) -> None:
    """Do the work; an error of ours, or one of `also`, is an answer."""
    with suppress(QdrantEmbedError, *also):
        work()


@pytest.fixture(scope="module", params=["bert", "static", "onnx"])
def sound(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.sound(request.param, tmp_path_factory.mktemp("sound") / "model")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


def copied(folder: Path, work: Path) -> Path:
    shutil.rmtree(work / "model", ignore_errors=True)
    shutil.copytree(folder, work / "model")
    return work / "model"


@fuzz
@given(data=st.data())
def test_configs_and_module_chains(data: st.DataObject, sound: Path, work: Path) -> None:
    folder = copied(sound, work)
    names = sorted(path.relative_to(sound) for path in sound.rglob("*.json"))
    name = data.draw(st.sampled_from([n for n in names if n.name != "tokenizer.json"]))
    (folder / name).write_bytes(data.draw(mutated((sound / name).read_bytes())))

    def read() -> None:
        directory = ModelDirectory(folder, tensor_shapes=tensor_shapes)
        spec = directory.spec("m")
        directory.settings(spec, read_tokenizer_file(directory.tokenizer))
        assert directory.vocabulary is None or directory.vocabulary >= 0
        assert directory.weights("fp32")[0].resolve().is_relative_to(folder.resolve())

    ours(read)


@fuzz
@given(data=st.data())
def test_tokenizer_files(data: st.DataObject, sound: Path, work: Path) -> None:
    path = work / "tokenizer.json"
    path.write_bytes(data.draw(mutated((sound / "tokenizer.json").read_bytes())))

    def read() -> None:
        largest = read_tokenizer_file(path).largest_id
        tokenizer = Tokenizer(path, 64)
        for text in TEXTS:
            [ids] = tokenizer.tokenize([text]).ids
            assert max(ids, default=0) <= max(largest, tokenizer.vocabulary_size)
            assert len(ids) <= 64
            tokenizer.count(text)

    ours(read)


@fuzz
@given(data=st.data())
def test_whole_static_models(data: st.DataObject, work: Path, tmp_path_factory: Any) -> None:
    base = work / "static"
    if not base.exists():
        models.sound("static", base)
    folder = copied(base, work)
    name = data.draw(st.sampled_from(["config.json", "tokenizer.json"]))
    (folder / name).write_bytes(data.draw(mutated((base / name).read_bytes())))

    def load() -> None:
        encoder = TextEmbedding(folder, cache_dir=work / "cache")
        vectors = list(encoder.embed(TEXTS))
        assert np.isfinite(np.stack(vectors)).all()

    ours(load)


def _header(content: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(content) if length is None else length) + content


@fuzz
@given(data=st.data())
def test_safetensors(data: st.DataObject, sound: Path, work: Path) -> None:
    if not (sound / "model.safetensors").exists():
        return
    whole = (sound / "model.safetensors").read_bytes()
    size = struct.unpack("<Q", whole[:8])[0]
    header = data.draw(mutated(whole[8 : 8 + size]))
    length = data.draw(st.none() | st.integers(0, 2**64 - 1))
    rest = whole[8 + size :][: data.draw(st.sampled_from([None, 0, 100]))]
    path = work / "model.safetensors"
    path.write_bytes(_header(header, length) + rest)

    def read() -> None:
        tensor_shapes([path])
        for tensor in read_tensors([path]).values():
            assert tensor.dtype.kind in "fi"

    ours(read)


_TENSORS: dict[str, NDArray[Any]] = {
    "a": np.ones((3, 4), np.float32),
    "b": np.arange(5),
    "c": np.ones(2, np.float16),
}
_PICKLED = torch_zip.parts_of(_TENSORS)["data.pkl"]
_PIECES = st.sampled_from(
    [
        torch_zip.EMPTY,
        torch_zip.storage("Float", "0", 12),
        torch_zip.tensor(torch_zip.storage("BFloat16", "2", 2), 0, (2,), (1,)),
        torch_zip.name_of("builtins", "exec"),
        torch_zip.text("a"),
        *torch_zip.described(_TENSORS).values(),
        *pickles.programs().values(),
        *(bytes([code]) for code in range(256)),
    ]
)


@st.composite
def pickled(draw: st.DrawFn) -> bytes:
    """Draw a pickle that is near a sound one, or made of pieces of such."""
    if draw(st.booleans()):
        return torch_zip.PROTO + b"".join(draw(st.lists(_PIECES, max_size=30))) + b"."
    data = bytearray(_PICKLED)
    for _ in range(draw(st.integers(1, 8))):
        at = draw(st.integers(0, len(data) - 1))
        data[at : at + draw(st.integers(0, 4))] = draw(st.binary(max_size=4) | _PIECES)
    return bytes(data)


@fuzz
@given(data=st.data())
def test_torch_files(data: st.DataObject, work: Path) -> None:
    content = torch_zip.parts_of(_TENSORS)
    if data.draw(st.booleans()):
        content["data.pkl"] = data.draw(pickled())
    whole = bytearray(torch_zip.zipped(content))
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    path = work / "pytorch_model.bin"
    path.write_bytes(whole)

    def read() -> None:
        found = read_tensors([path])
        shapes = tensor_shapes([path])
        assert len(shapes) >= len(found)
        for tensor in found.values():
            assert tensor.dtype.kind in "fi"
            assert tensor.nbytes <= 8 * len(whole)

    ours(read)
    assert not Path("executed").exists()  # which the programs among the pieces would write


@fuzz
@given(data=st.data())
def test_archives_of_arrays(data: st.DataObject, work: Path) -> None:
    stream = io.BytesIO()
    np.savez(stream, embeddings=np.ones((4, 4), np.float32))
    content = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        position = data.draw(st.integers(0, len(content) - 1))
        content[position : position + data.draw(st.integers(0, 2))] = data.draw(
            st.binary(max_size=3)
        )
    path = work / "static.npz"
    path.write_bytes(bytes(content))
    ours(lambda: dict(read_tensors([path])))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    sound = models.sound("static", folder / "model")
    TextEmbedding(sound, cache_dir=folder / "cache").export(folder / "out")
    return folder


@fuzz
@given(data=st.data(), seal=st.booleans())
def test_manifests(data: st.DataObject, seal: bool, exported: Path, work: Path) -> None:
    folder = copied(exported / "out", work)
    content = unsealed((folder / MANIFEST).read_bytes())
    made = data.draw(mutated(json.dumps(content).encode()))
    if seal:
        try:
            made = sealed(json.loads(made)).encode()
        except (ValueError, TypeError, RecursionError):
            return
    (folder / MANIFEST).write_bytes(made)

    def read() -> None:
        plan = read_exported(folder)
        for path in (*plan.run, plan.tokenizer):
            assert path.parent == folder
        check_exported(folder, plan, work / "cache")
        encoder = TextEmbedding(folder, cache_dir=work / "cache")
        assert len(list(encoder.embed(TEXTS))) == len(TEXTS)
        encoder.describe()

    ours(read)


@fuzz
@given(data=st.data())
def test_records_and_notes(data: st.DataObject, exported: Path, work: Path) -> None:
    """What is kept in the cache is no error, whatever it is: it is made again."""
    cache = work / "notes"
    record = {"name": "a/b", "commit": "0" * 40, "paths": ["x.json"], "files": {}}
    made = data.draw(mutated(json.dumps(record).encode()))
    base = cache / "hub" / "a--b"
    (base / "refs").mkdir(parents=True, exist_ok=True)
    (base / f"{'0' * 40}.json").write_bytes(made)
    (base / "refs" / "main").write_bytes(data.draw(st.just(b"0" * 40) | st.binary(max_size=50)))
    compiled = cache / "compiled" / "m-fp32-x"
    compiled.mkdir(parents=True, exist_ok=True)
    report = {"model": "m", "weights_sha256": "x", "file": "f", "precision": "fp32", "seconds": 1.0}
    sizes = {"graph_bytes": 1, "weights_bytes": 1, "graph_version": 4}
    digests = {"graph_sha256": "x", "constants_sha256": "y"}
    (compiled / "compiled.json").write_bytes(
        data.draw(mutated(json.dumps(report | sizes | digests).encode()))
    )
    read_compiled(compiled)
    ours(lambda: Snapshots(cache, "a/b").find(None, "int8"))
    cache_entries(cache)
    check_cache(cache)
    plans = PlanCache(exported / "model", ("options",), cache)
    [kept] = (exported / "cache" / "plans").iterdir()
    plans._file.parent.mkdir(exist_ok=True)
    plans._file.write_bytes(data.draw(mutated(kept.read_bytes())))
    plans.read()


@fuzz
@given(content=mutated(json.dumps(REPOSITORY).encode()))
def test_hub_answers(content: bytes) -> None:
    def read() -> None:
        repository = read_repository("a/b", content)
        for path in repository.files:
            assert is_file_inside(path)
            assert os.path.normpath(f"/cache/{path}").startswith("/cache/")

    ours(read, ValidationError)


@fuzz
@given(path=st.text(max_size=30) | st.from_regex(r"[./\\:a~*\x00]{1,12}", fullmatch=True))
def test_paths_of_a_hub(path: str) -> None:
    if is_file_inside(path):
        assert os.path.normpath(f"/cache/{path}").startswith("/cache/")
        assert "\\" not in os.path.normpath(path) or ".." not in path.split("\\")
        path.encode()


@fuzz
@given(
    value=st.text(max_size=80)
    | st.from_regex(r"\w{3}, [0-9]{1,3} \w{3} [0-9]{1,20} [0-9:]{1,12} [+-]?[0-9A-Z]{1,12}")
)
def test_waits_that_are_asked_for(value: str) -> None:
    seconds = retry_after_seconds(value)
    assert seconds is None or 0 <= seconds < math.inf


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reader]:
    found = all_readers(tmp_path_factory.mktemp("readers"))
    assert tuple(found) == NAMES
    return found


@fuzz
@given(data=st.data(), name=st.sampled_from(NAMES))
def test_readers_of_atheris(data: st.DataObject, name: str, readers: dict[str, Reader]) -> None:
    """Their seeds are read without an error, and what is near them as ``tox -e atheris`` does."""
    reader = readers[name]
    seed = data.draw(st.sampled_from(reader.seeds))
    reader.read(seed)
    made = bytearray(seed)
    for _ in range(data.draw(st.integers(0, 3))):
        position = data.draw(st.integers(0, len(made)))
        made[position : position + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    reader(bytes(made))


_LINES = ['{"text": "cat", "id": 1, "day": "2024-01-01"}', '{"text": "dog", "id": "x", "day": 3}']
_ROWS = ["text,id,day", "cat,1,2024-01-01", '"d,og",x,', '"two\nlines",2,2024-01-01T00:00:00Z']


@fuzz
@given(
    data=st.data(),
    file_format=st.sampled_from(FORMATS),
    encoding=st.sampled_from(
        ["utf-8", "utf-16", "cp1252", "utf-7", "utf-32-le", "cp037", "gb18030"]
    ),
    type_of=st.sampled_from([None, "str", "int", "float", "bool", "date"]),
)
def test_lines_of_files(
    data: st.DataObject, file_format: Format, encoding: str, type_of: str | None
) -> None:
    lines = _ROWS if file_format == "csv" else _LINES
    content = bytearray("\n".join(lines).encode(encoding))
    for _ in range(data.draw(st.integers(0, 6))):
        position = data.draw(st.integers(0, len(content)))
        inserted = data.draw(
            st.binary(max_size=6) | _TEXTS.map(lambda t: t.encode("utf-8", "ignore"))
        )
        content[position : position + data.draw(st.integers(0, 4))] = inserted
    deep = data.draw(
        st.sampled_from([b"", b'{"text": "x", "a": ' + b"[" * 3000 + b"]" * 3000 + b"}"])
    )
    stream = io.BufferedReader(io.BytesIO(bytes(content) + b"\n" + deep))
    fields = Fields("text", Field("id"), [Field("day", type_of)])

    def read() -> None:
        for document in RecordFile(stream, file_format, fields, encoding):
            assert isinstance(document.text, str)

    ours(read)


_STAMP = {
    "model": "BAAI/bge-small-en-v1.5",
    "dimension": 384,
    "distance": "Cosine",
    "pooling": "cls",
    "revision": "0" * 40,
    "weights_sha256": "0" * 64,
    "tokenizer_sha256": "0" * 64,
    "query_prefix": "query: ",
    "document_prefix": "",
    "max_tokens": 512,
    "overflow": "chunk",
    "overlap": 3,
    "vector_name": "fast-bge-small-en-v1.5",
    "version": 1,
    "sparse": {"model": "Qdrant/bm25", "idf": True, "vector_name": "fast-sparse-bm25", "k": 1.2},
}
_MARK = {"source": "/db", "collection": "c", "together": ["c", "d"], "complete": False}


@fuzz
@given(stamp=mutated(json.dumps(_STAMP).encode()), mark=mutated(json.dumps(_MARK).encode()))
def test_stamps(stamp: bytes, mark: bytes) -> None:
    """A stamp is refused, or says of a model what can be compared."""

    def content(made: bytes) -> Any:
        try:
            return json.loads(made)
        except (ValueError, RecursionError):
            return None

    def read() -> None:
        metadata = {STAMP_KEY: content(stamp), MARK_KEY: content(mark)}
        found = read_stamp("c", metadata)
        if found is not None:
            assert isinstance(found.model, str)
            assert read_stamp("c", found.metadata()) == found
            ours(lambda: check_stamp("c", found, EncoderDescription(model="m", dimension=3)))
            if found.sparse is not None:
                sparse = found.sparse
                ours(lambda: check_sparse_stamp("c", sparse, SparseDescription(model="m")))
        copied = read_mark("c", metadata)
        assert copied is None or read_mark("c", copied.metadata()) == copied

    ours(read)


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[servers.Server]:
    with servers.hostile(request.param) as running:
        yield running


@pytest.fixture(scope="module", params=KINDS)
def server_of_grpc(request: pytest.FixtureRequest) -> Iterator[servers.Server]:
    with servers.hostile(request.param, grpc=True) as running:
        yield running


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for nothing that a server is asked again for."""
    monkeypatch.setattr(requests, "SOON", Backoff(first=0.0001, longest=0.001))
    monkeypatch.setattr(requests, "SETTLING", 0.02)


_OPERATIONS = st.sampled_from(list(servers.OPERATIONS))
_COLLECTIONS = st.sampled_from(servers.COLLECTIONS)


def _changing(first: int, goes_on: bool, change: Callable[[Any], Any]) -> servers.Change:
    """Change the answer to a request, or all from there on."""
    count = -1

    def changed(name: str, answer: Any) -> Any:
        nonlocal count
        count += 1
        return change(answer) if count == first or (goes_on and count > first) else answer

    return changed


@fuzz
@given(
    changes=st.lists(st.tuples(st.integers(0, 10**6), JSON | st.none()), min_size=1, max_size=3),
    how=st.sampled_from(["values", "values", "keys", "bytes"]),
    operation=_OPERATIONS,
    collection=_COLLECTIONS,
    first=st.integers(0, 7),
    goes_on=st.booleans(),
)
def test_qdrant_answers(
    changes: list[tuple[int, Any]],
    how: str,
    operation: str,
    collection: str,
    first: int,
    goes_on: bool,
    server: servers.Server,
    quick: None,
) -> None:
    """What is right or refused is known to `operate`, which raises what is neither."""

    def changed(answer: Any) -> bytes:  # nothing is drawn here: how often it is called is not known
        content = servers.dumped(answer)
        for place, value in changes:
            content = spoilt(content, how, place, value)
        return content

    server.change = _changing(first, goes_on, changed)
    servers.operate(server, operation, collection)


def spoilt(content: bytes, how: str, place: int, value: Any) -> bytes:
    """Change JSON at one place: a value, a key that is left out, or a byte."""
    if how == "bytes":
        place %= len(content) + 1
        return content[:place] + bytes([place % 256]) * (place % 3) + content[place + 1 :]
    found = json.loads(content)
    if not (known := places(found)):
        return servers.dumped(value)
    outer, key = known[place % len(known)]
    if how == "keys":
        del outer[key]
    else:
        outer[key] = value
    return servers.dumped(found)


@fuzz
@given(
    seed=st.integers(0, 2**32),
    operation=_OPERATIONS,
    collection=_COLLECTIONS,
    first=st.integers(0, 7),
    goes_on=st.booleans(),
)
def test_qdrant_answers_over_grpc(
    seed: int,
    operation: str,
    collection: str,
    first: int,
    goes_on: bool,
    server_of_grpc: servers.Server,
    quick: None,
) -> None:
    chosen = random.Random(seed)
    server_of_grpc.change = _changing(
        first, goes_on, lambda message: servers.spoil(message, chosen)
    )
    servers.operate(server_of_grpc, operation, collection)
