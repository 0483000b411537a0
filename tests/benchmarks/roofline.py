"""Which share of what the processor could do the encoder reaches, on short and on long texts.

    tox -e bench -- roofline.py [--rounds 5]

The limit is the time that the network's products alone would take: those of weights at the best
rate of an int8 product seen here, those of attention at the best of a float32 one. Both are
measured in the same rounds, by onnxruntime, on each core at once, for the network's own shapes and
for larger ones; all else that an encoder does (tokens, softmax, norms, quantising) counts as loss.
The share is the median over the rounds of the limit to the encoder's time in that round.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper

sys.path.insert(0, str(Path(__file__).parent))
import peers
from corpora import Corpus
from encoder import cut_corpora
from server import processor

from qdrant_embed import TextEmbedding
from qdrant_embed.encoder.run.cores import usable_cores

# all-MiniLM-L6-v2
LAYERS, WIDTH, INNER = 6, 384, 1536
LINEAR = 2 * LAYERS * (4 * WIDTH * WIDTH + 2 * WIDTH * INNER)  # operations for a token
ATTENTION = 2 * LAYERS * 2 * WIDTH  # for a token and each token that it attends to

ROWS = 512  # tokens, as in a batch
SHAPES = ((WIDTH, WIDTH), (WIDTH, 3 * WIDTH), (WIDTH, INNER), (INNER, WIDTH), (1024, 1024))
SECONDS = 0.15  # of each product


def main() -> None:
    """Measures in turn and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    encoder = TextEmbedding(peers.MINILM, max_tokens=peers.MAX_TOKENS)
    products = {kind: [product(kind, *shape) for shape in SHAPES] for kind in ("int8", "float32")}
    asked = [corpus for corpus in cut_corpora(1) if corpus.name in ("short", "long")]
    for corpus in asked:
        seconds_a_token(encoder, corpus)
    rates: dict[str, list[float]] = {kind: [] for kind in products}
    found: dict[str, list[tuple[float, float]]] = {one.name: [] for one in asked}
    for _ in range(arguments.rounds):
        for kind, several in products.items():
            rates[kind].append(max(each.rate() for each in several))
        for corpus in asked:
            own = seconds_a_token(encoder, corpus)
            seen = sum(n * n for n in corpus.tokens) / sum(corpus.tokens)
            limit = LINEAR / rates["int8"][-1] + ATTENTION * seen / rates["float32"][-1]
            found[corpus.name].append((limit, own))
    print(f"{processor()}; onnxruntime {onnxruntime.__version__}, {arguments.rounds} rounds")
    for kind, of in rates.items():
        print(f"{kind} products: {statistics.median(of) / 1e9:.0f} billion operations/s a core")
    for name, rounds in found.items():
        limit, own = (1e6 * statistics.median(times) for times in zip(*rounds, strict=True))
        share = statistics.median(limit / own for limit, own in rounds)
        print(f"{name}: {own:.0f} us a token and core, limit {limit:.0f}: {100 * share:.0f}%")


def seconds_a_token(encoder: TextEmbedding, corpus: Corpus) -> float:
    """Seconds of one core."""
    started = time.perf_counter()
    for _ in encoder.embed(corpus.texts):
        pass
    return (time.perf_counter() - started) * usable_cores() / sum(corpus.tokens)


@dataclass(frozen=True)
class Product:
    """A matrix product, run on all cores at once, each its own.

    Attributes:
        runs: one for each core.
        operations: of one run; a product and a sum are two.
    """

    runs: list[Callable[[], object]]
    operations: int

    def rate(self) -> float:
        """Operations a second of one core."""

        def go_on(run: Callable[[], object]) -> float:
            count, started = 0, time.perf_counter()
            while time.perf_counter() < started + SECONDS:
                run()
                count += 1
            return count / (time.perf_counter() - started)

        with ThreadPoolExecutor(len(self.runs)) as pool:
            return self.operations * statistics.mean(pool.map(go_on, self.runs))


def product(kind: str, inner: int, columns: int) -> Product:
    """A product of a batch with weights, which are known beforehand."""
    chance = np.random.default_rng(0)
    given: NDArray[np.uint8] | NDArray[np.float32]
    if kind == "int8":
        given = chance.integers(0, 255, (ROWS, inner), np.uint8)
        weights = chance.integers(-64, 64, (inner, columns), np.int8)
        known = [onnx.numpy_helper.from_array(weights, "w")]
        known.append(onnx.numpy_helper.from_array(np.array(128, np.uint8), "zero"))
        node = helper.make_node("MatMulInteger", ["x", "w", "zero"], ["y"])
        types = onnx.TensorProto.UINT8, onnx.TensorProto.INT32
    else:
        given = chance.standard_normal((ROWS, inner), np.float32)
        floats = chance.standard_normal((inner, columns), np.float32)
        known = [onnx.numpy_helper.from_array(floats, "w")]
        node = helper.make_node("MatMul", ["x", "w"], ["y"])
        types = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [node],
        kind,
        [helper.make_tensor_value_info("x", types[0], [ROWS, inner])],
        [helper.make_tensor_value_info("y", types[1], [ROWS, columns])],
        known,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    runs = [lambda: session.run(None, {"x": given}) for _ in range(usable_cores())]
    return Product(runs, 2 * ROWS * inner * columns)


if __name__ == "__main__":
    main()
