"""The requests of indexes, aliases, uploads, jobs and archives, as both clients send them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Literal

from drdecr.collections.records import Mode
from drdecr.errors import ServiceError
from service.client.call import Call, Nothing, given, segment
from service.client.lines import Json, Lines, PathLike
from service.schemas_data import (
    AliasBody,
    AliasList,
    ArchiveBody,
    ArchiveList,
    JobBody,
    JobList,
    TargetBody,
    UploadBody,
)
from service.schemas_state import IndexBody

Bits = Literal[16, 8, 6, 4, 2]
_ETAG = {"etag": "ETag"}


class Alias(AliasBody):
    """An alias with its `etag`, to be given as `if_match`."""

    etag: str = ""


def create_index(name: str, *, bits: Bits, dims: int | None, pool: float) -> Call[IndexBody]:
    # What a service of before these settings does not know is sent only where it is wished for.
    smaller = given({"dims": dims, "pool": None if pool == 1 else pool})
    return Call(IndexBody, "POST", "/v1/indexes", {"name": name, "bits": bits, **smaller}, repeatable=False)


def drop_index(name: str) -> Call[Nothing]:
    return Call(Nothing, "DELETE", f"/v1/indexes/{segment(name)}", repeatable=False)


def aliases() -> Call[AliasList]:
    return Call(AliasList, "GET", "/v1/aliases")


def alias(name: str) -> Call[Alias]:
    return Call(Alias, "GET", f"/v1/aliases/{segment(name)}", from_headers=_ETAG)


def switch_alias(
    name: str,
    index: str,
    number: int | None,
    *,
    if_match: str | None,
    if_none_match: str | None,
    timeout_s: float | None,
) -> Call[Alias]:
    """Under a condition it is not as done once when it is done twice: the second finds the condition changed."""
    headers = given({"If-Match": if_match, "If-None-Match": if_none_match})
    return Call(
        Alias,
        "PUT",
        f"/v1/aliases/{segment(name)}",
        {"index": index, **given({"number": number})},
        headers=headers,
        from_headers=_ETAG,
        repeatable=not headers,
        timeout_s=timeout_s,
    )


def back(now: Alias, *, timeout_s: float | None) -> Call[Alias]:
    """Raises: ServiceError for an alias that pointed at nothing before."""
    if now.previous is None:
        raise ServiceError(f"Alias {now.alias!r} has no version before; nothing to go back to.", code="no_previous")
    index, number = now.previous.index, now.previous.number
    return switch_alias(now.alias, index, number, if_match=now.etag, if_none_match=None, timeout_s=timeout_s)


def drop_alias(name: str, *, if_match: str | None) -> Call[Nothing]:
    headers = given({"If-Match": if_match})
    return Call(Nothing, "DELETE", f"/v1/aliases/{segment(name)}", headers=headers, repeatable=False)


def upload_passages(index: str, passages: Iterable[Json] | PathLike, *, timeout_s: float | None) -> Call[UploadBody]:
    return _upload(f"/v1/indexes/{segment(index)}/passages", Lines(passages, lambda each: each), timeout_s)


def upload_deletions(index: str, ids: Iterable[str] | PathLike, *, timeout_s: float | None) -> Call[UploadBody]:
    return _upload(f"/v1/indexes/{segment(index)}/deletions", Lines(ids, lambda each: {"id": each}), timeout_s)


def start_build(index: str, mode: Mode, *, key: str | None) -> Call[JobBody]:
    """Its key is made here, once, so that however often the call is sent it is one job."""
    headers = {"Idempotency-Key": uuid.uuid4().hex if key is None else key}
    return Call(JobBody, "POST", f"/v1/indexes/{segment(index)}/builds", {"mode": mode}, headers=headers)


def jobs(*, index: str | None, limit: int, offset: int) -> Call[JobList]:
    return Call(JobList, "GET", "/v1/jobs", query=given({"index": index, "limit": limit, "offset": offset}))


def job(asked: JobBody | str) -> Call[JobBody]:
    return Call(JobBody, "GET", _job_path(asked))


def cancel_job(asked: JobBody | str) -> Call[JobBody]:
    return Call(JobBody, "DELETE", _job_path(asked))


def archives(index: str) -> Call[ArchiveList]:
    return Call(ArchiveList, "GET", f"/v1/indexes/{segment(index)}/snapshots")


def archive(index: str, number: int | None, *, timeout_s: float | None) -> Call[ArchiveBody]:
    path, body = f"/v1/indexes/{segment(index)}/snapshots", given({"number": number})
    return Call(ArchiveBody, "POST", path, body, repeatable=False, timeout_s=timeout_s)


def drop_archive(index: str, archive_id: str) -> Call[Nothing]:
    path = f"/v1/indexes/{segment(index)}/snapshots/{segment(archive_id)}"
    return Call(Nothing, "DELETE", path, repeatable=False)


def restore(index: str, archive_id: str, *, of: str | None, timeout_s: float | None) -> Call[TargetBody]:
    path, body = f"/v1/indexes/{segment(index)}/restore", {"snapshot": archive_id, **given({"of": of})}
    return Call(TargetBody, "POST", path, body, repeatable=False, timeout_s=timeout_s)


def _upload(path: str, lines: Lines, timeout_s: float | None) -> Call[UploadBody]:
    # Staged again, it could undo what another client staged in between.
    return Call(UploadBody, "POST", path, lines=lines, repeatable=False, timeout_s=timeout_s)


def _job_path(asked: JobBody | str) -> str:
    return f"/v1/jobs/{segment(asked if isinstance(asked, str) else asked.id)}"
