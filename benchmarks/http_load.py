"""Offer a service more and more searches a second: what it answers, how late, and how it sheds what is too much.

It starts `drdecr serve` on a student and a snapshot and offers, from this process:

1. as many searches as `--connections` clients can have answered, each asking again at once: the service's own rate;
2. `--rate` searches a second, at random moments (Poisson), whether or not the earlier ones are answered;
3. `--overload` times that rate; what is refused with 429 is not offered again;
4. `--rate` again: the service must have recovered;
5. with `--soak`, so many seconds more: `--rate`, and `--overload` times that rate in the last ten seconds of each
   minute, with the service's resident memory read between the parts. `soak_drift_mib` is the rise of a straight line
   through the readings after the first minute.

Latency counts from the moment at which a search was due, so a slow service cannot hide behind a waiting client.
Before that, another process runs the engine alone (encode, search, fetch) on as many threads: the bare rate. On a
machine that others use too, compare the processor times of a query, `bare_cpu_ms` and `peak_cpu_ms`.
The service runs without its cache of encoded queries. Queries are drawn without repeats while there are enough.

Example: python benchmarks/http_load.py --student student --snapshot snapshot --queries queries/ja.test.tsv
    --require benchmarks/http_load.yaml
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression, quantiles

import uvloop
from http_latency import QUERIES, check, service

from drdecr.corpus import read_queries

K = 10
ENGINE_BATCHES = (1, 8)
SOAK_CYCLE_S = 60.0
SOAK_BURST_S = 10.0


@dataclass
class Outcome:
    """What one phase of the load met; latencies in milliseconds, of the searches that were answered with 200."""

    seconds: float = 0.0
    late_ms: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)

    def shown(self, name: str) -> dict[str, float]:
        """Return the phase's figures under its name."""
        cuts = quantiles(self.late_ms, n=100) if len(self.late_ms) > 1 else [0.0] * 99
        figures: dict[str, float] = {
            "answered_a_second": len(self.late_ms) / self.seconds,
            "p50_ms": cuts[49],
            "p99_ms": cuts[98],
            **{f"status_{status}": count for status, count in sorted(self.statuses.items())},
        }
        return {f"{name}_{figure}": round(value, 2) for figure, value in figures.items()}

    def include(self, other: Outcome) -> None:
        """Add what a later part of the same load met."""
        self.seconds += other.seconds
        self.late_ms += other.late_ms
        self.statuses += other.statuses

    @property
    def failures(self) -> int:
        """Count the answers that a healthy service never gives: 5xx, and connections that broke."""
        return sum(count for status, count in self.statuses.items() if not status.startswith(("2", "4")))


class Client:
    """Keep-alive connections to one service; as many as there are requests at once."""

    def __init__(self, address: str, texts: list[str]) -> None:
        self.host, port = address.split(":")
        self.port = int(port)
        self.texts: Iterator[str] = self._draw(texts)
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    @staticmethod
    def _draw(texts: list[str]) -> Iterator[str]:
        while True:
            yield from texts

    async def search(self, outcome: Outcome, due: float) -> None:
        """Send one search and note its answer."""
        body = json.dumps({"query": next(self.texts), "k": K}).encode()
        head = f"POST /v1/indexes/bench/search HTTP/1.1\r\nHost: {self.host}\r\nContent-Type: application/json\r\n"
        try:
            reader, writer = await self._connection()
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            answered = await reader.readuntil(b"\r\n\r\n")
            status = answered[9:12].decode()
            length = next(
                line for line in answered.lower().split(b"\r\n") if line.startswith(b"content-length:")
            ).split(b":")[1]
            await reader.readexactly(int(length))
        except (OSError, asyncio.IncompleteReadError) as error:
            outcome.statuses[type(error).__name__] += 1
            return
        outcome.statuses[status] += 1
        if status == "200":
            outcome.late_ms.append(1_000 * (time.perf_counter() - due))
        self.idle.append((reader, writer))

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self.idle:
            reader, writer = self.idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return await asyncio.open_connection(self.host, self.port)

    async def closed(self, connections: int, seconds: float) -> Outcome:
        """Let so many clients ask without a pause."""
        outcome = Outcome()
        began = time.perf_counter()

        async def ask() -> None:
            while time.perf_counter() < began + seconds:
                await self.search(outcome, time.perf_counter())

        await asyncio.gather(*(ask() for _ in range(connections)))
        outcome.seconds = time.perf_counter() - began
        return outcome

    async def offered(self, rate: float, seconds: float) -> Outcome:
        """Offer so many searches a second, at random moments."""
        outcome = Outcome()
        moments = random.Random(1)
        began = due = time.perf_counter()
        asked = []
        while due < began + seconds:
            due += moments.expovariate(rate)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            asked.append(asyncio.create_task(self.search(outcome, due)))
        await asyncio.gather(*asked)
        outcome.seconds = time.perf_counter() - began
        return outcome

    async def metric(self, name: str) -> float:
        """Read one figure of /metrics; 0 where the service has none of that name."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        writer.write(f"GET /metrics HTTP/1.1\r\nHost: {self.host}\r\nConnection: close\r\n\r\n".encode())
        lines = (await reader.read()).decode().splitlines()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def bare_engine(student: Path, snapshot: Path, texts: list[str], threads: int) -> dict[str, float]:
    """Measure the engine alone (encode, search, fetch), by the best batch size."""
    from drdecr.encoder.load import load_encoder
    from drdecr.index.snapshot import Snapshot

    encoder = load_encoder(student, threads=1, backend="onnx")
    opened = Snapshot.open(snapshot)
    opened.warm_up()

    def answer(part: list[str]) -> None:
        for hits in opened.search(encoder.encode(part, "query"), K):
            opened.passages([hit.id for hit in hits])

    measured = []
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(answer, ([text] for text in texts[:100])))
        for size in ENGINE_BATCHES:
            parts = [texts[start : start + size] for start in range(0, len(texts), size)]
            began, began_cpu = time.perf_counter(), time.process_time()
            list(pool.map(answer, parts))
            rate = len(texts) / (time.perf_counter() - began)
            measured.append((rate, 1_000 * (time.process_time() - began_cpu) / len(texts)))
    rate, cpu_ms = max(measured)
    return {"bare_a_second": round(rate, 1), "bare_cpu_ms": round(cpu_ms, 2)}


async def load(address: str, texts: list[str], options: argparse.Namespace) -> dict[str, float]:
    """Run the phases and return their figures."""
    client = Client(address, texts)
    await client.closed(options.connections, 2.0)
    began_bytes = await client.metric("process_resident_memory_bytes")
    began_cpu_s = await client.metric("process_cpu_seconds_total")
    peak = await client.closed(options.connections, options.seconds)
    used_cpu_s = await client.metric("process_cpu_seconds_total") - began_cpu_s
    phases = {
        "peak": peak,
        "steady": await client.offered(options.rate, options.seconds),
        "overload": await client.offered(options.rate * options.overload, options.seconds),
        "recovered": await client.offered(options.rate, options.seconds),
    }
    figures = {name: value for phase, outcome in phases.items() for name, value in outcome.shown(phase).items()}
    figures["peak_cpu_ms"] = round(1_000 * used_cpu_s / max(1, len(peak.late_ms)), 2)
    figures["failures"] = sum(outcome.failures for outcome in phases.values())
    for phase in ("steady", "recovered"):
        figures[f"{phase}_refused"] = phases[phase].statuses["429"]
    grown_bytes = await client.metric("process_resident_memory_bytes") - began_bytes
    figures["grown_mib"] = round(grown_bytes / 2**20, 1)
    return figures


async def soak(address: str, texts: list[str], options: argparse.Namespace) -> dict[str, float]:
    """Offer the load for `--soak` seconds, with a burst in each minute, and follow the service's memory."""
    client = Client(address, texts)
    calm, burst = Outcome(), Outcome()
    began = time.perf_counter()
    moments_s, sizes_mib = [], []
    while time.perf_counter() - began < options.soak:
        calm.include(await client.offered(options.rate, SOAK_CYCLE_S - SOAK_BURST_S))
        burst.include(await client.offered(options.rate * options.overload, SOAK_BURST_S))
        moments_s.append(time.perf_counter() - began)
        sizes_mib.append(await client.metric("process_resident_memory_bytes") / 2**20)
        print(f"soak: {moments_s[-1]:.0f} s, {sizes_mib[-1]:.1f} MiB resident", file=sys.stderr)
    figures = calm.shown("soak") | burst.shown("soak_burst")
    if len(sizes_mib) > 2:
        rise = linear_regression(moments_s[1:], sizes_mib[1:]).slope * (moments_s[-1] - moments_s[0])
        figures["soak_drift_mib"] = round(rise, 1)
    figures |= {"soak_failures": calm.failures + burst.failures, "soak_refused": calm.statuses["429"]}
    return figures | {"soak_first_mib": round(sizes_mib[0], 1), "soak_last_mib": round(sizes_mib[-1], 1)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", type=Path, required=True)
    parser.add_argument("--snapshot", type=Path, required=True)
    parser.add_argument("--queries", type=Path, action="append", help="TSV or JSONL; repeatable")
    parser.add_argument("--rate", type=float, default=150.0, help="searches a second that must be answered")
    parser.add_argument("--overload", type=float, default=2.0, help="times that rate, to see it shed")
    parser.add_argument("--connections", type=int, default=32, help="clients that ask without a pause")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each phase")
    parser.add_argument("--soak", type=float, default=0.0, help="seconds of the long load; 0: none")
    parser.add_argument("--threads", type=int, default=2, help="of the service, and of the bare engine")
    parser.add_argument("--no-bare", action="store_true", help="leave the bare engine out")
    parser.add_argument("--require", type=Path, help="YAML of the figures that must be reached")
    options = parser.parse_args()

    texts = [query.text for path in options.queries or [] for query in read_queries(path)]
    texts = texts or [f"{query} {number}" for number in range(1_000) for query in QUERIES]
    random.Random(0).shuffle(texts)
    reached: dict[str, float] = {"queries": len(texts)}
    if not options.no_bare:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            sample = (options.student, options.snapshot, texts[-1_000:], options.threads)
            reached |= pool.apply(bare_engine, sample)
    with service(options.student, options.snapshot, options.threads) as running:
        address = f"{running.connection.host}:{running.connection.port}"
        reached |= uvloop.run(load(address, texts, options))
        if options.soak:
            reached |= uvloop.run(soak(address, texts, options))
    if not options.no_bare:
        reached["http_cost"] = round(1 - reached["peak_answered_a_second"] / reached["bare_a_second"], 3)
    print(json.dumps(reached, indent=1))
    return check(reached, options.require) if options.require else 0


if __name__ == "__main__":
    sys.exit(main())
