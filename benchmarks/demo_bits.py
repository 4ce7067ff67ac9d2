"""Compare snapshots of the same passages in other bits: what the demo's queries find in each.

Takes the first `--count` queries a language whose answer is in the snapshots; prints means over languages, without
English.

Example: python benchmarks/demo_bits.py --student models/drdecr-16 --data quickstart/data/debian snapshot-16
    snapshot-6
"""

from __future__ import annotations

import argparse
import json
from itertools import islice
from pathlib import Path
from statistics import fmean

from drdecr.corpus import read_qrels, read_queries
from drdecr.encoder.load import load_encoder
from drdecr.index import Snapshot

DEPTHS = (1, 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="what `drdecr data fetch` wrote")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--least", type=int, default=50, help="queries that a language must have to count")
    parser.add_argument("snapshots", type=Path, nargs="+")
    options = parser.parse_args()

    encoder = load_encoder(options.student, threads=1)
    judged = read_qrels(options.data / "qrels.test.trec")
    for place in options.snapshots:
        with Snapshot.open(place) as snapshot:
            snapshot.require(encoder.spec)
            means: dict[int, list[float]] = {depth: [] for depth in DEPTHS}
            for file in sorted((options.data / "queries").glob("*.test.tsv")):
                asked = (query for query in read_queries(file) if snapshot.passages(list(judged.get(query.id, {}))))
                queries = list(islice(asked, options.count))
                if file.name.startswith("en.") or len(queries) < options.least:
                    continue
                vectors = encoder.encode([query.text for query in queries], "query")
                found = [[hit.id for hit in hits] for hits in snapshot.search(vectors, max(DEPTHS))]
                for depth, values in means.items():
                    answered = [
                        any(judged[query.id].get(each, 0) > 0 for each in ids[:depth])
                        for query, ids in zip(queries, found, strict=True)
                    ]
                    values.append(fmean(answered))
            shown = {f"recall_at_{depth}": round(fmean(values), 4) for depth, values in means.items()}
            print(json.dumps({"snapshot": str(place), "languages": len(means[1]), **shown}))


if __name__ == "__main__":
    main()
