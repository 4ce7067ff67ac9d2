"""The bodies of answers about the service itself: its health, its student, its indexes and their passages."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class VersionBody(BaseModel):
    """A version of an index in the data directory, and what its build did."""

    number: int
    job: str
    mode: Literal["incremental", "full"]
    created: str = Field(description="UTC, ISO 8601.")
    encoded: int = Field(description="Passages that the student encoded for it.")
    reused: int = Field(description="Passages written again with the vectors that they had.")
    deleted: int


class StoredIndexBody(BaseModel):
    """What the data directory holds of an index."""

    created: str = Field(description="UTC, ISO 8601.")
    bits: int
    dims: int | None = None
    pool: float = 1.0
    versions: list[VersionBody] = Field(description="The oldest first.")
    aliases: list[str] = Field(description="What points at it.")


class IndexBody(BaseModel):
    """What is known of an index. `version` is null before its first build; `stored` where --index serves it."""

    name: str
    version: str | None
    passages: int
    student: str
    dim: int
    sentence_dim: int
    number: int | None = Field(default=None, description="Which version of the index in the data directory this is.")
    alias_of: str | None = Field(default=None, description="The index that this name is an alias of.")
    stored: StoredIndexBody | None = None


class IndexList(BaseModel):
    indexes: list[IndexBody]


class PassageBody(BaseModel):
    """A passage as it was stored."""

    id: str
    title: str | None
    text: str
    metadata: dict[str, Any]


class CheckBody(BaseModel):
    name: str
    ok: bool
    reason: str


class HealthBody(BaseModel):
    """`ready`, or `not_ready` with the check that fails."""

    status: Literal["ready", "not_ready"]
    checks: list[CheckBody]


class LiveBody(BaseModel):
    status: Literal["alive"] = "alive"


class StudentBody(BaseModel):
    name: str
    fingerprint: str
    dim: int
    sentence_dim: int
    sentence_weight: float
    query_length: int
    passage_length: int


class InfoBody(BaseModel):
    """Which model, which indexes, which build."""

    version: str
    student: StudentBody
    indexes: list[IndexBody]
    runtime: dict[str, str]
