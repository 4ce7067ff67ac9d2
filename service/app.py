"""Makes the FastAPI app: `create_server(settings)`."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import structlog
from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from drdecr import __version__
from service.cursors import PinnedIndexes
from service.data import ServedData
from service.deadline import Deadline
from service.engine import EngineLoader, expected_checks, load_engine
from service.following import follow
from service.gate import OPEN_PATHS, Gate
from service.key_ring import KeyRing
from service.memory import give_back_start
from service.metrics import Metrics
from service.problems import MEDIA_TYPE, Problem, ProblemBody, from_http_exception, from_validation
from service.readiness import Readiness
from service.routes import aliases, collections, health, indexes, jobs, pages, search, snapshots, uploads, vectors
from service.schemas import BatchQuery
from service.scopes import require_for_route
from service.searching import warm_up
from service.settings import Settings
from service.state import Service
from service.threads import run_apart
from service.tracing import Tracing, make_tracing
from service.work import WorkQueue

log = structlog.get_logger("service.app")

_REF = "#/components/schemas/{model}"
_STOP_S = 1.0
"""How long a stopping service waits for what loads, and then for what is worked on, before it leaves them behind."""


def create_server(
    settings: Settings,
    *,
    load: EngineLoader = load_engine,
    on_failure: Callable[[Exception], None] | None = None,
    tracing: Tracing | None = None,
) -> FastAPI:
    """Make the app. Its lifespan loads the engine in the background, so that `/livez` answers at once.

    `load` makes the engine (a fake in tests); `on_failure` gets the error of a load that failed;
    `tracing` is told of requests instead of the collector that the settings name.
    """
    metrics = Metrics()
    readiness = Readiness()
    readiness.expect(*expected_checks(settings))
    tracing = tracing or make_tracing(settings.otlp_endpoint)
    queue = WorkQueue(settings.workers, settings.queue_depth, metrics)
    data = None if settings.data is None else ServedData(settings)
    service = Service(settings, metrics, readiness, queue, PinnedIndexes(settings.cursor_keep_s), tracing, data)
    stopping = asyncio.Event()

    async def load_in_background() -> None:
        try:
            engine = await run_apart(load, settings, readiness)
            # Once the way that requests go, so that the first one pays for no thread and no import.
            warm_ups = [queue.run(Deadline(60_000), warm_up, engine) for _ in range(settings.workers)]
            await asyncio.gather(*warm_ups)
            if service.data is not None:
                engine = await service.data.opened(engine)
                readiness.update("data", service.data.summary(engine), ok=True)
            if stopping.is_set() or readiness.draining:
                return
            service.start(engine)
        except Exception as error:
            for check in readiness.checks:
                if not check.ok:
                    readiness.update(check.name, "failed to load")
            if on_failure is None:
                log.exception("load failed")
            else:
                on_failure(error)
        else:
            # What was loaded stays: the collector need not look through it again while requests wait.
            give_back_start()
            gc.freeze()
            readiness.open()
            versions = {name: index.snapshot.version for name, index in engine.indexes.items()}
            log.info("ready", indexes=versions)
            # While this follows, the first generation may be replaced and must be let go.
            del engine, warm_ups
            if settings.follow_s:
                await follow(service, stopping)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(load_in_background())
        yield
        stopping.set()
        # What loads only reads, and nothing answers from it any more.
        await asyncio.wait({loading}, timeout=_STOP_S)
        if loading.cancel():
            await asyncio.wait({loading})
        else:
            loading.result()
        await asyncio.to_thread(queue.close, _STOP_S)
        await asyncio.to_thread(tracing.close)
        if data is not None:
            await asyncio.to_thread(data.close)

    app = FastAPI(title="DR.DECR", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service = service
    for routes in (search, vectors, indexes, collections, aliases, uploads, jobs, snapshots, health, pages):
        app.include_router(routes.router, dependencies=[Depends(require_for_route)])
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(RequestValidationError, _validation_problem)
    app.add_middleware(
        Gate,
        keys=KeyRing(settings.api_key_hashes, settings.key_file),
        key_rate=settings.key_rate,
        max_body_bytes=settings.max_body_bytes,
        max_upload_bytes=settings.max_upload_bytes,
        slow_ms=settings.slow_ms,
        metrics=metrics,
        readiness=readiness,
        tracing=tracing,
    )
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-Request-ID"],
            expose_headers=["X-Request-ID", "Retry-After"],
        )
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _respond(request, from_http_exception(error))


async def _validation_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _respond(request, from_validation(error.errors()))


def _respond(request: Request, problem: Problem) -> Response:
    body = problem.to_bytes(request.scope["request_id"])
    return Response(body, problem.status_code, headers=problem.headers, media_type=MEDIA_TYPE)


def _openapi(app: FastAPI) -> dict[str, Any]:
    """Return the document, with the schemas that routes name by reference and the key where it is asked for."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description="Cross-lingual passage retrieval: queries in any language, passages in English.",
            license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
            routes=app.routes,
        )
        _, schemas = models_json_schema(
            [(ProblemBody, "serialization"), (BatchQuery, "validation")], ref_template=_REF
        )
        document["components"]["schemas"] |= schemas["$defs"]
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, operations in document["paths"].items():
            for operation in operations.values():
                operation["security"] = [] if path in OPEN_PATHS else [{"key": []}, {}]
        app.openapi_schema = document
    return app.openapi_schema
