"""The bodies of the routes that change a data directory."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from drdecr.collections.archives import ArchiveRecord
from drdecr.collections.jobs import Job, Progress
from drdecr.collections.records import NAME_PATTERN, Mode
from drdecr.index.reduction import MAX_POOL
from service.schemas import Request

NAME_FIELD = Field(pattern=f"^{NAME_PATTERN}$", examples=["manuals"])


class IndexWish(Request):
    """An index to make."""

    name: str = NAME_FIELD
    bits: Literal[16, 8, 6, 4, 2] = Field(default=16, description="Bits that a dimension of a token vector takes.")
    dims: int | None = Field(
        default=None, ge=1, description="Dimensions kept of each token vector, the first ones; null for all."
    )
    pool: float = Field(
        default=1.0, ge=1, le=MAX_POOL, description="About one of so many token vectors of a passage is kept."
    )


class AliasWish(Request):
    """What an alias shall point at; the newest version unless a number is given."""

    index: str = NAME_FIELD
    number: int | None = Field(default=None, ge=1)


class TargetBody(BaseModel):
    """A version of an index."""

    index: str
    number: int


class AliasBody(BaseModel):
    """An alias. `previous`, sent as the body of a PUT, takes the last switch back."""

    alias: str
    index: str
    number: int
    index_version: str | None = Field(description="What searches answer as index_version; null while it loads.")
    previous: TargetBody | None
    changed: str = Field(description="UTC, ISO 8601.")


class AliasList(BaseModel):
    aliases: list[AliasBody]


class LineErrorBody(BaseModel):
    """A line, counted from 1, that was not staged."""

    line: int
    message: str


class UploadBody(BaseModel):
    """What was staged. `errors` holds the first hundred of the `rejected` lines."""

    index: str
    upload: int = Field(description="Uploads are applied in the order of these numbers.")
    staged: int
    rejected: int
    errors: list[LineErrorBody]


class BuildWish(Request):
    """How to build: `incremental` adds what is staged to the newest version, `full` writes everything anew."""

    mode: Mode = "incremental"


class JobBody(Job):
    """A job, and with `GET /v1/jobs/{id}` the last that it reported."""

    progress: Progress | None = None


class JobList(BaseModel):
    jobs: list[JobBody]


class ArchiveWish(Request):
    """The version to archive; the newest unless a number is given."""

    number: int | None = Field(default=None, ge=1)


class ArchiveBody(ArchiveRecord):
    """An archive of a version."""


class ArchiveList(BaseModel):
    snapshots: list[ArchiveBody]


class RestoreWish(Request):
    """An archive to restore, of this index unless `of` names another."""

    snapshot: str = Field(max_length=64, examples=["000007-1f3a92c4"])
    of: str | None = Field(default=None, pattern=f"^{NAME_PATTERN}$")
