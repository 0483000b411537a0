"""What a model costs: MB on disk, MB in memory, texts and queries a second, by its size.

    tox -e bench -- costs.py [--sizes minilm,small,...] [--precision int8] [--texts 96]

The first size is all-MiniLM-L6-v2 itself. The others have the shape of a known model and random
weights, which take as much room and time: int8 numbers are drawn, not calibrated. Each is written
as an exported folder, and loaded and run in a process of its own, whose memory has the interpreter
and all libraries in it. Texts are documentation of 10 to 512 tokens, with a median near 80.
The CPU's time for a text is told as well, which a busy machine changes less.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from corpora import corpora, queries
from long_texts import write_random
from memory import peak_mb, resident_mb
from peers import MINILM
from synthetic import write_tokenizer

from qdrant_embed.encoder.facts.architectures import ARCHITECTURES
from qdrant_embed.encoder.facts.precision import ModelReport, Precision
from qdrant_embed.encoder.facts.spec import ModelSpec
from qdrant_embed.encoder.files.plan import RunPlan, export_plan

MB = 2**20 / 1e6  # of the MB that /proc counts in


@dataclass(frozen=True)
class Shape:
    """A known model whose shape is taken, and its ``config.json``."""

    like: str
    millions: int
    config: dict[str, Any]


def _bert(layers: int, width: int, **changes: Any) -> dict[str, Any]:
    return {
        "model_type": "bert",
        "vocab_size": 30_522,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // (32 if width == 384 else 64),
        "intermediate_size": 4 * width,
        "max_position_embeddings": 512,
        **changes,
    }


_QWEN3 = {
    "model_type": "qwen3",
    "vocab_size": 151_669,
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 3072,
    "max_position_embeddings": 32_768,
    "rope_theta": 1_000_000,
}
_MULTILINGUAL = {"model_type": "xlm-roberta", "vocab_size": 250_002, "type_vocab_size": 1}
SHAPES = {
    "minilm": Shape(MINILM, 23, {}),
    "small": Shape("BAAI/bge-small-en-v1.5", 33, _bert(12, 384)),
    "base": Shape("BAAI/bge-base-en-v1.5", 109, _bert(12, 768)),
    "multilingual": Shape(
        "intfloat/multilingual-e5-base",
        278,
        _bert(12, 768, **_MULTILINGUAL, max_position_embeddings=514),
    ),
    "large": Shape("BAAI/bge-large-en-v1.5", 335, _bert(24, 1024)),
    "0.6b": Shape("Qwen/Qwen3-Embedding-0.6B", 596, _QWEN3),
}


def main() -> None:
    """Prints a row of a table for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default=",".join(SHAPES))
    parser.add_argument("--precision", choices=["int8", "fp32"], default="int8")
    parser.add_argument("--texts", type=int, default=96)
    parser.add_argument("--worker", choices=["make", "run"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker == "make":
        return make(arguments.folder, SHAPES[arguments.sizes], arguments.precision)
    if arguments.worker == "run":
        return run(arguments.folder, arguments.texts)
    print(f"{arguments.precision}; MB; memory of the whole process")
    print(
        "| size | like | weights | millions | disk | loaded | peak | texts/s | CPU ms | query, ms |"
    )
    print("|---|---|---|--:|--:|--:|--:|--:|--:|--:|")
    for size in arguments.sizes.split(","):
        shape = SHAPES[size]
        with tempfile.TemporaryDirectory() as temporary:
            job = ["--sizes", size, "--precision", arguments.precision]
            job += ["--texts", str(arguments.texts), "--folder", f"{temporary}/model"]
            command = [sys.executable, "-W", "ignore", __file__, *job, "--worker"]
            subprocess.run([*command, "make"], check=True)
            done = subprocess.run([*command, "run"], stdout=subprocess.PIPE, text=True, check=True)
        cells = [
            f"{figure:.3g}" if figure < 10 else f"{figure:.0f}"
            for figure in json.loads(done.stdout)
        ]
        kind = "random" if shape.config else "real"
        row = [size, shape.like, kind, str(shape.millions), *cells]
        print(f"| {' | '.join(row)} |", flush=True)
    return None


def make(folder: Path, shape: Shape, precision: Precision) -> None:
    """Writes a model as an exported folder."""
    if not shape.config:
        from qdrant_embed import TextEmbedding

        return TextEmbedding(shape.like, max_tokens=512, precision=precision).export(folder)
    config = ARCHITECTURES[shape.config["model_type"]].model_validate(shape.config)
    spec = ModelSpec("random", config.dimension, "mean", min(512, config.positions))
    with tempfile.TemporaryDirectory() as temporary:
        graph, tokenizer = Path(temporary) / "model.onnx", Path(temporary) / "tokenizer.json"
        write_random(graph, config, spec, precision)
        write_tokenizer(tokenizer, shape.config["vocab_size"])
        plan = RunPlan(
            kind="graph",
            spec=spec,
            report=ModelReport(
                model=spec.name, weights_sha256="", file="random", precision=precision
            ),
            weights_sha256="",
            run=(graph, graph.with_name("model.onnx.weights")),
            tokenizer=tokenizer,
        )
        export_plan(plan, folder, Path(temporary) / "cache")
    return None


def run(folder: Path, count: int) -> None:
    """Prints MB on disk, once loaded and at most; texts a second, CPU ms a text, ms a query."""
    from tokenizers import Tokenizer

    from qdrant_embed import TextEmbedding

    disk = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    mixed = next(corpus for corpus in corpora(tokenizer) if corpus.name == "mixed")
    encoder = TextEmbedding(folder, cache_dir=folder.parent / "cache")
    list(encoder.query_embed("warm up"))
    loaded = resident_mb() * MB
    seconds = []
    for query in queries(24):
        started = time.perf_counter()
        list(encoder.query_embed(query))
        seconds.append(time.perf_counter() - started)
    list(encoder.embed(mixed.texts[:4]))
    started, spent = time.perf_counter(), time.process_time()
    list(encoder.embed(mixed.texts[:count]))
    rate, spent = count / (time.perf_counter() - started), time.process_time() - spent
    median = statistics.median(seconds)
    print(json.dumps([disk, loaded, peak_mb() * MB, rate, 1e3 * spent / count, 1e3 * median]))


if __name__ == "__main__":
    main()
