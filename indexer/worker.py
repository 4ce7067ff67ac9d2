"""The job worker: takes builds from the queue, and finishes those that a killed worker began (DBOS).

A worker holds a lock on a file of the data directory as long as it lives. A job whose worker's lock is free was left
behind: it goes back to the queue, and its steps that had ended are not run again.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from drdecr.collections.directory import DataDirectory, now
from drdecr.collections.files import try_lock
from drdecr.collections.jobs import APPLICATION, ENDED, EVENTS, QUEUE, STEPS_VERSION, WORKFLOW, Jobs
from drdecr.collections.records import Mode
from drdecr.encoder.types import Encoder
from drdecr.errors import JobCancelledError, ResourceError, SnapshotBusyError, UnknownNameError
from indexer.reindex import Task, build_next, publish, sweep_work, unfinished

log = structlog.get_logger("indexer.worker")

_LOOK_S = 1.0
_REPORT_S = 0.5
# Between two looks whether what is in the way of a build has ended.
_BUSY_S = 0.5
_RECOVERIES = 1_000
"""Workers that may die on one job before it fails. Each attempt goes on where the last one was."""


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a step that failed is tried again: after `first_s`, then `factor` times as long, and so on."""

    attempts: int = 6
    first_s: float = 1.0
    factor: float = 2.0


class Worker:
    """One worker process. `run` returns when `stop` is set."""

    def __init__(self, directory: DataDirectory, encoder: Encoder, url: str, retries: Retries) -> None:
        self._directory = directory
        self._encoder = encoder
        self._url = url
        self._retries = retries
        self.id = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.stop = threading.Event()
        self._jobs = Jobs(url)

    def run(self) -> None:
        """Work until `stop` is set. What is at work then goes on in its thread: end the process, as a kill would, and
        another worker goes on with it.
        """
        from dbos import DBOS, DBOSPortableJSONSerializer

        self._show_life()
        DBOS(
            config={
                "name": APPLICATION,
                "system_database_url": self._url,
                "executor_id": self.id,
                "application_version": STEPS_VERSION,
                "serializer": DBOSPortableJSONSerializer(),
                "log_level": "CRITICAL",
                "enable_otlp": False,
            }
        )
        self._register()
        DBOS.listen_queues([QUEUE])
        DBOS.launch()
        # Builds of one index follow each other; a worker has one encoder, and so takes one build at a time.
        DBOS.register_queue(QUEUE, worker_concurrency=1, partition_concurrency=1, polling_interval_sec=_LOOK_S / 2)
        log.info("working", worker=self.id, student=self._encoder.spec.name)
        while not self.stop.wait(_LOOK_S):
            self._look_after_others()
        log.info("stopped", worker=self.id)

    def _register(self) -> None:
        from dbos import DBOS

        retried = DBOS.step(
            retries_allowed=True,
            max_attempts=self._retries.attempts,
            interval_seconds=self._retries.first_s,
            backoff_rate=self._retries.factor,
            should_retry=_worth_retrying,
        )

        def build(index: str, mode: Mode, index_id: str | None) -> bool:
            task = Task(_job_id(), index, mode, index_id)
            log.info("building", job=task.job, mode=mode)
            with _explained(task):
                return self._build(task)

        def put_in_place(index: str, mode: Mode, index_id: str | None) -> int:
            task = Task(_job_id(), index, mode, index_id)
            with _explained(task):
                return publish(self._directory, task, lambda: self._check(task))

        build_step, publish_step = retried(build), retried(put_in_place)

        @DBOS.workflow(name=WORKFLOW, max_recovery_attempts=_RECOVERIES)
        def build_index(index: str, mode: Mode, index_id: str | None = None) -> int:
            # Jobs of a release before this one do not say which index of that name they mean.
            built = build_step(index, mode, index_id)
            number = publish_step(index, mode, index_id) if built else self._directory.versions(index)[-1]
            log.info("built", job=_job_id(), index=index, number=number)
            return number

    def _build(self, task: Task) -> bool:
        """Make a version, once nothing else is at work on its index: a cancelled build ends at its next report."""
        told = ""
        while True:
            self._check(task)
            try:
                return build_next(self._directory, task, self._encoder, Reporter(lambda: self._check(task)))
            except SnapshotBusyError as busy:
                if str(busy) != told:
                    told = str(busy)
                    log.info("waits", job=task.job, reason=told)
                time.sleep(_BUSY_S)

    def _check(self, task: Task) -> None:
        """Stop work that is not wanted any more, or not ours. Raises: JobCancelledError."""
        job = self._jobs.job(task.job)
        if job.state != "running" or job.worker != self.id:
            raise JobCancelledError(f"job {task.job} is {job.state} (worker {job.worker}); this worker leaves it")

    def _show_life(self) -> None:
        """Take the lock that tells others that this worker lives; the kernel gives it back when the process ends."""
        folder = self._directory.root / "workers"
        folder.mkdir(exist_ok=True)
        own = folder / self.id
        while not _hold(own):
            time.sleep(_LOOK_S / 10)
        for path in folder.iterdir():
            _remove_if_dead(path)

    def _look_after_others(self) -> None:
        try:
            for worker in sorted({job.worker for job in self._jobs.running() if job.worker} - {self.id}):
                if not _lives(self._directory.root / "workers" / worker):
                    self._take_over(worker)
            self._sweep()
        except Exception as problem:
            # Whatever is in the way, the database or the disk, may be gone at the next look.
            log.error("cannot look after jobs", error=str(problem))

    def _take_over(self, worker: str) -> None:
        from dbos import DBOS

        # Puts back what this very worker holds and nothing else: two who do it at once do it once.
        DBOS._recover_pending_workflows([worker])
        log.info("jobs of a dead worker are queued again", worker=worker)

    def _sweep(self) -> None:
        for task in unfinished(self._directory):
            try:
                ended = self._jobs.job(task.job).state in ENDED
            except UnknownNameError:
                continue
            if ended:
                sweep_work(self._directory, task)


class Reporter:
    """Progress that goes into the job's events, a few times a second at most; calls `check` as often."""

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check

    def stage(self, name: str, total: int | None, unit: str) -> Callable[[int], None]:
        """Begin a stage; each is reported at its beginning, at each hundredth of it, and at its end."""
        self._check()
        report = {"stage": name, "total": total, "unit": unit}
        _write_event({**report, "done": 0, "at": now()})
        done = reported = 0
        last = time.monotonic()

        def advance(count: int) -> None:
            nonlocal done, reported, last
            done += count
            finished = total is not None and done >= total > reported
            if time.monotonic() - last < _REPORT_S and not finished:
                return
            last = time.monotonic()
            self._check()
            if finished or total is None or done - reported >= total / 100:
                reported = done
                _write_event({**report, "done": done, "at": now()})

        return advance


def _write_event(event: dict[str, Any]) -> None:
    from dbos import DBOS

    DBOS.write_stream(EVENTS, event)


def _job_id() -> str:
    from dbos import DBOS

    job = DBOS.workflow_id
    assert job is not None
    return job


def _worth_retrying(problem: BaseException) -> bool:
    # sqlite3 has an error of its own for a full disk.
    return isinstance(problem, SnapshotBusyError | ResourceError | OSError | sqlite3.OperationalError)


@contextmanager
def _explained(task: Task) -> Iterator[None]:
    try:
        yield
    except JobCancelledError as problem:
        log.info("left", job=task.job, reason=str(problem))
        raise
    except Exception as problem:
        log.error("step failed", job=task.job, error=str(problem), kind=type(problem).__name__)
        raise


def _hold(lock: Path) -> bool:
    """Lock a file for as long as this process lives; False where another worker, which tidied up, was in the way."""
    descriptor = try_lock(lock, create=True)
    if descriptor is None:
        return False
    if lock.exists() and os.path.samestat(os.fstat(descriptor), lock.stat()):
        return True
    os.close(descriptor)
    return False


def _remove_if_dead(lock: Path) -> None:
    descriptor = try_lock(lock)
    if descriptor is not None:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def _lives(lock: Path) -> bool:
    descriptor = try_lock(lock)
    if descriptor is None:
        return lock.exists()
    os.close(descriptor)
    return False
