"""What a server counts, as Prometheus reads it at `/metrics`."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
ROWS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """A registry of its own, so that two servers of one process do not count together."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("dualtoken_requests", "Answered requests.", ("route", "status"), registry=self.registry)
        self.latency = Histogram(
            "dualtoken_request_seconds",
            "From a request to the last byte of its answer.",
            ("route",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.batch_rows = Histogram(
            "dualtoken_batch_rows",
            "Answers or drawings made together.",
            ("kind",),
            buckets=ROWS,
            registry=self.registry,
        )
        self.tokens = Counter("dualtoken_answer_tokens", "Tokens of text answered.", registry=self.registry)
        self.images = Counter("dualtoken_images", "Pictures drawn.", registry=self.registry)
        self.queue = Gauge("dualtoken_queue_length", "Requests that wait for the model.", registry=self.registry)

    def observe_batch(self, kind: str, rows: int) -> None:
        self.batch_rows.labels(kind).observe(rows)

    def text(self) -> bytes:
        return generate_latest(self.registry)
