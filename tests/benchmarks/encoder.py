"""Speed, memory and fidelity of the encoder, against peers on the same weights in the same run.

    tox -e bench -- encoder.py [--rounds N] [--figures short,query,...] [--json FILE]
    tox -e bench -- encoder.py --charts

Peers are measured where they are installed: fastembed 0.9.1 (with torch, to write the plain ONNX
file it runs) and sentence-transformers. All are asked in turn, round after round; each ratio is the
median over the rounds of fastembed's default to the encoder's own in the same round.
``--charts`` keeps the figures and draws them in ``tests/benchmarks/charts``.

The process grows to 17 GB and more, as fastembed's memory for padded batches is never given back.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import charts
import peers
from corpora import Corpus, corpora, docstrings, queries
from memory import peak_mb
from results import Results, Table

FIGURES = "short,mixed,long,query,busy,fidelity,cold,memory"


def main() -> None:
    """Measures everything and prints one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--figures", default=FIGURES, help="some of them, with commas")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    parser.add_argument("--charts", action="store_true", help="draw the figures")
    parser.add_argument("--workspace", type=Path, default=Path(tempfile.gettempdir()) / "bench")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        task, name = arguments.worker
        return worker(task, name, arguments.workspace)
    wanted = set(arguments.figures.split(","))
    names = peers.available()
    if arguments.charts and (wanted != set(FIGURES.split(",")) or peers.BASELINE not in names):
        parser.error(f"--charts draws every figure, and needs {peers.BASELINE} to compare with")
    peers.prepare(arguments.workspace)
    texts = corpora(tokenizer())
    table: Table = {name: {} for name in names}
    # other processes first: measuring fastembed in this one takes the memory they need
    if "cold" in wanted:
        measure_processes("cold", "cold start", max(3, arguments.rounds), arguments, table)
    if "memory" in wanted:
        measure_processes("memory", "peak MB", 1, arguments, table)
    if wanted - {"cold", "memory"}:
        measure_here(texts, wanted, arguments, table)
    what = "--charts" if arguments.charts else f"--figures {arguments.figures}"
    command = f"tox -e bench -- encoder.py --rounds {arguments.rounds} {what}"
    results = Results.of(command, texts, table)
    show(results)
    if arguments.json:
        results.write(arguments.json)
    if arguments.charts:
        results.write(charts.FIGURES)
        charts.draw(results)
    return None


def measure_here(
    texts: list[Corpus], wanted: set[str], arguments: argparse.Namespace, table: Table
) -> None:
    """The figures that this process can measure, with all encoders loaded."""
    encoders = {name: peers.load(name, arguments.workspace) for name in table}
    # before fastembed keeps gigabytes: beside them int8 queries were seen to take longer
    if "query" in wanted:
        measure_queries("query", encoders, table)
    if "busy" in wanted:
        with busy_process():
            measure_queries("busy query", encoders, table)
    if "fidelity" in wanted:
        measure_fidelity(encoders, table)
    for corpus in texts:
        if corpus.name in wanted:
            measure_bulk(corpus, encoders, arguments.rounds, table)


def measure_bulk(
    corpus: Corpus, encoders: dict[str, peers.Encode], rounds: int, table: Table
) -> None:
    """Throughput on one corpus."""
    seconds: dict[str, list[float]] = {name: [] for name in encoders}
    for encode in encoders.values():
        encode(corpus.texts[:8])
    for _ in range(rounds):
        for name, encode in encoders.items():
            seconds[name].append(timed(partial(encode, corpus.texts)))
            time.sleep(0.1)  # a peer's threads go on spinning for a while
    for name, taken in seconds.items():
        rate = sum(corpus.tokens) / statistics.median(taken)
        table[name][corpus.name] = {"ratio": ratio(seconds, name), "tokens/s": round(rate)}
    print(f"measured {corpus.name}: {seconds}", file=sys.stderr)


def measure_queries(
    figure: str, encoders: dict[str, peers.Encode], table: Table, blocks: int = 10
) -> None:
    """Latency of one query, in blocks so that no peer's threads spin in another's time."""
    texts = queries(20)
    seconds: dict[str, list[float]] = {name: [] for name in encoders}
    for _ in range(blocks):
        for name, encode in encoders.items():
            time.sleep(0.1)
            encode(texts[:1])
            seconds[name] += [timed(partial(encode, [text])) for text in texts]
    for name, taken in seconds.items():
        table[name][figure] = {
            "ratio": ratio(seconds, name),
            "p50 ms": round(1000 * float(np.percentile(taken, 50)), 2),
            "p99 ms": round(1000 * float(np.percentile(taken, 99)), 2),
            "p99 ratio": ratio_of_tails(seconds, name),
        }
    print(f"measured {figure}", file=sys.stderr)


@contextmanager
def busy_process() -> Iterator[None]:
    """Another process keeps one core busy while the block runs."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        other.kill()
        other.wait()


def measure_fidelity(encoders: dict[str, peers.Encode], table: Table, count: int = 500) -> None:
    """Cosine and shared neighbours against our float32 vectors, on texts never calibrated with."""
    texts = docstrings()[-count:]
    exact = encoders["fp32"](texts)
    near = neighbours(exact)
    for name, encode in encoders.items():
        vectors = encode(texts)
        lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(exact, axis=1)
        cosines = (vectors * exact).sum(axis=1) / lengths
        shared = [len(a & b) / len(a) for a, b in zip(near, neighbours(vectors), strict=True)]
        table[name]["fidelity"] = {
            "texts": len(texts),
            "mean": round(float(cosines.mean()), 5),
            "min": round(float(cosines.min()), 4),
            "overlap@10": round(statistics.mean(shared), 4),
        }


def measure_processes(
    task: str, figure: str, rounds: int, arguments: argparse.Namespace, table: Table
) -> None:
    """A figure of a new process for each encoder and round: seconds, or megabytes."""
    values: dict[str, list[float]] = {name: [] for name in table}
    for _ in range(rounds):
        for name in table:
            command = [sys.executable, __file__, "--workspace", str(arguments.workspace)]
            done = subprocess.run(
                [*command, "--worker", task, name], capture_output=True, text=True, check=True
            )
            values[name].append(float(done.stdout.split()[-1]))
    for name, taken in values.items():
        table[name][figure] = {
            "ratio": ratio(values, name),
            "median": round(statistics.median(taken), 3),
        }
    print(f"measured {figure}", file=sys.stderr)


def worker(task: str, name: str, workspace: Path) -> None:
    """What a new process measures of itself and prints."""
    if task == "cold":
        started = time.perf_counter()
        peers.load(name, workspace)(["first vector"])
        print(time.perf_counter() - started)
        return
    mixed = next(corpus for corpus in corpora(tokenizer()) if corpus.name == "mixed")
    peers.load(name, workspace)(mixed.texts)
    print(peak_mb())


def tokenizer() -> Any:
    """The model's tokenizer, cutting at 512 as all encoders do."""
    from tokenizers import Tokenizer

    found = Tokenizer.from_file(str(peers.model_folder() / "tokenizer.json"))
    found.no_padding()
    found.enable_truncation(peers.MAX_TOKENS)
    return found


def neighbours(vectors: np.ndarray, count: int = 10) -> list[set[int]]:
    """Positions of the nearest other texts of each."""
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -9)
    return [set(row.tolist()) for row in np.argsort(-scores, axis=1)[:, :count]]


def ratio(values: dict[str, list[float]], name: str) -> float | None:
    """Median over the rounds of the baseline's value over that of `name`."""
    if peers.BASELINE not in values:
        return None
    pairs = zip(values[peers.BASELINE], values[name], strict=True)
    return round(statistics.median(base / own for base, own in pairs), 2)


def ratio_of_tails(values: dict[str, list[float]], name: str) -> float | None:
    """The baseline's 99th percentile over that of `name`."""
    if peers.BASELINE not in values:
        return None
    base, own = (np.percentile(values[encoder], 99) for encoder in (peers.BASELINE, name))
    return round(float(base / own), 2)


def timed(action: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def show(results: Results) -> None:
    """Prints the figures, ratios first."""
    print(*results.lines(), sep="\n")
    table = results.table
    columns = list(dict.fromkeys((f, key) for row in table.values() for f in row for key in row[f]))
    lines = [["", *(name for name in table)]]
    for figure, key in columns:
        found = [row.get(figure, {}).get(key) for row in table.values()]
        lines.append(
            [f"{figure}: {key}", *("" if value is None else str(value) for value in found)]
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for first, *rest in lines:
        aligned = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        print("  ".join([first.ljust(widths[0]), *aligned]))


if __name__ == "__main__":
    main()
