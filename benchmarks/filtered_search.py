"""Measure recall and time of filtered searches by how much the filter keeps.

`random` filters keep any passages; `clusters` filters keep whole clusters of passages that are alike, so that most
queries ask for something that their filter leaves out, and the best of the rest are far from the query.

Example: python benchmarks/filtered_search.py snapshot --vectors queries.npz
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from drdecr.encoder.types import Encoded
from drdecr.index import EXACT, SearchParams, Snapshot
from drdecr.index.vector_file import VectorFile

CLUSTERS = 200


def clusters_of(snapshot: Snapshot) -> NDArray[np.int64]:
    """Cluster the passages by the mean of their token vectors, (passages,)."""
    means = np.stack([snapshot.vectors_of(position).mean(axis=0) for position in range(len(snapshot))])
    kmeans = faiss.Kmeans(means.shape[1], CLUSTERS, niter=10, seed=1, max_points_per_centroid=100)
    kmeans.train(means)
    return kmeans.index.search(means, 1)[1][:, 0]


def mask_of(kind: str, clusters: NDArray[np.int64], kept: float) -> NDArray[np.bool_]:
    rng = np.random.default_rng(5)
    if kind == "random":
        return rng.random(len(clusters)) < kept
    sizes = np.bincount(clusters, minlength=CLUSTERS)
    order = rng.permutation(CLUSTERS)
    chosen = order[: np.searchsorted(np.cumsum(sizes[order]), kept * len(clusters)) + 1]
    return np.isin(clusters, chosen)


def search(
    snapshot: Snapshot, queries: Encoded, params: SearchParams, allowed: NDArray[np.bool_] | None
) -> tuple[list[set[str]], float]:
    found, used = [], []
    for i in range(len(queries)):
        worked = time.thread_time()
        hits = snapshot.search(queries.select(i, i + 1), 10, params, allowed=allowed)[0]
        used.append(1000 * (time.thread_time() - worked))
        found.append({hit.id for hit in hits})
    return found, float(np.percentile(used, 50))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("snapshot", type=Path)
    parser.add_argument("--vectors", type=Path, required=True, help="queries as `drdecr encode` writes them")
    parser.add_argument("--queries", type=int, default=40)
    parser.add_argument("--kept", type=float, nargs="*", default=[0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.9])
    parser.add_argument("--settings", nargs="*", default=["0:0"], metavar="NPROBE:CANDIDATES", help="0: the default")
    options = parser.parse_args()
    queries = next(VectorFile(options.vectors).read(options.queries))
    with Snapshot.open(options.snapshot) as snapshot:
        snapshot.warm_up()
        clusters = clusters_of(snapshot)
        for kind in ("random", "clusters"):
            for kept in options.kept:
                allowed = mask_of(kind, clusters, kept)
                truth, exact_ms = search(snapshot, queries, EXACT, allowed)
                line = {"filter": kind, "kept": kept, "passages": int(allowed.sum()), "exact_ms": round(exact_ms, 2)}
                for name in options.settings:
                    knobs = [int(each) or None for each in name.split(":")]
                    found, cpu_ms = search(snapshot, queries, SearchParams(*knobs), allowed)
                    shared = sum(len(a & b) for a, b in zip(truth, found, strict=True))
                    line[name] = f"{shared / sum(map(len, truth)):.4f} {cpu_ms:.2f} ms"
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
