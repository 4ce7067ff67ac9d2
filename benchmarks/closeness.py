"""Measure what reading passages by sentences gives a student: Recall@1 and @10 by language, exact ranking.

`--data` holds passages.jsonl(.gz), queries.LANG.tsv and qrels.trec. The student's own closeness is one of the values
that are compared; 0 scores a passage by its best window.

Example: python benchmarks/closeness.py --student models/drdecr-16 --data dev --languages ar,de,en,es,zh
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np

from drdecr.corpus import read_passages, read_qrels, read_queries
from drdecr.encoder.load import load_encoder
from drdecr.encoder.windows import add_windows
from training.evaluation.ranking import relevance_of_passages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--languages", default="ar,de,en,es,zh")
    parser.add_argument("--queries", type=int, default=500, help="a language at most")
    parser.add_argument("--closeness", type=float, nargs="*", default=[0.0, 0.2, 0.4, 0.7])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    encoder = load_encoder(options.student, threads=options.threads)
    (file, *_) = [
        path for path in (options.data / "passages.jsonl.gz", options.data / "passages.jsonl") if path.is_file()
    ]
    passages, qrels = list(read_passages(file)), read_qrels(options.data / "qrels.trec")
    texts, ids = [passage.content for passage in passages], [passage.id for passage in passages]
    first = encoder.encode(texts, "passage")
    asked = {}
    for language in options.languages.split(","):
        queries = [query for query in read_queries(options.data / f"queries.{language}.tsv") if query.id in qrels]
        queries = queries[: options.queries]
        asked[language] = queries, encoder.encode([query.text for query in queries], "query")
    for closeness in options.closeness:
        spec = replace(encoder.spec, closeness=closeness)
        read = add_windows(
            first, texts, lambda rests: encoder.encode(rests, "passage"), encoder.encode_sentences, spec
        )
        found: dict[str, tuple[float, float]] = {}
        for language, (queries, encoded) in asked.items():
            best = np.argsort(-relevance_of_passages(encoded, read, spec), axis=1, kind="stable")[:, :10]
            hits = [[ids[at] in qrels[query.id] for at in row] for query, row in zip(queries, best, strict=True)]
            found[language] = fmean(row[0] for row in hits), fmean(any(row) for row in hits)
        foreign = [figures for language, figures in found.items() if language != "en"]
        shown = {language: [round(each, 3) for each in figures] for language, figures in found.items()}
        mean = [round(fmean(figures[at] for figures in foreign), 3) for at in (0, 1)]
        print(json.dumps({"closeness": closeness, "windows": len(read.windows), **shown, "mean": mean}), flush=True)


if __name__ == "__main__":
    main()
