"""Measure what each effort reaches on a snapshot, beside settings of your own: recall and CPU milliseconds a query.

Example: python benchmarks/efforts.py snapshot --vectors queries.npz --k 10 100 --settings 8:150 32:600
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from drdecr.index import SearchParams, Snapshot
from drdecr.index.backend import EFFORTS
from drdecr.index.vector_file import VectorFile
from indexer.recall import RecallMeter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("snapshot", type=Path)
    parser.add_argument("--vectors", type=Path, required=True, help="queries as `drdecr encode` writes them")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--k", type=int, nargs="*", default=[10, 100])
    parser.add_argument("--settings", nargs="*", default=[], metavar="NPROBE:CANDIDATES")
    options = parser.parse_args()
    queries = next(VectorFile(options.vectors).read(options.queries)).windows
    settings = {name: SearchParams(effort=name) for name in EFFORTS}
    settings |= {name: SearchParams(*map(int, name.split(":"))) for name in options.settings}
    with Snapshot.open(options.snapshot) as snapshot:
        snapshot.warm_up()
        for k in options.k:
            meter = RecallMeter(snapshot, queries, k)
            print(json.dumps({"k": k, "setting": "exact", "cpu_ms": round(meter.exact_ms, 2)}), flush=True)
            for name, params in settings.items():
                reached = meter.measure(params)
                print(
                    json.dumps({"k": k, "setting": name, "recall": reached.recall, "cpu_ms": reached.cpu_ms}),
                    flush=True,
                )


if __name__ == "__main__":
    main()
