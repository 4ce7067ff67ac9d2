"""Scores of a run against judgments, by ir-measures, for each query and in the mean.

success@k: 1 if a relevant passage is among the first k. That is what open-domain question answering (DPR, XOR-TyDi)
calls Recall@k, and what our tables show. recall@k: the share of the relevant passages that is among the first k. The
two are equal for a query with one relevant passage.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from statistics import fmean

import ir_measures
from ir_measures import RR, R, Success, nDCG

from drdecr.corpus import Qrels

Run = dict[str, dict[str, float]]
"""query id -> passage id -> score."""
Scores = dict[str, float]
"""measure -> value in [0, 1]."""

_MEASURES = {
    "success@1": Success @ 1,
    "success@10": Success @ 10,
    "mrr@10": RR @ 10,
    "ndcg@10": nDCG @ 10,
    "recall@1": R @ 1,
    "recall@10": R @ 10,
    "recall@100": R @ 100,
}
MEASURES = tuple(_MEASURES)
TABLE_MEASURES = ("success@1", "success@10", "mrr@10")


def score_queries(run: Run, qrels: Qrels, query_ids: Collection[str] | None = None) -> dict[str, Scores]:
    """Score every query that has a relevant passage; one that the run lacks, or has no hits for, scores 0.

    `query_ids` narrows the queries, for judgments that several languages share.
    """
    judged = {
        query: grades
        for query, grades in qrels.items()
        if any(grade > 0 for grade in grades.values()) and (query_ids is None or query in query_ids)
    }
    scores = {query: dict.fromkeys(MEASURES, 0.0) for query in judged}
    names = {measure: name for name, measure in _MEASURES.items()}
    answered = {query: hits for query, hits in run.items() if query in judged and hits}
    if answered:
        for found in ir_measures.iter_calc(list(_MEASURES.values()), judged, answered):
            if found.query_id in answered:
                scores[found.query_id][names[found.measure]] = float(found.value)
    return scores


def mean_scores(scores: Iterable[Mapping[str, float]]) -> Scores:
    """Average measure by measure; 0 everywhere where there is nothing to average."""
    rows = list(scores)
    return {name: fmean(row[name] for row in rows) if rows else 0.0 for name in MEASURES}


def score_run(run: Run, qrels: Qrels, query_ids: Collection[str] | None = None) -> Scores:
    """Return the mean over all judged queries; those without an answer count as 0."""
    return mean_scores(score_queries(run, qrels, query_ids).values())


def score_table(rows: Mapping[str, Scores], columns: Iterable[str] = TABLE_MEASURES, *, label: str = "") -> str:
    """Return an aligned text table: a row for each language or system, and their mean where there are several."""
    names = list(columns)
    shown = dict(rows)
    if len(rows) > 1:
        shown["mean"] = {name: fmean(row[name] for row in rows.values()) for name in names}
    width = max(len(label), *(len(name) for name in shown)) if shown else len(label)
    lines = [f"{label:{width}}" + "".join(f"{name:>12}" for name in names)]
    lines += [f"{row:{width}}" + "".join(f"{scores[name]:>12.3f}" for name in names) for row, scores in shown.items()]
    return "\n".join(lines)
