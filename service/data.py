"""Serves a data directory: opens what its names point at, and follows when that changes."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from drdecr.collections.directory import DataDirectory
from drdecr.collections.jobs import Jobs, State, jobs_url
from drdecr.collections.records import Target
from drdecr.errors import DrDecrError, RecordCorruptError, ResourceError
from service.engine import Absence, Engine, OpenVersion, ServedIndex, StagedEncoder
from service.searching import warm_up
from service.threads import run_apart

if TYPE_CHECKING:
    from service.metrics import Metrics
    from service.settings import Settings
    from service.state import Service

log = structlog.get_logger("service.data")

RETRY_S = 30.0
"""How long a version that cannot be served is left alone; opening it may mean reading all of it."""


@dataclass(frozen=True, slots=True)
class _Failure:
    message: str
    retry_at: float


class ServedData:
    """The data directory as this process serves it.

    Names change only between two requests: each request holds one engine, in which a name has one version.
    """

    def __init__(self, settings: Settings) -> None:
        assert settings.data is not None
        self.directory = DataDirectory(settings.data)
        self._verify = settings.verify
        self._reserved = frozenset(source.name for source in settings.index)
        self._opened: weakref.WeakValueDictionary[Target, OpenVersion] = weakref.WeakValueDictionary()
        self._failures: dict[Target, _Failure] = {}
        self._damaged: dict[str, str] = {}
        self._counted_at: dict[str, float] = {}
        """When names that are not followed were last counted as such."""
        self._opening = threading.Lock()
        self._one_look = asyncio.Lock()
        self._jobs_url = jobs_url(settings.data, settings.jobs_url)
        self._jobs: Jobs | None = None
        self._connecting = threading.Lock()
        self._counting: asyncio.Task[Counter[State] | None] | None = None
        self.watchers = 0

    @property
    def reserved(self) -> Collection[str]:
        """The names that `--index` gave away."""
        return self._reserved

    def jobs(self) -> Jobs:
        """Return the jobs; the first call connects to their database. Raises: ResourceError."""
        with self._connecting:
            if self._jobs is None:
                self._jobs = Jobs(self._jobs_url)
            return self._jobs

    async def job_states(self) -> Counter[State]:
        """Count the latest hundred jobs by state. Raises: ResourceError.

        However many ask, one thread at a time waits for a database that does not answer.
        """
        if self._counting is None or self._counting.done():
            self._counting = asyncio.create_task(asyncio.to_thread(self._count_states))
        states = await asyncio.shield(self._counting)
        if states is None:
            raise ResourceError("the jobs' database cannot be reached")
        return states

    def _count_states(self) -> Counter[State] | None:
        try:
            return Counter(job.state for job in self.jobs().jobs(limit=100))
        except ResourceError:
            return None

    def close(self) -> None:
        """Let go of the jobs' database."""
        if self._jobs is not None:
            self._jobs.close()

    async def opened(self, engine: Engine) -> Engine:
        """Return the engine with everything that the directory names now; new versions are warm."""
        return await run_apart(self._look, engine)

    async def follow(self, service: Service) -> None:
        """Serve what the directory names now. Requests in flight end on what they began with."""
        async with self._one_look:
            before = service.engine
            after = await self.opened(before)
            fixed = {name: index for name, index in service.engine.indexes.items() if index.version is None}
            followed = {name: index for name, index in after.indexes.items() if index.version is not None}
            service.loaded = replace(after, indexes={**fixed, **followed})
        named = {index.version.target for index in followed.values() if index.version is not None}
        if set(self._opened.keys()) - named:
            # A replaced version is still open: let it go now if no request holds it, but only a cycle of objects.
            gc.collect()
        service.readiness.update("data", self.summary(after), ok=True)
        self._count_failures(after, service.metrics)
        for name, index in followed.items():
            old = before.indexes.get(name)
            if old is None or old.version is not index.version:
                service.metrics.switches.labels(name, "served").inc()
                log.info(
                    "index switched",
                    index=name,
                    before=None if old is None else old.snapshot.version,
                    now=index.snapshot.version,
                )

    def _count_failures(self, engine: Engine, metrics: Metrics) -> None:
        """Count each name that is not followed, and again as long as it is, so that rates of the counter tell."""
        now = time.monotonic()
        failing = {*self._damaged, *(name for name, absence in engine.absent.items() if absence.status == 503)}
        self._counted_at = {name: at for name, at in self._counted_at.items() if name in failing}
        for name in failing:
            if now - self._counted_at.get(name, -RETRY_S) >= RETRY_S:
                metrics.switches.labels(name, "failed").inc()
                self._counted_at[name] = now

    async def try_follow(self, service: Service) -> bool:
        """Follow where what was changed stays changed: a failure is logged, and what is served goes on being served.

        Return whether it is followed. The next look comes after `follow_s` seconds.
        """
        try:
            await self.follow(service)
        except Exception as error:
            log.error("data directory not followed", error=str(error))
            service.readiness.update("data", f"not followed: {error}", ok=True)
            return False
        return True

    async def prepare(self, target: Target, encoder: StagedEncoder) -> OpenVersion:
        """Open and warm a version up; it stays open while the caller holds it. Raises: DrDecrError."""
        return await run_apart(self._open, target, encoder)

    def summary(self, engine: Engine) -> str:
        """Say in a few words what of the directory is served."""
        served = sum(index.version is not None for index in engine.indexes.values())
        broken = [f"{name}: {absence.detail}" for name, absence in engine.absent.items() if absence.status == 503]
        kept = [
            f"{name} stays as it was: {damage}" for name, damage in self._damaged.items() if name in engine.indexes
        ]
        return "; ".join([f"{served} names served", *broken, *kept])

    def _look(self, engine: Engine) -> Engine:
        indexes = {name: index for name, index in engine.indexes.items() if index.version is None}
        absent: dict[str, Absence] = {}
        damaged: dict[str, str] = {}
        for name, target in self.directory.names().items():
            if name in self._reserved:
                continue
            if target is None:
                absent[name] = Absence(404, "index_not_built", f"Index {name!r} has no version yet; start a build.")
                continue
            current = engine.indexes.get(name)
            if isinstance(target, RecordCorruptError):
                damaged[name] = str(target)
                if current is not None:
                    indexes[name] = current
                else:
                    absent[name] = Absence(503, "index_unavailable", f"Index {name!r} cannot be served: {target}")
                continue
            if current is not None and current.version is not None and current.version.target == target:
                indexes[name] = current
                continue
            try:
                version = self._open(target, engine.encoder, patient=True)
            except (DrDecrError, OSError) as error:
                # An index that was dropped and made again under its own name is another; what an alias served is not.
                same = current is not None and current.version is not None and current.version.target.id == target.id
                if current is not None and (same or name != target.index):
                    indexes[name] = current
                    damaged[name] = str(error)
                else:
                    absent[name] = Absence(503, "index_unavailable", f"Index {name!r} cannot be served: {error}")
            else:
                indexes[name] = ServedIndex(name, version.snapshot, version=version)
        for name, damage in damaged.items():
            if self._damaged.get(name) != damage:
                log.error("name not followed", index=name, error=damage)
        self._damaged = damaged
        return Engine(engine.encoder, indexes, absent)

    def _open(self, target: Target, encoder: StagedEncoder, *, patient: bool = False) -> OpenVersion:
        """Open a version, or find it open; `patient` leaves one alone that failed a moment ago."""
        with self._opening:
            if (found := self._opened.get(target)) is not None:
                return found
            failure = self._failures.get(target)
            if patient and failure is not None and time.monotonic() < failure.retry_at:
                raise DrDecrError(failure.message)
            try:
                version = self._open_new(target, encoder)
            except (DrDecrError, OSError) as error:
                self._failures[target] = _Failure(str(error), time.monotonic() + RETRY_S)
                log.error("version not served", index=target.index, number=target.number, error=str(error))
                raise
            self._failures.pop(target, None)
            self._opened[target] = version
            return version

    def _open_new(self, target: Target, encoder: StagedEncoder) -> OpenVersion:
        from drdecr.index.snapshot import Snapshot

        snapshot = Snapshot.open(self.directory.version_path(target.index, target.number), verify=self._verify)
        try:
            snapshot.require(encoder.spec)
            snapshot.warm_up()
            warm_up(Engine(encoder, {target.index: ServedIndex(target.index, snapshot)}))
        except BaseException:
            snapshot.close()
            raise
        version = OpenVersion(target, snapshot)
        weakref.finalize(version, snapshot.close)
        return version
