"""`drdecr train`, `drdecr export` and `drdecr quickstart`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from drdecr.corpus import read_passages, read_qrels, read_queries
from drdecr.errors import UsageError


def _quiet_libraries() -> None:
    # Their advice and progress bars would drown our own lines; both variables are the libraries' switches.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    import warnings

    import transformers

    warnings.filterwarnings("ignore", module="torch|transformers|sentence_transformers")
    transformers.utils.logging.disable_progress_bar()


@click.command()
@click.argument("recipe")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting; repeatable.")
@click.option("--out", type=click.Path(path_type=Path), help="The run directory; runs/RECIPE unless given.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out where it stopped.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def train(recipe: str, overrides: tuple[str, ...], out: Path | None, resume: bool, as_json: bool) -> None:
    """Run a recipe: a YAML file, or the name of a shipped one. Its student/ is the product.

    Example: drdecr train quickstart --set stages.token-kd.minutes=1 --out runs/first
    """
    from training.recipe import load_recipe

    found = load_recipe(recipe, overrides)
    _quiet_libraries()
    from training.run import run_recipe

    place = out or Path("runs") / found.name
    student = run_recipe(found, place, resume=resume, say=lambda line: click.echo(line, err=True))
    click.echo(json.dumps({"student": str(student)}) if as_json else f"student: {student}")


@click.command()
@click.argument("student", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--onnx", is_flag=True, help="Write the ONNX serving encoder (the only format so far).")
@click.option("--int8", is_flag=True, help="Also write it in 8 bits; served if the ranking stays.")
@click.option("--queries", type=click.Path(path_type=Path), help="Judged queries for the ranking gate.")
@click.option("--passages", type=click.Path(path_type=Path), help="The passages they are asked over.")
@click.option("--qrels", type=click.Path(path_type=Path), help="Their judgments (TREC).")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.")
@click.option("--json", "as_json", is_flag=True, help="Print the measured quality as JSON.")
def export(
    student: Path,
    onnx: bool,
    int8: bool,
    queries: Path | None,
    passages: Path | None,
    qrels: Path | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Write the serving encoder of a student into its onnx/ folder, with its measured quality beside it.

    Without judged queries the 8-bit file is written but fp32 serves.

    Example: drdecr export run/student --onnx --int8 --queries q.tsv --passages p.jsonl --qrels qrels.trec
    """
    if not onnx:
        raise UsageError("name the format to write: --onnx")
    given = [option for option in (queries, passages, qrels) if option is not None]
    if len(given) not in (0, 3):
        raise UsageError("the ranking gate needs all of --queries, --passages and --qrels, or none of them")
    _quiet_libraries()
    from training.export import export_onnx
    from training.ranking_quality import JudgedTexts

    judged = None
    if queries is not None and passages is not None and qrels is not None:
        judged = JudgedTexts(list(read_queries(queries)), list(read_passages(passages)), read_qrels(qrels))
    manifest = export_onnx(student, int8=int8, judged=judged, threads=threads)
    quality: dict[str, Any] = {kind: one.model_dump() for kind, one in manifest.quality.items()}
    if as_json:
        click.echo(json.dumps({"serves": manifest.serves, "quality": quality}))
        return
    for kind, one in manifest.quality.items():
        ranking = "" if one.ndcg_at_10 is None else f", nDCG@10 {one.ndcg_at_10:.4f} over {one.queries} queries"
        click.echo(f"{kind}: largest difference to torch {one.largest_difference:.2g}{ranking}")
    click.echo(f"serves: {manifest.serves}")


@click.command()
@click.option("--workdir", type=click.Path(path_type=Path), default=Path("quickstart"), show_default=True)
@click.option(
    "--minutes", type=click.FloatRange(min=0.1), default=4.5, show_default=True, help="Minutes of training."
)
@click.option("--no-serve", is_flag=True, help="Stop after the evaluation.")
@click.option("--port", type=click.IntRange(1, 65_535), default=8080, show_default=True)
def quickstart(workdir: Path, minutes: float, no_serve: bool, port: int) -> None:
    """Do the main job: fetch, transfer, distil, export, index, evaluate, serve.

    What is done is not done again; after an interruption the next run goes on. Remove the directory to start over.

    Example: drdecr quickstart --workdir demo --minutes 2
    """
    _quiet_libraries()
    from training.quickstart import Quickstart, check_port, serve_forever

    if not no_serve:
        check_port(port)
    job = Quickstart(workdir, minutes)
    served = job.run()
    if not no_serve:
        serve_forever(job.student, job.snapshot, served, port)
