"""Hostile PyTorch files: nothing in them is run, and each is refused by an error of ours."""

from __future__ import annotations

import pickletools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from torch_zip import EMPTY, PROTO, parts_of, text, zipped

from hostile import pickles, room
from qdrant_embed import ModelFileError
from qdrant_embed.encoder.files.torch_file import read_torch_file

WEIGHTS: dict[str, NDArray[Any]] = {"a": np.ones((2, 2), np.float32), "b": np.arange(3)}
# odd, but the tensors are right
SOUND = {
    "archive: sound",
    "archive: sound, in another folder",
    "archive: sound, with a comment",
    "archive: 65,535 entries",
    "archive: folder of sizes",
    "sound: described again",
}


@pytest.mark.skipif(sys.platform == "win32", reason="limits and pipes of Unix")
def test_a_file_is_tensors_or_refused(tmp_path: Path) -> None:
    cases = []
    for number, (name, content) in enumerate(pickles.torch_files(WEIGHTS).items()):
        path = tmp_path / f"{number}.bin"
        path.write_bytes(content)
        cases.append(room.Case(name, "tensors", {"file": str(path)}))
    found = room.checked(cases, tmp_path, memory=1 << 30, seconds=5.0)
    answers = {name: outcome.found for name, outcome in found.items() if outcome.kind == "answer"}
    assert answers == {**dict.fromkeys(SOUND, len(WEIGHTS)), "pickle: memo far away": 0}
    assert {outcome.error for outcome in found.values()} == {"", "ModelFileError"}
    refused = [one.message for one in found.values() if one.name.startswith("pickle:")]
    assert all("cannot be read as a PyTorch file: it" in said for said in refused if said)


def test_only_what_describes_tensors_is_understood(tmp_path: Path) -> None:
    """Each operation that a pickle may have, with a stack that it could work on."""
    known = b"\x80(cqrhj)\x85\x86\x87t}suXKMJ\x8a\x88\x89NQRb."
    names = {operation.code.encode("latin-1"): operation.name for operation in pickletools.opcodes}
    path = tmp_path / "pytorch_model.bin"
    stack = PROTO + EMPTY + b"(" + text("os") + text("system")
    for code in (bytes([operation]) for operation in range(256)):
        path.write_bytes(zipped({**parts_of(WEIGHTS), "data.pkl": stack + code + b"\0" * 20}))
        with pytest.raises(ModelFileError) as raised:
            read_torch_file(path)
        named = f"the operation {names.get(code, repr(code))}"
        assert (named in str(raised.value)) == (code not in known)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("GLOBAL of os.system", "imports os.system"),
        ("of Python, protocol 0", "imports __builtin__.exec"),
        ("of Python, protocol 2", "imports __builtin__.exec"),
        ("STACK_GLOBAL", "operation SHORT_BINUNICODE"),
        ("INST", "operation INST"),
        ("NEWOBJ", "imports builtins.exec"),
        ("NEWOBJ of a known name", "operation NEWOBJ"),
        ("EXT1", "operation EXT1"),
        ("PERSID", "operation PERSID"),
        ("BUILD of a dict", "gives attributes to a value of type dict"),
    ],
)
def test_what_was_found_is_named(name: str, found: str, tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(zipped({**parts_of(WEIGHTS), "data.pkl": pickles.programs()[name]}))
    with pytest.raises(ModelFileError, match=found) as raised:
        read_torch_file(path)
    assert "nothing in it was run" in str(raised.value)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("20,000 parts", "directory has .* can have 1,048,576 at most"),
        ("5,000 parts", "has 5,005 parts: it can have 4,000 at most"),
        ("bomb", "part 'archive/data.pkl' is compressed or encrypted"),
        ("encrypted", "is compressed or encrypted"),
        ("part in a part", "part 'archive/inner' overlaps another"),
        ("two with one name", "two of its parts have the same name"),
        ("outside", r"part '\.\./\.\./\.\./executed' is not in the folder"),
        ("text", "begins with b'vers', not as a zip archive does"),
    ],
)
def test_what_was_found_in_an_archive_is_named(name: str, found: str, tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(pickles.archives(WEIGHTS)[name])
    with pytest.raises(ModelFileError, match=found):
        read_torch_file(path)
