"""Measure how much the sentence vector of a short query should count: Recall@1 and @10 by ramp, exact ranking.

The sentence vector of a query of n tokens counts min(1, n / ramp) times (`sentence_ramp` of the student's settings);
1 is none. `--sets` are fetched data sets, whose held-out queries ask; `--dev` holds passages.jsonl.gz, qrels.trec and
queries.LANG.tsv. Texts are encoded once.

Example: python benchmarks/sentence_ramp.py --student models/drdecr-16 --sets data/homeassistant data/debian
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
from held_out import read

from drdecr.corpus import Passage, Query, read_passages, read_qrels, read_queries
from drdecr.encoder.load import load_encoder
from drdecr.encoder.settings import read_manifest, read_settings
from drdecr.encoder.types import Encoded
from drdecr.encoder.windows import encode_windows
from training.evaluation.ranking import relevance_of_passages

Asked = tuple[str, Sequence[Passage], Mapping[str, Sequence[Query]], Mapping[str, Mapping[str, int]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", type=Path, required=True)
    parser.add_argument("--sets", type=Path, nargs="*", default=[])
    parser.add_argument("--dev", type=Path)
    parser.add_argument("--languages", default="ar,de,es,fr,it,ja,ko,nl,pl,pt,ru,th,tr,zh")
    parser.add_argument("--ramps", type=int, nargs="+", default=[1, 4, 6, 8, 10, 12])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    encoder = load_encoder(options.student, threads=options.threads)
    own = (read_settings(options.student) or read_manifest(options.student)).sentence_ramp
    for name, passages, queries, qrels in asked(options.sets, options.dev, options.languages.split(",")):
        encoded = encode_windows(encoder, [passage.content for passage in passages])
        ids = [passage.id for passage in passages]
        read_once = {lang: encoder.encode([query.text for query in some], "query") for lang, some in queries.items()}
        for ramp in options.ramps:
            found = {}
            for lang, some in queries.items():
                scores = relevance_of_passages(with_ramp(read_once[lang], own, ramp), encoded, encoder.spec)
                hits = [
                    [ids[at] in qrels[query.id] for at in row]
                    for query, row in zip(some, np.argsort(-scores, axis=1, kind="stable")[:, :10], strict=True)
                ]
                found[lang] = [fmean(row[0] for row in hits), fmean(any(row) for row in hits)]
            mean = [round(fmean(one[at] for one in found.values()), 4) for at in (0, 1)]
            tokens = fmean(float(np.diff(one.offsets).mean()) for one in read_once.values())
            print(json.dumps({"set": name, "tokens": round(tokens, 1), "ramp": ramp, "mean": mean}), flush=True)


def asked(sets: Sequence[Path], dev: Path | None, languages: Sequence[str]) -> Iterator[Asked]:
    for data in sets:
        held_out = read(data, languages, 100)
        yield data.name, held_out.passages, held_out.queries, held_out.qrels
    if dev is not None:
        qrels = read_qrels(dev / "qrels.trec")
        files = {lang: dev / f"queries.{lang}.tsv" for lang in languages}
        queries = {
            lang: [query for query in read_queries(file) if query.id in qrels][:500]
            for lang, file in files.items()
            if file.is_file()
        }
        yield dev.name, list(read_passages(dev / "passages.jsonl.gz")), queries, qrels


def with_ramp(queries: Encoded, before: int, after: int) -> Encoded:
    """Return queries whose sentence vectors count by another ramp."""
    assert queries.sentences is not None
    tokens = np.maximum(np.diff(queries.offsets), 1)
    factor = np.minimum(1, tokens / after) / np.minimum(1, tokens / before)
    return replace(queries, sentences=(queries.sentences * factor[:, None]).astype(np.float32))


if __name__ == "__main__":
    main()
