"""The encoders that are measured, all on the same weights: ours, and those installed beside it."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MAX_TOKENS = 512  # for all: the model's positions

Encode = Callable[[Sequence[str]], NDArray[np.float32]]

BASELINE = "fastembed"


def available() -> list[str]:
    """Names for `load`: the baseline first, where it is installed."""
    names = ["int8", "fp32"]
    torch = bool(importlib.util.find_spec("torch"))
    if importlib.util.find_spec("fastembed") and torch:  # torch writes the plain ONNX file
        names = [BASELINE, "fastembed-32", *names]
    if importlib.util.find_spec("sentence_transformers") and torch:
        names.append("sentence-transformers")
    return names


def model_folder() -> Path:
    """The installed package's folder with the model's files."""
    from qdrant_embed.encoder.files.cache import cache_folder
    from qdrant_embed.encoder.files.model_files import find_model

    return find_model(MINILM, cache=cache_folder()).folder


def load(name: str, workspace: Path) -> Encode:
    """A function from texts to vectors, with the peer's defaults unless its name says else."""
    if name in ("int8", "fp32"):
        from qdrant_embed import TextEmbedding
        from qdrant_embed.encoder.facts.precision import Precision

        precision: Precision = "int8" if name == "int8" else "fp32"
        ours = TextEmbedding(MINILM, max_tokens=MAX_TOKENS, precision=precision)
        return lambda texts: np.array(list(ours.embed(texts)))
    if name == "sentence-transformers":
        from sentence_transformers import SentenceTransformer

        torch_model = SentenceTransformer(str(model_folder()), device="cpu")
        torch_model.max_seq_length = MAX_TOKENS
        return lambda texts: np.asarray(torch_model.encode(list(texts)))
    fastembed_model = _fastembed(workspace / "plain-onnx")
    batch_size = 32 if name == "fastembed-32" else 256
    return lambda texts: np.array(list(fastembed_model.embed(texts, batch_size=batch_size)))


def prepare(workspace: Path) -> None:
    """Makes what takes long once: the plain ONNX file, and our compiled graphs."""
    for name in ("int8", "fp32"):
        load(name, workspace)(["warm"])
    folder = workspace / "plain-onnx"
    if BASELINE not in available() or (folder / "model.onnx").exists():
        return
    from transformers import AutoModel

    model = AutoModel.from_pretrained(model_folder(), attn_implementation="eager")
    write_plain_onnx(model, model_folder(), folder, "last_hidden_state", by_token=True)


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
            found = self.inner(
                input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
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


@cache
def _fastembed(folder: Path) -> Any:
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
    return TextEmbedding("benchmark/minilm", specific_model_path=str(folder))
