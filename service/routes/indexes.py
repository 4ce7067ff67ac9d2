"""GET /v1/indexes…: what can be searched, and one stored passage."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request

from drdecr.collections.directory import DataDirectory
from service.engine import Engine, ServedIndex
from service.problems import Problem, documented
from service.schemas_state import IndexBody, IndexList, PassageBody, StoredIndexBody, VersionBody
from service.state import ServiceDependency

router = APIRouter(tags=["indexes"])


@router.get("/v1/indexes", responses=documented(401, 500, 503), summary="List the indexes")
async def list_indexes(service: ServiceDependency) -> IndexList:
    engine = service.engine
    found = [describe(engine, index) for index in engine.indexes.values() if index.version is None]
    if service.data is not None:
        directory, reserved = service.data.directory, service.data.reserved
        names = [name for name in await asyncio.to_thread(directory.indexes) if name not in reserved]
        found += await asyncio.gather(
            *(asyncio.to_thread(describe_stored, engine, directory, name) for name in names)
        )
    return IndexList(indexes=found)


@router.get("/v1/indexes/{name}", responses=documented(401, 404, 422, 500, 503), summary="Describe an index")
async def get_index(name: str, service: ServiceDependency) -> IndexBody:
    engine = service.engine
    if service.data is not None and name not in service.data.reserved:
        stored = await asyncio.to_thread(service.data.directory.indexes)
        if name in stored:
            return await asyncio.to_thread(describe_stored, engine, service.data.directory, name)
    return describe(engine, engine.index(name))


@router.get(
    "/v1/indexes/{name}/passages/{id:path}",
    responses=documented(401, 404, 422, 429, 500, 503, 504),
    summary="Return a stored passage",
)
async def get_passage(name: str, id: str, request: Request, service: ServiceDependency) -> PassageBody:
    index = service.engine.index(name)
    async with service.admitted(request) as deadline:
        passage = await service.queue.run(deadline, index.snapshot.passage, id)
    if passage is None:
        raise Problem(404, "passage_not_found", f"Index {name!r} holds no passage {id[:64]!r}.")
    return PassageBody(id=passage.id, title=passage.title, text=passage.text, metadata=passage.metadata)


def describe(engine: Engine, index: ServedIndex) -> IndexBody:
    """Return what clients may know of an index."""
    return IndexBody(
        name=index.name,
        version=index.snapshot.version,
        passages=len(index.snapshot),
        student=engine.spec.name,
        dim=engine.spec.dim,
        sentence_dim=engine.spec.sentence_dim,
        number=None if index.version is None else index.version.target.number,
        alias_of=_aliased(index),
    )


def describe_stored(engine: Engine, directory: DataDirectory, name: str) -> IndexBody:
    """Return what clients may know of an index of the data directory, built or not."""
    record = directory.index(name)
    builds = [(number, directory.build_record(name, number)) for number in directory.versions(name)]
    stored = StoredIndexBody(
        created=record.created,
        bits=record.bits,
        dims=record.dims,
        pool=record.pool,
        versions=[
            VersionBody(number=number, **build.model_dump(include=set(VersionBody.model_fields)))
            for number, build in builds
            if build is not None
        ],
        aliases=[alias for alias, each in directory.aliases().items() if each.target.index == name],
    )
    served = engine.indexes.get(name)
    if served is not None:
        return describe(engine, served).model_copy(update={"stored": stored})
    spec = engine.spec
    return IndexBody(
        name=name,
        version=None,
        passages=0,
        student=spec.name,
        dim=spec.dim,
        sentence_dim=spec.sentence_dim,
        stored=stored,
    )


def _aliased(index: ServedIndex) -> str | None:
    if index.version is None or index.version.target.index == index.name:
        return None
    return index.version.target.index
