"""The package as a whole: its names, its rooms, what importing it costs, its errors."""

from __future__ import annotations

import ast
import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import qdrant_embed
from qdrant_embed import errors

PACKAGE = Path(qdrant_embed.__file__).parent
ROOMS = sorted(path.parent for path in PACKAGE.rglob("__init__.py"))


def test_public_names_are_exactly_all() -> None:
    for name in qdrant_embed.__all__:
        assert getattr(qdrant_embed, name).__name__ == name
    imported = {"annotations", "import_module", "TYPE_CHECKING"}
    public = {
        name
        for name, value in vars(qdrant_embed).items()
        if not name.startswith("_") and not isinstance(value, type(sys))
    }
    assert public - imported == set(qdrant_embed.__all__) == set(dir(qdrant_embed))
    assert sorted(qdrant_embed.__all__) == qdrant_embed.__all__
    with pytest.raises(AttributeError, match="no_such_name"):
        qdrant_embed.no_such_name  # noqa: B018 - looking it up is the test


def test_importing_the_package_loads_no_encoder_library(tmp_path: Path) -> None:
    heavy = ["onnxruntime", "tokenizers", "onnx", "huggingface_hub", "safetensors", "mmh3"]
    heavy += ["py_rust_stemmers", "starlette", "uvicorn", "prometheus_client", "mcp"]
    code = (
        "import sys; from qdrant_embed import QdrantClient; "
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"


def test_who_only_wants_vectors_does_not_wait_for_qdrant_client(tmp_path: Path) -> None:
    code = (
        "import sys; from qdrant_embed import TextEmbedding; print('qdrant_client' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("command", [["models"], ["cache", "list"], ["verify"]])
def test_commands_about_models_do_not_wait_for_qdrant_client(
    command: list[str], tmp_path: Path
) -> None:
    code = (
        "import sys; from qdrant_embed.cli.main import main; "
        f"code = main({command}); print('qdrant_client' in sys.modules); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=os.environ | {"QDRANT_EMBED_CACHE": str(tmp_path)},
    )
    assert done.stdout.splitlines()[-1] == "False"


def test_bm25_needs_no_library_of_networks(tmp_path: Path) -> None:
    code = (
        "import sys; from qdrant_embed import SparseTextEmbedding; "
        "assert len(list(SparseTextEmbedding().embed('a ship at sea'))[0].indices) == 2; "
        "print([m for m in ('onnxruntime', 'tokenizers', 'qdrant_client') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: str(room.relative_to(PACKAGE)))
def test_a_room_can_be_overlooked(room: Path) -> None:
    """Who opens one reads a dozen names, and what lives there; each architecture has a file.

    The package itself has the ground floor, the clients, and what stands on these.
    """
    most = {"architectures": 24, PACKAGE.name: 22}.get(room.name, 14)
    assert len(list(room.glob("*.py"))) <= most
    assert ast.get_docstring(ast.parse((room / "__init__.py").read_text("utf-8")))


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.InputError, ValueError),
        (errors.CollectionMismatchError, ValueError),
        (errors.UnknownModelError, LookupError),
        (errors.ModelDownloadError, OSError),
        (errors.ModelFileError, ValueError),
        (errors.MissingDependencyError, ImportError),
    ],
)
def test_errors_are_ours_and_what_a_caller_would_catch(
    error: type[Exception], builtin: type[Exception]
) -> None:
    assert issubclass(error, errors.QdrantEmbedError)
    assert issubclass(error, builtin)


@pytest.mark.parametrize(
    "error",
    [
        errors.InputError("text", index=3),
        errors.CollectionMismatchError("text", expected={"a": 1}, found={"a": 2}),
        errors.CollectionNotFoundError("text", collection_name="demo"),
        errors.DocumentNotFoundError("text", missing_ids=[1]),
        errors.ServerRefusal("text"),
        errors.PermissionRefusal("text"),
        errors.ServerUnavailableError("text", address="http://host", found="nothing"),
        errors.FolderError("text", path="folder", is_partial=True),
        errors.ClientStateError("text"),
        errors.IngestError("text", stored_ids=[1, "a"], failed_index=2, unconfirmed_ids=[3]),
        errors.UnknownModelError("text", name="a", close_matches=["b"]),
        errors.UntrustedModelError("text", name="a", collection_name="demo"),
        errors.ModelDownloadError("text"),
        errors.ModelFileError("text"),
        errors.MissingDependencyError("tqdm", "a bar"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_reach_other_processes(error: errors.QdrantEmbedError) -> None:
    """One that cannot be unpickled breaks a pool of processes, or has it wait for ever."""
    for there in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(there) is type(error)
        assert str(there) == str(error)
        assert vars(there) == vars(error)
        with pytest.raises(type(error)):
            raise there


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = errors.__doc__ or ""
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, errors.QdrantEmbedError):
            assert name in drawn
            assert name in qdrant_embed.__all__


def test_nothing_is_told_to_the_vendor_of_onnxruntime(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    subprocess.run(
        [sys.executable, "-c", "import qdrant_embed.encoder.run.session"],
        check=True,
        env=environment | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)},
    )
    assert not [*tmp_path.rglob("*onnxruntime*")]
