"""Makers of hostile model folders: each changes a copy of a sound one."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file, save_file
from tiny import tiny_bert, tiny_tokenizer, write_model, write_modules
from tiny_onnx import WIDTH, tiny_onnx
from torch_zip import parts_of, zipped

from hostile.pickles import programs
from qdrant_embed import TextEmbedding
from qdrant_embed.encoder.files.cache import sealed, unsealed
from qdrant_embed.encoder.files.plan import MANIFEST

Change = Callable[[Path], object]

# what a repository may bring along, and nobody may run
PROGRAMS = ("modeling.py", "conftest.py", "sitecustomize.py", "onnxruntime.py", "setup.py")
MARKER = "open('executed', 'w').close()"
DEEP = "[" * 100_000
DIGITS = "9" * 5000
CONFIGS = (
    "config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
    "tokenizer_config.json",
    "tokenizer.json",
)


def sound(kind: str, folder: Path) -> Path:
    """Write a sound model: ``bert``, ``static`` or ``onnx``, or ``exported`` in our own format."""
    if kind == "bert":
        tiny_bert(folder, layers=1)
    elif kind == "exported":
        with TemporaryDirectory() as base:
            model = tiny_bert(Path(base) / "bert", layers=1).path
            encoder = TextEmbedding(model, precision="fp32", cache_dir=Path(base) / "cache")
            encoder.export(folder)
    elif kind == "static":
        folder.mkdir()
        size = tiny_tokenizer().get_vocab_size()
        table = np.random.default_rng(0).normal(size=(size, 16)).astype(np.float32)
        save_file({"embeddings": table}, folder / "model.safetensors")
        tiny_tokenizer().save(str(folder / "tokenizer.json"))
        (folder / "config.json").write_text('{"model_type": "model2vec", "normalize": true}')
    else:
        config = {"model_type": "deberta", "hidden_size": WIDTH, "max_position_embeddings": 64}
        write_model(folder, config, None)
        tiny_onnx(tiny_tokenizer().get_vocab_size()).save(folder / "model.onnx")
    return folder


def text(file: str, content: str | bytes) -> Change:
    """Replace a file's content."""
    data = content.encode() if isinstance(content, str) else content

    def change(folder: Path) -> None:
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_bytes(data)

    return change


def merged(file: str, **values: object) -> Change:
    """Set keys of a JSON file."""

    def change(folder: Path) -> None:
        path = folder / file
        content = json.loads(path.read_bytes()) if path.is_file() else {}
        path.write_text(json.dumps(content | values))

    return change


def tokenizer(change: Callable[[dict[str, Any]], object]) -> Change:
    """Change the content of ``tokenizer.json``."""

    def changed(folder: Path) -> None:
        content = json.loads((folder / "tokenizer.json").read_bytes())
        change(content)
        (folder / "tokenizer.json").write_text(json.dumps(content))

    return changed


def tensors(change: Callable[[dict[str, Any]], object]) -> Change:
    """Change the weights."""

    def changed(folder: Path) -> None:
        content = load_file(folder / "model.safetensors")
        change(content)
        save_file(content, folder / "model.safetensors")

    return changed


def module_path(path: str) -> Change:
    """Have ``modules.json`` chain a pooling at `path`."""

    def change(folder: Path) -> None:
        file = folder / "modules.json"
        modules = json.loads(file.read_bytes())
        modules[1]["path"] = path
        file.write_text(json.dumps(modules))

    return change


def header(content: bytes | str, length: int | None = None) -> Change:
    """Replace the header of the safetensors file."""
    data = content.encode() if isinstance(content, str) else content
    size = struct.pack("<Q", len(data) if length is None else length)
    return text("model.safetensors", size + data + bytes(64))


def unknown_replaced(token: str | None) -> Change:
    return tokenizer(lambda content: content["model"].update(unk_token=token))


def _set(content: dict[str, Any], key: str, value: object) -> None:
    content[key] = value


def of_tokenizers() -> dict[str, Change]:
    """Tokenizer files that are none, that panic, or that blow up."""
    part: Callable[[str, object], Change] = lambda key, value: tokenizer(  # noqa: E731
        lambda content: _set(content, key, value)
    )
    split = {"type": "Split", "behavior": "Isolated", "invert": False}
    return {
        "no unknown token": unknown_replaced("[GONE]"),
        "unknown token is null": unknown_replaced(None),
        "ids far out of range": tokenizer(
            lambda c: c["model"]["vocab"].update({"cat": 4_000_000_000})
        ),
        "ids just out of range": tokenizer(
            lambda c: c["model"]["vocab"].update({"cat": len(c["model"]["vocab"])})
        ),
        "negative id": tokenizer(lambda c: c["model"]["vocab"].update({"cat": -1})),
        "no vocabulary": tokenizer(lambda c: c["model"].update(vocab={})),
        "special token id out of range": tokenizer(
            lambda c: c["post_processor"]["special_tokens"]["[CLS]"].update(ids=[99999])
        ),
        "special tokens more than the model reads": tokenizer(
            lambda c: c["post_processor"].update(single=c["post_processor"]["single"] * 500)
        ),
        "special tokens without end": tokenizer(
            lambda c: c["post_processor"].update(single=c["post_processor"]["single"] * 20_000)
        ),
        "added token is empty": part("added_tokens", [_added(5, "")]),
        "added tokens out of range": part("added_tokens", [_added(70_000, "cat")]),
        "30,000 added tokens": part(
            "added_tokens", [_added(1000 + i, f"<x{i}>") for i in range(30_000)]
        ),
        "added token of 500 KB": part("added_tokens", [_added(200, "x" * 500_000)]),
        "regular expression that backtracks": part(
            "pre_tokenizer", {**split, "pattern": {"Regex": "(a|a)*(a|a)*(a|a)*b"}}
        ),
        "regular expression that is none": part(
            "pre_tokenizer", {**split, "pattern": {"Regex": "(((("}}
        ),
        "regular expression that looks back": part(
            "pre_tokenizer", {**split, "pattern": {"Regex": "(?:(m+)+)+$(?<=x)"}}
        ),
        "replacement that grows": part(
            "normalizer",
            {
                "type": "Sequence",
                "normalizers": [
                    {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}
                    for _ in range(4)
                ],
            },
        ),
        "replacement of nothing": part(
            "normalizer", {"type": "Replace", "pattern": {"String": ""}, "content": "x" * 100_000}
        ),
        "prepended megabytes": part("normalizer", {"type": "Prepend", "prepend": "x" * 20_000_000}),
        "precompiled map of garbage": part(
            "normalizer", {"type": "Precompiled", "precompiled_charsmap": "/////w" + "A" * 400}
        ),
        "precompiled map that is short": part(
            "normalizer", {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
        ),
        "deep normalizers": text(
            "tokenizer.json",
            '{"normalizer": ' + '{"type": "Sequence", "normalizers": [' * 20_000 + "]}" * 20_000,
        ),
        "unigram with unk_id out of range": part(
            "model", {"type": "Unigram", "unk_id": 99, "vocab": [["a", -1.0], ["b", -2.0]]}
        ),
        "unigram with infinite scores": part(
            "model", {"type": "Unigram", "unk_id": 0, "vocab": [["a", -1e308], ["b", 1e308]]}
        ),
        "unigram without unknown": part(
            "model", {"type": "Unigram", "unk_id": None, "vocab": [["a", -1.0], ["b", -2.0]]}
        ),
        "unigram of nothing": part("model", {"type": "Unigram", "unk_id": None, "vocab": []}),
        "bpe whose merges lead nowhere": part(
            "model",
            {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": [["a", "b"]], "unk_token": "q"},
        ),
        "bpe with unknown that is not there": part(
            "model", {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": [], "unk_token": "q"}
        ),
        "word level without unknown": part(
            "model", {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "q"}
        ),
        "prefix that cuts characters": tokenizer(
            lambda c: c["model"].update(continuing_subword_prefix="\u00e9" * 10)
        ),
        "words of no characters": tokenizer(
            lambda c: c["model"].update(max_input_chars_per_word=0)
        ),
        "truncation without room": part(
            "truncation",
            {"direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 10**9},
        ),
        "padding without end": part(
            "padding",
            {
                "strategy": {"Fixed": 2**40},
                "direction": "Right",
                "pad_to_multiple_of": 0,
                "pad_id": 0,
                "pad_type_id": 0,
                "pad_token": "[PAD]",
            },
        ),
        "lone surrogate": text(
            "tokenizer.json", '{"model": {"type": "BPE", "unk_token": "\\ud800"}}'
        ),
    }


def _added(number: int, content: str) -> dict[str, object]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": content, "special": False, **flags}


def of_configs() -> dict[str, Change]:
    """Configs that are no JSON, too deep, too large, or say what cannot be."""
    found: dict[str, Change] = {}
    for file in CONFIGS:
        name = file.replace("/", " ")
        found |= {
            f"{name}: deep": text(file, DEEP),
            f"{name}: deep objects": text(file, '{"a":' * 50_000 + "1" + "}" * 50_000),
            f"{name}: digits": text(
                file, f'{{"vocab_size": {DIGITS}, "max_seq_length": {DIGITS}}}'
            ),
            f"{name}: not UTF-8": text(file, b'{"a": "\xff\xfe"}'),
            f"{name}: a surrogate": text(
                file, '{"model_type": "\\ud800", "prompts": {"query": "\\ud800"}}'
            ),
            f"{name}: empty": text(file, ""),
            f"{name}: a number": text(file, "1e999"),
            f"{name}: null": text(file, "null"),
            f"{name}: NUL": text(file, "\0" * 1000),
            f"{name}: 17 MB": text(file, '{"a": "' + "x" * 17_000_000 + '"}'),
            f"{name}: a folder": _folder(file),
        }
    huge: dict[str, object] = {
        "hidden_size": 10**18,
        "num_hidden_layers": 10**9,
        "num_attention_heads": 10**9,
        "vocab_size": 10**15,
        "intermediate_size": 10**15,
        "max_position_embeddings": 10**15,
        "type_vocab_size": 10**15,
        "layer_norm_eps": 1e-400,
    }
    found |= {
        f"config {key} is huge": merged("config.json", **{key: value})
        for key, value in huge.items()
    }
    for key in huge:
        found[f"config {key} is infinite"] = _infinite(key)
    found |= {
        "length without end": merged("tokenizer_config.json", model_max_length=10**400),
        "length not a number": text("tokenizer_config.json", '{"model_max_length": NaN}'),
        "length infinite": text("tokenizer_config.json", '{"model_max_length": Infinity}'),
        "max_seq_length 2**70": merged("sentence_bert_config.json", max_seq_length=2**70),
        "max_seq_length absent, no tokenizer_config": merged(
            "sentence_bert_config.json", max_seq_length=None
        ),
        "prompts of 10 MB": merged(
            "config_sentence_transformers.json",
            prompts={"query": "cat " * 2_500_000, "document": "dog " * 2_500_000},
        ),
        "prompt with NUL": merged(
            "config_sentence_transformers.json", prompts={"query": "\0\x1b[31m"}
        ),
        "1,000 modules": text(
            "modules.json", json.dumps([{"type": "a.Dense", "path": f"{i}"} for i in range(1000)])
        ),
        "module names of 1 MB": text(
            "modules.json", json.dumps([{"type": "x" * 1_000_000, "path": ""}])
        ),
        "module types with control characters": text(
            "modules.json", '[{"type": "\\u001b[31m", "path": ""}]'
        ),
    }
    return found


def _infinite(key: str) -> Change:
    def change(folder: Path) -> None:
        content = json.loads((folder / "config.json").read_bytes()) | {key: float("inf")}
        (folder / "config.json").write_text(json.dumps(content))

    return change


def _folder(file: str) -> Change:
    def change(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        (folder / file).mkdir(parents=True)

    return change


def of_modules() -> dict[str, Change]:
    """Module paths that lead elsewhere or nowhere."""
    paths = {
        "NUL": "a\0b",
        "stars": "**",
        "star": "*",
        "10,000 characters": "x" * 10_000,
        "10,000 folders": "x/" * 5_000,
        "up": "../../../etc",
        "absolute": "/etc",
        "a surrogate": "\ud800",
        "a drive": "C:\\Windows",
        "dots": ".",
        "spaces": " ",
        "a file": "tokenizer.json",
        "a line": "\n",
    }
    return {f"module path: {name}": module_path(path) for name, path in paths.items()}


def of_weights() -> dict[str, Change]:
    """Safetensors files that are none, do not fit, or hold NaN."""

    def every(value: float) -> Callable[[dict[str, Any]], object]:
        return lambda found: found.update({key: np.full_like(t, value) for key, t in found.items()})

    def first(value: float) -> Callable[[dict[str, Any]], object]:
        def change(found: dict[str, Any]) -> None:
            name = next(n for n in found if "word_embeddings" in n or "embedd" in n)
            found[name] = found[name].copy()
            found[name][5] = value

        return change

    return {
        "weights: NaN": tensors(every(float("nan"))),
        "weights: one row NaN": tensors(first(float("nan"))),
        "weights: one row infinite": tensors(first(float("inf"))),
        "weights: zeros": tensors(every(0.0)),
        "weights: huge": tensors(every(3e38)),
        "weights: one row huge": tensors(first(3e38)),
        "weights: none": tensors(lambda found: [found.pop(key) for key in list(found)][:0]),
        "weights: scalars": tensors(
            lambda found: found.update({key: np.ones((), np.float32) for key in found})
        ),
        "weights: no rows": tensors(
            lambda found: found.update({key: t[:0] for key, t in found.items()})
        ),
        "header: longer than the file": header("{}", 2**62),
        "header: longest": header("{}", 2**64 - 1),
        "header: deep": header('{"a":' * 50_000),
        "header: digits": header(
            '{"a": {"dtype": "F32", "shape": [' + DIGITS + '], "data_offsets": [0, 4]}}'
        ),
        "header: overflow": header(
            '{"a": {"dtype": "F32", "shape": [4611686018427387905, 4], "data_offsets": [0, 16]}}'
        ),
        "header: offsets that cross": header(
            '{"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}}'
        ),
        "header: unknown type": header(
            '{"embeddings": {"dtype": "F8_E5M2", "shape": [8, 8], "data_offsets": [0, 64]}}'
        ),
        "header: bfloat16 that is short": header(
            '{"embeddings": {"dtype": "BF16", "shape": [8, 8], "data_offsets": [0, 64]}}'
        ),
        "header: empty": text("model.safetensors", b""),
        "header: seven bytes": text("model.safetensors", b"1234567"),
        "header: array": header("[]"),
    }


def of_torch_files() -> dict[str, Change]:
    """Models whose weights, or those of a module after the pooling, are hostile PyTorch files."""

    def instead(name: str, content: Callable[[dict[str, Any]], bytes]) -> Change:
        def change(folder: Path) -> None:
            weights = load_file(folder / "model.safetensors")
            (folder / "model.safetensors").unlink()
            (folder / name).write_bytes(content(weights))

        return change

    evil = programs()["GLOBAL and REDUCE"]

    def dense(folder: Path) -> None:
        write_modules(folder, ["Transformer", "Pooling", "Dense"])
        (folder / "2_Dense").mkdir()
        (folder / "2_Dense/config.json").write_text('{"in_features": 32, "out_features": 32}')
        (folder / "2_Dense/pytorch_model.bin").write_bytes(zipped({"data.pkl": evil}))

    def index(content: str) -> Change:
        return instead("pytorch_model.bin.index.json", lambda _: content.encode())

    def nan(weights: dict[str, Any]) -> bytes:
        return zipped(parts_of({key: np.full_like(t, np.nan) for key, t in weights.items()}))

    return {
        "torch: sound": instead("pytorch_model.bin", lambda found: zipped(parts_of(found))),
        "torch: pickle": instead("pytorch_model.bin", lambda _: evil),
        "torch: pickle in an archive": instead(
            "pytorch_model.bin", lambda found: zipped({**parts_of(found), "data.pkl": evil})
        ),
        "torch: pickle of a module": dense,
        "torch: NaN": instead("pytorch_model.bin", nan),
        "torch: other tensors": instead(
            "pytorch_model.bin", lambda _: zipped(parts_of({"a": np.ones(3, np.float32)}))
        ),
        "index: of files elsewhere": index('{"weight_map": {"a": "../../sound/x.bin"}}'),
        "index: of nothing": index('{"weight_map": {}}'),
        "index: no map": index("[]"),
        "index: deep": index(DEEP),
    }


def of_static() -> dict[str, Change]:
    """Tables that do not fit their tokenizer."""

    def mapped(rows: Any) -> Change:
        return tensors(lambda found: found.update(mapping=rows))

    size = tiny_tokenizer().get_vocab_size()
    return {
        "table: rows out of range": mapped(np.full(size, 10**6, np.int64)),
        "table: negative rows": mapped(np.full(size, -1, np.int64)),
        "table: no mapping": mapped(np.zeros(0, np.int64)),
        "table: mapping of floats": mapped(np.zeros(size, np.float32)),
        "table: too few rows": tensors(
            lambda found: found.update(embeddings=found["embeddings"][:5].copy())
        ),
        "table: NaN weights": tensors(
            lambda found: found.update(weights=np.full(size, np.nan, np.float32))
        ),
        "table: weights of integers": tensors(
            lambda found: found.update(weights=np.full(size, 2**62, np.int64))
        ),
        "table: 64-bit infinities": tensors(
            lambda found: found.update(embeddings=np.full((size, 16), 1e300))
        ),
        "table: of one column": tensors(
            lambda found: found.update(embeddings=found["embeddings"][:, :1].copy())
        ),
        "max_length 10**30": merged("config.json", max_length=10**30),
        "max_length 1": merged("config.json", max_length=1),
    }


def graph(
    nodes: list[Any],
    inputs: Mapping[str, list[Any]],
    constants: Mapping[str, Any],
    kind: int = TensorProto.FLOAT,
) -> Change:
    """Replace ``model.onnx`` by a graph."""

    def change(folder: Path) -> None:
        made = helper.make_graph(
            nodes,
            "hostile",
            [
                helper.make_tensor_value_info(name, TensorProto.INT64, shape)
                for name, shape in inputs.items()
            ],
            [helper.make_tensor_value_info("last_hidden_state", kind, None)],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        (folder / "model.onnx").write_bytes(model.SerializeToString())

    return change


def of_graphs() -> dict[str, Change]:
    """ONNX files that ignore their batch, never end, take all memory, or return other things."""
    node = helper.make_node
    ids: dict[str, list[Any]] = {"input_ids": ["batch", "sequence"]}
    size = tiny_tokenizer().get_vocab_size()
    table = np.random.default_rng(0).normal(size=(size, WIDTH)).astype(np.float32)
    carried = helper.make_graph(
        [node("Identity", ["c_in"], ["c_out"]), node("Sin", ["x_in"], ["x_out"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x_in", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("c_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x_out", TensorProto.FLOAT, None),
        ],
    )
    found = [node("Gather", ["table", "input_ids"], ["found"])]
    return {
        "graph: ignores its batch": graph(
            [node("Identity", ["fixed"], ["last_hidden_state"])],
            ids,
            {"fixed": np.ones((1, WIDTH), np.float32)},
        ),
        "graph: returns the first text alone": graph(
            [
                *found,
                node("ReduceMean", ["found", "axis"], ["means"], keepdims=0),
                node("Slice", ["means", "zero", "one", "zero"], ["last_hidden_state"]),
            ],
            ids,
            {
                "table": table,
                "axis": np.array([1]),
                "zero": np.array([0]),
                "one": np.array([1]),
            },
        ),
        "graph: mixes its batch": graph(
            [
                *found,
                node("ReduceMean", ["found", "axis"], ["means"], keepdims=0),
                node("ReduceMean", ["means", "zero"], ["mean"], keepdims=1),
                node("Add", ["means", "mean"], ["last_hidden_state"]),
            ],
            ids,
            {"table": table, "axis": np.array([1]), "zero": np.array([0])},
        ),
        "graph: never ends": graph(
            [
                *found,
                node("Loop", ["many", "yes", "found"], ["last_hidden_state"], body=carried),
            ],
            ids,
            {"table": table, "many": np.array(2**62), "yes": np.array(True)},
        ),
        "graph: takes all memory": graph(
            [
                node("ConstantOfShape", ["wide"], ["last_hidden_state"]),
            ],
            ids,
            {"wide": np.array([1, 10**6, 10**6])},
        ),
        "graph: takes all memory by what it reads": graph(
            [
                node("Shape", ["input_ids"], ["shape"]),
                node("Mul", ["shape", "factor"], ["wide"]),
                node("ConstantOfShape", ["wide"], ["last_hidden_state"]),
            ],
            ids,
            {"factor": np.array([10**5, 10**5])},
        ),
        "graph: returns strings": graph(
            [node("Cast", ["input_ids"], ["last_hidden_state"], to=TensorProto.STRING)],
            ids,
            {},
            TensorProto.STRING,
        ),
        "graph: returns a number": graph(
            [
                node("Cast", ["input_ids"], ["floats"], to=TensorProto.FLOAT),
                node("ReduceMean", ["floats"], ["last_hidden_state"], keepdims=0),
            ],
            ids,
            {},
        ),
        "graph: returns four axes": graph(
            [*found, node("Unsqueeze", ["found", "axis"], ["last_hidden_state"])],
            ids,
            {"table": table, "axis": np.array([1])},
        ),
        "graph: returns nothing": graph(
            [
                *found,
                node("Slice", ["found", "zero", "zero", "zero"], ["last_hidden_state"]),
            ],
            ids,
            {"table": table, "zero": np.array([0])},
        ),
        "graph: NaN": graph(
            [*found, node("Sqrt", ["found"], ["last_hidden_state"])], ids, {"table": table}
        ),
        "graph: table too small": graph(
            [node("Gather", ["table", "input_ids"], ["last_hidden_state"])],
            ids,
            {"table": table[:5]},
        ),
        "graph: a sequence": graph(
            [
                *found,
                node("SplitToSequence", ["found"], ["last_hidden_state"], axis=0, keepdims=1),
            ],
            ids,
            {"table": table},
        ),
        "graph: reads nothing": graph(
            [node("Identity", ["fixed"], ["last_hidden_state"])],
            {},
            {"fixed": np.ones((1, WIDTH), np.float32)},
        ),
        "graph: garbage": text("model.onnx", bytes(range(256)) * 40),
        "graph: empty": text("model.onnx", b""),
        "graph: reads a file elsewhere": external("../../../../../../../../etc/passwd"),
        "graph: reads a file by its whole path": external("/etc/passwd"),
        "graph: reads a file beside it": external("tokenizer.json"),
    }


def external(location: str) -> Change:
    """Have the graph read its table from `location`."""

    def change(folder: Path) -> None:
        tensor = TensorProto()
        tensor.name, tensor.data_type = "table", TensorProto.FLOAT
        tensor.dims.extend([4, WIDTH])
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", "0"), ("length", str(16 * WIDTH))):
            tensor.external_data.add(key=key, value=value)
        made = helper.make_graph(
            [
                helper.make_node("Clip", ["input_ids", "", "most"], ["few"]),
                helper.make_node("Gather", ["table", "few"], ["last_hidden_state"]),
            ],
            "hostile",
            [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["b", "s"])],
            [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, None)],
            [tensor, numpy_helper.from_array(np.array(3), "most")],
        )
        model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        (folder / "model.onnx").write_bytes(model.SerializeToString())

    return change


def of_exported_graphs() -> dict[str, Change]:
    """The same graphs in place of ours in an exported folder, whose manifest has their digests."""
    return {name: in_exported(change) for name, change in of_graphs().items()}


def in_exported(change: Change) -> Change:
    """Change the graph of an exported folder, and the manifest with it."""

    def changed(folder: Path) -> None:
        path, manifest = folder / "model.onnx", folder / MANIFEST
        change(folder)
        with suppress(DecodeError):
            model = onnx.load(path, load_external_data=False)
            for node in model.graph.node:
                node.output[:] = [
                    "embedding" if n == "last_hidden_state" else n for n in node.output
                ]
            for output in model.graph.output:
                output.name = "embedding"
            if model.graph.output:
                path.write_bytes(model.SerializeToString())
        content = unsealed(manifest.read_bytes())
        data = path.read_bytes()
        content["files"][path.name] |= {
            "size": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        manifest.write_text(sealed(content))

    return changed


GROUPS: Mapping[str, tuple[str, Callable[[], dict[str, Change]]]] = {
    "configs": ("bert", of_configs),
    "modules": ("bert", of_modules),
    "weights": ("bert", of_weights),
    "tokenizers": ("bert", of_tokenizers),
    "tables": ("static", of_static),
    "static weights": ("static", of_weights),
    "static tokenizers": ("static", of_tokenizers),
    "graphs": ("onnx", of_graphs),
    "graph tokenizers": ("onnx", of_tokenizers),
    "torch files": ("bert", of_torch_files),
    "exported graphs": ("exported", of_exported_graphs),
}


def made(group: str, folder: Path) -> dict[str, Path]:
    """Write every hostile folder of a group below `folder`; return them by name."""
    kind, changes = GROUPS[group]
    base = sound(kind, folder / "sound")
    folders = {}
    for number, (name, change) in enumerate(changes().items()):
        target = folder / f"model{number}"
        shutil.copytree(base, target)
        for program in PROGRAMS:
            (target / program).write_text(MARKER)
        change(target)
        folders[name] = target
    return folders
