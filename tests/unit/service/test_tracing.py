"""Traces, held in memory and sent to a collector."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from fake_engine import fake_engine
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.testclient import TestClient

from drdecr.errors import UsageError
from service.app import create_server
from service.settings import Settings
from service.tracing import OtelTracing, make_tracing

SEARCH = "/v1/indexes/demo/search"
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def search_traced(**options) -> None:
    settings = {name: options.pop(name) for name in ("otlp_endpoint",) if name in options}
    app = create_server(
        Settings(student="student", index="demo=snapshot", **settings), load=lambda *_: fake_engine(), **options
    )
    with TestClient(app) as client:
        while client.post(SEARCH, json={"query": "cat"}, headers={"traceparent": PARENT}).status_code != 200:
            pass
        client.post(SEARCH, json={"query": ""})


def test_a_request_continues_its_callers_trace_and_has_a_span_for_each_stage():
    exporter = InMemorySpanExporter()
    search_traced(tracing=OtelTracing(exporter))
    spans = exporter.get_finished_spans()
    requests = [span for span in spans if span.name == "POST /v1/indexes/{alias}/search"]
    found, wrong = requests[-2:]
    assert f"{found.context.trace_id:032x}" == PARENT.split("-")[1]
    assert f"{found.parent.span_id:016x}" == PARENT.split("-")[2]
    assert found.attributes["http.response.status_code"] == 200
    assert wrong.attributes["http.response.status_code"] == 422
    assert wrong.context.trace_id != found.context.trace_id
    stages = [span for span in spans if span.parent and span.parent.span_id == found.context.span_id]
    assert {span.name for span in stages} >= {"queue", "tokenise", "encode", "search", "fetch"}
    # Clocks differ by less than a few milliseconds.
    assert all(found.start_time - 5e6 <= span.start_time <= span.end_time <= found.end_time + 5e6 for span in stages)


def test_a_batch_has_one_span_a_stage_with_the_sum_of_its_questions():
    exporter = InMemorySpanExporter()
    app = create_server(
        Settings(student="student", index="demo=snapshot"),
        load=lambda *_: fake_engine(),
        tracing=OtelTracing(exporter),
    )
    body = {"index": "demo", "queries": [{"query": word, "highlight": True} for word in ("cat", "dog", "red cat")]}
    with TestClient(app) as client:
        while (answer := client.post("/v1/search/batch", json=body)).status_code != 200:
            pass
    spans = exporter.get_finished_spans()
    batch = [span for span in spans if span.name == "POST /v1/search/batch"][-1]
    stages = {span.name: span for span in spans if span.parent and span.parent.span_id == batch.context.span_id}
    assert len(stages) == sum(
        span.parent is not None and span.parent.span_id == batch.context.span_id for span in spans
    )
    assert stages.keys() >= {"search", "fetch", "explain"}
    for stage, span in stages.items():
        told = answer.json()["took_ms"].get(stage, span.attributes["drdecr.stage_ms"])
        assert span.attributes["drdecr.stage_ms"] == pytest.approx(told, abs=1e-3)
        assert batch.start_time - 5e6 <= span.start_time <= span.end_time <= batch.end_time + 5e6


def test_spans_reach_a_collector_before_the_service_stops():
    received: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        search_traced(otlp_endpoint=f"http://127.0.0.1:{server.server_port}/v1/traces")
        server.shutdown()
    assert b"/v1/indexes/{alias}/search" in b"".join(received)


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(UsageError, match=r"drdecr\[otel\]"):
        make_tracing("http://collector:4318/v1/traces")
