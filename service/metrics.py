"""Prometheus metrics, in a registry of the app's own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

_STAGE_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_REQUEST_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Everything that `GET /metrics` shows."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "drdecr_http_requests", "Requests answered.", ["method", "route", "status"], registry=self.registry
        )
        self.request_seconds = Histogram(
            "drdecr_http_request_seconds",
            "Time from the request's first byte read to its last byte written.",
            ["method", "route"],
            buckets=_REQUEST_BUCKETS_S,
            registry=self.registry,
        )
        self.in_flight = Gauge("drdecr_http_requests_in_flight", "Requests being answered.", registry=self.registry)
        self.stage_seconds = Histogram(
            "drdecr_stage_seconds",
            "Time that a question, or another piece of work, spent in one stage.",
            ["stage"],
            buckets=_STAGE_BUCKETS_S,
            registry=self.registry,
        )
        self.queries = Counter("drdecr_queries", "Queries searched.", ["index"], registry=self.registry)
        self.admitted = Gauge("drdecr_queue_admitted", "Requests waiting or at work.", registry=self.registry)
        self.refused = Counter("drdecr_refused", "Requests refused or given up.", ["reason"], registry=self.registry)
        self.encode_batch = Histogram(
            "drdecr_encode_batch_queries",
            "Queries of concurrent requests that were encoded together.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self.registry,
        )
        self.query_cache = Counter(
            "drdecr_query_cache", "Queries looked for among the encoded ones.", ["outcome"], registry=self.registry
        )
        self.query_cache_bytes = Gauge(
            "drdecr_query_cache_bytes", "What the encoded queries take that are kept.", registry=self.registry
        )
        self.ready = Gauge("drdecr_ready", "1 while /readyz answers 200.", registry=self.registry)
        self.switches = Counter(
            "drdecr_index_switches",
            "Newer generations of an index found, by whether they serve.",
            ["index", "outcome"],
            registry=self.registry,
        )
        self.jobs = Gauge(
            "drdecr_jobs",
            "Of the latest hundred builds, those in each state; none while their database is out of reach.",
            ["state"],
            registry=self.registry,
        )
        self.shard_calls = Gauge(
            "drdecr_shard_calls",
            "Questions to the shards of the version that is served, by what became of them.",
            ["index", "kind"],
            registry=self.registry,
        )
        self.passages = Gauge("drdecr_index_passages", "Passages of an index.", ["index"], registry=self.registry)

    def observe_stages(self, took_ms: dict[str, float]) -> None:
        """Record the stages of one piece of work, in milliseconds; it may still go on."""
        for stage, milliseconds in dict(took_ms).items():
            self.stage_seconds.labels(stage).observe(milliseconds / 1_000)
