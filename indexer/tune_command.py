"""`drdecr index tune`: fit the default knobs of a snapshot to its user's queries."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click
import numpy as np

from drdecr.encoder.types import Encoded
from drdecr.errors import UsageError
from drdecr.index.manifest import read_manifest
from drdecr.index.query_source import encoded_queries
from drdecr.index.snapshot import Snapshot
from drdecr.index.tuning import remove_tuning, write_tuning
from indexer.progress import BarProgress
from indexer.recall import RecallMeter, concatenate, select
from indexer.tune import TuneReport, tune

_FilePath = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command(name="tune")
@click.argument("snapshot", type=click.Path(path_type=Path))
@click.option("--queries", type=_FilePath, help="Real queries: TSV `id text` or JSONL, gzip allowed.")
@click.option("--student", type=click.Path(path_type=Path), help="Student directory that encodes the queries.")
@click.option("--vectors", type=_FilePath, help="An .npz of encoded queries, instead of --student.")
@click.option("--recall", default=0.98, show_default=True, type=click.FloatRange(0, 1, min_open=True))
@click.option("--k", default=10, show_default=True, type=click.IntRange(1, 1000), help="Hits that recall counts.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of the encoder; the default is its own.")
@click.option("--dry-run", is_flag=True, help="Measure and report, but leave the snapshot as it is.")
@click.option("--reset", is_flag=True, help="Forget the tuned setting, and measure nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def tune_command(
    snapshot: Path,
    queries: Path | None,
    student: Path | None,
    vectors: Path | None,
    recall: float,
    k: int,
    threads: int | None,
    dry_run: bool,
    reset: bool,
    as_json: bool,
) -> None:
    """Find the cheapest setting that reaches a recall on your queries, and make it the snapshot's default.

    Recall is measured against an exact search of the same snapshot. Half of the queries choose the setting, the
    other half reports. A service reads the setting when it opens the snapshot.

    Example: drdecr index tune snapshot --student student --queries queries.tsv --recall 0.98
    """
    if reset:
        if queries is not None or vectors is not None or dry_run:
            raise UsageError("--reset measures nothing; give it alone")
        read_manifest(snapshot)
        removed = remove_tuning(snapshot)
        click.echo(json.dumps({"reset": removed}) if as_json else _reset_line(snapshot, removed))
        return
    with Snapshot.open(snapshot) as opened, BarProgress() as progress:
        total, batches = encoded_queries(opened, queries, student, vectors, threads)
        encoded = _with_tokens(concatenate([batch for _, batch in batches])) if total else None
        if encoded is None or not len(encoded):
            raise UsageError("there is no query with tokens; tuning needs real queries")
        meter = RecallMeter(opened, encoded, k, advance=progress.stage("Exact answers", len(encoded), "queries"))
        report = tune(opened, meter, k, recall, progress.stage("Measuring", None, "settings"))
    if not dry_run:
        write_tuning(snapshot, report.tuning)
    _print(report, snapshot, dry_run=dry_run, as_json=as_json)


def _with_tokens(queries: Encoded) -> Encoded | None:
    kept = np.flatnonzero(np.diff(queries.offsets) > 0)
    return select(queries, kept) if len(kept) else None


def _reset_line(snapshot: Path, removed: bool) -> str:
    return f"{snapshot}: the tuned setting is gone" if removed else f"{snapshot} had no tuned setting"


def _print(report: TuneReport, snapshot: Path, *, dry_run: bool, as_json: bool) -> None:
    tuning = report.tuning
    if as_json:
        record = {
            "steps": [dataclasses.asdict(step) for step in report.steps],
            "before": dataclasses.asdict(report.before),
            "after": dataclasses.asdict(report.after),
            "exact_cpu_ms": report.exact_ms,
            "written": not dry_run,
            "tuning": tuning.model_dump(mode="json"),
        }
        click.echo(json.dumps(record))
        return
    click.echo(f"cheapest settings with recall@{tuning.k} >= {tuning.wanted_recall} on half of the queries:")
    click.echo("nprobe  candidates  recall  CPU ms")
    for step in report.steps:
        mark = " *" if (step.nprobe, step.candidates) == (tuning.nprobe, tuning.candidates) else ""
        click.echo(f"{step.nprobe:6}  {step.candidates:10}  {step.recall:.4f}  {step.cpu_ms:6.2f}{mark}")
    click.echo(f"on the other {tuning.queries} queries:")
    click.echo(f"  before  recall {report.before.recall:.4f}, {report.before.cpu_ms:.2f} CPU ms a query")
    click.echo(f"  after   recall {report.after.recall:.4f}, {report.after.cpu_ms:.2f} CPU ms a query")
    click.echo(f"  exact   {report.exact_ms:.2f} CPU ms a query")
    if report.after.recall < tuning.wanted_recall:
        click.echo("below what was wanted on these; more queries make the choice surer", err=True)
    click.echo(f"{snapshot}: {'nothing written (--dry-run)' if dry_run else 'written; undo with --reset'}")
