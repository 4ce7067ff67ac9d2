"""What the routes share: one object on the app, handed to them as a dependency."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from service.cursors import PinnedIndexes
from service.data import ServedData
from service.deadline import Deadline
from service.disconnects import noticing_departure
from service.engine import Engine
from service.metrics import Metrics
from service.problems import Problem
from service.query_cache import QueryCache
from service.query_encoding import QueryEncoding
from service.readiness import Readiness
from service.settings import Settings
from service.stopwatch import WATCH_KEY, Stopwatch
from service.tracing import Tracing
from service.work import WorkQueue


@dataclass(slots=True)
class Service:
    """The running service. `loaded` is None until the engine is warm, `data` where there is no data directory."""

    settings: Settings
    metrics: Metrics
    readiness: Readiness
    queue: WorkQueue
    pinned: PinnedIndexes
    tracing: Tracing
    data: ServedData | None = None
    loaded: Engine | None = field(default=None)
    encoding: QueryEncoding | None = field(default=None)

    @property
    def engine(self) -> Engine:
        """Return the engine. Raises: Problem 503 while it loads."""
        if self.loaded is None:
            waiting = ", ".join(check.name for check in self.readiness.checks if not check.ok)
            self.metrics.refused.labels("not_ready").inc()
            raise Problem(503, "not_ready", f"Still loading: {waiting}.", headers={"Retry-After": "1"})
        return self.loaded

    @property
    def queries(self) -> QueryEncoding:
        """Return what encodes queries; it is there as soon as the engine is."""
        assert self.encoding is not None
        return self.encoding

    def start(self, engine: Engine) -> None:
        """Answer with this engine from now on."""
        cache = QueryCache(self.settings.query_cache_bytes, self.metrics)
        self.encoding = QueryEncoding(
            engine.encoder,
            self.queue,
            cache,
            self.metrics,
            batch_tokens=self.settings.batch_tokens,
            linger_ms=self.settings.linger_ms,
        )
        self.loaded = engine

    def stopwatch(self, request: Request) -> Stopwatch:
        """Start the stopwatch of a request's work; traces and the log are told of it however the request ends."""
        watch = request.scope[WATCH_KEY] = Stopwatch()
        return watch

    @asynccontextmanager
    async def admitted(self, request: Request, timeout_ms: int | None = None) -> AsyncIterator[Deadline]:
        """Hold a place in the queue for a request until it is answered, late, or its client has gone.

        Raises: Problem 429 when there is no place.
        """
        deadline = Deadline(timeout_ms or self.settings.timeout_ms)
        async with self.queue.admission(), noticing_departure(request, deadline):
            yield deadline


async def _service(request: Request) -> Service:
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


async def _json_only(request: Request) -> None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Problem(415, "unsupported_media_type", "Send the body as Content-Type: application/json.")


async def _data(request: Request) -> ServedData:
    data = (await _service(request)).data
    if data is None:
        raise Problem(404, "no_data_directory", "This service serves fixed snapshots only; start it with --data.")
    return data


DataDependency = Annotated[ServedData, Depends(_data)]
ServiceDependency = Annotated[Service, Depends(_service)]
JsonOnly = Depends(_json_only)
