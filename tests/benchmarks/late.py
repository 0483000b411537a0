"""Late interaction against its peers: documents a second, one query, and memory.

    tox -e bench -- late.py [--rounds 3] [--texts 256] [--only ours,fastembed]

MiniLM's weights with a random projection to 96 numbers, in the layout of Stanford's ColBERT: no
figure here depends on what the numbers mean. All peers run the same weights on the same texts,
in turn, each in a process of its own; a ratio is the median over the rounds. fastembed runs an ONNX
file that torch writes of the model in float32, as it does with the files of the models that it
knows. Peak memory has the interpreter, all libraries and the weights in it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent))
from corpora import corpora, queries
from memory import peak_mb, resident_mb
from peers import model_folder

DIMENSION, QUERIES = 96, 40
ONNX = "vespa_colbert.onnx"  # as fastembed calls it
STAND_IN = "answerdotai/answerai-colbert-small-v1"  # the model that fastembed takes it for

Encode = Callable[[Sequence[str]], Iterable[NDArray[np.float32]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--only", default="")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        print(json.dumps(measured(arguments.run, arguments.folder, arguments.texts)))
        return
    names = [name for name in arguments.only.split(",") if name] or available()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "minilm-colbert"
        write_model(folder, with_onnx="fastembed" in names)
        rounds = [
            {name: _child(name, folder, arguments.texts) for name in names}
            for _ in range(arguments.rounds)
        ]
    print(f"{'':22}{'documents/s':>12}{'ratio':>7}{'query ms':>10}{'ratio':>7}{'peak MB':>9}")
    for name in names:
        found = {
            key: statistics.median(one[name][key] for one in rounds) for key in rounds[0][name]
        }
        ratios = [
            statistics.median(one[name][key] / one[names[-1]][key] for one in rounds)
            for key in ("documents", "query")
        ]
        print(
            f"{name:22}{found['documents']:12.1f}{ratios[0]:7.2f}{found['query']:10.2f}"
            f"{ratios[1]:7.2f}{found['peak']:9.0f}"
        )
    print(
        f"ratios to {names[-1]}; of the memory, {rounds[0][names[0]]['base']:.0f} MB are the "
        "interpreter with numpy"
    )


def available() -> list[str]:
    """The encoders that can be measured, the baseline last."""
    names = ["int8", "fp32"]
    if importlib.util.find_spec("sentence_transformers"):
        names.append("sentence-transformers")
    if importlib.util.find_spec("fastembed") and importlib.util.find_spec("torch"):
        names.append("fastembed")
    return names


def _child(name: str, folder: Path, texts: int) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", __file__, "--run", name, "--folder", str(folder)]
    done = subprocess.run(
        [*command, "--texts", str(texts)], check=True, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(name, found, file=sys.stderr)
    return found


def measured(name: str, folder: Path, count: int) -> dict[str, float]:
    """Run one encoder: documents a second, the median of single queries in ms, peak memory."""
    base = resident_mb()
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    mixed = next(corpus for corpus in corpora(tokenizer) if corpus.name == "mixed")
    documents, query = load(name, folder)
    list(documents(mixed.texts[:8]))
    started = time.perf_counter()
    vectors = list(documents(mixed.texts[:count]))
    seconds = time.perf_counter() - started
    assert len(vectors) == count
    times = []
    for text in queries(QUERIES):
        started = time.perf_counter()
        list(query([text]))
        times.append(time.perf_counter() - started)
    return {
        "documents": count / seconds,
        "query": 1000 * statistics.median(times[5:]),
        "peak": peak_mb(),
        "base": base,
    }


def load(name: str, folder: Path) -> tuple[Encode, Encode]:
    """Return how documents and queries are encoded, with the peer's defaults."""
    if name in ("int8", "fp32"):
        from qdrant_embed import LateInteractionTextEmbedding
        from qdrant_embed.encoder.facts.precision import Precision

        precision: Precision = "int8" if name == "int8" else "fp32"
        ours = LateInteractionTextEmbedding(folder, precision=precision)
        return ours.embed, ours.query_embed
    if name == "sentence-transformers":
        from sentence_transformers import MultiVectorEncoder

        model = MultiVectorEncoder(str(folder), device="cpu")
        return lambda texts: model.encode_document([*texts]), lambda texts: model.encode_query(
            [*texts]
        )
    from fastembed import LateInteractionTextEmbedding as Peer

    peer = Peer(STAND_IN, specific_model_path=str(folder))
    return peer.embed, peer.query_embed


def write_model(folder: Path, *, with_onnx: bool) -> None:
    """Write MiniLM with a random projection as Stanford's ColBERT writes its models."""
    from safetensors.numpy import load_file, save_file

    source = model_folder()
    folder.mkdir(parents=True)
    for file in source.glob("*.json"):
        if file.name not in ("modules.json", "config_sentence_transformers.json"):
            shutil.copy(file, folder)
    config = json.loads((source / "config.json").read_text()) | {"architectures": ["HF_ColBERT"]}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "sentence_bert_config.json").unlink(missing_ok=True)
    weights = {
        f"bert.{name}": value for name, value in load_file(source / "model.safetensors").items()
    }
    random = np.random.default_rng(0)
    weights["linear.weight"] = random.normal(0, 0.05, (DIMENSION, 384)).astype(np.float32)
    save_file(weights, folder / "model.safetensors")
    facts = {"query_maxlen": 32, "doc_maxlen": 512, "attend_to_mask_tokens": False}
    (folder / "artifact.metadata").write_text(json.dumps(facts))
    if with_onnx:
        _write_onnx(folder, weights["linear.weight"])


def _write_onnx(folder: Path, projection: NDArray[np.float32]) -> None:
    import torch
    from transformers import AutoModel

    class Projected(torch.nn.Module):  # type: ignore[misc] # torch is not there to be checked
        """The model with its projection, and the arguments that an ONNX file of it has."""

        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner, self.projection = inner, torch.tensor(projection)

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            hidden = self.inner(input_ids=input_ids, attention_mask=attention_mask)[0]
            return torch.nn.functional.normalize(hidden @ self.projection.T, dim=2)

    model = AutoModel.from_pretrained(model_folder(), attn_implementation="eager").eval()
    names = ["input_ids", "attention_mask"]  # fastembed puts its marker into no other
    example = torch.ones(2, 8, dtype=torch.long)
    torch.onnx.export(
        Projected(model),
        (example, example),
        str(folder / ONNX),
        input_names=names,
        output_names=["contextual"],
        dynamic_axes={name: {0: "batch", 1: "tokens"} for name in [*names, "contextual"]},
        opset_version=17,
        dynamo=False,
    )


if __name__ == "__main__":
    main()
