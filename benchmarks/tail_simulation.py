"""Simulate searches over many shards: what fan-out does to the tail, and what replicas and hedging give back.

Every shard gets every query. A replica works on one call at a time, in the order of their coming, for a time drawn
from the measured distribution (`benchmarks/capacity.py --out`), scaled so that its median is the predicted one. At
random moments a replica is slow for a while (`--slow-share` of the time, `--slow-factor` times slower, `--slow-s`
seconds a time): work of another program, a page not in memory. A call goes to the replica with the least work in
hand; a hedge goes to the next one when the first has taken longer than 95 in 100 calls do without any hedge, and is
called off if it has not begun when the first is done. A query is done when its last shard is, and the front takes
`--call-ms` for each shard before its last call is out.

Example: python benchmarks/tail_simulation.py --times capacity.json --shards 500 --shard-ms 40 --rate 10
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

SEED = 0


@njit(cache=False)  # type: ignore[untyped-decorator]
def shard_latencies(
    arrivals: NDArray[np.float64],
    service: NDArray[np.float64],
    replicas: int,
    hedge_after: float,
    slow_starts: NDArray[np.float64],
    slow_s: float,
    slow_factor: float,
) -> tuple[NDArray[np.float64], int]:
    """Return how long one shard takes for each query, and how many hedges were begun.

    Shapes: arrivals (queries,) ascending; service (2, queries) seconds of the first call and of the hedge;
    slow_starts (replicas, times) ascending. `hedge_after` is infinite without hedging.
    """
    queries = len(arrivals)
    free = np.zeros(replicas)
    done = np.zeros(queries)
    owner = np.zeros(queries, np.int64)
    begun = 0
    query = hedge = 0
    while query < queries or (hedge < queries and hedge_after < np.inf):
        first = query < queries and (
            hedge_after == np.inf or hedge >= query or arrivals[query] <= arrivals[hedge] + hedge_after
        )
        at = query if first else hedge
        now = arrivals[at] if first else arrivals[at] + hedge_after
        if not first:
            hedge += 1
            if done[at] <= now or replicas == 1:
                continue
        else:
            query += 1
        best = -1
        for replica in range(replicas):
            if not first and replica == owner[at]:
                continue
            if best < 0 or free[replica] < free[best]:
                best = replica
        start = max(now, free[best])
        if not first:
            if start >= done[at]:
                continue
            begun += 1
        seconds = service[0 if first else 1, at]
        place = np.searchsorted(slow_starts[best], start, side="right") - 1
        if place >= 0 and start < slow_starts[best, place] + slow_s:
            seconds *= slow_factor
        free[best] = start + seconds
        if first:
            owner[at] = best
            done[at] = free[best]
        else:
            done[at] = min(done[at], free[best])
    return done - arrivals, begun


def simulate(
    shards: int,
    replicas: int,
    rate: float,
    queries: int,
    times_s: NDArray[np.float64],
    call_s: float,
    hedge_after: float,
    arguments: argparse.Namespace,
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Return the latency of each query, of one shard's calls, and the share of calls that were hedged."""
    rng = np.random.default_rng(SEED)
    arrivals = np.cumsum(rng.exponential(1 / rate, queries))
    # A query that is dear on one shard is dear on all: half of what differs lies in the query.
    drawn = rng.integers(0, len(times_s), queries)
    latencies = np.zeros(queries)
    slow_times = max(1, int(arrivals[-1] * arguments.slow_share / arguments.slow_s))
    hedges = 0
    for shard in range(shards):
        own = times_s[rng.integers(0, len(times_s), (2, queries))]
        service = np.sqrt(own * times_s[drawn])
        slow = np.sort(rng.uniform(0, arrivals[-1], (replicas, slow_times)), axis=1)
        took, begun = shard_latencies(
            arrivals, service, replicas, hedge_after, slow, arguments.slow_s, arguments.slow_factor
        )
        hedges += begun
        latencies = np.maximum(latencies, took + (shard + 1) * call_s)
    return latencies, took, hedges / (shards * queries)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=Path, required=True, help="the JSON that capacity.py --out wrote")
    parser.add_argument("--shards", type=int, nargs="+", default=[16, 128, 500])
    parser.add_argument("--shard-ms", type=float, required=True, help="predicted median of a shard's CPU time")
    parser.add_argument("--rate", type=float, default=8.0, help="searches a second")
    parser.add_argument("--queries", type=int, default=20_000)
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--call-ms", type=float, default=0.0, help="of the front, for each shard")
    parser.add_argument("--slow-share", type=float, default=0.01)
    parser.add_argument("--slow-factor", type=float, default=10.0)
    parser.add_argument("--slow-s", type=float, default=0.5)
    arguments = parser.parse_args()
    measured = np.array(json.loads(arguments.times.read_text())["times"]["queries_ms"])
    times_s = measured / np.median(measured) * arguments.shard_ms / 1_000
    rows: list[dict[str, Any]] = []
    for shards in arguments.shards:
        for replicas in arguments.replicas:
            _, alone, _ = simulate(1, replicas, arguments.rate, arguments.queries, times_s, 0.0, np.inf, arguments)
            p95 = float(np.quantile(alone, 0.95))
            for name, hedge_after in (("none", np.inf), ("p95", p95)):
                if replicas == 1 and name != "none":
                    continue
                took, _, hedged = simulate(
                    shards,
                    replicas,
                    arguments.rate,
                    arguments.queries,
                    times_s,
                    arguments.call_ms / 1_000,
                    hedge_after,
                    arguments,
                )
                cuts = 1_000 * np.quantile(took, [0.5, 0.95, 0.99, 0.999])
                rows.append(
                    {
                        "shards": shards,
                        "replicas": replicas,
                        "hedge": name,
                        **dict(zip(("p50_ms", "p95_ms", "p99_ms", "p999_ms"), cuts.round(1).tolist(), strict=True)),
                        "hedged": round(hedged, 4),
                    }
                )
                print(json.dumps(rows[-1]), flush=True)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
