"""POST …/builds and /v1/jobs: builds that a worker runs, watched and cancelled from here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Annotated, ParamSpec, TypeVar

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse

from drdecr.collections.jobs import ENDED, Job, Jobs
from drdecr.errors import RecordCorruptError
from service.data import ServedData
from service.data_problems import as_problems, job_problems
from service.problems import Problem, documented
from service.schemas_data import BuildWish, JobBody, JobList
from service.state import DataDependency, JsonOnly, Service, ServiceDependency

router = APIRouter(tags=["jobs"])

_Result = TypeVar("_Result")
_Params = ParamSpec("_Params")
_LOOK_S = 0.5
_KEEP_ALIVE_LOOKS = 30
_MAX_WATCHERS = 64

Key = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        description="The same key for the same index starts one job, however often it is sent.",
    ),
]
LastEvent = Annotated[int | None, Header(ge=0, le=2**31, description="Go on after this event.")]


@router.post(
    "/v1/indexes/{name}/builds",
    status_code=202,
    dependencies=[JsonOnly],
    responses={
        202: {"headers": {"Location": {"description": "The job.", "schema": {"type": "string"}}}},
        **documented(400, 401, 404, 409, 413, 415, 422, 500, 503),
    },
    summary="Build the next version of an index from what is staged",
)
async def start_build(
    name: str, body: BuildWish, data: DataDependency, response: Response, idempotency_key: Key = None
) -> JobBody:
    with as_problems():
        record = await asyncio.to_thread(data.directory.index, name)
    jobs = await _jobs(data)
    job = await _ask(jobs.start_build, name, record.id, body.mode, idempotency_key)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return await asyncio.to_thread(_body, data, job)


@router.get("/v1/jobs", responses=documented(401, 404, 422, 500, 503), summary="List the jobs, the newest first")
async def list_jobs(
    data: DataDependency,
    index: Annotated[str | None, Query(max_length=64, description="Only those of this index.")] = None,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
    offset: Annotated[int, Query(ge=0, le=1_000_000_000)] = 0,
) -> JobList:
    jobs = await _jobs(data)
    found = await _ask(lambda: jobs.jobs(index=index, limit=limit, offset=offset))
    return JobList(jobs=await asyncio.to_thread(lambda: [_body(data, job) for job in found]))


@router.get("/v1/jobs/{id}", responses=documented(401, 404, 422, 500, 503), summary="Tell how far a job is")
async def get_job(id: str, data: DataDependency) -> JobBody:
    jobs = await _jobs(data)
    job = await _ask(jobs.job, id)
    events = await _ask(jobs.events, id)
    body = await asyncio.to_thread(_body, data, job)
    return body.model_copy(update={"progress": events[-1] if events else None})


@router.delete(
    "/v1/jobs/{id}",
    status_code=202,
    responses=documented(401, 404, 409, 422, 500, 503),
    summary="Cancel a job; what it has built so far is dropped",
)
async def cancel_job(id: str, data: DataDependency) -> JobBody:
    jobs = await _jobs(data)
    job = await _ask(jobs.cancel, id)
    return await asyncio.to_thread(_body, data, job)


@router.get(
    "/v1/jobs/{id}/events",
    response_class=Response,
    responses={
        200: {
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
            "description": "`progress` events, numbered; a `state` event, a job, at each change; ends with the job.",
        },
        **documented(401, 404, 422, 429, 500, 503),
    },
    summary="Follow a job (server-sent events)",
)
async def follow_job(
    id: str, service: ServiceDependency, data: DataDependency, last_event_id: LastEvent = None
) -> StreamingResponse:
    jobs = await _jobs(data)
    await _ask(jobs.job, id)
    if data.watchers >= _MAX_WATCHERS:
        raise Problem(
            429, "too_many_watchers", f"{data.watchers} clients follow jobs already.", headers={"Retry-After": "5"}
        )
    start = 0 if last_event_id is None else last_event_id + 1
    return StreamingResponse(_follow(service, data, jobs, id, start), media_type="text/event-stream")


async def _follow(service: Service, data: ServedData, jobs: Jobs, job_id: str, offset: int) -> AsyncIterator[str]:
    data.watchers += 1
    try:
        state = ""
        looks = 0
        while not service.readiness.draining:
            # The job first: what it has reported by its end is then among the events.
            job = await _ask(jobs.job, job_id)
            for event in await _ask(jobs.events, job_id, offset):
                yield f"id: {offset}\nevent: progress\ndata: {event.model_dump_json()}\n\n"
                offset += 1
            if job.state != state:
                state = job.state
                body = await asyncio.to_thread(_body, data, job)
                yield f"event: state\ndata: {body.model_dump_json()}\n\n"
            if job.state in ENDED:
                return
            looks += 1
            if looks % _KEEP_ALIVE_LOOKS == 0:
                yield ": still here\n\n"
            await asyncio.sleep(_LOOK_S)
    finally:
        data.watchers -= 1


async def _jobs(data: ServedData) -> Jobs:
    with job_problems():
        return await asyncio.to_thread(data.jobs)


async def _ask(method: Callable[_Params, _Result], *args: _Params.args, **kwargs: _Params.kwargs) -> _Result:
    with job_problems():
        return await asyncio.to_thread(method, *args, **kwargs)


def _body(data: ServedData, job: Job) -> JobBody:
    found = job.model_dump()
    if job.state == "cancelled":
        # A damaged record of a version does not say which job built it.
        with suppress(RecordCorruptError):
            number = data.directory.version_of(job.index, job.id)
            if number is not None:
                # It was cancelled in the moment in which it had published.
                found |= {"state": "succeeded", "number": number}
    return JobBody(**found)
