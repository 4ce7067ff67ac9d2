"""GET /v1/indexes…: what can be searched, and one stored passage."""

from __future__ import annotations

from fastapi import APIRouter

from service.engine import Engine, ServedIndex
from service.problems import Problem, documented
from service.schemas import IndexBody, IndexList, PassageBody
from service.state import ServiceDependency

router = APIRouter(tags=["indexes"])


@router.get("/v1/indexes", responses=documented(401, 500, 503), summary="List the indexes")
async def list_indexes(service: ServiceDependency) -> IndexList:
    engine = service.engine
    return IndexList(indexes=[describe(engine, index) for index in engine.indexes.values()])


@router.get("/v1/indexes/{name}", responses=documented(401, 404, 422, 500, 503), summary="Describe an index")
async def get_index(name: str, service: ServiceDependency) -> IndexBody:
    engine = service.engine
    return describe(engine, engine.index(name))


@router.get(
    "/v1/indexes/{name}/passages/{id:path}",
    responses=documented(401, 404, 422, 429, 500, 503, 504),
    summary="Return a stored passage",
)
async def get_passage(name: str, id: str, service: ServiceDependency) -> PassageBody:
    index = service.engine.index(name)
    async with service.queue.admission():
        passage = await service.queue.run(service.deadline(None), index.snapshot.passage, id)
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
    )
