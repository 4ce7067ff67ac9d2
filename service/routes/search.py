"""POST …/search and POST /v1/search/batch."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from fastapi import APIRouter, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException

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
from service.searching import Answer, Wish, search
from service.state import JsonOnly, Service, ServiceDependency
from service.stopwatch import Stopwatch
from service.texts import checked
from service.work import Deadline

router = APIRouter(tags=["search"])

_BATCH_PIECE = 32
"""Queries encoded together; between two pieces other requests get their turn."""


@router.post(
    "/v1/indexes/{alias}/search",
    response_model=SearchResponse,
    dependencies=[JsonOnly],
    responses=documented(400, 401, 404, 413, 415, 422, 429, 500, 503, 504),
    summary="Find passages by a query in any language",
)
async def search_index(alias: str, body: SearchRequest, service: ServiceDependency) -> Response:
    watch = Stopwatch()
    deadline = service.deadline(body.timeout_ms)
    engine = service.engine
    index = engine.index(alias)
    wish = _wish(service, body)

    def work() -> Response:
        watch.add("queue", watch.elapsed_ms())
        (answer,) = search(engine.encoder, index, [wish], deadline, watch)
        took_ms = watch.took_ms()
        return json_response(
            SearchResponse(
                hits=answer.hits,
                took_ms=took_ms,
                index=index.name,
                index_version=index.snapshot.version,
                warnings=answer.warnings,
            )
        )

    async with service.queue.admission():
        response = await service.queue.run(deadline, work)
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
async def search_batch(body: BatchRequest, service: ServiceDependency) -> Response:
    watch = Stopwatch()
    deadline = service.deadline(body.timeout_ms)
    engine = service.engine
    results: list[BatchResult | None] = [None] * len(body.queries)
    groups: dict[Any, list[tuple[int, ServedIndex, Wish]]] = defaultdict(list)
    for number, item in enumerate(body.queries):
        try:
            index, wish = _item(service, engine, item, body.index)
        except HTTPException as error:
            results[number] = _failed(error)
        else:
            groups[(index.name, wish.group)].append((number, index, wish))
    if sum(wish.k for group in groups.values() for _, _, wish in group) > MAX_BATCH_HITS:
        raise Problem(422, "invalid_request", f"/queries: all k together are at most {MAX_BATCH_HITS}; send fewer.")
    async with service.queue.admission():
        for group in groups.values():
            for start in range(0, len(group), _BATCH_PIECE):
                piece = group[start : start + _BATCH_PIECE]
                answered = await _piece(service, engine, piece, deadline, watch)
                for (number, index, _), result in zip(piece, answered, strict=True):
                    results[number] = result
                    service.metrics.queries.labels(index.name).inc(result.status == 200)
        service.metrics.observe_stages(watch.stages)
        answer = BatchResponse(results=[result for result in results if result], took_ms=watch.took_ms())
        return await service.queue.run(service.deadline(None), json_response, answer)


async def _piece(
    service: Service,
    engine: Engine,
    piece: list[tuple[int, ServedIndex, Wish]],
    deadline: Deadline,
    watch: Stopwatch,
) -> list[BatchResult]:
    """Answer some queries that share index, k, params and filter; what fails them all is each one's error."""
    index = piece[0][1]
    try:
        answers = await service.queue.run(
            deadline, search, engine.encoder, index, [wish for _, _, wish in piece], deadline, watch
        )
    except HTTPException as error:
        return [_failed(error)] * len(piece)
    return [_found(index, answer) for answer in answers]


def _item(service: Service, engine: Engine, item: object, default: str | None) -> tuple[ServedIndex, Wish]:
    try:
        query = BatchQuery.model_validate(item)
    except ValidationError as problem:
        raise from_validation(problem.errors(include_url=False, include_input=False)) from None
    name = query.index or default
    if name is None:
        raise Problem(422, "invalid_request", "/index: name an index, in the query or for the whole batch.")
    return engine.index(name), _wish(service, query)


def _wish(service: Service, body: SearchRequest | BatchQuery) -> Wish:
    wish = Wish(
        query=checked(body.query, "/query", service.settings.max_query_chars),
        k=body.k,
        highlight=body.highlight,
        explain=body.explain,
        params=body.params,
        filter=body.filter,
    )
    wish.check()
    return wish


def _found(index: ServedIndex, answer: Answer) -> BatchResult:
    return BatchResult(
        status=200,
        hits=answer.hits,
        index=index.name,
        index_version=index.snapshot.version,
        warnings=answer.warnings,
    )


def _failed(error: HTTPException) -> BatchResult:
    problem = from_http_exception(error)
    return BatchResult(status=problem.status_code, error=problem.body())
