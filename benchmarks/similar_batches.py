"""Time the search for similar passages before a stage of training, in one step and in two, and how similar they are.

    python benchmarks/similar_batches.py --teacher STUDENT --texts data/interfaces/de.tsv.gz … [--limit 150000]

The texts are the English of parallel files (source, English, translation), read by the teacher, any directory that
holds a student. One step is `training.batches` with as many clusters at once as it likes, two is how it comes. The
similarity of a group of 16 is the mean cosine of its pairs by the means of their token vectors.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np

from drdecr.encoder.load import load_encoder
from training import batches
from training.teacher import TeacherVectors

GROUP = 16


def english(files: list[Path], limit: int) -> list[str]:
    found: dict[str, None] = {}
    for file in files:
        with gzip.open(file, "rt", encoding="utf-8", newline="") as lines:
            found |= dict.fromkeys(row[1] for row in csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    return list(found)[:limit]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--texts", type=Path, nargs="+", required=True)
    parser.add_argument("--limit", type=int, default=150_000)
    args = parser.parse_args()
    texts = english(args.texts, args.limit)
    with tempfile.TemporaryDirectory() as folder:
        teacher = TeacherVectors.compute(load_encoder(args.teacher), texts, Path(folder) / "teacher")
        numbers = list(range(len(texts)))
        means = batches._means(numbers, teacher)
        print(f"{len(texts)} texts, groups of {GROUP}")
        for name, at_once in (("random", 0), ("one step", len(texts)), ("two steps", batches._AT_ONCE)):
            began = time.perf_counter()
            with mock.patch.object(batches, "_AT_ONCE", at_once):
                order = batches.order_alike(numbers, teacher, GROUP if at_once else 1, seed=1)
            seconds = time.perf_counter() - began
            groups = means[np.array(order[: len(order) // GROUP * GROUP])].reshape(-1, GROUP, means.shape[1])
            sums = np.square(groups.sum(1)).sum(-1)
            cosine = float(((sums - GROUP) / (GROUP * (GROUP - 1))).mean())
            print(f"{name}: {seconds:.1f} s, cosine within a group {cosine:.3f}")


if __name__ == "__main__":
    main()
