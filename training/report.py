"""The scores of a run: measured once for each system, kept in report.json, shown as tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean

from drdecr.encoder.types import Encoder
from drdecr.encoder.windows import encode_windows
from training.evaluation.bm25 import Bm25
from training.evaluation.held_out import FEWEST_QUERIES, HeldOut, score_english, score_languages
from training.evaluation.measures import Scores
from training.evaluation.ranking import rank_encoded

Table = dict[str, Scores]
"""language -> measure -> score"""

# What the tables call the measures: success@k is the share of queries with a relevant passage among the first k.
COLUMNS = {"success@1": "Recall@1", "success@10": "Recall@10", "mrr@10": "MRR@10"}


class Report:
    """`report.json`: collection -> system -> language -> measure."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.content: dict[str, dict[str, Table]] = {}
        if file.is_file():
            self.content = json.loads(file.read_text(encoding="utf-8"))["scores"]

    def measure(self, collection: str, system: str, score: Callable[[], Table]) -> None:
        """Score a system on a collection, unless the report has it."""
        if system in self.content.get(collection, {}):
            return
        self.content.setdefault(collection, {})[system] = score()
        partial = self.file.with_name(self.file.name + ".partial")
        partial.write_text(json.dumps({"format": 1, "scores": self.content}, indent=1) + "\n", encoding="utf-8")
        partial.replace(self.file)

    def tables(self) -> str:
        """Return a text table for each collection and measure: a row a language, a column a system."""
        blocks = []
        for collection, systems in self.content.items():
            for measure, title in COLUMNS.items():
                blocks.append(f"{title}, {collection}\n{_table(systems, measure)}")
        return "\n\n".join(blocks)


def score_bm25(held_out: HeldOut) -> Table:
    """Score the floor: BM25 with each query as it is, in its own language."""
    index = Bm25(held_out.passages)
    return score_languages(held_out, index.rank)


def score_encoder(encoder: Encoder, held_out: HeldOut, *, in_english: bool = False) -> Table:
    """Score an encoder by exact ranking; `in_english` asks the same questions in English, as for a teacher."""
    passages = encode_windows(encoder, [passage.content for passage in held_out.passages])
    ids = [passage.id for passage in held_out.passages]
    score = score_english if in_english else score_languages
    return score(held_out, lambda queries: rank_encoded(encoder, queries, passages, ids))


def _table(systems: Mapping[str, Table], measure: str) -> str:
    languages = list(next(iter(systems.values())))
    if not languages:
        return f"no language has {FEWEST_QUERIES} held-out queries, so there is nothing to tell"
    width = max(9, *(len(system) + 2 for system in systems))
    lines = [f"{'':6}" + "".join(f"{system:>{width}}" for system in systems)]
    rows = [(lang, [table[lang][measure] for table in systems.values()]) for lang in languages]
    rows.append(("mean", [fmean(table[lang][measure] for lang in languages) for table in systems.values()]))
    lines += [f"{lang:6}" + "".join(f"{score:>{width}.3f}" for score in scores) for lang, scores in rows]
    return "\n".join(lines)
