"""`drdecr index`: build, change, verify and inspect snapshots."""

from __future__ import annotations

import dataclasses
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path

import click

from drdecr.errors import SnapshotCorruptError, UsageError
from drdecr.index.codec import BITS
from drdecr.index.place import is_url
from drdecr.ray_cluster import leave_cluster
from indexer.build import BuildReport, build, build_from_vectors
from indexer.change_commands import (
    AnyPath,
    FilePath,
    add_command,
    compact_command,
    delete_command,
    merge_command,
    print_losses,
    rollback_command,
)
from indexer.damage import verify
from indexer.export import export_faiss
from indexer.inspect import describe, estimate_recall, tuned_line
from indexer.progress import BarProgress
from indexer.tune_command import tune_command


@click.group()
def index() -> None:
    """Build, change, verify and inspect snapshots.

    Example: drdecr index build --student student --passages passages.jsonl --out snapshot
    """


for _command in (add_command, delete_command, rollback_command, compact_command, merge_command, tune_command):
    index.add_command(_command)


@index.command(name="build")
@click.option("--student", type=AnyPath, help="Student directory that encodes the passages.")
@click.option("--passages", type=FilePath, help="Passages: JSONL or DPR's TSV, gzip allowed.")
@click.option("--vectors", type=FilePath, help="An .npz of `drdecr encode`, instead of student and passages.")
@click.option("--out", required=True, help="Where the snapshot goes; with --ray a URL too, such as s3://bucket/name.")
@click.option("--bits", type=click.Choice([str(bits) for bits in BITS]), default="16", show_default=True)
@click.option("--dims", type=int, help="Keep the first so many dimensions of each token vector; the default is all.")
@click.option("--pool", type=float, default=1.0, show_default=True, help="Keep about one of so many token vectors.")
@click.option("--sentence-weight", type=float, help="With --vectors: weight of the sentence vectors.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of the encoder; the default is its own.")
@click.option("--skip-bad-lines", is_flag=True, help="Count and report bad lines instead of stopping.")
@click.option("--force", is_flag=True, help="Replace the snapshot at --out once the new one is complete.")
@click.option("--ray", metavar="ADDRESS", help="Build on this Ray cluster: HOST:PORT of its head, auto, or local.")
@click.option("--segments", type=click.IntRange(min=1), help="With --ray: segments, as shards hold whole ones.")
@click.option("--encoders", type=click.IntRange(min=1), help="With --ray: students at work; all GPUs or processors.")
@click.option("--chunk-passages", type=click.IntRange(min=1), help="With --ray: what is encoded at a time; 1,024.")
@click.option("--restart", is_flag=True, help="With --ray: throw an unfinished build away instead of going on.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def build_command(
    student: Path | None,
    passages: Path | None,
    vectors: Path | None,
    out: str,
    bits: str,
    dims: int | None,
    pool: float,
    sentence_weight: float | None,
    threads: int | None,
    skip_bad_lines: bool,
    force: bool,
    ray: str | None,
    segments: int | None,
    encoders: int | None,
    chunk_passages: int | None,
    restart: bool,
    as_json: bool,
) -> None:
    """Build a snapshot from passages, or from token vectors.

    --bits, --dims and --pool make it smaller, each at some cost of recall (docs/snapshot-format.md); queries are
    shortened to --dims when they are searched. --pool needs SciPy: pip install 'drdecr[pool]'.

    With --ray a cluster encodes, and a build that was stopped goes on where it was; see docs/clusters.md.

    Example: drdecr index build --student student --passages passages.jsonl --out snapshot
    """
    if ray is None and (segments, encoders, chunk_passages, restart) != (None, None, None, False):
        raise UsageError("--segments, --encoders, --chunk-passages and --restart go with --ray")
    if ray is None and is_url(out):
        raise UsageError(f"--out {out} is a URL, which a build on a cluster writes; give --ray")
    with BarProgress() as progress:
        if ray is not None:
            if student is None or passages is None or vectors is not None or sentence_weight is not None:
                raise UsageError("--ray goes with --student and --passages")
            if threads is not None:
                raise UsageError("--threads does not go with --ray: an encoder takes a processor; see --encoders")
            from indexer.cluster.build import CHUNK_PASSAGES, build_on_cluster

            # Ray says what becomes of its nodes on stdout, where --json has to stay alone.
            with redirect_stdout(sys.stderr):
                report: BuildReport = build_on_cluster(
                    ray,
                    student,
                    passages,
                    out,
                    bits=int(bits),
                    dims=dims,
                    pool=pool,
                    segments=segments,
                    chunk_passages=chunk_passages or CHUNK_PASSAGES,
                    encoders=encoders,
                    force=force,
                    restart=restart,
                    skip_bad_lines=skip_bad_lines,
                    progress=progress,
                )
                leave_cluster()
        elif vectors is not None:
            if student is not None or passages is not None:
                raise UsageError("--vectors replaces --student and --passages; give one or the other")
            report = build_from_vectors(
                vectors,
                Path(out),
                bits=int(bits),
                dims=dims,
                pool=pool,
                force=force,
                sentence_weight=sentence_weight,
                progress=progress,
            )
        else:
            if student is None or passages is None:
                raise UsageError("give --student and --passages, or --vectors")
            if sentence_weight is not None:
                raise UsageError("--sentence-weight goes with --vectors; a student brings its own")
            from drdecr.encoder.load import load_encoder

            report = build(
                load_encoder(student, threads=threads),
                passages,
                Path(out),
                bits=int(bits),
                dims=dims,
                pool=pool,
                force=force,
                skip_bad_lines=skip_bad_lines,
                progress=progress,
            )
    _report(report, as_json=as_json)


@index.command(name="verify")
@click.argument("snapshot", type=AnyPath)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def verify_command(snapshot: Path, as_json: bool) -> None:
    """Hash every file of a snapshot and name those that are damaged.

    Example: drdecr index verify snapshot
    """
    verdict = verify(snapshot)
    damage, whole = verdict.damage, verdict.whole_generation
    if as_json:
        facts = {"snapshot": str(snapshot), "intact": not damage, "damage": damage, "whole_generation": whole}
        click.echo(json.dumps(facts))
    if damage:
        remedy = "build or restore it again"
        if whole is not None:
            remedy = f"generation {whole} is whole: `drdecr index rollback {snapshot} --to {whole}`"
        raise SnapshotCorruptError(f"{snapshot} is damaged: {'; '.join(damage)}; {remedy}")
    if not as_json:
        click.echo(f"{snapshot} is intact")


@index.command()
@click.argument("snapshot", type=AnyPath)
@click.option("--recall", "with_recall", is_flag=True, help="Estimate the recall too, by searching.")
@click.option("--sample", default=100, show_default=True, type=click.IntRange(1, 10_000), help="With --recall.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def info(snapshot: Path, with_recall: bool, sample: int, as_json: bool) -> None:
    """Say what a snapshot holds, how large it is and which student built it.

    --recall searches with --sample passages in place of queries (up to 32 of a passage's tokens, itself not counted)
    and compares the default search with the exact one. Passages lie nearer to passages than queries do: take it as
    an upper bound, and `drdecr index tune` for the recall of your own queries.

    Example: drdecr index info snapshot --recall
    """
    facts = describe(snapshot)
    if with_recall:
        facts |= estimate_recall(snapshot, sample)
    if as_json:
        click.echo(json.dumps(facts))
        return
    facts["tuned"] = tuned_line(facts["tuned"])
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        click.echo(f"{name.replace('_', ' '):{width}}  {value}")


@index.command(name="export-faiss")
@click.argument("snapshot", type=AnyPath)
@click.argument("out", type=AnyPath)
@click.option("--force", is_flag=True, help="Replace the file OUT.")
def export_command(snapshot: Path, out: Path, force: bool) -> None:
    """Write all token vectors of a snapshot as one FAISS index, which `faiss.read_index` opens.

    The id of a vector is (position of its passage << 20) + position of its token.

    Example: drdecr index export-faiss snapshot tokens.faiss
    """
    vectors = export_faiss(snapshot, out, force=force)
    click.echo(f"{out}: {vectors} token vectors")


def _report(report: BuildReport, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(report)))
        return
    click.echo(
        f"{report.out}: {report.passages} passages, {report.tokens} token vectors in {report.lists} lists, "
        f"{report.size_bytes / 1e6:.1f} MB, {report.seconds:.1f} s, version {report.version[:12]}"
    )
    print_losses(report)
