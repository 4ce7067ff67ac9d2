"""`drdecr search`: answer a file of queries from a snapshot, as a TREC run."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import click

from drdecr.errors import ResourceError, UsageError
from drdecr.index.backend import EFFORTS, Effort, Hit, SearchParams
from drdecr.index.filters import Filter, parse_filter
from drdecr.index.query_source import encoded_queries
from drdecr.index.snapshot import Snapshot
from drdecr.progress import ProgressBar

_TAG = "drdecr"
_FilePath = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command()
@click.argument("snapshot", type=click.Path(path_type=Path))
@click.option("--queries", type=_FilePath, help="Queries: TSV `id text` or JSONL, gzip allowed.")
@click.option("--student", type=click.Path(path_type=Path), help="Student directory that encodes the queries.")
@click.option("--vectors", type=_FilePath, help="An .npz of encoded queries, instead of --student.")
@click.option("--k", default=100, show_default=True, type=click.IntRange(min=1), help="Hits a query.")
@click.option("--nprobe", type=click.IntRange(min=1), help="Inverted lists visited a query token.")
@click.option("--candidates", type=click.IntRange(min=1), help="Passages that are scored by their codes.")
@click.option("--effort", type=click.Choice(EFFORTS), help="Sets both together; the default is balanced.")
@click.option("--filter", "filter_json", metavar="JSON|@FILE", help="Only passages whose metadata pass this filter.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of the encoder; the default is its own.")
@click.option("--run", "run_path", type=click.Path(path_type=Path), help="Where the TREC run goes; else stdout.")
@click.option("--json", "as_json", is_flag=True, help="Print counts and times (and hits, without --run) as JSON.")
def search(
    snapshot: Path,
    queries: Path | None,
    student: Path | None,
    vectors: Path | None,
    k: int,
    nprobe: int | None,
    candidates: int | None,
    effort: Effort | None,
    filter_json: str | None,
    threads: int | None,
    run_path: Path | None,
    as_json: bool,
) -> None:
    """Answer a file of queries from a snapshot.

    Example: drdecr search snapshot --student student --queries queries.tsv --run run.trec

    A filter is JSON: --filter '{"must": [{"field": "component", "eq": "mesh"}]}', or @filter.json
    """
    wanted = None if filter_json is None else _read_filter(filter_json)
    with ExitStack() as stack:
        opened = stack.enter_context(Snapshot.open(snapshot))
        total, encoded = encoded_queries(opened, queries, student, vectors, threads)
        out: IO[str] | None = None
        if run_path is not None:
            out = stack.enter_context(_replaced(run_path))
        elif not as_json:
            out = sys.stdout
        bar = stack.enter_context(ProgressBar("Searching", total, "queries", keep=True))
        results: dict[str, list[Hit]] = {}
        params = SearchParams(nprobe, candidates, effort)
        found, search_s = 0, 0.0
        for ids, batch in encoded:
            started = time.perf_counter()
            ranked = opened.search(batch, k, params, filter=wanted)
            search_s += time.perf_counter() - started
            for query_id, hits in zip(ids, ranked, strict=True):
                found += len(hits)
                if out is not None:
                    out.writelines(_run_lines(query_id, hits))
                else:
                    results[query_id] = hits
            bar.advance(len(ids))
        version = opened.version
    if as_json:
        _print_json(total, found, search_s, version, run_path, results)
    elif run_path is not None:
        click.echo(f"{run_path}: {total} queries, {found} hits, {1000 * search_s / max(total, 1):.2f} ms a search")


def _read_filter(given: str) -> Filter:
    try:
        text = Path(given[1:]).read_text(encoding="utf-8") if given.startswith("@") else given
        return parse_filter(json.loads(text))
    except OSError as problem:
        raise UsageError(f"--filter: {given[1:]} cannot be read: {problem.strerror}") from None
    except (ValueError, RecursionError) as problem:
        raise UsageError(f"--filter is not JSON ({problem})") from None


def _run_lines(query_id: str, hits: list[Hit]) -> Iterator[str]:
    for rank, hit in enumerate(hits, start=1):
        yield f"{query_id} Q0 {hit.id} {rank} {hit.score:.6f} {_TAG}\n"


@contextmanager
def _replaced(path: Path) -> Iterator[IO[str]]:
    """Open a file that appears only when it is complete; what is no file, as a pipe or a terminal, is written to."""
    path = path.resolve()
    if path.exists() and not path.is_file() and not path.is_dir():
        with path.open("w", encoding="utf-8") as file:
            yield file
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            yield file
        partial.replace(path)
    except OSError as problem:
        raise ResourceError(f"{path} cannot be written: {problem.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)


def _print_json(
    queries: int, found: int, search_s: float, version: str, run_path: Path | None, results: dict[str, list[Hit]]
) -> None:
    record: dict[str, object] = {
        "queries": queries,
        "hits": found,
        "search_s": round(search_s, 6),
        "search_ms_per_query": round(1000 * search_s / max(queries, 1), 4),
        "index_version": version,
    }
    if run_path is not None:
        record["run"] = str(run_path)
    else:
        record["results"] = {name: [dataclasses.asdict(hit) for hit in hits] for name, hits in results.items()}
    click.echo(json.dumps(record))
