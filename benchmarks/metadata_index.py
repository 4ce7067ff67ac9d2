"""Measure what metadata costs a build and a filtered query: CPU milliseconds and bytes, without any vectors.

Every passage of a file gets a date, a year, a score, a section, three tags and a flag beside its own metadata.

Example: python benchmarks/metadata_index.py --passages data/debian/passages.jsonl
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from drdecr.corpus import Metadata, Passage, read_passages
from drdecr.index.filter_masks import FilterMasks
from drdecr.index.filters import parse_filter
from drdecr.index.passages import PassageStore, PassageWriter

FILTERS: dict[str, dict[str, object]] = {
    "one id": {"must": [{"field": "id", "eq": "p17"}]},
    "a tenth": {"must": [{"field": "section", "eq": "c"}]},
    "two thirds, by date": {"must": [{"field": "date", "range": {"gte": "2015"}}]},
    "a thousandth, by number": {"must": [{"field": "score", "range": {"lt": 0.001}}]},
    "half, by number": {"must": [{"field": "score", "range": {"lt": 0.5}}]},
    "three conditions": {
        "must": [{"field": "tags", "eq": "t3"}, {"field": "year", "range": {"gt": 2020}}],
        "must_not": [{"field": "flag", "eq": True}],
    },
    "1,000 ids": {"must": [{"field": "id", "in": [f"p{i}" for i in range(1000)]}]},
    "10,000 ids": {"must": [{"field": "id", "in": [f"p{6 * i}" for i in range(10_000)]}]},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=Path, required=True)
    parser.add_argument("--count", type=int, default=60_000)
    options = parser.parse_args()
    passages = list(islice(read_passages(options.passages), options.count))
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as home:
        variants: dict[str, list[Metadata]] = {
            "no metadata": [{} for _ in passages],
            "its own": [passage.metadata for passage in passages],
            "rich": [{**passage.metadata, **fabricated(i, rng)} for i, passage in enumerate(passages)],
        }
        for name, metadata in variants.items():
            path = Path(home) / f"{name}.sqlite"
            started = time.process_time()
            with PassageWriter(path) as writer:
                rows = (Passage(p.id, p.text, p.title, own) for p, own in zip(passages, metadata, strict=True))
                for part in batches(rows):
                    writer.add(part)
            seconds = round(time.process_time() - started, 3)
            print(
                json.dumps({"build": name, "cpu_s": seconds, "bytes_a_passage": path.stat().st_size // len(passages)})
            )
        store = PassageStore(path)
        for name, wanted in FILTERS.items():
            parsed, took = parse_filter(wanted), []
            for _ in range(30):
                masks = FilterMasks([store.metadata_index(len(passages))])
                started = time.thread_time()
                mask = masks.of(parsed)
                took.append(time.thread_time() - started)
            started = time.thread_time()
            masks.of(parsed)
            again = time.thread_time() - started
            figures = {"cpu_ms": round(1000 * float(np.median(took)), 3), "again_ms": round(1000 * again, 3)}
            print(json.dumps({"filter": name, "passages": int(mask.sum()), **figures}))
        store.close()


def fabricated(number: int, rng: random.Random) -> Metadata:
    year, month, day = rng.randrange(2010, 2026), rng.randrange(1, 13), rng.randrange(1, 29)
    return {
        "id": f"p{number}",
        "date": f"{year}-{month:02}-{day:02}",
        "year": year,
        "score": rng.random(),
        "section": rng.choice("abcdefghij"),
        "tags": rng.sample([f"t{i}" for i in range(200)], 3),
        "flag": rng.random() < 0.5,
    }


def batches(passages: Iterator[Passage]) -> Iterator[list[Passage]]:
    while part := list(islice(passages, 1000)):
        yield part


if __name__ == "__main__":
    main()
