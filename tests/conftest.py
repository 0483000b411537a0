"""What the whole suite shares: real MiniLM weights, a cache of its own, and no network."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import HealthCheck, settings

# before huggingface_hub is imported, which reads it once: nothing listens there
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"
for _variable in ("HF_HUB_OFFLINE", "HF_TOKEN", "QDRANT_EMBED_CACHE", "SSL_CERT_FILE"):
    os.environ.pop(_variable, None)
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="qdrant-embed-tests-hf-")
# nothing on loopback speaks TLS, and to read real certificates takes longer than most tests
os.environ["SSL_CERT_DIR"] = tempfile.mkdtemp(prefix="qdrant-embed-tests-no-certificates-")

from clients import KINDS, at, named_server, opened, prefixed
from hub_server import downloaded
from rerankers import unpacked
from rest_server import Server, serving
from tiny import TinyModel, tiny_bert

from qdrant_embed import QdrantClient, TextCrossEncoder, TextEmbedding, encoder
from qdrant_embed.backoff import Backoff
from qdrant_embed.encoder.facts.catalog import MINILM
from qdrant_embed.encoder.files.cache import locked
from qdrant_embed.flows import requests

_COMPILED = "QDRANT_EMBED_TESTS_COMPILED"
_LIBRARIES = ("numpy", "onnx", "onnxruntime", "tokenizers")

# a test waits for no server longer than it must; those of the waits themselves ask for `patience`
PATIENCE = requests.BACKOFF
requests.BACKOFF = Backoff(first=0.001, longest=0.01)

# a busy machine is no failure
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_addoption(parser: pytest.Parser) -> None:
    """How often the test of killed processes kills one, ``--kills 20``, and how many documents
    the test of a failing server stores, ``--documents 20000``; how many random schedules of
    threads are run, ``--schedules 200``, and the seed of the first.
    """
    parser.addoption("--kills", type=int, default=2)
    parser.addoption("--schedules", type=int, default=8)
    parser.addoption("--seed", type=int, default=0)
    parser.addoption("--documents", type=int, default=500)
    parser.addoption("--part", default="1/1", help="2/3 is the second of three parts of the tests")
    parser.addoption("--pictures", action="store_true", help="make the page's pictures anew")
    for option, meaning in (
        ("--url", "REST address of a running Qdrant: run on it what can be run on it"),
        ("--grpc-port", "its port of gRPC, without which nothing is run over gRPC"),
        ("--api-key", "its API key"),
    ):
        parser.addoption(option, help=meaning)


@pytest.hookimpl(tryfirst=True)  # before marks select
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out, if the command line names a server, the tests that do not run on it.

    Without a server, tests by gRPC or on a folder are marked as such, and are slow as well on the
    asynchronous client: every engine and every kind of client has another combination. Of several
    parts of the tests, ``--part`` leaves one, chosen by the tests' names.
    """
    part, parts = map(int, config.getoption("part").split("/"))
    others = {item for item in items if crc32(item.nodeid.encode()) % parts != part % parts}
    config.hook.pytest_deselected(items=[*others])
    items[:] = [item for item in items if item not in others]
    if config.getoption("url") is None:
        for item in items:
            kinds = _kinds(item)
            if any(place in kinds for place in ("grpc", "path", "edge")):
                item.add_marker("further")
                if "async" in kinds:
                    item.add_marker("slow")
        return
    there = [item for item in items if _runs_on_named_server(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in there])
    items[:] = there
    for item in items:  # a key over http is the user's own wish
        item.add_marker(pytest.mark.filterwarnings("ignore:Api key is used"))


def _kinds(item: pytest.Item) -> list[str]:
    """Return the names of the engine and the kind of client that a test runs on."""
    params = item.callspec.params if hasattr(item, "callspec") else {}
    return [value for value in params.values() if isinstance(value, str)]


def _runs_on_named_server(item: pytest.Item) -> bool:
    """Return whether the test runs on any server, and over a transport that is named."""
    place = (
        item.callspec.params.get("unset")
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
        else None
    )
    if place in ("server", "grpc"):
        return named_server(item.config, grpc=place == "grpc") is not None
    return item.path.parent.name == "server"


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One cache folder for the process."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["QDRANT_EMBED_CACHE"] = str(folder)
    yield folder
    del os.environ["QDRANT_EMBED_CACHE"]


@pytest.fixture(scope="session")
def compiled_minilm(cache: Path) -> None:
    """MiniLM in int8 in the cache; in tox compiled once for all processes alike.

    Alike are those with the same code of the encoder and the same libraries below it.
    """
    if (shared := os.environ.get(_COMPILED)) is None:
        TextEmbedding(MINILM)
        return
    key = hashlib.sha256(repr([(name, version(name)) for name in _LIBRARIES]).encode())
    for path in sorted(Path(encoder.__file__).parent.rglob("*")):
        if path.suffix in (".py", ".jsonl"):
            key.update(path.read_bytes())
    folder = Path(shared) / key.hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock"):
        TextEmbedding(MINILM, cache_dir=folder)
    (cache / "compiled").mkdir(exist_ok=True)
    for made in (folder / "compiled").iterdir():
        (cache / "compiled" / made.name).symlink_to(made)


@pytest.fixture(scope="session")
def minilm(compiled_minilm: None) -> TextEmbedding:
    """The real all-MiniLM-L6-v2, from the installed package that carries it."""
    return TextEmbedding(MINILM)


@pytest.fixture(scope="session")
def minilm_fp32(cache: Path) -> TextEmbedding:
    """The same with exact vectors."""
    return TextEmbedding(MINILM, precision="fp32")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """A random two-layer model, mean pooling, no prefixes: fast, and as real as any other."""
    return tiny_bert(tmp_path_factory.mktemp("models") / "tiny-bert")


@pytest.fixture(scope="session")
def tiny_e5(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """The same with e5's prefixes, stated in the model's own files."""
    return tiny_bert(
        tmp_path_factory.mktemp("models") / "tiny-e5",
        prompts={"query": "query: ", "document": "passage: "},
        seed=5,
    )


@pytest.fixture(scope="session")
def reranker(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """The folder of a small cross-encoder, exported so that nothing is compiled."""
    folder = tmp_path_factory.mktemp("models") / "tiny-reranker"
    source = unpacked("bert", tmp_path_factory.mktemp("unpacked") / "bert").folder
    TextCrossEncoder(source, precision="fp32").export(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_name(tiny: TinyModel, cache: Path) -> str:
    """The name of the tiny model, downloaded: collections that it wrote can be followed."""
    return downloaded("someone/tiny-bert", tiny.path)


@pytest.fixture(scope="session")
def tiny_e5_name(tiny_e5: TinyModel, cache: Path) -> str:
    """The same of the other model."""
    return downloaded("someone/tiny-e5", tiny_e5.path)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The synchronous and the asynchronous client."""
    return str(request.param)


@pytest.fixture
def client(kind: str, tiny: TinyModel) -> Iterator[QdrantClient]:
    """An in-memory client of either kind on the tiny model."""
    with opened(kind, ":memory:") as client:
        client.set_model(tiny.path)
        yield client


@pytest.fixture
def server() -> Iterator[Server]:
    """A Qdrant on loopback."""
    with serving() as running:
        yield running


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait between tries as long as users do."""
    monkeypatch.setattr(requests, "BACKOFF", PATIENCE)


@pytest.fixture
def grpc_server() -> Iterator[Server]:
    """A Qdrant on loopback that listens to gRPC, too."""
    with serving(grpc=True) as running:
        yield running


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ca.pem, and server.pem and server.key for localhost."""
    if shutil.which("openssl") is None:
        pytest.skip("makes certificates with openssl")
    folder = tmp_path_factory.mktemp("certificates")
    (folder / "names").write_text(
        "subjectAltName=DNS:localhost\nauthorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n"
    )
    ca = ["-x509", "-addext", "keyUsage=critical,keyCertSign", "-subj", "/CN=Test"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names"]
    for command in (
        ["req", *key, "-keyout", "ca.key", "-out", "ca.pem", *ca],
        ["req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost"],
        ["x509", "-req", "-in", "server.csr", "-out", "server.pem", *signed],
    ):
        subprocess.run(["openssl", *command], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(params=["memory", "path", "edge", "server", "grpc"])
def unset(request: pytest.FixtureRequest, kind: str, tmp_path: Path) -> Iterator[QdrantClient]:
    """A client of either kind on a database of every kind, on which no model is set.

    If the command line names a server, its collections carry a prefix, and are removed.
    """
    named = named_server(request.config, grpc=request.param == "grpc")
    if named is not None:
        with opened(kind, **named) as client, prefixed(client) as own:
            yield own
        return
    places: dict[str, Callable[[], dict[str, Any]]] = {
        "memory": lambda: {"location": ":memory:"},
        "path": lambda: {"path": str(tmp_path / "db"), "engine": "local"},
        "edge": lambda: {"path": str(tmp_path / "db"), "engine": "edge"},
        "server": lambda: at(request.getfixturevalue("server")),
        "grpc": lambda: at(request.getfixturevalue("grpc_server"), grpc=True),
    }
    with opened(kind, **places[request.param]()) as client:
        yield client


@pytest.fixture
def anywhere(unset: QdrantClient, tiny: TinyModel) -> QdrantClient:
    """The same on the tiny model."""
    unset.set_model(tiny.path)
    return unset


@pytest.fixture(params=["rest", "grpc"])
def there(request: pytest.FixtureRequest, kind: str, tiny: TinyModel) -> Iterator[QdrantClient]:
    """A client of either kind of the server that the command line names, on the tiny model."""
    named = named_server(request.config, grpc=request.param == "grpc")
    if named is None:
        port = " and --grpc-port 6334" if request.param == "grpc" else ""
        pytest.skip(f"no server: name one, as --url http://localhost:6333{port}")
    with opened(kind, **named) as client, prefixed(client) as own:
        own.set_model(tiny.path)
        yield own


@pytest.fixture(params=["dense", "hybrid"])
def everywhere(request: pytest.FixtureRequest, anywhere: QdrantClient) -> QdrantClient:
    """The same, with and without a sparse model."""
    if request.param == "hybrid":
        anywhere.set_sparse_model("Qdrant/bm25")
    return anywhere


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each session that was started runs a graph that is not that of a file."""
    import onnxruntime  # which not every test has

    kinds: list[bool] = []
    start = onnxruntime.InferenceSession

    def noted(graph: str | bytes, *arguments: object) -> object:
        kinds.append(isinstance(graph, bytes))
        return start(graph, *arguments)

    monkeypatch.setattr(onnxruntime, "InferenceSession", noted)
    return kinds
