"""Measure recall and time of filtered searches by how much the filter keeps.

Two kinds of filter over the fabricated collection of search_latency.py: `random` keeps any passages, `topics` keeps
whole topics, so that most queries ask for something that their filter leaves out: the best of the rest are then far
from the query, in lists that it would not visit.

Example: python benchmarks/filtered_search.py --passages 6000 --workdir /tmp/search
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from search_latency import TOPICS, World

from drdecr.encoder.types import Encoded
from drdecr.index import EXACT, SearchParams, Snapshot

KEPT = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


def topics_of(passages: int) -> NDArray[np.int64]:
    """Draw again what `World.passages` drew."""
    rng = np.random.default_rng(1)
    rng.normal(51, 18, passages)
    return rng.integers(0, TOPICS, passages)


def masks(kind: str, topics: NDArray[np.int64], kept: float) -> NDArray[np.bool_]:
    rng = np.random.default_rng(5)
    if kind == "random":
        return rng.random(len(topics)) < kept
    order = rng.permutation(TOPICS)[: max(1, round(kept * TOPICS))]
    return np.isin(topics, order)


def search(snapshot: Snapshot, queries: Encoded, params: SearchParams, allowed: NDArray[np.bool_]):
    found, used = [], []
    for i in range(len(queries)):
        worked = time.thread_time()
        hits = snapshot.search(queries.select(i, i + 1), 10, params, allowed=allowed)[0]
        used.append(1000 * (time.thread_time() - worked))
        found.append({hit.id for hit in hits})
    return found, float(np.percentile(used, 50))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=6000)
    parser.add_argument("--queries", type=int, default=40)
    parser.add_argument("--workdir", type=Path, required=True, help="where search_latency.py kept its snapshot")
    parser.add_argument("--nprobe", type=int)
    parser.add_argument("--candidates", type=int)
    options = parser.parse_args()
    world = World(128, 0)
    passages = world.passages(options.passages)
    queries = world.queries(passages, options.queries, 32)
    del passages
    topics = topics_of(options.passages)
    with Snapshot.open(options.workdir / f"{options.passages}-128-0") as snapshot:
        snapshot.warm_up()
        params = SearchParams(options.nprobe, options.candidates)
        for kind in ("random", "topics"):
            for kept in KEPT:
                allowed = masks(kind, topics, kept)
                truth, _ = search(snapshot, queries, EXACT, allowed)
                found, cpu_ms = search(snapshot, queries, params, allowed)
                shared = sum(len(a & b) for a, b in zip(truth, found, strict=True))
                figures = {"recall_at_10": round(shared / sum(map(len, truth)), 4), "p50_cpu_ms": round(cpu_ms, 2)}
                print(
                    json.dumps({"filter": kind, "kept": kept, "passages": int(allowed.sum()), **figures}), flush=True
                )


if __name__ == "__main__":
    main()
