"""`drdecr evaluate`: score runs, or a snapshot's answers."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from drdecr.corpus import Qrels, Query, read_passages, read_qrels, read_queries, read_run
from drdecr.errors import InputError, UsageError
from training.evaluation.measures import MEASURES, Run, Scores, mean_scores, score_queries, score_table
from training.evaluation.snapshot_run import SnapshotRanker, open_snapshot_ranker
from training.evaluation.two_stage import TwoStageTeacher, cost_table, student_costs
from training.evaluation.xor import (
    XorQuestion,
    best_of,
    contexts,
    read_xor_predictions,
    read_xor_questions,
    score_xor,
    word_tokenizer,
)

Found = dict[str, tuple[Run, Sequence[Query] | None]]
"""row -> its run, and the queries that it is narrowed to."""

EXISTING = click.Path(exists=True, path_type=Path)


@click.command()
@click.option(
    "--run", "runs", type=EXISTING, multiple=True, help="TREC run to score; repeat it for several languages."
)
@click.option("--snapshot", type=EXISTING, help="Snapshot to ask instead of reading a run.")
@click.option("--student", type=EXISTING, help="Student for --snapshot.  [default: student/ beside the snapshot]")
@click.option("--queries", "query_files", type=EXISTING, multiple=True, help="Queries to ask, or to narrow a run to.")
@click.option("--qrels", type=EXISTING, help="TREC judgments.")
@click.option("--k", type=click.IntRange(1, 1000), default=100, show_default=True, help="Passages a query.")
@click.option("--xor-answers", type=EXISTING, help="XOR-TyDi questions with answers (JSONL): gives R@2kt and R@5kt.")
@click.option("--xor-predictions", type=EXISTING, help="XOR-TyDi predictions (JSON) instead of a run or snapshot.")
@click.option("--passages", type=EXISTING, help="Texts of a run's passages, for --xor-answers.")
@click.option("--translator", help="Also ask a two-stage teacher: human:FILE, apertium:PAIR or model:PATH_OR_NAME.")
@click.option("--teacher-snapshot", type=EXISTING, help="The teacher's snapshot of the same passages.")
@click.option("--teacher", type=EXISTING, help="The teacher.  [default: student/ beside its snapshot]")
@click.option("--json", "as_json", is_flag=True, help="Print every measure as JSON.")
def evaluate(
    runs: tuple[Path, ...],
    snapshot: Path | None,
    student: Path | None,
    query_files: tuple[Path, ...],
    qrels: Path | None,
    k: int,
    xor_answers: Path | None,
    xor_predictions: Path | None,
    passages: Path | None,
    translator: str | None,
    teacher_snapshot: Path | None,
    teacher: Path | None,
    as_json: bool,
) -> None:
    """Score a run, or a snapshot's answers, against judgments.

    success@k is the share of queries with a relevant passage among the first k (what DPR and XOR-TyDi call Recall@k);
    recall@k the share of the relevant passages found; mrr@10 and ndcg@10 as usual. A judged query without an answer
    counts as 0. Every file of queries or runs gives a row, named by what is before the first dot of its name.

    --xor-answers gives R@2kt and R@5kt as the published script computes them, and R@2kt-corrected and
    R@5kt-corrected: missing questions are misses, answers match whole words of the text as it was written (the script
    looks for a substring in NLTK's tokens, which respaces punctuation and rewrites quotes).

    --translator asks the teacher too: every query is translated to English, then searched in --teacher-snapshot.
    Both systems' scores are printed, and their milliseconds a query by step. In the translator's name, {lang} stands
    for the language of a file of queries.

    \b
    Examples:
      drdecr evaluate --run de.trec --qrels qrels.trec --queries de.tsv
      drdecr evaluate --snapshot snapshot --qrels qrels.trec --queries ja.tsv --queries ko.tsv
      drdecr evaluate --snapshot snapshot --qrels qrels.trec --queries es.tsv \\
        --translator apertium:spa-eng --teacher-snapshot english/snapshot --teacher english/teacher
    """
    _check_usage(runs, snapshot, query_files, qrels, xor_answers, xor_predictions, passages)
    if (translator is None) != (teacher_snapshot is None) or (teacher is not None and translator is None):
        raise UsageError(
            "a two-stage teacher is --translator and --teacher-snapshot, and --teacher where it lies apart"
        )
    if translator is not None and (snapshot is None or xor_answers is not None):
        raise UsageError("--translator stands beside --snapshot and --qrels")
    narrowed = _by_language((path, list(read_queries(path))) for path in query_files)
    if xor_answers is not None:
        # Whatever is missing shows before a snapshot is asked.
        word_tokenizer()
        questions = read_xor_questions(xor_answers)
        if xor_predictions is not None:
            predictions = read_xor_predictions(xor_predictions)
        elif snapshot is not None:
            with open_snapshot_ranker(snapshot, student) as ranker:
                asked = [ranker.rank(queries, k) for queries in narrowed.values()]
                predictions = contexts(
                    asked, ranker.texts({hit for run in asked for hits in run.values() for hit in hits})
                )
        else:
            assert passages is not None
            found_by = [read_run(run) for run in runs]
            wanted = {hit for run in found_by for hits in run.values() for hit in best_of(hits)}
            texts = {passage.id: passage.text for passage in read_passages(passages) if passage.id in wanted}
            predictions = contexts(found_by, texts)
        _print_xor(questions, predictions, as_json)
        return
    assert qrels is not None
    judgments = read_qrels(qrels)
    if snapshot is not None and translator is not None and teacher_snapshot is not None:
        with (
            open_snapshot_ranker(snapshot, student) as ranker,
            open_snapshot_ranker(teacher_snapshot, teacher) as english,
        ):
            both = TwoStageTeacher.open(translator, list(narrowed), english)
            _print_beside(ranker, both, narrowed, judgments, qrels, k, as_json=as_json)
        return
    if snapshot is not None:
        with open_snapshot_ranker(snapshot, student) as ranker:
            found: Found = {lang: (ranker.rank(queries, k), queries) for lang, queries in narrowed.items()}
    else:
        found = _read_runs(runs, narrowed)
    _print_scores(_score(found, judgments, qrels), as_json)


def _check_usage(
    runs: Sequence[Path],
    snapshot: Path | None,
    query_files: Sequence[Path],
    qrels: Path | None,
    xor_answers: Path | None,
    xor_predictions: Path | None,
    passages: Path | None,
) -> None:
    sources = [bool(runs), snapshot is not None, xor_predictions is not None]
    if sum(sources) != 1:
        raise UsageError("give exactly one of --run, --snapshot and --xor-predictions")
    if xor_predictions is not None and xor_answers is None:
        raise UsageError("--xor-predictions needs --xor-answers")
    if snapshot is not None and not query_files:
        raise UsageError("--snapshot needs --queries")
    if xor_answers is not None and query_files and snapshot is None:
        raise UsageError("--queries narrows a run beside --qrels alone; --xor-answers says which questions count")
    if xor_answers is not None and runs and passages is None:
        raise UsageError("--xor-answers with --run needs --passages, as a run holds no texts")
    if xor_answers is None and qrels is None:
        raise UsageError("--qrels is missing")


def _label(path: Path) -> str:
    return path.name.split(".")[0]


def _by_language(files: Iterable[tuple[Path, Sequence[Query]]]) -> dict[str, list[Query]]:
    """Group queries by the language they name, or else by their file. Raises: InputError for a file of none."""
    grouped: dict[str, list[Query]] = defaultdict(list)
    for path, queries in files:
        if not queries:
            raise InputError("holds no queries; name a file of `id text` lines", path=path)
        for query in queries:
            grouped[query.lang or _label(path)].append(query)
    for lang, queries in grouped.items():
        if len({query.id for query in queries}) < len(queries):
            raise UsageError(
                f"two query files named {lang!r} share ids; name the files by their languages, as ja.tsv"
            )
    return dict(grouped)


def _read_runs(runs: Sequence[Path], narrowed: Mapping[str, Sequence[Query]]) -> Found:
    named = {_label(path): read_run(path) for path in runs}
    if len(named) < len(runs):
        raise UsageError("two runs have the same name before the first dot; name them by language, as ja.run.trec")
    if not narrowed:
        return {name: (run, None) for name, run in named.items()}
    if len(named) == 1:
        (run,) = named.values()
        return {lang: (run, queries) for lang, queries in narrowed.items()}
    if lacking := sorted(named.keys() ^ narrowed.keys()):
        raise UsageError(f"runs and query files are matched by name; {', '.join(lacking)} has no counterpart")
    return {name: (run, narrowed[name]) for name, run in named.items()}


def _score(found: Found, judgments: Qrels, path: Path) -> dict[str, tuple[Scores, int]]:
    """Return each row's scores and how many queries they are the mean of."""
    rows = {}
    for name, (run, queries) in found.items():
        asked = set(run) if queries is None else {query.id for query in queries}
        if unjudged := len(asked - judgments.keys()):
            click.echo(f"drdecr: {name}: queries without judgments, left out: {unjudged}", err=True)
        scores = score_queries(run, judgments, None if queries is None else asked)
        if not asked & scores.keys():
            raise InputError(f"judges none of the queries of {name}; do the ids belong together?", path=path)
        rows[name] = (mean_scores(scores.values()), len(scores))
    return rows


def _print_beside(
    ranker: SnapshotRanker,
    teacher: TwoStageTeacher,
    queries: Mapping[str, Sequence[Query]],
    judgments: Qrels,
    path: Path,
    k: int,
    *,
    as_json: bool,
) -> None:
    """Print the student's scores, the two-stage teacher's, and what a query costs each."""
    systems: dict[str, Found] = {
        "student": {lang: (ranker.rank(some, k), some) for lang, some in queries.items()},
        "teacher": {lang: (teacher.rank(lang, some, k), some) for lang, some in queries.items()},
    }
    rows = {name: _score(found, judgments, path) for name, found in systems.items()}
    costs = {"student": student_costs(ranker, queries, k), "teacher": teacher.costs(queries, k)}
    if as_json:
        result = {name: _as_json(scores) | {"cost_ms": costs[name]} for name, scores in rows.items()}
        result["teacher"]["name"] = teacher.name
        click.echo(json.dumps(result))
        return
    for name, title in (("student", ranker.encoder.spec.name), ("teacher", teacher.name)):
        click.echo(f"{name}: {title}\n" + score_table({lang: one for lang, (one, _) in rows[name].items()}, MEASURES))
        click.echo()
    click.echo(cost_table(costs))


def _as_json(rows: Mapping[str, tuple[Scores, int]]) -> dict[str, Any]:
    scores = {name: row for name, (row, _) in rows.items()}
    return {
        "queries": {name: count for name, (_, count) in rows.items()},
        "scores": scores,
        "mean": mean_scores(scores.values()),
    }


def _print_scores(rows: Mapping[str, tuple[Scores, int]], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(_as_json(rows)))
    else:
        click.echo(score_table({name: row for name, (row, _) in rows.items()}, MEASURES))


def _print_xor(questions: Sequence[XorQuestion], predictions: Mapping[str, Sequence[str]], as_json: bool) -> None:
    scores = score_xor(questions, predictions)
    _, model = word_tokenizer()
    if as_json:
        found = {name: asdict(score) for name, score in scores.items()}
        click.echo(json.dumps({"scores": found, "sentence_model": model}))
        return
    languages = sorted({question.lang for question in questions})
    click.echo(f"{'':16}" + "".join(f"{lang:>8}" for lang in languages) + f"{'mean':>8}{'questions':>11}")
    for name, score in scores.items():
        row = "".join(
            f"{score.by_language[lang]:8.2f}" if lang in score.by_language else f"{'-':>8}" for lang in languages
        )
        click.echo(f"{name:16}{row}{score.mean:8.2f}{sum(score.counted.values()):>11,}")
