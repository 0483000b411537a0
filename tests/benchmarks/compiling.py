"""What compiling a model to int8 takes: seconds, and memory beside the size of its weights.

    tox -e bench -- compiling.py [--rounds N] [--model NAME]
    tox -e bench -- compiling.py --size 0.6b [--scratch FOLDER]

Each round is a new process with an empty cache; its peak memory has the interpreter and all
libraries in it. With `--size` the model is a random Qwen3 (bfloat16), made first; what its int8
form takes to run is measured, too, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import peers
from corpora import docstrings
from memory import peak_mb, resident_mb
from synthetic import SIZES, make_model


def main() -> None:
    """Compiles round after round and prints the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--model", default=peers.MINILM, help="a known name, or a folder")
    parser.add_argument("--size", choices=SIZES, help="make a random model of that size")
    parser.add_argument("--scratch", type=Path, help="where to make it, and keep it")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--worker", choices=["compile", "run"], help=argparse.SUPPRESS)
    parser.add_argument("--cache", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker == "compile":
        return compile_model(arguments.model, arguments.precision, arguments.cache)
    if arguments.worker == "run":
        return run_model(arguments.model, arguments.precision, arguments.cache)
    with tempfile.TemporaryDirectory() as temporary:
        model, rounds = arguments.model, arguments.rounds or 3
        if arguments.size:
            folder = (arguments.scratch or Path(temporary)) / f"qwen3-{arguments.size}"
            if not folder.is_dir():
                make_model(folder, SIZES[arguments.size])
            model, rounds = str(folder), arguments.rounds or 1
        figures = []
        for number in range(rounds):
            cache = str(Path(temporary) / str(number))
            figures.append(worker("compile", model, arguments.precision, cache))
        median = {key: statistics.median(f[key] for f in figures) for key in figures[0]}
        print(f"{model}, {median['weights']:.0f} MB of weights, {rounds} rounds")
        print(
            f"compiled in {median['seconds']:.1f} s ({median['cpu']:.1f} s of processors), "
            f"peak {median['peak']:.0f} MB "
            f"({median['imported']:.0f} MB before compiling): "
            f"{median['peak'] / median['weights']:.1f} times the weights"
        )
        if arguments.size:
            print(json.dumps(worker("run", model, arguments.precision, cache)))
    return None


def worker(job: str, model: str, precision: str, cache: str) -> dict[str, float]:
    """Does a job in a process of its own, and returns its figures."""
    command = [sys.executable, __file__, "--worker", job, "--model", model]
    command += ["--precision", precision, "--cache", cache]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def compile_model(model: str, precision: str, cache: str) -> None:
    """Prints the seconds that compiling took, the process' peak, and the weights, in MB."""
    from qdrant_embed import TextEmbedding
    from qdrant_embed.encoder.files.cache import cache_folder
    from qdrant_embed.encoder.files.model_files import find_model
    from qdrant_embed.encoder.run import session, tokenizer  # noqa: F401 - what compiling imports

    folder = find_model(model, cache=cache_folder()).folder
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    imported = peak_mb()
    started, cpu = time.perf_counter(), time.process_time()
    encoder = TextEmbedding(model, cache_dir=cache, precision=precision)  # type: ignore[arg-type]
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    print(encoder.report, file=sys.stderr)
    figures = {
        "seconds": seconds,
        "cpu": cpu,
        "peak": peak_mb() * 2**20 / 1e6,
        "imported": imported * 2**20 / 1e6,
        "weights": weights / 1e6,
    }
    print(json.dumps(figures))


def run_model(model: str, precision: str, cache: str) -> None:
    """Prints what running a compiled model takes, in MB, seconds a text and tokens a second."""
    from qdrant_embed import TextEmbedding

    started = time.perf_counter()
    encoder = TextEmbedding(model, cache_dir=cache, precision=precision)  # type: ignore[arg-type]
    loading = time.perf_counter() - started
    loaded = resident_mb()
    texts = docstrings()[:64]
    list(encoder.embed(texts[:4]))
    started = time.perf_counter()
    list(encoder.embed(texts))
    many = (time.perf_counter() - started) / len(texts)
    seconds = []
    for text in texts[:24]:
        started = time.perf_counter()
        list(encoder.query_embed(text[:60]))
        seconds.append(time.perf_counter() - started)
    disk = sum(file.stat().st_size for file in Path(cache).rglob("compiled/*/*"))
    figures = {
        "disk": disk / 1e6,
        "loading": loading,
        "loaded": loaded * 2**20 / 1e6,
        "resident": resident_mb() * 2**20 / 1e6,
        "peak": peak_mb() * 2**20 / 1e6,
        "seconds_a_text": many,
        "seconds_a_query": statistics.median(seconds),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
