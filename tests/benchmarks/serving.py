"""The service under load: requests a second of 1 and 32 clients, and what a request costs.

A client is a connection that sends a short text, waits for its vector and sends the next. All are
in one process, which the service's process competes with for the cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

from qdrant_embed import TextEmbedding

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
COMMAND = "import sys; from qdrant_embed.cli.main import main; sys.exit(main())"
SENTENCE = "bees tell each other where to find flowers by dancing in the dark of the hive"


@dataclass(frozen=True)
class Load:
    """What clients saw: requests a second, and seconds of each."""

    rate: float
    seconds: list[float]

    def row(self, name: str) -> str:
        """Return a line of the table."""
        cuts = statistics.quantiles(self.seconds, n=100)
        return (
            f"{name:32} {self.rate:8.0f} requests/s   p50 {1000 * cuts[49]:7.2f} ms   "
            f"p99 {1000 * cuts[98]:7.2f} ms"
        )


async def _load(port: int, clients: int, texts: list[str], seconds: float) -> Load:
    taken: list[float] = []
    end = time.perf_counter() + seconds

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        turn = number
        while (started := time.perf_counter()) < end:
            body = json.dumps({"input": texts[turn % len(texts)], "encoding_format": "base64"})
            turn += clients
            writer.write(
                b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                % (len(body), body.encode())
            )
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in head:
                raise RuntimeError(head.decode())
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r", 1)[0])
            await reader.readexactly(length)
            taken.append(time.perf_counter() - started)
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(clients)))
    return Load(len(taken) / (time.perf_counter() - started), taken)


def _in_process(model: str, texts: list[str], seconds: float) -> Load:
    embedding = TextEmbedding(model)
    taken: list[float] = []
    began = time.perf_counter()
    while time.perf_counter() < began + seconds:
        started = time.perf_counter()
        next(iter(embedding.embed(texts[len(taken) % len(texts)])))
        taken.append(time.perf_counter() - started)
    return Load(len(taken) / (time.perf_counter() - began), taken)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=MINILM)
    parser.add_argument("--seconds", type=float, default=5)
    options = parser.parse_args()
    words = SENTENCE.split()
    texts = [" ".join(words[: 4 + number % 12]) for number in range(96)]
    TextEmbedding(options.model)
    service = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "serve", "--model", options.model, "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "QDRANT_EMBED_OFFLINE": "1"},
    )
    try:
        assert service.stderr is not None
        port = int(service.stderr.readline().rpartition(":")[2])
        for clients in (1, 32, 1, 32):
            asyncio.run(_load(port, clients, texts, 1))
            found = asyncio.run(_load(port, clients, texts, options.seconds))
            print(found.row(f"{clients} client{'s' if clients > 1 else ''}"), flush=True)
    finally:
        service.terminate()
        service.wait()
    print(_in_process(options.model, texts, options.seconds).row("in the process, one at a time"))


if __name__ == "__main__":
    main()
