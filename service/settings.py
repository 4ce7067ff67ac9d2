"""Every setting of the service: given as options, else read from the environment (`DRDECR_…`)."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from drdecr.collections.records import NAME as INDEX_NAME
from drdecr.errors import UsageError
from drdecr.index.place import is_url
from service.key_file import KeyFile
from service.keys import KeyHash

ENVIRONMENT_PREFIX = "DRDECR_"
# A search that shards answer costs the front little but a place to wait.
_WAITING_A_CORE = 10


class IndexSource(BaseModel):
    """A snapshot and the name that clients search it by. `url` is where it lies if that is no path."""

    model_config = ConfigDict(frozen=True)

    name: str
    path: Path
    url: str | None = None

    @property
    def location(self) -> str:
        """Return where the snapshot lies, as `drdecr.index.place` reads it."""
        return self.url or str(self.path)


class ClusterSettings(BaseModel):
    """How shards are served by a Ray cluster."""

    model_config = ConfigDict(frozen=True)

    address: str
    shards: int
    replicas: int
    max_replicas: int | None
    spread: bool
    shard_cpus: float
    shard_threads: int
    shard_queue: int
    shard_timeout_ms: int
    retire_s: float
    keep_copies_s: float


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
    return IndexSource(name=name, path=Path(path), url=path if is_url(path) else None)


def _keys_under_their_first_name() -> Path | None:
    """Read the variable that DRDECR_KEYS was before; it still works."""
    named = os.environ.get(f"{ENVIRONMENT_PREFIX}API_KEYS_FILE")
    return Path(named) if named else None


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class Settings(BaseSettings):
    """What an operator decides. Lists come from the environment separated by commas."""

    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT_PREFIX, frozen=True, extra="forbid")

    student: Path
    encoder: Literal["onnx", "torch"] = Field("onnx", description="What runs the student; torch is for a GPU.")
    data: Path | None = Field(None, description="A directory of indexes and aliases that change while it serves.")
    index: Annotated[tuple[IndexSource, ...], NoDecode] = Field((), validate_default=True)
    jobs_url: str | None = Field(None, description="Where jobs are kept; null: jobs.sqlite in the data directory.")
    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65_535)
    threads: int | None = Field(
        None, ge=1, le=1_024, description="Queries worked on at once; null: one a core, with ray ten, as most wait."
    )

    api_key_hashes: Annotated[tuple[KeyHash, ...], NoDecode] = ()
    keys: Path | None = Field(
        default_factory=_keys_under_their_first_name,
        description="Key hashes as `drdecr keys` writes them; followed, so a revoked key stops working.",
    )
    key_rate: float = Field(
        0, ge=0, le=100_000, description="Requests a second for a key that has no rate of its own; 0: any."
    )
    insecure: bool = False
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Pages of these origins may ask from a browser; none unless given."
    )

    verify: bool = Field(True, description="Hash every byte of the snapshots before they are served.")

    follow_s: float = Field(
        1.0, ge=0, le=3_600, description="Seconds between looks for what changed on disk; 0: never."
    )

    queue_depth: int = Field(64, ge=0, le=100_000, description="Requests that may wait; more are answered 429.")
    batch_tokens: int = Field(
        1_024, ge=1, le=1_000_000, description="Tokens, padding included, of queries that are encoded together."
    )
    linger_ms: float = Field(
        0.0, ge=0, le=1_000, description="How long a free worker waits for more queries while others are in flight."
    )
    query_cache_bytes: int = Field(32 * 2**20, ge=0, description="Room for encoded queries; 0 keeps none.")
    timeout_ms: int = Field(10_000, ge=1, le=600_000)
    drain_s: float = Field(2.0, ge=0, le=3_600)
    cursor_keep_s: float = Field(
        30.0, ge=0, le=86_400, description="How long a replaced version stays for the cursors made from it."
    )
    keep_alive_s: int = Field(
        75,
        ge=1,
        le=3_600,
        description="How long an idle connection stays; a load balancer should close first.",
    )
    shutdown_s: int = Field(30, ge=1, le=3_600)

    ray: str | None = Field(None, description="Serve by this Ray cluster: HOST:PORT of its head, or auto.")
    shards: int = Field(1, ge=1, le=10_000, description="With ray: parts that an index is served in, at most.")
    replicas: int = Field(2, ge=1, le=1_000, description="With ray: processes that serve each shard.")
    max_replicas: int | None = Field(
        None, ge=1, le=1_000, description="With ray: up to so many as load demands; null: always `replicas`."
    )
    spread: bool = Field(True, description="With ray: no two replicas of a shard on one node, unless they scale.")
    shard_cpus: float = Field(1.0, ge=0, le=1_024, description="With ray: processors that a replica reserves.")
    shard_threads: int = Field(
        1, ge=1, le=1_024, description="With ray: threads of a replica, which share each search."
    )
    shard_queue: int = Field(16, ge=1, le=10_000, description="With ray: calls that a replica takes at once.")
    shard_timeout_ms: int = Field(2_000, ge=1, le=600_000, description="With ray: how long a shard is waited for.")
    retire_s: float = Field(
        60.0, ge=0, le=86_400, description="With ray: how long a replaced version's shards stay for calls at work."
    )
    keep_copies_s: float = Field(
        3_600.0,
        ge=0,
        le=31_536_000,
        description="With ray: how long after its start a replica removes copies of snapshots that no replica reads.",
    )

    max_body_bytes: int = Field(8 * 2**20, ge=1_024)
    max_upload_bytes: int = Field(16 * 2**30, ge=1_024, description="The longest body that stages passages.")
    max_query_chars: int = Field(4_096, ge=1)
    max_text_chars: int = Field(65_536, ge=1)
    otlp_endpoint: str | None = Field(None, description="Where traces go: an OTLP address over HTTP.")
    slow_ms: int = Field(
        1_000, ge=0, le=600_000, description="A longer request's log line is a warning, with its stages; 0: none."
    )
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$")

    @field_validator("index", mode="before")
    @classmethod
    def _read_sources(cls, value: object) -> object:
        parts = _split(value)
        if not isinstance(parts, list | tuple):
            return parts
        return [parse_index_source(part) if isinstance(part, str) else part for part in parts]

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _read_origins(cls, value: object) -> object:
        return _split(value)

    @field_validator("index")
    @classmethod
    def _has_something_to_serve(cls, value: tuple[IndexSource, ...], info: ValidationInfo) -> tuple[IndexSource, ...]:
        if not value and info.data.get("data") is None:
            raise PydanticCustomError("missing", "Field required")
        return value

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
        if self.ray is not None and self.data is not None:
            raise ValueError("--ray serves fixed snapshots; it does not go with --data")
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(f"max_replicas {self.max_replicas} is less than replicas {self.replicas}")
        if self.ray is None and (remote := [source.url for source in self.index if source.url is not None]):
            raise ValueError(f"{remote[0]} is a URL, which only a cluster serves; give --ray, or fetch it")
        if not (self.is_loopback or self.api_key_hashes or self.keys or self.insecure):
            raise ValueError(
                f"{self.host} can be reached by other machines and no API key is set; make one with"
                " `drdecr keys create` and give its file by --keys, or serve without keys by --insecure"
            )
        return self

    @property
    def workers(self) -> int:
        """Return how many queries are worked on at once."""
        return self.threads or len(os.sched_getaffinity(0)) * (1 if self.ray is None else _WAITING_A_CORE)

    @property
    def cluster(self) -> ClusterSettings | None:
        """Return how a cluster serves, None where this process does."""
        if self.ray is None:
            return None
        same = {name: getattr(self, name) for name in ClusterSettings.model_fields if name != "address"}
        return ClusterSettings(address=self.ray, **same)

    @property
    def key_file(self) -> KeyFile | None:
        """Return the file of key hashes, if there is one."""
        return None if self.keys is None else KeyFile(self.keys)

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
    if error["type"] == "missing" and field == "index":
        return f"--index is missing (or set {ENVIRONMENT_PREFIX}INDEX), and so is --data"
    if error["type"] == "missing":
        return f"--{option} is missing (or set {ENVIRONMENT_PREFIX}{field.upper()})"
    return f"{option} ({ENVIRONMENT_PREFIX}{field.upper()}): {message}"
