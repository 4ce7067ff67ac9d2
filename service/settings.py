"""Every setting of the service: given as options, else read from the environment (`DRDECR_…`)."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from drdecr.errors import UsageError
from service.keys import KeyHash

ENVIRONMENT_PREFIX = "DRDECR_"
INDEX_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class IndexSource(BaseModel):
    """A snapshot and the name that clients search it by."""

    model_config = ConfigDict(frozen=True)

    name: str
    path: Path


def parse_index_source(text: str) -> IndexSource:
    """Read `NAME=SNAPSHOT`, or `SNAPSHOT` alone, which is then named after its directory.

    Raises: ValueError where that gives no usable name.
    """
    name, separator, path = text.partition("=")
    if not (separator and path and INDEX_NAME.fullmatch(name)):
        name, path = Path(text).resolve().name, text
    if not INDEX_NAME.fullmatch(name):
        raise ValueError(
            f"{text!r} gives no index name (1 to 64 of A-Z a-z 0-9 . _ -, the first a letter or digit);"
            " name it yourself: NAME=SNAPSHOT"
        )
    return IndexSource(name=name, path=Path(path))


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class Settings(BaseSettings):
    """What an operator decides. Lists come from the environment separated by commas."""

    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT_PREFIX, frozen=True, extra="forbid")

    student: Path
    index: Annotated[tuple[IndexSource, ...], NoDecode] = Field(min_length=1)
    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65_535)
    threads: int = Field(default_factory=lambda: len(os.sched_getaffinity(0)), ge=1, le=1_024)

    api_key_hashes: Annotated[tuple[KeyHash, ...], NoDecode] = ()
    insecure: bool = False

    verify: bool = Field(True, description="Hash every byte of the snapshots before they are served.")

    follow_s: float = Field(
        1.0, ge=0, le=3_600, description="Seconds between looks for newer generations of the snapshots; 0: never."
    )

    queue_depth: int = Field(128, ge=0, le=100_000)
    timeout_ms: int = Field(10_000, ge=1, le=600_000)
    drain_s: float = Field(2.0, ge=0, le=3_600)
    shutdown_s: int = Field(30, ge=1, le=3_600)

    max_body_bytes: int = Field(8 * 2**20, ge=1_024)
    max_query_chars: int = Field(4_096, ge=1)
    max_text_chars: int = Field(65_536, ge=1)
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$")

    @field_validator("index", mode="before")
    @classmethod
    def _read_sources(cls, value: object) -> object:
        parts = _split(value)
        if not isinstance(parts, list | tuple):
            return parts
        return [parse_index_source(part) if isinstance(part, str) else part for part in parts]

    @field_validator("api_key_hashes", mode="before")
    @classmethod
    def _read_hashes(cls, value: object) -> object:
        parts = _split(value)
        if not isinstance(parts, list | tuple):
            return parts
        return [KeyHash.parse(part) if isinstance(part, str) else part for part in parts]

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        names = [source.name for source in self.index]
        if repeated := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"index name {sorted(repeated)[0]!r} is given twice; name one of them: NAME=SNAPSHOT")
        if not (self.is_loopback or self.api_key_hashes or self.insecure):
            raise ValueError(
                f"{self.host} can be reached by other machines and no API key is set; make one with"
                " `drdecr serve --new-key`, or serve without keys by --insecure"
            )
        return self

    @property
    def is_loopback(self) -> bool:
        """Tell whether only this machine can connect."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def load_settings(**given: Any) -> Settings:
    """Make settings of the options given (None: not given) and the environment.

    Raises: UsageError, one line that names each wrong setting.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as problem:
        raise UsageError("; ".join(_describe(error) for error in problem.errors(include_url=False))) from None


def _describe(error: Any) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    if not error["loc"]:
        return message
    field = str(error["loc"][0])
    option = field.replace("_", "-")
    if error["type"] == "missing":
        return f"--{option} is missing (or set {ENVIRONMENT_PREFIX}{field.upper()})"
    return f"{option} ({ENVIRONMENT_PREFIX}{field.upper()}): {message}"
