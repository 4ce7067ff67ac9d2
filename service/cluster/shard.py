"""One replica of a shard: some segments of one version of a snapshot, behind a few threads of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from drdecr.corpus import Passage
from drdecr.encoder.types import Encoded
from drdecr.errors import UsageError
from drdecr.index.backend import Hit, SearchParams
from drdecr.index.copies import cache_directory, sweep
from drdecr.index.filters import Filter
from drdecr.index.part import SnapshotPart, divide, fetch_part, merge, part_manifest, read_version
from drdecr.index.place import open_place
from drdecr.index.snapshot import TokenMatch

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class ShardSource:
    """What a replica opens, on whatever machine it starts; when it removes copies that none reads (None: never)."""

    location: str
    version: str
    segments: tuple[int, ...]
    verify: bool
    threads: int
    keep_copies_s: float | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """What goes with every call: the version that it is about, and how long its answer is waited for."""

    version: str
    timeout_s: float


class LateError(Exception):
    """The call's time had passed before a thread was free for it."""


class OtherVersionError(Exception):
    """The call is about another version than this replica holds; an answer would mix two."""


class ShardReplica:
    """Answers calls about its segments; raises LateError and OtherVersionError where it must not answer."""

    def __init__(self, source: ShardSource) -> None:
        self._source = source
        place = open_place(source.location)
        manifest = read_version(place, source.version)
        root = fetch_part(place, manifest, source.segments, cache_directory())
        own = divide(part_manifest(manifest, source.segments), source.threads)
        shares = [[source.segments[at] for at in share] for share in own]
        self._parts = [SnapshotPart(root, manifest, share, verify=source.verify) for share in shares]
        for part in self._parts:
            part.warm_up()
        if source.keep_copies_s is not None:
            # Not at once: after a stop of the whole cluster other replicas have yet to take hold of theirs.
            sweeping = threading.Timer(source.keep_copies_s, sweep, (cache_directory(),))
            sweeping.daemon = True
            sweeping.start()
        self._threads = ThreadPoolExecutor(source.threads, thread_name_prefix="shard")

    async def search(
        self, terms: Terms, queries: Encoded, k: int, params: SearchParams, wanted: Filter | None
    ) -> list[list[Hit]]:
        """Return each query's best passages of these segments, which the threads share."""
        found = await self._run(terms, lambda part: part.search(queries, k, params, wanted), self._parts)
        return merge(found, len(queries), k)

    async def passages(self, terms: Terms, ids: Sequence[str]) -> dict[str, Passage]:
        """Return those of the passages that are here."""
        found = await self._run(terms, lambda part: part.passages(ids), self._parts)
        return {name: passage for each in found for name, passage in each.items()}

    async def explain(self, terms: Terms, query: Encoded, position: int) -> list[TokenMatch]:
        """Explain the passage at a position of the snapshot."""
        holding = [part for part in self._parts if part.holds(position)]
        if not holding:
            raise UsageError(f"position {position} is in another shard")
        (matches,) = await self._run(terms, lambda part: part.explain(query, position), holding)
        return matches

    async def _run(
        self, terms: Terms, work: Callable[[SnapshotPart], _Result], parts: Sequence[SnapshotPart]
    ) -> list[_Result]:
        if terms.version != self._source.version:
            raise OtherVersionError(f"asked for {terms.version[:12]}, this is {self._source.version[:12]}")
        # The clocks of two machines differ: the time counts from the call's arrival.
        until = time.monotonic() + terms.timeout_s

        def in_time(part: SnapshotPart) -> _Result:
            if time.monotonic() > until:
                raise LateError
            return work(part)

        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(self._threads, in_time, part) for part in parts))
