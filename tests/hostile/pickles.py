"""Makers of hostile PyTorch files: pickles that call, import, blow up or lie, and such archives."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch_zip import (
    EMPTY,
    PROTO,
    STOP,
    described,
    entries,
    name_of,
    number,
    parts_of,
    storage,
    tensor,
    text,
    tuple_of,
    zipped,
)

MARKER = "open('executed', 'w').close()"
_RUN = name_of("builtins", "exec")
_CODE = text(MARKER)
_DICT = name_of("collections", "OrderedDict")
_REBUILD = name_of("torch._utils", "_rebuild_tensor_v2")
_LONG = struct.Struct("<Q")


class _Evil:
    """What pickle itself makes of an object that runs code when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (MARKER,)


def programs() -> dict[str, bytes]:
    """Pickles that would import, call or build something; by the operation that they use."""
    evil = {f"of Python, protocol {p}": pickle.dumps(_Evil(), p) for p in range(6)}
    evil |= {
        f"in a dict, protocol {p}": pickle.dumps({"a": _Evil(), "b": [_Evil()]}, p)
        for p in range(6)
    }
    one = b"\x8c\x08builtins\x8c\x04exec\x93"
    return evil | {
        "GLOBAL and REDUCE": PROTO + _RUN + tuple_of(_CODE) + b"R" + STOP,
        "GLOBAL alone": PROTO + _RUN + STOP,
        "GLOBAL of os.system": PROTO + name_of("os", "system") + text("touch executed") + b"\x85R.",
        "GLOBAL of a known name's part": PROTO
        + name_of("torch._utils", "_rebuild_tensor_v2.__globals__")
        + STOP,
        "GLOBAL of a known module": PROTO + name_of("torch._utils", "_import_dotted_name") + STOP,
        "GLOBAL of torch.load": PROTO + name_of("torch", "load") + tuple_of(text("x")) + b"R.",
        "GLOBAL of a method": PROTO + name_of("collections", "OrderedDict.fromkeys") + STOP,
        "GLOBAL of a class method": PROTO + name_of("torch", "FloatStorage.from_file") + STOP,
        "GLOBAL of nothing": PROTO + name_of("", "") + STOP,
        "GLOBAL with dots": PROTO + name_of("..torch", "FloatStorage") + STOP,
        "GLOBAL without end": PROTO + b"c" + b"x" * 100_000,
        "GLOBAL that is not UTF-8": PROTO + b"c\xff\xfe\n\xff\n.",
        "STACK_GLOBAL": b"\x80\x04" + one + _CODE + b"\x85R.",
        "STACK_GLOBAL of known names": b"\x80\x04\x8c\x0bcollections\x8c\x0bOrderedDict\x93)R.",
        "INST": PROTO + b"(" + _CODE + b"ibuiltins\nexec\n.",
        "INST of a known name": PROTO + b"(icollections\nOrderedDict\n.",
        "OBJ": PROTO + b"(" + _RUN + _CODE + b"o.",
        "OBJ of a known name": PROTO + b"(" + _DICT + b"o.",
        "NEWOBJ": PROTO + _RUN + _CODE + b"\x85\x81.",
        "NEWOBJ of a known name": PROTO + _DICT + b")\x81.",
        "NEWOBJ_EX": b"\x80\x04" + _DICT + b")}\x92.",
        "REDUCE of a known name with arguments": PROTO + _DICT + _CODE + b"\x85R.",
        "REDUCE of a type": PROTO + name_of("torch", "FloatStorage") + b")R.",
        "REDUCE of a text": PROTO + _CODE + b")R.",
        "REDUCE of a dict": PROTO + b"})R.",
        "REDUCE of a tensor": PROTO + _REBUILD + b")R.",
        "REDUCE with a list": PROTO + _DICT + b"]R.",
        "REDUCE with a dict": PROTO + _DICT + b"}R.",
        "REDUCE of nothing": PROTO + b"R.",
        "BUILD of a dict": PROTO + b"}}b.",
        "BUILD of a name": PROTO + _DICT + b"}" + text("__reduce__") + _RUN + b"sb.",
        "BUILD with slots": PROTO + EMPTY + tuple_of(b"N", b"}") + b"b.",
        "BUILD of a class": PROTO + _DICT + b"}" + text("__setstate__") + text("x") + b"sb)R.",
        "BUILD with a name": PROTO + EMPTY + _RUN + b"b.",
        "EXT1": PROTO + b"\x82\x01.",
        "EXT2": PROTO + b"\x83\x01\x00.",
        "EXT4": PROTO + b"\x84\x01\x00\x00\x00.",
        "PERSID": PROTO + b"Pbuiltins.exec\n.",
        "BINPERSID of a text": PROTO + text("0") + b"Q.",
        "BINPERSID of nothing": PROTO + b"NQ.",
        "BINPERSID of names": PROTO + tuple_of(_DICT, _REBUILD) + b"Q.",
        "BINPERSID of a module": PROTO
        + tuple_of(text("module"), _DICT, text("source.py"), text(MARKER))
        + b"Q.",
    }


def _named(value: bytes) -> bytes:
    return entries({"embeddings.word_embeddings.weight": value})


def blow_ups() -> dict[str, bytes]:
    """Pickles that are deep, large, or state sizes that are not true."""
    doubled = b")q\x00" + b"".join(
        b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(250)
    )
    floats = storage("Float", "0", 1)
    return {
        "empty": b"",
        "no STOP": PROTO + b"}",
        "STOP alone": STOP,
        "STOP with two values": PROTO + b"}}.",
        "more behind STOP": PROTO + b"}." + b"x" * 1000,
        "second pickle behind STOP": PROTO + b"}." + PROTO + _RUN + tuple_of(_CODE) + b"R.",
        "unknown operation": PROTO + b"\xff.",
        "marks": PROTO + b"(" * 1_000_000,
        "deep tuples": PROTO + b")" + b"\x85" * 200_000 + STOP,
        "deep dicts": PROTO + b"}" * 5000 + b"".join(text("a") for _ in range(1)) + b"s.",
        "dict in dicts": PROTO + b"}" + (text("a") + b"}") * 4000 + b"s" * 4000 + STOP,
        "many dicts": PROTO + b"}" * 1_000_000 + STOP,
        "many dicts, kept": PROTO + b"".join(b"}r" + struct.pack("<I", i) for i in range(150_000)),
        "tuples that double": PROTO + doubled + STOP,
        "tuples that double, as a name": PROTO + b"}" + doubled + b"Ns.",
        "tuples that double, as a shape": PROTO
        + doubled
        + b"0"
        + _REBUILD
        + tuple_of(floats, b"K\x00", b"h\xfa", b"h\xfa", b"\x89", EMPTY)
        + b"R.",
        "memo far away": PROTO + b"}r\xff\xff\xff\xff.",
        "memo of nothing": PROTO + b"q\x00.",
        "memo that is not there": PROTO + b"h\x05.",
        "long memo that is not there": PROTO + b"j\xff\xff\xff\xff.",
        "LONG1 of 255 bytes": PROTO + b"\x8a\xff" + b"\xff" * 255 + STOP,
        "LONG4 of 2 GB": PROTO + b"\x8b\xff\xff\xff\x7f" + b"\xff" * 100,
        "LONG4 of a negative size": PROTO + b"\x8b\xff\xff\xff\xff.",
        "LONG of a million digits": PROTO + b"L" + b"9" * 1_000_000 + b"L\n.",
        "INT": PROTO + b"I" + b"9" * 100_000 + b"\n.",
        "FLOAT": PROTO + b"F1e999\n.",
        "BINFLOAT": PROTO + b"G" + b"\x7f\xf0" + b"\0" * 6 + STOP,
        "frame without end": b"\x80\x04\x95" + _LONG.pack(2**63 - 1) + b"}.",
        "frame that is short": b"\x80\x04\x95" + _LONG.pack(1) + b"}q\x00.",
        "text of 4 GB": PROTO + b"X\xff\xff\xff\xff" + b"x" * 100,
        "text of 16 EB": b"\x80\x04\x8d" + _LONG.pack(2**64 - 1) + b"x" * 100,
        "text that is not UTF-8": PROTO + b"X\x02\x00\x00\x00\xff\xfe.",
        "text with a surrogate": PROTO + b"X\x03\x00\x00\x00\xed\xa0\x80.",
        "bytes of 16 EB": b"\x80\x05\x96" + _LONG.pack(2**62) + b"x" * 100,
        "buffers": b"\x80\x05\x97\x98.",
        "STRING": PROTO + b"S'\\x41'\n.",
        "BINSTRING of a negative size": PROTO + b"T\xff\xff\xff\xff.",
        "UNICODE": PROTO + b"V" + b"\\u0041" * 1000 + b"\n.",
        "sets": b"\x80\x04\x8f(K\x01\x90.",
        "frozen sets": b"\x80\x04(K\x01\x91.",
        "lists": PROTO + b"](K\x01K\x02e.",
        "DUP and POP": PROTO + b"}20" * 1000 + STOP,
        "POP_MARK": PROTO + b"}(1.",
        "SETITEMS of three": PROTO + b"}(" + text("a") * 3 + b"u.",
        "SETITEMS without a mark": PROTO + b"}u.",
        "SETITEM of a text": PROTO + text("a") * 3 + b"s.",
        "entries under a mark": PROTO + b"}(s.",
        "name that is a number": PROTO + b"}K\x01Ns.",
        "name that is a tuple": PROTO + b"})Ns.",
        "itself": PROTO + b"}q\x00" + text("a") + b"h\x00s.",
        "a number": PROTO + b"K\x01.",
        "nothing": PROTO + b"N.",
        "a tensor without a name": PROTO + tensor(floats, 0, (1,), (1,)) + STOP,
        "a storage": _named(floats),
        "a name": _named(_DICT),
        "900,000 POPs": entries({"a": b"N"})[:-1] + b"0" * 900_000,
    }


def lies() -> dict[str, bytes]:
    """Descriptions of tensors that are not in the file, or not so."""
    floats = storage("Float", "0", 4)
    cases: dict[str, bytes] = {}
    for what, offset, shape, strides in (
        ("offset is negative", -1, (1,), (1,)),
        ("offset is outside", 4, (1,), (1,)),
        ("offset is 2**62", 2**62, (1,), (1,)),
        ("too many numbers", 0, (5,), (1,)),
        ("stride is outside", 0, (2,), (4,)),
        ("stride is negative", 3, (2,), (-1,)),
        ("stride is 2**62", 0, (2,), (2**62,)),
        ("repeats one number", 0, (10**15,), (0,)),
        ("repeats one number a little", 0, (2, 4), (0, 1)),
        ("size is negative", 0, (-1,), (1,)),
        ("size is 2**63", 0, (2**63,), (0,)),
        ("sizes overflow", 0, (2**32, 2**32), (0, 0)),
        ("sizes are nothing and endless", 0, (0, 2**61), (1, 1)),
        ("more sizes than steps", 0, (2, 2), (1,)),
        ("thousand sizes", 0, (1,) * 1000, (1,) * 1000),
    ):
        cases[f"tensor: {what}"] = _named(tensor(floats, offset, shape, strides))
    for what, key in (
        ("outside", "../../../etc/passwd"),
        ("absolute", "/etc/passwd"),
        ("up and down", "0/../0"),
        ("empty", ""),
        ("missing", "999"),
        ("digits of other scripts", "\u0661"),
        ("the pickle", "../data.pkl"),
        ("NUL", "0\0"),
        ("long", "9" * 100_000),
    ):
        cases[f"storage: {what}"] = _named(tensor(storage("Float", key, 1), 0, (1,), (1,)))
    for count in (5, 10**6, 2**40, 2**62, -1, 2**63):
        lying = storage("Float", "0", count)
        cases[f"storage: of {count} numbers"] = _named(tensor(lying, 0, (1,), (1,)))
    typed = tuple_of(text("storage"), text("FloatStorage"), text("0"), text("cpu"), number(1))
    exact = tuple_of(text("storage"), _RUN, text("0"), text("cpu"), number(1))
    return cases | {
        "storage: type is a text": _named(tensor(typed + b"Q", 0, (1,), (1,))),
        "storage: type is exec": _named(tensor(exact + b"Q", 0, (1,), (1,))),
        "storage: of complex numbers": _named(
            tensor(storage("ComplexFloat", "0", 1), 0, (1,), (1,))
        ),
        "storage: untyped": _named(tensor(storage("Untyped", "0", 1), 0, (1,), (1,))),
        "tensor: sizes are texts": _named(
            _REBUILD
            + tuple_of(floats, number(0), tuple_of(text("a")), tuple_of(text("a")), b"\x89", EMPTY)
            + b"R"
        ),
        "tensor: sizes are truths": _named(
            _REBUILD
            + tuple_of(floats, number(0), tuple_of(b"\x88"), tuple_of(b"\x88"), b"\x89", EMPTY)
            + b"R"
        ),
        "tensor: of a tensor": _named(
            _REBUILD
            + tuple_of(
                tensor(floats, 0, (1,), (1,)), number(0), tuple_of(), tuple_of(), b"\x89", EMPTY
            )
            + b"R"
        ),
        "tensor: with metadata": _named(
            _REBUILD
            + tuple_of(floats, number(0), tuple_of(), tuple_of(), b"\x89", EMPTY, b"}")
            + b"R"
        ),
        "tensor: 4,001 of them": entries(
            {str(i): tensor(floats, 0, (1,), (1,)) for i in range(4_001)}
        ),
    }


def _directory_end(content: bytes) -> int:
    return content.rindex(b"PK\5\6")


def archives(weights: Mapping[str, Any]) -> dict[str, bytes]:
    """Archives that are none, pack a bomb, overlap, or lead outside."""
    parts = parts_of(weights)
    whole = zipped(parts)
    end = _directory_end(whole)
    size, start = struct.unpack("<II", whole[end + 12 : end + 20])
    central = whole[start : start + size]
    bomb = {**parts, "data/0": b"\0" * (8 << 20)}
    evil = {"data.pkl": programs()["GLOBAL and REDUCE"]}
    twice = zipped({**parts, "dbta.pkl": evil["data.pkl"]}).replace(b"dbta.pkl", b"data.pkl")

    def with_end(**changes: int) -> bytes:
        fields = dict(
            zip(
                ("disk", "first", "here", "entries", "size", "start"),
                struct.unpack("<HHHHII", whole[end + 4 : end + 20]),
                strict=True,
            )
        )
        return whole[: end + 4] + struct.pack("<HHHHII", *(fields | changes).values()) + b"\0\0"

    def renamed(name: str, other: str) -> bytes:
        assert len(name) == len(other)
        return whole.replace(name.encode(), other.encode())

    flags = bytearray(whole)
    for position in (p for p in range(start, end) if whole[p : p + 4] == b"PK\1\2"):
        flags[position + 8] |= 1
    moved = bytearray(whole)
    second = whole.index(b"PK\1\2", start + 4)
    moved[second + 42 : second + 46] = whole[start + 42 : start + 46]  # where the first begins
    # a part inside the numbers of another
    inner = zipped({"inner": b"1234"})
    outer = zipped({**parts, "data/9": inner})
    at, begins = _directory_end(outer), outer.rindex(b"PK\3\4", 0, outer.index(b"archive/inner"))
    listed = inner[inner.index(b"PK\1\2") : _directory_end(inner)]
    listed = listed[:42] + struct.pack("<I", begins) + listed[46:]
    count, length = struct.unpack("<HI", outer[at + 10 : at + 16])
    ends = struct.pack("<HHI", count + 1, count + 1, length + len(listed))
    nested = outer[:at] + listed + outer[at : at + 8] + ends + outer[at + 16 :]
    rooted = {f"archive/{name}": content for name, content in parts.items()}
    many = {f"x{i}": b"" for i in range(20_000)}
    return {
        "sound": whole,
        "sound, with a comment": whole[: end + 20] + b"\5\0" + b"hello",
        "sound, in another folder": zipped(parts, "pytorch_model/"),
        "not a zip": b"PK\3\4" + b"x" * 1000,
        "text": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "nothing": b"",
        "pickle instead of a zip": programs()["GLOBAL and REDUCE"],
        "truncated": whole[: len(whole) // 2],
        "without its last byte": whole[:-1],
        "compressed": zipped(parts, compression=zipfile.ZIP_DEFLATED),
        "bomb": zipped(bomb, compression=zipfile.ZIP_DEFLATED),
        "bomb of bzip2": zipped(bomb, compression=zipfile.ZIP_BZIP2),
        "5,000 parts": zipped({**parts, **dict(list(many.items())[:5000])}),
        "bomb of a pickle": zipped(
            {"data.pkl": b"}" * (8 << 20)}, compression=zipfile.ZIP_DEFLATED
        ),
        "pickle of 2 MB": zipped({"data.pkl": b"}" * (2 << 20)}),
        "byte order of 1 MB": zipped({**parts, "byteorder": b"little" * 200_000}),
        "20,000 parts": zipped({**parts, **many}),
        "two with one name": twice,
        "two pickles": zipped({**parts, "../other/data.pkl": evil["data.pkl"]}),
        "evil pickle": zipped({**parts, **evil}),
        "no pickle": zipped({name: part for name, part in parts.items() if name != "data.pkl"}),
        "no numbers": zipped({"data.pkl": parts["data.pkl"]}),
        "no folder": zipped(parts, ""),
        "deep folder": zipped(parts, "a/b/"),
        "outside": zipped(rooted | {"../../../executed": b"x"}, ""),
        "outside, from inside": zipped({**parts, "../../../executed": b"x"}),
        "absolute": zipped(parts, "/archive/"),
        "up": zipped(parts, "../"),
        "backslashes": zipped({**parts, "..\\..\\executed": b"x"}),
        "NUL in a name": renamed("archive/version", "archive/vers\0on"),
        "other name in the header": whole.replace(b"archive/version", b"archive/verzion", 1),
        "program": zipped({**parts, "code/__torch__.py": MARKER.encode()}),
        "constants": zipped({**parts, "constants.pkl": evil["data.pkl"]}),
        "encrypted": bytes(flags),
        "overlapping": bytes(moved),
        "part in a part": nested,
        "directory of 4 GB": with_end(size=2**32 - 1),
        "directory that starts elsewhere": with_end(start=2**31),
        "directory that is empty": with_end(entries=0, here=0, size=0),
        "65,535 entries": with_end(entries=65535, here=65535),
        "directory of garbage": whole[:start] + b"\xff" * size + whole[end:],
        "directory twice": whole[:start] + central * 2 + with_end(size=2 * size)[end:],
        "zip64 that lies": whole[:end]
        + b"PK\6\6"
        + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 2**63, 2**63, 2**63, 2**63)
        + b"PK\6\7"
        + struct.pack("<IQI", 0, end, 1)
        + with_end(entries=65535, here=65535, size=2**32 - 1, start=2**32 - 1)[end:],
        "garbage before": b"\x7fELF" + b"x" * 1000 + whole,
        "script before": b"#!/bin/sh\ntouch executed\n" + whole,
        "folder of sizes": zipped({**parts, "data/": b""}),
    }


def torch_files(weights: Mapping[str, Any]) -> dict[str, bytes]:
    """Every hostile PyTorch file by name, each around `weights`; "sound" ones are so, too."""
    parts = parts_of(weights)
    pickles = {**programs(), **blow_ups(), **lies()}
    found = {
        f"pickle: {name}": zipped({**parts, "data.pkl": pickled})
        for name, pickled in pickles.items()
    }
    found |= {f"archive: {name}": content for name, content in archives(weights).items()}
    for value in (np.nan, np.inf):
        odd = {key: np.full(array.shape, value, np.float32) for key, array in weights.items()}
        found[f"values: {value}"] = zipped(parts_of(odd))
    doubles = {key: np.full(array.shape, 1e300) for key, array in weights.items()}
    found["values: doubles beyond floats"] = zipped(parts_of(doubles))
    again = entries(described(weights))
    return found | {"sound: described again": zipped({**parts, "data.pkl": again})}
