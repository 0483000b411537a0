"""What one long text takes: seconds, and memory, by architecture.

    tox -e bench -- long_texts.py [--tokens 8192] [--architectures bert,qwen3] [--precision int8]

The models are random, with 12 layers, 768 wide, and 30,522 words. Each is run in a process of its
own, on one thread; its peak memory has the interpreter, all libraries and the weights in it. Layers
run one after the other: with fewer (``--layers``) there are fewer weights, but what the text takes
beside them is the same.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from memory import peak_mb, resident_mb

from qdrant_embed.encoder.compile.architectures import registry
from qdrant_embed.encoder.compile.quantize import (
    NOTHING_QUANTIZED,
    LinearGroup,
    QuantizationPlan,
    QuantizedGroup,
    QuantizedLinear,
)
from qdrant_embed.encoder.facts.architectures import ARCHITECTURES
from qdrant_embed.encoder.facts.spec import ModelSpec
from qdrant_embed.encoder.run.backend import Inputs
from qdrant_embed.encoder.run.session import Session

WORDS = 30_522
_SIZES = {
    "vocab_size": WORDS,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}
_GROUPED = {"num_key_value_heads": 4, "head_dim": 64}
_NOMIC = {"n_embd": 768, "n_layer": 12, "n_head": 12, "n_inner": 3072}
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {},
    "xlm-roberta": {},
    "distilbert": {"dim": 768, "n_layers": 12, "n_heads": 12, "hidden_dim": 3072},
    "mpnet": {},
    "modernbert": {"intermediate_size": 1152},
    "nomic_bert": _NOMIC,
    "nomic_bert_moe": {**_NOMIC, "model_type": "nomic_bert", "num_experts": 8},
    "gte": {},
    "jina_bert": {"model_type": "bert", "position_embedding_type": "alibi"},
    "xlm-roberta-flash": {"model_type": "xlm-roberta", "position_embedding_type": "rotary"},
    "t5": {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_heads": 12, "num_layers": 12},
    "qwen2": _GROUPED,
    "qwen3": _GROUPED,
    "eurobert": _GROUPED,
    "gemma3_text": {**_GROUPED, "sliding_window": 512, "use_bidirectional_attention": True},
}


def main() -> None:
    """Runs one text through a model of each architecture and prints what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--architectures", default=",".join(CONFIGS))
    parser.add_argument("--precision", choices=["fp32", "int8"], default="int8")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return worker(arguments.worker, arguments.tokens)
    layers = f"{arguments.layers} layers"
    print(f"one text of {arguments.tokens} tokens, {arguments.precision}, {layers}, MB")
    print("architecture       on disk   loaded     peak   CPU seconds")
    for name in arguments.architectures.split(","):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            write(path, name, arguments.tokens, arguments.precision, arguments.layers)
            size = sum(file.stat().st_size for file in Path(folder).iterdir()) / 2**20
            command = [sys.executable, __file__, "--worker", str(path)]
            command += ["--tokens", str(arguments.tokens)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        loaded, peak, seconds = (float(number) for number in done.stdout.split())
        print(f"{name:17} {size:8.0f} {loaded:8.0f} {peak:8.0f} {seconds:13.1f}", flush=True)
    return None


def write(path: Path, name: str, tokens: int, precision: str, layers: int) -> None:
    """Writes the graph of a random model."""
    positions = tokens + 2  # RoBERTa's begin after two
    stated = {"model_type": name, "max_position_embeddings": positions, **_SIZES, **CONFIGS[name]}
    if name in ("nomic_bert", "nomic_bert_moe", "t5"):
        stated["n_positions"] = positions
    names = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
    stated |= {key: layers for key in names if key in stated}
    config = ARCHITECTURES[name].model_validate(stated)
    write_random(path, config, ModelSpec(name, config.dimension, "mean", tokens), precision)


def write_random(path: Path, config: Any, spec: ModelSpec, precision: str) -> None:
    """Writes the graph of a random model with that config."""
    module, kind = registry.GRAPHS[config.architecture]
    architecture = getattr(import_module(f"{registry.__package__}.{module}"), kind)
    random = np.random.default_rng(0)

    class RandomGraph(architecture):  # type: ignore[misc,valid-type] # whichever it is
        def tensor(self, name: str, *shape: int) -> Any:
            drawn = random.standard_normal(shape, np.float32) * np.float32(0.03)
            return drawn + 1 if len(shape) == 1 and name.endswith("weight") else drawn

        def table(self, name: str, *shape: int) -> Any:
            yield self.tensor(name, *shape)

    whole = RandomGraph({}, config, spec, NOTHING_QUANTIZED)
    if precision == "int8":
        groups = {group: _quantized(whole, group) for group in whole.group_inputs}
        del whole
        whole = RandomGraph({}, config, spec, QuantizationPlan(groups, words=True))
    whole.save(path)


def _quantized(graph: Any, group: LinearGroup) -> QuantizedGroup:
    """Draws the weights of a group; what it computes means nothing, but takes as long."""
    # other numbers for each group: onnxruntime holds equal weights once
    random = np.random.default_rng([group.layer, *map(ord, group.kind), group.expert or 0])
    shapes = [weight.shape for weight, _ in graph.linears(group)]
    linears = [
        QuantizedLinear(
            random.integers(-60, 60, shape, np.int8),
            np.full(shape[1], 5e-4, np.float32),
            np.zeros(shape[1], np.float32),
        )
        for shape in shapes
    ]
    return QuantizedGroup(np.ones(shapes[0][0], np.float32), np.float32(0.05), 128, tuple(linears))


def worker(path: Path, tokens: int) -> None:
    """Prints memory once loaded, the process' peak, in MB, and the CPU seconds of the text."""
    session = Session(path)
    ids = np.random.default_rng(0).integers(5, WORDS, (1, tokens))
    session.run(Inputs(ids[:, :16]))
    loaded = resident_mb()
    started = time.process_time()
    session.run(Inputs(ids))
    print(loaded, peak_mb(), time.process_time() - started)


if __name__ == "__main__":
    main()
