"""What a monitor asks: alive, ready, metrics, and which model and indexes are served."""

from __future__ import annotations

import asyncio
import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import get_args

from fastapi import APIRouter, Response
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from drdecr import __version__
from drdecr.collections.jobs import State
from drdecr.errors import ResourceError
from service.data import ServedData
from service.engine import CountsCalls
from service.metrics import Metrics
from service.problems import documented
from service.routes.indexes import describe
from service.schemas_state import CheckBody, HealthBody, InfoBody, LiveBody, StudentBody
from service.state import ServiceDependency

router = APIRouter(tags=["operations"])
_JOBS_S = 2.0
"""A scrape waits no longer for the jobs' database."""
_RUNTIME_PACKAGES = ("faiss-cpu", "faiss-gpu", "fastapi", "numba", "numpy", "onnxruntime", "uvicorn")


@router.get("/livez", responses=documented(500), summary="Is the process alive?")
async def livez() -> LiveBody:
    return LiveBody()


@router.get(
    "/readyz", responses={503: {"model": HealthBody}, **documented(500)}, summary="Should requests be sent here?"
)
@router.get("/health", responses={503: {"model": HealthBody}, **documented(500)}, summary="The same as /readyz")
async def readyz(service: ServiceDependency, response: Response) -> HealthBody:
    ready = service.readiness.ready
    if not ready:
        response.status_code = 503
        response.headers["Retry-After"] = "1"
    checks = [CheckBody(**asdict(check)) for check in service.readiness.checks]
    return HealthBody(status="ready" if ready else "not_ready", checks=checks)


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {}}, "description": "Prometheus' text format."},
        **documented(401, 500),
    },
    summary="Prometheus metrics",
)
async def metrics(service: ServiceDependency) -> Response:
    service.metrics.ready.set(service.readiness.ready)
    if service.loaded is not None:
        # What is no longer served is no longer told.
        service.metrics.passages.clear()
        service.metrics.shard_calls.clear()
        for index in service.loaded.indexes.values():
            service.metrics.passages.labels(index.name).set(len(index.snapshot))
            if isinstance(index.snapshot, CountsCalls):
                for kind, count in index.snapshot.calls().items():
                    service.metrics.shard_calls.labels(index.name, kind).set(count)
    if service.data is not None:
        await _count_jobs(service.metrics, service.data)
    return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/info", responses=documented(401, 500, 503), summary="Model, indexes and build")
async def info(service: ServiceDependency) -> InfoBody:
    engine = service.engine
    return InfoBody(
        version=__version__,
        student=StudentBody(**asdict(engine.spec)),
        indexes=[describe(engine, index) for index in engine.indexes.values()],
        runtime={"python": platform.python_version(), **_installed()},
    )


async def _count_jobs(metrics: Metrics, data: ServedData) -> None:
    try:
        async with asyncio.timeout(_JOBS_S):
            states = await data.job_states()
    except (ResourceError, TimeoutError):
        metrics.jobs.clear()
        return
    for state in get_args(State):
        metrics.jobs.labels(state).set(states[state])


def _installed() -> dict[str, str]:
    found = {}
    for package in _RUNTIME_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
