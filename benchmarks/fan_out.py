"""Simulate a search over many shards: what its slowest shard, a second replica and hedging do to the tail.

A query goes to every shard at once and is answered when the last one has answered. A shard has R replicas, a replica
a queue and some cores, each of which carries out one call at a time. The front sends a call to the replica that has
fewest of its calls. With hedging, when there is no answer after the 95th percentile of a call's time, another
replica gets a second one; the first answer wins, and the other call still costs its time.

A call's processor time is drawn from those that benchmarks/capacity.py measured at its largest size, scaled to a
shard's size by its formula. Assumed, not measured: that the formula holds so far beyond what was measured,
`--network-ms` there and back, and stragglers, a share of calls that stand still for a while (a page that is read from
disk, a busy neighbour). Queries arrive at random (Poisson).

Example: python benchmarks/fan_out.py --figures benchmarks/capacity.json --passages 500000000 --shard 5000000
"""

from __future__ import annotations

import argparse
import heapq
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass
class Setting:
    """What is simulated. Times in milliseconds; `rate` in queries a second."""

    shards: int
    replicas: int
    cores: int
    rate: float
    queries: int
    network_ms: float
    straggling: float
    straggle_ms: float
    hedge: bool
    lost: bool
    """One replica of the first shard is gone: what is sent to it never returns."""


@dataclass
class Replica:
    """A queue before some cores."""

    free: int
    waiting: list[int] = field(default_factory=list)
    outstanding: int = 0


def simulate(setting: Setting, samples: np.ndarray, seed: int) -> dict[str, float]:
    """Return percentiles of the whole query in ms, the share of hedged calls and of queries without all shards."""
    rng = np.random.default_rng(seed)
    calls = setting.queries * setting.shards
    services = rng.choice(samples, 2 * calls)
    services += np.where(
        rng.random(2 * calls) < setting.straggling, rng.exponential(setting.straggle_ms, 2 * calls), 0
    )
    arrivals = np.cumsum(rng.exponential(1000 / setting.rate, setting.queries))
    # A call's own 95th percentile, with its network and without a queue.
    patience = float(np.quantile(services, 0.95)) + setting.network_ms
    replicas = [[Replica(setting.cores) for _ in range(setting.replicas)] for _ in range(setting.shards)]
    place = np.full(2 * calls, -1, np.int64)
    answered = np.full(calls, np.inf)
    hedged = 0
    events: list[tuple[float, int, int]] = []
    arrive, finish, lose_patience = 0, 1, 2
    for query, at in enumerate(arrivals):
        heapq.heappush(events, (float(at), arrive, query))

    def send(now: float, job: int, avoid: int = -1) -> None:
        """Start or queue a job: a call, or (numbered from `calls`) its hedge."""
        shard = (job % calls) % setting.shards
        own = replicas[shard]
        choices = [at for at in range(len(own)) if at != avoid]
        at = min(choices, key=lambda each: (own[each].outstanding, (job + each) % 2))
        place[job] = at
        if setting.lost and shard == 0 and at == 0:
            return
        own[at].outstanding += 1
        if own[at].free:
            own[at].free -= 1
            heapq.heappush(events, (now + float(services[job]), finish, job))
        else:
            own[at].waiting.append(job)

    while events:
        now, kind, number = heapq.heappop(events)
        if kind == arrive:
            for shard in range(setting.shards):
                call = number * setting.shards + shard
                send(now, call)
                if setting.hedge and setting.replicas > 1:
                    heapq.heappush(events, (now + patience, lose_patience, call))
        elif kind == lose_patience:
            if answered[number] == np.inf:
                hedged += 1
                send(now, number + calls, avoid=int(place[number]))
        else:
            call = number % calls
            answered[call] = min(answered[call], now + setting.network_ms)
            own = replicas[call % setting.shards][place[number]]
            own.outstanding -= 1
            if own.waiting:
                following = own.waiting.pop(0)
                heapq.heappush(events, (now + float(services[following]), finish, following))
            else:
                own.free += 1
    whole = answered.reshape(setting.queries, setting.shards).max(axis=1) - arrivals
    complete = whole[np.isfinite(whole)]
    # The first tenth meets empty queues.
    complete = complete[len(complete) // 10 :]
    p50, p95, p99 = np.quantile(complete, [0.5, 0.95, 0.99]) if len(complete) else (np.nan,) * 3
    return {
        "p50": round(float(p50), 1),
        "p95": round(float(p95), 1),
        "p99": round(float(p99), 1),
        "hedged": round(hedged / calls, 4),
        "incomplete": round(1 - np.isfinite(whole).mean(), 4),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figures", type=Path, required=True, help="what benchmarks/capacity.py wrote")
    parser.add_argument("--passages", type=int, default=500_000_000)
    parser.add_argument("--shard", type=int, default=5_000_000, help="passages a shard")
    parser.add_argument("--cores", type=int, default=8, help="of a replica")
    parser.add_argument("--rate", type=float, default=50, help="queries a second")
    parser.add_argument("--queries", type=int, default=4000)
    parser.add_argument("--network-ms", type=float, default=1.0)
    parser.add_argument("--straggling", type=float, default=0.005, help="the share of calls that stand still")
    parser.add_argument("--straggle-ms", type=float, default=200.0, help="for how long, on average (exponential)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    figures = json.loads(options.figures.read_text(encoding="utf-8"))
    largest = max(figures["sizes"], key=lambda each: each["passages"])
    formula = figures["formula"]

    def ms(passages: float) -> float:
        return formula["fixed_ms"] + formula["growing_ms"] * (passages * figures["tokens_a_passage"]) ** 0.5

    shards = -(-options.passages // options.shard)
    samples = np.array(largest["ms_quantiles"]) * ms(options.passages / shards) / ms(largest["passages"])
    print(
        f"{options.passages:,} passages, {shards} shards, {options.cores} cores a replica, {options.rate:g} "
        f"queries a second; a call takes {np.median(samples):.1f} ms (p50), {np.quantile(samples, 0.99):.1f} (p99) "
        f"of processor time, {options.straggling:.1%} stand still for {options.straggle_ms:g} ms"
    )
    print(f"{'':44}{'p50':>8}{'p95':>8}{'p99':>8}{'hedged':>9}{'without all shards':>20}")
    for title, replicas, hedge, lost in (
        ("one replica", 1, False, False),
        ("two replicas", 2, False, False),
        ("two replicas, hedged", 2, True, False),
        ("one replica of a shard gone: R = 1", 1, False, True),
        ("one replica of a shard gone: R = 2, hedged", 2, True, True),
    ):
        setting = Setting(
            shards,
            replicas,
            options.cores,
            options.rate,
            options.queries,
            options.network_ms,
            options.straggling,
            options.straggle_ms,
            hedge,
            lost,
        )
        found = simulate(setting, samples, options.seed)
        print(
            f"{title:44}{found['p50']:>8.1f}{found['p95']:>8.1f}{found['p99']:>8.1f}{found['hedged']:>9.2%}"
            f"{found['incomplete']:>20.1%}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
