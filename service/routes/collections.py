"""POST /v1/indexes and DELETE /v1/indexes/{name}: indexes of the data directory come and go."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from fastapi import APIRouter, Response

from drdecr.collections.archives import sweep_archives
from drdecr.index.reduction import reduction_of
from service.data_problems import as_problems
from service.problems import documented
from service.routes.indexes import describe_stored
from service.schemas_data import IndexWish
from service.schemas_state import IndexBody
from service.state import DataDependency, JsonOnly, ServiceDependency

router = APIRouter(tags=["indexes"])


@router.post(
    "/v1/indexes",
    status_code=201,
    dependencies=[JsonOnly],
    responses=documented(400, 401, 404, 409, 413, 415, 422, 500, 503, 507),
    summary="Make an index",
)
async def create_index(
    body: IndexWish, service: ServiceDependency, data: DataDependency, response: Response
) -> IndexBody:
    engine = service.engine
    with as_problems():
        reduction_of(body.dims, body.pool, engine.spec.dim, engine.spec.name)
        record = await asyncio.to_thread(
            data.directory.create_index,
            body.name,
            bits=body.bits,
            dims=body.dims,
            pool=body.pool,
            reserved=data.reserved,
        )
        await data.try_follow(service)
        response.headers["Location"] = f"/v1/indexes/{body.name}"
        # Not read again: it may have been dropped meanwhile.
        return await asyncio.to_thread(describe_stored, engine, data.directory, body.name, record)


@router.delete(
    "/v1/indexes/{name}",
    status_code=204,
    responses=documented(401, 404, 409, 422, 500, 503),
    summary="Drop an index and all its versions",
)
async def delete_index(name: str, service: ServiceDependency, data: DataDependency) -> None:
    with as_problems():
        await asyncio.to_thread(data.directory.delete_index, name)
    await data.try_follow(service)
    with suppress(OSError):
        await asyncio.to_thread(sweep_archives, data.directory, name)
