"""Files of `torch.save` against what torch has in them; see `fixtures/make_torch_files.py`."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from qdrant_embed import ModelFileError
from qdrant_embed.encoder.files.tensors import read_tensors, tensor_shapes
from qdrant_embed.encoder.files.torch_file import read_torch_file

FILES = Path(__file__).parents[2] / "fixtures" / "torch_files"


def expected(name: str) -> dict[str, NDArray[Any]]:
    with np.load(FILES / f"{name}.npz") as file:
        return {key: file[key] for key in file.files if key != "kinds"}


@pytest.mark.parametrize(
    "name", ["types.bin", "views.bin", "linear.pt", "parameters.bin", "unaligned.bin"]
)
def test_tensors_are_those_that_torch_saved(name: str) -> None:
    tensors, theirs = read_tensors([FILES / name]), expected(name)
    assert set(tensors) == set(theirs)
    for key, value in theirs.items():
        assert tensors[key].dtype == (np.int64 if value.dtype.kind in "iub" else np.float32)
        np.testing.assert_array_equal(tensors[key], value.astype(tensors[key].dtype))
    shapes = tensor_shapes([FILES / name])
    assert shapes == {key: value.shape for key, value in theirs.items()}


def test_numbers_are_mapped_and_not_copied() -> None:
    tensors = read_tensors([FILES / "views.bin"])
    for name in ("whole", "turned", "rows", "columns", "steps", "tied"):
        base: Any = tensors[name]
        while base is not None and not isinstance(base, np.memmap):
            base = base.base
        assert base is not None, name
        assert not tensors[name].flags.writeable
    assert tensors["whole"] is not tensors["tied"]


def rewritten(source: Path, target: Path, changes: dict[str, bytes | None], **options: Any) -> Path:
    """Write an archive again with other parts; ``None`` leaves one out."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", **options) as new:
        root = old.namelist()[0].partition("/")[0]
        parts = {name.removeprefix(f"{root}/"): old.read(name) for name in old.namelist()}
        for name, content in (parts | changes).items():
            if content is not None:
                new.writestr(f"{root}/{name}", content)
    return target


def test_numbers_of_the_other_byte_order(tmp_path: Path) -> None:
    source, swapped = FILES / "types.bin", {}
    sizes = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4}
    with np.load(FILES / "types.bin.npz") as file:
        kinds = json.loads(str(file["kinds"]))
    with zipfile.ZipFile(source) as archive:
        for number, kind in enumerate(kinds.values()):
            data = archive.read(f"types/data/{number}") if number < 12 else b""
            size = {**sizes, "int16": 2}.get(kind, 1)
            swapped[f"data/{number}"] = np.frombuffer(data, f"V{size}").copy().view(f"u{size}")
    changes: dict[str, bytes | None] = {n: a.byteswap().tobytes() for n, a in swapped.items()}
    path = rewritten(source, tmp_path / "big.bin", changes | {"byteorder": b"big"})
    tensors = read_tensors([path])
    for key, value in expected("types.bin").items():
        np.testing.assert_array_equal(tensors[key], value.astype(tensors[key].dtype))
    without = rewritten(source, tmp_path / "none.bin", {"byteorder": None})  # torch before 2.1
    np.testing.assert_array_equal(read_tensors([without])["f32"], expected("types.bin")["f32"])
    other = rewritten(source, tmp_path / "other.bin", {"byteorder": b"middle"})
    with pytest.raises(ModelFileError, match="byte order is b'middle'"):
        read_tensors([other])


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("legacy.bin", "as torch wrote files before version 1.6; load it with torch and save it"),
        ("module.bin", "imports torch.nn.modules.linear.Linear"),
        ("list.bin", "operation EMPTY_LIST"),
        ("nested.bin", "entry 'model' is a value of type dict, not a tensor"),
        ("numbers.bin", "entry 'epoch' is a value of type int, not a tensor"),
        ("sparse.bin", r"imports torch\._utils\._rebuild_sparse_tensor"),
        ("quantised.bin", r"imports torch\._utils\._rebuild_qtensor"),
        ("float8.bin", r"imports torch\._utils\._rebuild_tensor_v3"),
        ("complex.bin", r"imports torch\.ComplexFloatStorage"),
        ("script.bin", "TorchScript program"),
    ],
)
def test_what_is_not_tensors_is_refused_by_name(name: str, found: str) -> None:
    with pytest.raises(ModelFileError, match=rf"{name} cannot be read as a PyTorch file.*{found}"):
        read_torch_file(FILES / name)


def test_a_file_that_shrinks_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes((FILES / "views.bin").read_bytes())
    tensors = read_tensors([path])
    path.write_bytes(b"")
    with pytest.raises(ModelFileError, match="has changed"):
        tensors["whole"]
