"""What a hub, a mirror or a proxy does wrong ends in a verified model or in a typed error.

And the next run without the fault succeeds, with nothing cleaned up by hand.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from hub_server import COMMIT, Fault, Hub, corrupted, serving
from tiny import TinyModel

from qdrant_embed import ModelDownloadError, ModelError, ModelFileError, UnknownModelError
from qdrant_embed.backoff import Backoff
from qdrant_embed.encoder.files import hub as hub_module
from qdrant_embed.encoder.files import repository as repository_module
from qdrant_embed.encoder.files.model_files import ModelFiles, find_model

NAME = "someone/tiny"
WEIGHTS = "model.safetensors"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Time limits of a test, and a hub cache of its own."""
    monkeypatch.setattr(repository_module, "BACKOFF", Backoff(first=0.01, longest=8.0))
    monkeypatch.setattr(hub_module, "SLOW_SECONDS", 0.4)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf"))


@pytest.fixture
def hub(tiny: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that serves a copy of the tiny model."""
    folder = tmp_path / "repository"
    shutil.copytree(tiny.path, folder)
    with serving(NAME, folder) as hub:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        yield hub


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    return tmp_path / "ours"


def fetch(cache: Path, name: str = NAME, **options: str | bool) -> ModelFiles:
    return find_model(name, cache=cache, **options)  # type: ignore[arg-type] # options by name


def check_whole(source: ModelFiles, hub: Hub) -> None:
    """The source holds what the hub has, byte for byte, and only what is needed."""
    assert source.revision == hub.commit
    found = {p.relative_to(source.folder) for p in source.folder.rglob("*") if p.is_file()}
    assert Path(WEIGHTS) in found
    assert Path("1_Pooling/config.json") in found
    for path in found:
        assert (source.folder / path).read_bytes() == (hub.folder / path).read_bytes()
    assert not (source.folder.parent / "partial").exists()


def check_recovery(cache: Path, hub: Hub) -> None:
    """Without the fault all is well, and from then on without the hub."""
    hub.faults.clear()
    check_whole(fetch(cache), hub)
    asked = len(hub.requests)
    check_whole(fetch(cache), hub)
    assert len(hub.requests) == asked


PASSING = {
    "corrupted once": Fault(WEIGHTS, 1, body=corrupted),
    "small file corrupted once": Fault("tokenizer.json", 1, body=corrupted),
    "reset mid-body": Fault(WEIGHTS, 2, reset_after=5000),
    "short body": Fault(WEIGHTS, 2, close_after=5000),
    "truncated body": Fault(WEIGHTS, 2, body=lambda body: body[:5000]),
    "too long a body": Fault(WEIGHTS, 1, body=lambda body: body + b"more"),
    "503 on a file": Fault(WEIGHTS, 3, status=503),
    "503 on model_info": Fault("/api/models", 3, status=503),
    "429": Fault(WEIGHTS, 1, status=429, headers={"Retry-After": "0"}),
    "429 until a date": Fault(
        WEIGHTS, 1, status=429, headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}
    ),
    "commit and ETag stripped": Fault("", headers={"X-Repo-Commit": None, "ETag": None}),
    "hang": Fault(WEIGHTS, 1, pause=1.0),
    "drip": Fault(WEIGHTS, 1, pause=0.05),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", PASSING.values(), ids=list(PASSING))
def test_a_fault_that_passes_is_sat_out(fault: Fault, hub: Hub, ours: Path) -> None:
    hub.faults.append(Fault(**vars(fault)))
    check_whole(fetch(ours), hub)
    check_recovery(ours, hub)


LASTING = {
    "corrupted": (Fault(WEIGHTS, body=corrupted), ModelFileError, "arrived damaged twice"),
    "reset mid-body": (Fault(WEIGHTS, reset_after=1), ModelDownloadError, "after 5 tries"),
    "truncated body": (
        Fault(WEIGHTS, body=lambda body: body[:99]),
        ModelDownloadError,
        "99 bytes",
    ),
    "503 on a file": (Fault(WEIGHTS, status=503), ModelDownloadError, "answers 503"),
    "503 on model_info": (Fault("/api/", status=503), ModelDownloadError, "answers 503"),
    "429 for hours": (
        Fault(WEIGHTS, status=429, headers={"Retry-After": "7200"}),
        ModelDownloadError,
        "asks to wait 7200 s",
    ),
    "captive portal": (
        Fault("", body=lambda _: b"<html>Log in to the hotel</html>"),
        ModelDownloadError,
        "Log in to the hotel",
    ),
    "captive portal between files": (
        Fault(
            WEIGHTS, headers={"Content-Type": "text/html"}, body=lambda _: b"<html>Log in</html>"
        ),
        ModelDownloadError,
        r"19 bytes \(text/html\) were sent",
    ),
    "hang": (Fault(WEIGHTS, pause=1.0), ModelDownloadError, "after 5 tries"),
    "hang of model_info": (Fault("/api/", pause=1.0), ModelDownloadError, "after 5 tries"),
    "drip": (Fault(WEIGHTS, pause=0.05), ModelDownloadError, "bytes arrived in"),
    "404 of a listed file": (Fault(WEIGHTS, status=404), ModelDownloadError, "404"),
    "private": (
        Fault("/api/", status=401, headers={"X-Error-Code": "RepoNotFound"}),
        UnknownModelError,
        "HF_TOKEN",
    ),
    "gated": (
        Fault("/resolve/", status=403, headers={"X-Error-Code": "GatedRepo"}),
        ModelDownloadError,
        "is gated: accept its terms",
    ),
    "token refused": (
        Fault(
            "",
            status=401,
            headers={"X-Error-Message": "Invalid credentials in Authorization header"},
        ),
        ModelDownloadError,
        "rejects the token",
    ),
    "forbidden": (Fault("/resolve/", status=403), ModelDownloadError, "no right to read"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "error", "message"), LASTING.values(), ids=list(LASTING))
def test_a_fault_that_lasts_is_a_typed_error(
    fault: Fault, error: type[ModelError], message: str, hub: Hub, ours: Path
) -> None:
    hub.faults.append(fault)
    with pytest.raises(error, match=message):
        fetch(ours)
    check_recovery(ours, hub)


def test_only_the_files_that_are_needed_are_fetched(hub: Hub, ours: Path) -> None:
    for name in ("README.md", "pytorch_model.bin", "onnx/model.onnx", "openvino/model.bin"):
        (hub.folder / name).parent.mkdir(exist_ok=True)
        (hub.folder / name).write_bytes(b"x" * 100)
    check_whole(fetch(ours), hub)
    for name in ("README", "pytorch_model", "onnx", "openvino"):
        assert hub.asked(name) == 0
    fetched = [request.partition(hub.commit)[2] for request in hub.requests]
    assert fetched[-1] == f"/{WEIGHTS}"  # small files first


def test_a_precision_that_needs_other_weights_fetches_them(hub: Hub, ours: Path) -> None:
    (hub.folder / "onnx").mkdir()
    for name in ("model.onnx", "model_quantized.onnx"):
        (hub.folder / "onnx" / name).write_bytes(name.encode())
    (hub.folder / "config.json").write_text('{"model_type": "other"}')
    assert (fetch(ours).folder / "onnx" / "model_quantized.onnx").is_file()
    assert hub.asked("onnx/model.onnx") == 0
    assert (fetch(ours, precision="fp32").folder / "onnx" / "model.onnx").is_file()
    assert hub.asked("model_quantized") == hub.asked("tokenizer.json") == 1
    asked = len(hub.requests)
    for precision in ("int8", "fp32"):
        fetch(ours, precision=precision)
    assert len(hub.requests) == asked


def test_what_was_fetched_before_a_reset_is_not_fetched_again(hub: Hub, ours: Path) -> None:
    hub.faults.append(Fault(WEIGHTS, 1, reset_after=5000))
    check_whole(fetch(ours), hub)
    assert hub.ranges == ["bytes=5000-"]


def test_a_later_run_goes_on_where_the_first_broke_off(hub: Hub, ours: Path) -> None:
    hub.faults.append(Fault(WEIGHTS, reset_after=1000))
    with pytest.raises(ModelDownloadError):
        fetch(ours)
    hub.faults.clear()
    check_whole(fetch(ours), hub)
    assert hub.ranges == [f"bytes={start}000-" for start in range(1, 6)]


def test_what_was_left_behind_is_not_trusted(hub: Hub, ours: Path) -> None:
    hub.faults.append(Fault(WEIGHTS, reset_after=1000))
    with pytest.raises(ModelDownloadError):
        fetch(ours)
    hub.faults.clear()
    (partial,) = (ours / "hub" / "someone--tiny" / "partial").iterdir()
    partial.write_bytes(bytes(3000))
    check_whole(fetch(ours), hub)


def test_redirects_are_followed(hub: Hub, ours: Path) -> None:
    hub.redirects = True
    check_whole(fetch(ours), hub)
    assert hub.asked("/cdn/") > 5


def test_a_wait_the_hub_asks_for_is_kept_and_shown(
    hub: Hub, ours: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    hub.faults.append(Fault("/api/", 1, status=429, headers={"Retry-After": "17"}))
    check_whole(fetch(ours), hub)
    assert 17.0 in waits
    assert "trying again in 17.0 s" in caplog.text
    assert "429" in caplog.text


def names_alone(body: bytes) -> bytes:
    """The hub's answer about a repository, without sizes and digests."""
    info = json.loads(body)
    siblings = [{"rfilename": sibling["rfilename"]} for sibling in info["siblings"]]
    return json.dumps({**info, "siblings": siblings}).encode()


def test_a_hub_that_states_no_digests_is_believed_in_sizes(hub: Hub, ours: Path) -> None:
    hub.faults.append(Fault("/api/", body=names_alone))
    hub.faults.append(Fault("/resolve/", headers={"ETag": None}))
    check_whole(fetch(ours), hub)


def test_an_etag_will_do_for_a_digest(hub: Hub, ours: Path) -> None:
    """A mirror that lists names alone still passes on the ETag, a large file's sha256."""
    hub.faults.append(Fault("/api/", body=names_alone))
    hub.faults.append(Fault(WEIGHTS, body=corrupted, headers={"ETag": f'"{"0" * 64}"'}))
    with pytest.raises(ModelFileError, match="not 0000"):
        fetch(ours)
    check_recovery(ours, hub)


@pytest.mark.parametrize("path", ["../outside.json", "/outside.json", "C:\\x", "a/../../b"])
def test_a_path_of_the_hub_stays_inside_the_folder(path: str) -> None:
    content = b'{"sha": "%s", "siblings": [{"rfilename": "config.json"}, {"rfilename": "%s"}]}'
    escaped = path.replace("\\", "\\\\").encode()
    repository = repository_module.read_repository(NAME, content % (COMMIT.encode(), escaped))
    assert set(repository.files) == {"config.json"}


def test_modules_that_point_outside_are_not_followed(hub: Hub, ours: Path) -> None:
    (hub.folder / "modules.json").write_text('[{"type": "x.Transformer", "path": "../../.."}]')
    with pytest.raises(ModelFileError, match="points out of its folder"):
        fetch(ours)
    assert hub.asked(WEIGHTS) == 0


def test_damage_on_disk_is_repaired_from_the_hub(hub: Hub, ours: Path) -> None:
    folder = fetch(ours).folder
    (folder / WEIGHTS).write_bytes(corrupted((folder / WEIGHTS).read_bytes()))
    asked = hub.asked("tokenizer.json")
    check_recovery(ours, hub)
    assert hub.asked("tokenizer.json") == asked  # what is whole stays


@pytest.mark.slow
@pytest.mark.parametrize("purged", ["", "hub", "hub/someone--tiny/refs", f"hub/*/{COMMIT}/1_*"])
def test_a_purged_cache_is_filled_again(purged: str, hub: Hub, ours: Path) -> None:
    fetch(ours)
    for folder in ours.glob(purged) if purged else [ours]:
        shutil.rmtree(folder)
    check_recovery(ours, hub)


def test_a_cache_purged_under_a_download_costs_at_most_that_run(hub: Hub, ours: Path) -> None:
    def purge(body: bytes) -> bytes:
        shutil.rmtree(ours)
        return body

    hub.faults.append(Fault(WEIGHTS, 1, body=purge))
    with pytest.raises(ModelFileError, match="cache_dir="):
        fetch(ours)
    check_recovery(ours, hub)


def test_a_cache_that_cannot_be_written_is_named(hub: Hub, ours: Path) -> None:
    ours.write_text("a file where the folder should be")
    with pytest.raises(ModelFileError, match=rf"{ours}.*QDRANT_EMBED_CACHE"):
        fetch(ours)
    ours.unlink()
    check_recovery(ours, hub)


def test_two_at_once_share_one_download(hub: Hub, ours: Path) -> None:
    def slowly(body: bytes) -> bytes:
        time.sleep(0.2)
        return body

    hub.faults.append(Fault(WEIGHTS, 1, body=slowly))
    found: list[ModelFiles] = []
    threads = [threading.Thread(target=lambda: found.append(fetch(ours))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    check_whole(found[0], hub)
    assert hub.asked(WEIGHTS) == 1


def test_main_is_asked_anew_only_by_update(hub: Hub, ours: Path) -> None:
    assert fetch(ours).revision == COMMIT
    hub.commit = "f" * 40
    (hub.folder / "sentence_bert_config.json").write_text('{"max_seq_length": 32}')
    assert fetch(ours).revision == COMMIT
    weights = hub.asked(WEIGHTS)
    check_whole(fetch(ours, update=True), hub)
    assert hub.asked(WEIGHTS) == weights  # equal content is taken from the commit before
    assert fetch(ours).revision == "f" * 40
    assert fetch(ours, revision=COMMIT).revision == COMMIT


def test_an_update_that_fails_harms_nothing(hub: Hub, ours: Path) -> None:
    fetch(ours)
    hub.faults.append(Fault("", status=503))
    with pytest.raises(ModelDownloadError):
        fetch(ours, update=True)
    assert fetch(ours).revision == COMMIT


def test_a_revision_the_hub_does_not_know_is_called_so(hub: Hub, ours: Path) -> None:
    with pytest.raises(UnknownModelError, match=r"^http\S+ has no revision 'v9' of \S+: "):
        fetch(ours, revision="v9")


def test_a_token_is_sent(hub: Hub, ours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.token = "hf_secret"
    with pytest.raises(UnknownModelError, match="HF_TOKEN"):
        fetch(ours)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    check_whole(fetch(ours), hub)


def test_offline_asks_nobody(hub: Hub, ours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelDownloadError, match="not in the local cache"):
        fetch(ours, local_files_only=True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelDownloadError, match="HF_HUB_OFFLINE"):
        fetch(ours)
    assert hub.requests == []
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    fetch(ours)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert fetch(ours).revision == COMMIT


def test_what_huggingface_hub_has_cached_is_used(
    hub: Hub, ours: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        huggingface_hub.constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        hub.url + "/{repo_id}/resolve/{revision}/{filename}",
    )
    for file in sorted(p for p in hub.folder.rglob("*") if p.is_file()):
        huggingface_hub.hf_hub_download(
            NAME, file.relative_to(hub.folder).as_posix(), cache_dir=tmp_path / "hf"
        )
    weights = hub.asked(WEIGHTS)
    check_whole(fetch(ours), hub)
    assert hub.asked(WEIGHTS) == weights
    check_whole(fetch(tmp_path / "offline", local_files_only=True), hub)
    hub.faults.append(Fault("", status=503))
    check_whole(fetch(tmp_path / "down"), hub)


def test_a_damaged_file_in_huggingface_hubs_cache_is_not_used(
    hub: Hub, ours: Path, tmp_path: Path
) -> None:
    snapshot = tmp_path / "hf" / "models--someone--tiny" / "snapshots" / COMMIT
    shutil.copytree(hub.folder, snapshot)
    (snapshot / WEIGHTS).write_bytes(corrupted((snapshot / WEIGHTS).read_bytes()))
    check_whole(fetch(ours), hub)
