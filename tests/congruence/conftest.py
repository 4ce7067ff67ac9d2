"""One snapshot of several segments, and everything that can search it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from changing import passage_file
from fabricated_vectors import WordEncoder

from drdecr.index import Snapshot
from drdecr.index.manifest import read_manifest
from indexer.build import build
from indexer.change import add, delete
from service.cluster.backend import LoopThread, ShardedSnapshot
from service.cluster.shard import ShardReplica, ShardSource, Terms
from service.settings import Settings

ENCODER = WordEncoder(16, 8, limit=8)
BY_SENTENCE = WordEncoder(16, 8, limit=8, closeness=0.4)


def make_texts(count: int, seed: int) -> dict[str, str]:
    """Make passages of 1 to 24 words out of few, so that many score alike; six words are a sentence."""
    rng = np.random.default_rng(seed)
    return {
        f"p{seed}-{at}": " ".join(
            f"Word{number}" if place % 6 == 0 else f"word{number}" + "." * (place % 6 == 5)
            for place, number in enumerate(rng.integers(0, 60, length).tolist())
        )
        for at, length in enumerate(rng.integers(1, 25, count))
    }


@pytest.fixture(scope="package", params=[ENCODER, BY_SENTENCE], ids=["windows", "sentences"])
def encoder(request: pytest.FixtureRequest) -> WordEncoder:
    return request.param


@pytest.fixture(scope="package")
def snapshot_path(encoder: WordEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five segments of very different sizes; passages of several windows, replaced ones and deleted ones."""
    root = tmp_path_factory.mktemp("congruence")
    path = root / "snapshot"
    build(encoder, passage_file(root / "first.jsonl", make_texts(900, 0)), path)
    for number, count in enumerate((380, 150, 60, 2), start=1):
        texts = make_texts(count, number)
        texts |= {f"p0-{at}": text for at, text in enumerate(make_texts(number, 90 + number).values())}
        add(path, encoder, passage_file(root / f"{number}.jsonl", texts))
    delete(path, [f"p0-{at}" for at in range(100, 160)])
    assert len(read_manifest(path).segments) == 5
    return path


class InProcess:
    """Replicas of shards in this process, in place of a cluster's."""

    def __init__(self, path: Path, version: str, shares: list[list[int]]) -> None:
        sources = [ShardSource(str(path), version, tuple(share), verify=True, threads=3) for share in shares]
        self.replicas = [ShardReplica(source) for source in sources]

    async def send(self, shard: int, method: str, terms: Terms, *arguments: Any) -> Any:
        await asyncio.sleep(0)
        return await getattr(self.replicas[shard], method)(terms, *arguments)


def sharded(path: Path, shards: int, loop: LoopThread) -> ShardedSnapshot:
    manifest = read_manifest(path)
    snapshot = ShardedSnapshot(manifest, shards, None, loop, 30.0)  # type: ignore[arg-type]
    snapshot._transport = InProcess(path, manifest.version, snapshot.shares)
    return snapshot


@pytest.fixture(scope="package")
def shard_loop() -> Iterator[LoopThread]:
    loop = LoopThread()
    yield loop
    loop.close()


@pytest.fixture(scope="package")
def shards_on_ray(
    request: pytest.FixtureRequest, encoder: WordEncoder, snapshot_path: Path
) -> Iterator[ShardedSnapshot]:
    """The snapshot in two shards of one replica each, on the cluster until its last test has ended."""
    from service.cluster.serve import Shards

    cluster = request.getfixturevalue("cluster")
    settings = Settings(
        student="student",
        index=f"congruence={snapshot_path}",
        ray=cluster.address,
        shards=2,
        replicas=1,
        shard_cpus=0.5,
        shard_timeout_ms=30_000,
        retire_s=0.0,
    )
    assert settings.cluster is not None
    index = Shards(settings.cluster, verify=True).serve(settings.index[0], encoder.spec)
    yield index.snapshot


@pytest.fixture(params=["2 shards", "9 shards", "ray"])
def backend(request: pytest.FixtureRequest, snapshot_path: Path, shard_loop: LoopThread) -> ShardedSnapshot:
    """Everything that must answer as the local engine does."""
    if request.param == "ray":
        return request.getfixturevalue("shards_on_ray")
    return sharded(snapshot_path, int(request.param.split()[0]), shard_loop)


@pytest.fixture(scope="package")
def local(snapshot_path: Path) -> Iterator[Snapshot]:
    with Snapshot.open(snapshot_path, verify=True) as snapshot:
        yield snapshot
