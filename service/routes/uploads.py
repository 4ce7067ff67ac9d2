"""POST …/passages and POST …/deletions: newline-delimited JSON, staged on disk for the next build."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

from fastapi import APIRouter, Request
from starlette.requests import ClientDisconnect

from drdecr.collections.uploads import Parse, UploadWriter, parse_delete, parse_put
from service.data import ServedData
from service.data_problems import as_problems
from service.problems import FieldError, Problem, documented
from service.schemas_data import LineErrorBody, UploadBody
from service.state import DataDependency, ServiceDependency

router = APIRouter(tags=["indexes"])
_MEDIA_TYPES = ("application/x-ndjson", "application/ndjson", "application/jsonl")
_STATUSES = documented(400, 401, 404, 413, 415, 422, 500, 503, 507)


def _body(description: str, example: str) -> dict[str, object]:
    content = {_MEDIA_TYPES[0]: {"schema": {"type": "string", "description": description}, "example": example}}
    return {"requestBody": {"required": True, "content": content}}


@router.post(
    "/v1/indexes/{name}/passages",
    status_code=202,
    responses=_STATUSES,
    openapi_extra=_body(
        "One passage a line: `id`, `text`, optional `title` and `metadata`.", '{"id": "a", "text": "A cat sleeps."}\n'
    ),
    summary="Stage passages for the next build",
)
async def stage_passages(name: str, request: Request, _: ServiceDependency, data: DataDependency) -> UploadBody:
    return await _stage(name, request, data, parse_put)


@router.post(
    "/v1/indexes/{name}/deletions",
    status_code=202,
    responses=_STATUSES,
    openapi_extra=_body("One passage's `id` a line.", '{"id": "a"}\n'),
    summary="Stage deletions for the next build",
)
async def stage_deletions(name: str, request: Request, _: ServiceDependency, data: DataDependency) -> UploadBody:
    return await _stage(name, request, data, parse_delete)


async def _stage(name: str, request: Request, data: ServedData, parse: Parse) -> UploadBody:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in _MEDIA_TYPES or "content-encoding" in request.headers:
        raise Problem(
            415, "unsupported_media_type", f"Send the body as Content-Type: {_MEDIA_TYPES[0]}, not compressed."
        )
    with as_problems():
        writer = await asyncio.to_thread(UploadWriter, data.directory, name, parse)
        try:
            async for chunk in request.stream():
                await asyncio.to_thread(writer.feed, chunk)
            staged = await asyncio.to_thread(writer.finish)
        except ClientDisconnect:
            raise Problem(400, "upload_incomplete", "The body broke off; nothing of it is staged.") from None
        finally:
            await asyncio.to_thread(writer.close)
    if staged.number is None:
        errors = [FieldError(pointer=f"line {error.line}", message=error.message) for error in staged.errors]
        raise Problem(422, "invalid_request", "No line of the body can be staged.", errors=errors)
    return UploadBody(
        index=name,
        upload=staged.number,
        staged=staged.staged,
        rejected=staged.rejected,
        errors=[LineErrorBody(**asdict(error)) for error in staged.errors],
    )
