"""A snapshot's shards in this process, for tests without a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from drdecr.index.manifest import Manifest, read_manifest
from service.cluster.backend import LoopThread, ShardedSnapshot
from service.cluster.shard import ShardReplica, ShardSource, Terms


class Replicas:
    """Two replicas of each shard in this process; `trouble` decides what becomes of a call, by shard and count."""

    def __init__(self, path: Path, manifest: Manifest, shares: list[list[int]]) -> None:
        sources = [
            ShardSource(str(path), manifest.version, tuple(share), verify=False, threads=2) for share in shares
        ]
        self.replicas = [ShardReplica(source) for source in sources]
        self.calls = [0] * len(shares)
        self.cancelled = 0
        self.trouble: Callable[[int, int], float | Exception] = lambda shard, call: 0.0

    async def send(self, shard: int, method: str, terms: Terms, *arguments: Any) -> Any:
        self.calls[shard] += 1
        trouble = self.trouble(shard, self.calls[shard])
        if isinstance(trouble, Exception):
            raise trouble
        try:
            await asyncio.sleep(trouble)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return await getattr(self.replicas[shard], method)(terms, *arguments)


@contextmanager
def sharded(path: Path, shards: int, timeout_s: float) -> Iterator[tuple[ShardedSnapshot, Replicas]]:
    """Serve a snapshot in so many shards."""
    loop = LoopThread()
    manifest = read_manifest(path)
    snapshot = ShardedSnapshot(manifest, shards, None, loop, timeout_s)  # type: ignore[arg-type]
    replicas = Replicas(path, manifest, snapshot.shares)
    snapshot._transport = replicas
    yield snapshot, replicas
    loop.close()
