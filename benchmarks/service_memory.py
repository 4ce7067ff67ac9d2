"""Measure the memory of the service: resident, its own share, anonymous, and the largest mappings.

It starts `drdecr serve` on a student and a snapshot, sends queries, and reads what the kernel counts for the process;
then it reranks long texts, and looks again after that and after a pause. The cache of query vectors fills as it does
for users: give more queries than it holds (about 1,800 of 256 dimensions).

`rss_mb` counts every page that is mapped in, `pss_mb` gives pages that other processes map too by share, and
`anonymous_mb` is what no file backs. Files of a snapshot are pages of the system's cache, which it takes back when it
needs them; they count as resident all the same. Linux only.

Example: python benchmarks/service_memory.py --student models/drdecr-16 --snapshot quickstart/snapshot
    --require benchmarks/service_memory.yaml
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections import defaultdict
from pathlib import Path

from http_latency import QUERIES, Running, check, measure, service

from drdecr.corpus import read_queries
from drdecr.encoder.onnx_runtime import KEEP_ROOM_S

_MAPPING = re.compile(r"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+ *(.*)$")
_MIB = 1024
_FIELDS = ("Rss", "Pss", "Anonymous")


def mappings(pid: int) -> dict[str, dict[str, int]]:
    """Return kB of each field by what is mapped: a file's path, `[heap]`, or `anonymous`."""
    found: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(_FIELDS, 0))
    name = "anonymous"
    for line in Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8").splitlines():
        if mapping := _MAPPING.match(line):
            name = mapping[1] or "anonymous"
        elif (field := line.split(":")[0]) in _FIELDS:
            found[name][field] += int(line.split()[1])
    return found


def totals(pid: int) -> dict[str, float]:
    """Return the figures of the process, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    peak = int(re.search(r"VmHWM:\s+(\d+)", status)[1])  # type: ignore[index]
    sums = {field: sum(each[field] for each in mappings(pid).values()) for field in _FIELDS}
    shown = {"rss_mb": sums["Rss"], "pss_mb": sums["Pss"], "anonymous_mb": sums["Anonymous"], "peak_rss_mb": peak}
    return {name: round(value / _MIB, 1) for name, value in shown.items()}


def largest(pid: int, count: int) -> list[str]:
    """Describe the mappings with the most resident pages, one a line."""
    rows = sorted(mappings(pid).items(), key=lambda item: -item[1]["Rss"])[:count]
    lines = [f"{'RSS':>8} {'PSS':>8} {'anon':>8}  MiB"]
    for name, fields in rows:
        lines.append(" ".join(f"{fields[field] / _MIB:8.1f}" for field in _FIELDS) + f"  {name}")
    return lines


def after_reranking(running: Running) -> dict[str, float]:
    """Rerank long texts, and read the memory then and after the first query that follows a pause."""
    text = "a long text that the service reads to order it by its relevance to a query " * 25
    figures = {}
    for name, texts, pause_s in (("reranked", [text] * 16, 0.0), ("later", [text[:40]], KEEP_ROOM_S + 1)):
        time.sleep(pause_s)
        body = json.dumps({"query": "programa", "texts": texts, "timeout_ms": 60_000}).encode()
        running.connection.request("POST", "/v1/rerank", body, {"Content-Type": "application/json"})
        answer = running.connection.getresponse()
        if answer.status != 200:
            raise SystemExit(f"status {answer.status}: {answer.read().decode()}")
        answer.read()
        figures[f"{name}_rss_mb"] = totals(running.pid)["rss_mb"]
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", type=Path, required=True)
    parser.add_argument("--snapshot", type=Path, required=True)
    parser.add_argument("--queries", type=Path, action="append", help="TSV or JSONL; ten built-in ones otherwise")
    parser.add_argument("--count", type=int, default=500, help="queries sent")
    parser.add_argument("--threads", type=int, help="of the service")
    parser.add_argument("--top", type=int, default=12, help="mappings shown")
    parser.add_argument("--require", type=Path, help="YAML of the figures that must be reached")
    options = parser.parse_args()

    files = options.queries or []
    texts = [query.text for path in files for query in read_queries(path)] or list(QUERIES)
    started = time.perf_counter()
    with service(options.student, options.snapshot, options.threads, cache=True) as running:
        ready_s = time.perf_counter() - started
        ready = {f"ready_{name}": value for name, value in totals(running.pid).items()}
        latency = measure(running.connection, texts, options.count)
        print("\n".join(largest(running.pid, options.top)), file=sys.stderr)
        sizes = totals(running.pid)
        reached = {"ready_s": round(ready_s, 2), **ready, **sizes, **after_reranking(running)}
    reached["p50_ms"] = latency["p50_ms"]
    print(json.dumps(reached))
    return check(reached, options.require) if options.require else 0


if __name__ == "__main__":
    sys.exit(main())
