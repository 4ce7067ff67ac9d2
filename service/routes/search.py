"""POST …/search and POST /v1/search/batch."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog
from fastapi import APIRouter, Request, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from drdecr.encoder.types import Encoded
from service.cursors import Cursor
from service.deadline import ClientGoneError, Deadline
from service.engine import Engine, ServedIndex
from service.problems import Problem, documented, from_http_exception, from_validation
from service.responses import json_response
from service.schemas import (
    MAX_BATCH_HITS,
    BatchQuery,
    BatchRequest,
    BatchResponse,
    BatchResult,
    SearchRequest,
    SearchResponse,
)
from service.searching import Wish, answer
from service.state import JsonOnly, Service, ServiceDependency
from service.stopwatch import Stopwatch
from service.texts import checked

router = APIRouter(tags=["search"])
log = structlog.get_logger("service.search")

_TOGETHER = 8
"""Queries of one batch that are at work or wait at once; the queries of other requests come in between."""


@router.post(
    "/v1/indexes/{alias}/search",
    response_model=SearchResponse,
    dependencies=[JsonOnly],
    responses=documented(400, 401, 404, 410, 413, 415, 422, 429, 500, 503, 504),
    summary="Find passages by a query in any language",
)
async def search_index(alias: str, body: SearchRequest, request: Request, service: ServiceDependency) -> Response:
    watch = service.stopwatch(request)
    engine = service.engine
    index = engine.index(alias)
    cursor = None if body.cursor is None else Cursor.parse(body.cursor)
    wish = _wish(service, body, cursor)
    if cursor is not None:
        index = service.pinned.find(alias, index, cursor.version)

    def work(query: Encoded) -> tuple[Response, bool]:
        found = answer(engine.encoder, index, wish, query, deadline, watch)
        response = json_response(
            SearchResponse(
                hits=found.hits,
                took_ms=watch.took_ms(),
                index=index.name,
                index_version=index.snapshot.version,
                next_cursor=None if found.next_cursor is None else str(found.next_cursor),
                partial=found.partial,
                missing_shards=list(found.missing),
                warnings=found.warnings,
            )
        )
        return response, found.next_cursor is not None

    async with service.admitted(request, body.timeout_ms) as deadline:
        response, more = await service.queries.run(wish.query, deadline, watch, work)
    if more:
        service.pinned.pin(alias, index)
    service.metrics.queries.labels(index.name).inc()
    service.metrics.observe_stages(watch.stages)
    return response


@router.post(
    "/v1/search/batch",
    response_model=BatchResponse,
    dependencies=[JsonOnly],
    responses=documented(400, 401, 413, 415, 422, 429, 500, 503, 504),
    summary="Answer many queries; a wrong one fails alone",
)
async def search_batch(body: BatchRequest, request: Request, service: ServiceDependency) -> Response:
    watch = service.stopwatch(request)
    engine = service.engine
    results: list[BatchResult | None] = [None] * len(body.queries)
    wanted: list[tuple[int, ServedIndex, Wish]] = []
    for number, item in enumerate(body.queries):
        # Large filters take their time, and others are to be answered meanwhile.
        await asyncio.sleep(0)
        try:
            wanted.append((number, *_item(service, engine, item, body.index)))
        except HTTPException as error:
            results[number] = _failed(error)
    if sum(wish.k for _, _, wish in wanted) > MAX_BATCH_HITS:
        raise Problem(422, "invalid_request", f"/queries: all k together are at most {MAX_BATCH_HITS}; send fewer.")
    waiting = iter(wanted)

    async def answer_waiting() -> None:
        with suppress(ClientGoneError):
            for number, index, wish in waiting:
                results[number] = await _answer_item(service, engine, index, wish, deadline, watch)

    async with service.admitted(request, body.timeout_ms) as deadline:
        async with asyncio.TaskGroup() as together:
            for _ in range(_TOGETHER):
                together.create_task(answer_waiting())
        done = [result for result in results if result is not None]
        late = any(result.status == 504 for result in done)
        response = BatchResponse(results=done, took_ms=watch.took_ms(), partial=late)
        return await service.queue.run(deadline.extended(), json_response, response)


async def _answer_item(
    service: Service, engine: Engine, index: ServedIndex, wish: Wish, deadline: Deadline, watch: Stopwatch
) -> BatchResult:
    """Answer one question of a batch as a request of its own would be; its place in the queue is the batch's."""
    own = Stopwatch()
    try:
        found = await service.queries.run(
            wish.query,
            deadline,
            own,
            lambda query: answer(engine.encoder, index, wish, query, deadline, own),
        )
    except HTTPException as error:
        return _failed(error)
    except ClientGoneError:
        raise
    except Exception:
        log.exception("defect", index=index.name)
        return _failed(Problem(500, "internal_error", "The service failed; its log names the cause."))
    finally:
        service.metrics.observe_stages(own.stages)
        watch.include(own)
    service.metrics.queries.labels(index.name).inc()
    return BatchResult(
        status=200,
        hits=found.hits,
        index=index.name,
        index_version=index.snapshot.version,
        partial=found.partial,
        missing_shards=list(found.missing),
        warnings=found.warnings,
    )


def _item(service: Service, engine: Engine, item: object, default: str | None) -> tuple[ServedIndex, Wish]:
    try:
        query = BatchQuery.model_validate(item)
    except ValidationError as problem:
        errors = problem.errors(include_url=False, include_input=False)
        raise from_validation([{**error, "loc": ("body", *error["loc"])} for error in errors]) from None
    name = query.index or default
    if name is None:
        raise Problem(422, "invalid_request", "/index: name an index, in the query or for the whole batch.")
    return engine.index(name), _wish(service, query)


def _wish(service: Service, body: SearchRequest | BatchQuery, cursor: Cursor | None = None) -> Wish:
    wish = Wish(
        query=checked(body.query, "/query", service.settings.max_query_chars),
        k=body.k,
        highlight=body.highlight,
        explain=body.explain,
        params=body.params,
        filter=body.filter,
        snippet=body.snippet,
        cursor=cursor,
        complete=body.complete,
    )
    wish.check()
    return wish


def _failed(error: HTTPException) -> BatchResult:
    problem = from_http_exception(error)
    return BatchResult(status=problem.status_code, error=problem.body())
