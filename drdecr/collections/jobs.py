"""Jobs as both sides see them: the service starts, lists and cancels them, the worker runs them (DBOS).

What is kept of a job lies in DBOS's system database: SQLite in the data directory, or PostgreSQL by its URL. Values
are JSON there, never pickles.
"""

from __future__ import annotations

import hashlib
import logging
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from drdecr.collections.records import NAME, NAME_PATTERN, Mode
from drdecr.errors import JobConflictError, ResourceError, UnknownNameError

if TYPE_CHECKING:
    from dbos import DBOSClient, WorkflowStatus

APPLICATION = "drdecr"
QUEUE = "builds"
WORKFLOW = "build_index"
EVENTS = "events"
STEPS_VERSION = "1"
"""Which workers can go on with which jobs: changes when the steps of a job do."""

_JOB_ID = re.compile(rf"{NAME_PATTERN}~[0-9a-f]{{32}}")
State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
_STATES: dict[str, State] = {
    "ENQUEUED": "queued",
    "DELAYED": "queued",
    "PENDING": "running",
    "SUCCESS": "succeeded",
    "ERROR": "failed",
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": "failed",
    "CANCELLED": "cancelled",
}
ENDED: tuple[State, ...] = ("succeeded", "failed", "cancelled")


class Progress(BaseModel):
    """How far a stage is; `total` is null where nobody knows it yet."""

    model_config = ConfigDict(frozen=True)

    at: str
    stage: str
    done: int
    total: int | None
    unit: str


class Job(BaseModel):
    """A build that a client asked for. Times are UTC, ISO 8601; `attempts` counts the workers that began it.

    `number` is the version that a job which succeeded leaves; `error` says why one failed.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    index: str
    mode: Mode
    state: State
    created: str
    started: str | None
    ended: str | None
    attempts: int
    worker: str | None
    number: int | None
    error: str | None


def jobs_url(data: Path, url: str | None) -> str:
    """Return where the jobs of a data directory are kept."""
    return url or f"sqlite:///{(data / 'jobs.sqlite').absolute()}"


class Jobs:
    """The jobs of a data directory. Safe to share between threads.

    Raises: ResourceError, from every method, while the database cannot be reached.
    """

    def __init__(self, url: str) -> None:
        from dbos import DBOS, DBOSClient, DBOSPortableJSONSerializer

        logging.getLogger("dbos").setLevel(logging.ERROR)
        self._client: DBOSClient
        with _reachable(url):
            DBOS.migrate(url)
            self._client = DBOSClient(
                system_database_url=url,
                serializer=DBOSPortableJSONSerializer(),
                application_name=APPLICATION,
                retry_connection_errors=False,
            )
        self._url = url

    def close(self) -> None:
        """Let go of the database."""
        self._client.destroy()

    def start_build(self, index: str, index_id: str, mode: Mode, key: str | None = None) -> Job:
        """Queue a build; the same `key` for the same index (not another of its name) is the same job.

        Raises: JobConflictError where the key's job is of another mode.
        """
        scoped = f"{index_id} {uuid.uuid4().hex if key is None else key}"
        job_id = f"{index}~{hashlib.sha256(scoped.encode('utf-8')).hexdigest()[:32]}"
        with _reachable(self._url):
            self._client.enqueue(
                {
                    "queue_name": QUEUE,
                    "workflow_name": WORKFLOW,
                    "workflow_id": job_id,
                    "queue_partition_key": index,
                    "app_version": STEPS_VERSION,
                },
                index,
                mode,
                index_id,
            )
        job = self.job(job_id)
        if job.mode != mode:
            raise JobConflictError(f"The Idempotency-Key started {job_id} before, which is a {job.mode} build.")
        return job

    def job(self, job_id: str) -> Job:
        """Return a job. Raises: UnknownNameError."""
        found: list[WorkflowStatus] = []
        # Not every text can be asked of every database.
        if _JOB_ID.fullmatch(job_id):
            with _reachable(self._url):
                found = self._client.list_workflows(workflow_ids=[job_id], name=WORKFLOW)
        if not found:
            raise UnknownNameError(f"No job {job_id[:120]!r}.")
        return _job(found[0])

    def jobs(self, *, index: str | None = None, limit: int = 100, offset: int = 0) -> list[Job]:
        """Return jobs, the newest first; of one index only, if it is named.

        Beside an index whose name differs only in capitals, a SQLite database gives fewer than `limit`.
        """
        if index is not None and not NAME.fullmatch(index):
            return []
        prefix = None if index is None else f"{index}~"
        with _reachable(self._url):
            found = self._client.list_workflows(
                name=WORKFLOW, workflow_id_prefix=prefix, limit=limit, offset=offset, sort_desc=True
            )
        # LIKE ignores case in SQLite.
        return [_job(status) for status in found if prefix is None or status.workflow_id.startswith(prefix)]

    def running(self) -> list[Job]:
        """Return the jobs that a worker has begun and not ended."""
        with _reachable(self._url):
            found = self._client.list_workflows(name=WORKFLOW, status="PENDING", load_output=False)
        return [_job(status) for status in found]

    def cancel(self, job_id: str) -> Job:
        """Ask for a job to be given up. Raises: UnknownNameError, JobConflictError for one that has ended."""
        job = self.job(job_id)
        if job.state not in ENDED:
            with _reachable(self._url):
                self._client.cancel_workflow(job_id)
            job = self.job(job_id)
        if job.state != "cancelled":
            raise JobConflictError(f"Job {job_id} has {job.state} already.")
        return job

    def events(self, job_id: str, offset: int = 0) -> list[Progress]:
        """Return what a job has reported so far, from an offset on."""
        from dbos import error

        found: list[Progress] = []
        with _reachable(self._url):
            try:
                for value in self._client.read_stream(job_id, EVENTS, offset=offset, timeout_seconds=0):
                    found.append(Progress.model_validate(value))
            except error.DBOSStreamTimeoutError:
                pass
        return found


def _job(status: WorkflowStatus) -> Job:
    index, mode = _arguments(status.input)
    state = _STATES[status.status]
    return Job(
        id=status.workflow_id,
        index=index,
        mode=mode,
        state=state,
        created=_time(status.created_at) or "",
        started=_time(status.dequeued_at),
        ended=_time(status.completed_at),
        attempts=status.recovery_attempts or 0,
        worker=status.executor_id or None,
        number=status.output if state == "succeeded" else None,
        error=str(status.error) if state == "failed" else None,
    )


def _arguments(given: Any) -> tuple[str, Mode]:
    index, mode = given["args"][:2]
    return index, mode


def _time(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1_000, UTC).isoformat(timespec="milliseconds")


@contextmanager
def _reachable(url: str) -> Iterator[None]:
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except SQLAlchemyError as problem:
        kind = url.partition(":")[0]
        reason = str(getattr(problem, "orig", None) or problem).strip().splitlines()[0]
        raise ResourceError(f"The {kind} database of the jobs cannot be used: {reason}.") from None
