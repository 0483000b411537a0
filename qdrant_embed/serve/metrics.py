"""What the service counts, as Prometheus reads it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The counters of one service.

    Attributes:
        requests: answers by operation and status.
        seconds: time until an answer is ready, by operation.
        tokens: tokens that were read, by model.
        batches: numbers of items that were computed together.
        waiting: texts that are being worked on or wait for it.
    """

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        name = "qdrant_embed_"
        self.requests = Counter(
            f"{name}requests", "Answers.", ("operation", "status"), registry=registry
        )
        self.seconds = Histogram(
            f"{name}request_seconds",
            "Time until an answer is ready.",
            ("operation",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.tokens = Counter(f"{name}tokens", "Tokens read.", ("model",), registry=registry)
        self.batches = Histogram(
            f"{name}batch_items", "Items computed together.", buckets=_ITEMS, registry=registry
        )
        self.waiting = Gauge(f"{name}waiting_texts", "Texts in work or waiting.", registry=registry)

    def page(self) -> bytes:
        """Return all of them in Prometheus's text format."""
        return generate_latest(self._registry)
