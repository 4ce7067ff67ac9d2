"""What the routes share: one object on the app, handed to them as a dependency."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from service.engine import Engine
from service.metrics import Metrics
from service.problems import Problem
from service.readiness import Readiness
from service.settings import Settings
from service.work import Deadline, WorkQueue


@dataclass(slots=True)
class Service:
    """The running service. `loaded` is None until the engine is warm."""

    settings: Settings
    metrics: Metrics
    readiness: Readiness
    queue: WorkQueue
    loaded: Engine | None = field(default=None)

    @property
    def engine(self) -> Engine:
        """Return the engine. Raises: Problem 503 while it loads."""
        if self.loaded is None:
            waiting = ", ".join(check.name for check in self.readiness.checks if not check.ok)
            self.metrics.refused.labels("not_ready").inc()
            raise Problem(503, "not_ready", f"Still loading: {waiting}.", headers={"Retry-After": "1"})
        return self.loaded

    def deadline(self, timeout_ms: int | None) -> Deadline:
        """Return the request's deadline, else the service's own."""
        return Deadline(timeout_ms or self.settings.timeout_ms)


async def _service(request: Request) -> Service:
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


async def _json_only(request: Request) -> None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Problem(415, "unsupported_media_type", "Send the body as Content-Type: application/json.")


ServiceDependency = Annotated[Service, Depends(_service)]
JsonOnly = Depends(_json_only)
