"""Measure the token index beside its peers, same vectors, one thread: CPU milliseconds, recall, bytes a vector.

`ours` also says how many queries a second one and two threads answer, in turns in the same run.

The truth is exact MaxSim over the float32 of the given vectors. Settings are chosen on the first half of the queries
(the cheapest that reaches a wanted recall) and reported on the second. `--peers` runs FAISS, exact torch and the
engines that are installed in other environments, each named by its Python; one that cannot run is named and left out.

The vectors come from `benchmarks/engine_data.py`.

Example: python benchmarks/engine.py --vectors engine-data --passages 50000 --work engine-work --bits 16 8 6 4 2
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import faiss
import numpy as np
from numpy.typing import NDArray

from drdecr.encoder.types import Encoded
from drdecr.index import SearchParams, Snapshot, StageTimes
from indexer.build import build_from_vectors

Search = Callable[[NDArray[np.float32]], NDArray[np.int64]]
"""Query vectors (32, dim) to the positions of the best passages, best first."""

TRUTH, QUERIES = 100, 200
BUILD_THREADS = 2
ROUNDS = 5
SETTINGS = [
    (nprobe, candidates) for nprobe in (4, 6, 8, 12, 16, 24, 32) for candidates in (60, 100, 150, 200, 300, 500, 1000)
]


class Collection:
    """The first passages of the vectors, the queries, and the exact answers, which are kept in the work directory."""

    def __init__(self, vectors: Path, passages: int, work: Path) -> None:
        self.offsets = np.load(vectors / "offsets.npy")[: passages + 1]
        if len(self.offsets) != passages + 1:
            sys.exit(f"{vectors} has fewer than {passages} passages")
        self.tokens = int(self.offsets[-1])
        self.queries = np.load(vectors / "queries.npy")[:QUERIES]
        self.dim = self.queries.shape[2]
        self.vectors = np.load(vectors / "vectors.npy", mmap_mode="r")[: self.tokens]
        path = work / f"truth-{passages}.npy"
        if not path.exists():
            np.save(path, self._exact())
        self.truth = np.load(path)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def _exact(self) -> NDArray[np.int64]:
        queries = self.queries.reshape(-1, self.dim)
        scores = np.empty((len(self.queries), len(self)), np.float32)
        for low in range(0, len(self), 2000):
            high = min(low + 2000, len(self))
            bounds = self.offsets[low : high + 1]
            block = np.asarray(self.vectors[bounds[0] : bounds[-1]], np.float32)
            best = np.maximum.reduceat(queries @ block.T, bounds[:-1] - bounds[0], axis=1)
            scores[:, low:high] = best.reshape(*self.queries.shape[:2], -1).sum(axis=1)
        return np.argsort(-scores, axis=1, kind="stable")[:, :TRUTH]


def measure(search: Search, collection: Collection, queries: range) -> dict[str, float]:
    used, found = [], []
    search(collection.queries[0])
    for query in queries:
        vectors = collection.queries[query]
        started = time.thread_time()
        found.append(search(vectors))
        used.append(1000 * (time.thread_time() - started))
    return {"p50_cpu_ms": round(float(np.median(used)), 2), **recalls(found, collection, queries)}


def recalls(found: list[NDArray[np.int64]], collection: Collection, queries: range) -> dict[str, float]:
    asked = list(zip(queries, found, strict=True))

    def recall(k: int) -> float:
        hits = [len(set(own[:k].tolist()) & set(collection.truth[q][:k].tolist())) for q, own in asked]
        return round(sum(hits) / (k * len(hits)), 4)

    return {"recall_at_10": recall(10), "recall_at_100": recall(100)}


def snapshot_of(collection: Collection, bits: int, work: Path) -> Path:
    path = work / f"snapshot-{len(collection)}-{bits}"
    if not path.exists():
        source = work / "vectors.npz"
        ids = np.array([str(i) for i in range(len(collection))])
        np.savez(source, vectors=collection.vectors, offsets=collection.offsets, ids=ids)
        faiss.omp_set_num_threads(BUILD_THREADS)
        started = time.perf_counter(), time.process_time()
        report = build_from_vectors(source, path, bits=bits)
        wall, used = time.perf_counter() - started[0], time.process_time() - started[1]
        faiss.omp_set_num_threads(1)
        source.unlink()
        emit(engine="ours", bits=bits, build_s=round(wall, 1), build_cpu_s=round(used, 1), lists=report.lists)
    return path


def our_search(snapshot: Snapshot, k: int, params: SearchParams, times: StageTimes | None = None) -> Search:
    def search(vectors: NDArray[np.float32]) -> NDArray[np.int64]:
        nothing = np.zeros(1, np.float32)
        query = Encoded(
            vectors, np.array([0, len(vectors)]), None, np.empty((0, 2), np.int32), nothing.astype(bool), nothing
        )
        hits = snapshot.search(query, k, params, times=times)[0]
        return np.array([hit.position for hit in hits], np.int64)

    return search


def ours(collection: Collection, bits: int, work: Path, wanted: float | None, settings: list[str]) -> None:
    path = snapshot_of(collection, bits, work)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and file.suffix != ".sqlite")
    half = len(collection.queries) // 2
    with Snapshot.open(path) as snapshot:
        snapshot.warm_up()
        about = {"engine": "ours", "bits": bits, "bytes": round(size / collection.tokens, 1)}
        chosen = [(None, None), *(tuple(map(int, setting.split(":"))) for setting in settings)]
        if wanted is not None:
            chosen.append(cheapest(snapshot, collection, range(half), wanted))
        for nprobe, candidates in chosen:
            times = StageTimes()
            params = SearchParams(nprobe, candidates)
            figures = measure(our_search(snapshot, 10, params, times), collection, range(half, 2 * half))
            hundred = measure(our_search(snapshot, 100, params), collection, range(half, 2 * half))
            figures["recall_at_100"], figures["p50_cpu_ms_k100"] = hundred["recall_at_100"], hundred["p50_cpu_ms"]
            stages = {
                "candidates_ms": round(1000 * times.candidates_s / (half + 1), 2),
                "score_ms": round(1000 * times.score_s / (half + 1), 2),
            }
            rates = threaded(our_search(snapshot, 10, params), collection, range(half, 2 * half))
            emit(**about, nprobe=nprobe, candidates=candidates, **figures, **stages, **rates)


def threaded(search: Search, collection: Collection, queries: range) -> dict[str, float]:
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(ROUNDS):
        for threads, own in rates.items():
            with ThreadPoolExecutor(threads) as pool:
                # Each thread's first search makes its scratch memory.
                list(pool.map(search, collection.queries[: 4 * threads]))
                started = time.perf_counter()
                list(pool.map(search, collection.queries[queries.start : queries.stop]))
                own.append(len(queries) / (time.perf_counter() - started))
    one, two = (float(np.median(own)) for own in rates.values())
    return {"queries_per_s": round(one, 1), "two_threads_over_one": round(two / one, 2)}


def cheapest(snapshot: Snapshot, collection: Collection, queries: range, wanted: float) -> tuple[int, int]:
    best: tuple[float, tuple[int, int]] | None = None
    for setting in SETTINGS:
        figures = measure(our_search(snapshot, 10, SearchParams(*setting)), collection, queries)
        if figures["recall_at_10"] >= wanted and (best is None or figures["p50_cpu_ms"] < best[0]):
            best = figures["p50_cpu_ms"], setting
    return SETTINGS[-1] if best is None else best[1]


def exact_torch(collection: Collection) -> None:
    import torch

    torch.set_num_threads(1)
    vectors = torch.from_numpy(np.asarray(collection.vectors, np.float32))
    lengths = torch.from_numpy(np.diff(collection.offsets))

    def search(query: NDArray[np.float32]) -> NDArray[np.int64]:
        scores = torch.from_numpy(query) @ vectors.T
        best = torch.segment_reduce(scores.T.contiguous(), "max", lengths=lengths, axis=0)
        return best.sum(dim=1).topk(TRUTH).indices.numpy()

    half = len(collection.queries) // 2
    figures = measure(search, collection, range(half, min(half + 10, 2 * half)))
    emit(engine="exact torch", bytes=4 * collection.dim, **figures)


def faiss_rabitq(collection: Collection, work: Path) -> None:
    """Search each query token's nearest vectors, impute what is missing, rescore the best with float16 vectors."""
    faiss.omp_set_num_threads(1)
    path = work / f"rabitq-{len(collection)}.faiss"
    if not path.exists():
        lists = 4096 if len(collection) <= 10_000 else 8192
        index = faiss.index_factory(collection.dim, f"IVF{lists},RaBitQfs", faiss.METRIC_INNER_PRODUCT)
        faiss.omp_set_num_threads(2)
        rng = np.random.default_rng(0)
        sample = np.sort(rng.choice(collection.tokens, min(collection.tokens, 32 * lists), replace=False))
        faiss.extract_index_ivf(index).cp.niter = 6
        index.train(np.asarray(collection.vectors[sample], np.float32))
        for start in range(0, collection.tokens, 2**17):
            index.add(np.asarray(collection.vectors[start : start + 2**17], np.float32))
        faiss.write_index(index, str(path))
        faiss.omp_set_num_threads(1)
    index = faiss.read_index(str(path))
    owners = np.repeat(np.arange(len(collection)), np.diff(collection.offsets))
    half = len(collection.queries) // 2
    for nprobe, nearest, rescored in ((32, 1024, 300), (32, 2048, 1000)):
        index.nprobe = nprobe

        def search(query: NDArray[np.float32], nearest: int = nearest, rescored: int = rescored) -> NDArray[np.int64]:
            scores, ids = index.search(query, nearest)
            sums = np.zeros(len(collection), np.float32)
            for own_scores, own_ids in zip(scores, ids, strict=True):
                kept = own_ids >= 0
                found = owners[own_ids[kept]][::-1]
                best = np.full(len(collection), own_scores[kept][-1], np.float32)
                best[found] = own_scores[kept][::-1]
                sums += best
            chosen = np.argpartition(-sums, rescored)[:rescored]
            exact = [
                (
                    np.asarray(collection.vectors[collection.offsets[p] : collection.offsets[p + 1]], np.float32)
                    @ query.T
                )
                .max(axis=0)
                .sum()
                for p in chosen
            ]
            return chosen[np.argsort(-np.array(exact))]

        figures = measure(search, collection, range(half, 2 * half))
        size = path.stat().st_size / collection.tokens + 2 * collection.dim
        emit(engine=f"FAISS RaBitQfs {nprobe}:{nearest}:{rescored}", bytes=round(size, 1), **figures)


def share_centroids(collection: Collection, work: Path) -> None:
    """Write the centroids and cells of our 4-bit snapshot, for a peer that is to have the same ones."""
    with Snapshot.open(snapshot_of(collection, 4, work)) as snapshot:
        (segment,) = snapshot.segments
        np.save(work / "centroids.npy", segment.quantizer.turn_back(segment.quantizer.centroids))
        np.save(work / "cells.npy", segment.cells)


def other(collection: Collection, name: str, python: str, work: Path, vectors: Path) -> None:
    """Run a peer's script in the environment that it is installed in; it prints one JSON line a setting."""
    if not Path(python).exists():
        print(f"{name}: no Python at {python}, left out", flush=True)
        return
    script = Path(__file__).parent / "peers" / f"{name}.py"
    done = subprocess.run(
        [python, str(script), str(vectors), str(len(collection)), str(work), str(len(collection.queries))],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        print(f"{name}: left out, it failed: {lines[-1] if lines else done.returncode}", flush=True)
    half = len(collection.queries) // 2
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            record = json.loads(line)
            found = [np.array(each, np.int64) for each in record.pop("found")]
            emit(engine=name, **record, **recalls(found, collection, range(half, 2 * half)))


def emit(**record: object) -> None:
    print(json.dumps(record), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=Path, required=True, help="what benchmarks/engine_data.py wrote")
    parser.add_argument("--passages", type=int, default=50_000)
    parser.add_argument("--work", type=Path, required=True, help="keeps the indexes and the exact answers")
    parser.add_argument("--bits", type=int, nargs="*", default=[16, 8, 6, 4, 2])
    parser.add_argument("--wanted", type=float, help="also find the cheapest setting with this recall at 10")
    parser.add_argument("--settings", nargs="*", default=[], metavar="NPROBE:CANDIDATES", help="beside the defaults")
    parser.add_argument("--fresh", action="store_true", help="build our snapshots again")
    parser.add_argument("--peers", action="store_true", help="exact torch and FAISS too")
    parser.add_argument("--peer", nargs=2, action="append", default=[], metavar=("NAME", "PYTHON"))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    collection = Collection(options.vectors, options.passages, options.work)
    emit(passages=len(collection), token_vectors=collection.tokens, dim=collection.dim)
    for bits in options.bits:
        if options.fresh:
            shutil.rmtree(options.work / f"snapshot-{len(collection)}-{bits}", ignore_errors=True)
        ours(collection, bits, options.work, options.wanted, options.settings)
    if options.peers:
        exact_torch(collection)
        faiss_rabitq(collection, options.work)
    if options.peer:
        share_centroids(collection, options.work)
    for name, python in options.peer:
        other(collection, name, python, options.work, options.vectors)


if __name__ == "__main__":
    main()
