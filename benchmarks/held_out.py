"""Measure how well a student finds the held-out answers of fetched data sets, beside a teacher that reads English.

Recall@1, Recall@10 (is an answer among the first) and MRR@10 by exact ranking of the answers and other passages,
300,000 characters of each set, as `drdecr quickstart` ranks them. The teacher, and the student as its own
(`english`), read the human English of the same queries. Languages with fewer than 50 held-out queries are left out.
A teacher lies in the `models/teacher` of any run.

Example: python benchmarks/held_out.py --student models/drdecr-16 --teacher runs/released/models/teacher \
    --data data/homeassistant data/debian
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from drdecr.encoder.load import load_encoder
from training.evaluation.held_out import FEWEST_QUERIES, HeldOut, load_held_out, load_held_out_to_rank
from training.evaluation.measures import Scores
from training.report import score_encoder

SHOWN = ("success@1", "success@10", "mrr@10")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", type=Path, required=True)
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--languages", default="de,es,fr,it,ja,ko,nl,pl,pt,ru,tr,zh")
    parser.add_argument("--queries", type=int, default=100, help="a language at most")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    student = load_encoder(options.student, threads=options.threads)
    teacher = load_encoder(options.teacher, threads=options.threads) if options.teacher else None
    for data in options.data:
        held_out = read(data, options.languages.split(","), options.queries)
        found = {
            "student": score_encoder(student, held_out),
            "english": score_encoder(student, held_out, in_english=True),
        }
        if teacher is not None:
            found["teacher"] = score_encoder(teacher, held_out, in_english=True)
        for system, languages in found.items():
            about = {"set": data.name, "passages": len(held_out.passages), "system": system}
            print(json.dumps(about | shown(languages)), flush=True)


def read(data: Path, languages: Sequence[str], queries: int) -> HeldOut:
    """Read the held-out queries of those languages that have enough."""
    enough = load_held_out(data, limit=queries, fewest=min(FEWEST_QUERIES, queries)).queries
    return load_held_out_to_rank(data, [lang for lang in languages if lang in enough], limit=queries)


def shown(languages: Mapping[str, Scores]) -> dict[str, object]:
    mean = [round(fmean(scores[name] for scores in languages.values()), 4) for name in SHOWN]
    return {lang: [round(scores[name], 3) for name in SHOWN] for lang, scores in languages.items()} | {"mean": mean}


if __name__ == "__main__":
    main()
