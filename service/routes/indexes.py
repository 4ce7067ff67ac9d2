"""GET /v1/indexes…: what can be searched, and one stored passage."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog
from fastapi import APIRouter, Request

from drdecr.collections.directory import DataDirectory
from drdecr.collections.records import IndexRecord
from drdecr.errors import RecordCorruptError, UnknownNameError
from service.data_problems import as_problems
from service.engine import Engine, ServedIndex
from service.problems import Problem, documented
from service.schemas_state import IndexBody, IndexList, PassageBody, StoredIndexBody, VersionBody
from service.state import ServiceDependency

log = structlog.get_logger("service.routes")
router = APIRouter(tags=["indexes"])


@router.get("/v1/indexes", responses=documented(401, 500, 503), summary="List the indexes")
async def list_indexes(service: ServiceDependency) -> IndexList:
    engine = service.engine
    found = [describe(engine, index) for index in engine.indexes.values() if index.version is None]
    if service.data is not None:
        directory, reserved = service.data.directory, service.data.reserved
        with as_problems():
            names = [name for name in await asyncio.to_thread(directory.index_names) if name not in reserved]
            stored = await asyncio.gather(*(asyncio.to_thread(_listed, engine, directory, name) for name in names))
        found += [index for index in stored if index is not None]
    return IndexList(indexes=found)


@router.get("/v1/indexes/{name}", responses=documented(401, 404, 422, 500, 503), summary="Describe an index")
async def get_index(name: str, service: ServiceDependency) -> IndexBody:
    engine = service.engine
    if service.data is not None and name not in service.data.reserved:
        directory = service.data.directory
        with as_problems(), suppress(UnknownNameError):
            if name in await asyncio.to_thread(directory.index_names):
                return await asyncio.to_thread(describe_stored, engine, directory, name)
    return describe(engine, engine.index(name))


@router.get(
    "/v1/indexes/{name}/passages/{id:path}",
    responses=documented(401, 404, 422, 429, 500, 503, 504),
    summary="Return a stored passage",
)
async def get_passage(name: str, id: str, request: Request, service: ServiceDependency) -> PassageBody:
    index = service.engine.index(name)
    async with service.admitted(request) as deadline:
        passage = await service.queue.run(deadline, lambda: index.snapshot.passage(id))
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


def describe_stored(
    engine: Engine, directory: DataDirectory, name: str, record: IndexRecord | None = None
) -> IndexBody:
    """Return what clients may know of an index of the data directory, built or not; its record is read unless given.

    Raises: UnknownNameError, RecordCorruptError.
    """
    record = record or directory.index(name)
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


def _listed(engine: Engine, directory: DataDirectory, name: str) -> IndexBody | None:
    """Describe an index in a list: one that is gone is left out, and of a damaged one what is stored."""
    try:
        return describe_stored(engine, directory, name)
    except UnknownNameError:
        return None
    except RecordCorruptError as damage:
        log.error("index listed without what is stored", index=name, error=str(damage))
        served = engine.indexes.get(name)
        return None if served is None else describe(engine, served)


def _aliased(index: ServedIndex) -> str | None:
    if index.version is None or index.version.target.index == index.name:
        return None
    return index.version.target.index
