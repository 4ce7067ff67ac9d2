"""OpenTelemetry traces, where a collector is named: a span a request, and below it one a stage.

A stage of which a request has several parts, as a batch has, spans all of them; `drdecr.stage_ms` is their sum.

A `traceparent` of the request is continued. Without a collector nothing is imported and nothing is recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from drdecr import __version__
from drdecr.errors import UsageError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

    from service.stopwatch import Stopwatch

SPAN_KEY = "drdecr.span"
"""Where the request's span stands in its ASGI scope."""


class Tracing(Protocol):
    """What the service tells of each request."""

    def begin(self, method: str, headers: Mapping[str, str]) -> Any:
        """Open the span of a request."""

    def stages(self, span: Any, watch: Stopwatch) -> None:
        """Record the stages of its work."""

    def end(self, span: Any, attributes: Mapping[str, str | int]) -> None:
        """Close it; the attributes hold `http.route` and `http.response.status_code`."""

    def close(self) -> None:
        """Send what is not sent yet."""


class NoTracing:
    """Records nothing."""

    def begin(self, method: str, headers: Mapping[str, str]) -> None:
        return None

    def stages(self, span: Any, watch: Stopwatch) -> None:
        return None

    def end(self, span: Any, attributes: Mapping[str, str | int]) -> None:
        return None

    def close(self) -> None:
        return None


class OtelTracing:
    """Sends spans to an exporter, in batches and from a thread of its own."""

    def __init__(self, exporter: SpanExporter) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        resource = Resource.create({"service.name": "drdecr", "service.version": __version__})
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("drdecr.service", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, method: str, headers: Mapping[str, str]) -> Any:
        from opentelemetry.trace import SpanKind

        return self._tracer.start_span(method, self._propagator.extract(dict(headers)), SpanKind.SERVER)

    def stages(self, span: Any, watch: Stopwatch) -> None:
        from opentelemetry.trace import set_span_in_context

        context = set_span_in_context(span)
        for stage, (began_ns, ended_ns) in dict(watch.periods).items():
            attributes = {"drdecr.stage_ms": watch.stages[stage]}
            self._tracer.start_span(stage, context, attributes=attributes, start_time=began_ns).end(ended_ns)

    def end(self, span: Any, attributes: Mapping[str, str | int]) -> None:
        from opentelemetry.trace import StatusCode

        span.update_name(f"{attributes['http.request.method']} {attributes['http.route']}")
        span.set_attributes(attributes)
        if int(attributes["http.response.status_code"]) >= 500:
            span.set_status(StatusCode.ERROR)
        span.end()

    def close(self) -> None:
        self._provider.shutdown()


def make_tracing(endpoint: str | None) -> Tracing:
    """Return what sends to an OTLP endpoint over HTTP, such as http://collector:4318/v1/traces.

    Raises: UsageError where the packages are missing.
    """
    if endpoint is None:
        return NoTracing()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise UsageError("traces need OpenTelemetry: pip install 'drdecr[otel]'") from None
    return OtelTracing(OTLPSpanExporter(endpoint))
