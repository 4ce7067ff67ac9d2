"""Build and serve on two Ray nodes of this machine, kill one under load, and compare with the engine on one machine.

It moves into a network namespace of its own (`unshare --net`, needs root), where Ray's ports are on loopback only,
starts a head without processors and two nodes, and measures:

1. `build`: `drdecr index build --ray` on both nodes, and `local`, the same without, two threads; `killed`: a build of
   which a node is killed (SIGKILL to all its processes) once a quarter of the chunks is encoded;
2. `overhead`: searches one after the other over HTTP, in turns: the service alone, and before 2 shards x 2 replicas;
3. `failure`: searches at random moments (Poisson) over HTTP while one node is killed (SIGKILL to all its processes)
   and later returns. A request fails if it gets no 200, or no answer 100 ms after its deadline.

Example: python benchmarks/cluster.py --student models/drdecr-16 --passages data/debian/passages.jsonl --out out.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from statistics import quantiles
from typing import Any

import httpx
import psutil
from http_latency import QUERIES, check

from drdecr.index.place import open_place
from indexer.cluster.build import CHUNK_PASSAGES
from indexer.cluster.plan import encoded_chunks

DRDECR = str(Path(sys.executable).with_name("drdecr"))
SHARDS, REPLICAS, SEGMENTS = 2, 2, 4
STORE_BYTES = 150 * 2**20
# Calm, without the node, and after it has returned.
CALM_S, GONE_S, BACK_S = 10.0, 15.0, 25.0
SLACK_S = 0.1


def enter_namespace() -> None:
    """Run this program again where `lo` is the only network."""
    if os.environ.get("DRDECR_BENCH_INSIDE"):
        return
    command = 'ip link set lo up && exec "$@"'
    environment = os.environ | {"DRDECR_BENCH_INSIDE": "1"}
    os.execvpe("unshare", ["unshare", "--net", "bash", "-c", command, "bash", sys.executable, *sys.argv], environment)


@contextmanager
def nodes(cpus: int) -> Iterator[Any]:
    """Start a head, which runs no work, and two nodes."""
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # A node that is killed is given up after two to three seconds, not fifteen.
    os.environ.setdefault("RAY_health_check_period_ms", "1000")
    os.environ.setdefault("RAY_health_check_timeout_ms", "1000")
    os.environ.setdefault("RAY_health_check_failure_threshold", "2")
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE_BYTES},
    )
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=cpus, object_store_memory=STORE_BYTES)
        yield cluster
    finally:
        cluster.shutdown()


def kill_node(cluster: Any) -> None:
    """Kill the newer node: its raylet, its workers, everything, without a word of farewell."""
    node = max(cluster.worker_nodes, key=lambda each: dict(each.live_processes())["raylet"].pid)
    for _, started in node.live_processes():
        root = psutil.Process(started.pid)
        for process in [*root.children(recursive=True), root]:
            process.kill()
        started.wait()
    cluster.worker_nodes.remove(node)


def build(arguments: argparse.Namespace, out: Path, *more: str) -> dict[str, Any]:
    command = [DRDECR, "index", "build", "--student", arguments.student, "--passages", arguments.passages]
    command += ["--out", out, "--bits", "6", "--json", *more]
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def killed_build(cluster: Any, arguments: argparse.Namespace, out: Path, cpus: int) -> dict[str, Any]:
    """Kill a node in the middle of a build; return how it ended."""
    place = open_place(str(out.with_name(f".{out.name}.ray-build")))
    seen: dict[str, int] = {}

    def disturb() -> None:
        while not ended.is_set():
            encoded = len(encoded_chunks(place))
            if encoded >= -(-arguments.count // CHUNK_PASSAGES) // 4:
                seen["encoded_before"] = encoded
                kill_node(cluster)
                return
            time.sleep(0.1)

    ended = threading.Event()
    watcher = threading.Thread(target=disturb)
    watcher.start()
    started = time.perf_counter()
    try:
        report = build(arguments, out, "--ray", cluster.address, "--segments", str(SEGMENTS))
    finally:
        ended.set()
        watcher.join()
    seconds = time.perf_counter() - started
    cluster.add_node(num_cpus=cpus, object_store_memory=STORE_BYTES)
    damage = subprocess.run([DRDECR, "index", "verify", str(out)], check=False, stdout=subprocess.DEVNULL).returncode
    lacking = arguments.count - int(report["passages"])
    return {**seen, "seconds": round(seconds, 1), "lacking_passages": lacking, "damaged": damage}


@contextmanager
def service(student: Path, snapshot: Path, *more: str) -> Iterator[str]:
    """Run `drdecr serve` until the block ends, and give its address once it is ready."""
    command = [DRDECR, "serve", "--port", "0", "--student", str(student), "--index", f"bench={snapshot}", *more]
    with tempfile.NamedTemporaryFile("r") as log:
        with Path(log.name).open("w") as stderr:
            process = subprocess.Popen(
                command, stderr=stderr, env=os.environ | {"DRDECR_QUERY_CACHE_BYTES": "0", "DRDECR_SHARD_CPUS": "0.4"}
            )
        try:
            while True:
                events = [json.loads(line) for line in Path(log.name).read_text().splitlines() if line[:1] == "{"]
                urls = [event["url"] for event in events if event["event"] == "listening"]
                if urls and httpx.get(f"{urls[0]}/readyz").status_code == 200:
                    yield urls[0]
                    return
                if process.poll() is not None:
                    sys.exit(Path(log.name).read_text())
                time.sleep(0.2)
        finally:
            process.terminate()
            process.wait()


def one_by_one(url: str, searches: int) -> tuple[list[float], dict[str, list[float]]]:
    """Search; return milliseconds as the client sees them, and those that the service counts by stage."""
    seen: list[float] = []
    stages: dict[str, list[float]] = {}
    with httpx.Client(base_url=url, timeout=60) as client:
        for query in islice(cycle(QUERIES), searches + 20):
            began = time.perf_counter()
            answer = client.post("/v1/indexes/bench/search", json={"query": query, "k": 10})
            took = 1_000 * (time.perf_counter() - began)
            answer.raise_for_status()
            seen.append(took)
            for stage, milliseconds in answer.json()["took_ms"].items():
                stages.setdefault(stage, []).append(milliseconds)
    return seen[20:], {stage: values[20:] for stage, values in stages.items()}


def shown(name: str, values: list[float]) -> dict[str, float]:
    cuts = quantiles(values, n=100)
    return {f"{name}_p50_ms": round(cuts[49], 2), f"{name}_p95_ms": round(cuts[94], 2)}


def overhead(alone: str, together: str, searches: int) -> dict[str, Any]:
    """Compare the two services in turns, and the hits of both."""
    seen: dict[str, list[float]] = {"local": [], "cluster": []}
    stages: dict[str, dict[str, list[float]]] = {"local": {}, "cluster": {}}
    for _ in range(4):
        for name, url in (("local", alone), ("cluster", together)):
            took, own = one_by_one(url, searches // 4)
            seen[name] += took
            for stage, values in own.items():
                stages[name].setdefault(stage, []).extend(values)
    figures: dict[str, Any] = {}
    for name, took in seen.items():
        figures |= shown(name, took)
        figures |= {
            f"{name}_{stage}_p50_ms": round(quantiles(stages[name][stage], n=2)[0], 2)
            for stage in ("encode", "search", "fetch")
        }
    return figures


def same_hits(alone: str, together: str) -> int:
    """Count the queries whose hits differ in an id or a score."""
    with httpx.Client(timeout=60) as client:
        answers = [
            [
                client.post(f"{url}/v1/indexes/bench/search", json={"query": query, "k": 100}).json()["hits"]
                for url in urls
            ]
            for query in QUERIES
            for urls in [(alone, together)]
        ]
    return sum(first != second for first, second in answers)


@dataclass
class Load:
    """What a load met: for each request when it was due, how long it took in seconds, and what it got."""

    due: list[float] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)
    got: list[str] = field(default_factory=list)


async def load(url: str, rate: float, seconds: float, timeout_s: float, began: float, seen: Load) -> None:
    """Search `rate` times a second at random moments."""
    draw = random.Random(0)
    queries = cycle(QUERIES)
    limits = httpx.Limits(max_connections=1_000, max_keepalive_connections=1_000)
    async with httpx.AsyncClient(base_url=url, timeout=timeout_s + 30, limits=limits) as client:

        async def search(due: float) -> None:
            body = {"query": next(queries), "k": 10, "timeout_ms": round(1_000 * timeout_s)}
            try:
                answer = await client.post("/v1/indexes/bench/search", json=body)
                got = str(answer.status_code)
                if got == "200" and answer.json()["missing_shards"]:
                    got = "partial"
            except httpx.HTTPError as problem:
                got = type(problem).__name__
            seen.due.append(due)
            seen.took_s.append(time.perf_counter() - began - due)
            seen.got.append(got)

        async with asyncio.TaskGroup() as group:
            due = 0.0
            while due < seconds:
                due += draw.expovariate(rate)
                await asyncio.sleep(max(0.0, began + due - time.perf_counter()))
                group.create_task(search(due))


def running_replicas() -> int:
    from ray import serve

    applications = serve.status().applications.values()
    return sum(
        deployment.replica_states.get("RUNNING", 0)
        for each in applications
        for deployment in each.deployments.values()
    )


def failure(cluster: Any, url: str, rate: float, timeout_s: float, cpus: int) -> dict[str, Any]:
    """Kill a node under load and bring one back; count what fails and how soon all is well again."""
    import ray

    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    seen, began = Load(), time.perf_counter()
    moments: dict[str, float] = {}

    def disturb() -> None:
        time.sleep(CALM_S)
        moments["killed"] = time.perf_counter() - began
        kill_node(cluster)
        time.sleep(GONE_S)
        cluster.add_node(num_cpus=cpus, object_store_memory=STORE_BYTES)
        moments["returned"] = time.perf_counter() - began
        while running_replicas() < SHARDS * REPLICAS and time.perf_counter() < began + CALM_S + GONE_S + 2 * BACK_S:
            time.sleep(0.1)
        moments["whole"] = time.perf_counter() - began

    offering = threading.Thread(
        target=lambda: asyncio.run(load(url, rate, CALM_S + GONE_S + BACK_S, timeout_s, began, seen))
    )
    offering.start()
    # A node can be started from the main thread only.
    disturb()
    offering.join()
    ray.shutdown()
    requests = list(zip(seen.due, seen.took_s, seen.got, strict=True))
    failed = [each for each in requests if each[2] not in ("200", "partial") or each[1] > timeout_s + SLACK_S]
    partial = [due + took for due, took, got in requests if got != "200"]
    phases = {
        "calm": [took for due, took, _ in requests if due < moments["killed"]],
        "gone": [took for due, took, _ in requests if moments["killed"] <= due < moments["returned"]],
        "back": [took for due, took, _ in requests if due >= moments["returned"]],
    }
    figures: dict[str, Any] = {
        "requests": len(requests),
        "failed": len(failed),
        "failed_share": round(len(failed) / len(requests), 5),
        "got": {got: seen.got.count(got) for got in sorted(set(seen.got))},
        "longest_s": round(max(seen.took_s), 3),
        "past_deadline": sum(took > timeout_s + SLACK_S for took in seen.took_s),
        "not_full_after_kill_s": round(max([0.0, *(at - moments["killed"] for at in partial)]), 2),
        "not_full_after_return_s": round(max([0.0, *(at - moments["returned"] for at in partial)]), 2),
        "all_replicas_after_return_s": round(moments["whole"] - moments["returned"], 2),
    }
    for name, took in phases.items():
        cuts = quantiles([1_000 * each for each in took], n=100)
        figures |= {f"{name}_p50_ms": round(cuts[49], 1), f"{name}_p99_ms": round(cuts[98], 1)}
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", type=Path, required=True)
    parser.add_argument("--passages", type=Path, required=True)
    parser.add_argument("--count", type=int, default=20_000, help="passages that are taken")
    parser.add_argument("--chars", type=int, default=250, help="characters that are taken of each text")
    parser.add_argument("--cpus", type=int, default=1, help="processors of a node")
    parser.add_argument("--rate", type=float, default=8.0, help="searches a second while a node dies")
    parser.add_argument("--timeout", type=float, default=2.0, help="deadline of those, in seconds")
    parser.add_argument("--searches", type=int, default=400, help="of each service, for the overhead")
    parser.add_argument("--steps", nargs="+", default=["build", "killed", "local", "overhead", "failure"])
    parser.add_argument("--work", type=Path, help="where snapshots are, or are left; else a temporary directory")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    parser.add_argument("--require", type=Path, help="a YAML of bounds; exit with 1 where one is not kept")
    arguments = parser.parse_args()
    enter_namespace()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        work.mkdir(exist_ok=True)
        with arguments.passages.open(encoding="utf-8") as file, (work / "passages.jsonl").open("w") as taken:
            for record in map(json.loads, islice(file, arguments.count)):
                taken.write(json.dumps({**record, "text": record["text"][: arguments.chars]}) + "\n")
        arguments.passages = work / "passages.jsonl"
        with nodes(arguments.cpus) as cluster:
            if "build" in arguments.steps:
                shutil.rmtree(work / "cluster", ignore_errors=True)
                together = build(arguments, work / "cluster", "--ray", cluster.address, "--segments", str(SEGMENTS))
                figures["build"] = {
                    "passages": together["passages"],
                    "tokens": together["tokens"],
                    "seconds": together["seconds"],
                }
                print(json.dumps(figures["build"]), flush=True)
            if "killed" in arguments.steps:
                shutil.rmtree(work / "killed", ignore_errors=True)
                figures["killed"] = killed_build(cluster, arguments, work / "killed", arguments.cpus)
                print(json.dumps(figures["killed"]), flush=True)
            if "local" in arguments.steps:
                shutil.rmtree(work / "local", ignore_errors=True)
                alone = build(arguments, work / "local", "--threads", "2")
                figures["local"] = {"seconds": alone["seconds"]}
            snapshot = work / "cluster"
            options = ["--ray", cluster.address, "--shards", str(SHARDS), "--replicas", str(REPLICAS)]
            if {"overhead", "failure"} & set(arguments.steps):
                with service(arguments.student, snapshot, *options) as front:
                    if "overhead" in arguments.steps:
                        with service(arguments.student, snapshot) as alone_url:
                            figures["overhead"] = overhead(alone_url, front, arguments.searches)
                            figures["overhead"]["queries_with_other_hits"] = same_hits(alone_url, front)
                            print(json.dumps(figures["overhead"]), flush=True)
                    if "failure" in arguments.steps:
                        figures["failure"] = failure(
                            cluster, front, arguments.rate, arguments.timeout, arguments.cpus
                        )
    print(json.dumps(figures, indent=2))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(figures, indent=2) + "\n")
    if arguments.require is not None:
        flat = {f"{step}_{name}": value for step, own in figures.items() for name, value in own.items()}
        sys.exit(check(flat, arguments.require))


if __name__ == "__main__":
    main()
