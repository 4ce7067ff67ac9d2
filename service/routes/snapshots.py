"""…/snapshots and …/restore: versions as checksummed archives that outlive their index."""

from __future__ import annotations

import asyncio
import base64

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse

from drdecr.collections import archives
from drdecr.index.compatibility import require_student
from drdecr.index.manifest import Manifest
from service.data_problems import as_problems
from service.problems import documented
from service.schemas_data import ArchiveBody, ArchiveList, ArchiveWish, RestoreWish, TargetBody
from service.state import DataDependency, JsonOnly, ServiceDependency

router = APIRouter(tags=["indexes"])


@router.get(
    "/v1/indexes/{name}/snapshots",
    responses=documented(401, 404, 422, 500, 503),
    summary="List the archives of an index, also of one that was dropped",
)
async def list_archives(name: str, data: DataDependency) -> ArchiveList:
    with as_problems():
        found = await asyncio.to_thread(archives.archives, data.directory, name)
    return ArchiveList(snapshots=[ArchiveBody(**record.model_dump()) for record in found])


@router.post(
    "/v1/indexes/{name}/snapshots",
    status_code=201,
    dependencies=[JsonOnly],
    responses=documented(400, 401, 404, 409, 413, 415, 422, 500, 503, 507),
    summary="Archive a version",
)
async def write_archive(name: str, body: ArchiveWish, data: DataDependency, response: Response) -> ArchiveBody:
    with as_problems():
        record = await asyncio.to_thread(archives.write_archive, data.directory, name, body.number)
    response.headers["Location"] = f"/v1/indexes/{name}/snapshots/{record.id}"
    return ArchiveBody(**record.model_dump())


@router.get(
    "/v1/indexes/{name}/snapshots/{id}",
    response_class=FileResponse,
    responses={
        200: {"content": {"application/x-tar": {}}, "description": "The archive; Repr-Digest is its SHA-256."},
        **documented(401, 404, 422, 500, 503),
    },
    summary="Download an archive",
)
async def download_archive(name: str, id: str, data: DataDependency) -> FileResponse:
    with as_problems():
        file = await asyncio.to_thread(archives.archive_file, data.directory, name, id)
        sha256 = await asyncio.to_thread(archives.digest_of, data.directory, name, id)
    headers = {}
    if sha256 is not None:
        headers["Repr-Digest"] = f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"
    return FileResponse(file, media_type="application/x-tar", filename=f"{name}-{id}.tar", headers=headers)


@router.delete(
    "/v1/indexes/{name}/snapshots/{id}",
    status_code=204,
    responses=documented(401, 404, 422, 500, 503),
    summary="Delete an archive",
)
async def delete_archive(name: str, id: str, data: DataDependency) -> None:
    with as_problems():
        await asyncio.to_thread(archives.delete_archive, data.directory, name, id)


@router.post(
    "/v1/indexes/{name}/restore",
    status_code=201,
    dependencies=[JsonOnly],
    responses=documented(400, 401, 404, 409, 413, 415, 422, 500, 503, 507),
    summary="Make an archive the newest version of an index",
)
async def restore(name: str, body: RestoreWish, service: ServiceDependency, data: DataDependency) -> TargetBody:
    spec = service.engine.spec

    def accept(manifest: Manifest) -> None:
        require_student(spec, manifest.student.spec, data.directory.path(name))

    with as_problems():
        number = await asyncio.to_thread(
            archives.restore_archive, data.directory, name, body.snapshot, of=body.of, accept=accept
        )
    await data.try_follow(service)
    return TargetBody(index=name, number=number)
