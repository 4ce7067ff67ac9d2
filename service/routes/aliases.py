"""…/v1/aliases: the names that clients search, and the atomic switch of what they point at."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Header, Response

from drdecr.collections.records import AliasRecord
from service.data_problems import as_problems, condition, quoted
from service.engine import Engine
from service.problems import documented
from service.schemas_data import AliasBody, AliasList, AliasWish, TargetBody
from service.state import DataDependency, JsonOnly, ServiceDependency

router = APIRouter(tags=["aliases"])

IfMatch = Annotated[str | None, Header(description="Go on only where the alias has this ETag; `*`: any.")]
IfNoneMatch = Annotated[str | None, Header(description="`*`: go on only where there is no such alias.")]
_ETAG = {"ETag": {"description": "Changes with the alias; send it back as If-Match.", "schema": {"type": "string"}}}


@router.get("/v1/aliases", responses=documented(401, 404, 500, 503), summary="List the aliases")
async def list_aliases(service: ServiceDependency, data: DataDependency) -> AliasList:
    engine = service.engine
    with as_problems():
        records = await asyncio.to_thread(data.directory.aliases)
    return AliasList(aliases=[_body(engine, alias, record) for alias, record in records.items()])


@router.get(
    "/v1/aliases/{alias}",
    responses={200: {"headers": _ETAG}, **documented(401, 404, 422, 500, 503)},
    summary="Tell what an alias points at",
)
async def get_alias(alias: str, service: ServiceDependency, data: DataDependency, response: Response) -> AliasBody:
    with as_problems():
        record = await asyncio.to_thread(data.directory.alias, alias)
    response.headers["ETag"] = quoted(record.etag)
    return _body(service.engine, alias, record)


@router.put(
    "/v1/aliases/{alias}",
    dependencies=[JsonOnly],
    responses={200: {"headers": _ETAG}, **documented(400, 401, 404, 409, 412, 413, 415, 422, 500, 503, 507)},
    summary="Point an alias at a version, in one step",
)
async def put_alias(
    alias: str,
    body: AliasWish,
    service: ServiceDependency,
    data: DataDependency,
    response: Response,
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
) -> AliasBody:
    with as_problems():
        target = await asyncio.to_thread(data.directory.target, body.index, body.number)
        # Held until it serves, so that no request waits for it to be read and warmed up.
        version = await data.prepare(target, service.engine.encoder)
        record = await asyncio.to_thread(
            data.directory.switch_alias,
            alias,
            target,
            allowed=condition(if_match, if_none_match),
            reserved=data.reserved,
        )
    followed = await data.try_follow(service)
    response.headers["ETag"] = quoted(record.etag)
    found = _body(service.engine, alias, record)
    return found.model_copy(update={"index_version": version.snapshot.version}) if followed else found


@router.delete(
    "/v1/aliases/{alias}",
    status_code=204,
    responses=documented(401, 404, 412, 422, 500, 503),
    summary="Drop an alias; what it pointed at stays",
)
async def delete_alias(
    alias: str, service: ServiceDependency, data: DataDependency, if_match: IfMatch = None
) -> None:
    with as_problems():
        await asyncio.to_thread(data.directory.delete_alias, alias, allowed=condition(if_match))
    await data.try_follow(service)


def _body(engine: Engine, alias: str, record: AliasRecord) -> AliasBody:
    served = engine.indexes.get(alias)
    fits = served is not None and served.version is not None and served.version.target == record.target
    previous = record.previous
    return AliasBody(
        alias=alias,
        index=record.target.index,
        number=record.target.number,
        index_version=served.snapshot.version if served is not None and fits else None,
        previous=None if previous is None else TargetBody(index=previous.index, number=previous.number),
        changed=record.changed,
    )
