"""Measure a query over HTTP: from the request's first byte to the answer's last, one query after the other.

It starts `drdecr serve` on a student and a snapshot, and sends each query over one keep-alive connection. `cpu_ms`,
the service's processor time for a query, is the figure to compare on a machine that others use too.

Example: python benchmarks/http_latency.py --student student --snapshot snapshot --queries queries.ja.tsv
    --require benchmarks/http_latency.yaml
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean, quantiles
from typing import IO, NamedTuple
from urllib.parse import urlsplit

import yaml

from drdecr.corpus import read_queries

QUERIES = (
    "画像を編集するプログラム",
    "비밀번호 관리자",
    "проигрыватель видео с субтитрами",
    "Dateien komprimieren und verschlüsseln",
    "jeu d’échecs contre l’ordinateur",
    "servidor web ligero para archivos estáticos",
    "editor de texto para programadores",
    "Türkçe yazım denetleyicisi",
    "下载整个网站的工具",
    "How do I turn the lights on when somebody comes home?",
)


class Running(NamedTuple):
    """A service that is ready: a connection to it, and the id of its process."""

    connection: http.client.HTTPConnection
    pid: int


@contextmanager
def service(student: Path, snapshot: Path, threads: int | None, *, cache: bool = False) -> Iterator[Running]:
    """Run `drdecr serve` on a free port until the block ends. Its log goes to a file: a full pipe would stop it.

    Without its `cache` of query vectors each query is encoded, also where the same few come again and again.
    """
    command = [Path(sys.executable).with_name("drdecr"), "serve", "--port", "0", "--student", student]
    command += ["--index", f"bench={snapshot}", *(["--threads", str(threads)] if threads else [])]
    with tempfile.TemporaryFile("w+") as log:
        environment = os.environ | ({} if cache else {"DRDECR_QUERY_CACHE_BYTES": "0"})
        process = subprocess.Popen(list(map(str, command)), stderr=log, env=environment)
        try:
            connection = http.client.HTTPConnection(wait_for_address(process, log), timeout=60)
            yield Running(connection, process.pid)
        finally:
            process.terminate()
            process.wait()


def wait_for_address(process: subprocess.Popen[bytes], log: IO[str]) -> str:
    """Return host:port once the service is ready."""
    while process.poll() is None:
        log.seek(0)
        entries = {entry["event"]: entry for entry in map(json.loads, log)}
        if "ready" in entries:
            return urlsplit(entries["listening"]["url"]).netloc
        time.sleep(0.02)
    log.seek(0)
    raise SystemExit(f"the service did not start:\n{log.read()}")


def measure(connection: http.client.HTTPConnection, texts: list[str], count: int) -> dict[str, float]:
    """Send queries, the first tenth of them unmeasured."""
    took, stages, cpu_before_s = [], defaultdict(list), 0.0
    warm_up = count // 10
    for number in range(warm_up + count):
        if number == warm_up:
            cpu_before_s = cpu_seconds(connection)
        body = json.dumps({"query": texts[number % len(texts)], "k": 10}).encode()
        started = time.perf_counter()
        connection.request("POST", "/v1/indexes/bench/search", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        milliseconds = 1_000 * (time.perf_counter() - started)
        if answer.status != 200:
            raise SystemExit(f"status {answer.status}: {content.decode()}")
        if number >= warm_up:
            took.append(milliseconds)
            for stage, value in json.loads(content)["took_ms"].items():
                stages[stage].append(value)
    cpu_ms = 1_000 * (cpu_seconds(connection) - cpu_before_s) / count
    cuts = quantiles(took, n=100)
    means = {f"{stage}_ms": round(fmean(values), 3) for stage, values in stages.items()}
    shown = {"p50_ms": cuts[49], "p95_ms": cuts[94], "mean_ms": fmean(took), "cpu_ms": cpu_ms}
    return {**{name: round(value, 3) for name, value in shown.items()}, **means}


def cpu_seconds(connection: http.client.HTTPConnection) -> float:
    """Return the processor time that the service has used."""
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("process_cpu_seconds_total"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", type=Path, required=True)
    parser.add_argument("--snapshot", type=Path, required=True)
    parser.add_argument("--queries", type=Path, action="append", help="TSV or JSONL; ten built-in ones otherwise")
    parser.add_argument("--count", type=int, default=500, help="queries measured")
    parser.add_argument("--threads", type=int, help="of the service")
    parser.add_argument("--require", type=Path, help="YAML of the figures that must be reached")
    options = parser.parse_args()

    files = options.queries or []
    texts = [query.text for path in files for query in read_queries(path)] or list(QUERIES)
    with service(options.student, options.snapshot, options.threads) as running:
        reached = measure(running.connection, texts, options.count)
    print(json.dumps(reached))
    return check(reached, options.require) if options.require else 0


def check(reached: dict[str, float], required: Path) -> int:
    """Print OK or FAIL with both numbers for each figure of the YAML; 0 when all are reached."""
    status = 0
    for name, limit in yaml.safe_load(required.read_text(encoding="utf-8"))["at_most"].items():
        good = reached[name] <= limit
        print(f"{'OK' if good else 'FAIL'}  {name} {reached[name]} <= {limit}")
        status |= not good
    return status


if __name__ == "__main__":
    sys.exit(main())
