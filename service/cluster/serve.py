"""Ray Serve holds the shards: an application for each, with R replicas, named after the version that it serves."""

from __future__ import annotations

import asyncio
import hashlib
import re
import threading
import time
import weakref
from collections import Counter
from collections.abc import Collection
from typing import Any

import structlog

from drdecr.encoder.types import EncoderSpec
from drdecr.errors import DrDecrError, ResourceError
from drdecr.index.compatibility import require_student
from drdecr.index.manifest import MANIFEST, Manifest, parse_manifest
from drdecr.index.part import tuning_key
from drdecr.index.place import Place, open_place
from drdecr.ray_cluster import join_cluster
from service.cluster.backend import LoopThread, ShardedSnapshot
from service.cluster.fronts import Fronts
from service.cluster.shard import ShardReplica, ShardSource, Terms
from service.engine import Engine, ServedIndex, describe, load_serving_encoder
from service.readiness import Readiness
from service.settings import ClusterSettings, IndexSource, Settings

log = structlog.get_logger("service.cluster")
# A replica that fails in its first seconds is broken, not unlucky.
_BEGIN_ATTEMPTS = 3
_LOOK_S = 0.2


def load_cluster_engine(settings: Settings, readiness: Readiness) -> Engine:
    """Load the encoder here and every index on the cluster, setting a check after each.

    Raises: ModelError, SnapshotError, ResourceError.
    """
    assert settings.cluster is not None
    encoder = load_serving_encoder(settings, readiness)
    join_cluster(settings.cluster.address)
    shards = Shards(settings.cluster, verify=settings.verify)
    indexes = {}
    for source in settings.index:
        index = shards.serve(source, encoder.spec)
        indexes[source.name] = index
        readiness.update(f"index:{source.name}", describe(index), ok=True)
    return Engine(encoder, indexes)


class Shards:
    """Puts indexes on the cluster and takes them away when no front uses them any more."""

    def __init__(self, settings: ClusterSettings, *, verify: bool) -> None:
        from ray import serve

        self._settings = settings
        self._verify = verify
        self._loop = LoopThread()
        self._used: Counter[str] = Counter()
        self._using = threading.Lock()
        # The service is the way in; proxies on every node would answer nothing.
        serve.start(proxy_location="Disabled")
        self._fronts = Fronts()

    def serve(self, source: IndexSource, spec: EncoderSpec) -> ServedIndex:
        """Put the present version of a snapshot on the cluster and return it once every shard answers.

        Raises: SnapshotError, ModelMismatchError, ResourceError where the shards do not start.
        """
        place = open_place(source.location)
        stamp = _stamp(place)
        manifest = parse_manifest(place.read(MANIFEST), f"{place.location}/{MANIFEST}")
        require_student(spec, manifest.student.spec, place.location)
        transport = ServeTransport()
        snapshot = ShardedSnapshot(
            manifest, self._settings.shards, transport, self._loop, self._settings.shard_timeout_ms / 1_000
        )
        names = self._start(source.name, place, manifest, snapshot, transport)

        def newer() -> ServedIndex | None:
            try:
                changed = _stamp(place)
            except DrDecrError:
                # A store that is away for a moment has no newer version.
                return None
            return self.serve(source, spec) if changed != stamp else None

        index = ServedIndex(source.name, snapshot, newer)
        weakref.finalize(index, self._retire, names).atexit = False
        return index

    def _start(
        self, name: str, place: Place, manifest: Manifest, snapshot: ShardedSnapshot, transport: ServeTransport
    ) -> list[str]:
        from ray import serve

        wanted = self._settings
        # What else decides an answer's bytes, or the number and shape of replicas: another is another application.
        shape = (wanted.shard_threads, wanted.shard_cpus, wanted.shard_queue, tuple(_replicas(wanted).items()))
        rest = (tuning_key(place), wanted.shards, self._verify, shape)
        key = f"{manifest.version[:12]}-{hashlib.sha256(repr(rest).encode()).hexdigest()[:6]}"
        targets, names = [], []
        for shard, share in enumerate(snapshot.shares):
            source = ShardSource(
                place.location,
                manifest.version,
                tuple(share),
                verify=self._verify,
                threads=wanted.shard_threads,
                keep_copies_s=wanted.keep_copies_s,
            )
            deployment = serve.deployment(
                ShardReplica,
                name="shard",
                max_ongoing_requests=wanted.shard_queue,
                ray_actor_options={"num_cpus": wanted.shard_cpus},
                health_check_period_s=2.0,
                health_check_timeout_s=10.0,
                graceful_shutdown_timeout_s=5.0,
                max_constructor_retry_count=_BEGIN_ATTEMPTS,
                **_replicas(wanted),
            )
            names.append(f"drdecr-{name}-{key}-{shard + 1}of{len(snapshot.shares)}")
            targets.append(serve.RunTarget(target=deployment.bind(source), name=names[-1], route_prefix=None))
        log.info("shards start", index=name, version=manifest.version, shards=len(targets))
        self._hold(names)
        try:
            self._let_go_of_others(name, names)
            # To run one again that another front has started would start its replicas again.
            missing = [target for target in targets if not _waited_for(target.name)]
            if missing:
                serve.run_many(missing)
        except BaseException as problem:
            self._release(names)
            if not isinstance(problem, RuntimeError):
                raise
            raise ResourceError(f"the shards of {place.location} do not start: {problem}") from None
        transport.handles = [serve.get_app_handle(name) for name in names]
        return names

    def _hold(self, names: list[str]) -> None:
        """Keep every front from taking applications away. Raises: ResourceError."""
        with self._using:
            self._used.update(names)
            self._fronts.tell(self._used)

    def _retire(self, names: list[str]) -> None:
        """Take applications away, a while later: calls are at work on them still, or this front goes back to them."""
        log.info("shards retire", applications=names, after_s=self._settings.retire_s)
        timer = threading.Timer(self._settings.retire_s, self._release, (names,))
        timer.daemon = True
        timer.start()

    def _release(self, names: list[str]) -> None:
        import ray

        if not ray.is_initialized():
            # This process has left the cluster; Ray Serve would begin another one, on this machine.
            return
        try:
            with self._using:
                self._used.subtract(names)
                self._used = +self._used
                self._fronts.tell(self._used)
            self._delete_unused(names)
        except Exception as problem:
            # The cluster itself is gone, or goes; the next front lets go of what stays.
            log.warning("shards stay", applications=names, reason=str(problem))

    def _let_go_of_others(self, name: str, kept: list[str]) -> None:
        """Take the index's other applications away that no front uses: of fronts that have ended or did not start."""
        from ray import serve

        ours = re.compile(rf"drdecr-{re.escape(name)}-[0-9a-f]{{12}}-[0-9a-f]{{6}}-\d+of\d+")
        self._delete_unused([one for one in serve.status().applications if ours.fullmatch(one) and one not in kept])

    def _delete_unused(self, names: Collection[str]) -> None:
        from ray import serve

        if not names:
            return
        used = self._fronts.used()
        if used is None:
            log.info("shards stay", applications=names, reason="another front does not say what it uses")
            return
        for name in sorted(set(names) - used):
            try:
                serve.delete(name, _blocking=False)
                log.info("shards go", application=name)
            except Exception as problem:
                # Another front was faster.
                log.info("shards gone already", application=name, reason=str(problem))


class ServeTransport:
    """Sends calls by the handles of Ray Serve, one a shard; its router takes the replica with the fewest calls."""

    def __init__(self) -> None:
        self.handles: list[Any] = []

    async def send(self, shard: int, method: str, terms: Terms, *arguments: Any) -> Any:
        response = getattr(self.handles[shard], method).remote(terms, *arguments)
        try:
            return await response
        except asyncio.CancelledError:
            # One that waits for a replica must not wait for ever.
            response.cancel()
            raise


def _waited_for(application: str) -> bool:
    """Tell whether an application runs, once one that starts has started."""
    from ray import serve

    while True:
        found = serve.status().applications.get(application)
        if found is None or found.status.value not in ("DEPLOYING", "NOT_STARTED"):
            return found is not None and found.status.value in ("RUNNING", "UNHEALTHY")
        time.sleep(_LOOK_S)


def _replicas(wanted: ClusterSettings) -> dict[str, Any]:
    if wanted.max_replicas is not None:
        return {
            "autoscaling_config": {
                "min_replicas": wanted.replicas,
                "max_replicas": wanted.max_replicas,
                "target_ongoing_requests": wanted.shard_threads,
            }
        }
    # Replicas of one shard on one node would go together.
    spread = {"max_replicas_per_node": 1} if wanted.spread else {}
    return {"num_replicas": wanted.replicas, **spread}


def _stamp(place: Place) -> tuple[bytes, str]:
    return place.read(MANIFEST), tuning_key(place)
