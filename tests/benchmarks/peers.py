"""The encoders that are measured, all on the same weights: ours, and those installed with it.

Each runs in a process of its own (see `encoder.py`). "As installed" is a library with its defaults;
"tuned" is the best that we could make of it: the same batches, threads and pooling as ours.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.encoder.facts.precision import Precision, Runtime

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MAX_TOKENS = 512  # for all: the model's positions

Encode = Callable[[Sequence[str]], NDArray[np.float32]]

BASELINE = "fastembed"
OWN = ("int8", "fp32")

_PLAIN = (
    "plain-onnx"  # folder of the ONNX file that torch writes, with the files beside the weights
)
_OPENVINO = "openvino"  # folder of the same model, quantised by nncf
_QUANTISED = "openvino_model_qint8_quantized.xml"
TOKENS_PER_BATCH = 512
_BUCKET = 16  # tokens: for OpenVINO, lengths are rounded up to a multiple of it


@dataclass(frozen=True)
class Peer:
    """One encoder.

    Attributes:
        packages: the modules that it needs.
        load: returns a function from texts to vectors; it is passed the workspace.
        about: what is run, in words.
    """

    packages: tuple[str, ...]
    load: Callable[[Path], Encode]
    about: str

    @property
    def missing(self) -> list[str]:
        """The packages that are not installed."""
        return [package for package in self.packages if not importlib.util.find_spec(package)]


def available() -> list[str]:
    """Names for `load`: the baseline first, if it is installed."""
    return [name for name, peer in PEERS.items() if not peer.missing]


def left_out() -> dict[str, list[str]]:
    """The packages that are missing, by the name of the peer that needs them."""
    return {name: peer.missing for name, peer in PEERS.items() if peer.missing}


def model_folder() -> Path:
    """The installed package's folder with the model's files."""
    from qdrant_embed.encoder.files.cache import cache_folder
    from qdrant_embed.encoder.files.model_files import find_model

    return find_model(MINILM, cache=cache_folder()).folder


def load(name: str, workspace: Path) -> Encode:
    """Return a function from texts to vectors."""
    return PEERS[name].load(workspace)


def prepare(workspace: Path, names: Iterable[str]) -> None:
    """Make what takes long once: files that peers run, and our compiled graphs."""
    workspace.mkdir(parents=True, exist_ok=True)
    needed = {package for name in names for package in PEERS[name].packages}
    for name in OWN:
        load(name, workspace)(["warm"])
    plain = workspace / _PLAIN
    if "torch" in needed and not (plain / "model.onnx").exists():
        from transformers import AutoModel

        model = AutoModel.from_pretrained(model_folder(), attn_implementation="eager")
        write_plain_onnx(model, model_folder(), plain, "last_hidden_state", by_token=True)
    if "nncf" in needed and not (workspace / _OPENVINO / _OPENVINO / _QUANTISED).exists():
        _quantise_by_nncf(plain / "model.onnx", workspace / _OPENVINO)
    if "ctranslate2" in needed and not (workspace / "ctranslate2").exists():
        from ctranslate2.converters import TransformersConverter

        TransformersConverter(str(model_folder())).convert(
            str(workspace / "ctranslate2"), quantization="int8"
        )
    dynamic = workspace / "dynamic.onnx"
    if not dynamic.exists() and (plain / "model.onnx").exists():
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(plain / "model.onnx", dynamic, weight_type=QuantType.QInt8)


# ours


def _own(precision: Precision = "int8", runtime: Runtime = "onnxruntime") -> Encode:
    """Ours; a single text is a query."""
    from qdrant_embed import TextEmbedding

    ours = TextEmbedding(MINILM, max_tokens=MAX_TOKENS, precision=precision, runtime=runtime)

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        embed = ours.query_embed if len(texts) == 1 else ours.embed
        return np.array(list(embed(texts)))

    return encode


# as installed


def _fastembed(workspace: Path, batch_size: int) -> Encode:
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    TextEmbedding.add_custom_model(
        model="benchmark/minilm",
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf="benchmark/minilm"),
        dim=384,
        model_file="model.onnx",
    )
    model = TextEmbedding("benchmark/minilm", specific_model_path=str(workspace / _PLAIN))
    return lambda texts: np.array(list(model.embed(texts, batch_size=batch_size)))


def _sentence_transformers(folder: Path, **options: Any) -> Encode:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", **options)
    model.max_seq_length = MAX_TOKENS
    return lambda texts: np.asarray(model.encode(list(texts)))


def _sentence_transformers_openvino(workspace: Path) -> Encode:
    return _sentence_transformers(
        workspace / _OPENVINO, backend="openvino", model_kwargs={"file_name": _QUANTISED}
    )


def _libembedding(workspace: Path) -> Encode:
    """Dynamic int8, which is what it recommends for CPUs."""
    from libembedding import TextEmbedding

    folder = workspace / "libembedding"
    if not folder.exists():
        shutil.copytree(workspace / _PLAIN, folder)
        shutil.copy(workspace / "dynamic.onnx", folder / "model.onnx")
    model = TextEmbedding(str(folder), offline=True, pooling="mean", dim=384, max_length=MAX_TOKENS)
    return lambda texts: np.asarray(model.embed(list(texts)))


# tuned


def _openvino(workspace: Path, step: int, *, int8: bool = True) -> Encode:
    """Static int8 of nncf, or float32; bfloat16 if the processor has it; a stream for each core.

    Lengths are rounded up to a multiple of `step`.
    """
    import openvino
    from openvino import opset13

    core, streams = openvino.Core(), _cores()
    quantised, plain = Path(_OPENVINO, _OPENVINO, _QUANTISED), Path(_PLAIN, "model.onnx")
    model = core.read_model(workspace / (quantised if int8 else plain))
    by_name = {parameter.get_friendly_name(): parameter for parameter in model.get_parameters()}
    shares = opset13.parameter([-1, -1, 1], np.float32, name="shares")  # of each token in the mean
    pooled = opset13.reduce_sum(
        opset13.multiply(model.output(0).get_node().input_value(0), shares),
        opset13.constant([1]),
        keep_dims=False,
    )
    vectors = opset13.normalize_l2(pooled, opset13.constant([1]), 1e-12, "add")
    model = openvino.Model([vectors], [*by_name.values(), shares], "pooled")
    bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    compiled = core.compile_model(
        model,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
            "NUM_STREAMS": str(streams),
            "INFERENCE_NUM_THREADS": str(streams),
        },
    )
    requests = openvino.AsyncInferQueue(compiled, streams)
    tokenize = _tokenizer()

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        ids = tokenize(texts)
        found = np.empty((len(ids), 384), np.float32)

        def keep(request: Any, positions: list[int]) -> None:
            found[positions] = request.get_output_tensor(0).data

        requests.set_callback(keep)
        for positions, length in batches(ids, step):
            tokens = np.zeros((len(positions), length), np.int64)
            for row, position in zip(tokens, positions, strict=True):
                row[: len(ids[position])] = ids[position]
            lengths = np.array([[len(ids[position])] for position in positions])
            mask = np.arange(length) < lengths
            inputs = {"input_ids": tokens, "attention_mask": mask.astype(np.int64)}
            inputs["token_type_ids"] = tokens * 0
            kept = {name: inputs[name] for name in by_name}
            weights = (mask / lengths).astype(np.float32)[:, :, None]
            requests.start_async({**kept, "shares": weights}, positions)
        requests.wait_all()
        return found

    return encode


def _quantise_by_nncf(plain: Path, folder: Path) -> None:
    """Write a folder of sentence-transformers with a static int8 model for OpenVINO."""
    import nncf
    import openvino
    from corpora import docstrings

    tokenize = _tokenizer()

    def inputs(text: str) -> dict[str, NDArray[np.int64]]:
        ids = np.array(tokenize([text]), np.int64)
        return {"input_ids": ids, "attention_mask": ids * 0 + 1, "token_type_ids": ids * 0}

    # not the last 500, on which fidelity is measured
    data = nncf.Dataset(docstrings()[:300], inputs)
    quantised = nncf.quantize(
        openvino.Core().read_model(plain), data, model_type=nncf.ModelType.TRANSFORMER
    )
    shutil.copytree(model_folder(), folder, dirs_exist_ok=True)
    (folder / _OPENVINO).mkdir(exist_ok=True)
    openvino.save_model(quantised, folder / _OPENVINO / _QUANTISED, compress_to_fp16=False)


def _ctranslate2(workspace: Path) -> Encode:
    """Int8, a replica for each core, batches of equal length."""
    import ctranslate2

    model = ctranslate2.Encoder(
        str(workspace / "ctranslate2"), compute_type="int8", inter_threads=_cores(), intra_threads=1
    )

    def run(ids: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.asarray(model.forward_batch(ids.tolist()).last_hidden_state)

    return _scheduled(run)


def _onnxruntime_dynamic(workspace: Path) -> Encode:
    """Dynamic int8, batches of equal length, one thread for each of them."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_mem_pattern = False
    session = onnxruntime.InferenceSession(
        str(workspace / "dynamic.onnx"), options, ["CPUExecutionProvider"]
    )
    names = [node.name for node in session.get_inputs()]

    def run(ids: NDArray[np.int64]) -> NDArray[np.float32]:
        inputs = {"input_ids": ids, "attention_mask": ids * 0 + 1, "token_type_ids": ids * 0}
        found: NDArray[np.float32] = session.run(None, {name: inputs[name] for name in names})[0]
        return found

    return _scheduled(run)


def _scheduled(run: Callable[[NDArray[np.int64]], NDArray[np.float32]]) -> Encode:
    """Schedule a function from token ids to the vectors of tokens as our own graphs are."""
    tokenize, pool = _tokenizer(), ThreadPoolExecutor(_cores())

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        ids = tokenize(texts)
        found = np.empty((len(ids), 384), np.float32)

        def fill(positions: list[int]) -> None:
            batch = np.array([ids[position] for position in positions], np.int64)
            pooled = run(batch).mean(axis=1)
            found[positions] = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)

        for _ in pool.map(fill, [positions for positions, _ in batches(ids, 1)]):
            pass
        return found

    return encode


def _cores() -> int:
    from qdrant_embed.encoder.run.cores import usable_cores

    return usable_cores()


def _tokenizer() -> Callable[[Sequence[str]], list[list[int]]]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return lambda texts: [found.ids for found in tokenizer.encode_batch_fast(list(texts))]


def batches(ids: Sequence[Sequence[int]], step: int) -> list[tuple[list[int], int]]:
    """Make batches of about one length, longest first: positions, and that length."""
    by_length: dict[int, list[int]] = {}
    for position, tokens in enumerate(ids):
        by_length.setdefault(-(-len(tokens) // step) * step, []).append(position)
    found = []
    for length in sorted(by_length, reverse=True):
        most, positions = max(1, TOKENS_PER_BATCH // length), by_length[length]
        found += [(positions[i : i + most], length) for i in range(0, len(positions), most)]
    return found


def write_plain_onnx(
    model: Any, source: Path, folder: Path, output: str, *, by_token: bool
) -> None:
    """Writes the plain ONNX file of a model of transformers, which fastembed runs.

    Args:
        model: the model.
        source: its folder, whose JSON files are copied.
        folder: where the file goes.
        output: the attribute of what the model returns that the file returns.
        by_token: whether that has a row for each token.
    """
    import torch

    class Plain(torch.nn.Module):  # type: ignore[misc] # torch is not there to be checked
        """The model with the arguments that an ONNX file of it has."""

        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            # added to the scores, as the model itself makes it of a mask; but not every version of
            # transformers can be traced while it does so
            hidden = (1.0 - attention_mask[:, None, None, :].float()) * torch.finfo().min
            found = self.inner(
                input_ids=input_ids, attention_mask=hidden, token_type_ids=token_type_ids
            )
            return getattr(found, output)

    folder.mkdir(parents=True, exist_ok=True)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    axes = {name: {0: "batch", 1: "tokens"} for name in names}
    example = torch.ones(2, 8, dtype=torch.long)
    torch.onnx.export(
        Plain(model.eval()),
        (example, example, example * 0),
        str(folder / "model.onnx"),
        input_names=names,
        output_names=[output],
        dynamic_axes={**axes, output: {0: "batch", 1: "tokens"} if by_token else {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )
    for file in source.glob("*.json"):
        shutil.copy(file, folder)


PEERS: dict[str, Peer] = {
    BASELINE: Peer(
        ("fastembed", "torch"), lambda at: _fastembed(at, 256), "fastembed with its defaults"
    ),
    "fastembed-32": Peer(
        ("fastembed", "torch"), lambda at: _fastembed(at, 32), "fastembed in batches of 32"
    ),
    "int8": Peer((), lambda _: _own(), "ours with its defaults"),
    "int8-openvino": Peer(
        ("openvino",), lambda _: _own(runtime="openvino"), "ours, documents on OpenVINO"
    ),
    "fp32": Peer((), lambda _: _own("fp32"), "ours in float32"),
    "sentence-transformers": Peer(
        ("sentence_transformers", "torch"),
        lambda _: _sentence_transformers(model_folder()),
        "sentence-transformers with its defaults",
    ),
    "st-openvino": Peer(
        ("sentence_transformers", "torch", "optimum", "nncf"),
        _sentence_transformers_openvino,
        'sentence-transformers, backend="openvino", static int8',
    ),
    "openvino": Peer(
        ("torch", "openvino", "nncf"),
        lambda at: _openvino(at, _BUCKET),
        "OpenVINO tuned: static int8 of nncf, bf16, buckets of 16 tokens, a stream for each core",
    ),
    "openvino-equal": Peer(
        ("torch", "openvino", "nncf"),
        lambda at: _openvino(at, 1),
        "the same in batches of equal length, without padding",
    ),
    "openvino-float": Peer(
        ("torch", "openvino"),
        lambda at: _openvino(at, _BUCKET, int8=False),
        "OpenVINO tuned: the float32 weights, bf16, buckets of 16 tokens, a stream for each core",
    ),
    "openvino-float-equal": Peer(
        ("torch", "openvino"),
        lambda at: _openvino(at, 1, int8=False),
        "the same in batches of equal length, without padding",
    ),
    "ctranslate2": Peer(
        ("ctranslate2", "torch"), _ctranslate2, "CTranslate2 int8 under our scheduling"
    ),
    "onnxruntime": Peer(
        ("torch",), _onnxruntime_dynamic, "onnxruntime's dynamic int8 under our scheduling"
    ),
    "libembedding": Peer(
        ("libembedding", "torch"), _libembedding, "libembedding-ng with dynamic int8"
    ),
}
