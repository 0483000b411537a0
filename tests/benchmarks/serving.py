"""The service under load: requests a second of 1 and 32 clients, and what a request costs.

A client is a connection that sends a short text, waits for its vector and sends the next. All are
in this process, which competes with the service's for the cores; what each of them takes of the
processor is shown beside it. The encoder's own rates, without a service, bound the service's: one
text after the other that of one client, and all texts in bulk that of many.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import selectors
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from qdrant_embed import TextEmbedding

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
COMMAND = "import sys; from qdrant_embed.cli.main import main; sys.exit(main())"
SENTENCE = "bees tell each other where to find flowers by dancing in the dark of the hive"
COLLECTION = "bees"


@dataclass(frozen=True)
class Load:
    """What clients saw, and what it took.

    Attributes:
        rate: requests a second.
        seconds: of each request.
        service: processor seconds of the service for each request.
        client: processor seconds of the clients for each request.
    """

    rate: float
    seconds: list[float]
    service: float
    client: float | None = None

    def row(self, name: str) -> str:
        """Return a line of the table."""
        cuts = statistics.quantiles(self.seconds, n=100)
        client = "" if self.client is None else f", client {1000 * self.client:5.3f} ms"
        return (
            f"{name:34} {self.rate:6.0f}/s   p50 {1000 * cuts[49]:7.2f} ms   "
            f"p99 {1000 * cuts[98]:7.2f} ms   CPU of each {1000 * self.service:5.3f} ms{client}"
        )


@dataclass
class _Connection:
    """A client's connection, and the part of an answer that has arrived."""

    opened: socket.socket
    sent_at: float = 0.0
    received: bytes = field(default=b"")

    def send(self, request: bytes) -> None:
        """Send a request."""
        self.received, self.sent_at = b"", time.perf_counter()
        self.opened.sendall(request)

    def is_answered(self) -> bool:
        """Receive, and return whether an answer is whole."""
        self.received += self.opened.recv(1 << 20)
        head, blank, body = self.received.partition(b"\r\n\r\n")
        if not blank:
            return False
        if b" 200 " not in head[:20]:
            raise RuntimeError(self.received.decode())
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r", 1)[0])
        return len(body) == length


def _request(path: str, body: object) -> bytes:
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def _load(service: Service, clients: int, requests: list[bytes], seconds: float) -> Load:
    # without HTTP's or asyncio's machinery: the clients shall not take the service's cores
    taken: list[float] = []
    chosen = random.Random(0)
    with selectors.DefaultSelector() as selector:
        for _ in range(clients):
            connection = _Connection(socket.create_connection(("127.0.0.1", service.port)))
            connection.opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            selector.register(connection.opened, selectors.EVENT_READ, connection)
        started, own, of_service = time.perf_counter(), time.process_time(), service.cpu()
        for key in selector.get_map().values():
            key.data.send(chosen.choice(requests))
        while selector.get_map():
            for key, _ in selector.select():
                connection = key.data
                if not connection.is_answered():
                    continue
                now = time.perf_counter()
                taken.append(now - connection.sent_at)
                if now < started + seconds:
                    connection.send(chosen.choice(requests))
                else:
                    selector.unregister(connection.opened)
                    connection.opened.close()
    count = len(taken)
    return Load(
        count / (time.perf_counter() - started),
        taken,
        (service.cpu() - of_service) / count,
        (time.process_time() - own) / count,
    )


@dataclass(frozen=True)
class Service:
    """The service's process."""

    port: int
    process: int

    def cpu(self) -> float:
        """Return the processor seconds that it has used; 0 where the system does not tell."""
        seconds = 0.0
        if sys.platform == "linux":
            stat = Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()
            seconds = (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
        return seconds


@contextmanager
def _running(model: str, *arguments: str) -> Iterator[Service]:
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "serve", "--model", model, "--port", "0", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "QDRANT_EMBED_OFFLINE": "1"},
    )
    try:
        assert process.stderr is not None
        yield Service(int(process.stderr.readline().rpartition(":")[2]), process.pid)
    finally:
        process.terminate()
        process.wait()


def _measured(compute: Callable[[list[str]], object], texts: list[str], seconds: float) -> Load:
    """Return the rate at which this process encodes, so many texts at a time."""
    compute(texts)
    taken: list[float] = []
    began, used = time.perf_counter(), time.process_time()
    while time.perf_counter() < began + seconds:
        started = time.perf_counter()
        compute(texts)
        taken.append(time.perf_counter() - started)
    count = len(taken) * len(texts)
    return Load(count / (time.perf_counter() - began), taken, (time.process_time() - used) / count)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=MINILM)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--clients", default="1,32,1,32", help="numbers of clients, in turn")
    parser.add_argument(
        "--search", action="store_true", help="search a collection of 1,000 documents in a folder"
    )
    options = parser.parse_args()
    words = SENTENCE.split()
    texts = [" ".join(words[: 4 + number % 12]) for number in range(96)]
    embedding = TextEmbedding(options.model)
    rates: dict[int, float] = {}
    with TemporaryDirectory() as folder, _running(options.model, "--path", folder) as service:
        requests = [
            _request("/v1/embeddings", {"input": text, "encoding_format": "base64"})
            for text in texts
        ]
        if options.search:
            documents = [{"text": f"{texts[n % 96]} {n}", "id": n} for n in range(1_000)]
            path = f"/collections/{COLLECTION}"
            _load(service, 1, [_request(f"{path}/documents", {"documents": documents})], 0)
            requests = [_request(f"{path}/query", {"query": text}) for text in texts]
        for clients in map(int, options.clients.split(",")):
            _load(service, clients, requests, 1)
            found = _load(service, clients, requests, options.seconds)
            rates[clients] = max(rates.get(clients, 0), found.rate)
            print(found.row(f"{clients} client{'s' if clients > 1 else ''}"), flush=True)

    def singly(texts: list[str]) -> None:
        for text in texts:
            next(iter(embedding.embed(text)))

    def in_bulk(texts: list[str]) -> None:
        for _ in embedding.embed(texts):
            pass

    one = _measured(singly, texts, options.seconds)
    print(one.row("the encoder, texts singly, 96"))
    bulk = _measured(in_bulk, texts * 10, options.seconds)
    print(bulk.row("the encoder, texts in bulk, 960"))
    fewest, most = min(rates), max(rates)
    print(
        f"{most} clients: {rates[most] / rates[fewest]:.2f} times the rate of {fewest}; in bulk, "
        f"the encoder has {bulk.rate / rates[fewest]:.2f} times that rate"
    )


if __name__ == "__main__":
    main()
