"""A snapshot whose segments are served by shards: the `SearchableSnapshot` that the service puts in front."""

from __future__ import annotations

import asyncio
import threading
import time
from bisect import bisect_right
from collections.abc import Awaitable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import structlog

from drdecr.corpus import Passage
from drdecr.encoder.types import Encoded
from drdecr.index.backend import Hit, Reach, SearchParams, StageTimes
from drdecr.index.filters import Filter
from drdecr.index.manifest import Manifest
from drdecr.index.part import bases_of, divide, merge
from drdecr.index.snapshot import TokenMatch
from service.cluster.asking import Asking, ShardGoneError
from service.cluster.shard import Terms
from service.problems import shards_missing

log = structlog.get_logger("service.cluster")

_DEFAULT = SearchParams()
# Beyond what the shards were given: the front gives up on its own loop.
_GRACE_S = 0.5
# Of the time that there is; the hits' passages get the rest.
_SEARCH_SHARE = 0.75


class Transport(Protocol):
    """How calls reach the replicas of shards; Ray Serve, or a fake in a test."""

    def send(self, shard: int, method: str, terms: Terms, *arguments: Any) -> Awaitable[Any]:
        """Send a call of `ShardReplica` to one replica of a shard."""
        ...


class ShardedSnapshot:
    """Searches all shards at once and merges; a `SearchBackend` that is safe for any number of threads.

    Every call bears the version of the snapshot, so that no answer is of two. `timeout_s` is how long a shard is
    waited for at most.
    """

    def __init__(
        self, manifest: Manifest, shards: int, transport: Transport, loop: LoopThread, timeout_s: float
    ) -> None:
        self._manifest = manifest
        self._version = manifest.version
        self._bases = bases_of(manifest)
        self.shares = divide(manifest, shards)
        self._shard_of = {segment: shard for shard, share in enumerate(self.shares) for segment in share}
        self._transport = transport
        self._loop = loop
        self._timeout_s = timeout_s
        self.asking = [Asking() for _ in self.shares]

    @property
    def version(self) -> str:
        return self._version

    @property
    def manifest(self) -> Manifest:
        return self._manifest

    def __len__(self) -> int:
        return self._manifest.passages - self._manifest.deleted

    def search(
        self,
        queries: Encoded,
        k: int,
        params: SearchParams = _DEFAULT,
        *,
        filter: Filter | None = None,
        times: StageTimes | None = None,
        reach: Reach | None = None,
    ) -> list[list[Hit]]:
        """Return each query's best passages, as one machine with all segments would.

        Without `reach` every shard must answer. Raises: Problem 503 where one that must does not, or none does.
        """
        reach, strict = reach or Reach(), reach is None
        sent = _without_places(queries)
        calls = dict.fromkeys(range(len(self.shares)), ("search", sent, k, params, filter))
        found = self._ask(calls, reach, _SEARCH_SHARE)
        if not found or (strict and reach.missing):
            raise shards_missing(reach.missing)
        return merge(found.values(), len(queries), k)

    def passage(self, passage_id: str) -> Passage | None:
        """Read a passage, or None where no shard has it. Raises: Problem 503 where one that may gives no answer."""
        reach = Reach()
        found = self._ask({shard: ("passages", [passage_id]) for shard in range(len(self.shares))}, reach)
        passage: Passage | None = next((part[passage_id] for part in found.values() if passage_id in part), None)
        if passage is None and reach.missing:
            raise shards_missing(reach.missing)
        return passage

    def passages_of(self, hits: Sequence[Hit], *, reach: Reach | None = None) -> Mapping[str, Passage]:
        """Read the passages of hits from the shards that found them; without those of shards that are gone."""
        wanted: dict[int, list[str]] = {}
        for hit in hits:
            wanted.setdefault(self._shard_at(hit.position), []).append(hit.id)
        own = Reach(None if reach is None else reach.until)
        found = self._ask({shard: ("passages", ids) for shard, ids in wanted.items()}, own)
        if own.missing and reach is None:
            raise shards_missing(own.missing)
        if reach is not None:
            reach.missing |= own.missing
        return {passage_id: passage for part in found.values() for passage_id, passage in part.items()}

    def explain(self, query: Encoded, position: int, *, reach: Reach | None = None) -> Sequence[TokenMatch] | None:
        """Explain a hit; None where its shard gives no answer, which `reach` then names.

        A shard that `reach` names already is not asked. Raises: Problem 503 for no answer without `reach`.
        """
        shard, own = self._shard_at(position), Reach(None if reach is None else reach.until)
        if reach is not None and self.name_of(shard) in reach.missing:
            return None
        found = self._ask({shard: ("explain", _without_places(query), position)}, own)
        if shard not in found:
            if reach is None:
                raise shards_missing(own.missing)
            reach.missing |= own.missing
            return None
        matches: Sequence[TokenMatch] = found[shard]
        return matches

    def calls(self) -> dict[str, int]:
        """Count the calls to shards since this version is served, by what became of them."""
        kinds = ("asked", "hedged", "retried", "missing")
        return {kind: sum(getattr(asking, kind) for asking in self.asking) for kind in kinds}

    def warm_up(self) -> None:
        """Do nothing: a replica is warm before it is sent anything."""

    def name_of(self, shard: int) -> str:
        """Return what a shard is called in answers: its place among how many."""
        return f"shard-{shard + 1}-of-{len(self.shares)}"

    def _shard_at(self, position: int) -> int:
        return self._shard_of[bisect_right(self._bases, position) - 1]

    def _ask(self, calls: Mapping[int, tuple[Any, ...]], reach: Reach, share: float = 1.0) -> dict[int, Any]:
        """Ask some shards at once, in a share of the time; those without an answer are named as missing."""
        timeout_s = self._timeout_s
        if reach.until is not None:
            timeout_s = min(timeout_s, share * max(0.0, reach.until - time.perf_counter()))
        terms = Terms(self._version, timeout_s)

        async def one(shard: int, method: str, *arguments: Any) -> tuple[int, Any]:
            try:
                answer = await self.asking[shard].ask(
                    method, lambda: self._transport.send(shard, method, terms, *arguments), timeout_s
                )
            except ShardGoneError as gone:
                log.warning("shard missing", shard=self.name_of(shard), method=method, reason=gone.reason)
                reach.missing.add(self.name_of(shard))
                return shard, None
            return shard, answer

        async def all_of_them() -> list[tuple[int, Any]]:
            return await asyncio.gather(*(one(shard, *call) for shard, call in calls.items()))

        answered = self._loop.run(all_of_them(), timeout_s + _GRACE_S)
        return {shard: answer for shard, answer in answered if answer is not None}


class LoopThread:
    """An event loop in a thread of its own, where calls to shards wait."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="shards", daemon=True)
        self._thread.start()

    def run(self, work: Any, timeout_s: float) -> Any:
        """Run a coroutine and return its result. For any thread but the loop's own."""
        future: Future[Any] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(timeout_s)

    def close(self) -> None:
        """Stop the loop; what still waits there is dropped."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _without_places(queries: Encoded) -> Encoded:
    """Leave out what no shard reads: where in the text each token stands."""
    return replace(queries, spans=np.empty((0, 2), np.int32))
