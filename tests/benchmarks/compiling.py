"""What compiling a model to int8 takes: seconds, and memory beside the size of its weights.

    tox -e bench -- compiling.py [--rounds N] [--model NAME]

Each round is a new process with an empty cache; its peak memory has the interpreter and all
libraries in it.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import peers
from memory import peak_mb


def main() -> None:
    """Compiles round after round and prints the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default=peers.MINILM, help="a known name, or a folder")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return worker(arguments.model)
    command = [sys.executable, __file__, "--worker", "--model", arguments.model]
    rounds = []
    for _ in range(arguments.rounds):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rounds.append([float(number) for number in done.stdout.split()])
    seconds, peak, weights = (statistics.median(values) for values in zip(*rounds, strict=True))
    print(f"{arguments.model}, {weights:.0f} MB of weights, {arguments.rounds} rounds")
    print(
        f"compiled in {seconds:.1f} s, peak {peak:.0f} MB: {peak / weights:.1f} times the weights"
    )
    return None


def worker(model: str) -> None:
    """Prints the seconds that compiling took, the process' peak, and the weights, in MB."""
    from qdrant_embed import TextEmbedding
    from qdrant_embed.encoder.files.cache import cache_folder
    from qdrant_embed.encoder.files.model_files import find_model

    folder = find_model(model, cache=cache_folder()).folder
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    with tempfile.TemporaryDirectory() as cache:
        started = time.perf_counter()
        TextEmbedding(model, cache_dir=cache)
        seconds = time.perf_counter() - started
    print(seconds, peak_mb() * 2**20 / 1e6, weights / 1e6)


if __name__ == "__main__":
    main()
