"""The data directory's errors as problems, and the conditions of HTTP as the directory understands them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from drdecr.collections.directory import Condition
from drdecr.errors import (
    DrDecrError,
    JobConflictError,
    ModelError,
    NameInUseError,
    NameTakenError,
    PreconditionError,
    RecordCorruptError,
    ResourceError,
    SnapshotError,
    UnknownNameError,
    UsageError,
    is_full_disk,
)
from service.problems import Problem

_KINDS: tuple[tuple[type[DrDecrError], int, str], ...] = (
    (UnknownNameError, 404, "not_found"),
    (NameTakenError, 409, "name_taken"),
    (NameInUseError, 409, "index_in_use"),
    (PreconditionError, 412, "precondition_failed"),
    (JobConflictError, 409, "job_conflict"),
    (RecordCorruptError, 500, "data_damaged"),
    (ResourceError, 507, "storage_failed"),
    (UsageError, 422, "invalid_request"),
    (ModelError, 409, "version_unservable"),
    (SnapshotError, 409, "version_unservable"),
)


@contextmanager
def as_problems() -> Iterator[None]:
    """Turn what the data directory raises into the problem that it is to a client; a defect stays one."""
    try:
        yield
    except DrDecrError as error:
        for kind, status, code in _KINDS:
            if isinstance(error, kind):
                raise Problem(status, code, str(error)) from None
        raise
    except OSError as error:
        if is_full_disk(error):
            raise Problem(507, "storage_failed", "The disk of the data directory is full.") from None
        raise


@contextmanager
def job_problems() -> Iterator[None]:
    """As `as_problems`, where jobs are asked for: what is in the way then is their database."""
    try:
        with as_problems():
            yield
    except Problem as problem:
        if problem.code != "storage_failed":
            raise
        raise Problem(503, "jobs_unavailable", problem.detail, headers={"Retry-After": "5"}) from None


def condition(if_match: str | None, if_none_match: str | None = None) -> Condition:
    """Return what `If-Match` and `If-None-Match` (RFC 9110, section 13) ask of an etag."""

    def allowed(etag: str | None) -> bool:
        if if_match is not None and not _names(if_match, etag):
            return False
        return if_none_match is None or not _names(if_none_match, etag)

    return allowed


def _names(header: str, etag: str | None) -> bool:
    if etag is None:
        return False
    return header.strip() == "*" or quoted(etag) in (part.strip() for part in header.split(","))


def quoted(etag: str) -> str:
    """Return an etag as the header writes it."""
    return f'"{etag}"'
