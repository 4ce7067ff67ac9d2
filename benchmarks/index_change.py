"""Measure what changes cost: recall and time of a snapshot that was added to and deleted from, beside a fresh build.

A part of the passages is built, the rest is added step by step while others are deleted and some replaced by
themselves. What is left is searched as it is, compacted, with a quantiser trained anew, and built from nothing. The
passages come in random order (no drift), or sorted by topic, so that the quantiser was trained on other topics than
those that are added (drift). `drift` is how much farther from their centroids the added tokens lie.

Example: python benchmarks/index_change.py --data engine-data --passages 10000 --bits 16
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray
from search_latency import World, check, encoded

from drdecr.encoder.types import Encoded
from drdecr.index import SearchParams, Snapshot
from drdecr.index.manifest import read_manifest
from indexer.build import build_from_vectors
from indexer.change import add_vectors, delete
from indexer.compact import compact
from indexer.drift import drift_of

# scenario: the order of the passages, the share that is built, the steps in which the rest is added
SCENARIOS = {
    "random order, half built": ("random", 0.5, 10),
    "random order, a tenth built": ("random", 0.1, 18),
    "by topic, half built": ("topic", 0.5, 10),
    "by topic, a tenth built": ("topic", 0.1, 18),
}
_K = 10
_BLOCK_TOKENS = 2**16


class Collection:
    """Passages in the order in which they come, and queries with their true best passages."""

    def __init__(self, passages: Encoded, queries: Encoded, order: NDArray[np.int64]) -> None:
        self.passages, self.queries, self.order = passages, queries, order

    def write(self, path: Path, chosen: NDArray[np.int64]) -> Path:
        """Write passages as an .npz, under ids that tell their number."""
        rows, lengths = _rows(self.passages.offsets, chosen)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        vectors = self.passages.vectors[rows].astype(np.float16)
        np.savez(path, vectors=vectors, offsets=offsets, ids=np.array([f"p{i}" for i in chosen]))
        return path

    def truth(self, chosen: NDArray[np.int64]) -> list[set[str]]:
        """Return each query's best passages among the chosen, by exact MaxSim over float32."""
        rows, lengths = _rows(self.passages.offsets, chosen)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        scores = np.empty((len(self.queries), len(chosen)), np.float32)
        first = 0
        while first < len(chosen):
            last = max(first + 1, int(np.searchsorted(starts, starts[first] + _BLOCK_TOKENS)) - 1)
            last = min(last, len(chosen))
            block = self.passages.vectors[rows[starts[first] : starts[last]]].astype(np.float32)
            for query in range(len(self.queries)):
                products = self.queries.tokens_of(query) @ block.T
                best = np.maximum.reduceat(products, starts[first:last] - starts[first], axis=1)
                scores[query, first:last] = best.sum(axis=0)
            first = last
        return [{f"p{chosen[i]}" for i in np.argpartition(-row, _K)[:_K]} for row in scores]


def measure(path: Path, queries: Encoded, truth: list[set[str]], params: SearchParams) -> dict[str, float]:
    """Search one query at a time and return recall, CPU milliseconds a query, and sizes."""
    found, used = 0, []
    with Snapshot.open(path) as snapshot:
        snapshot.warm_up()
        for number in range(len(queries)):
            query = queries.select(number, number + 1)
            began = time.thread_time()
            hits = snapshot.search(query, _K, params)[0]
            used.append(1000 * (time.thread_time() - began))
            found += len(truth[number] & {hit.id for hit in hits})
        manifest = snapshot.manifest
    return {
        "recall_at_10": round(found / (_K * len(queries)), 4),
        "p50_cpu_ms": round(float(np.median(used)), 3),
        "segments": len(manifest.segments),
        "lists": sum(quantizer.lists for quantizer in manifest.quantizers),
        "size_mb": round(manifest.size_bytes / 1e6, 1),
    }


def run(
    name: str, collection: Collection, home: Path, bits: int, params: SearchParams
) -> dict[str, dict[str, float]]:
    """Do one scenario; print a line for each state of the snapshot and return them."""
    kind, share, steps = SCENARIOS[name]
    rng = np.random.default_rng(3)
    count = len(collection.order)
    order = rng.permutation(count) if kind == "random" else collection.order
    path = home / "changed"
    shutil.rmtree(path, ignore_errors=True)
    first, *parts = np.split(order, np.linspace(share * count, count, steps, endpoint=False).astype(int))
    build_from_vectors(collection.write(home / "v.npz", first), path, bits=bits)
    alive = dict.fromkeys(first.tolist())
    began = time.process_time()
    for part in parts:
        again = rng.choice(list(alive), len(part) // 10, replace=False)
        add_vectors(path, collection.write(home / "v.npz", np.concatenate([part, again])))
        alive |= dict.fromkeys(part.tolist())
        gone = rng.choice(list(alive), len(part) // 5, replace=False)
        delete(path, [f"p{i}" for i in gone])
        for each in gone.tolist():
            del alive[each]
    spent = time.process_time() - began
    kept = np.array(sorted(alive))
    truth = collection.truth(kept)
    drift = drift_of(read_manifest(path))
    states = {"changed": {**measure(path, collection.queries, truth, params), "changes_cpu_s": round(spent, 1)}}
    states["changed"] |= {"drift": round(drift.drift or 0.0, 4), "growth": round(drift.growth, 2)}
    compact(path)
    states["compacted"] = measure(path, collection.queries, truth, params)
    compact(path, retrain=True)
    states["retrained"] = measure(path, collection.queries, truth, params)
    build_from_vectors(collection.write(home / "v.npz", kept), home / "fresh", bits=bits, force=True)
    states["fresh"] = measure(home / "fresh", collection.queries, truth, params)
    for state, figures in states.items():
        print(json.dumps({"scenario": name, "bits": bits, "state": state, **figures}), flush=True)
    return states


def by_topic(passages: Encoded) -> NDArray[np.int64]:
    """Order passages by topic: along the first principal direction of their mean vectors."""
    lengths = np.maximum(np.diff(passages.offsets), 1)[:, None]
    means = np.add.reduceat(passages.vectors.astype(np.float32), passages.offsets[:-1], axis=0) / lengths
    means -= means.mean(axis=0)
    return np.argsort(means @ np.linalg.svd(means.T @ means)[0][:, 0], kind="stable")


def load(data: Path | None, count: int, queries: int) -> Collection:
    """Read the vectors that benchmarks/engine_data.py wrote, else fabricate some."""
    if data is None:
        world = World(128, 0)
        passages = world.passages(count)
        return Collection(passages, world.queries(passages, queries, 32), by_topic(passages))
    offsets = np.load(data / "offsets.npy")[: count + 1].astype(np.int64)
    stored = np.load(data / "vectors.npy", mmap_mode="r")[: int(offsets[-1])]
    passages = encoded(stored.astype(np.float32), np.diff(offsets), None)
    asked = np.load(data / "queries.npy")[:queries].astype(np.float32)
    asking = encoded(asked.reshape(-1, asked.shape[2]), np.full(len(asked), asked.shape[1]), None)
    return Collection(passages, asking, by_topic(passages))


def _rows(offsets: NDArray[np.int64], chosen: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    lengths = offsets[chosen + 1] - offsets[chosen]
    ends = np.cumsum(lengths)
    return np.arange(int(lengths.sum())) - np.repeat(ends - lengths - offsets[chosen], lengths), lengths


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="what benchmarks/engine_data.py wrote; else vectors are fabricated")
    parser.add_argument("--passages", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--bits", type=int, default=16)
    parser.add_argument("--nprobe", type=int, help="the snapshot's own choice by default")
    parser.add_argument("--candidates", type=int)
    parser.add_argument("--scenarios", type=int, nargs="*", default=range(len(SCENARIOS)), help="their numbers")
    parser.add_argument("--require", type=Path, help="YAML of the figures that must be reached")
    options = parser.parse_args()
    collection = load(options.data, options.passages, options.queries)
    reached: dict[str, float] = {}
    params = SearchParams(options.nprobe, options.candidates)
    with tempfile.TemporaryDirectory() as home:
        for number in options.scenarios:
            name = list(SCENARIOS)[number]
            states = run(name, collection, Path(home), options.bits, params)
            for state in ("changed", "compacted"):
                lost = states["fresh"]["recall_at_10"] - states[state]["recall_at_10"]
                reached[f"lost recall, {state}: {name}"] = round(lost, 4)
    return check(reached, options.require) if options.require else 0


if __name__ == "__main__":
    sys.exit(main())
