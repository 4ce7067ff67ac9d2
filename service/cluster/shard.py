"""One replica of a shard: some segments of one version of a snapshot, behind a few threads of its own."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from drdecr.corpus import Passage
from drdecr.encoder.types import Encoded
from drdecr.index.backend import Hit, SearchParams
from drdecr.index.filters import Filter
from drdecr.index.part import SnapshotPart, fetch_part, read_version
from drdecr.index.place import open_place
from drdecr.index.snapshot import TokenMatch

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class ShardSource:
    """What a replica opens, on whatever machine it starts."""

    location: str
    version: str
    segments: tuple[int, ...]
    verify: bool
    threads: int


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
        self._part = SnapshotPart(root, manifest, source.segments, verify=source.verify)
        self._part.warm_up()
        self._threads = ThreadPoolExecutor(source.threads, thread_name_prefix="shard")

    async def search(
        self, terms: Terms, queries: Encoded, k: int, params: SearchParams, wanted: Filter | None
    ) -> list[list[Hit]]:
        """Return each query's best passages of these segments."""
        return await self._run(terms, lambda: self._part.search(queries, k, params, wanted))

    async def passages(self, terms: Terms, ids: Sequence[str]) -> dict[str, Passage]:
        """Return those of the passages that are here."""
        return await self._run(terms, lambda: self._part.passages(ids))

    async def explain(self, terms: Terms, query: Encoded, position: int) -> list[TokenMatch]:
        """Explain the passage at a position of the snapshot."""
        return await self._run(terms, lambda: self._part.explain(query, position))

    async def _run(self, terms: Terms, work: Callable[[], _Result]) -> _Result:
        if terms.version != self._source.version:
            raise OtherVersionError(f"asked for {terms.version[:12]}, this is {self._source.version[:12]}")
        # The clocks of two machines differ: the time counts from the call's arrival.
        until = time.monotonic() + terms.timeout_s

        def in_time() -> _Result:
            if time.monotonic() > until:
                raise LateError
            return work()

        return await asyncio.get_running_loop().run_in_executor(self._threads, in_time)


def cache_directory() -> Path:
    """Return where copies of remote snapshots lie on this machine: DRDECR_CACHE, or a directory of the user's."""
    return Path(os.environ.get("DRDECR_CACHE") or f"{tempfile.gettempdir()}/drdecr-cache-{os.getuid()}")
