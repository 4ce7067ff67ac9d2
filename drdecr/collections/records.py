"""What the small files of a data directory say."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from drdecr.index.codec import BITS
from drdecr.index.reduction import MAX_POOL

NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
NAME = re.compile(NAME_PATTERN)
"""What an index or an alias may be called: nothing that leads out of a directory, or hides in it."""

Mode = Literal["incremental", "full"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class IndexRecord(_Record):
    """`index.json`. `id` tells an index from an earlier one of the same name; `created` is UTC, ISO 8601.

    `bits`, `dims` and `pool` are how its builds store token vectors (`drdecr.index.reduction`).
    """

    id: str
    created: str
    bits: int = Field(default=16, json_schema_extra={"enum": list(BITS)})
    dims: int | None = Field(default=None, ge=1)
    pool: float = Field(default=1.0, ge=1, le=MAX_POOL)


class BuildRecord(_Record):
    """`build.json`, beside a version's manifest: the job that built it, from which version, up to which upload.

    `encoded` counts the passages whose vectors the student made anew, `reused` those that kept theirs.
    """

    job: str
    mode: Mode
    base: int | None
    through: int = Field(ge=0)
    created: str
    encoded: int
    reused: int
    deleted: int


class Target(_Record):
    """A version of an index; `id` is the index's."""

    index: str
    id: str
    number: int = Field(ge=1)


class AliasRecord(_Record):
    """`aliases/NAME.json`: what an alias points at, and what it pointed at before; `etag` is new at each change."""

    target: Target
    previous: Target | None = None
    changed: str
    etag: str
