"""`drdecr index add | delete | rollback | compact | merge`: change snapshots, also those that are serving."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Protocol

import click

from drdecr.corpus import read_lines
from drdecr.encoder.windows import MAX_WINDOWS
from drdecr.errors import UsageError
from drdecr.index.codec import BITS
from indexer.change import ChangeReport, add, add_vectors, delete, rollback
from indexer.compact import compact
from indexer.generations import KEPT
from indexer.merge import OnDuplicate, merge
from indexer.progress import BarProgress

FilePath = click.Path(path_type=Path, exists=True, dir_okay=False)
AnyPath = click.Path(path_type=Path)

json_option = click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
keep_option = click.option(
    "--keep",
    type=click.IntRange(min=0),
    default=KEPT,
    show_default=True,
    help="Earlier generations to keep for rollback.",
)


@click.command(name="add")
@click.argument("snapshot", type=AnyPath)
@click.option("--passages", type=FilePath, help="Passages: JSONL or DPR's TSV, gzip allowed.")
@click.option("--student", type=AnyPath, help="The student that built the snapshot.")
@click.option("--vectors", type=FilePath, help="An .npz of `drdecr encode`, instead of student and passages.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of the encoder; the default is its own.")
@click.option("--skip-bad-lines", is_flag=True, help="Count and report bad lines instead of stopping.")
@keep_option
@json_option
def add_command(
    snapshot: Path,
    passages: Path | None,
    student: Path | None,
    vectors: Path | None,
    threads: int | None,
    skip_bad_lines: bool,
    keep: int,
    as_json: bool,
) -> None:
    """Add passages to a snapshot; one whose id is there replaces the old one.

    Example: drdecr index add snapshot --passages new.jsonl --student student
    """
    with BarProgress() as progress:
        if vectors is not None:
            if student is not None or passages is not None:
                raise UsageError("--vectors replaces --student and --passages; give one or the other")
            report = add_vectors(snapshot, vectors, keep=keep, progress=progress)
        else:
            if student is None or passages is None:
                raise UsageError("give --student and --passages, or --vectors")
            from drdecr.encoder.load import load_encoder

            report = add(
                snapshot,
                load_encoder(student, threads=threads),
                passages,
                skip_bad_lines=skip_bad_lines,
                keep=keep,
                progress=progress,
            )
    print_change(report, f"{report.added} passages added, {report.replaced} of them replaced old ones", as_json)


@click.command(name="delete")
@click.argument("snapshot", type=AnyPath)
@click.option("--ids", help="Ids, separated by commas.")
@click.option("--ids-file", type=FilePath, help="A file of ids, one a line; gzip allowed.")
@click.option("--missing-ok", is_flag=True, help="Pass over ids that are not there.")
@keep_option
@json_option
def delete_command(
    snapshot: Path, ids: str | None, ids_file: Path | None, missing_ok: bool, keep: int, as_json: bool
) -> None:
    """Delete passages by id; they are never found again, compaction frees their space.

    Example: drdecr index delete snapshot --ids p17,p18
    """
    if (ids is None) == (ids_file is None):
        raise UsageError("give --ids or --ids-file")
    wanted = _read_ids(ids_file) if ids_file is not None else [each for each in (ids or "").split(",") if each]
    report = delete(snapshot, wanted, missing_ok=missing_ok, keep=keep)
    print_change(report, f"{report.deleted} passages deleted", as_json)


@click.command(name="rollback")
@click.argument("snapshot", type=AnyPath)
@click.option("--to", type=click.IntRange(min=1), help="The generation to go back to; else the one before.")
@keep_option
@json_option
def rollback_command(snapshot: Path, to: int | None, keep: int, as_json: bool) -> None:
    """Take changes back; `drdecr index info` lists the generations that are kept.

    Example: drdecr index rollback snapshot
    """
    report = rollback(snapshot, to=to, keep=keep)
    print_change(report, "rolled back", as_json)


@click.command(name="compact")
@click.argument("snapshot", type=AnyPath)
@click.option("--retrain", is_flag=True, help="Train the quantiser anew on all passages, without encoding them.")
@click.option("--student", type=AnyPath, help="With --retrain: encode the texts again; fewer bits than 16 need it.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of the encoder; the default is its own.")
@click.option("--bits", type=click.Choice([str(bits) for bits in BITS]), help="With --retrain: bits a dimension.")
@click.option("--keep", type=click.IntRange(min=0), default=0, show_default=True, help="Earlier generations to keep.")
@json_option
def compact_command(
    snapshot: Path,
    retrain: bool,
    student: Path | None,
    threads: int | None,
    bits: str | None,
    keep: int,
    as_json: bool,
) -> None:
    """Write a snapshot anew with fewer segments and no deleted passages, and remove files that nothing needs.

    Example: drdecr index compact snapshot
    """
    encoder = None
    if student is not None:
        from drdecr.encoder.load import load_encoder

        encoder = load_encoder(student, threads=threads)
    with BarProgress() as progress:
        report = compact(
            snapshot,
            retrain=retrain,
            bits=None if bits is None else int(bits),
            encoder=encoder,
            keep=keep,
            progress=progress,
        )
    print_change(report, "compacted", as_json)


@click.command(name="merge")
@click.argument("out", type=AnyPath)
@click.argument("snapshots", type=AnyPath, nargs=-1, metavar="SNAPSHOT SNAPSHOT...")
@click.option(
    "--on-duplicate",
    type=click.Choice(["error", "last"]),
    default="error",
    show_default=True,
    help="When several hold an id: stop, or let the last one win.",
)
@click.option("--force", is_flag=True, help="Replace the snapshot at OUT once the new one is complete.")
@json_option
def merge_command(
    out: Path, snapshots: tuple[Path, ...], on_duplicate: OnDuplicate, force: bool, as_json: bool
) -> None:
    """Make one snapshot, OUT, of several that the same student built.

    Example: drdecr index merge all january february
    """
    with BarProgress() as progress:
        report = merge(out, snapshots, on_duplicate=on_duplicate, force=force, progress=progress)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(report)))
        return
    click.echo(
        f"{report.out}: {report.passages} passages in {report.segments} segments, {report.replaced} of the same id "
        f"left out, {report.size_bytes / 1e6:.1f} MB, {report.seconds:.1f} s, version {report.version[:12]}"
    )


def print_change(report: ChangeReport, done: str, as_json: bool) -> None:
    """Print what a change did."""
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(report)))
        return
    click.echo(
        f"{report.snapshot}: {done}; {report.passages} passages in {report.segments} segments, "
        f"generation {report.generation}, {report.seconds:.1f} s, version {report.version[:12]}"
    )
    if report.missing:
        shown = ", ".join(report.missing[:10]) + (", …" if len(report.missing) > 10 else "")
        click.echo(f"{len(report.missing)} ids were not there: {shown}", err=True)
    print_losses(report)


class Losses(Protocol):
    """What a build or a change reports of its input."""

    @property
    def without_tokens(self) -> int: ...

    @property
    def truncated(self) -> int: ...

    @property
    def skipped_lines(self) -> int: ...

    @property
    def skipped_messages(self) -> list[str]: ...


def print_losses(report: Losses) -> None:
    """Say on stderr what of the input did not become a searchable passage."""
    if report.skipped_lines:
        click.echo(
            f"{report.skipped_lines} bad lines were skipped; the first: {report.skipped_messages[0]}", err=True
        )
    if report.without_tokens:
        click.echo(f"{report.without_tokens} passages have no token vectors and can never be found", err=True)
    if report.truncated:
        click.echo(
            f"the ends of {report.truncated} passages are not in the index: they have more than {MAX_WINDOWS} "
            "windows, or one that is nothing but punctuation",
            err=True,
        )


def _read_ids(path: Path) -> list[str]:
    return [each for _, line in read_lines(path) if (each := line.strip())]
