"""Speed, memory and fidelity of the encoder, against peers on the same weights in the same run.

    tox -e bench -- encoder.py [--rounds N] [--figures short,query,...] [--peers int8,openvino,...]
                               [--cut N] [--json FILE]
    tox -e bench -- encoder.py --charts

Peers are those of ``peers.py``; one whose packages are not installed is left out and named. Each
runs in a process of its own, and all are asked in turn, round after round. A ratio is the median
over the rounds of the baseline's time to the encoder's own in the same round; the baseline is
fastembed with its defaults, or our int8 where fastembed is left out. ``time/int8`` is the time
divided by that of our int8: above 1 is slower. ``--charts`` keeps the figures and draws them in
``tests/benchmarks/charts``.

fastembed's process grows to 17 GB, as its memory for padded batches is never given back. A process
of more than 4 GB is ended once it has answered, and started again when it is next asked.
"""

from __future__ import annotations

import argparse
import json
import os
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
FIDELITY_TEXTS = 500
LARGEST_PROCESS = 4000  # megabytes; a larger one is ended


def main() -> None:
    """Measures everything and prints one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--figures", default=FIGURES, help="some of them, with commas")
    parser.add_argument("--peers", help="some of them, with commas; all that are installed")
    parser.add_argument("--cut", type=int, default=1, help="take every Nth text of each corpus")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    parser.add_argument("--charts", action="store_true", help="draw the figures")
    parser.add_argument("--workspace", type=Path, default=Path(tempfile.gettempdir()) / "bench")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        task, name = arguments.worker
        return worker(task, name, arguments.workspace, arguments.cut)
    wanted = set(arguments.figures.split(","))
    chosen = arguments.peers.split(",") if arguments.peers else list(peers.PEERS)
    names = [name for name in peers.available() if name in chosen]
    if "int8" not in names or ("fidelity" in wanted and "fp32" not in names):
        parser.error("every peer is compared with int8, and its vectors with those of fp32")
    whole = wanted == set(FIGURES.split(",")) and peers.BASELINE in names and arguments.cut == 1
    if arguments.charts and not whole:
        parser.error(
            f"--charts draws every figure, of whole corpora, in comparison with {peers.BASELINE}"
        )
    left_out = {name: peers.left_out()[name] for name in chosen if name in peers.left_out()}
    for name, missing in left_out.items():
        print(f"left out: {name} ({', '.join(missing)} not installed)", file=sys.stderr)
    peers.prepare(arguments.workspace, names)
    texts = cut_corpora(arguments.cut)
    table: Table = {name: {} for name in names}
    if "cold" in wanted:
        measure_processes("cold", "cold start", max(3, arguments.rounds), arguments, table)
    if "memory" in wanted:
        measure_processes("memory", "peak MB", 1, arguments, table)
    if wanted - {"cold", "memory"}:
        measure_in_turn(texts, wanted, arguments, table)
    what = "--charts" if arguments.charts else f"--figures {arguments.figures}"
    if arguments.peers:
        what += f" --peers {arguments.peers}"
    if arguments.cut > 1:
        what += f" --cut {arguments.cut}"
    command = f"tox -e bench -- encoder.py --rounds {arguments.rounds} {what}"
    results = Results.of(command, texts, table, left_out)
    show(results)
    if arguments.json:
        results.write(arguments.json)
    if arguments.charts:
        results.write(charts.FIGURES)
        charts.draw(results)
    return None


class Encoder:
    """A peer in a process of its own, which answers what it is asked.

    Args:
        name: of the peer.
        arguments: those of this process.
    """

    def __init__(self, name: str, arguments: argparse.Namespace) -> None:
        self._command = [*worker_command(arguments), "serve", name]
        self._name = name
        self._process: subprocess.Popen[str] | None = None

    def ask(self, task: str, of: str) -> list[float]:
        """Return the seconds that a task took; see `serve`."""
        if self._process is None:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        sent, answers = self._process.stdin, self._process.stdout
        if sent is None or answers is None:
            raise AssertionError("the process was started with pipes")
        print(task, of, file=sent, flush=True)
        line = answers.readline()
        if not line:
            raise SystemExit(f"{self._name} ended with exit code {self._process.wait()}")
        answer = json.loads(line)
        if answer["megabytes"] > LARGEST_PROCESS:
            self.end()
        seconds: list[float] = answer["seconds"]
        return seconds

    def end(self) -> None:
        """End the process."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait()
        self._process = None


def measure_in_turn(
    texts: list[Corpus], wanted: set[str], arguments: argparse.Namespace, table: Table
) -> None:
    """The figures of processes that each have one encoder loaded."""
    encoders = {name: Encoder(name, arguments) for name in table}
    try:
        if "query" in wanted:
            measure_queries("query", encoders, table)
        if "busy" in wanted:
            with busy_process():
                measure_queries("busy query", encoders, table)
        if "fidelity" in wanted:
            measure_fidelity(encoders, arguments.workspace, table)
        for corpus in texts:
            if corpus.name in wanted:
                measure_bulk(corpus, encoders, arguments.rounds, table)
    finally:
        for encoder in encoders.values():
            encoder.end()


def measure_bulk(corpus: Corpus, encoders: dict[str, Encoder], rounds: int, table: Table) -> None:
    """Throughput on one corpus, after a first pass that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in encoders}
    for encoder in encoders.values():
        encoder.ask("bulk", corpus.name)
    for _ in range(rounds):
        for name, encoder in encoders.items():
            seconds[name] += encoder.ask("bulk", corpus.name)
            time.sleep(0.1)  # a peer's threads go on spinning for a while
    for name, taken in seconds.items():
        rate = sum(corpus.tokens) / statistics.median(taken)
        table[name][corpus.name] = {
            "ratio": ratio(seconds, name),
            "tokens/s": round(rate),
            "time/int8": time_of_own(seconds, name),
        }
    print(f"measured {corpus.name}: {seconds}", file=sys.stderr)


def measure_queries(
    figure: str, encoders: dict[str, Encoder], table: Table, blocks: int = 10
) -> None:
    """Latency of one query, in blocks so that no peer's threads spin in another's time."""
    seconds: dict[str, list[float]] = {name: [] for name in encoders}
    for _ in range(blocks):
        for name, encoder in encoders.items():
            time.sleep(0.1)
            seconds[name] += encoder.ask("queries", "20")
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


def measure_fidelity(encoders: dict[str, Encoder], workspace: Path, table: Table) -> None:
    """Cosine and shared neighbours against our float32 vectors, on texts never calibrated with."""
    found = {}
    for name, encoder in encoders.items():
        path = workspace / f"{name}.npy"
        encoder.ask("vectors", str(path))
        found[name] = np.load(path)
    exact = found["fp32"]
    near = neighbours(exact)
    for name, vectors in found.items():
        lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(exact, axis=1)
        cosines = (vectors * exact).sum(axis=1) / lengths
        shared = [len(a & b) / len(a) for a, b in zip(near, neighbours(vectors), strict=True)]
        table[name]["fidelity"] = {
            "texts": len(vectors),
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
            command = [*worker_command(arguments), task, name]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            values[name].append(float(done.stdout.split()[-1]))
    for name, taken in values.items():
        table[name][figure] = {
            "ratio": ratio(values, name),
            "median": round(statistics.median(taken), 3),
        }
    print(f"measured {figure}", file=sys.stderr)


def worker_command(arguments: argparse.Namespace) -> list[str]:
    """The command of a new process, but for its task and the name of its encoder."""
    command = [sys.executable, "-W", "ignore", __file__, "--cut", str(arguments.cut)]
    return [*command, "--workspace", str(arguments.workspace), "--worker"]


def worker(task: str, name: str, workspace: Path, cut: int) -> None:
    """What a new process measures of itself and prints."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print, too
    if task == "cold":
        started = time.perf_counter()
        peers.load(name, workspace)(["first vector"])
        print(time.perf_counter() - started, file=answers)
    elif task == "memory":
        mixed = next(corpus for corpus in cut_corpora(cut) if corpus.name == "mixed")
        peers.load(name, workspace)(mixed.texts)
        print(peak_mb(), file=answers)
    else:
        for answer in serve(peers.load(name, workspace), cut):
            print(json.dumps(answer), file=answers, flush=True)


def serve(encode: peers.Encode, cut: int) -> Iterator[dict[str, object]]:
    """Do what each line of the standard input asks for: its task, and what it is of.

    ``bulk`` encodes a corpus, ``queries`` this number of queries one by one, ``vectors`` the texts
    that fidelity is measured on, whose vectors are written to a file.
    """
    by_name = {corpus.name: corpus.texts for corpus in cut_corpora(cut)}
    encode(by_name["short"][:8])
    for line in sys.stdin:
        task, of = line.rstrip("\n").split(" ", 1)
        if task == "bulk":
            seconds = [timed(partial(encode, by_name[of]))]
        elif task == "queries":
            texts = queries(int(of))
            encode(texts[:1])
            seconds = [timed(partial(encode, [text])) for text in texts]
        else:
            np.save(of, encode(docstrings()[-FIDELITY_TEXTS:]))
            seconds = []
        yield {"seconds": seconds, "megabytes": peak_mb()}


def cut_corpora(cut: int) -> list[Corpus]:
    """Every `cut`-th text of each corpus."""
    return [
        Corpus(corpus.name, corpus.texts[::cut], corpus.tokens[::cut])
        for corpus in corpora(tokenizer())
    ]


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


def baseline(values: dict[str, list[float]]) -> list[float]:
    """The values of what all are compared with."""
    return values.get(peers.BASELINE, values["int8"])


def ratio(values: dict[str, list[float]], name: str) -> float:
    """Median over the rounds of the baseline's value over that of `name`."""
    pairs = zip(baseline(values), values[name], strict=True)
    return round(statistics.median(base / own for base, own in pairs), 2)


def time_of_own(values: dict[str, list[float]], name: str) -> float:
    """Median over the rounds of the value of `name` over that of our int8."""
    pairs = zip(values[name], values["int8"], strict=True)
    return round(statistics.median(value / own for value, own in pairs), 2)


def ratio_of_tails(values: dict[str, list[float]], name: str) -> float:
    """The baseline's 99th percentile over that of `name`."""
    base, own = (np.percentile(seconds, 99) for seconds in (baseline(values), values[name]))
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
