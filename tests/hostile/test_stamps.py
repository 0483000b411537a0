"""What a collection says of its model: it chooses among what this client would run anyway."""

from __future__ import annotations

import copy
import json
import logging
import os
import pickle
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import processes
import pytest
import qdrant_client
from clients import LetterEncoder, at, cosine, opened, stamp
from hub_server import COMMIT, Hub, asked, downloaded, serving
from hypothesis import given
from hypothesis import strategies as st
from qdrant_client import models as qdrant
from rest_server import Server
from tiny import TinyModel, tiny_bert

from hostile import models, room, stamps
from hostile.test_fuzz import JSON, fuzz, places
from qdrant_embed import (
    AsyncQdrantClient,
    CollectionMismatchError,
    InputError,
    ModelDownloadError,
    QdrantClient,
    QdrantEmbedError,
    QdrantEmbedMixin,
    SparseTextEmbedding,
    TextEmbedding,
    UntrustedModelError,
)
from qdrant_embed.cli.main import main
from qdrant_embed.collection.encoders import adapt
from qdrant_embed.collection.selection import EncoderSelection, ModelPolicy
from qdrant_embed.collection.stamp import read_stamp
from qdrant_embed.collection.stored import StoredCollection, read_collection
from qdrant_embed.limits import PREFIX

NAME = "owner/tiny"
KNOWN = "thenlper/gte-small"  # of the catalog
SPLADE = "prithivida/Splade_PP_en_v1"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and a token."""
    monkeypatch.setenv("QDRANT_EMBED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.delenv("QDRANT_EMBED_TRUST_STAMPS", raising=False)
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def described(tiny: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The stamp of a collection that the tiny model wrote, as it is on the hub."""
    folder = tmp_path_factory.mktemp("described")
    selection = EncoderSelection()
    selection.choose(adapt(TextEmbedding(tiny.path, cache_dir=folder, lazy_load=True)), "v")
    made: dict[str, Any] = selection.for_add(None).stamp().metadata()["qdrant_embed"]
    return made | {"model": NAME, "revision": COMMIT}


@pytest.fixture
def hub(tiny: TinyModel) -> Iterator[Hub]:
    """A hub that has the model which hostile stamps name."""
    with serving(NAME, tiny.path) as hub, asked(hub):
        yield hub


def collection(
    client: QdrantClient, stamp: dict[str, Any], name: str = "demo", size: int = 32
) -> None:
    """Make a collection as somebody else may have made it."""
    client.create_collection(name, {"v": cosine(size)}, metadata={"qdrant_embed": stamp})
    client.upsert(
        name, [qdrant.PointStruct(id=1, vector={"v": [1.0] * size}, payload={"document": "cat"})]
    )


def read(stamp: dict[str, Any], size: int = 32) -> StoredCollection:
    """The same, read from a server."""
    client = QdrantClient(":memory:")
    collection(client, stamp, size=size)
    return read_collection("demo", client.get_collection("demo"))


def follow(stamp: dict[str, Any], **policy: bool) -> str:
    """Have a client follow a stamp; return the name of the model."""
    selection = EncoderSelection(ModelPolicy(**policy))
    return selection.for_query(read(stamp)).dense.encoder.name


def compiled(cache: Path) -> bool:
    return (cache / "compiled").exists()


# what is refused


def test_a_model_that_nobody_here_has_named_is_refused(
    unset: QdrantClient, described: dict[str, Any], hub: Hub, cache: Path
) -> None:
    collection(unset, described)
    for call in (
        lambda: unset.query("demo", "cat"),
        lambda: unset.query_batch("demo", ["cat"]),
        lambda: unset.add("demo", ["dog"]),
        lambda: unset.add("demo", ["dog"], ids="content", on_existing="skip"),
    ):
        with pytest.raises(UntrustedModelError, match=r"set_model\('owner/tiny'\)") as raised:
            call()
        assert raised.value.name == NAME
        assert raised.value.collection_name.endswith("demo")
        assert isinstance(raised.value, PermissionError)
    assert [document.text for document in unset.scroll_documents("demo")] == ["cat"]
    assert hub.requests == []
    assert not cache.exists()
    unset.set_model(NAME)  # the one call
    assert [hit.document for hit in unset.query("demo", "cat")] == ["cat"]
    assert hub.tokens == {"Bearer hf_secret"}


def test_it_is_followed_once_it_was_downloaded_for_another_reason(
    kind: str, described: dict[str, Any], tiny: TinyModel, cache: Path
) -> None:
    downloaded(NAME, tiny.path)
    with opened(kind, ":memory:") as client:
        collection(client, described)
        assert [hit.document for hit in client.query("demo", "cat")] == ["cat"]
        for fact in ("weights_sha256", "tokenizer_sha256"):
            collection(client, described | {fact: "0" * 64}, fact)
            with pytest.raises(UntrustedModelError, match=fact):
                client.query(fact, "cat")


@pytest.mark.parametrize("offline", [False, True])
def test_without_the_network_it_is_followed_too(
    offline: bool, described: dict[str, Any], tiny: TinyModel
) -> None:
    downloaded(NAME, tiny.path)
    assert follow(described, offline=offline) == NAME


def test_a_sparse_model_follows_the_same_rule(
    kind: str, tmp_path: Path, hub: Hub, cache: Path
) -> None:
    dense = {"model": "mine/Letters", "dimension": 26, "vector_name": "v"}
    for model in (NAME, str(tmp_path), r"\\localhost\share\x"):
        sparse = {"model": model, "weights_sha256": "0" * 64, "vector_name": "s"}
        with opened(kind, ":memory:", trust_stamps=model != NAME) as client:
            collection(client, dense | {"sparse": sparse}, size=26)
            client.set_model(LetterEncoder())
            for call in (
                lambda: client.query("demo", "cat"),
                lambda: client.add("demo", ["dog"]),
                lambda: client.migrate_model("demo", LetterEncoder(), "new"),
            ):
                with pytest.raises(UntrustedModelError, match="set_sparse_model"):
                    call()
    assert hub.requests == []
    assert not compiled(cache)


def test_a_migration_never_loads_the_old_model(
    unset: QdrantClient, described: dict[str, Any], hub: Hub, tiny_e5: TinyModel
) -> None:
    collection(unset, described)
    assert unset.migrate_model("demo", tiny_e5.path, "new") == 1
    assert stamp(unset, "new")["model"] == str(tiny_e5.path)
    assert hub.requests == []


def test_a_copy_loads_nothing(
    kind: str, server: Server, described: dict[str, Any], hub: Hub, cache: Path
) -> None:
    with opened(kind, **at(server)) as source, opened(kind, ":memory:") as target:
        collection(source, described)
        assert source.copy_to(vars(target).get("client", target)) == {"demo": 1}
        with pytest.raises(UntrustedModelError):
            target.query("demo", "cat")
    assert hub.requests == []
    assert not cache.exists()


# what is trusted


@pytest.mark.parametrize("by", ["keyword", "environment"])
def test_a_trusted_stamp_is_followed_without_a_token(
    by: str,
    kind: str,
    described: dict[str, Any],
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "qdrant_embed")
    keywords: dict[str, Any] = {"trust_stamps": True} if by == "keyword" else {}
    if by == "environment":
        monkeypatch.setenv("QDRANT_EMBED_TRUST_STAMPS", "1")
    with opened(kind, ":memory:", **keywords) as client:
        collection(client, described)
        assert [hit.document for hit in client.query("demo", "cat")] == ["cat"]
    assert hub.asked("resolve") > 3
    assert hub.tokens == {None}
    fetched = [line for line in caplog.messages if line.startswith("fetching")]
    assert fetched == [
        f"fetching {NAME} at main from {hub.url}, because a collection names it as its model"
    ]


def test_what_a_user_names_is_fetched_with_the_token_and_unlogged(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "qdrant_embed")
    TextEmbedding(NAME)
    assert hub.tokens == {"Bearer hf_secret"}
    assert not [line for line in caplog.messages if line.startswith("fetching")]


def test_what_needs_a_token_is_refused_with_the_way_out(
    described: dict[str, Any], hub: Hub
) -> None:
    hub.token = "hf_secret"
    with pytest.raises(ModelDownloadError, match=r"HF_TOKEN is not sent .*set_model\(\)"):
        follow(described, trust_stamps=True)
    TextEmbedding(NAME)


@pytest.mark.parametrize("fact", ["weights_sha256", "tokenizer_sha256"])
def test_other_digests_are_noticed_before_anything_is_compiled(
    fact: str, described: dict[str, Any], hub: Hub, cache: Path
) -> None:
    with pytest.raises(CollectionMismatchError, match=fact):
        follow(described | {fact: "0" * 64}, trust_stamps=True)
    assert hub.asked("resolve") > 3
    assert not compiled(cache)


@pytest.mark.parametrize("value", ["2", "please"])
def test_a_switch_is_on_or_off(
    value: str, described: dict[str, Any], monkeypatch: pytest.MonkeyPatch, hub: Hub
) -> None:
    monkeypatch.setenv("QDRANT_EMBED_TRUST_STAMPS", value)
    with pytest.raises(InputError, match=f"must be 1 or 0, not '{value}'"):
        follow(described)
    for off in ("0", "", "no", "OFF"):
        monkeypatch.setenv("QDRANT_EMBED_TRUST_STAMPS", off)
        with pytest.raises(UntrustedModelError):
            follow(described)
    assert hub.requests == []


@pytest.mark.parametrize("keyword", ["trust_stamps", "offline"])
@pytest.mark.parametrize("kind", [QdrantClient, AsyncQdrantClient])
def test_a_keyword_is_true_or_false(kind: Any, keyword: str) -> None:
    with pytest.raises(InputError, match=f"{keyword} must be True or False, not 'yes'"):
        kind(":memory:", **{keyword: "yes"})


# known models


def test_a_known_model_is_followed_without_a_token(
    described: dict[str, Any], tiny: TinyModel
) -> None:
    with serving(KNOWN, tiny.path) as hub, asked(hub):
        assert follow(described | {"model": KNOWN.upper()}) == KNOWN
    assert hub.tokens == {None}


def test_a_commit_of_a_known_model_is_not_followed(
    described: dict[str, Any], tiny: TinyModel, tmp_path: Path, cache: Path
) -> None:
    """Anybody can propose a commit, and it has an address like any other."""
    other = tiny_bert(tmp_path / "other", seed=9)
    proposed = described | {"model": KNOWN, "revision": COMMIT}
    with serving(KNOWN, other.path) as hub, asked(hub):
        hub.commit = "1" * 40
        with pytest.raises(UntrustedModelError, match=rf"'{KNOWN}', revision='{COMMIT}'"):
            follow(proposed)
        assert not hub.asked(COMMIT)
        assert not compiled(cache)
        with pytest.raises(CollectionMismatchError, match="other files"):
            follow({key: value for key, value in proposed.items() if key != "revision"})
    with serving(KNOWN, tiny.path) as hub, asked(hub):  # which has that commit
        assert follow(proposed, trust_stamps=True) == KNOWN
        assert hub.asked(COMMIT)
        assert hub.tokens == {None}
    assert follow(proposed) == KNOWN  # now it is here


@pytest.mark.parametrize("name", [KNOWN, KNOWN.partition("/")[2], SPLADE])
def test_a_folder_in_the_working_directory_never_wins_over_a_known_name(
    name: str,
    tiny: TinyModel,
    tiny_e5: TinyModel,
    described: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_e5.path, name)
    if name == SPLADE:
        with pytest.raises(ModelDownloadError):
            SparseTextEmbedding(name)
    else:
        with serving(KNOWN, tiny.path) as hub, asked(hub):
            assert TextEmbedding(name, lazy_load=True).model_name == KNOWN
            found = TextEmbedding(name).describe()
            assert follow(described | {"model": name}) == KNOWN
        assert found.weights_sha256 == described["weights_sha256"]
        other = TextEmbedding(f"./{name}").describe()
        assert other.weights_sha256 != found.weights_sha256
    said = [line for line in caplog.messages if "is not used" in line]
    assert len(said) == 1  # though it is asked for several times
    assert repr(os.path.join(".", name)) in said[0]


# folders


@pytest.mark.parametrize("trusts", [False, True])
def test_no_path_of_a_stamp_is_looked_at(
    trusts: bool,
    described: dict[str, Any],
    tiny: TinyModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    planted = tmp_path / "owner-of-it" / "planted"
    shutil.copytree(tiny.path, planted)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    seen: list[str] = []
    for name in ("stat", "lstat", "scandir", "listdir", "open"):
        monkeypatch.setattr(os, name, _noting(getattr(os, name), seen))
    for kind, path in stamps.paths(planted).items():
        for setter in ("set_model", "set_sparse_model"):
            made = described | {"model": path}
            if setter == "set_sparse_model":
                sparse = {"model": path, "weights_sha256": "0" * 64, "vector_name": "s"}
                made = described | {"sparse": sparse}
            stored = read(made)
            seen.clear()
            selection = EncoderSelection(ModelPolicy(trust_stamps=trusts))
            select = {
                "set_model": selection.for_query,
                "set_sparse_model": selection.followed_sparse,
            }[setter]
            with pytest.raises(UntrustedModelError, match=rf"{setter}\(\) with the folder"):
                select(stored)
            assert seen == [], kind


def _noting(function: Callable[..., Any], seen: list[str]) -> Callable[..., Any]:
    def noting(path: Any, *args: Any, **options: Any) -> Any:
        if not isinstance(path, int) and "/qdrant_embed/" not in os.fspath(path):
            seen.append(os.fspath(path))
        return function(path, *args, **options)

    return noting


def test_a_folder_with_the_name_of_a_download_is_not_taken_for_it(
    described: dict[str, Any],
    tiny: TinyModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny.path, NAME)
    with pytest.raises(UntrustedModelError, match="not in the catalog"):
        follow(described)
    assert TextEmbedding(NAME, lazy_load=True).dimension == 32  # what a user says is a folder


# prefixes


def test_a_stamps_prefixes_are_believed_within_limits(
    unset: QdrantClient, described: dict[str, Any], tiny: TinyModel
) -> None:
    downloaded(NAME, tiny.path)
    prefixed = described | {"query_prefix": "six ", "document_prefix": "p" * PREFIX}
    collection(unset, prefixed)
    unset.query("demo", "cat")
    for fact in ("query_prefix", "document_prefix", "revision"):
        collection(unset, described | {fact: "x" * (PREFIX + 1)}, fact.replace("_", "-"))
        started = time.monotonic()
        with pytest.raises(CollectionMismatchError, match=f"{fact} has 16,385 characters"):
            unset.query(fact.replace("_", "-"), "cat")
        assert time.monotonic() - started < 5


# other processes


@pytest.mark.parametrize("way", [copy.deepcopy, lambda client: pickle.loads(pickle.dumps(client))])
@pytest.mark.parametrize("used", [False, True])
def test_a_client_in_another_process_keeps_the_rule(
    way: Callable[[Any], Any], used: bool, server: Server, described: dict[str, Any], hub: Hub
) -> None:
    with opened("sync", **at(server)) as client:
        collection(client, described)
    found: dict[str, Any] = {}
    for keyword in ("", "offline", "trust_stamps"):
        with opened(
            "sync", **at(server), **{keyword: True for keyword in [keyword] if keyword}
        ) as client:
            if used:
                assert client.embedding_model_name
            with closing(way(client)) as other:
                policy = other._selection.policy
                try:
                    found[keyword] = [hit.document for hit in other.query("demo", "cat")]
                except UntrustedModelError:
                    found[keyword] = None
        assert policy == ModelPolicy(**{keyword: True for keyword in [keyword] if keyword})
    assert found == {"": None, "offline": None, "trust_stamps": ["cat"]}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_keeps_the_rule(
    described: dict[str, Any], server: Server, tmp_path: Path
) -> None:
    call = "import hostile.test_stamps as t; t.in_a_child(*sys.argv[1:])"
    with opened("sync", **at(server)) as client:
        collection(client, described)
    script = f"import sys; {call}"
    processes.run(script, server.url, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})


def in_a_child(url: str) -> None:
    """Query in a child that was forked from a process which has used its client."""
    client = QdrantClient(url=url, check_compatibility=False)
    with suppress(UntrustedModelError):
        client.query("demo", "cat")
    fork: Callable[[], int] = getattr(os, "fork")  # noqa: B009 - not on Windows
    if (child := fork()) == 0:
        try:
            client.query("demo", "cat")
        except UntrustedModelError:
            os._exit(3)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3


# the command


def test_the_command_follows_the_rule(
    described: dict[str, Any],
    hub: Hub,
    tiny_e5: TinyModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with opened("sync", path=str(tmp_path / "db")) as client:
        collection(client, described)
    to = ["--path", str(tmp_path / "db"), "--collection", "demo"]
    (tmp_path / "a.txt").write_text("dog\n")
    add = ["add", *to, str(tmp_path / "a.txt")]
    for command in (["query", *to, "cat"], add):
        assert main(command) == 1
        error = capsys.readouterr().err
        assert "set_model('owner/tiny')" in error
        assert "--model" in error
        assert "QDRANT_EMBED_TRUST_STAMPS=1" in error
    assert main(["migrate", *to, "--to", "new", "--model", str(tiny_e5.path)]) == 0
    copied = ["copy", "--path", str(tmp_path / "db"), "--to-path", str(tmp_path / "other")]
    assert main(copied) == 0
    assert hub.requests == []
    monkeypatch.setenv("QDRANT_EMBED_TRUST_STAMPS", "1")
    assert main(["query", *to, "cat"]) == 0
    assert hub.tokens == {None}
    monkeypatch.delenv("QDRANT_EMBED_TRUST_STAMPS")
    assert main([*add, "--model", NAME]) == 0


# without network


def test_an_offline_client_fetches_nothing(
    unset: QdrantClient, kind: str, hub: Hub, described: dict[str, Any], cache: Path
) -> None:
    collection(unset, described | {"model": KNOWN}, "known")
    client = vars(unset).get("client", unset)
    client._model_keywords = {"offline": True}

    def named(setter: Callable[[str], None]) -> None:
        setter(NAME)
        unset.add("demo", ["cat"])

    with pytest.raises(ModelDownloadError, match=f"{KNOWN} is not in the local cache, .*offline"):
        unset.query("known", "cat")
    for call in (
        lambda: unset.migrate_model("known", NAME, "new"),
        lambda: unset.get_embedding_size(NAME),
        lambda: named(unset.set_model),
        lambda: named(unset.set_sparse_model),
    ):
        with pytest.raises(ModelDownloadError, match=f"{NAME} is not in the local cache"):
            call()
    assert hub.requests == []


def test_offline_is_a_keyword_of_both_clients(kind: str, hub: Hub, tiny: TinyModel) -> None:
    with opened(kind, ":memory:", offline=True) as client:
        with suppress(ModelDownloadError):  # the asynchronous client loads at first use
            client.set_model(NAME)
        with pytest.raises(ModelDownloadError, match="offline=True"):
            client.get_embedding_size(NAME)
        client.set_model(tiny.path)
        assert len(client.add("demo", ["cat"])) == 1
    assert hub.requests == []
    with opened(kind, ":memory:", offline=False) as client:
        client.set_model(NAME)
        client.add("demo", ["cat"])
    with opened(kind, ":memory:", offline=True) as client:
        client.set_model(NAME)  # which is here now
        client.add("demo", ["cat"])


def test_a_variable_turns_the_network_off_for_all(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QDRANT_EMBED_OFFLINE", "1")
    with pytest.raises(ModelDownloadError, match="QDRANT_EMBED_OFFLINE"):
        TextEmbedding(NAME)
    assert main(["pull", NAME]) == 1
    assert "QDRANT_EMBED_OFFLINE" in capsys.readouterr().err
    assert hub.requests == []
    monkeypatch.setenv("QDRANT_EMBED_OFFLINE", "0")
    TextEmbedding(NAME)
    monkeypatch.setenv("QDRANT_EMBED_OFFLINE", "1")
    TextEmbedding(NAME)


def test_a_class_between_may_have_such_keywords_itself(hub: Hub) -> None:
    class Own(qdrant_client.QdrantClient):
        def __init__(self, tenant: str, offline: str = "theirs") -> None:
            super().__init__(":memory:")
            self.tenant, self.offline = tenant, offline

    class Mixed(QdrantEmbedMixin, Own):
        pass

    client = Mixed("a", offline="yes", trust_stamps=True)  # type: ignore[call-arg]
    assert (client.tenant, client.offline) == ("a", "yes")
    assert client._selection.policy == ModelPolicy(trust_stamps=True)


# any stamp

_VALUES = (
    JSON
    | st.sampled_from([NAME, KNOWN, SPLADE, "owner/other", ".", "~", "../..", "//a/b", "C:x/y"])
    | st.text(max_size=40)
)


@fuzz
@given(data=st.data())
def test_any_stamp_is_followed_or_refused(
    data: st.DataObject, described: dict[str, Any], stored: StoredCollection, hub: Hub
) -> None:
    made: Any = json.loads(json.dumps(described))
    made["sparse"] = {"model": NAME, "weights_sha256": "0" * 64, "vector_name": "s"}
    made["late"] = made["sparse"] | {"dimension": 96, "vector_name": "t"}
    for _ in range(data.draw(st.integers(1, 3))):
        outer, key = data.draw(st.sampled_from(places(made)))
        outer[key] = data.draw(_VALUES)
    hub.requests.clear()
    with suppress(QdrantEmbedError):
        collection = replace(stored, stamp=read_stamp("demo", {"qdrant_embed": made}))
        EncoderSelection().for_query(collection)
    assert hub.requests == [] or made["model"] in (KNOWN, SPLADE)


@pytest.fixture
def stored(described: dict[str, Any]) -> StoredCollection:
    return read(described)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="limits and pipes of Unix")
def test_no_stamp_escapes_its_process(
    described: dict[str, Any], tiny: TinyModel, tmp_path: Path
) -> None:
    folder = models.sound("bert", tmp_path / "work" / "owner-of-it" / "planted")
    sparse = {"model": NAME, "weights_sha256": described["weights_sha256"], "vector_name": "s"}
    stamp_of = {
        "sound": described,
        **{f"dense: {what}": described | made for what, made in stamps.changes().items()},
        **{f"path: {what}": described | {"model": p} for what, p in stamps.paths(folder).items()},
        **{
            f"sparse: {what}": described | {"sparse": sparse | made}
            for what, made in stamps.sparse_changes().items()
        },
        **{
            f"late: {what}": described | {"late": sparse | {"dimension": 16} | made}
            for what, made in stamps.late_changes().items()
        },
    }
    with serving(NAME, tiny.path) as hub:
        cases = [
            room.Case(
                f"{name}, trusted" if trust else name,
                "follow",
                {
                    "stamp": made,
                    "cache": str(tmp_path / "cache" / ("sound" if name == "sound" else str(trust))),
                    "endpoint": hub.url,
                    "directory": str(tmp_path / "work"),
                    "size": 32,
                    "trust": trust,
                },
            )
            for name, made in stamp_of.items()
            for trust in (False, True)
        ]
        found = room.checked(cases, tmp_path)
    assert hub.tokens == {None}
    assert {name for name, one in found.items() if one.kind == "answer"} == {"sound, trusted"}
    refused = {name: one for name, one in found.items() if name.startswith("path: ")}
    assert {one.error for one in refused.values()} == {"UntrustedModelError"}
    assert not [*tmp_path.glob("cache/False/compiled/*")]
    # of the trusted ones, what has the right digests: its other facts are noticed later
    assert len([*tmp_path.glob("cache/True/compiled/tiny-*")]) <= 1
    assert max(one.seconds for one in found.values()) < 10
